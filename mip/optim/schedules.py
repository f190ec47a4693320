"""Schedules: what a hyper-parameter is at each step, as a function of the step."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Literal

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

    >>> from functools import partial
    >>> up, down = partial(cosine, 0.4, end=2.0), partial(cosine, 2.0, end=0.4)
    >>> both = joined([(0.5, up), (0.5, down)], steps=10)
    >>> [round(both(step), 3) for step in range(0, 10, 2)]
    [0.4, 0.953, 1.847, 1.847, 0.953]
    """
    check_shares([share for share, _ in parts])
    ends = [round(part * steps) for part in accumulate(share for share, _ in parts)]
    begins = [0, *ends[:-1]]
    spans = zip(parts, begins, ends, strict=True)
    made = [make(max(end - begin, 1)) for (_, make), begin, end in spans]

    def schedule(step: int) -> float:
        k = min(bisect_right(ends, step), len(made) - 1)
        return made[k](step - begins[k])

    return schedule


def check_shares(shares: list[float]) -> None:
    """Raise ValueError unless the shares add up to 1."""
    if abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"shares must add up to 1: {shares}")


def _share(step: int, steps: int) -> float:
    return min(step / max(steps, 1), 1.0)


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * min(share, 1.0)))
