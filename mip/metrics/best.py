"""The best epoch, also of a history that grows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from attrs import define

from mip.metrics.ranking import Mode, mode_of


@define
class BestEpoch:
    """Which of the epochs so far is the best by a metric: the first with the best value, or -1 if
    none has one. Only epochs that are new since the last `update` are looked at. Raises MipError
    without a mode if the metric's name does not say which end is better.

    >>> best = BestEpoch("valid/loss")
    >>> rows = [{"valid/loss": 2.0}, {"valid/loss": 1.0}]
    >>> best.update(rows), best.update([*rows, {"valid/loss": math.nan}])
    (1, 1)
    """

    metric: str
    mode: Mode | None = None
    index: int = -1
    value: float = math.inf
    seen: int = 0

    def __attrs_post_init__(self) -> None:
        self.mode = mode_of(self.metric, self.mode)

    def update(self, epochs: Sequence[Mapping[str, float]]) -> int:
        """Look at the new ones of all epochs so far, and return the index of the best."""
        sign = 1 if self.mode == "min" else -1
        for index in range(self.seen, len(epochs)):
            value = sign * epochs[index].get(self.metric, math.nan)
            if value < self.value or (self.index < 0 and not math.isnan(value)):
                self.index, self.value = index, value
        self.seen = len(epochs)
        return self.index


def best_epoch(epochs: Sequence[Mapping[str, float]], metric: str, mode: Mode | None = None) -> int:
    """Return the index of the first epoch with the best value of a metric, or -1 if no epoch has
    one. NaN never wins. `mode` is "min" or "max"; the default is the metric's own direction.

    >>> best_epoch(({"valid/loss": 2.0}, {"valid/loss": 1.0}, {"valid/loss": 1.0}), "valid/loss")
    1
    """
    return BestEpoch(metric, mode).update(epochs)
