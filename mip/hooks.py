"""Ready-made hooks: plain functions of an event, most of them of its history alone."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from mip.errors import FileError
from mip.fit import Event, Hook, Reply, Skip, Stop
from mip.net import Net, build
from mip.plan import NO_METRICS, Metric, Plan
from mip.spec import KINDS
from mip.step import State, eval_step
from mip.store import save_checkpoint, write
from mip.tree import concat, map_tree, size


def progress(total: int | None = None, label: str = "fit") -> Hook:
    """Show a bar with the step, the loss and the time left, on standard error.

    The bar exists from before_fit to after_fit; `total` is the number of steps it ends at.
    """
    from rich import progress as rich
    from rich.console import Console

    parts = ("{task.description}", rich.BarColumn(), rich.MofNCompleteColumn())
    left = rich.TimeRemainingColumn()
    bar = rich.Progress(*parts, left, console=Console(stderr=True), transient=True)
    task = bar.add_task(label, total=total)
    drawn = [0.0]

    def hook(event: Event) -> Reply:
        if event.name == "before_fit":
            bar.start()
        elif event.name == "after_fit":
            bar.stop()
        elif event.name == "after_batch" and time.monotonic() - drawn[0] > 0.1:
            # Reading the loss waits for the device, so it is read ten times a second at most.
            drawn[0] = time.monotonic()
            text = f"{label} loss {float(event.metrics['loss']):.4g}"
            bar.update(task, completed=event.step, description=text)
        return None

    return hook


def console(say: Callable[[str], None] = print, lines: int = 10, epochs: int | None = None) -> Hook:
    """Print the first epoch, about `lines` others of a run of `epochs`, and the last; without
    `epochs`, all.
    """

    def hook(event: Event) -> Reply:
        if event.name == "after_epoch":
            every = max(1, (epochs or 0) // lines)
            if (event.epoch + 1) % every == 0 or event.epoch + 1 in {1, epochs}:
                say(_line(event.metrics))
        elif event.name == "after_cancel_fit":
            say(f"stopped: {event.reason}")
        return None

    return hook


def _line(row: Mapping[str, float]) -> str:
    # The train loss, the valid loss and two metrics fit on one line; the log has them all.
    names = [name for name in row if name not in {"epoch", "step"}][:4]
    return "  ".join(
        [f"epoch {row['epoch'] + 1:>3}", *(f"{name} {row[name]:.4g}" for name in names)]
    )


def record(rows: list[Mapping[str, float]]) -> Hook:
    """Append each epoch's row to a list."""

    def hook(event: Event) -> Reply:
        if event.name == "after_epoch":
            rows.append(event.metrics)
        return None

    return hook


def log(path: str | Path) -> Hook:
    """Keep a file with a row for each epoch: CSV for `.csv`, else JSON lines; written whole, so
    never torn.

    Because it is written from the history, a resumed run goes on where its checkpoint stood.
    """
    lay_out = _as_csv if Path(path).suffix.lower() == ".csv" else _as_json
    written: list[bytes] = []

    def hook(event: Event) -> Reply:
        if event.name == "before_fit":
            written.clear()
        elif event.name in {"after_epoch", "after_fit"}:
            text = lay_out(event.history.epochs).encode()
            if written != [text]:  # as it is unless later hooks have added to the row
                write(path, text)
                written[:] = [text]
        return None

    return hook


def _as_json(rows: Sequence[Mapping[str, float]]) -> str:
    return "".join(json.dumps(dict(row)) + "\n" for row in rows)


def _as_csv(rows: Sequence[Mapping[str, float]]) -> str:
    text = io.StringIO()
    names = dict.fromkeys(name for row in rows for name in row)
    table = csv.DictWriter(text, list(names), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def tensorboard(folder: str | Path) -> Hook:
    """Write each epoch's row for TensorBoard, a curve for each metric, by step.

    Needs the extra `tensorboard`; raises FileError with the cure without it.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        cure = "pip install 'mixed-input-pipelines[tensorboard]'"
        raise FileError(f"{folder}: TensorBoard is not installed: {cure}") from error
    writer = SummaryWriter(str(folder))

    def hook(event: Event) -> Reply:
        if event.name == "after_epoch":
            for name in event.metrics.keys() - {"epoch", "step"}:
                writer.add_scalar(name, event.metrics[name], event.step)
        elif event.name == "after_fit":
            writer.close()
        return None

    return hook


def timing() -> Hook:
    """Add `seconds` and `rows_per_second` of its batches to each epoch's row, validation left out.

    A GPU's work is waited for at the end of the batches. The rows of a run that was resumed in
    an epoch count from there.
    """
    began, rows = [0.0], [0]

    def hook(event: Event) -> Reply:
        if event.name == "before_epoch":
            began[0], rows[0] = time.monotonic(), 0
        elif event.name == "after_batch":
            rows[0] += size(event.batch)
        elif event.name == "before_validate":
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds = time.monotonic() - began[0]
            return {"seconds": seconds, "rows_per_second": rows[0] / max(seconds, 1e-9)}
        return None

    return hook


def limit(
    epochs: int | None = None, batches: int | None = None, seconds: float | None = None
) -> Hook:
    """Stop after so many epochs of this fit, or seconds; leave out what follows `batches` batches
    of an epoch. For a first look at a long run.

    Raises ValueError for less than one epoch or batch, or less than no time.
    """
    if min(epochs or 1, batches or 1) < 1 or (seconds or 0) < 0 or 0 in (epochs, batches):
        raise ValueError(f"'epochs' and 'batches' must be 1 or more: {epochs}, {batches}")
    began, count = [0.0], {"epochs": 0, "batches": 0}

    def hook(event: Event) -> Reply:
        if event.name == "before_fit":
            began[0] = time.monotonic()
        elif event.name == "before_epoch":
            count["batches"] = 0
        elif event.name == "after_epoch":
            count["epochs"] += 1
            return Stop(f"{epochs} epochs are enough") if count["epochs"] == epochs else None
        elif event.name == "after_batch":
            count["batches"] += 1
            if seconds is not None and time.monotonic() - began[0] >= seconds:
                return Stop(f"{seconds:g} seconds are over")
            return Skip.EPOCH if count["batches"] == batches else None
        return None

    return hook


def nan_guard(action: Literal["stop", "skip", "roll_back"] = "stop") -> Hook:
    """Watch for a loss that is not finite: stop the fit, or go on with the next batch from the
    state before this one ("skip") or from that of the epoch's begin ("roll_back").

    The loss is read at every step, for which a GPU is waited for; "skip" copies the state at
    every step.
    """
    begin = {"stop": "", "skip": "before_batch", "roll_back": "before_epoch"}[action]
    kept: list[State] = []

    def hook(event: Event) -> Reply:
        if event.name == begin:
            kept[:] = [event.state]
        if event.name != "after_batch" or math.isfinite(event.metrics["loss"]):
            return None
        if kept:
            return kept[0]
        rows = getattr(event.batch, "row", None)
        named = "" if rows is None else f", rows {', '.join(map(str, rows.tolist()[:8]))}"
        return Stop(f"the loss is {float(event.metrics['loss'])} at step {event.step}{named}")

    return hook


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
    logits, target = concat([map_tree(torch.Tensor.cpu, pair) for pair in pairs])
    return plan.score(logits, target, metrics)


RISING = ("accuracy", "auc", "coverage", "f1", "kappa", "r2", "top2", "top5")
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


def restore_best(metric: str, mode: str | None = None) -> Hook:
    """End the fit with the state of the best epoch: its parameters and buffers, and its optimizer's
    tensors. A copy of the best state is held in memory.
    """
    kept: list[State] = []

    def hook(event: Event) -> Reply:
        if event.name == "after_epoch":
            epochs = event.history.epochs
            if best(epochs, metric, mode) == len(epochs) - 1:
                kept[:] = [event.state]
        return kept[0] if kept and event.name == "after_fit" else None

    return hook


def early_stop(metric: str, patience: int, mode: str | None = None) -> Hook:
    """Stop after `patience` epochs without a better value; a function of the history alone, so
    that a run which was stopped stays so when it is resumed.
    """

    def hook(event: Event) -> Reply:
        if event.name not in {"before_fit", "after_epoch"}:
            return None
        epochs = event.history.epochs
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
) -> Hook:
    """Keep `last.safetensors` in a folder, after every epoch and every `every` steps, and with
    `metric` also `best.safetensors`, that of the best epoch. Files are replaced whole.

    `keep` says how many epochs have a file of their own besides, `epoch-0007.safetensors`: the
    last so many, or -1 for all.
    """
    folder = Path(folder)

    def hook(event: Event) -> Reply:
        ended = event.name == "after_epoch"
        if not (ended or (every and event.name == "after_batch" and event.step % every == 0)):
            return None
        history, state = event.history, event.state
        if ended and metric and best(history.epochs, metric, mode) == len(history.epochs) - 1:
            save_checkpoint(folder / "best.safetensors", state, history, plan, extra, kinds)
        if ended and keep:
            named = folder / f"epoch-{event.epoch:04}.safetensors"
            save_checkpoint(named, state, history, plan, extra, kinds)
            for old in sorted(folder.glob("epoch-*.safetensors"))[: -keep if keep > 0 else 0]:
                old.unlink()
        # Last, so that a run which is killed before writes the others again.
        save_checkpoint(folder / "last.safetensors", state, history, plan, extra, kinds)
        return None

    return hook
