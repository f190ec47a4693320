"""What a metric's values mean: which direction is better, and how one is printed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from mip.errors import MipError, hint
from mip.metrics.named import find_metric

Mode = Literal["min", "max"]
"""Whether a lower or a higher value of a metric is better."""


PERCENT = frozenset({"accuracy", "mape", "median_ape"})
"""Metrics that are fractions and read best as percentages, besides "top2" and the like."""


HIGHER_IS_BETTER = frozenset({"coverage", "kappa"})
"""Metrics of heads of which a higher value is better, besides those in `NAMED`."""


def format_metric(metric: str, value: float) -> str:
    """Format a metric's value for display; NaN, an undefined value, as "n/a".

    >>> format_metric("mape", 0.2593), format_metric("mae", 123456.7), format_metric("auc", 0.91234)
    ('25.9%', '123,457', '0.9123')
    >>> format_metric("mape", math.nan)
    'n/a'
    """
    if math.isnan(value):
        return "n/a"
    base = _base_name(metric)
    if base in PERCENT or (base.startswith("top") and find_metric(base)):
        return f"{value:.1%}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def direction(metric: str) -> Mode:
    """Return which end of a metric is better, by the last part of its name; "min" if it is not a
    metric of this library.

    >>> direction("valid/loss"), direction("valid/auc"), direction("valid/style.top3")
    ('min', 'max', 'max')
    """
    base = _base_name(metric)
    known = find_metric(base)
    is_higher = known.higher_is_better if known else base in HIGHER_IS_BETTER
    return "max" if is_higher else "min"


def _base_name(metric: str) -> str:
    return metric.split("/")[-1].split(".")[-1]


def check_mode(mode: str | None) -> None:
    """Raise ValueError for anything but "min", "max" and None, the metric's own direction."""
    if mode not in {None, "min", "max"}:
        raise ValueError(f"'mode' must be 'min' or 'max', not {mode!r}")


def check_metric(epochs: Sequence[Mapping[str, float]], metric: str) -> None:
    """Raise MipError if there are epochs and none of them has the metric."""
    if epochs and metric not in epochs[-1] and not any(metric in row for row in epochs):
        raise MipError(f"the epochs have no '{metric}'{hint(metric, epochs[-1])}")
