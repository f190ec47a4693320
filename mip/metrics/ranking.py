"""What a metric's values mean: which direction is better, and how one is printed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from mip.errors import MipError, hint, quote
from mip.metrics.named import SYNONYMS, find_metric

Mode = Literal["min", "max"]
"""Whether a lower or a higher value of a metric is better."""


PERCENT = frozenset({"accuracy", "mape", "median_ape"})
"""Metrics that are fractions and read best as percentages, besides "top2" and the like."""


HIGHER_IS_BETTER = frozenset({"coverage", "kappa"})
"""Metrics of heads of which a higher value is better, besides those in `NAMED`."""


LOWER_IS_BETTER = frozenset({"grad_norm", "pinball"})
"""Measurements of which a lower value is better, besides those in `NAMED`."""


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


def direction(metric: str) -> Mode | None:
    """Return which end of a metric is better, by the last part of its name; None if the name does
    not say.

    Known are the metrics of this library and what others call them, and the endings that
    scikit-learn uses: "score" of what is to be maximized, "loss", "error" and "deviance" of what
    is to be minimized.

    >>> direction("valid/loss"), direction("valid/acc"), direction("valid/style.top3")
    ('min', 'max', 'max')
    >>> direction("valid/f1_score"), direction("valid/mine")
    ('max', None)
    """
    base = _base_name(metric).lower()
    known = find_metric(SYNONYMS.get(base, base))
    if known:
        higher = known.higher_is_better
        return None if higher is None else "max" if higher else "min"
    if base in HIGHER_IS_BETTER or base.endswith("score"):
        return "max"
    is_lower = base in LOWER_IS_BETTER or base.endswith(("loss", "error", "deviance"))
    return "min" if is_lower else None


def mode_of(metric: str, mode: Mode | None = None) -> Mode:
    """Return the mode that was asked for, or else the metric's own direction.

    Raises MipError if neither says which end of the metric is better.

    >>> mode_of("valid/auc"), mode_of("valid/auc", "min")
    ('max', 'min')
    >>> mode_of("valid/mine")
    Traceback (most recent call last):
    mip.errors.MipError: the name '\
valid/mine' does not say whether lower or higher values are better: give mode='min' or mode='max'
    """
    found = mode or direction(metric)
    if found is None:
        why = f"the name {quote(metric)} does not say whether lower or higher values are better"
        raise MipError(f"{why}: give mode='min' or mode='max'")
    return found


def _base_name(metric: str) -> str:
    parts = metric.split("/")[-1].split(".")
    is_stacked = len(parts) > 1 and parts[-1].isdecimal()  # "loss.0", of the first model
    return parts[-2] if is_stacked else parts[-1]


def check_mode(mode: str | None) -> None:
    """Raise ValueError for anything but "min", "max" and None, the metric's own direction."""
    if mode not in {None, "min", "max"}:
        raise ValueError(f"'mode' must be 'min' or 'max', not {mode!r}")


def check_metric(epochs: Sequence[Mapping[str, float]], metric: str) -> None:
    """Raise MipError if there are epochs and none of them has the metric."""
    if epochs and metric not in epochs[-1] and not any(metric in row for row in epochs):
        raise MipError(f"the epochs have no '{metric}'{hint(metric, epochs[-1])}")
