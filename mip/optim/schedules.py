"""Schedules: the value of a hyper-parameter as a function of the step."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, Literal

from attrs import define

from mip.errors import MipError

Schedule = Callable[[int], float]
"""Maps a step, counted from 0, to the value of a hyper-parameter."""


Hyper = float | Schedule
"""A hyper-parameter: a number, or a function of the step."""


FRACTIONS = frozenset({"momentum", "beta1", "beta2", "decay"})
"""The hyper-parameters that are fractions, from 0 to below 1."""


NOT_NEGATIVE = frozenset({"lr", "weight_decay", "eps"})
"""The hyper-parameters that are 0 or more."""


def value_at(hyper: Hyper, step: int) -> float:
    """Return the value of a hyper-parameter at a step.

    >>> value_at(0.1, 7), value_at(lambda step: step / 10, 7)
    (0.1, 0.7)
    """
    return hyper(step) if callable(hyper) else hyper


def check_hyper(name: str, hyper: Any) -> None:
    """Raise MipError for a hyper-parameter that is neither a number nor a function of the step, and
    for a number that is negative or, if it is a fraction, not below 1.

    >>> check_hyper("lr", "0.1")
    Traceback (most recent call last):
    mip.errors.MipError: lr must be a number or a schedule, a function of the step, not '0.1'
    """
    is_number = hasattr(hyper, "__float__")
    if isinstance(hyper, type) or not (is_number or callable(hyper)):
        wanted = "a number or a schedule, a function of the step"
        raise MipError(f"{name} must be {wanted}, not {hyper!r}")
    if name in FRACTIONS and is_number and not 0 <= float(hyper) < 1:
        raise MipError(f"{name} must be from 0 to below 1, not {hyper}")
    if name in NOT_NEGATIVE and is_number and not 0 <= float(hyper) < math.inf:
        raise MipError(f"{name} must be 0 or more, not {hyper}")


def check_betas(betas: Any) -> tuple[Hyper, Hyper]:
    """Return the two betas of an optimizer; raise MipError for anything else.

    >>> check_betas(0.9)
    Traceback (most recent call last):
    mip.errors.MipError: betas must be two, such as (0.9, 0.999), not 0.9
    """
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise MipError(f"betas must be two, such as (0.9, 0.999), not {betas!r}")
    for name, beta in zip(("beta1", "beta2"), betas, strict=True):
        check_hyper(name, beta)
    return betas[0], betas[1]


class RunStep(int):
    """A step of a run, counted from 0, that knows how many steps the run has: `total`.

    Wherever a schedule takes a step it may take this instead of an int; a schedule that was made
    without `steps` spans the whole run.

    >>> step = RunStep(3, total=10)
    >>> step == 3, step.total, one_cycle(0.1)(step) == one_cycle(0.1, steps=10)(3)
    (True, 10, True)
    """

    total: int

    def __new__(cls, step: int, total: int) -> RunStep:
        run_step = super().__new__(cls, step)
        run_step.total = total
        return run_step


def rescaled(step: int, every: int) -> int:
    """Count steps in units of `every`, and with them those of the run."""
    if isinstance(step, RunStep):
        return RunStep(step // every, -(-step.total // every))
    return step // every


def _spanning(name: str, make: Callable[[int], Schedule], steps: int | None) -> Schedule:
    """Make a schedule for `steps` steps, or one that learns the length of the run as it starts."""
    if steps is not None:
        return make(steps)
    make = lru_cache(maxsize=1)(make)

    def schedule(step: int) -> float:
        if not isinstance(step, RunStep):
            raise MipError(
                f"{name}: how long the run is was not said: give steps= here, or epochs= to a fit "
                "whose batches have a length"
            )
        return make(step.total)(step)

    return schedule


def constant(value: float) -> Schedule:
    """Return the same value at every step.

    >>> constant(0.1)(1000)
    0.1
    """
    return lambda step: value


def linear(start: float, end: float, steps: int | None = None) -> Schedule:
    """Move linearly from `start` to `end` over `steps` steps (default: the run), and stay there; if
    `start` and `end` are factors it equals `torch.optim.lr_scheduler.LinearLR`.

    >>> [linear(0.0, 1.0, steps=4)(step) for step in range(6)]
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """

    def over(steps: int) -> Schedule:
        return lambda step: start + (end - start) * _progress(step, steps)

    return _spanning("linear", over, steps)


def cosine(
    max_lr: float, steps: int | None = None, warmup_steps: int = 0, end: float = 0.0
) -> Schedule:
    """Rise linearly to `max_lr` over `warmup_steps` steps, then fall to `end` along half a cosine
    (Loshchilov and Hutter 2017) until step `steps` (default: the run's last), and stay there.

    >>> [round(cosine(1.0, steps=4)(step), 3) for step in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """

    def over(steps: int) -> Schedule:
        def schedule(step: int) -> float:
            if step < warmup_steps:
                return max_lr * (step + 1) / (warmup_steps + 1)
            return _half_cosine(max_lr, end, (step - warmup_steps) / max(steps - warmup_steps, 1))

        return schedule

    return _spanning("cosine", over, steps)


def exponential(start: float, gamma: float) -> Schedule:
    """Multiply by `gamma` at every step; equal to `torch.optim.lr_scheduler.ExponentialLR`.

    >>> [exponential(1.0, 0.5)(step) for step in range(4)]
    [1.0, 0.5, 0.25, 0.125]
    """
    return lambda step: start * gamma**step


def multi_step(start: float, milestones: Sequence[int], gamma: float = 0.1) -> Schedule:
    """Multiply by `gamma` at each of the steps `milestones`; equal to
    `torch.optim.lr_scheduler.MultiStepLR`.

    A fraction of the run is `round(0.5 * epochs * len(batches))`; raises MipError for one as it is.

    >>> [multi_step(1.0, milestones=[1, 3], gamma=0.5)(step) for step in range(5)]
    [1.0, 0.5, 0.5, 0.25, 0.25]
    """
    for milestone in milestones:
        if milestone < 0 or milestone % 1:
            cure = f": round({milestone} * epochs * len(batches))" if 0 < milestone < 1 else ""
            raise MipError(f"multi_step: milestones are numbers of steps, not {milestone}{cure}")
    ordered = sorted(milestones)
    return lambda step: start * gamma ** bisect_right(ordered, step)


def polynomial(
    start: float, steps: int | None = None, power: float = 1.0, end: float = 0.0
) -> Schedule:
    """Fall to `end` as a power of the fraction of `steps` (default: the run) that is left; with
    `end` 0 it equals `torch.optim.lr_scheduler.PolynomialLR`.

    >>> [polynomial(1.0, steps=4, power=2.0)(step) for step in range(5)]
    [1.0, 0.5625, 0.25, 0.0625, 0.0]
    """

    def over(steps: int) -> Schedule:
        return lambda step: end + (start - end) * (1 - _progress(step, steps)) ** power

    return _spanning("polynomial", over, steps)


def one_cycle(max_lr: float, steps: int | None = None, warmup: float = 0.3) -> Schedule:
    """Rise from max_lr / 25 over the fraction `warmup` of the steps (default: the run), then fall
    to 1e-4 of that, both along half a cosine (Smith and Topin 2018); equal to
    `torch.optim.lr_scheduler.OneCycleLR`.

    >>> [round(one_cycle(1.0, steps=11)(step), 3) for step in (0, 1, 2, 6, 10)]
    [0.04, 0.422, 0.96, 0.531, 0.0]
    """

    def over(steps: int) -> Schedule:
        start, top, last = max_lr / 25, warmup * steps - 1, steps - 1

        def schedule(step: int) -> float:
            if step <= top:
                return _half_cosine(start, max_lr, step / top if top > 0 else 1.0)
            return _half_cosine(max_lr, start * 1e-4, (step - top) / max(last - top, 1e-9))

        return schedule

    return _spanning("one_cycle", over, steps)


def warm_restarts(
    max_lr: float, cycle_steps: int, cycle_mul: int = 1, end: float = 0.0
) -> Schedule:
    """Fall to `end` along half a cosine in cycles (Loshchilov and Hutter 2017): the first takes
    `cycle_steps` steps, each later one `cycle_mul` times as many as the one before it; equal to
    `torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`.

    >>> [round(warm_restarts(1.0, cycle_steps=2, cycle_mul=2)(step), 3) for step in range(7)]
    [1.0, 0.5, 1.0, 0.854, 0.5, 0.146, 1.0]
    """

    def schedule(step: int) -> float:
        length = cycle_steps
        if cycle_mul == 1:
            step %= length
        while step >= length:
            step, length = step - length, length * cycle_mul
        return _half_cosine(max_lr, end, step / length)

    return schedule


def inverse_sqrt(max_lr: float, warmup_steps: int) -> Schedule:
    """Rise linearly to `max_lr` over `warmup_steps` steps, then fall as 1 / sqrt(step)
    (Vaswani et al. 2017).

    >>> [inverse_sqrt(1.0, warmup_steps=4)(step) for step in (0, 1, 3, 15, 63)]
    [0.25, 0.5, 1.0, 0.5, 0.25]
    """
    rise = max(warmup_steps, 1)
    return lambda step: max_lr * min((step + 1) / rise, math.sqrt(rise / (step + 1)))


def with_warmup(schedule: Schedule, warmup_steps: int) -> Schedule:
    """Rise linearly over `warmup_steps` steps to the first value of `schedule`, then follow it; one
    without `steps` spans the rest of the run.

    >>> [with_warmup(exponential(1.0, 0.5), warmup_steps=3)(step) for step in range(6)]
    [0.25, 0.5, 0.75, 1.0, 0.5, 0.25]
    """

    def after(step: int, start: int) -> int:
        if isinstance(step, RunStep):
            return RunStep(step - start, max(step.total - warmup_steps, 1))
        return step - start

    def warmed_up(step: int) -> float:
        if step < warmup_steps:
            return schedule(after(step, step)) * (step + 1) / (warmup_steps + 1)
        return schedule(after(step, warmup_steps))

    return warmed_up


def sequential(
    parts: Sequence[tuple[float, Callable[[int], Schedule]]], steps: int | None = None
) -> Schedule:
    """Follow one schedule after another. A part is its share of `steps` (default: the run) and a
    function that makes its schedule from its number of steps; each counts its steps from 0.

    Raises ValueError if the shares do not add up to 1, and MipError for a part that is something
    else.

    >>> from functools import partial
    >>> up, down = partial(cosine, 0.4, end=2.0), partial(cosine, 2.0, end=0.4)
    >>> both = sequential([(0.5, up), (0.5, down)], steps=10)
    >>> [round(both(step), 3) for step in range(0, 10, 2)]
    [0.4, 0.953, 1.847, 1.847, 0.953]
    """
    for share, make in parts:
        if not callable(make) or callable(share):
            cure = "(0.5, lambda steps: mip.optim.cosine(0.1, steps))"
            raise MipError(f"sequential: a part is a share and a function of its steps: {cure}")
    shares = [share for share, _ in parts]
    if abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"shares must add up to 1: {shares}")

    def over(steps: int) -> Schedule:
        ends = [round(total * steps) for total in accumulate(shares)]
        starts = [0, *ends[:-1]]
        schedules = [
            _made(make, max(end - start, 1))
            for (_, make), start, end in zip(parts, starts, ends, strict=True)
        ]

        def schedule(step: int) -> float:
            k = min(bisect_right(ends, step), len(schedules) - 1)
            return schedules[k](step - starts[k])

        return schedule

    return _spanning("sequential", over, steps)


def _made(make: Callable[[int], Schedule], steps: int) -> Schedule:
    schedule = make(steps)
    if not callable(schedule):
        cure = "wrap a schedule that is made already: lambda steps: schedule"
        raise MipError(f"sequential: a part makes a schedule from its number of steps; {cure}")
    return schedule


@define
class Plateau:
    """The factor of the learning rate as the values of a metric come in, one for each epoch.

    It is multiplied by `factor` whenever more than `patience` epochs in a row were not better than
    the best by the relative `threshold`, as in `torch.optim.lr_scheduler.ReduceLROnPlateau`. This
    is not a schedule, since it depends on the values: see `mip.hooks.reduce_lr_on_plateau`.

    >>> plateau = Plateau(factor=0.5, patience=1)
    >>> [plateau.update(value) for value in (3.0, 2.0, 2.0, 2.0, 2.0)]
    [1.0, 1.0, 1.0, 0.5, 0.5]
    """

    factor: float = 0.1
    patience: int = 10
    mode: Literal["min", "max"] = "min"
    threshold: float = 1e-4
    best: float = math.inf
    bad_epochs: int = 0
    lr_factor: float = 1.0

    def update(self, value: float) -> float:
        """Take the value of an epoch into account, and return the factor after it."""
        value = value if self.mode == "min" else -value
        margin = self.threshold * abs(self.best) if self.best < math.inf else 0.0
        if value < self.best - margin:
            self.best, self.bad_epochs = value, 0
        else:
            self.bad_epochs += 1
        if self.bad_epochs > self.patience:
            self.lr_factor, self.bad_epochs = self.lr_factor * self.factor, 0
        return self.lr_factor


def _progress(step: int, steps: int) -> float:
    return min(step / max(steps, 1), 1.0)


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * min(progress, 1.0)))
