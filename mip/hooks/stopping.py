"""Hooks that end a fit, or change its course."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal

from attrs import define, evolve, field

from mip.errors import MipError, MipWarning
from mip.metrics import BestEpoch, Mode, check_metric, check_mode, mode_of
from mip.optim import Plateau, set_lr_factor
from mip.train import Event, Hook, Reply, Skip, State, Stop, stateful


def limit(
    epochs: int | None = None, batches: int | None = None, seconds: float | None = None
) -> Hook:
    """Stop this fit after a number of epochs or seconds; end each epoch after a number of batches.

    For a first look at a long run.

    Raises ValueError for less than one epoch or batch, or for a negative time, and MipError for
    what is no number.
    """
    for name, value in (("epochs", epochs), ("batches", batches), ("seconds", seconds)):
        _check_number("limit", name, value, Real if name == "seconds" else Integral)
    if min(epochs or 1, batches or 1) < 1 or (seconds or 0) < 0 or 0 in (epochs, batches):
        raise ValueError(f"'epochs' and 'batches' must be 1 or more: {epochs}, {batches}")

    def hook(count: _Count, event: Event) -> Reply:
        if event.name == "before_epoch":
            count.batches = 0
        elif event.name == "after_epoch":
            count.epochs += 1
            return Stop(f"limit(epochs={epochs})") if count.epochs == epochs else None
        elif event.name == "after_batch":
            count.batches += 1
            if seconds is not None and time.monotonic() - count.began >= seconds:
                return Stop(f"limit(seconds={seconds:g})")
            return Skip.EPOCH if count.batches == batches else None
        return None

    return stateful(_Count, hook, adds=())


def _check_number(hook: str, name: str, value: object, kind: type = Integral) -> None:
    if value is not None and not isinstance(value, kind):
        what = "whole number" if kind is Integral else "number"
        raise MipError(f"{hook}: {name} must be a {what}, not {value!r}")


@define
class _Count:
    """Since a fit began: its epochs, and the batches of this one."""

    began: float = field(factory=time.monotonic)
    epochs: int = 0
    batches: int = 0


def nan_guard(action: Literal["stop", "roll_back"] = "stop") -> Hook:
    """At a step whose loss or gradients are not finite, stop the fit, or continue with the next
    batch from the state at the start of the epoch ("roll_back").

    Gradients are watched if the step is made with `skip_nonfinite`, which alone is enough to
    continue from the state before such a step. While the loss scale of float16 is still warming
    up, a step skipped with a finite loss does not count as a failure.
    A fit that is stopped warns (MipWarning) where; its state is the one after the step. Reads the
    loss at every step, which makes a GPU wait.
    """
    if action not in {"stop", "roll_back"}:
        cure = "to skip, make the step with skip_nonfinite=True and leave the hook out"
        raise ValueError(f"'action' must be 'stop' or 'roll_back', not {action!r}; {cure}")

    def hook(guard: _Guard, event: Event) -> Reply:
        if event.name == "before_epoch" and action == "roll_back":
            guard.start_of_epoch = event.state
        if event.name == "after_cancel_fit" and guard.failure:
            message = f"nan_guard stopped the fit: {guard.failure}{guard.cure}"
            warnings.warn(message, MipWarning, stacklevel=2)
        if event.name != "after_batch" or _is_finite(event.metrics):
            return None
        if guard.start_of_epoch is not None:
            return guard.start_of_epoch
        guard.failure = _failure_message(event)
        if "skipped" not in event.metrics:
            guard.cure = "; train_step(…, skip_nonfinite=True) keeps the weights from before that"
        return Stop(guard.failure)

    return stateful(_Guard, hook, adds=())


@define
class _Guard:
    start_of_epoch: State | None = None
    failure: str | None = None
    cure: str = ""


def _is_finite(metrics: Mapping[str, Any]) -> bool:
    is_warming_up = metrics.get("loss_scale", 0.0) > 1.0
    is_skipped = bool(metrics.get("skipped", 0.0)) and not is_warming_up
    return math.isfinite(metrics["loss"]) and not is_skipped


def _failure_message(event: Event) -> str:
    loss = float(event.metrics["loss"])
    what = "a gradient is not finite" if math.isfinite(loss) else f"the loss is {loss}"
    message = f"{what} at step {event.step}"
    rows = getattr(event.batch, "row", None)
    if rows is not None:
        message += f", rows {', '.join(map(str, rows.tolist()[:8]))}"
    return message


def reduce_lr_on_plateau(
    metric: str = "valid/loss",
    factor: float = 0.1,
    patience: int = 10,
    mode: Mode | None = None,
    threshold: float = 1e-4,
) -> Hook:
    """Multiply the learning rate by `factor` whenever a metric has not improved for more than
    `patience` epochs; see `mip.optim.Plateau`. The optimizer is one from
    `mip.optim.inject_lr_factor`.

    A function of the history alone, so that a resumed run continues with the same rate.
    """
    check_mode(mode)
    make = lambda: Plateau(factor, patience, mode_of(metric, mode), threshold)  # noqa: E731

    def hook(memory: _PlateauMemory, event: Event) -> Reply:
        if event.name not in {"before_fit", "before_epoch"}:
            return None
        check_metric(event.epochs, metric)
        before = memory.plateau.lr_factor
        for row in event.epochs[memory.seen :]:
            if metric in row:
                memory.plateau.update(row[metric])
        memory.seen, now = len(event.epochs), memory.plateau.lr_factor
        if event.name == "before_epoch" and now == before:
            return None
        state = event.peek()  # the fit copies what a hook returns
        return evolve(state, optimizer=set_lr_factor(state.optimizer, now))

    return stateful(lambda: _PlateauMemory(make()), hook, reads=[metric], adds=())


@define
class _PlateauMemory:
    plateau: Plateau
    seen: int = 0


def restore_best(metric: str, mode: Mode | None = None) -> Hook:
    """End the fit with the state of the best epoch: its parameters, buffers and optimizer. A copy
    of the best state is held in memory.

    Warns (MipWarning) if the best epoch came before a fit that continues a history, because its
    state is only in a checkpoint.
    """
    check_mode(mode)

    def hook(memory: _BestState, event: Event) -> Reply:
        if event.name == "after_epoch":
            check_metric(event.epochs, metric)
            if memory.best.update(event.epochs) == len(event.epochs) - 1:
                memory.state = event.state
        if event.name != "after_fit":
            return None
        epoch = memory.best.update(event.epochs)
        if memory.state is None and epoch >= 0 and event.error is None:
            cure = f"checkpoint(metric='{metric}') keeps it as best.safetensors"
            warnings.warn(
                f"restore_best: epoch {epoch + 1} was the best and came before this fit; {cure}",
                MipWarning,
                stacklevel=2,
            )
        return memory.state

    return stateful(lambda: _BestState(BestEpoch(metric, mode)), hook, reads=[metric], adds=())


@define
class _BestState:
    best: BestEpoch
    state: State | None = None


def early_stop(metric: str, patience: int, mode: Mode | None = None) -> Hook:
    """Stop after `patience` epochs without improvement of a metric.

    A function of the history alone, so that a run that has been stopped stays stopped when it is
    resumed. Raises ValueError for a patience of less than one epoch, and MipError for a patience
    that is no number and a metric that is no name.
    """
    check_mode(mode)
    if not isinstance(metric, str):
        cure = f"early_stop({patience!r}, {metric!r})" if isinstance(patience, str) else "by name"
        raise MipError(f"early_stop: the metric comes first: {cure}")
    _check_number("early_stop", "patience", patience)
    if patience < 1:
        raise ValueError(f"'patience' must be 1 or more: {patience}")

    def hook(best: BestEpoch, event: Event) -> Reply:
        if event.name not in {"before_fit", "after_epoch"}:
            return None
        check_metric(event.epochs, metric)
        epoch = best.update(event.epochs)
        waited = len(event.epochs) - 1 - epoch
        if waited < patience:
            return None
        return Stop(f"{metric} has not improved on epoch {epoch + 1} for {waited} epochs")

    return stateful(partial(BestEpoch, metric, mode), hook, reads=[metric], adds=())
