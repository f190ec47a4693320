"""Ready-made hooks: plain functions of an event, most of them of its history alone."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from mip.fit import Event, Hook, Reply, Stop
from mip.net import Net, build
from mip.plan import NO_METRICS, Metric, Plan
from mip.spec import KINDS
from mip.step import State, eval_step
from mip.store import save_checkpoint, write
from mip.tree import concat, map_tree


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
    """Keep a JSON-lines file with a row for each epoch; written whole, so never torn.

    Because it is written from the history, a resumed run goes on where its checkpoint stood.
    """

    def hook(event: Event) -> Reply:
        if event.name in {"after_epoch", "after_fit"}:
            lines = [json.dumps(dict(row)) + "\n" for row in event.history.epochs]
            write(path, "".join(lines).encode())
        return None

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
        if event.name != "after_epoch":
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


def best(epochs: tuple[Mapping[str, float], ...], metric: str, mode: str = "min") -> int:
    """Find the first epoch with the best value; NaN never wins. -1 where there is none.

    >>> best(({"valid/loss": 2.0}, {"valid/loss": 1.0}, {"valid/loss": 1.0}), "valid/loss")
    1
    """
    sign = 1 if mode == "min" else -1
    values = [(sign * row[metric], k) for k, row in enumerate(epochs) if metric in row]
    return min(((value, k) for value, k in values if not math.isnan(value)), default=(0, -1))[1]


def early_stop(metric: str, patience: int, mode: str = "min") -> Hook:
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
    mode: str = "min",
    every: int | None = None,
    extra: Mapping[str, Any] | None = None,
    kinds: Mapping[str, type] = KINDS,
) -> Hook:
    """Keep `last.safetensors` in a folder, after every epoch and every `every` steps, and with
    `metric` also `best.safetensors`, that of the best epoch. Files are replaced whole.
    """
    folder = Path(folder)

    def hook(event: Event) -> Reply:
        ended = event.name == "after_epoch"
        if not (ended or (every and event.name == "after_batch" and event.step % every == 0)):
            return None
        history, state = event.history, event.state
        if ended and metric and best(history.epochs, metric, mode) == len(history.epochs) - 1:
            save_checkpoint(folder / "best.safetensors", state, history, plan, extra, kinds)
        save_checkpoint(folder / "last.safetensors", state, history, plan, extra, kinds)
        return None

    return hook
