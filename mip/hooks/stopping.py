"""Hooks that end a fit, or change its course."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from typing import Any, Literal

from attrs import define, evolve, field

from mip.errors import MipWarning
from mip.optim import plateau_factor, set_lr_factor
from mip.train import (
    Event,
    Hook,
    Reply,
    Skip,
    State,
    Stop,
    best_epoch,
    check_metric,
    direction,
    stateful,
)


@define
class Count:
    """Epochs and seconds since a fit began."""

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

    def hook(count: Count, event: Event) -> Reply:
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

    return stateful(Count, hook)


def nan_guard(action: Literal["stop", "roll_back"] = "stop") -> Hook:
    """Watch for a step whose loss is not finite, or that was skipped by the `skip_nonfinite` of
    `train_step`: stop the fit, or go on with the next batch from the state of the epoch's begin
    ("roll_back").

    To go on from the state before such a step the guard is enough. While the loss scale of
    `mip.optim.dynamic_loss_scale` is still warming up, a step skipped with a finite loss does not
    count as one.
    The loss is read at every step, for which a GPU is waited for.
    """
    if action not in {"stop", "roll_back"}:
        cure = "to skip, make the step with skip_nonfinite=True and leave the hook out"
        raise ValueError(f"'action' must be 'stop' or 'roll_back', not {action!r}; {cure}")

    def hook(kept: list[State], event: Event) -> Reply:
        if event.name == "before_epoch" and action == "roll_back":
            kept[:] = [event.state]
        if event.name != "after_batch" or not _is_broken(event.metrics):
            return None
        return kept[0] if kept else Stop(_told(event))

    return stateful(list, hook)


def _is_broken(metrics: Mapping[str, Any]) -> bool:
    searching = metrics.get("loss_scale", 0.0) > 1.0
    return not math.isfinite(metrics["loss"]) or bool(metrics.get("skipped", 0.0) and not searching)


def _told(event: Event) -> str:
    rows = getattr(event.batch, "row", None)
    named = "" if rows is None else f", rows {', '.join(map(str, rows.tolist()[:8]))}"
    loss = float(event.metrics["loss"])
    what = "a gradient is not finite" if math.isfinite(loss) else f"the loss is {loss}"
    return f"{what} at step {event.step}{named}"


def plateau(
    metric: str = "valid/loss",
    factor: float = 0.1,
    patience: int = 10,
    mode: Literal["min", "max"] | None = None,
    threshold: float = 1e-4,
) -> Hook:
    """Multiply the learning rate of an optimizer that `mip.optim.inject_lr_factor` made by `factor`
    whenever more than `patience` epochs were not better; see `mip.optim.plateau_factor`. It is a
    function of the history alone, so a resumed run continues with the rate that it had.
    """

    def hook(event: Event) -> Reply:
        if event.name not in {"before_fit", "before_epoch"}:
            return None
        epochs = event.history.epochs
        check_metric(epochs, metric, mode)
        values = [row[metric] for row in epochs if metric in row]
        how = factor, patience, mode or direction(metric), threshold
        now = plateau_factor(values, *how)
        if event.name == "before_epoch" and now == plateau_factor(values[:-1], *how):
            return None
        state = event.state
        return evolve(state, optimizer=set_lr_factor(state.optimizer, now))

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
            check_metric(epochs, metric, mode)
            if best_epoch(epochs, metric, mode) == len(epochs) - 1:
                kept[:] = [event.state]
        if event.name != "after_fit":
            return None
        before = best_epoch(event.history.epochs, metric, mode)
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
        check_metric(epochs, metric, mode)
        at = best_epoch(epochs, metric, mode)
        waited = len(epochs) - 1 - at
        if waited < patience:
            return None
        return Stop(f"{metric} has not been better than in epoch {at + 1} for {waited} epochs")

    return hook
