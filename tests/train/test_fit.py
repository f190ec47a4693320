"""Fitting is a fold that composes, at any step, through files, processes and workers."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from attrs import evolve
from conftest import bits, fold, set_up, spec_of
from hypothesis import example, given
from hypothesis import strategies as st
from toolz import pipe
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, IterDataPipe, TensorDataset

import mip
from mip.files import save_checkpoint
from mip.train import History
from mip.train.events import EVENTS

EPOCH = 3
"""Batches in an epoch of the small table."""

LAST = 3 * EPOCH


@pytest.fixture(scope="module")
def setup(table):
    return set_up(spec_of(), table)


@pytest.fixture(scope="module")
def by_workers(table):
    return [set_up(spec_of(), table, workers=k).batches for k in (0, 1, 2)]


@pytest.fixture(scope="module")
def states(setup):
    """The state after every step of three epochs."""
    events = mip.scan(setup.step, setup.batches, setup.state, steps=LAST)
    return [setup.state, *(event.state for event in events)]


@pytest.fixture(scope="module")
def rows(setup):
    """The epochs' rows of an uninterrupted fit."""
    rows = []
    mip.fit(setup.step, setup.batches, setup.state, steps=LAST, hooks=[mip.hooks.record(rows)])
    return rows


def histories(setup, start, steps, history=None):
    """Fit, and give the state with the history at the end."""
    seen = []

    def hook(event):
        if event.name == "after_fit":
            seen.append(event.history)

    state = mip.fit(
        setup.step, setup.batches, start, steps=steps, hooks=[hook], history=history or History()
    )
    return state, seen[0]


@given(cut=st.integers(0, LAST), end=st.integers(0, LAST), workers=st.integers(0, 2))
def test_fit_composes_at_any_step_through_a_file(
    cut, end, workers, setup, states, by_workers, rows, tmp_path_factory
):
    cut, end = sorted((cut, end))
    path = tmp_path_factory.mktemp("cut") / "last.safetensors"
    half, history = histories(setup, setup.state, cut)
    save_checkpoint(path, half, history)
    saved = mip.load_checkpoint(path, setup.state)
    assert bits(saved.state) == bits(states[cut])
    going = setup._replace(batches=by_workers[workers])
    ended, history = histories(going, saved.state, end - cut, saved.history)
    assert bits(ended) == bits(states[end])
    assert list(history.epochs) == rows[: end // EPOCH]
    assert history.steps.get("step", torch.zeros(0)).tolist() == [*range(1, end + 1)]


@given(
    parts=st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(lambda parts: sum(parts) <= 9)
)
@example(parts=[1] * LAST)
def test_fit_composes_of_any_parts(parts, setup, states):
    state = setup.state
    for steps in parts:
        state = mip.fit(setup.step, setup.batches, state, steps=steps)
    assert bits(state) == bits(states[sum(parts)])


def test_fit_composes_by_epochs(setup, states):
    state = setup.state
    for epochs in (1, 0, 2):
        state = mip.fit(setup.step, setup.batches, state, epochs=epochs)
    assert bits(state) == bits(states[3 * EPOCH])


@pytest.mark.parametrize("cut", [1, 2])
def test_an_epoch_begun_is_finished_first_and_counts(setup, states, cut):
    state = mip.fit(setup.step, setup.batches, states[cut], epochs=2)
    assert bits(state) == bits(states[2 * EPOCH])


def test_steps_and_epochs_together_end_at_the_nearer(setup, states):
    one = mip.fit(setup.step, setup.batches, setup.state, epochs=1, steps=100)
    two = mip.fit(setup.step, setup.batches, setup.state, epochs=100, steps=2)
    assert (one.step, two.step) == (EPOCH, 2)


def test_the_end_is_the_fold(setup, states):
    assert bits(states[-1]) == bits(fold(setup.step, setup.batches, setup.state, LAST))


def test_what_should_change_the_outcome_does(table, setup, states):
    def ended(batches, state):
        return bits(mip.fit(setup.step, batches, state, steps=LAST - state.step))["params/" + path]

    path = "head.0.weight"
    other = set_up(spec_of(), table, seed=1)
    unaugmented = evolve(setup.batches, stages=setup.batches.stages[:1])
    outcomes = [
        bits(states[-1])["params/" + path],
        ended(setup.batches, evolve(setup.state, seed=1)),
        ended(other.batches, setup.state),
        ended(unaugmented, setup.state),
        ended(setup.batches, other.state),
        ended(setup.batches, evolve(states[4], step=5)),
    ]
    assert len(set(outcomes)) == len(outcomes)


SCRIPT = """
import sys, hashlib, warnings
sys.path.insert(0, {tests!r})
from mip.errors import MipWarning
warnings.simplefilter("error", MipWarning)
from conftest import bits, set_up, spec_of
import mip
table = mip.read({table!r})
for workers, path, steps in {cuts!r}:
    setup = set_up(spec_of(), table, workers=workers)
    saved = mip.load_checkpoint(path, setup.state)
    ended = mip.fit(setup.step, setup.batches, saved.state, steps=steps, history=saved.history)
    print(hashlib.sha256(repr(bits(ended)).encode()).hexdigest())
"""


def started(script: str) -> subprocess.Popen:
    run = [sys.executable, "-c", script]
    return subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_fresh_process_goes_on_with_the_same_bits(setup, states, folder, tmp_path):
    cuts = []
    for cut, workers in [(EPOCH, 2), (4, 0)]:
        path = tmp_path / f"{cut}.safetensors"
        save_checkpoint(path, states[cut], History())
        cuts.append((workers, str(path), LAST - cut))
    tests, table = str(Path(__file__).parents[1]), str(folder / "houses.csv")
    process = started(SCRIPT.format(tests=tests, table=table, cuts=cuts))
    output, errors = process.communicate(timeout=120)
    want = hashlib.sha256(repr(bits(states[-1])).encode()).hexdigest()
    assert output.split() == [want] * 2, errors


ENDLESS = """
import sys
sys.path.insert(0, {tests!r})
from conftest import set_up, spec_of
import mip
setup = set_up(spec_of(), mip.read({table!r}))
hooks = [mip.checkpoint({out!r}, every=1)]
mip.fit(setup.step, setup.batches, setup.state, steps=10**9, hooks=hooks)
"""


@pytest.mark.slow
@pytest.mark.parametrize("pause", [0.02, 0.11, 0.23])
def test_a_killed_process_leaves_a_checkpoint_to_go_on_from(setup, folder, tmp_path, pause):
    tests, table = str(Path(__file__).parents[1]), str(folder / "houses.csv")
    process = started(ENDLESS.format(tests=tests, table=table, out=str(tmp_path)))
    path, deadline = tmp_path / "last.safetensors", time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(pause)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    saved = mip.load_checkpoint(path, setup.state)
    assert saved.state.step > 0
    want = fold(setup.step, setup.batches, setup.state, saved.state.step + 2)
    got = mip.fit(setup.step, setup.batches, saved.state, steps=2)
    assert bits(got) == bits(want)


# A small problem without photos, for what happens around the steps.


def line(rate=0.1, rows=6, size=3):
    """A linear net, its step, a pipe of whole batches and a state."""
    torch.manual_seed(0)
    net, opt = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)), mip.sgd(rate)
    x = torch.randn(rows, 2, generator=torch.Generator().manual_seed(1))
    batches = pipe((x, x.sum(1)), mip.batch(size))
    return mip.train_step(net, F.mse_loss, opt), batches, mip.init(net, opt)


def names(events):
    def hook(event):
        events.append(event.name)

    return hook


def when(name, reply, at=None):
    """A hook that answers at one event, at one step only if `at` says so."""

    def answer(event):
        return reply if event.name == name and at in (None, event.step) else None

    return answer


class Line(NamedTuple):
    """What `histories` needs of a run."""

    step: mip.train.Step
    batches: mip.pipe.Pipe


def _with(after, **metrics):
    state, measured = after
    return state, {**measured, **metrics}


BATCH = ["before_batch", "after_batch"]
CLOSE = ["before_validate", "validate", "after_validate", "after_epoch"]


def test_events_come_in_their_order():
    step, batches, state = line()
    seen = []
    mip.fit(step, batches, state, epochs=1, hooks=[names(seen)])
    epoch = ["before_epoch", *BATCH, *BATCH, *CLOSE]
    assert seen == ["before_fit", *epoch, "after_fit"]


def test_two_epochs_have_the_events_of_an_epoch_twice():
    step, batches, state = line()
    seen = []
    mip.fit(step, batches, state, epochs=2, hooks=[names(seen)])
    epoch = ["before_epoch", *BATCH, *BATCH, *CLOSE]
    assert seen == ["before_fit", *epoch, *epoch, "after_fit"]
    assert set(seen) <= set(EVENTS)


def test_an_epoch_cut_by_steps_is_not_closed():
    step, batches, state = line()
    seen = []
    mip.fit(step, batches, state, steps=1, hooks=[names(seen)])
    assert seen == ["before_fit", "before_epoch", *BATCH, "after_fit"]


def test_events_count_epochs_and_steps():
    step, batches, state = line()
    seen = []

    def hook(event):
        seen.append((event.name, event.epoch, event.step))

    mip.fit(step, batches, state, epochs=2, hooks=[hook])
    batch_ends = [where for where in seen if where[0] == "after_batch"]
    assert batch_ends == [("after_batch", epoch, 2 * epoch + k) for epoch in (0, 1) for k in (1, 2)]
    assert ("after_epoch", 1, 4) in seen
    assert seen[-1] == ("after_fit", 2, 4)


def test_hooks_are_called_in_the_order_given():
    step, batches, state = line()
    seen = []
    hooks = [lambda event, k=k: seen.append((event.name, k)) for k in range(3)]
    mip.fit(step, batches, state, steps=1, hooks=hooks)
    assert [k for _, k in seen] == [0, 1, 2] * (len(seen) // 3)


def test_a_hook_sees_the_batch_and_the_metrics():
    step, batches, state = line()
    seen = {}

    def hook(event):
        seen.setdefault(event.name, (event.batch, event.metrics))

    mip.fit(step, batches, state, steps=1, hooks=[hook])
    want = next(batches.iter_from(0))
    assert bits(seen["before_batch"][0]) == bits(want)
    assert bits(seen["after_batch"][0]) == bits(want)
    assert seen["before_batch"][1] == {}
    assert float(seen["after_batch"][1]["loss"]) == float(step(state, want)[1]["loss"])


def test_a_skipped_batch_changes_nothing_but_the_count():
    step, batches, state = line()
    seen = []
    skip = when("before_batch", mip.Skip.BATCH, at=0)
    ended = mip.fit(step, batches, state, steps=2, hooks=[skip, names(seen)])
    stream = batches.iter_from(1)
    want, _ = step(evolve(state, step=1), next(stream))
    assert bits(ended) == bits(want)
    middle = ["before_batch", "after_cancel_batch", *BATCH]
    assert seen == ["before_fit", "before_epoch", *middle, *CLOSE, "after_fit"]


def test_a_skipped_epoch_goes_on_with_the_next():
    step, batches, state = line(rows=9)
    seen, skip = [], when("after_batch", mip.Skip.EPOCH, at=1)
    ended = mip.fit(step, batches, state, epochs=2, hooks=[skip, names(seen)])
    first, _ = step(state, next(batches.iter_from(0)))
    want = fold(step, batches, evolve(first, step=3), 3)
    assert bits(ended) == bits(want)
    one = ["before_epoch", *BATCH, "after_cancel_epoch", *CLOSE]
    two = ["before_epoch", *BATCH, *BATCH, *BATCH, *CLOSE]
    assert seen == ["before_fit", *one, *two, "after_fit"]


def test_an_epoch_skipped_from_its_start_takes_no_batch():
    step, batches, state = line()
    seen, skip = [], when("before_epoch", mip.Skip.EPOCH, at=0)
    ended = mip.fit(step, batches, state, epochs=2, hooks=[skip, names(seen)])
    assert seen.count("after_batch") == 2
    assert bits(ended) == bits(fold(step, batches, evolve(state, step=2), 2))


@pytest.mark.parametrize("name", ["before_batch", "after_batch", "after_epoch"])
def test_a_stop_ends_the_fit_and_says_why(name):
    step, batches, state = line()
    seen, reasons = [], []

    def hook(event):
        reasons.extend([event.reason] if event.name == "after_cancel_fit" else [])

    stop = when(name, mip.Stop("enough"), at=2)
    ended = mip.fit(step, batches, state, epochs=9, hooks=[stop, names(seen), hook])
    assert reasons == ["enough"] == [ended.stop_reason]
    assert seen[-2:] == ["after_cancel_fit", "after_fit"]
    assert bits(ended) == bits(fold(step, batches, state, 2))


@pytest.mark.parametrize("name", ["before_fit", "before_epoch"])
def test_a_stop_before_the_first_batch_leaves_the_state(name):
    step, batches, state = line()
    ended = mip.fit(step, batches, state, epochs=9, hooks=[when(name, mip.Stop("no"))])
    assert bits(ended) == bits(state)


@pytest.mark.parametrize("pipe_of", [lambda batches: batches, list], ids=["pipe", "list"])
def test_epochs_skipped_from_their_start_count(pipe_of):
    step, batches, state = line()
    rows = []
    hooks = [when("before_epoch", mip.Skip.EPOCH), mip.hooks.record(rows)]
    ended = mip.fit(step, pipe_of(batches), state, epochs=3, hooks=hooks)
    assert bits(ended.params) == bits(state.params)
    assert [row["epoch"] for row in rows] == [0, 1, 2]


@pytest.mark.parametrize("name", ["after_cancel_epoch", "after_epoch"])
def test_a_stop_after_something_was_skipped_ends_the_fit(name):
    step, batches, state = line()
    reply = mip.Skip.EPOCH if name == "after_cancel_epoch" else mip.Skip.VALIDATION
    skip = when("after_batch" if reply is mip.Skip.EPOCH else "before_validate", reply)
    ended = mip.fit(step, batches, state, epochs=3, hooks=[skip, when(name, mip.Stop("enough"))])
    assert ended.step == 2


@pytest.mark.parametrize(
    "swap",
    [
        lambda step, batches, start: (batches, step, start),
        lambda step, batches, start: (step, batches, step.net),
        lambda step, batches, start: (step, batches, None),
    ],
)
def test_arguments_in_another_order_are_named(swap):
    with pytest.raises(
        mip.MipError,
        match=r"the order is fit\(step, batches, state\)|the state must be a State",
    ):
        mip.fit(*swap(*line()), epochs=1)


def test_a_state_is_not_a_net_or_a_checkpoint(tmp_path):
    step, batches, start = line()
    mip.fit(step, batches, start, epochs=1, hooks=[mip.checkpoint(tmp_path)])
    path = tmp_path / "last.safetensors"
    with pytest.raises(
        mip.MipError, match=r"the state must be a State, not Sequential: step.init\(\)"
    ):
        mip.load_checkpoint(path, step.net)
    with pytest.raises(
        mip.MipError, match=r"the state must be a State, not Checkpoint: it has one as .state"
    ):
        mip.module(step.net, mip.load_checkpoint(path, start))
    with pytest.raises(mip.MipError, match=r"the net must be an nn\.Module, not State"):
        mip.module(start, step.net)


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        (mip.hooks.timing(), r"hooks must be a list, hooks=\[…\], not a function"),
        ("log", "hooks must be a list"),
        ([None], "a hook must be a function of an event, not a NoneType"),
        ([mip.log], r"log makes a hook: call it, as in hooks=\[log\(…\)\]"),
    ],
)
def test_what_is_no_list_of_hooks_is_said_before_the_first_step(hooks, message):
    step, batches, start = line()
    with pytest.raises(mip.MipError, match=message):
        mip.fit(step, batches, start, epochs=1, hooks=hooks)


def test_an_unexpected_reply_is_named_with_its_hook():
    step, batches, state = line()
    expected = "expected None, Stop, Skip.EPOCH, a State or a mapping of numbers"
    with pytest.raises(mip.MipError, match=f"returned 3 from after_batch; {expected}") as caught:
        mip.fit(step, batches, state, epochs=1, hooks=[when("after_batch", 3)])
    assert caught.value.__notes__[0] == "in the hook when at after_batch, step 1"


@pytest.mark.parametrize("name", ["before_epoch", "before_batch"])
def test_a_stop_before_an_epoch_adds_no_row(name):
    step, batches, state = line()
    rows, stop = [], when(name, mip.Stop("enough"), at=2)
    mip.fit(step, batches, state, epochs=9, hooks=[stop, mip.hooks.record(rows)])
    assert [row["epoch"] for row in rows] == [0]


@pytest.mark.parametrize(
    ("name", "reply"), [("after_batch", mip.Skip.BATCH), ("after_epoch", mip.Skip.EPOCH)]
)
def test_a_skip_where_nothing_can_be_skipped_does_not_end_the_fit(name, reply):
    step, batches, state = line()
    try:
        ended = mip.fit(step, batches, state, epochs=2, hooks=[when(name, reply, at=2)])
    except mip.MipError:
        return
    assert ended.step == 4


def test_a_new_state_is_taken_over_and_not_written_into():
    step, batches, state = line()
    zero = evolve(state, params={path: torch.zeros_like(p) for path, p in state.params.items()})
    before = bits(zero)
    ended = mip.fit(step, batches, state, steps=2, hooks=[when("after_batch", zero, at=1)])
    want, _ = step(evolve(zero, step=1), next(batches.iter_from(1)))
    assert bits(ended) == bits(want)
    assert bits(zero) == before


def test_later_events_see_a_new_state():
    step, batches, state = line()
    zero = evolve(state, params={path: torch.zeros_like(p) for path, p in state.params.items()})
    seen = []

    def hook(event):
        if event.name == "before_batch":
            seen.append(bits(event.state.params) == bits(zero.params))

    mip.fit(step, batches, state, steps=2, hooks=[when("after_batch", zero, at=1), hook])
    assert seen == [False, True]


def test_numbers_answered_after_an_epoch_join_its_row():
    step, batches, state = line()
    rows, seen = [], []

    def later(event):
        if event.name == "after_epoch":
            seen.append(event.metrics["valid/loss"])

    hooks = [when("after_epoch", {"valid/loss": 0.5}), later, mip.hooks.record(rows)]
    _, history = histories_of(step, batches, state, hooks)
    assert seen == [0.5, 0.5]
    assert [row["valid/loss"] for row in rows] == [0.5, 0.5]
    assert [row["valid/loss"] for row in history.epochs] == [0.5, 0.5]


def histories_of(step, batches, state, hooks):
    seen = []

    def hook(event):
        if event.name == "after_fit":
            seen.append(event.history)

    return mip.fit(step, batches, state, epochs=2, hooks=[*hooks, hook]), seen[0]


@pytest.mark.parametrize("name", ["before_fit", "before_epoch", *BATCH, "after_epoch"])
def test_a_hook_that_raises_is_named_and_the_fit_is_told(name):
    def broken(event):
        if event.name == name:
            raise ZeroDivisionError("broken hook")

    step, batches, state = line()
    seen, errors = [], []

    def hook(event):
        errors.extend([event.error] if event.name == "on_error" else [])

    with pytest.raises(ZeroDivisionError, match="broken hook") as caught:
        mip.fit(step, batches, state, epochs=1, hooks=[names(seen), hook, broken])
    note = caught.value.__notes__[0]
    assert "hook" in note
    assert f"at {name}, step" in note
    assert seen[-2:] == ["on_error", "after_fit"]
    assert errors == [caught.value]


def broken_hook(event):
    if event.name == "before_fit":
        raise ValueError("no")


def test_the_note_names_the_hook():
    step, batches, state = line()
    with pytest.raises(ValueError, match="no") as caught:
        mip.fit(step, batches, state, epochs=1, hooks=[broken_hook])
    assert caught.value.__notes__[-1] == "in the hook broken_hook at before_fit, step 0"


def test_a_hook_that_raises_the_error_again_is_named_once_at_each_event():
    def stubborn(event):
        if event.name == "before_epoch":
            raise ValueError("no")
        if event.error:
            raise event.error

    step, batches, state = line()
    with pytest.raises(ValueError, match="no") as caught:
        mip.fit(step, batches, state, epochs=1, hooks=[stubborn])
    places = [note.partition(" at ")[2] for note in caught.value.__notes__]
    assert places == [f"{name}, step 0" for name in ("before_epoch", "on_error", "after_fit")]


def test_a_step_that_raises_is_told_and_raised():
    def loss(logits, target):
        raise ZeroDivisionError("broken loss")

    net, opt, seen = nn.Linear(2, 1), mip.sgd(), []
    _, batches, _ = line()
    step = mip.train_step(net, loss, opt)
    with pytest.raises(ZeroDivisionError, match="broken loss"):
        mip.fit(step, batches, mip.init(net, opt), epochs=1, hooks=[names(seen)])
    assert seen == ["before_fit", "before_epoch", "before_batch", "on_error", "after_fit"]


def test_a_stage_that_raises_is_told_and_raised():
    def broken(batch):
        raise ZeroDivisionError("broken stage")

    step, batches, state = line()
    seen = []
    with pytest.raises(ZeroDivisionError, match="broken stage") as caught:
        mip.fit(step, mip.transform(broken)(batches), state, epochs=1, hooks=[names(seen)])
    assert seen[-2:] == ["on_error", "after_fit"]
    assert "in rows 0, 1, 2 of epoch 0" in caught.value.__notes__


def test_the_state_told_on_an_error_is_the_one_before_the_failed_step():
    def loss(logits, target):
        if target.isnan().any():
            raise ZeroDivisionError("broken loss")
        return F.mse_loss(logits, target)

    net, opt = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1), nn.Flatten(0)), mip.sgd()
    x, y = torch.randn(4, 2), torch.tensor([1.0, 1.0, float("nan"), 1.0])
    step, batches = mip.train_step(net, loss, opt), pipe((x, y), mip.batch(2))
    state, seen = mip.init(net, opt), []

    def hook(event):
        seen.extend([event.state] if event.name in ("after_batch", "on_error") else [])

    with pytest.raises(ZeroDivisionError):
        mip.fit(step, batches, state, epochs=1, hooks=[hook])
    assert bits(seen[1]) == bits(seen[0])


def test_an_event_read_too_late_says_so():
    step, batches, state = line()
    kept = []
    mip.fit(step, batches, state, epochs=1, hooks=[kept.append])
    for event in kept:
        with pytest.raises(mip.MipError, match=f"the {event.name} event of step"):
            _ = event.state
        with pytest.raises(mip.MipError, match="must be read before the next event"):
            _ = event.history


def test_a_state_read_in_time_does_not_change_later():
    step, batches, state = line()
    kept = []
    hook = lambda event: kept.append(event.state)  # noqa: E731
    mip.fit(step, batches, state, steps=4, hooks=[hook])
    once = bits(fold(step, batches, state, 1))
    assert bits(kept[0]) == bits(state)
    assert once in [bits(copy) for copy in kept]


def test_a_state_can_be_read_into_the_memory_of_an_earlier_one():
    step, batches, state = line()
    kept, places = [], set()

    def hook(event):
        kept[:] = [event.copy(*kept)]
        assert bits(kept[0]) == bits(event.state)
        places.add(kept[0].params["0.weight"].data_ptr())

    ended = mip.fit(step, batches, state, steps=4, hooks=[hook])
    assert bits(kept[0]) == bits(ended) != bits(state)
    assert len(places) == 1


def test_an_epoch_row_is_the_mean_over_rows():
    # With a rate of 0 the net stands still, and the mean is the loss over all rows.
    step, batches, state = line(rate=0.0, rows=7, size=3)
    rows = []
    mip.fit(step, batches, state, epochs=2, hooks=[mip.hooks.record(rows)])
    whole = pipe(batches.source, mip.batch(7))
    want = float(step(state, next(whole.iter_from(0)))[1]["loss"])
    assert [row["loss"] for row in rows] == [pytest.approx(want)] * 2
    assert [(row["epoch"], row["step"]) for row in rows] == [(0, 3), (1, 6)]


def test_the_history_holds_every_step_and_knows_those_of_the_epoch_begun():
    step, batches, state = line(rows=7, size=3)
    seen = []

    def hook(event):
        if event.name == "after_batch":
            seen.append(event.history)

    mip.fit(step, batches, state, steps=4, hooks=[hook])
    assert [history.steps["rows"].tolist() for history in seen] == [
        [3],
        [3, 3],
        [3, 3, 1],
        [3, 3, 1, 3],
    ]
    assert [int(history.unfinished.sum()) for history in seen] == [1, 2, 3, 1]
    assert seen[-1].steps["step"].tolist() == [1, 2, 3, 4]
    assert len(seen[-1].steps["loss"]) == 4


def test_an_epoch_whose_batches_are_over_is_closed_first_and_counts():
    step, batches, state = line()
    kept, seen = [], []
    keep = lambda event: kept.append((event.state, event.history))  # noqa: E731
    after = lambda event: keep(event) if event.name == "after_batch" else None  # noqa: E731
    mip.fit(step, batches, state, epochs=1, hooks=[after])
    state, history = kept[-1]
    assert (state.step, len(history.epochs), history.unfinished.tolist()) == (2, 0, [True, True])
    rows = []
    hooks = [names(seen), rows.append]
    ended = mip.fit(step, batches, state, epochs=1, hooks=hooks, history=history)
    assert bits(ended) == bits(state)
    assert seen == [
        *("before_fit", "before_validate", "validate", "after_validate", "after_epoch"),
        "after_fit",
    ]
    assert [event.epoch for event in rows if event.name == "after_epoch"] == [0]


def test_a_history_goes_on_with_another_measure():
    step, batches, state = line()
    half, first = histories(Line(step, batches), state, 3)
    measured = mip.train_step(nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)), F.mse_loss, mip.sgd())
    more = evolve(measured, donate=lambda s, b: _with(measured.donate(s, b), extra=1.0))
    _, history = histories(Line(more, batches), half, 2, first)
    assert history.steps["extra"].isnan().tolist() == [True, True, True, False, False]
    assert history.steps["step"].tolist() == [1, 2, 3, 4, 5]


def test_a_history_given_is_gone_on_with():
    step, batches, state = line()
    first = History(epochs=({"epoch": 0, "step": 2, "loss": 9.0},))
    rows, seen = [], []

    def hook(event):
        if event.name == "after_epoch":
            seen.append([row["epoch"] for row in event.history.epochs])

    after = fold(step, batches, state, 2)
    hooks = [hook, mip.hooks.record(rows)]
    mip.fit(step, batches, after, epochs=1, hooks=hooks, history=first)
    assert seen == [[0, 1]]
    assert [row["epoch"] for row in rows] == [1]


# Other sources of batches.


def sources():
    _, batches, _ = line()
    x, y = batches.source
    data = TensorDataset(x, y)

    class Rows(IterableDataset):
        def __iter__(self):
            return iter(data)

    class Pipe(IterDataPipe):
        def __iter__(self):
            return iter(list(batches))

    class Again:
        def __iter__(self):
            return iter(batches)

    return {
        "loader": DataLoader(data, batch_size=3),
        "loader of a stream": DataLoader(Rows(), batch_size=3),
        "data pipe": Pipe(),
        "iterable": Again(),
        "list": list(batches),
    }


@pytest.mark.parametrize(
    "name",
    [
        "loader",
        pytest.param(
            "loader of a stream",
        ),
        "data pipe",
        "iterable",
        "list",
    ],
)
def test_any_iterable_of_batches_fits_the_same(name):
    step, batches, state = line()
    ended = mip.fit(step, sources()[name], state, epochs=3)
    assert bits(ended) == bits(fold(step, batches, state, 6))


def test_an_iterable_ends_at_the_step_asked_for():
    step, batches, state = line()
    ended = mip.fit(step, sources()["iterable"], state, steps=3)
    assert bits(ended) == bits(fold(step, batches, state, 3))


def test_a_generator_that_is_used_up_is_an_error():
    step, batches, state = line()
    with pytest.raises(mip.MipError, match="a generator yields its batches once, and 2 epochs"):
        mip.fit(step, (batch for batch in batches), state, epochs=2)
    assert mip.fit(step, (batch for batch in batches), state, epochs=2, steps=1).step == 1
    assert mip.fit(step, (batch for batch in batches), state, epochs=1).step == len(batches)


def test_an_iterator_of_another_class_may_start_again_and_says_when_it_does_not():
    class Once(list):
        def __iter__(self):
            yield from [self.pop() for _ in range(len(self))]

    step, batches, state = line()
    with pytest.raises(mip.errors.DataError, match="must be iterable again for every epoch"):
        mip.fit(step, Once(batches), state, epochs=2)


@pytest.mark.parametrize("empty", [[], pipe(torch.empty(0, 2), mip.batch(3))])
def test_a_source_without_batches_is_an_error(empty):
    step, _, state = line()
    with pytest.raises(mip.errors.DataError, match=r"fit: the pipe (has|yielded) no batches"):
        mip.fit(step, empty, state, epochs=1)


def test_fit_must_be_told_how_far():
    step, batches, state = line()
    with pytest.raises(mip.MipError, match=r"needs epochs= or steps="):
        mip.fit(step, batches, state)


# The same fold, in one's own hands.


def test_scan_gives_an_event_after_every_step():
    step, batches, state = line()
    events = [(event.step, bits(event.state)) for event in mip.scan(step, batches, state, epochs=2)]
    assert events == [(k, bits(fold(step, batches, state, k))) for k in (1, 2, 3, 4)]


def test_scan_goes_on_until_it_is_left():
    step, batches, state = line()
    losses = [float(event.metrics["loss"]) for event in islice(mip.scan(step, batches, state), 30)]
    assert len(losses) == 30
    assert all(later < first for first, later in pairwise(losses[::2]))


def test_scan_leaves_the_given_state_alone():
    step, batches, state = line()
    before = bits(state)
    list(mip.scan(step, batches, state, steps=3))
    assert bits(state) == before


def test_an_event_of_scan_is_read_before_the_next():
    step, batches, state = line()
    events = list(mip.scan(step, batches, state, steps=2))
    with pytest.raises(mip.MipError, match="is over"):
        _ = events[0].state


# Ready-made hooks.


def epochs_of(values, metric="valid/loss"):
    """Fit with a metric that takes the given values, epoch by epoch."""

    def hook(event):
        return {metric: values[event.epoch]} if event.name == "after_epoch" else None

    return hook


def test_early_stop_waits_as_long_as_told():
    step, batches, state = line()
    hooks = [epochs_of([3, 2, 2.5, 2.1, 1, 0]), mip.early_stop("valid/loss", patience=2)]
    assert mip.fit(step, batches, state, epochs=6, hooks=hooks).step == 2 * 4


def test_early_stop_goes_on_while_it_gets_better():
    step, batches, state = line()
    hooks = [epochs_of([3, 2, 2.5, 1, 1.5, 0.5]), mip.early_stop("valid/loss", patience=2)]
    ended = mip.fit(step, batches, state, epochs=6, hooks=hooks)
    assert (ended.step, ended.stop_reason) == (2 * 6, None)


def test_the_best_checkpoint_is_that_of_the_best_epoch(tmp_path):
    step, batches, state = line()
    hooks = [epochs_of([3, 1, float("nan"), 2]), mip.checkpoint(tmp_path, metric="valid/loss")]
    ended = mip.fit(step, batches, state, epochs=4, hooks=hooks)
    best = mip.load_checkpoint(tmp_path / "best.safetensors", state)
    last = mip.load_checkpoint(tmp_path / "last.safetensors", state)
    assert bits(best.state) == bits(fold(step, batches, state, 4))
    assert bits(last.state) == bits(ended)
    assert str(last.history.epochs[2]["valid/loss"]) == "nan"


def test_a_log_has_a_line_for_each_epoch_and_goes_on_after_a_resume(tmp_path):
    step, batches, state = line()
    path, whole = tmp_path / "log.jsonl", tmp_path / "whole.jsonl"
    mip.fit(step, batches, state, epochs=4, hooks=[mip.log(whole)])
    hooks = [mip.log(path), mip.checkpoint(tmp_path, every=1)]
    mip.fit(step, batches, state, steps=5, hooks=hooks)
    saved = mip.load_checkpoint(tmp_path / "last.safetensors", state)
    mip.fit(step, batches, saved.state, steps=3, hooks=hooks, history=saved.history)
    assert path.read_text() == whole.read_text()
    assert [json.loads(text)["epoch"] for text in path.read_text().splitlines()] == [0, 1, 2, 3]


def test_validation_scores_a_net_of_its_own(table):
    setup = set_up(spec_of(), table)
    rows, batches = [], pipe(table, mip.batch(4), mip.transform(setup.plan.encode))
    hooks = [mip.validate(setup.plan, batches), mip.hooks.record(rows)]
    ended = mip.fit(setup.step, setup.batches, setup.state, epochs=1, hooks=hooks)
    want = mip.evaluate(mip.predictor(setup.plan, ended), table)
    assert {name: rows[0][f"valid/{name}"] for name in want} == pytest.approx(want, rel=1e-5)
    assert setup.net.training


def test_a_metric_of_ones_own_sees_all_rows_at_once(table):
    setup = set_up(spec_of(), table)
    rows, batches = [], pipe(table, mip.batch(5), mip.transform(setup.plan.encode))
    own = {"worst": lambda logits, target: (logits - target).abs().max()}
    hooks = [mip.validate(setup.plan, batches, metrics=own), mip.hooks.record(rows)]
    ended = mip.fit(setup.step, setup.batches, setup.state, epochs=1, hooks=hooks)
    predict = mip.predictor(setup.plan, ended)
    batch = setup.plan.encode(table)
    worst = float((predict.forward(batch) - batch.target).abs().max())
    assert rows[0]["valid/worst"] == pytest.approx(worst, rel=1e-5)
    assert mip.evaluate(predict, table, own)["worst"] == pytest.approx(worst, rel=1e-5)


def test_watching_changes_nothing(table):
    setup = set_up(spec_of(), table)
    batches = pipe(table, mip.batch(4), mip.transform(setup.plan.encode))
    hooks = [mip.validate(setup.plan, batches), lambda event: torch.rand(1) and None]
    watched = mip.fit(setup.step, setup.batches, setup.state, epochs=2, hooks=hooks)
    assert bits(watched) == bits(mip.fit(setup.step, setup.batches, setup.state, epochs=2))


def test_what_fails_because_of_an_error_does_not_hide_it(table):
    setup = set_up(spec_of(), table)

    def first(event):
        if event.name == "after_batch":
            raise ZeroDivisionError

    def later(event):
        if event.name in {"on_error", "after_fit"}:
            raise OSError(f"no room at {event.name}")

    with pytest.raises(ZeroDivisionError) as caught:
        mip.fit(setup.step, setup.batches, setup.state, epochs=1, hooks=[first, later])
    notes = "\n".join(caught.value.__notes__)
    assert "then OSError: no room at on_error\nthen OSError: no room at after_fit" in notes
