"""Schedules as a spec describes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import attrs
from attrs import field, frozen
from attrs.validators import ge, gt, le, lt, min_len

from mip.optim.schedules import (
    Schedule,
    check_shares,
    constant,
    cosine,
    exponential,
    inverse_sqrt,
    joined,
    linear,
    multi_step,
    one_cycle,
    polynomial,
    warm_restarts,
    warmed,
)


class ScheduleSpec(Protocol):
    """A schedule of the learning rate as a spec file describes it."""

    kind: str

    def schedule(self, peak: float, steps: int) -> Schedule:
        """Build it for a run of `steps` steps."""
        ...


def _warm(make: Callable[[int], Schedule], warmup: float, steps: int) -> Schedule:
    rise = round(warmup * steps)
    return warmed(make(max(steps - rise, 1)), rise) if rise else make(steps)


@frozen
class Constant:
    """See `constant`; `warmup` is a fraction of the run."""

    kind = "constant"
    warmup: float = field(default=0.0, validator=[ge(0), lt(1)])

    def schedule(self, peak: float, steps: int) -> Schedule:
        """Stay at the peak."""
        return _warm(lambda _: constant(peak), self.warmup, steps)


@frozen
class Linear:
    """See `linear`; `start` and `end` are factors of the peak, `warmup` a fraction of the run."""

    kind = "linear"
    start: float = field(default=1.0, validator=[ge(0), lt(math.inf)])
    end: float = field(default=0.0, validator=[ge(0), lt(math.inf)])
    warmup: float = field(default=0.0, validator=[ge(0), lt(1)])

    def schedule(self, peak: float, steps: int) -> Schedule:
        """Go in a line over the whole run."""
        return _warm(partial(linear, self.start * peak, self.end * peak), self.warmup, steps)


@frozen
class Cosine:
    """See `cosine`; `warmup` is a fraction of the run, `end` a factor of the peak."""

    kind = "cosine"
    warmup: float = field(default=0.0, validator=[ge(0), lt(1)])
    end: float = field(default=0.0, validator=[ge(0), lt(math.inf)])

    def schedule(self, peak: float, steps: int) -> Schedule:
        """Fall over the whole run."""
        return cosine(peak, steps, round(self.warmup * steps), self.end * peak)


@frozen
class Exponential:
    """See `exponential`; `end` is a factor of the peak, reached with the run's end, and `warmup` a
    fraction of the run.
    """

    kind = "exponential"
    end: float = field(default=0.01, validator=[gt(0), lt(math.inf)])
    warmup: float = field(default=0.0, validator=[ge(0), lt(1)])

    def schedule(self, peak: float, steps: int) -> Schedule:
        """Fall over the whole run."""
        return _warm(lambda left: exponential(peak, self.end ** (1 / left)), self.warmup, steps)


@frozen
class MultiStep:
    """See `multi_step`; `at` are fractions of the run behind its warm-up, and `warmup` of all."""

    kind = "multi_step"
    at: tuple[float, ...] = field(default=(0.5, 0.75), converter=tuple)
    factor: float = field(default=0.1, validator=[ge(0), lt(math.inf)])
    warmup: float = field(default=0.0, validator=[ge(0), lt(1)])

    @at.validator
    def _in_the_run(self, _: Any, at: tuple[float, ...]) -> None:
        if not all(0 <= share <= 1 for share in at):
            raise ValueError(f"'at' must be fractions of the run, from 0 to 1: {list(at)}")

    def schedule(self, peak: float, steps: int) -> Schedule:
        """Drop at each of them."""

        def make(left: int) -> Schedule:
            return multi_step(peak, [round(share * left) for share in self.at], self.factor)

        return _warm(make, self.warmup, steps)


@frozen
class Polynomial:
    """See `polynomial`; `end` is a factor of the peak, `warmup` a fraction of the run."""

    kind = "polynomial"
    power: float = field(default=1.0, validator=[gt(0), lt(math.inf)])
    end: float = field(default=0.0, validator=[ge(0), lt(math.inf)])
    warmup: float = field(default=0.0, validator=[ge(0), lt(1)])

    def schedule(self, peak: float, steps: int) -> Schedule:
        """Fall over the whole run."""
        make = partial(polynomial, peak, power=self.power, end=self.end * peak)
        return _warm(make, self.warmup, steps)


@frozen
class OneCycle:
    """See `one_cycle`."""

    kind = "one_cycle"
    warmup: float = field(default=0.3, validator=[gt(0), le(1)])

    def schedule(self, peak: float, steps: int) -> Schedule:
        """Rise and fall once over the whole run."""
        return one_cycle(peak, steps, self.warmup)


@frozen
class WarmRestarts:
    """See `warm_restarts`; so many `cycles` fill the run, each `factor` times as long as the one
    before it; `end` is a factor of the peak, `warmup` a fraction of the run.
    """

    kind = "warm_restarts"
    cycles: int = field(default=3, validator=[gt(0), le(1000)])
    factor: int = field(default=1, validator=[gt(0), le(1000)])
    end: float = field(default=0.0, validator=[ge(0), lt(math.inf)])
    warmup: float = field(default=0.0, validator=[ge(0), lt(1)])

    def schedule(self, peak: float, steps: int) -> Schedule:
        """Fall so many times over the whole run."""
        parts = sum(self.factor**k for k in range(self.cycles))

        def make(left: int) -> Schedule:
            return warm_restarts(peak, max(-(-left // parts), 1), self.factor, self.end * peak)

        return _warm(make, self.warmup, steps)


@frozen
class InverseSqrt:
    """See `inverse_sqrt`; `warmup` is a fraction of the run."""

    kind = "inverse_sqrt"
    warmup: float = field(default=0.1, validator=[ge(0), lt(1)])

    def schedule(self, peak: float, steps: int) -> Schedule:
        """Rise, and fall over the rest of the run."""
        return inverse_sqrt(peak, round(self.warmup * steps))


@frozen
class Part:
    """A schedule over a `share` of the run, whose peak is `peak` times that of the run."""

    share: float = field(validator=[gt(0), le(1)])
    schedule: ScheduleSpec
    peak: float = field(default=1.0, validator=[ge(0), lt(math.inf)])


@frozen
class Joined:
    """See `joined`; the shares of its parts add up to 1."""

    kind = "joined"
    part: tuple[Part, ...] = field(converter=tuple, validator=min_len(1))

    @part.validator
    def _whole(self, _: attrs.Attribute, part: tuple[Part, ...]) -> None:
        try:
            check_shares([each.share for each in part])
        except ValueError as error:
            raise ValueError(f"'part': {error}") from error

    def schedule(self, peak: float, steps: int) -> Schedule:
        """Follow the parts one after another."""
        makes = [
            (each.share, partial(each.schedule.schedule, peak * each.peak)) for each in self.part
        ]
        return joined(makes, steps)
