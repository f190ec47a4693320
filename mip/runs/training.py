"""From `[train]` of a spec to a step and the hooks that steer a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from mip.errors import DataError, SpecError
from mip.hooks import early_stop, nan_guard, reduce_lr_on_plateau
from mip.model import Net, Plan
from mip.optim import Optimizer, Params
from mip.spec import Train
from mip.train import (
    Event,
    Hook,
    Metrics,
    Reply,
    Step,
    Stop,
    compiled,
    eager,
    measure_nothing,
    sharpness_aware,
    standard_gradient,
    train_step,
)


def make_step(
    plan: Plan,
    net: Net,
    optimizer: Optimizer,
    measure: Callable[[Params, Params], Metrics] = measure_nothing,
    starts: Mapping[str, int] = MappingProxyType({}),
) -> Step:
    """Make the step that a plan's `[train]` describes; `measure` and `starts` are those of
    `train_step`.
    """
    train = plan.spec.train
    return train_step(
        net,
        plan.loss,
        optimizer,
        gradient_rule=sharpness_aware(train.sam) if train.sam else standard_gradient,
        measure=measure,
        gradient_engine=compiled if train.compile else eager,
        precision=train.precision,
        skip_nonfinite=True,
        starts=starts,
    )


def training_hooks(train: Train, has_valid: bool) -> list[Hook]:
    """Make the hooks that `[train]` describes, with or without rows for validation.

    Raises SpecError if a field needs a valid part and there is none.
    """
    plateau = train.plateau
    needs_valid = {
        "patience": train.patience is not None,
        "restore_best": train.restore_best,
        "plateau": plateau is not None and plateau.metric.startswith("valid/"),
    }
    for name, needed in needs_valid.items():
        if needed and not has_valid:
            raise SpecError(f"train.{name} needs a valid part in data.split")
    hooks = _nonfinite_hooks(train)
    if plateau:
        hooks.append(
            reduce_lr_on_plateau(
                plateau.metric,
                factor=plateau.factor,
                patience=plateau.patience,
                threshold=plateau.threshold,
            )
        )
    if train.patience:
        hooks.append(early_stop("valid/loss", train.patience))
    return hooks


SMALLER_LR = "try a smaller train.optimizer.lr"


def _nonfinite_hooks(train: Train) -> list[Hook]:
    if train.on_nan == "roll_back":
        return [nan_guard("roll_back"), _fail_if_rolled_back_twice]
    return [_fail_if_all_skipped] if train.on_nan == "skip" else [_fail_on_nonfinite()]


def _fail_on_nonfinite() -> Hook:
    guard = nan_guard("stop")

    def hook(event: Event) -> Reply:
        stop = guard(event)
        if isinstance(stop, Stop):
            cure = f"{SMALLER_LR}, or train.on_nan = 'skip'"
            raise DataError(f"{stop.reason}, in epoch {event.epoch + 1} ({cure})")
        return None

    return hook


def _fail_if_all_skipped(event: Event) -> Reply:
    if event.name == "after_epoch" and event.metrics.get("skipped") == 1:
        what = f"no step of epoch {event.epoch + 1} had a finite loss and gradients"
        raise DataError(f"{what} ({SMALLER_LR})")
    return None


def _fail_if_rolled_back_twice(event: Event) -> Reply:
    if event.name == "after_epoch":
        last = event.history.epochs[-2:]
        if len(last) == 2 and all(row.get("skipped") for row in last):
            what = f"epochs {event.epoch} and {event.epoch + 1} were both rolled back"
            raise DataError(f"{what} ({SMALLER_LR})")
    return None
