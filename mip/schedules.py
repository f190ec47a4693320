"""Schedules: what a hyper-parameter is at each step, as a function of the step."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, Literal, Protocol

import attrs
from attrs import field, frozen
from attrs.validators import ge, gt, le, lt, min_len

Schedule = Callable[[int], float]
"""Step, counted from 0, to the value of a hyper-parameter."""

Hyper = float | Schedule
"""A hyper-parameter: a number, or a function of the step."""


def value(hyper: Hyper, step: int) -> float:
    """Give what a hyper-parameter is at a step.

    >>> value(0.1, 7), value(lambda step: step / 10, 7)
    (0.1, 0.7)
    """
    return hyper(step) if callable(hyper) else hyper


def constant(value: float) -> Schedule:
    """Give the same value at every step.

    >>> constant(0.1)(1000)
    0.1
    """
    return lambda step: value


def linear(start: float, end: float, steps: int) -> Schedule:
    """Go from `start` to `end` in a line over `steps` steps, and stay there; with `start` and
    `end` as factors it equals `torch.optim.lr_scheduler.LinearLR`.

    >>> [linear(0.0, 1.0, steps=4)(step) for step in range(6)]
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return lambda step: start + (end - start) * _share(step, steps)


def cosine(peak: float, steps: int, warmup: int = 0, end: float = 0.0) -> Schedule:
    """Rise in a line over `warmup` steps, then fall to `end` along half a cosine
    (Loshchilov and Hutter 2017); after `steps` steps it stays there.

    >>> [round(cosine(1.0, steps=4)(step), 3) for step in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """

    def schedule(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / (warmup + 1)
        return _half_cosine(peak, end, (step - warmup) / max(steps - warmup, 1))

    return schedule


def exponential(start: float, factor: float) -> Schedule:
    """Multiply by `factor` at every step; equal to `torch.optim.lr_scheduler.ExponentialLR`.

    >>> [exponential(1.0, 0.5)(step) for step in range(4)]
    [1.0, 0.5, 0.25, 0.125]
    """
    return lambda step: start * factor**step


def multi_step(start: float, at: Sequence[int], factor: float = 0.1) -> Schedule:
    """Multiply by `factor` at each of the steps `at`; equal to
    `torch.optim.lr_scheduler.MultiStepLR`.

    >>> [multi_step(1.0, at=[1, 3], factor=0.5)(step) for step in range(5)]
    [1.0, 0.5, 0.5, 0.25, 0.25]
    """
    milestones = sorted(at)
    return lambda step: start * factor ** bisect_right(milestones, step)


def polynomial(start: float, steps: int, power: float = 1.0, end: float = 0.0) -> Schedule:
    """Fall to `end` as a power of what is left of `steps` steps; with `end` 0 it equals
    `torch.optim.lr_scheduler.PolynomialLR`.

    >>> [polynomial(1.0, steps=4, power=2.0)(step) for step in range(5)]
    [1.0, 0.5625, 0.25, 0.0625, 0.0]
    """
    return lambda step: end + (start - end) * (1 - _share(step, steps)) ** power


def one_cycle(peak: float, steps: int, warmup: float = 0.3) -> Schedule:
    """Rise from peak / 25 over the fraction `warmup` of the steps, then fall to 1e-4 of that,
    both along half a cosine (Smith and Topin 2018); equal to `torch.optim.lr_scheduler.OneCycleLR`.

    >>> [round(one_cycle(1.0, steps=11)(step), 3) for step in (0, 1, 2, 6, 10)]
    [0.04, 0.422, 0.96, 0.531, 0.0]
    """
    start, top, last = peak / 25, warmup * steps - 1, steps - 1

    def schedule(step: int) -> float:
        if step <= top:
            return _half_cosine(start, peak, step / top if top > 0 else 1.0)
        return _half_cosine(peak, start * 1e-4, (step - top) / max(last - top, 1e-9))

    return schedule


def warm_restarts(peak: float, steps: int, factor: int = 1, end: float = 0.0) -> Schedule:
    """Fall to `end` along half a cosine over `steps` steps and begin again, each time with
    `factor` times as many (Loshchilov and Hutter 2017); equal to
    `torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`.

    >>> [round(warm_restarts(1.0, steps=2, factor=2)(step), 3) for step in range(7)]
    [1.0, 0.5, 1.0, 0.854, 0.5, 0.146, 1.0]
    """

    def schedule(step: int) -> float:
        length = steps
        if factor == 1:
            step %= length
        while step >= length:
            step, length = step - length, length * factor
        return _half_cosine(peak, end, step / length)

    return schedule


def inverse_sqrt(peak: float, warmup: int) -> Schedule:
    """Rise in a line to the peak over `warmup` steps, then fall as 1 / sqrt(step)
    (Vaswani et al. 2017).

    >>> [inverse_sqrt(1.0, warmup=4)(step) for step in (0, 1, 3, 15, 63)]
    [0.25, 0.5, 1.0, 0.5, 0.25]
    """
    rise = max(warmup, 1)
    return lambda step: peak * min((step + 1) / rise, math.sqrt(rise / (step + 1)))


def plateau(
    values: Sequence[float],
    factor: float = 0.1,
    patience: int = 10,
    mode: Literal["min", "max"] = "min",
    threshold: float = 1e-4,
) -> float:
    """Say what a rate is multiplied by after these values of a metric, one for each epoch: by
    `factor` for each time that more than `patience` epochs in a row were not better than the best
    by a share of `threshold`; as `torch.optim.lr_scheduler.ReduceLROnPlateau` does. It needs the
    values, so that it is no schedule: see `mip.hooks.plateau`.

    >>> [plateau([3.0, 2.0, 2.0, 2.0, 2.0][:k], factor=0.5, patience=1) for k in range(6)]
    [1.0, 1.0, 1.0, 1.0, 0.5, 0.5]
    """
    sign, least, waited, now = 1 if mode == "min" else -1, math.inf, 0, 1.0
    for value in (sign * each for each in values):
        margin = threshold * abs(least) if least < math.inf else 0.0
        if value < least - margin:
            least, waited = value, 0
        else:
            waited += 1
        if waited > patience:
            now, waited = now * factor, 0
    return now


def warmed(schedule: Schedule, steps: int) -> Schedule:
    """Rise in a line over `steps` steps to where `schedule` begins, then follow it.

    >>> [warmed(exponential(1.0, 0.5), steps=3)(step) for step in range(6)]
    [0.25, 0.5, 0.75, 1.0, 0.5, 0.25]
    """

    def rising(step: int) -> float:
        if step < steps:
            return schedule(0) * (step + 1) / (steps + 1)
        return schedule(step - steps)

    return rising


def joined(parts: Sequence[tuple[float, Callable[[int], Schedule]]], steps: int) -> Schedule:
    """Follow one schedule after another. A part is its share of the steps, and a function that
    makes its schedule from how many these are; each counts its own steps from 0.

    Raises ValueError where the shares do not add up to 1.

    >>> up, down = partial(cosine, 0.4, end=2.0), partial(cosine, 2.0, end=0.4)
    >>> both = joined([(0.5, up), (0.5, down)], steps=10)
    >>> [round(both(step), 3) for step in range(0, 10, 2)]
    [0.4, 0.953, 1.847, 1.847, 0.953]
    """
    _check_shares([share for share, _ in parts])
    ends = [round(part * steps) for part in accumulate(share for share, _ in parts)]
    begins = [0, *ends[:-1]]
    spans = zip(parts, begins, ends, strict=True)
    made = [make(max(end - begin, 1)) for (_, make), begin, end in spans]

    def schedule(step: int) -> float:
        k = min(bisect_right(ends, step), len(made) - 1)
        return made[k](step - begins[k])

    return schedule


def _check_shares(shares: list[float]) -> None:
    if abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"shares must add up to 1: {shares}")


def _share(step: int, steps: int) -> float:
    return min(step / max(steps, 1), 1.0)


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * min(share, 1.0)))


class ScheduleSpec(Protocol):
    """A schedule of the learning rate as a spec file describes it."""

    def schedule(self, peak: float, steps: int) -> Schedule:
        """Build it for a run of `steps` steps."""
        ...


def _warm(make: Callable[[int], Schedule], warmup: float, steps: int) -> Schedule:
    rise = round(warmup * steps)
    return warmed(make(max(steps - rise, 1)), rise) if rise else make(steps)


@frozen
class Constant:
    """See `constant`; `warmup` is a fraction of the run."""

    warmup: float = field(default=0.0, validator=[ge(0), lt(1)])

    def schedule(self, peak: float, steps: int) -> Schedule:
        """Stay at the peak."""
        return _warm(lambda _: constant(peak), self.warmup, steps)


@frozen
class Linear:
    """See `linear`; `start` and `end` are factors of the peak, `warmup` a fraction of the run."""

    start: float = field(default=1.0, validator=[ge(0), lt(math.inf)])
    end: float = field(default=0.0, validator=[ge(0), lt(math.inf)])
    warmup: float = field(default=0.0, validator=[ge(0), lt(1)])

    def schedule(self, peak: float, steps: int) -> Schedule:
        """Go in a line over the whole run."""
        return _warm(partial(linear, self.start * peak, self.end * peak), self.warmup, steps)


@frozen
class Cosine:
    """See `cosine`; `warmup` is a fraction of the run, `end` a factor of the peak."""

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

    end: float = field(default=0.01, validator=[gt(0), lt(math.inf)])
    warmup: float = field(default=0.0, validator=[ge(0), lt(1)])

    def schedule(self, peak: float, steps: int) -> Schedule:
        """Fall over the whole run."""
        return _warm(lambda left: exponential(peak, self.end ** (1 / left)), self.warmup, steps)


@frozen
class MultiStep:
    """See `multi_step`; `at` are fractions of the run behind its warm-up, and `warmup` of all."""

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

    warmup: float = field(default=0.3, validator=[gt(0), le(1)])

    def schedule(self, peak: float, steps: int) -> Schedule:
        """Rise and fall once over the whole run."""
        return one_cycle(peak, steps, self.warmup)


@frozen
class WarmRestarts:
    """See `warm_restarts`; so many `cycles` fill the run, each `factor` times as long as the one
    before it; `end` is a factor of the peak, `warmup` a fraction of the run.
    """

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

    part: tuple[Part, ...] = field(converter=tuple, validator=min_len(1))

    @part.validator
    def _whole(self, _: attrs.Attribute, part: tuple[Part, ...]) -> None:
        try:
            _check_shares([each.share for each in part])
        except ValueError as error:
            raise ValueError(f"'part': {error}") from error

    def schedule(self, peak: float, steps: int) -> Schedule:
        """Follow the parts one after another."""
        makes = [
            (each.share, partial(each.schedule.schedule, peak * each.peak)) for each in self.part
        ]
        return joined(makes, steps)
