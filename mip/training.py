"""From `[train]` of a spec to an optimizer, a step, and what watches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from mip.errors import DataError, SpecError, hint
from mip.fit import Event, Hook, Reply, Stop
from mip.gradient import compiled, eager, plain, sharpness_aware
from mip.hooks import early_stop, nan_guard, plateau
from mip.net import Net, fits, spoken
from mip.optim import (
    Optimizer,
    Params,
    Schedule,
    accumulate,
    adjustable,
    chain,
    clip_norm,
    ema,
    lookahead,
    loss_scaled,
    partition,
    swa,
)
from mip.plan import Plan
from mip.spec import Group, Train
from mip.step import Metrics, Step, nothing, train_step


def optimizer_of(how: Train, batches: int) -> Optimizer:
    """Build the optimizer of a run of so many batches."""
    steps = max(batches // how.accumulate, 1)

    def build(factor: float) -> Optimizer:
        whole = chain(
            *_clip(how), _ahead(how, _by_group(how, steps, factor)), *_average(how, steps)
        )
        return accumulate(whole, how.accumulate) if how.accumulate > 1 else whole

    one = adjustable(build) if how.plateau else build(1.0)
    return loss_scaled(one) if how.precision == "float16" else one


def clipped(how: Train, one: Optimizer) -> Optimizer:
    """Put the clipping of `[train]` in front of an optimizer."""
    return chain(*_clip(how), one)


def _clip(how: Train) -> list[Optimizer]:
    return [clip_norm(how.clip)] if how.clip else []


def _ahead(how: Train, one: Optimizer) -> Optimizer:
    return lookahead(one, how.lookahead) if how.lookahead else one


def _average(how: Train, steps: int) -> list[Optimizer]:
    if how.swa:
        return [swa(round(how.swa * steps))]
    # A short run would else be the mean of where it began.
    return [ema(lambda step: min(how.ema, (1 + step) / (10 + step)))] if how.ema else []


def _by_group(how: Train, steps: int, factor: float) -> Optimizer:
    groups = {str(k): group for k, group in enumerate(how.group)} | {"others": Group("*")}
    links = {name: _link(how, group, steps, factor) for name, group in groups.items()}
    return partition(partial(_group, groups), links) if how.group else links["others"]


def _link(how: Train, group: Group, steps: int, factor: float) -> Optimizer:
    begin = group.start * steps // max(how.epochs, 1)
    schedule = how.schedule.schedule(how.optimizer.lr * group.lr * factor, steps)
    late: Schedule = lambda step: schedule(step) if step >= begin else 0.0  # noqa: E731
    return how.optimizer.optimizer(late if begin else schedule)


def _group(groups: Mapping[str, Group], path: str) -> str:
    return next(name for name, group in groups.items() if fits(path, group.match))


def check_groups(how: Train, net: Net) -> None:
    """Raise SpecError for a group that fits no parameter, and for one that begins too late."""
    paths = [path for path, param in net.named_parameters() if param.requires_grad]
    for k, group in enumerate(how.group):
        where, epochs = f"train.group[{k}]", how.epochs
        if not any(fits(path, group.match) for path in paths):
            known = hint(group.match, map(spoken, paths))
            raise SpecError(f"{where}.match = '{group.match}' fits no parameter{known}")
        if 0 < epochs <= group.start:
            raise SpecError(f"{where}.start = {group.start} never comes in {epochs} epochs")


def step_of(
    plan: Plan,
    net: Net,
    optimizer: Optimizer,
    measure: Callable[[Params, Params], Metrics] = nothing,
) -> Step:
    """Make the step of a plan's `[train]`."""
    how = plan.spec.train
    return train_step(
        net,
        plan.loss,
        optimizer,
        around=sharpness_aware(how.sam) if how.sam else plain,
        measure=measure,
        backward=compiled if how.compile else eager,
        precision=how.precision,
        guard=True,
    )


def watching(how: Train, valid: bool) -> list[Hook]:
    """Make the hooks that `[train]` asks for; `valid` says whether there are valid rows.

    Raises SpecError where they are needed and missing.
    """
    slow = how.plateau
    needs = {
        "patience": how.patience is not None,
        "keep = 'best'": how.keep == "best",
        "plateau": slow is not None and slow.metric.startswith("valid/"),
    }
    asked = [name for name, needed in needs.items() if needed]
    if asked and not valid:
        raise SpecError(f"train.{asked[0]} needs a valid part in data.split")
    lower = [plateau(slow.metric, slow.factor, slow.patience, None, slow.threshold)] if slow else []
    stop = [early_stop("valid/loss", how.patience)] if how.patience else []
    return [*_guarding(how), *lower, *stop]


def _guarding(how: Train) -> list[Hook]:
    if how.nan == "roll_back":
        return [nan_guard("roll_back")]
    return [_refuse] if how.nan == "stop" else []


def _refuse(event: Event) -> Reply:
    stop = nan_guard()(event)
    if isinstance(stop, Stop):
        cure = "try a smaller train.optimizer.lr, or train.nan = 'skip'"
        raise DataError(f"{stop.reason}, in epoch {event.epoch + 1} ({cure})")
    return None
