"""Metrics of scores and probabilities of classes, over all rows of a split; NaN where one is not
defined, which is never the best.

Predictions are floats [n] or [n, 1] for the classes 0 and 1, or [n, k] for k classes: logits, or
probabilities with `from_logits=False`. Targets are classes [n].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mip.metrics.inputs import as_probabilities, as_scores, check_classes


def log_loss(predictions: Any, targets: Any, from_logits: bool = True) -> float:
    """Compute the mean negative log-likelihood of classes (natural logarithm). Probabilities are
    clipped by the smallest difference of two float64, 2.2e-16, as in scikit-learn.

    >>> round(log_loss(torch.zeros(2), torch.tensor([0.0, 1.0])), 4)
    0.6931
    >>> round(log_loss(torch.zeros(2, 2), torch.tensor([0, 1])), 4)
    0.6931
    """
    scores, truth = _scores_and_classes(predictions, targets)
    if not from_logits:
        probabilities = as_probabilities(scores, from_logits).clamp(_EPS, 1 - _EPS)
        scores = probabilities.logit() if scores.dim() == 1 else probabilities.log()
    if scores.dim() == 1:
        return float(F.binary_cross_entropy_with_logits(scores.double(), truth.double()))
    return float(F.cross_entropy(scores.double(), truth))


_EPS = torch.finfo(torch.float64).eps


def brier(predictions: Any, targets: Any, from_logits: bool = True) -> float:
    """Compute the mean squared error of probabilities: of class 1 for two classes, summed over the
    classes for more (Brier 1950).

    >>> brier(torch.tensor([0.5, 1.0]), torch.tensor([0, 1]), from_logits=False)
    0.125
    >>> brier(torch.zeros(1, 4), torch.tensor([2]))
    0.75
    """
    scores, truth = _scores_and_classes(predictions, targets)
    probabilities = as_probabilities(scores, from_logits)
    if probabilities.dim() == 1:
        return float((probabilities - truth).square().mean())
    k = probabilities.shape[1]
    errors = (probabilities - F.one_hot(truth, k)).square().sum(dim=1)
    return float(errors.mean() / (2 if k == 2 else 1))


def ece(predictions: Any, targets: Any, n_bins: int = 15, from_logits: bool = True) -> float:
    """Compute the expected calibration error (Naeini et al. 2015): the mean distance of confidence
    and accuracy in bins of equal width, weighted by their rows. With scores [n] these are the
    probability and the share of class 1; with [n, k] those of the predicted class.

    >>> ece(torch.tensor([0.75, 0.75]), torch.tensor([1, 0]), from_logits=False)
    0.25
    """
    return ece_of(calibration_bins(predictions, targets, n_bins, from_logits))


def calibration_bins(
    predictions: Any, targets: Any, n_bins: int = 15, from_logits: bool = True
) -> Tensor:
    """Sum rows, confidence and hits in bins of confidence: float64 [3, n_bins].

    >>> calibration_bins(torch.tensor([0.2, 0.9]), torch.tensor([0, 1]), 2, from_logits=False)
    tensor([[1.0000, 1.0000],
            [0.2000, 0.9000],
            [0.0000, 1.0000]], dtype=torch.float64)
    """
    scores, truth = _scores_and_classes(predictions, targets)
    confidence, hits = as_probabilities(scores, from_logits), truth.double()
    if confidence.dim() == 2:
        confidence, predicted = confidence.max(dim=1)
        hits = (predicted == truth).double()
    inner = torch.linspace(0, 1, n_bins + 1, dtype=torch.float64, device=scores.device)[1:-1]
    index = torch.bucketize(confidence, inner, right=True)
    rows = torch.stack([torch.ones_like(hits), confidence, hits])
    return rows.new_zeros(3, n_bins).index_add_(1, index, rows)


def ece_of(bins: Tensor) -> float:
    """Compute the expected calibration error from the sums of `calibration_bins`."""
    rows, confidence, hits = bins
    return float((confidence - hits).abs().sum() / rows.sum())


def auc(predictions: Any, targets: Any, from_logits: bool = True) -> float:
    """Compute the area under the ROC curve of scores [n] against 0 and 1: the share of pairs of a 0
    and a 1 in which the 1 has the higher score, a tie counting one half. With scores [n, k] it is
    the mean over the classes present, each against the rest. NaN if the target is one class alone.

    >>> auc(torch.tensor([1.0, 3.0, 2.0]), torch.tensor([0, 1, 0]))
    1.0
    """
    return _one_against_rest(_binary_auc, predictions, targets, from_logits)


def average_precision(predictions: Any, targets: Any, from_logits: bool = True) -> float:
    """Compute the area under the curve of precision by recall, as a sum of rectangles, of scores
    [n] against 0 and 1; NaN if there is no 1. With scores [n, k] it is the mean over the classes
    present, each against the rest.

    >>> average_precision(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([1, 0, 1])).__round__(6)
    0.833333
    """
    return _one_against_rest(_binary_average_precision, predictions, targets, from_logits)


def _one_against_rest(
    area: Callable[[Tensor, Tensor], float], predictions: Any, targets: Any, from_logits: bool
) -> float:
    scores, truth = _scores_and_classes(predictions, targets)
    if scores.isnan().any():
        return math.nan
    if scores.dim() == 1:
        return area(scores, truth)
    probabilities = as_probabilities(scores, from_logits)
    areas = [area(probabilities[:, k], (truth == k).long()) for k in truth.unique()]
    return sum(areas) / len(areas) if areas else math.nan


def _binary_auc(scores: Tensor, truth: Tensor) -> float:
    positive = int(truth.sum())
    negative = len(truth) - positive
    if not positive or not negative:
        return math.nan
    _, index, count = scores.unique(return_inverse=True, return_counts=True)
    rank = count.cumsum(0) - (count.double() - 1) / 2  # from 1; ties share their mean rank
    above = rank[index[truth == 1]].sum() - positive * (positive + 1) / 2
    return float(above / (positive * negative))


def _binary_average_precision(scores: Tensor, truth: Tensor) -> float:
    positive = int(truth.sum())
    if not positive:
        return math.nan
    _, index, count = scores.unique(return_inverse=True, return_counts=True)
    hits = torch.zeros_like(count).index_add_(0, index, truth).flip(0)  # by falling score
    precision = hits.cumsum(0).double() / count.flip(0).cumsum(0)
    return float((precision * hits).sum() / positive)


def _scores_and_classes(predictions: Any, targets: Any) -> tuple[Tensor, Tensor]:
    scores, targets = as_scores(predictions, targets)
    return scores, check_classes(targets, 2 if scores.dim() == 1 else scores.shape[1])
