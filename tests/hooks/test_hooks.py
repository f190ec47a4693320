"""Ready-made hooks: what each adds, when it stops, and that watching changes nothing."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
import signal
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attrs import evolve
from conftest import bits, fold
from every_head import HEADS, known_of, logits_of
from linear import line, scored
from torch import nn

import mip
from mip.errors import FileError, MipError, MipWarning
from mip.files import save_checkpoint
from mip.hooks import console, limit, nan_guard, record, restore_best, tensorboard, timing
from mip.metrics import HIGHER_IS_BETTER, direction, format_metric
from mip.train import History, Skip, norms
from mip.train.events import EVENTS

EPOCH = ["before_validate", "validate", "after_validate", "after_epoch"]


def names(seen):
    return lambda event: seen.append(event.name)


def says(name, reply):
    return lambda event: reply if event.name == name else None


def test_all_events_of_an_epoch_in_their_order_those_within_the_step_too():
    seen = []

    def message(name):
        return lambda value: seen.append(name) or value

    inside = ("map_logits", "map_loss", "map_grads", "map_params")
    step, batches, state = line(rows=4, **{name: message(name) for name in inside})
    mip.fit(step, batches, state, epochs=1, hooks=[names(seen)])
    batch = ["before_batch", *inside, "after_batch"]
    assert seen == ["before_fit", "before_epoch", *batch, *batch, *EPOCH, "after_fit"]


def test_events_stand_in_the_order_in_which_they_come():
    seen = []
    step, batches, state = line()
    mip.fit(step, batches, state, epochs=1, hooks=[names(seen)])
    places = [EVENTS.index(name) for name in dict.fromkeys(seen)]
    assert places == sorted(places)


def test_validation_can_be_left_out():
    seen, rows = [], []
    step, batches, state = line()
    skip = lambda event: (  # noqa: E731
        Skip.VALIDATION if (event.name, event.epoch) == ("before_validate", 0) else None
    )
    hooks = [skip, scored([1.0]), names(seen), record(rows)]
    mip.fit(step, batches, state, epochs=2, hooks=hooks)
    assert [name for name in seen if name in EPOCH] == ["before_validate", "after_epoch", *EPOCH]
    assert ["valid/loss" in row for row in rows] == [False, True]


def test_a_skip_of_validation_means_nothing_elsewhere():
    step, batches, state = line()
    with pytest.raises(mip.MipError, match=r"VALIDATION.* from after_batch; expected None"):
        mip.fit(step, batches, state, epochs=1, hooks=[says("after_batch", Skip.VALIDATION)])


def test_a_stop_before_validation_still_validates_and_closes_the_epoch():
    seen = []
    step, batches, state = line()
    stop = says("before_validate", mip.Stop("now"))
    mip.fit(step, batches, state, epochs=3, hooks=[stop, names(seen)])
    assert seen[-6:] == [*EPOCH, "after_cancel_fit", "after_fit"]


def test_two_epochs_of_three_batches_are_exactly_those():
    seen = []
    step, batches, state = line()
    hooks = [limit(epochs=2, batches=3), names(seen)]
    mip.fit(step, batches, state, epochs=9, hooks=hooks)
    assert seen.count("after_batch") == 6
    assert seen.count("after_epoch") == seen.count("after_cancel_epoch") == 2


def test_a_fit_ends_after_its_seconds():
    step, batches, state = line()
    slow = lambda event: time.sleep(0.01) if event.name == "before_batch" else None  # noqa: E731
    reasons = []
    hooks = [slow, limit(seconds=0.05), lambda event: reasons.append(event.reason)]
    ended = mip.fit(step, batches, state, epochs=1000, hooks=hooks)
    assert 1 <= ended.step <= 6
    assert "limit(seconds=0.05)" in reasons


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batches": 0}, {"epochs": -1}, {"seconds": -1}])
def test_a_limit_below_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        limit(**wrong)


def spoiled(at):
    """A loss that is not a number at one step."""
    count = iter(range(1000))
    return {"map_loss": lambda loss: loss * (float("nan") if next(count) == at else 1)}


def test_a_loss_that_is_nan_stops_the_fit_and_says_where():
    reasons = []
    step, batches, state = line(**spoiled(2))
    hooks = [nan_guard(), lambda event: reasons.append(event.reason)]
    with pytest.warns(MipWarning, match=r"nan_guard stopped the fit: the loss is nan at step 3; "):
        assert mip.fit(step, batches, state, epochs=3, hooks=hooks).step == 3
    assert "the loss is nan at step 3" in reasons


def test_a_spoiled_batch_is_skipped_as_if_it_had_not_been():
    step, batches, state = line(**spoiled(2), skip_nonfinite=True)
    ended = mip.fit(step, batches, state, epochs=1)
    plain, _, _ = line()
    expected = fold(plain, batches, state, 2)
    expected = evolve(expected, step=3)
    assert bits(ended) == bits(fold(plain, batches, expected, 1))


def test_a_spoiled_epoch_goes_back_to_its_begin():
    step, batches, state = line(**spoiled(5))
    ended = mip.fit(step, batches, state, epochs=2, hooks=[nan_guard("roll_back")])
    plain, _, _ = line()
    expected = evolve(fold(plain, batches, state, 4), step=6)
    assert bits(ended) == bits(fold(plain, batches, expected, 2))


def test_the_best_state_is_restored_at_the_end():
    step, batches, state = line()
    hooks = [scored([3.0, 1.0, 2.0]), restore_best("valid/loss")]
    ended = mip.fit(step, batches, state, epochs=3, hooks=hooks)
    expected = fold(step, batches, state, 8)
    assert bits(ended.params) == bits(expected.params)
    assert ended.step == 12


def test_norms_are_those_before_clipping():
    torch.manual_seed(0)
    net, one = nn.Linear(2, 1), mip.chain(mip.clip_norm(1e-3), mip.sgd(0.1))
    step = mip.train_step(net, F.mse_loss, one, measure=norms)
    state, x = mip.init(net, one), torch.ones(4, 2)
    _, metrics = step(state, (x, torch.full((4, 1), 9.0)))
    grads = torch.autograd.grad(F.mse_loss(net(x), torch.full((4, 1), 9.0)), list(net.parameters()))
    assert metrics["grad_norm"].item() == pytest.approx(
        torch.cat([grad.flatten() for grad in grads]).norm().item()
    )
    weights = torch.cat([param.flatten() for param in state.params.values()])
    assert metrics["weight_norm"].item() == pytest.approx(weights.norm().item())


def test_measured_numbers_are_averaged_over_an_epoch():
    rows = []
    step, batches, state = line(measure=norms)
    mip.fit(step, batches, state, epochs=1, hooks=[record(rows)])
    assert rows[0]["grad_norm"] > 0
    assert list(rows[0]) == ["epoch", "step", "loss", "grad_norm", "weight_norm", "lr"]


def test_time_is_that_of_the_batches():
    rows = []
    step, batches, state = line()
    slow = lambda event: time.sleep(0.02) if event.name == "before_batch" else None  # noqa: E731
    late = lambda event: time.sleep(0.5) if event.name == "validate" else None  # noqa: E731
    mip.fit(step, batches, state, epochs=2, hooks=[timing(), slow, late, record(rows)])
    for row in rows:
        assert 0.08 <= row["seconds"] < 0.5
        assert row["rows_per_second"] == pytest.approx(8 / row["seconds"])


def test_a_log_is_csv_or_json_lines_by_its_name(tmp_path):
    step, batches, state = line()
    files = [tmp_path / "log.csv", tmp_path / "log.jsonl"]
    hooks = [scored([1.0, 2.0]), *map(mip.log, files)]
    mip.fit(step, batches, state, epochs=2, hooks=hooks)
    with files[0].open() as text:
        rows = list(csv.DictReader(text))
    message = [json.loads(text) for text in files[1].read_text().splitlines()]
    assert [{k: float(v) for k, v in row.items()} for row in rows] == message


def test_a_log_of_steps_has_a_row_for_each(tmp_path):
    step, batches, state = line(measure=norms)
    files, message = [tmp_path / "log.csv", tmp_path / "log.jsonl"], []

    def seen(event):
        if event.name == "after_batch":
            message.append(event.metrics["loss"].item())

    hooks = [seen, *(mip.log(path, steps=True) for path in files)]
    mip.fit(step, batches, state, epochs=2, hooks=hooks)
    rows = [json.loads(text) for text in files[1].read_text().splitlines()]
    assert list(rows[0]) == ["loss", "grad_norm", "weight_norm", "lr", "rows", "step"]
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert [row["loss"] for row in rows] == message
    with files[0].open() as text:
        assert [{k: float(v) for k, v in row.items()} for row in csv.DictReader(text)] == rows


def printed(monkeypatch, columns=80, **arguments):
    """The lines of a run of five epochs, in a terminal of so many columns."""
    monkeypatch.setenv("COLUMNS", str(columns))
    said = []
    step, batches, state = line()
    scores = lambda event: (  # noqa: E731
        {"valid/mape": 0.5, "valid/mae": 123456.7, "a/long_name": 1e-5}
        if event.name == "validate"
        else None
    )
    hooks = [scores, console(said.append, **arguments)]
    mip.fit(step, batches, state, epochs=5, hooks=hooks)
    return said


def test_the_console_has_one_header_and_a_line_an_epoch(monkeypatch):
    header, *lines = printed(monkeypatch)
    names = ["epoch", "loss", "valid/mape", "valid/mae", "a/long_name", "lr", "seconds"]
    assert header.split() == names
    ends = [re.search(rf"{name}\b", header).end() for name in names]
    for epoch, text in enumerate(lines, start=1):
        assert [actual.end() for actual in re.finditer(r"\S+", text)] == ends
        assert text.split()[0] == str(epoch)
        assert text.split()[2:5] == ["50.0%", "123,457", "1e-05"]


@pytest.mark.parametrize("columns", range(14, 90, 5))
def test_the_console_is_as_wide_as_the_terminal_and_shows_what_fits(monkeypatch, columns):
    whole = printed(monkeypatch, 999)[0].split()
    lines = printed(monkeypatch, columns)
    assert len({len(text) for text in lines}) == 1
    assert len(lines[0]) <= columns
    shown = lines[0].split()
    assert [*whole[: len(shown) - 1], "seconds"] == shown
    assert shown == whole or len(lines[0]) + 2 + max(len(whole[len(shown) - 1]), 9) > columns


def test_the_console_tells_some_epochs_of_many(monkeypatch):
    lines = printed(monkeypatch, lines=2, epochs=5)
    assert [text.split()[0] for text in lines] == ["epoch", "1", "2", "4", "5"]


@pytest.mark.parametrize("every", [2, 3])
def test_a_metric_that_comes_and_goes_is_blank_below_one_header(every):
    said = []
    step, batches, state = line()
    skip = lambda event: (  # noqa: E731
        Skip.VALIDATION if event.name == "before_validate" and event.epoch % every else None
    )
    hooks = [skip, scored([1.0, 2.0, 3.0, 4.0]), console(said.append)]
    mip.fit(step, batches, state, epochs=7, hooks=hooks)
    header, *lines = said
    assert "valid/loss" in header
    assert [text.split()[0] for text in lines] == list("1234567")
    assert {len(text) for text in lines} == {len(header)}
    counts = [len(text.split()) for text in lines]
    whole = len(header.split())
    assert counts == [whole if epoch % every == 0 else whole - 1 for epoch in range(7)]


def test_a_metric_that_is_new_has_a_header_of_its_own():
    said = []
    step, batches, state = line()
    skip = lambda event: (  # noqa: E731
        Skip.VALIDATION if (event.name, event.epoch) == ("before_validate", 0) else None
    )
    hooks = [skip, scored([1.0, 2.0]), console(said.append)]
    mip.fit(step, batches, state, epochs=3, hooks=hooks)
    firsts = [text.split()[0] for text in said]
    assert firsts == ["epoch", "1", "epoch", "2", "3"]
    assert ["valid/loss" in text for text in said] == [False, False, True, False, False]


def test_the_consoles_seconds_are_those_that_timing_measured():
    said, rows = [], []
    step, batches, state = line()
    mip.fit(step, batches, state, epochs=1, hooks=[timing(), console(said.append), record(rows)])
    assert said[0].split().count("seconds") == 1
    assert said[1].split()[-1] == f"{rows[0]['seconds']:.2f}"


def test_the_console_says_why_a_fit_stopped():
    said = []
    step, batches, state = line()
    mip.fit(step, batches, state, epochs=9, hooks=[limit(epochs=1), console(said.append)])
    assert said[-1] == "stopped: limit(epochs=1)"


@pytest.mark.parametrize("console_first", [True, False])
def test_the_console_has_the_last_epoch_of_a_fit_that_ends_early(console_first):
    said = []
    step, batches, state = line()
    hooks = [scored([3.0, 1.0, 2.0, 2.0, 2.0, 2.0]), console(said.append, lines=2)]
    hooks.insert(2 if console_first else 1, mip.early_stop("valid/loss", patience=2))
    mip.fit(step, batches, state, epochs=90, hooks=hooks)
    assert [text.split()[0] for text in said] == ["epoch", "1", "4", "stopped:"]

    def fails(event):
        if (event.name, event.epoch) == ("before_epoch", 3):
            raise ValueError("broken")

    said.clear()
    with pytest.raises(ValueError, match="broken"):
        mip.fit(step, batches, state, epochs=90, hooks=[fails, console(said.append, lines=2)])
    assert [text.split()[0] for text in said] == ["epoch", "1", "3"]


def test_the_console_says_nan_of_a_loss_that_diverged():
    said = []
    step, batches, state = line(map_loss=lambda loss: loss * math.nan)
    undefined = lambda event: {"valid/auc": math.nan} if event.name == "validate" else None  # noqa: E731
    mip.fit(step, batches, state, epochs=1, hooks=[undefined, console(said.append)])
    assert dict(zip(said[0].split(), said[1].split(), strict=True)).items() >= {
        "loss": "nan", "valid/auc": "n/a",
    }.items()  # fmt: skip


@pytest.fixture
def slow_epochs(monkeypatch):
    """A clock by which a second passes whenever somebody looks at it."""
    clock = SimpleNamespace(monotonic=itertools.count().__next__)
    monkeypatch.setattr("mip.hooks.history.time", clock)


@pytest.mark.usefixtures("slow_epochs")
def test_a_log_is_written_after_each_epoch_and_waits_for_the_disk_at_the_end(tmp_path, monkeypatch):
    written, (step, batches, state) = [], line()
    keep = lambda path, text, overwrite, sync: written.append((text.count(b"\n"), sync))  # noqa: E731
    monkeypatch.setattr("mip.hooks.history.write", keep)
    monkeypatch.setattr("mip.hooks.history.append", lambda path, text: written.append(text))
    mip.fit(step, batches, state, epochs=2, hooks=[mip.log(tmp_path / "log.jsonl")])
    assert written[::2] == [(1, False), (2, True)]
    assert json.loads(written[1])["epoch"] == 1


def test_epochs_too_short_to_be_seen_share_a_write_to_the_log(tmp_path, monkeypatch):
    clock = SimpleNamespace(monotonic=itertools.count(0, 0.03).__next__)
    monkeypatch.setattr("mip.hooks.history.time", clock)
    (step, batches, state), appended = line(), []
    monkeypatch.setattr("mip.hooks.history.append", lambda path, text: appended.append(text))
    mip.fit(step, batches, state, epochs=40, hooks=[mip.log(tmp_path / "log.jsonl")])
    assert 1 < len(appended) < 20
    assert (tmp_path / "log.jsonl").read_text().count("\n") == 40


@pytest.mark.usefixtures("slow_epochs")
@pytest.mark.parametrize("name", ["log.csv", "log.jsonl"])
def test_a_log_has_the_same_rows_while_the_fit_goes_on_as_at_its_end(tmp_path, name):
    step, batches, state = line()
    path, seen = tmp_path / name, []
    late = lambda event: {"late": 1.0} if (event.name, event.epoch) == ("validate", 2) else None  # noqa: E731

    def read(event):
        if event.name == "after_epoch":
            seen.append(path.read_bytes())

    mip.fit(step, batches, state, epochs=4, hooks=[late, mip.log(path), read])
    assert seen[-1] == path.read_bytes()
    assert seen[1].startswith(seen[0])
    assert [text.count(b"\n") for text in seen] == [k + (name == "log.csv") for k in (1, 2, 3, 4)]


def test_epochs_have_checkpoints_of_their_own(tmp_path):
    step, batches, state = line()
    for keep, names in ((-1, ["0000", "0001", "0002", "0003"]), (2, ["0002", "0003"])):
        folder = tmp_path / str(keep)
        hook = mip.checkpoint(folder, keep_last=keep)
        mip.fit(step, batches, state, epochs=4, hooks=[hook])
        files = sorted(folder.glob("epoch-*"))
        assert [path.stem for path in files] == [f"epoch-{name}" for name in names]
        actual = mip.load_checkpoint(files[0], state)
        assert bits(actual.state) == bits(fold(step, batches, state, 4 * (int(names[0]) + 1)))


class Gate:
    """Writes checkpoints, but only once the gate is open."""

    def __init__(self, monkeypatch):
        self.open, self.written = threading.Event(), []
        monkeypatch.setattr("mip.hooks.checkpoints.save_checkpoint", self)

    def __call__(self, path, state, **content):
        assert self.open.wait(10), "nobody opened the gate"
        save_checkpoint(path, state, **content)
        self.written.append((path.stem, state.step))


def opening(gate, at):
    return lambda event: gate.open.set() if (event.name, event.step) == at else None


def test_a_fit_goes_on_while_a_checkpoint_is_written_and_the_next_one_waits(tmp_path, monkeypatch):
    step, batches, state = line()
    gate, seen = Gate(monkeypatch), []
    keep = mip.checkpoint(tmp_path, every=3, metric="loss", keep_last=1)
    note = lambda event: seen.append((event.name, event.step, len(gate.written)))  # noqa: E731
    opened = opening(gate, ("before_batch", 3))
    mip.fit(step, batches, state, epochs=1, hooks=[opened, keep, note])
    assert ("after_batch", 3, 0) in seen
    assert gate.written == [("last", 3), ("best", 4), ("epoch-0000", 4), ("last", 4)]
    assert seen[-1] == ("after_fit", 4, 4)


def test_no_epoch_waits_for_the_last_checkpoint(tmp_path, monkeypatch):
    step, batches, state = line()
    gate = Gate(monkeypatch)
    hooks = [opening(gate, ("before_epoch", 16)), mip.checkpoint(tmp_path)]
    mip.fit(step, batches, state, epochs=5, hooks=hooks)
    assert (gate.written[0], gate.written[-1]) == (("last", 4), ("last", 20))


def test_what_is_written_is_the_state_at_the_event(tmp_path, monkeypatch):
    step, batches, state = line()
    gate = Gate(monkeypatch)
    hooks = [mip.checkpoint(tmp_path, every=2), opening(gate, ("after_batch", 3))]
    mip.fit(step, batches, state, steps=3, hooks=hooks)
    actual = mip.load_checkpoint(tmp_path / "last.safetensors", state)
    assert bits(actual.state) == bits(fold(step, batches, state, 2))


def test_a_fit_that_fails_waits_for_the_checkpoint_under_way(tmp_path, monkeypatch):
    step, batches, state = line()
    gate = Gate(monkeypatch)

    def failing(event):
        if event.name == "on_error":
            threading.Timer(0.05, gate.open.set).start()
        if (event.name, event.step) == ("after_batch", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mip.fit(step, batches, state, steps=4, hooks=[failing, mip.checkpoint(tmp_path, every=1)])
    assert gate.written == [("last", 1)]


def test_an_interrupt_while_a_checkpoint_is_waited_for_waits_for_it_too(tmp_path, monkeypatch):
    step, batches, state = line()
    gate, near = Gate(monkeypatch), threading.Event()

    def interrupting():
        near.wait(10)
        time.sleep(0.1)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.1)
        gate.open.set()

    thread = threading.Thread(target=interrupting)
    thread.start()
    second = lambda event: near.set() if event.step == 2 else None  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        mip.fit(step, batches, state, steps=4, hooks=[second, mip.checkpoint(tmp_path, every=1)])
    assert gate.written == [("last", 1), ("last", 2)]  # the second was copied before
    thread.join()


def test_a_checkpoint_that_cannot_be_written_ends_the_fit_at_the_next_event(tmp_path):
    step, batches, state = line()
    (tmp_path / "file").write_bytes(b"")
    keep, seen = mip.checkpoint(tmp_path / "file", every=2), []
    slow = lambda event: time.sleep(0.05) if event.name == "before_batch" else None  # noqa: E731
    hooks = [names(seen), slow, keep]
    with pytest.raises(FileError, match=r"last\.safetensors: cannot be written") as caught:
        mip.fit(step, batches, state, epochs=9, hooks=hooks)
    assert caught.value.__notes__[0] == "in the hook checkpoint at before_batch, step 2"
    assert seen[-2:] == ["on_error", "after_fit"]


def test_every_metric_of_every_head_knows_its_direction():
    falling = {"log_loss", "mae", "mape", "median_ape", "pinball", "poisson_deviance", "rmse"}
    seen = {name for head in HEADS.values() for name in metrics_of(head)}
    assert {name for name in seen if direction(f"valid/{name}") == "max"} == seen - falling
    assert {direction(f"valid/it.{name}") for name in HIGHER_IS_BETTER} == {"max"}
    assert {direction(name) for name in ("loss", "valid/loss", "loss.0", "grad_norm")} == {"min"}


def metrics_of(head):
    facts, rows = head.adapt(known_of(head)), known_of(head)
    return head.metrics(facts, logits_of(head, facts, len(rows)), head.encode(facts, rows))


def test_the_best_epoch_is_that_of_the_metrics_direction():
    rows = ({"valid/auc": 0.7}, {"valid/auc": 0.9}, {"valid/auc": 0.8})
    assert mip.metrics.best_epoch(rows, "valid/auc") == 1
    assert mip.metrics.best_epoch(rows, "valid/auc", "min") == 0


def test_tensorboard_gets_a_curve_for_each_metric(tmp_path):
    pytest.importorskip("tensorboard")
    step, batches, state = line()
    hooks = [scored([3.0, 1.0]), tensorboard(tmp_path)]
    mip.fit(step, batches, state, epochs=2, hooks=hooks)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = EventAccumulator(str(tmp_path))
    seen.Reload()
    assert {"loss", "valid/loss"} <= set(seen.Tags()["scalars"])
    assert [(each.step, each.value) for each in seen.Scalars("valid/loss")] == [(4, 3.0), (8, 1.0)]


def test_without_tensorboard_the_cure_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(FileError, match=r"pip install 'mixed-input-pipelines\[tensorboard\]'"):
        tensorboard(tmp_path)


@pytest.mark.parametrize(
    "hook",
    [
        timing(),
        limit(epochs=9),
        nan_guard(),
        nan_guard("roll_back"),
        mip.progress(),
        console(str),
    ],
)
def test_watching_changes_nothing(hook):
    step, batches, state = line()
    watched = mip.fit(step, batches, state, epochs=2, hooks=[hook])
    assert bits(watched) == bits(mip.fit(step, batches, state, epochs=2))


# What hooks answer.


@pytest.mark.parametrize("value", [np.float32(0.5), np.int64(2), torch.tensor(0.25), np.array(3.0)])
def test_any_kind_of_number_goes_into_histories_logs_and_checkpoints(value, tmp_path):
    step, batches, state = line()
    measure = lambda event: {"mine": value} if event.name == "validate" else None  # noqa: E731
    files = [mip.log(tmp_path / "log.jsonl"), mip.checkpoint(tmp_path / "kept")]
    mip.fit(step, batches, state, epochs=1, hooks=[measure, *files])
    [row] = mip.load_checkpoint(tmp_path / "kept" / "last.safetensors", state).history.epochs
    assert row["mine"] == float(value)
    assert json.loads((tmp_path / "log.jsonl").read_text())["mine"] == float(value)


@pytest.mark.parametrize("value", ["high", None, torch.ones(2)])
def test_what_is_no_number_is_told_with_the_hook_that_gave_it(value):
    step, batches, state = line()

    def measure(event):
        return {"mine": value} if event.name == "validate" else None

    with pytest.raises(MipError, match=r"^'mine' must be a number, not \w+") as caught:
        mip.fit(step, batches, state, epochs=1, hooks=[measure])
    assert "in the hook" in caught.value.__notes__[0]


def test_a_best_epoch_before_the_fit_is_told():
    step, batches, state = line()
    rising = lambda event: {"m": event.epoch} if event.name == "validate" else None  # noqa: E731
    first = {"epoch": 0, "step": 4, "loss": 1.0, "m": -1.0}
    hooks = [rising, mip.hooks.restore_best("m", mode="min")]
    with pytest.warns(MipWarning, match="epoch 1 was the best and came before this fit"):
        mip.fit(step, batches, state, epochs=1, history=History((first,)), hooks=hooks)


@pytest.mark.parametrize("patience", [0, -1])
def test_early_stop_waits_for_one_epoch_at_least(patience):
    with pytest.raises(ValueError, match="'patience' must be 1 or more"):
        mip.early_stop("loss", patience)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: limit("2"), "limit: epochs must be a whole number, not '2'"),
        (lambda: limit(batches=1.5), "limit: batches must be a whole number, not 1.5"),
        (lambda: limit(seconds="1m"), "limit: seconds must be a number, not '1m'"),
        (
            lambda: console("x"),
            "console: show must be a function of a line, such as print, not 'x'",
        ),
        (
            lambda: mip.early_stop(3, "loss"),
            "early_stop: the metric comes first: early_stop('loss', 3)",
        ),
        (
            lambda: mip.early_stop("loss", "3"),
            "early_stop: patience must be a whole number, not '3'",
        ),
    ],
)
def test_arguments_of_another_type_are_one_error(make, text):
    with pytest.raises(MipError) as caught:
        make()
    assert str(caught.value) == text


def test_numbers_of_numpy_are_numbers():
    step, batches, state = line()
    hooks = [limit(epochs=np.int64(1), seconds=np.float32(99)), mip.early_stop("loss", np.int64(9))]
    assert len(mip.fit(step, batches, state, epochs=3, hooks=hooks).history.epochs) == 1


def test_a_progress_bar_writes_nothing_into_a_file(capfd):
    step, batches, state = line()
    mip.fit(step, batches, state, epochs=2, hooks=[mip.progress()])
    assert capfd.readouterr() == ("", "")


def test_a_plateau_copies_the_state_only_when_the_rate_changes(monkeypatch):
    copies, copy_state = [], mip.train.loop.copy
    for module in (mip.train.loop, mip.train.events):
        monkeypatch.setattr(module, "copy", lambda s, *_: copies.append(s.step) or copy_state(s))
    net, batches = nn.Linear(2, 1), [(torch.ones(4, 2), torch.ones(4, 1))]
    optimizer = mip.optim.inject_lr_factor(lambda factor: mip.sgd(factor * 0.1))
    step = mip.train_step(net, F.mse_loss, optimizer)
    hook = mip.hooks.reduce_lr_on_plateau("m", patience=0, mode="min")
    flat = lambda event: {"m": 1.0} if event.name == "validate" else None  # noqa: E731
    _, history = mip.fit(step, batches, step.init(), epochs=3, hooks=[flat, hook])
    assert [row["lr"] for row in history.epochs] == pytest.approx([0.1, 0.1, 0.01])
    assert copies == [0, 0, 2]  # the fit's, and two that the hook returned


@pytest.mark.parametrize("prefix", ["", "valid/", "price.", "valid/price."])
def test_a_metric_is_printed_alike_alone_and_under_several_heads(prefix):
    for metric, text in {"mape": "25.0%", "median_ape": "25.0%", "top2": "25.0%"}.items():
        assert format_metric(f"{prefix}{metric}", 0.25) == text
