"""Schedules in a spec: like the functions of `mip.optim.schedules`, but in fractions of the run and
factors of the optimizer's learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import attrs
from attrs import field, frozen
from attrs.validators import ge, gt, le, lt

from mip.errors import FieldError
from mip.fields import MinLength
from mip.optim.schedules import (
    Schedule,
    constant,
    cosine,
    exponential,
    inverse_sqrt,
    linear,
    multi_step,
    one_cycle,
    polynomial,
    sequential,
    warm_restarts,
    with_warmup,
)


class ScheduleSpec(Protocol):
    """A schedule of the learning rate in a spec."""

    kind: str

    def schedule(self, max_lr: float, steps: int) -> Schedule:
        """Build the schedule for a run of `steps` steps."""
        ...


def _warmup(default: float = 0.0) -> Any:
    return field(default=default, validator=[ge(0), lt(1)])


def _factor(default: float) -> Any:
    return field(default=default, validator=[ge(0), lt(math.inf)])


def _warmed_up(make: Callable[[int], Schedule], warmup: float, steps: int) -> Schedule:
    warmup_steps = round(warmup * steps)
    if not warmup_steps:
        return make(steps)
    return with_warmup(make(max(steps - warmup_steps, 1)), warmup_steps)


@frozen
class Constant:
    """A constant learning rate after a linear warm-up over the fraction `warmup` of the run."""

    kind = "constant"
    warmup: float = _warmup()

    def schedule(self, max_lr: float, steps: int) -> Schedule:
        """Stay at `max_lr`."""
        return _warmed_up(lambda _: constant(max_lr), self.warmup, steps)


@frozen
class Linear:
    """Linear from `start_factor` to `end_factor` times the learning rate over the run, after a
    warm-up over the fraction `warmup` of it.
    """

    kind = "linear"
    start_factor: float = _factor(1.0)
    end_factor: float = _factor(0.0)
    warmup: float = _warmup()

    def schedule(self, max_lr: float, steps: int) -> Schedule:
        """Move linearly over the whole run."""
        make = partial(linear, self.start_factor * max_lr, self.end_factor * max_lr)
        return _warmed_up(make, self.warmup, steps)


@frozen
class Cosine:
    """Half a cosine from the learning rate to `end_factor` times it, after a warm-up over the
    fraction `warmup` of the run.
    """

    kind = "cosine"
    warmup: float = _warmup()
    end_factor: float = _factor(0.0)

    def schedule(self, max_lr: float, steps: int) -> Schedule:
        """Fall over the whole run."""
        return cosine(max_lr, steps, round(self.warmup * steps), self.end_factor * max_lr)


@frozen
class Exponential:
    """Exponential decay to `end_factor` times the learning rate at the end of the run, after a
    warm-up over the fraction `warmup` of it.
    """

    kind = "exponential"
    end_factor: float = field(default=0.01, validator=[gt(0), lt(math.inf)])
    warmup: float = _warmup()

    def schedule(self, max_lr: float, steps: int) -> Schedule:
        """Fall over the whole run."""
        make = lambda left: exponential(max_lr, self.end_factor ** (1 / left))  # noqa: E731
        return _warmed_up(make, self.warmup, steps)


@frozen
class MultiStep:
    """The learning rate times `gamma` at each of `milestones`, fractions of the run after its
    warm-up, which takes the fraction `warmup` of the whole.
    """

    kind = "multi_step"
    milestones: tuple[float, ...] = field(default=(0.5, 0.75), converter=tuple)
    gamma: float = _factor(0.1)
    warmup: float = _warmup()

    @milestones.validator
    def _check_fractions(self, _: attrs.Attribute, milestones: tuple[float, ...]) -> None:
        if not all(0 <= fraction <= 1 for fraction in milestones):
            text = f"must be fractions of the run, from 0 to 1: {list(milestones)}"
            raise FieldError("milestones", text)

    def schedule(self, max_lr: float, steps: int) -> Schedule:
        """Drop at each milestone."""

        def make(left: int) -> Schedule:
            milestones = [round(fraction * left) for fraction in self.milestones]
            return multi_step(max_lr, milestones, self.gamma)

        return _warmed_up(make, self.warmup, steps)


@frozen
class Polynomial:
    """Polynomial decay to `end_factor` times the learning rate over the run, after a warm-up over
    the fraction `warmup` of it.
    """

    kind = "polynomial"
    power: float = field(default=1.0, validator=[gt(0), lt(math.inf)])
    end_factor: float = _factor(0.0)
    warmup: float = _warmup()

    def schedule(self, max_lr: float, steps: int) -> Schedule:
        """Fall over the whole run."""
        make = partial(polynomial, max_lr, power=self.power, end=self.end_factor * max_lr)
        return _warmed_up(make, self.warmup, steps)


@frozen
class OneCycle:
    """One rise over the fraction `warmup` of the run and one fall, both along half a cosine."""

    kind = "one_cycle"
    warmup: float = field(default=0.3, validator=[gt(0), le(1)])

    def schedule(self, max_lr: float, steps: int) -> Schedule:
        """Rise and fall once over the whole run."""
        return one_cycle(max_lr, steps, self.warmup)


@frozen
class WarmRestarts:
    """Falls along half a cosine to `end_factor` times the learning rate, in `cycles` cycles that
    fill the run, each `cycle_mul` times as long as the one before it, after a warm-up over the
    fraction `warmup` of the run.
    """

    kind = "warm_restarts"
    cycles: int = field(default=3, validator=[gt(0), le(1000)])
    cycle_mul: int = field(default=1, validator=[gt(0), le(1000)])
    end_factor: float = _factor(0.0)
    warmup: float = _warmup()

    def schedule(self, max_lr: float, steps: int) -> Schedule:
        """Fall once in each cycle."""
        total = sum(self.cycle_mul**k for k in range(self.cycles))  # in first cycles

        def make(left: int) -> Schedule:
            cycle_steps = max(-(-left // total), 1)
            return warm_restarts(max_lr, cycle_steps, self.cycle_mul, self.end_factor * max_lr)

        return _warmed_up(make, self.warmup, steps)


@frozen
class InverseSqrt:
    """A linear rise over the fraction `warmup` of the run, then a fall as 1 / sqrt(step)."""

    kind = "inverse_sqrt"
    warmup: float = _warmup(0.1)

    def schedule(self, max_lr: float, steps: int) -> Schedule:
        """Rise, and fall over the rest of the run."""
        return inverse_sqrt(max_lr, round(self.warmup * steps))


@frozen
class Phase:
    """A schedule over a `share` of the run, with `lr_scale` times its learning rate."""

    share: float = field(validator=[gt(0), le(1)])
    schedule: ScheduleSpec
    lr_scale: float = _factor(1.0)


@frozen
class Sequential:
    """Schedules one after another, whose shares of the run add up to 1."""

    kind = "sequential"
    part: tuple[Phase, ...] = field(converter=tuple, validator=MinLength(1))

    @part.validator
    def _check_shares(self, _: attrs.Attribute, parts: tuple[Phase, ...]) -> None:
        shares = [part.share for part in parts]
        if abs(sum(shares) - 1) > 1e-6:
            raise FieldError("part", f"must have shares that add up to 1: {shares}")

    def schedule(self, max_lr: float, steps: int) -> Schedule:
        """Follow the parts one after another."""
        parts = [
            (part.share, partial(part.schedule.schedule, max_lr * part.lr_scale))
            for part in self.part
        ]
        return sequential(parts, steps)
