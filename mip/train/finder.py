"""The learning-rate finder: train with rates that rise, and see where the loss is least."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from attrs import evolve, frozen

from mip.errors import MipError
from mip.optim import Schedule
from mip.train.events import Event, Reply, Stop
from mip.train.loop import fit
from mip.train.step import State, Step

SMOOTH = 0.9
"""How much of the loss so far each smoothed loss keeps."""


DIVERGED = 4.0
"""A smoothed loss of so many times the least, counted from the first, has diverged."""


@frozen
class LRCurve:
    """What the finder saw: a learning rate and a smoothed loss for each step it took."""

    lrs: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def minimum(self) -> float:
        """The rate at which the smoothed loss is least: with more it rises again."""
        return self.lrs[self.losses.index(min(self.losses))]

    @property
    def suggestion(self) -> float:
        """A tenth of that: where the loss still falls, well before it rises.

        >>> LRCurve((0.001, 0.01, 0.1, 1.0), (5.0, 4.0, 1.0, 9.0)).suggestion
        0.01
        """
        return self.minimum / 10


def find_lr(
    train: Callable[[Schedule], Step],
    pipe: Iterable[Any],
    state: State,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
) -> LRCurve:
    """Train from a state with rates that rise from `low` to `high` by equal factors, until the
    steps are taken or the loss has diverged (Smith 2017).

    `train` makes a training step of a schedule; the state, the module and the global random state
    stay as they were. Losses are smoothed exponentially, without a bias to the first. Raises
    ValueError for rates that do not rise or too few steps, and MipError where the loss is not
    finite from the first steps on.

    >>> import mip, torch; from toolz import pipe
    >>> net = torch.nn.Linear(2, 1); draws = torch.Generator().manual_seed(0)
    >>> x = torch.randn(64, 2, generator=draws)
    >>> batches = pipe((x, x @ torch.ones(2, 1)), mip.batch(8))
    >>> train = lambda rate: mip.train_step(net, torch.nn.functional.mse_loss, mip.sgd(rate))
    >>> curve = find_lr(train, batches, mip.init(net, mip.sgd()), low=1e-4, high=100.0)
    >>> 0.005 < curve.suggestion < 2
    True
    """
    if not (0 < low < high and steps > 2):
        given = f"{low}, {high}, {steps}"
        raise ValueError(f"rates must rise from above 0, in 3 steps or more: {given}")
    rise, start = (high / low) ** (1 / (steps - 1)), state.step
    schedule = lambda step: low * rise ** (step - start)  # noqa: E731
    losses: list[float] = []
    fit(train(schedule), pipe, evolve(state), steps=steps, hooks=[_watch(losses)])
    if len(losses) < 3:
        raise MipError(f"the loss is not finite after {len(losses)} steps with rates from {low:g}")
    return LRCurve(tuple(schedule(start + k) for k in range(len(losses))), tuple(losses))


def _watch(losses: list[float]) -> Callable[[Event], Reply]:
    running = [0.0, 0.0]  # a weighted sum of the losses, and of the weights

    def hook(event: Event) -> Reply:
        if event.name != "after_batch":
            return None
        loss = float(event.metrics["loss"])
        if not math.isfinite(loss):
            return Stop("the loss is not finite")
        running[:] = [SMOOTH * total + new for total, new in zip(running, (loss, 1.0), strict=True)]
        losses.append(running[0] / running[1])
        least = min(losses)
        far = losses[-1] - least > (DIVERGED - 1) * max(losses[0] - least, abs(least), 1e-12)
        return Stop("the loss has diverged") if far else None

    return hook
