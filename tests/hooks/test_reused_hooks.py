"""A hook may be given to several fits: each of them sees it as if it were new."""

from __future__ import annotations

import itertools
import re
import threading
from types import SimpleNamespace

import pytest
from attrs import evolve
from conftest import bits
from linear import line

import mip
from mip.errors import MipError
from mip.optim import inject_lr_factor, sgd
from mip.train import State, stateful

ROWS = mip.from_columns({"x": [[k, k % 3] for k in range(8)], "y": [k * k for k in range(8)]})
PLAN = mip.adapt(
    mip.parse("""
branch.x = { kind = "vector", columns = ["x"] }
head = { kind = "regression", column = "y" }
"""),
    ROWS,
)

HOOKS = {
    "checkpoint": lambda folder, said: mip.hooks.checkpoint(
        folder, metric="loss", every=3, keep_last=1
    ),
    "console": lambda folder, said: mip.hooks.console(said.append),
    "early_stop": lambda folder, said: mip.hooks.early_stop("valid/loss", patience=1),
    "limit": lambda folder, said: mip.hooks.limit(epochs=2, batches=3),
    "limit by time": lambda folder, said: mip.hooks.limit(seconds=5),
    "log": lambda folder, said: mip.hooks.log(folder / "log.csv"),
    "nan_guard": lambda folder, said: mip.hooks.nan_guard("roll_back"),
    "reduce_lr_on_plateau": lambda folder, said: mip.hooks.reduce_lr_on_plateau(patience=0),
    "plot_history": lambda folder, said: mip.hooks.plot_history(folder / "history.png"),
    "plot_metrics": lambda folder, said: mip.hooks.plot_metrics(folder),
    "progress": lambda folder, said: mip.hooks.progress(total=12),
    "record": lambda folder, said: mip.hooks.record(said),
    "restore_best": lambda folder, said: mip.hooks.restore_best("valid/loss"),
    "tensorboard": lambda folder, said: mip.hooks.tensorboard(folder / "board"),
    "timing": lambda folder, said: mip.hooks.timing(),
    "validate": lambda folder, said: mip.validate(PLAN, [PLAN.encode(ROWS)]),
}

FIRST = {
    "ends": None,
    "fails": ("after_batch", 6, RuntimeError("a fault")),
    "is interrupted": ("after_batch", 6, KeyboardInterrupt()),
    "fails at once": ("before_fit", 0, RuntimeError("a fault")),
    "fails at its end": ("after_fit", 12, RuntimeError("a fault")),
}
"""How the first of two fits goes."""


def test_every_ready_made_hook_is_tried():
    functions = {name: getattr(mip.hooks, name) for name in mip.hooks.__all__}
    makers = {k for k, f in functions.items() if f.__annotations__.get("return") == "Hook"}
    assert {name.split()[0] for name in HOOKS} == makers


def fitted(hook, scores, fault=None, folder=None):
    """Fit with a hook; give what it answered, which files there were then, and the final state."""
    net, optimizer = mip.build(PLAN), inject_lr_factor(lambda factor: sgd(factor * 0.1))
    step, batches = mip.train_step(net, PLAN.loss, optimizer), mip.batch(2)(PLAN.encode(ROWS))
    seen, left = [], iter(scores)

    def scored(event):
        return {"valid/loss": next(left)} if event.name == "validate" else None

    def fails(event):
        if fault and (event.name, event.step) == fault[:2] and event.error is None:
            raise fault[2]

    def watched(event):
        reply = hook(event)
        shown = bits(reply) if isinstance(reply, State) else repr(reply)
        seen.append((event.name, shown, [*folder.glob("*.png"), *folder.glob("*.csv")] != []))
        return reply

    asked = [fails, watched] if fault and fault[0] == "before_fit" else [watched, fails]
    try:
        ended = mip.fit(step, batches, mip.init(net, optimizer), epochs=3, hooks=[scored, *asked])
    except (RuntimeError, KeyboardInterrupt):
        return seen, None
    return seen, bits(ended)


def two_fits(monkeypatch, folder, make, reused, fault):
    """Fit twice, with one hook or with a new one each time; give what the second fit did."""
    ticks, shown, said = itertools.count(), [], []
    clock = SimpleNamespace(monotonic=lambda: float(next(ticks)))
    monkeypatch.setattr("mip.hooks.terminal.time", clock)
    monkeypatch.setattr("mip.plots.notebook.in_notebook", lambda: True)
    monkeypatch.setattr("mip.plots.notebook.updating_output", lambda: shown.append)
    folder.mkdir()
    one = make(folder, said)
    fitted(one, [3.0, 1.0, 2.0], fault, folder)
    another = one if reused else make(folder, said)
    ticks, files = itertools.count(), [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        path.unlink()
    said.clear(), shown.clear()
    seen, ended = fitted(another, [5.0, 6.0, 7.0], None, folder)
    texts = [re.sub(r"\S:\S\S:\S\S", "", str(each)) for each in shown]
    written = {path.name: path.read_bytes() for path in folder.glob("*.*")}
    return seen, ended, said, texts, written


@pytest.mark.parametrize("fault", FIRST.values(), ids=FIRST)
@pytest.mark.parametrize("name", HOOKS)
def test_a_second_fit_with_the_same_hook_is_that_with_a_fresh_one(
    name, fault, tmp_path, monkeypatch, sketched
):
    fresh = two_fits(monkeypatch, tmp_path / "fresh", HOOKS[name], False, fault)
    again = two_fits(monkeypatch, tmp_path / "again", HOOKS[name], True, fault)
    assert len(fresh[0]) > 5
    assert again == fresh


@pytest.mark.parametrize(
    "hook",
    [mip.hooks.restore_best("loss"), mip.hooks.nan_guard("roll_back")],
    ids=["best", "guard"],
)
def test_the_state_of_another_fit_does_not_come_back(hook):
    step, batches, state = line()
    mip.fit(step, batches, state, epochs=2, hooks=[hook])
    other = evolve(state, params={name: param + 1 for name, param in state.params.items()})
    again = mip.fit(step, batches, other, steps=1, hooks=[hook])
    assert bits(again) == bits(mip.fit(step, batches, other, steps=1))


def test_the_board_of_a_second_fit_is_whole(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    hook = mip.hooks.tensorboard(tmp_path)
    for _ in range(2):
        before = set(tmp_path.iterdir())
        fitted(hook, [3.0, 1.0, 2.0], None, tmp_path)
        (new,) = set(tmp_path.iterdir()) - before
        board = EventAccumulator(str(new)).Reload()
        assert [each.step for each in board.Scalars("valid/loss")] == [4, 8, 12]


def test_fits_at_once_share_a_hook_and_not_what_it_remembers():
    hook, meet, ended = mip.hooks.limit(epochs=2), threading.Barrier(2, timeout=60), []

    def wait(event):
        if event.name == "after_epoch":
            meet.wait()

    def run():
        step, batches, state = line()
        ended.append(mip.fit(step, batches, state, epochs=9, hooks=[wait, hook]).step)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert ended == [8, 8]


def test_a_hook_of_ones_own_remembers_during_a_fit_and_is_named_in_its_errors():
    step, batches, state = line()

    def counts(seen, event):
        seen.append(event.name)
        if len(seen) == 7:
            raise MipError("the seventh event")

    hook = stateful(list, counts)
    for _ in range(2):
        with pytest.raises(MipError, match="the seventh") as caught:
            mip.fit(step, batches, state, epochs=9, hooks=[hook])
        assert caught.value.__notes__[0].startswith("in the hook test_a_hook_of")
        assert "before_batch, step 2" in caught.value.__notes__[0]


def test_what_a_hook_remembers_goes_with_its_fit():
    import gc
    import weakref

    class Large(list):
        pass

    kept = []

    def hook(memory, event):
        memory.append(event.step)
        kept[:] = [weakref.ref(memory)]

    step, batches, state = line()
    mip.fit(step, batches, evolve(state, seed=1), epochs=1, hooks=[stateful(Large, hook)])
    gc.collect()
    assert kept[0]() is None
