"""From `[train]` of a spec to an optimizer and its learning rate."""

from __future__ import annotations

from collections.abc import Callable

from mip.model import matches_pattern
from mip.optim import (
    Optimizer,
    Schedule,
    accumulate,
    chain,
    clip_norm,
    ema,
    inject_lr_factor,
    lookahead,
    partition,
    swa,
)
from mip.spec import ParamGroup, Train


def make_optimizer(train: Train, batches: int) -> Optimizer:
    """Build the optimizer of a run of `batches` batches."""
    steps = _steps(train, batches)
    steps_per_epoch = steps / max(train.epochs, 1)

    def build(factor: float) -> Optimizer:
        schedule = lambda scale: _schedule(train, steps, scale * factor)  # noqa: E731
        optimizer = grouped_optimizer(train, schedule, steps_per_epoch)
        if train.lookahead:
            optimizer = lookahead(optimizer, train.lookahead)
        optimizer = chain(*_clipping(train), optimizer, *_averaging(train, steps))
        return accumulate(optimizer, train.accumulate) if train.accumulate > 1 else optimizer

    return inject_lr_factor(build) if train.plateau else build(1.0)


def lr_schedule(train: Train, batches: int) -> Schedule:
    """Build the learning rate of a run of `batches` batches as a function of the batch.

    Parameter groups have a multiple of it, and a plateau lowers it.
    """
    schedule = _schedule(train, _steps(train, batches), 1.0)
    return lambda batch: schedule(batch // train.accumulate)


def _steps(train: Train, batches: int) -> int:
    return max(batches // train.accumulate, 1)


def _schedule(train: Train, steps: int, scale: float) -> Schedule:
    return train.schedule.schedule(train.optimizer.lr * scale, steps)


def _averaging(train: Train, steps: int) -> list[Optimizer]:
    if train.swa:
        return [swa(round(train.swa * steps))]
    # With a constant decay the average of a short run would be mostly its initial weights.
    return [ema(lambda step: min(train.ema, (1 + step) / (10 + step)))] if train.ema else []


def clipped(train: Train, optimizer: Optimizer) -> Optimizer:
    """Put the gradient clipping of `[train]` in front of an optimizer."""
    return chain(*_clipping(train), optimizer)


def _clipping(train: Train) -> list[Optimizer]:
    return [clip_norm(train.clip_norm)] if train.clip_norm else []


def grouped_optimizer(
    train: Train, schedule: Callable[[float], Schedule], steps_per_epoch: float
) -> Optimizer:
    """Build an optimizer for each parameter group, joined into one; `schedule` makes the learning
    rate of a group from its `lr_scale`.
    """
    groups = {str(k): group for k, group in enumerate(train.group)} | {"others": ParamGroup("*")}
    optimizers = {}
    for name, group in groups.items():
        lr, first_step = schedule(group.lr_scale), int(group.start_epoch * steps_per_epoch)
        optimizers[name] = train.optimizer.optimizer(_from_step(first_step, lr))

    def group_of(path: str) -> str:
        return next(name for name, group in groups.items() if matches_pattern(path, group.match))

    return partition(optimizers, group_of) if train.group else optimizers["others"]


def _from_step(first: int, lr: Schedule) -> Schedule:
    return (lambda step: lr(step) if step >= first else 0.0) if first else lr
