"""Predictions and targets as metrics read them: numbers, classes, scores and probabilities."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mip.errors import DataError


def as_numbers(predictions: Any, targets: Any) -> tuple[Tensor, Tensor]:
    """Return predictions and targets as float64 of one shape: [n, 1] beside [n] becomes [n].

    Raises DataError for other shapes, which would be broadcast.

    >>> [part.tolist() for part in as_numbers(torch.tensor([[1.0], [2.0]]), [3, 4])]
    [[1.0, 2.0], [3.0, 4.0]]
    """
    predictions, targets = _tensor(predictions), _tensor(targets)
    if predictions.dim() != targets.dim():
        predictions, targets = _without_column(predictions), _without_column(targets)
    if predictions.shape != targets.shape:
        raise DataError(f"{_shapes(predictions, targets)} are not numbers of one shape")
    return predictions.double(), targets.double()


class Classes(NamedTuple):
    """Predicted and true classes, int64 [n], and how many classes there are."""

    predicted: Tensor
    true: Tensor
    n_classes: int


def as_classes(predictions: Any, targets: Any, from_logits: bool = True) -> Classes:
    """Return predicted and true classes.

    Predictions are one of:

    - floats [n] or [n, 1], for the classes 0 and 1: logits, or probabilities of class 1 with
      `from_logits=False`; 1 is predicted above 0, or above 0.5.
    - floats [n, k], a logit or a probability for each class: the largest is predicted.
    - floats [n, k, …] or [n, …, k]: the same for several positions of a row; see `as_scores`.
    - integers or booleans [n] or [n, 1]: classes.

    Targets are classes [n], [n, 1] or [n, …], from 0 to k - 1, of any dtype. A prediction of NaN
    is wrong, whatever the target. Raises DataError for anything else, such as one-hot targets, of
    which nobody knows whether they are several labels.

    >>> as_classes(torch.tensor([[0.1, 0.9], [2.0, 1.0]]), [1, 1]).predicted
    tensor([1, 0])
    >>> as_classes(torch.tensor([-1.0, 0.2]), [0, 3])
    Traceback (most recent call last):
    mip.errors.DataError: classes must be from 0 to 1: 3 in row 1
    """
    scores, targets = as_scores(predictions, targets)
    if not scores.is_floating_point():
        predicted = scores.long()
        count = max([2, *(int(each.max()) + 1 for each in (predicted, targets) if len(each))])
        return Classes(check_classes(predicted, count), check_classes(targets, count), count)
    _check_probabilities(scores, from_logits)
    if scores.dim() == 1:
        predicted, count = (scores > (0 if from_logits else 0.5)).long(), 2
    else:
        predicted, count = scores.argmax(dim=1), scores.shape[1]
    true = check_classes(targets, count)
    is_nan = scores.isnan() if scores.dim() == 1 else scores.isnan().any(dim=1)
    return Classes(torch.where(is_nan, (true + 1) % count, predicted), true, count)


def as_scores(predictions: Any, targets: Any) -> tuple[Tensor, Tensor]:
    """Return a score for each row and class, [n] or [n, k], and the targets [n].

    Where each row has classes at several positions, the pixels of a segmentation or the elements
    of a sequence, all of these count: scores [n, k, …], as torch's cross entropy takes them, or
    [n, …, k], with targets [n, …]. Raises DataError for other shapes, and if both could be meant.

    >>> scores, targets = as_scores(torch.zeros(2, 3, 8, 8), torch.zeros(2, 8, 8))
    >>> scores.shape, targets.shape
    (torch.Size([128, 3]), torch.Size([128]))
    """
    scores, targets = _by_position(_tensor(predictions), _tensor(targets))
    scores, targets = _without_column(scores), _without_column(targets)
    is_table = scores.dim() == 2 and scores.is_floating_point()
    if targets.dim() != 1 or not (scores.dim() == 1 or is_table) or len(scores) != len(targets):
        wanted = "predictions [n] or [n, classes] and classes [n]"
        cure = "; if a row has several labels, give flatten() of both, in a function of your own"
        text = f"{_shapes(scores, targets)} are not {wanted}"
        raise DataError(text + cure * (scores.shape == targets.shape))
    return scores, targets


def _by_position(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Flatten the positions of a row into rows: [n, k, …] or [n, …, k] becomes [n', k]."""
    if scores.dim() < 3 or not scores.is_floating_point():
        return scores, targets
    is_first = scores.shape[:1] + scores.shape[2:] == targets.shape
    is_last = scores.shape[:-1] == targets.shape
    if is_first and is_last:
        what = f"of {_shapes(scores, targets)} the classes can be dimension 1 or the last"
        raise DataError(f"{what}: give predictions [n, classes] and classes [n]")
    if is_first:
        scores = scores.movedim(1, -1)
    if not is_first and not is_last:
        return scores, targets
    return scores.flatten(0, -2), targets.flatten()


def check_classes(classes: Tensor, count: int) -> Tensor:
    """Return classes as int64; raise DataError unless they are whole, from 0 to count - 1."""
    wrong = ~((classes >= 0) & (classes < count) & (classes == classes.long()))
    for row in wrong.nonzero()[:1, 0].tolist():
        value = classes[row].item()
        raise DataError(f"classes must be from 0 to {count - 1}: {value:g} in row {row}")
    return classes.long()


def as_probabilities(scores: Tensor, from_logits: bool) -> Tensor:
    """Return probabilities, float64: of class 1 for scores [n], of each class for [n, k].

    Raises DataError for scores with `from_logits=False` that are not probabilities.

    >>> as_probabilities(torch.zeros(1, 4), from_logits=True).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    >>> as_probabilities(torch.tensor([0.5, 2.0]), from_logits=False)
    Traceback (most recent call last):
    mip.errors.DataError: with from_logits=False predictions must be probabilities: 2 in row 1
    """
    scores = scores.double()
    _check_probabilities(scores, from_logits)
    if not from_logits:
        return scores
    return scores.sigmoid() if scores.dim() == 1 else scores.softmax(dim=1)


def _check_probabilities(scores: Tensor, from_logits: bool) -> None:
    if from_logits:
        return
    message = "with from_logits=False predictions must be probabilities"
    for index in ((scores < 0) | (scores > 1)).nonzero()[:1].tolist():
        raise DataError(f"{message}: {scores[tuple(index)].item():g} in row {index[0]}")
    if scores.dim() == 2:
        totals = scores.sum(dim=1)
        for row in ((totals - 1).abs() > 1e-3).nonzero()[:1, 0].tolist():
            raise DataError(f"{message} with the sum 1: {totals[row].item():g} in row {row}")


def _tensor(values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach()
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise DataError(f"metrics take numbers and classes 0, 1, …, not values of {array.dtype}")
    return torch.tensor(array)


def _without_column(values: Tensor) -> Tensor:
    return values[:, 0] if values.dim() == 2 and values.shape[1] == 1 else values


def _shapes(predictions: Tensor, targets: Tensor) -> str:
    return f"predictions {list(predictions.shape)} and targets {list(targets.shape)}"
