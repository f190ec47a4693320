"""Metrics of numbers, over all rows of a split; NaN where one is not defined, which is never the
best.

Predictions and targets are [n], [n, 1] or [n, d] of any dtype, and are compared in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mip.metrics.inputs import as_numbers


def mae(predictions: Any, targets: Any) -> float:
    """Compute the mean absolute error of numbers.

    >>> mae(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0]))
    2.0
    """
    predictions, targets = as_numbers(predictions, targets)
    return stable_mean((predictions - targets).abs())


def mse(predictions: Any, targets: Any) -> float:
    """Compute the mean squared error of numbers.

    >>> mse(torch.tensor([5.0, -1.0]), torch.tensor([2.0, 2.0]))
    9.0
    """
    predictions, targets = as_numbers(predictions, targets)
    return stable_mean((predictions - targets).square())


def rmse(predictions: Any, targets: Any) -> float:
    """Compute the root of the mean squared error of numbers.

    >>> rmse(torch.tensor([5.0, -1.0]), torch.tensor([2.0, 2.0]))
    3.0
    """
    predictions, targets = as_numbers(predictions, targets)
    return root_mean_square(predictions - targets)


def mape(predictions: Any, targets: Any) -> float:
    """Compute the mean error as a fraction of the target; NaN if a target is 0.

    >>> mape(torch.tensor([110.0, 80.0]), torch.tensor([100.0, 100.0])).__round__(6)
    0.15
    """
    predictions, targets = as_numbers(predictions, targets)
    if not targets.all():
        return math.nan
    return float(((predictions - targets).abs() / targets.abs()).mean())


def median_ape(predictions: Any, targets: Any) -> float:
    """Compute the median error as a fraction of the target; NaN if half of the targets are 0 and
    not predicted exactly.

    >>> median_ape(torch.tensor([110.0, 80.0, 9.0]), torch.tensor([100.0, 100.0, 0.0])).__round__(6)
    0.2
    """
    predictions, targets = as_numbers(predictions, targets)
    # No error is a fraction of a target of 0: it counts as larger than all that are.
    error = (predictions - targets).abs()
    median = torch.where(error == 0, 0.0, error / targets.abs()).median()
    return float(median) if median < torch.inf else math.nan


def msle(predictions: Any, targets: Any) -> float:
    """Compute the mean squared error of log(1 + number); NaN if a number is -1 or less and has no
    such logarithm.

    >>> msle(torch.tensor([math.e - 1]), torch.tensor([0.0])).__round__(6)
    1.0
    >>> msle(torch.tensor([-1.0, 3.0]), torch.tensor([0.0, 3.0]))
    nan
    """
    logarithms = [
        torch.where(values > -1, values, torch.nan).log1p()
        for values in as_numbers(predictions, targets)
    ]
    return mse(*logarithms)


def percent_close(predictions: Any, targets: Any, tol: float = 0.1) -> float:
    """Compute the share of predictions with an error of at most `tol` times the target.

    >>> percent_close(torch.tensor([109.0, 89.0]), torch.tensor([100.0, 100.0]))
    0.5
    """
    predictions, targets = as_numbers(predictions, targets)
    return float(((predictions - targets).abs() <= tol * targets.abs()).double().mean())


def mean_pred(predictions: Any, targets: Any) -> float:
    """Compute the mean of the predictions, which neither end is better of.

    >>> mean_pred(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.0]))
    1.5
    """
    return float(as_numbers(predictions, targets)[0].mean())


def r2(predictions: Any, targets: Any) -> float:
    """Compute the coefficient of determination of numbers, the mean over the columns of [n, d]; NaN
    if the targets are one and the same number, up to rounding.

    >>> r2(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 3.0, 5.0]))
    0.75
    """
    return r2_of(spread(predictions, targets))


class Spread(NamedTuple):
    """What r2 is computed from: the number of rows and, float64 [d], the mean of the targets, their
    standard deviation, and the root mean squared error.
    """

    rows: int
    mean: Tensor
    deviation: Tensor
    error: Tensor


def spread(predictions: Any, targets: Any) -> Spread:
    """Measure the spread of targets and errors, by column."""
    predictions, targets = (
        each.reshape(len(each), -1) for each in as_numbers(predictions, targets)
    )
    mean = targets.mean(dim=0)
    return Spread(len(targets), mean, _norm(targets - mean), _norm(predictions - targets))


def merge_spreads(a: Spread, b: Spread) -> Spread:
    """Return the spread of the rows of both (Chan, Golub and LeVeque 1979).

    >>> parts = [spread([1.0, 2.0], [1.0, 3.0]), spread([4.0], [5.0])]
    >>> r2_of(merge_spreads(*parts)).__round__(6)
    0.75
    """
    rows, between = a.rows + b.rows, b.mean - a.mean
    share, other = a.rows / rows, b.rows / rows
    within = torch.hypot(a.deviation * share**0.5, b.deviation * other**0.5)
    deviation = torch.hypot(within, between * (share * other) ** 0.5)
    error = torch.hypot(a.error * share**0.5, b.error * other**0.5)
    return Spread(rows, a.mean + between * other, deviation, error)


def r2_of(spread: Spread) -> float:
    """Compute r2 from the spread of targets and errors."""
    varies = spread.deviation > 1e-12 * spread.mean.abs()
    ratio = spread.error / torch.where(varies, spread.deviation, torch.nan)
    return float((1 - ratio * ratio).mean())


def in_target_unit(
    decode: Callable[[Tensor], Mapping[str, np.ndarray]], metric: Callable[[Tensor, Tensor], Any]
) -> Callable[[Tensor, Tensor], Any]:
    """Turn a metric of numbers in the target's unit, float64 [n], into one of logits and target,
    which are on the scale that is learned. `decode` is that of a plan with a head `regression`.

    >>> double = lambda logits: {"value": 2 * logits.numpy()}
    >>> in_target_unit(double, lambda pred, truth: (pred - truth).abs().max())(
    ...     torch.tensor([3.0, 4.0]), torch.tensor([3.0, 0.5])
    ... )
    tensor(7.)
    """

    def scored(logits: Tensor, target: Tensor) -> Any:
        return metric(*(torch.from_numpy(decode(scaled)["value"]) for scaled in (logits, target)))

    return scored


def stable_mean(values: Tensor) -> float:
    """Compute the mean of numbers of 0 or more, float64, whose sum may overflow a float64.

    >>> stable_mean(torch.tensor([1e308, 1e308], dtype=torch.float64))
    1e+308
    """
    largest = values.max() if values.numel() else 0
    return float(largest * (values / largest).mean()) if largest > 0 else float(values.mean())


def root_mean_square(values: Tensor) -> float:
    """Compute the root of the mean square of numbers, float64, whose squares may overflow or
    underflow a float64.

    >>> root_mean_square(torch.tensor([3e-200, -3e-200], dtype=torch.float64))
    3e-200
    """
    return float(_norm(values.flatten()))


def _norm(values: Tensor) -> Tensor:
    # By column, relative to the largest, so that no square overflows or underflows.
    if not len(values):
        return values.mean(dim=0)
    largest = values.abs().amax(dim=0)
    scaled = values / torch.where(largest == 0, 1.0, largest)
    return largest * scaled.square().mean(dim=0).sqrt()
