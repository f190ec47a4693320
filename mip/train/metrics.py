"""Metrics: which direction is better, the best epoch, how a number is written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from mip.errors import MipError, hint

PERCENT = frozenset({"accuracy", "mape", "median_ape", "top2", "top5"})
"""Metrics that are fractions and read best as percentages."""


def number(metric: str, value: float) -> str:
    """Write a metric's value for a person; NaN, where it is not defined, as "n/a".

    >>> number("mape", 0.2593), number("mae", 123456.7), number("auc", 0.91234)
    ('25.9%', '123,457', '0.9123')
    >>> number("mape", math.nan)
    'n/a'
    """
    if math.isnan(value):
        return "n/a"
    name = metric.split("/")[-1].split(".")[-1]
    if name in PERCENT:
        return f"{value:.1%}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


RISING = ("accuracy", "auc", "coverage", "f1", "kappa", "percent_close", "r2", "top2", "top5")
"""The metrics of which more is better; of all others, less is."""


def direction(metric: str) -> Literal["min", "max"]:
    """Say which end of a metric is better, by the last part of its name.

    >>> direction("valid/loss"), direction("valid/auc"), direction("valid/style.accuracy")
    ('min', 'max', 'max')
    """
    return "max" if metric.split("/")[-1].split(".")[-1] in RISING else "min"


def best(epochs: tuple[Mapping[str, float], ...], metric: str, mode: str | None = None) -> int:
    """Find the first epoch with the best value; NaN never wins. -1 where there is none. `mode` is
    "min" or "max"; by default the metric's own direction.

    >>> best(({"valid/loss": 2.0}, {"valid/loss": 1.0}, {"valid/loss": 1.0}), "valid/loss")
    1
    """
    sign = 1 if (mode or direction(metric)) == "min" else -1
    values = [(sign * row[metric], k) for k, row in enumerate(epochs) if metric in row]
    return min(((value, k) for value, k in values if not math.isnan(value)), default=(0, -1))[1]


def check_metric(epochs: Sequence[Mapping[str, float]], metric: str, mode: str | None) -> None:
    """Raise ValueError for a mode or a metric that the epochs do not have."""
    if mode not in {None, "min", "max"}:
        raise ValueError(f"'mode' must be 'min' or 'max', not {mode!r}")
    if epochs and not any(metric in row for row in epochs):
        raise MipError(f"the epochs have no '{metric}'{hint(metric, epochs[-1])}")
