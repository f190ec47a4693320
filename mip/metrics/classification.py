"""Metrics of predicted classes, over all rows of a split; NaN where one is not defined, which is
never the best.

What predictions and targets may be: `mip.metrics.as_classes`.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from mip.errors import MipError, hint, quote
from mip.metrics.inputs import as_classes, as_scores, check_classes

Average = Literal["auto", "binary", "micro", "macro", "weighted"]
"""Over what precision, recall and f1 are averaged. "binary" is that of class 1; "macro" is the mean
of the classes that are present or predicted, "weighted" that of the rows, and "micro" counts all
classes together. "auto" is "binary" for two classes and "macro" for more.
"""


def accuracy(predictions: Any, targets: Any, from_logits: bool = True) -> float:
    """Compute the share of rows whose class is predicted.

    >>> accuracy(torch.tensor([[0.1, 0.9], [2.0, 1.0]]), torch.tensor([1, 1]))
    0.5
    >>> accuracy(torch.tensor([0.4, 0.6]), torch.tensor([0, 1]), from_logits=False)
    1.0
    """
    predicted, true, _ = as_classes(predictions, targets, from_logits)
    return float((predicted == true).double().mean())


def top_k_accuracy(predictions: Any, targets: Any, k: int = 5) -> float:
    """Compute the share of rows whose class is among the `k` with the highest scores, [n, classes]
    of any scale; a tie counts as among them. By name it is "top5", and so for every k.

    >>> top_k_accuracy(torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), torch.tensor([1, 2]), k=2)
    0.5
    """
    scores, targets = as_scores(predictions, targets)
    if k < 1 or scores.dim() == 1:
        raise MipError(f"top_k_accuracy takes k of 1 or more and scores [n, classes]; k is {k}")
    targets = check_classes(targets, scores.shape[1])
    # A class that is NaN, or beside NaN, is ranked last.
    rank = (~(scores <= scores.gather(1, targets[:, None]))).sum(dim=1)
    return float((rank < k).double().mean())


def confusion_matrix(
    predictions: Any, targets: Any, from_logits: bool = True, num_classes: int | None = None
) -> Tensor:
    """Count the rows of each true class (down) that are predicted as each class (across): int64
    [k, k]. `num_classes` says k if predictions are classes, which may lack the last ones.

    >>> confusion_matrix(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]))
    tensor([[1, 1],
            [0, 1]])
    """
    predicted, true, count = as_classes(predictions, targets, from_logits)
    if num_classes is not None and num_classes < count:
        raise MipError(f"num_classes must be at least the number of classes, {count}")
    count = num_classes or count
    return (true * count + predicted).bincount(minlength=count * count).view(count, count)


def precision(
    predictions: Any, targets: Any, average: Average = "auto", from_logits: bool = True
) -> float:
    """Compute the share of rows predicted as a class that are of it; NaN if there are none, but 0
    within a mean of classes.

    >>> precision(torch.tensor([1.0, 1.0, -1.0]), torch.tensor([0, 1, 1]))
    0.5
    """
    return precision_of(confusion_matrix(predictions, targets, from_logits), average)


def recall(
    predictions: Any, targets: Any, average: Average = "auto", from_logits: bool = True
) -> float:
    """Compute the share of rows of a class that are predicted as it; NaN if there are none, but 0
    within a mean of classes.

    >>> recall(torch.tensor([1.0, -1.0, -1.0]), torch.tensor([1, 1, 0]))
    0.5
    """
    return recall_of(confusion_matrix(predictions, targets, from_logits), average)


def f1(
    predictions: Any, targets: Any, average: Average = "auto", from_logits: bool = True
) -> float:
    """Compute the harmonic mean of precision and recall, by class; NaN if a class is neither
    present nor predicted.

    >>> f1(torch.tensor([1.0, 1.0, -1.0]), torch.tensor([0, 1, 0])).__round__(6)
    0.666667
    >>> f1(torch.eye(3), torch.tensor([0, 1, 1]), average="macro").__round__(6)
    0.555556
    """
    return f1_of(confusion_matrix(predictions, targets, from_logits), average)


def precision_of(matrix: Tensor, average: Average = "auto") -> float:
    """Compute the precision from a confusion matrix."""
    return _averaged(matrix.diag(), matrix.sum(dim=0), matrix, average)


def recall_of(matrix: Tensor, average: Average = "auto") -> float:
    """Compute the recall from a confusion matrix."""
    return _averaged(matrix.diag(), matrix.sum(dim=1), matrix, average)


def f1_of(matrix: Tensor, average: Average = "auto") -> float:
    """Compute f1 from a confusion matrix."""
    return _averaged(2 * matrix.diag(), matrix.sum(dim=0) + matrix.sum(dim=1), matrix, average)


def _averaged(right: Tensor, of: Tensor, matrix: Tensor, average: Average) -> float:
    check_average(average)
    if average == "auto":
        average = "binary" if len(matrix) == 2 else "macro"
    if average == "binary":
        if len(matrix) != 2:
            raise MipError(f"average='binary' is of 2 classes, not of {len(matrix)}: take 'macro'")
        return float(right[1].double() / of[1])
    if average == "micro":
        return float(right.sum().double() / of.sum())
    by_class, rows = right.double() / of.clamp_min(1), matrix.sum(dim=1)
    if average == "weighted":
        return float((by_class * rows).sum() / rows.sum())
    return float(by_class[rows + matrix.sum(dim=0) > 0].mean())


def check_average(average: str) -> None:
    """Raise MipError for an unknown average.

    >>> check_average("marco")
    Traceback (most recent call last):
    mip.errors.MipError: there is no average 'marco'; did you mean 'macro'? (known: auto, binary, \
macro, micro, weighted)
    """
    known = get_args(Average)
    if average not in known:
        raise MipError(f"there is no average {quote(average)}{hint(average, known)}")


def add_matrices(a: Tensor, b: Tensor) -> Tensor:
    """Add confusion matrices, of which one may lack the last classes.

    >>> add_matrices(torch.ones(2, 2), torch.ones(1, 1)).tolist()
    [[2.0, 1.0], [1.0, 1.0]]
    """
    size = max(len(a), len(b))
    a, b = (torch.nn.functional.pad(each, (0, size - len(each)) * 2) for each in (a, b))
    return a + b


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
