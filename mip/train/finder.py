"""The learning-rate finder: a range test that trains with rising rates and watches the loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from attrs import frozen

from mip.errors import MipError
from mip.optim import Schedule
from mip.train.arguments import check_step
from mip.train.events import Event, Reply
from mip.train.loop import fit
from mip.train.replies import Stop
from mip.train.state import State
from mip.train.step import Step, StepFunction

SMOOTHING = 0.9
"""The weight of earlier losses in the exponential moving average."""


DIVERGED = 3.0
"""The loss has diverged when it is above its minimum by this many times the distance of the first
loss from the minimum, or of the minimum from 0 if that is more.
"""


@frozen
class LRCurve:
    """The learning rate and the smoothed loss of each step of a range test."""

    lrs: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def minimum(self) -> float:
        """The learning rate with the lowest smoothed loss."""
        return self.lrs[self.losses.index(min(self.losses))]

    @property
    def suggestion(self) -> float:
        """A tenth of `minimum`, where the loss is still falling.

        >>> LRCurve((0.001, 0.01, 0.1, 1.0), (5.0, 4.0, 1.0, 9.0)).suggestion
        0.01
        """
        return self.minimum / 10


def find_lr(
    make_step: Callable[[Schedule], StepFunction],
    pipe: Iterable[Any],
    state: State,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    *,
    accumulate: int = 1,
) -> LRCurve:
    """Train from a state with learning rates that rise geometrically from `low` to `high`, and stop
    early when the loss has diverged (Smith 2017).

    `make_step` makes a training step from a schedule. If its optimizer accumulates the gradients of
    several batches (`mip.optim.accumulate`), as many have each rate, whose loss is the mean of
    theirs. State, module and global random state are not
    changed. Losses are smoothed by an exponential moving average with bias correction. Raises
    ValueError for rates that do not rise and for fewer than 3 steps, and MipError if the loss is
    not finite from the start, or for a step in the place of `make_step`.

    >>> import mip, torch; from toolz import pipe
    >>> net = torch.nn.Linear(2, 1)
    >>> x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    >>> batches = pipe((x, x @ torch.ones(2, 1)), mip.batch(8))
    >>> make_step = lambda lr: mip.train_step(net, torch.nn.functional.mse_loss, mip.sgd(lr))
    >>> curve = find_lr(make_step, batches, mip.init(net, mip.sgd()), low=1e-4, high=100.0)
    >>> 0.005 < curve.suggestion < 2
    True
    """
    if not (0 < low < high and steps > 2):
        raise ValueError(f"need 0 < low < high and steps >= 3, not {low}, {high} and {steps}")
    if isinstance(make_step, Step) or not callable(make_step):
        cure = "lambda lr: mip.train_step(net, loss, mip.adamw(lr))"
        raise MipError(f"find_lr: a function makes a step for each learning rate: {cure}")
    growth, start = (high / low) ** (1 / (steps - 1)), state.step // accumulate
    schedule = lambda step: low * growth ** (step - start)  # noqa: E731
    losses: list[float] = []
    step = make_step(schedule)
    check_step(step)
    alone = Step(getattr(step, "donate", step))  # without the module, which is to stay as it is
    hooks = [_record_smoothed(losses, accumulate)]
    fit(alone, pipe, state, steps=steps * accumulate, hooks=hooks)
    if len(losses) < 3:
        raise MipError(f"the loss is not finite after {len(losses)} steps with lr from {low:g}")
    return LRCurve(tuple(schedule(start + k) for k in range(len(losses))), tuple(losses))


def _record_smoothed(losses: list[float], accumulate: int) -> Callable[[Event], Reply]:
    weighted_sum = weights = 0.0
    batches: list[float] = []

    def hook(event: Event) -> Reply:
        nonlocal weighted_sum, weights
        if event.name != "after_batch":
            return None
        loss = float(event.metrics["loss"])
        if not math.isfinite(loss):
            return Stop("the loss is not finite")
        batches.append(loss)
        if len(batches) < accumulate:
            return None
        loss = sum(batches) / len(batches)
        batches.clear()
        weighted_sum, weights = SMOOTHING * weighted_sum + loss, SMOOTHING * weights + 1.0
        losses.append(weighted_sum / weights)
        lowest = min(losses)
        distance = max(losses[0] - lowest, abs(lowest), 1e-12)
        diverged = losses[-1] - lowest > DIVERGED * distance
        return Stop("the loss has diverged") if diverged else None

    return hook
