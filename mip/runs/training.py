"""From `[train]` of a spec to an optimizer, a step, and what watches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from mip.errors import DataError, SpecError, hint
from mip.hooks import early_stop, nan_guard, plateau
from mip.model import Net, Plan, matches_pattern, spec_path
from mip.optim import (
    Optimizer,
    Params,
    Schedule,
    accumulate,
    chain,
    clip_norm,
    dynamic_loss_scale,
    ema,
    inject_lr_factor,
    lookahead,
    partition,
    swa,
)
from mip.rng import seeded
from mip.spec import Group, Train
from mip.train import (
    Event,
    Hook,
    Metrics,
    Reply,
    Step,
    Stop,
    compiled,
    eager,
    no_metrics,
    sharpness_aware,
    standard_gradient,
    train_step,
)
from mip.tree import map_tree


def optimizer_of(how: Train, batches: int) -> Optimizer:
    """Build the optimizer of a run of so many batches."""
    steps = _steps(how, batches)
    epoch = steps / max(how.epochs, 1)

    def build(factor: float) -> Optimizer:
        rates = lambda multiple: _rate(how, steps, multiple * factor)  # noqa: E731
        one = _ahead(how, by_group(how, rates, epoch))
        whole = chain(*_clip(how), one, *_average(how, steps))
        return accumulate(whole, how.accumulate) if how.accumulate > 1 else whole

    one = inject_lr_factor(build) if how.plateau else build(1.0)
    return dynamic_loss_scale(one) if how.precision == "float16" else one


def rate_of(how: Train, batches: int) -> Schedule:
    """Build the learning rate of a run of so many batches, by the batch; a group of parameters has
    a multiple of it, and a plateau lowers it.
    """
    rate = _rate(how, _steps(how, batches), 1.0)
    return lambda batch: rate(batch // how.accumulate)


def _steps(how: Train, batches: int) -> int:
    return max(batches // how.accumulate, 1)


def _rate(how: Train, steps: int, multiple: float) -> Schedule:
    return how.schedule.schedule(how.optimizer.lr * multiple, steps)


def clipped(how: Train, one: Optimizer) -> Optimizer:
    """Put the clipping of `[train]` in front of an optimizer."""
    return chain(*_clip(how), one)


def _clip(how: Train) -> list[Optimizer]:
    return [clip_norm(how.clip_norm)] if how.clip_norm else []


def _ahead(how: Train, one: Optimizer) -> Optimizer:
    return lookahead(one, how.lookahead) if how.lookahead else one


def _average(how: Train, steps: int) -> list[Optimizer]:
    if how.swa:
        return [swa(round(how.swa * steps))]
    # A short run would else be the mean of where it began.
    return [ema(lambda step: min(how.ema, (1 + step) / (10 + step)))] if how.ema else []


def by_group(how: Train, rates: Callable[[float], Schedule], epoch: float) -> Optimizer:
    """Build the optimizer of each group of parameters; `rates` makes the schedule of a multiple of
    the rate, `epoch` is the steps of one.
    """
    groups = {str(k): group for k, group in enumerate(how.group)} | {"others": Group("*")}
    links = {name: _link(how, group, rates, epoch) for name, group in groups.items()}
    return partition(partial(_group, groups), links) if how.group else links["others"]


def _link(how: Train, group: Group, rates: Callable[[float], Schedule], epoch: float) -> Optimizer:
    begin, rate = int(group.start_epoch * epoch), rates(group.lr_scale)
    late: Schedule = lambda step: rate(step) if step >= begin else 0.0  # noqa: E731
    return how.optimizer.optimizer(late if begin else rate)


def _group(groups: Mapping[str, Group], path: str) -> str:
    return next(name for name, group in groups.items() if matches_pattern(path, group.match))


def check(how: Train, net: Net, batches: int) -> None:
    """Raise SpecError for a group that fits no parameter, or begins too late, and for a run of too
    few batches for one step.
    """
    if 0 < batches < how.accumulate:
        raise SpecError(f"train.accumulate = {how.accumulate}: the run has {batches} batches")
    paths = [path for path, param in net.named_parameters() if param.requires_grad]
    for k, group in enumerate(how.group):
        where, epochs = f"train.group[{k}]", how.epochs
        if not any(matches_pattern(path, group.match) for path in paths):
            known = hint(group.match, map(spec_path, paths))
            raise SpecError(f"{where}.match = '{group.match}' fits no parameter{known}")
        if 0 < epochs <= group.start_epoch:
            late = f"{where}.start_epoch = {group.start_epoch}"
            raise SpecError(f"{late} is never reached in {epochs} epochs")


def check_batch_norm(plan: Plan, net: Net, rows: int) -> None:
    """Raise SpecError where a run over so many training rows would give a batch norm of the net a
    batch of one value a channel, which has no variance.

    Batches of one row are no trouble where batch norm is frozen, or sees several places of a photo.
    """
    how = plan.spec.train
    of_one = how.epochs and min(how.batch_size, rows) == 1
    alone = _batch_norm_of_one(plan, net) if of_one else None
    if alone and how.batch_size == 1:
        cure = "set train.batch_size to 2 or more"
        what = f"batch norm ('{alone}') needs 2 or more rows"
        raise SpecError(f"train.batch_size = 1: {what}; {cure}")
    if alone:
        cure = "give it more rows in data.split, or take a model without batch norm"
        raise SpecError(f"the training part has 1 row: batch norm ('{alone}') needs 2; {cure}")


@torch.no_grad()
def _batch_norm_of_one(plan: Plan, net: Net) -> str | None:
    found: list[str] = []

    def look(name: str, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        if module.training and given[0].numel() == given[0].shape[1]:
            found.append(spec_path(name))

    norms = {name: each for name, each in net.named_modules() if isinstance(each, _BatchNorm)}
    hooks = [each.register_forward_pre_hook(partial(look, name)) for name, each in norms.items()]
    place = next(net.parameters(), torch.zeros(0)).device
    row = map_tree(lambda leaf: leaf.to(place), plan.example())
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    try:
        with seeded(0), suppress(ValueError):  # torch's, behind what has been found
            functional_call(net, buffers, (row,))
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def step_of(
    plan: Plan,
    net: Net,
    optimizer: Optimizer,
    measure: Callable[[Params, Params], Metrics] = no_metrics,
) -> Step:
    """Make the step of a plan's `[train]`."""
    how = plan.spec.train
    return train_step(
        net,
        plan.loss,
        optimizer,
        gradient_rule=sharpness_aware(how.sam) if how.sam else standard_gradient,
        measure=measure,
        gradient_engine=compiled if how.compile else eager,
        precision=how.precision,
        skip_nonfinite=True,
    )


def watching(how: Train, valid: bool) -> list[Hook]:
    """Make the hooks that `[train]` asks for; `valid` says whether there are valid rows.

    Raises SpecError where they are needed and missing.
    """
    slow = how.plateau
    needs = {
        "patience": how.patience is not None,
        "restore_best": how.restore_best,
        "plateau": slow is not None and slow.metric.startswith("valid/"),
    }
    asked = [name for name, needed in needs.items() if needed]
    if asked and not valid:
        raise SpecError(f"train.{asked[0]} needs a valid part in data.split")
    lower = [plateau(slow.metric, slow.factor, slow.patience, None, slow.threshold)] if slow else []
    stop = [early_stop("valid/loss", how.patience)] if how.patience else []
    return [*_guarding(how), *lower, *stop]


def _guarding(how: Train) -> list[Hook]:
    if how.on_nan == "stop":
        return [_refuse]
    return [nan_guard("roll_back"), _refuse_again] if how.on_nan == "roll_back" else [_refuse_whole]


def _refuse(event: Event) -> Reply:
    stop = nan_guard()(event)
    if isinstance(stop, Stop):
        cure = "try a smaller train.optimizer.lr, or train.on_nan = 'skip'"
        raise DataError(f"{stop.reason}, in epoch {event.epoch + 1} ({cure})")
    return None


def _refuse_whole(event: Event) -> Reply:
    if event.name == "after_epoch" and event.metrics.get("skipped") == 1:
        told = f"no step of epoch {event.epoch + 1} had a finite loss and gradients"
        raise DataError(f"{told} (try a smaller train.optimizer.lr)")
    return None


def _refuse_again(event: Event) -> Reply:
    if event.name == "after_epoch":
        last = event.history.epochs[-2:]
        if len(last) == 2 and all(row.get("skipped") for row in last):
            told = f"epochs {event.epoch} and {event.epoch + 1} both went back to their begin"
            raise DataError(f"{told} (try a smaller train.optimizer.lr)")
    return None
