"""Ready-made hooks: functions of an event, most of them of its history alone; what the others
remember is made anew for each fit.
"""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import time
import warnings
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import torch
from attrs import define, evolve, field

from mip.compositions import adjusted
from mip.curves import curves
from mip.errors import DataError, FileError, MipError, MipWarning, hint
from mip.figure import figure, png
from mip.fit import Event, History, Hook, Reply, Skip, Stop, stateful
from mip.net import Net, build
from mip.notebook import in_notebook, in_place
from mip.output import check_output, write
from mip.plan import NO_METRICS, Metric, Plan
from mip.schedules import Schedule
from mip.schedules import plateau as reduced
from mip.spec import KINDS
from mip.step import Metrics, State, eval_step
from mip.store import checkpoints, peek, save_checkpoint
from mip.tree import concat, map_tree, size


def progress(total: int | None = None, label: str = "fit") -> Hook:
    """Show a bar with the step, the first number that the step gives (its loss) and the time left:
    on standard error while the fit lasts, in a notebook below the cell, where it stays as it ended.

    `total` is the number of steps it ends at.
    """

    def hook(bar: _Bar, event: Event) -> Reply:
        if event.name == "before_fit":
            bar.start()
        elif event.name == "after_batch":
            name, value = next(iter(event.metrics.items()))
            bar.last = (event.step, name, value)
            # Reading a number waits for the device, so it is read ten times a second at most.
            if time.monotonic() - bar.drawn > 0.1:
                bar.draw()
        elif event.name == "on_error":
            bar.last = None  # a number of what has failed may not be there to be read
        elif event.name == "after_fit":
            bar.draw()
            bar.stop()
        return None

    return stateful(partial(_bar, total, label), hook)


@define
class _Bar:
    start: Callable[[], None]
    stop: Callable[[], None]
    show: Callable[[int, str, Any], None]
    last: tuple[int, str, Any] | None = None
    drawn: float = -math.inf

    def draw(self) -> None:
        self.drawn = time.monotonic()
        if self.last is not None:
            self.show(*self.last)


def _bar(total: int | None, label: str) -> _Bar:
    from rich import progress as rich
    from rich.console import Console

    parts = ("{task.description}", rich.BarColumn(), rich.MofNCompleteColumn())
    left = rich.TimeRemainingColumn(elapsed_when_finished=True)
    below = in_place() if in_notebook() else None
    text = Console(file=io.StringIO(), width=100, force_jupyter=False, force_terminal=False)
    target = text if below else Console(stderr=True)
    bar = rich.Progress(*parts, left, console=target, transient=True, disable=bool(below))
    task = bar.add_task(label, total=total)

    def show(step: int, name: str, value: Any) -> None:
        bar.update(task, completed=step, description=f"{label} {name} {float(value):.4g}")
        if below:
            with text.capture() as line:
                text.print(bar.get_renderable())
            below({"text/plain": line.get().rstrip()})

    return _Bar(bar.start, bar.stop, show)


def console(say: Callable[[str], None] = print, lines: int = 10, epochs: int | None = None) -> Hook:
    """Print a table with a line for the first epoch, about `lines` others of a run of `epochs`, and
    the last; without `epochs`, for all. The columns are those of the epoch's row that fit into the
    terminal, and its seconds, validation included unless `timing` has measured them.

    The header stands again above a line with other columns.
    """

    def hook(table: _Table, event: Event) -> Reply:
        if event.name == "before_epoch":
            table.began = time.monotonic()
        elif event.name == "after_epoch":
            every = max(1, (epochs or 0) // lines)
            if (event.epoch + 1) % every == 0 or event.epoch + 1 in {1, epochs}:
                seconds = time.monotonic() - table.began
                header, line = _lines({"seconds": seconds, **event.metrics})
                if header != table.header:
                    say(header)
                table.header = header
                say(line)
        elif event.name == "after_cancel_fit":
            say(f"stopped: {event.reason}")
        return None

    return stateful(_Table, hook)


@define
class _Table:
    began: float = field(factory=time.monotonic)
    header: str = ""


def _lines(row: Mapping[str, float]) -> tuple[str, str]:
    # As many metrics as there is room for stand between epoch and seconds; the log has them all.
    names = [name for name in row if name not in {"epoch", "step", "seconds"}]
    widths = {name: max(len(name), 9) for name in names}
    ends = accumulate(width + 2 for width in widths.values())
    room = shutil.get_terminal_size().columns - len("epoch  seconds")
    shown = names[: sum(end <= room for end in ends)]
    header = "".join(f"  {name:>{widths[name]}}" for name in shown)
    values = "".join(f"  {number(name, row[name]):>{widths[name]}}" for name in shown)
    return f"epoch{header}  seconds", f"{row['epoch'] + 1:>5}{values}  {row['seconds']:>7.2f}"


PERCENT = frozenset({"accuracy", "mape", "median_ape", "top2", "top5"})
"""Metrics that are fractions and read best as percentages."""


def number(metric: str, value: float) -> str:
    """Write a metric's value for a person; NaN, where it is not defined, as "n/a".

    >>> number("mape", 0.2593), number("mae", 123456.7), number("auc", 0.91234)
    ('25.9%', '123,457', '0.9123')
    >>> number("mape", math.nan)
    'n/a'
    """
    if math.isnan(value):
        return "n/a"
    name = metric.split("/")[-1].split(".")[-1]
    if name in PERCENT:
        return f"{value:.1%}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def record(rows: list[Mapping[str, float]]) -> Hook:
    """Append each epoch's row to a list."""

    def hook(event: Event) -> Reply:
        if event.name == "after_epoch":
            rows.append(event.metrics)
        return None

    return hook


def _check_log(event: Event, path: Path, overwrite: bool, is_log: Callable[[bytes], bool]) -> None:
    # Only a fit that goes on with a history may replace what the fit before it has written.
    if event.history.epochs or event.history.steps:
        with suppress(OSError):
            overwrite = overwrite or is_log(path.read_bytes())
    check_output(path, overwrite)


def log(path: str | Path, steps: bool = False, *, overwrite: bool = False) -> Hook:
    """Keep a file with a row for each epoch, or with `steps` for each step: CSV for `.csv`, else
    JSON lines, where a number that is not finite is null; written whole after each epoch, so never
    torn.

    Because it is written from the history, a resumed run goes on where its checkpoint stood. A fit
    without a history raises FileError, before its first step, where the file exists already,
    unless `overwrite` says to replace it.
    """
    lay_out = _as_csv if Path(path).suffix.lower() == ".csv" else _as_json

    def hook(claims: list[Path], event: Event) -> Reply:
        if event.name == "before_fit":
            _check_log(event, Path(path), overwrite, lambda data: b"step" in data.split(b"\n")[0])
            claims.append(Path(path))
        # A fit that is refused the file, or fails before it is claimed, ends with after_fit too.
        elif claims and event.name in {"after_epoch", "after_fit"}:
            history, ended = event.history, event.name == "after_fit"
            text = lay_out(_steps(history) if steps else history.epochs)
            # The disk is waited for once: a checkpoint has the history, too.
            write(path, text.encode(), overwrite=True, sync=ended)
        return None

    return stateful(list, hook)


def _steps(history: History) -> list[Mapping[str, float]]:
    columns = [values.tolist() for values in history.steps.values()]
    return [dict(zip(history.steps, row, strict=True)) for row in zip(*columns, strict=True)]


def _as_json(rows: Sequence[Mapping[str, float]]) -> str:
    lines = ({name: x if math.isfinite(x) else None for name, x in row.items()} for row in rows)
    return "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)


def _as_csv(rows: Sequence[Mapping[str, float]]) -> str:
    text = io.StringIO()
    names = dict.fromkeys(name for row in rows for name in row)
    table = csv.DictWriter(text, list(names), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def plots(
    path: str | Path | None = None,
    schedule: Schedule | None = None,
    scale: Literal["linear", "log"] = "linear",
    *,
    overwrite: bool = False,
) -> Hook:
    """Draw the curves of the history (`mip.curves`) as PNG into a file, written whole; in a
    notebook also below the cell, where the drawing is replaced as the fit goes on.

    Drawn after the first epoch, at the end, and after others so seldom that it takes a twentieth
    of the time. `schedule` gives the learning rate of a step; `scale` is that of the loss. Needs
    the extra `plot`: raises FileError with the cure without it, and MipError without a path where
    there is no notebook. For a file that exists already and `overwrite` see `log`.
    """
    if path is None and not in_notebook():
        raise MipError("plots: outside of a notebook it needs a file: plots('history.png')")
    figure(path or "plots", 1, 1)  # without matplotlib it fails here, and not after an epoch

    def hook(picture: _Picture, event: Event) -> Reply:
        began = time.monotonic()
        if event.name == "before_fit" and path is not None:
            _check_log(event, Path(path), overwrite, lambda data: data.startswith(b"\x89PNG"))
            picture.path = Path(path)
        if event.name == "after_fit" or (event.name == "after_epoch" and began >= picture.due):
            history = event.history
            if history.steps:
                drawing = png(curves(path or "plots", history, schedule, scale))
                if picture.path is not None:
                    write(picture.path, drawing, overwrite=True)
                if picture.show:
                    picture.show({"image/png": b64encode(drawing).decode()})
            picture.due = time.monotonic() + 20 * (time.monotonic() - began)
        return None

    return stateful(lambda: _Picture(in_place() if in_notebook() else None), hook)


@define
class _Picture:
    show: Callable[[Mapping[str, str]], None] | None
    path: Path | None = None  # once the fit has claimed it
    due: float = -math.inf


def tensorboard(folder: str | Path) -> Hook:
    """Write each epoch's row for TensorBoard, a curve for each metric, by step.

    Needs the extra `tensorboard`; raises FileError with the cure without it.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        cure = "pip install 'mixed-input-pipelines[tensorboard]'"
        raise FileError(f"{folder}: TensorBoard is not installed: {cure}") from error

    def hook(writer: SummaryWriter, event: Event) -> Reply:
        if event.name == "after_epoch":
            for name in event.metrics.keys() - {"epoch", "step"}:
                writer.add_scalar(name, event.metrics[name], event.step)
        elif event.name == "after_fit":
            writer.close()
        return None

    return stateful(partial(SummaryWriter, str(folder)), hook)


def timing() -> Hook:
    """Add `seconds` and `rows_per_second` of its batches to each epoch's row, validation left out.

    A GPU's work is waited for at the end of the batches. The rows of a run that was resumed in
    an epoch count from there.
    """

    def hook(count: _Count, event: Event) -> Reply:
        if event.name == "before_epoch":
            count.began, count.rows = time.monotonic(), 0
        elif event.name == "after_batch":
            count.rows += size(event.batch)
        elif event.name == "before_validate":
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds = time.monotonic() - count.began
            return {"seconds": seconds, "rows_per_second": count.rows / max(seconds, 1e-9)}
        return None

    return stateful(_Count, hook)


@define
class _Count:
    began: float = field(factory=time.monotonic)
    epochs: int = 0
    batches: int = 0
    rows: int = 0


def limit(
    epochs: int | None = None, batches: int | None = None, seconds: float | None = None
) -> Hook:
    """Stop after so many epochs of this fit, or seconds; leave out what follows `batches` batches
    of an epoch. For a first look at a long run.

    Raises ValueError for less than one epoch or batch, or less than no time.
    """
    if min(epochs or 1, batches or 1) < 1 or (seconds or 0) < 0 or 0 in (epochs, batches):
        raise ValueError(f"'epochs' and 'batches' must be 1 or more: {epochs}, {batches}")

    def hook(count: _Count, event: Event) -> Reply:
        if event.name == "before_epoch":
            count.batches = 0
        elif event.name == "after_epoch":
            count.epochs += 1
            return Stop(f"{epochs} epochs are enough") if count.epochs == epochs else None
        elif event.name == "after_batch":
            count.batches += 1
            if seconds is not None and time.monotonic() - count.began >= seconds:
                return Stop(f"{seconds:g} seconds are over")
            return Skip.EPOCH if count.batches == batches else None
        return None

    return stateful(_Count, hook)


def nan_guard(action: Literal["stop", "roll_back"] = "stop") -> Hook:
    """Watch for a step whose loss is not finite, or that was skipped by the `guard` of
    `train_step`: stop the fit, or go on with the next batch from the state of the epoch's begin
    ("roll_back").

    To go on from the state before such a step the guard is enough. While the scale of a loss is
    looked for (`mip.optim.loss_scaled`), a step that is skipped by a finite loss is none of those.
    The loss is read at every step, for which a GPU is waited for.
    """
    if action not in {"stop", "roll_back"}:
        cure = "to skip, make the step with guard=True and leave the hook out"
        raise ValueError(f"'action' must be 'stop' or 'roll_back', not {action!r}; {cure}")

    def hook(kept: list[State], event: Event) -> Reply:
        if event.name == "before_epoch" and action == "roll_back":
            kept[:] = [event.state]
        if event.name != "after_batch" or not _is_broken(event.metrics):
            return None
        return kept[0] if kept else Stop(_told(event))

    return stateful(list, hook)


def _is_broken(metrics: Metrics) -> bool:
    searching = metrics.get("loss_scale", 0.0) > 1.0
    return not math.isfinite(metrics["loss"]) or bool(metrics.get("skipped", 0.0) and not searching)


def _told(event: Event) -> str:
    rows = getattr(event.batch, "row", None)
    named = "" if rows is None else f", rows {', '.join(map(str, rows.tolist()[:8]))}"
    loss = float(event.metrics["loss"])
    what = "a gradient is not finite" if math.isfinite(loss) else f"the loss is {loss}"
    return f"{what} at step {event.step}{named}"


def validate(
    plan: Plan,
    batches: Any,
    name: str = "valid",
    net: Net | None = None,
    metrics: Mapping[str, Metric] = NO_METRICS,
) -> Hook:
    """Score all batches after every epoch and add `name/metric` to the epoch's row.

    Runs on a module of its own. Batches are (inputs, target, …), as `plan.encode` gives them.
    `metrics` are yours, beside those of the head.
    """
    run = eval_step(net or build(plan, pretrain=False))

    def hook(event: Event) -> Reply:
        if event.name != "validate":
            return None
        scores = evaluate_state(plan, run, event.state, batches, metrics)
        return {f"{name}/{metric}": value for metric, value in scores.items()}

    return hook


def evaluate_state(
    plan: Plan,
    run: Callable[[State, Any], torch.Tensor],
    state: State,
    batches: Any,
    metrics: Mapping[str, Metric] = NO_METRICS,
) -> dict[str, float]:
    """Score a state over batches: the loss, the head's metrics, and others."""
    pairs = [(run(state, inputs), target) for inputs, target, *_ in batches]
    if not pairs:
        raise DataError("there is no batch to score; they must be iterable again for each epoch")
    logits, target = concat([map_tree(torch.Tensor.cpu, pair) for pair in pairs])
    return plan.score(logits, target, metrics)


RISING = ("accuracy", "auc", "coverage", "f1", "kappa", "percent_close", "r2", "top2", "top5")
"""The metrics of which more is better; of all others, less is."""


def direction(metric: str) -> Literal["min", "max"]:
    """Say which end of a metric is better, by the last part of its name.

    >>> direction("valid/loss"), direction("valid/auc"), direction("valid/style.accuracy")
    ('min', 'max', 'max')
    """
    return "max" if metric.split("/")[-1].split(".")[-1] in RISING else "min"


def best(epochs: tuple[Mapping[str, float], ...], metric: str, mode: str | None = None) -> int:
    """Find the first epoch with the best value; NaN never wins. -1 where there is none. `mode` is
    "min" or "max"; by default the metric's own direction.

    >>> best(({"valid/loss": 2.0}, {"valid/loss": 1.0}, {"valid/loss": 1.0}), "valid/loss")
    1
    """
    sign = 1 if (mode or direction(metric)) == "min" else -1
    values = [(sign * row[metric], k) for k, row in enumerate(epochs) if metric in row]
    return min(((value, k) for value, k in values if not math.isnan(value)), default=(0, -1))[1]


def _check_metric(epochs: Sequence[Mapping[str, float]], metric: str, mode: str | None) -> None:
    if mode not in {None, "min", "max"}:
        raise ValueError(f"'mode' must be 'min' or 'max', not {mode!r}")
    if epochs and not any(metric in row for row in epochs):
        raise MipError(f"the epochs have no '{metric}'{hint(metric, epochs[-1])}")


def plateau(
    metric: str = "valid/loss",
    factor: float = 0.1,
    patience: int = 10,
    mode: Literal["min", "max"] | None = None,
    threshold: float = 1e-4,
) -> Hook:
    """Lower the rate of an optimizer that `mip.optim.adjustable` made by `factor` whenever more
    than `patience` epochs were not better; see `mip.schedules.plateau`. A function of the history
    alone, so that a resumed run goes on with the rate that it had.
    """

    def hook(event: Event) -> Reply:
        if event.name not in {"before_fit", "before_epoch"}:
            return None
        epochs = event.history.epochs
        _check_metric(epochs, metric, mode)
        values = [row[metric] for row in epochs if metric in row]
        how = factor, patience, mode or direction(metric), threshold
        now = reduced(values, *how)
        if event.name == "before_epoch" and now == reduced(values[:-1], *how):
            return None
        state = event.state
        return evolve(state, optimizer=adjusted(state.optimizer, now))

    return hook


def restore_best(metric: str, mode: str | None = None) -> Hook:
    """End the fit with the state of the best epoch: its parameters and buffers, and its optimizer's
    tensors. A copy of the best state is held in memory.

    A fit that goes on with a history warns (MipWarning) where the best epoch came before it: its
    state is only in a checkpoint.
    """

    def hook(kept: list[State], event: Event) -> Reply:
        if event.name == "after_epoch":
            epochs = event.history.epochs
            _check_metric(epochs, metric, mode)
            if best(epochs, metric, mode) == len(epochs) - 1:
                kept[:] = [event.state]
        if event.name != "after_fit":
            return None
        before = best(event.history.epochs, metric, mode)
        if not kept and before >= 0 and event.error is None:
            where = f"checkpoint(metric='{metric}') keeps it as best.safetensors"
            warnings.warn(
                f"restore_best: epoch {before + 1} was the best and came before this fit; {where}",
                MipWarning,
                stacklevel=2,
            )
        return kept[0] if kept else None

    return stateful(list, hook)


def early_stop(metric: str, patience: int, mode: str | None = None) -> Hook:
    """Stop after `patience` epochs without a better value; a function of the history alone, so
    that a run which was stopped stays so when it is resumed. Raises ValueError for a patience of
    less than one epoch.
    """
    if patience < 1:
        raise ValueError(f"'patience' must be 1 or more: {patience}")

    def hook(event: Event) -> Reply:
        if event.name not in {"before_fit", "after_epoch"}:
            return None
        epochs = event.history.epochs
        _check_metric(epochs, metric, mode)
        at = best(epochs, metric, mode)
        waited = len(epochs) - 1 - at
        if waited < patience:
            return None
        return Stop(f"{metric} has not been better than in epoch {at + 1} for {waited} epochs")

    return hook


def checkpoint(
    folder: str | Path,
    plan: Plan | None = None,
    metric: str | None = None,
    mode: str | None = None,
    every: int | None = None,
    extra: Mapping[str, Any] | None = None,
    kinds: Mapping[str, type] = KINDS,
    keep: int = 0,
    *,
    overwrite: bool = False,
) -> Hook:
    """Keep `last.safetensors` in a folder, after every epoch and every `every` steps, and with
    `metric` also `best.safetensors`, that of the best epoch. Files are replaced whole.

    `keep` says how many epochs have a file of their own besides, `epoch-0007.safetensors`: the
    last so many, or -1 for all.

    A thread writes while the fit goes on. The next checkpoint, an error and the fit's end wait for
    it; what it raises, such as FileError for a full disk, ends the fit at the next event. One copy
    of the state is held in memory until the fit ends, and is the next one's memory.

    Raises FileError, before the first step, for a folder that holds checkpoints, unless
    `overwrite` says to replace them, or the last of them is of the very step that the fit goes on
    from.
    """
    about = (plan, extra, kinds)

    def hook(file: _File, event: Event) -> Reply:
        if event.name == "before_fit":
            _check_checkpoints(event, Path(folder), overwrite)
        due, ends = _due(event, every), event.name in {"on_error", "after_fit"}
        if file.begun and (due or ends or file.begun.done()):
            wait([file.begun])  # where Ctrl-C comes here, the end of the fit waits again
            begun, file.begun = file.begun, None
            begun.result()
        if due:
            file.copy, history = event.copy(file.copy), event.history
            names = _names(event, history, metric, mode, keep)
            content = (file.copy, history, *about)
            writer = ThreadPoolExecutor(1)
            try:
                file.begun = writer.submit(_write, Path(folder), names, content, keep)
            finally:  # the thread ends with the file, also where Ctrl-C comes while it is started
                writer.shutdown(wait=False)
        if ends:
            file.copy = None
        return None

    return stateful(_File, hook)


@define
class _File:
    begun: Future[None] | None = None  # what is being written
    copy: State | None = None  # of which state; its memory is the next one's


def _check_checkpoints(event: Event, folder: Path, overwrite: bool) -> None:
    last = peek(folder / "last.safetensors")
    goes_on = event.step > 0 and last.get("step") == event.step
    for path in checkpoints(folder):
        check_output(path, overwrite or goes_on)


def _due(event: Event, every: int | None) -> bool:
    between = event.name == "after_batch" and event.step % (every or 1) == 0
    return event.name == "after_epoch" or (every is not None and between)


def _names(
    event: Event, history: History, metric: str | None, mode: str | None, keep: int
) -> list[str]:
    epochs, ended = history.epochs, event.name == "after_epoch"
    if ended and metric:
        _check_metric(epochs, metric, mode)
    better = ended and metric and best(epochs, metric, mode) == len(epochs) - 1
    # The last one last, so that a run which is killed before writes the others again.
    asked = {"best": better, f"epoch-{event.epoch:04}": ended and keep, "last": True}
    return [name for name in asked if asked[name]]


def _write(folder: Path, names: Sequence[str], content: Sequence[Any], keep: int) -> None:
    for name in names:
        save_checkpoint(folder / f"{name}.safetensors", *content, overwrite=True)
        for old in sorted(folder.glob("epoch-*.safetensors"))[: -keep if keep > 0 else 0]:
            old.unlink()
