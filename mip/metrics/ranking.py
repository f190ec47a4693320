"""What a metric's values mean: which direction is better, and how one is printed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from mip.errors import MipError, hint

Mode = Literal["min", "max"]
"""Whether a lower or a higher value of a metric is better."""


PERCENT = frozenset({"accuracy", "mape", "median_ape", "top2", "top5"})
"""Metrics that are fractions and read best as percentages."""


HIGHER_IS_BETTER = frozenset(
    {"accuracy", "auc", "coverage", "f1", "kappa", "percent_close", "r2", "top2", "top5"}
)
"""Metrics of which a higher value is better; of all others a lower one is."""


def format_metric(metric: str, value: float) -> str:
    """Format a metric's value for display; NaN, an undefined value, as "n/a".

    >>> format_metric("mape", 0.2593), format_metric("mae", 123456.7), format_metric("auc", 0.91234)
    ('25.9%', '123,457', '0.9123')
    >>> format_metric("mape", math.nan)
    'n/a'
    """
    if math.isnan(value):
        return "n/a"
    if _base_name(metric) in PERCENT:
        return f"{value:.1%}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def direction(metric: str) -> Mode:
    """Return which end of a metric is better, by the last part of its name.

    >>> direction("valid/loss"), direction("valid/auc"), direction("valid/style.accuracy")
    ('min', 'max', 'max')
    """
    return "max" if _base_name(metric) in HIGHER_IS_BETTER else "min"


def _base_name(metric: str) -> str:
    return metric.split("/")[-1].split(".")[-1]


def check_metric(epochs: Sequence[Mapping[str, float]], metric: str, mode: str | None) -> None:
    """Raise ValueError for an unknown mode, and MipError if none of the epochs has the metric."""
    if mode not in {None, "min", "max"}:
        raise ValueError(f"'mode' must be 'min' or 'max', not {mode!r}")
    if epochs and metric not in epochs[-1] and not any(metric in row for row in epochs):
        raise MipError(f"the epochs have no '{metric}'{hint(metric, epochs[-1])}")
