"""Metrics over all rows of a split; NaN where one is not defined, which is never the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def mae(pred: Tensor, truth: Tensor) -> float:
    """Compute the mean absolute error of numbers, float64 [n].

    >>> mae(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0]))
    2.0
    """
    return stable_mean((pred - truth).abs())


def rmse(pred: Tensor, truth: Tensor) -> float:
    """Compute the root of the mean squared error of numbers, float64 [n].

    >>> rmse(torch.tensor([5.0, -1.0]), torch.tensor([2.0, 2.0]))
    3.0
    """
    return root_mean_square(pred - truth)


def mape(pred: Tensor, truth: Tensor) -> float:
    """Compute the mean error as a fraction of the truth, float64 [n]; NaN if a truth is 0.

    >>> mape(torch.tensor([110.0, 80.0]), torch.tensor([100.0, 100.0])).__round__(6)
    0.15
    """
    return float(((pred - truth).abs() / truth.abs()).mean()) if truth.all() else math.nan


def median_ape(pred: Tensor, truth: Tensor) -> float:
    """Compute the median error as a fraction of the truth, float64 [n]; NaN if half of them are 0
    and not predicted exactly.

    >>> median_ape(torch.tensor([110.0, 80.0, 9.0]), torch.tensor([100.0, 100.0, 0.0])).__round__(6)
    0.2
    """
    # No error is a fraction of a truth of 0: it counts as larger than all that are.
    error = (pred - truth).abs()
    median = torch.where(error == 0, 0.0, error / truth.abs()).median()
    return float(median) if median < torch.inf else math.nan


def r2(pred: Tensor, truth: Tensor) -> float:
    """Compute the coefficient of determination of numbers, float64 [n]; NaN if the truth is one
    and the same number, up to rounding.

    >>> r2(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 3.0, 5.0]))
    0.75
    """
    mean = float(truth.mean())
    deviation = root_mean_square(truth - mean)
    if not deviation > 1e-12 * abs(mean):
        return math.nan
    ratio = rmse(pred, truth) / deviation
    return 1 - ratio * ratio


def percent_close(pred: Tensor, truth: Tensor, tol: float = 0.1) -> Tensor:
    """Compute the share of predictions, float64 [n], with an error of at most `tol` times the
    truth.

    >>> percent_close(torch.tensor([109.0, 89.0]), torch.tensor([100.0, 100.0]))
    tensor(0.5000, dtype=torch.float64)
    """
    return ((pred - truth).abs() <= tol * truth.abs()).double().mean()


def msle(pred: Tensor, truth: Tensor) -> Tensor:
    """Compute the mean squared error of log(1 + number), float64 [n]; NaN if a number is -1 or
    less and has no such logarithm.

    >>> msle(torch.tensor([math.e - 1]), torch.tensor([0.0]))
    tensor(1.)
    >>> msle(torch.tensor([-1.0, 3.0]), torch.tensor([0.0, 3.0]))
    tensor(nan)
    """
    pred, truth = (torch.where(values > -1, values, torch.nan).log1p() for values in (pred, truth))
    return F.mse_loss(pred, truth)


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


def log_loss(logits: Tensor, target: Tensor) -> float:
    """Compute the mean negative log-likelihood (natural logarithm) of classes: 0 or 1 for logits
    [n], an index int64 [n] for logits [n, k].

    >>> round(log_loss(torch.zeros(2), torch.tensor([0.0, 1.0])), 4)
    0.6931
    >>> round(log_loss(torch.zeros(2, 2), torch.tensor([0, 1])), 4)
    0.6931
    """
    if logits.dim() == 1:
        return float(F.binary_cross_entropy_with_logits(logits.double(), target.double()))
    return float(F.cross_entropy(logits.double(), target))


def auc(score: Tensor, target: Tensor) -> float:
    """Compute the area under the ROC curve of scores [n] against 0 and 1, int64 [n]: the share of
    pairs of a 0 and a 1 in which the 1 has the higher score, a tie counting one half. NaN if the
    target is one class alone.

    >>> auc(torch.tensor([1.0, 3.0, 2.0]), torch.tensor([0, 1, 0]))
    1.0
    """
    positive, negative = int((target == 1).sum()), int((target == 0).sum())
    if not positive or not negative:
        return math.nan
    _, index, count = score.unique(return_inverse=True, return_counts=True)
    rank = count.cumsum(0) - (count.double() - 1) / 2  # from 1; ties share their mean rank
    above = rank[index[target == 1]].sum() - positive * (positive + 1) / 2
    return float(above / (positive * negative))


def quadratic_kappa(a: Tensor, b: Tensor) -> float:
    """Compute the quadratic weighted kappa of ranks, int64 [n] (Cohen 1968): their agreement by
    squared distance, relative to chance. 1 is full agreement; NaN if both are one and the same
    class.

    >>> quadratic_kappa(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2]))
    1.0
    """
    a, b = a.double(), b.double()
    bias = (a.mean() - b.mean()).square()
    chance = a.var(correction=0) + b.var(correction=0) + bias
    return float(1 - (a - b).square().mean() / chance)


def stable_mean(values: Tensor) -> float:
    """Compute the mean of numbers of 0 or more, float64 [n], whose sum may overflow a float64.

    >>> stable_mean(torch.tensor([1e308, 1e308], dtype=torch.float64))
    1e+308
    """
    largest = values.max()
    return float(largest * (values / largest).mean()) if largest > 0 else float(values.mean())


def root_mean_square(values: Tensor) -> float:
    """Compute the root of the mean square of numbers, float64 [n], whose squares may overflow or
    underflow a float64.

    >>> root_mean_square(torch.tensor([3e-200, -3e-200], dtype=torch.float64))
    3e-200
    """
    largest = values.abs().max()
    if not largest > 0:
        return float(largest)
    return float(largest * (values / largest).square().mean().sqrt())
