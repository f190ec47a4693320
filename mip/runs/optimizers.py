"""From `[train]` of a spec to an optimizer and its learning rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mip.branches import LayerGroup
from mip.model import matches_pattern
from mip.optim import (
    Optimizer,
    Schedule,
    accumulate,
    chain,
    clip_norm,
    delayed,
    ema,
    inject_lr_factor,
    lookahead,
    partition,
    swa,
)
from mip.spec import ParamGroup, Train


def make_optimizer(train: Train, batches: int, groups: Sequence[LayerGroup] = ()) -> Optimizer:
    """Build the optimizer of a run of `batches` batches, in which the parameters in `groups` have
    learning rates of their own.
    """
    steps = _steps(train, batches)

    def build(factor: float) -> Optimizer:
        return make_optimizer_at(
            train, batches, lambda scale: _schedule(train, steps, scale * factor), groups
        )

    return inject_lr_factor(build) if train.plateau else build(1.0)


def make_optimizer_at(
    train: Train,
    batches: int,
    schedule: Callable[[float], Schedule],
    groups: Sequence[LayerGroup] = (),
) -> Optimizer:
    """Build the optimizer of a run of `batches` batches with other learning rates: `schedule` makes
    that of a parameter group from its `lr_scale`.
    """
    steps = _steps(train, batches)
    optimizer = _grouped(train, schedule, steps, groups)
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


def first_batches(train: Train, batches: int, groups: Sequence[LayerGroup]) -> dict[str, int]:
    """Return the batches, counted from 0, before which parameters are frozen, by path, in a run of
    `batches` batches.
    """
    steps = _steps(train, batches)
    return {
        path: _first_step(group, steps) * train.accumulate
        for group in groups
        for path in group.params
        if group.start
    }


def _steps(train: Train, batches: int) -> int:
    return max(batches // train.accumulate, 1)


def _first_step(group: LayerGroup, steps: int) -> int:
    return round(group.start * steps)


def _schedule(train: Train, steps: int, scale: float) -> Schedule:
    return train.schedule.schedule(train.optimizer.lr * scale, steps)


def _averaging(train: Train, steps: int) -> list[Optimizer]:
    if train.swa:
        return [swa(round(train.swa * steps))]
    return [ema(train.ema)] if train.ema else []


def _clipping(train: Train) -> list[Optimizer]:
    return [clip_norm(train.clip_norm)] if train.clip_norm else []


def _grouped(
    train: Train,
    schedule: Callable[[float], Schedule],
    steps: int,
    layer_groups: Sequence[LayerGroup],
) -> Optimizer:
    per_epoch = steps / max(train.epochs, 1)
    groups = {str(k): group for k, group in enumerate(train.group)} | {"others": ParamGroup("*")}
    optimizers = {}
    for name, group in groups.items():
        lr, first_step = schedule(group.lr_scale), int(group.start_epoch * per_epoch)
        optimizers[name] = train.optimizer.optimizer(_from_step(first_step, lr))
    for layers in layer_groups:
        optimizer = train.optimizer.optimizer(schedule(layers.lr_scale))
        optimizers[layers.name] = delayed(optimizer, _first_step(layers, steps))
    of_layers = {path: group.name for group in layer_groups for path in group.params}

    def group_of(path: str) -> str:
        if path in of_layers:
            return of_layers[path]
        return next(name for name, group in groups.items() if matches_pattern(path, group.match))

    return partition(optimizers, group_of) if len(optimizers) > 1 else optimizers["others"]


def _from_step(first: int, lr: Schedule) -> Schedule:
    return (lambda step: lr(step) if step >= first else 0.0) if first else lr
