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

    def build(factor: float) -> Optimizer:
        return make_optimizer_at(
            train, batches, lambda scale: _schedule(train, steps, scale * factor)
        )

    return inject_lr_factor(build) if train.plateau else build(1.0)


def make_optimizer_at(
    train: Train, batches: int, schedule: Callable[[float], Schedule]
) -> Optimizer:
    """Build the optimizer of a run of `batches` batches with other learning rates: `schedule` makes
    that of a parameter group from its `lr_scale`.
    """
    steps = _steps(train, batches)
    optimizer = _grouped(train, schedule, steps / max(train.epochs, 1))
    if train.lookahead:
        optimizer = lookahead(optimizer, train.lookahead)
    optimizer = chain(*_clipping(train), optimizer, *_averaging(train, steps))
    return accumulate(optimizer, train.accumulate) if train.accumulate > 1 else optimizer


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
    return [ema(train.ema)] if train.ema else []


def _clipping(train: Train) -> list[Optimizer]:
    return [clip_norm(train.clip_norm)] if train.clip_norm else []


def _grouped(
    train: Train, schedule: Callable[[float], Schedule], steps_per_epoch: float
) -> Optimizer:
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
