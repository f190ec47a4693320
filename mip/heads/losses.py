"""Losses: (logits, target) of n rows to a mean over rows, a tensor without dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor

from mip.branches import Facts
from mip.errors import DataError

Criterion = Callable[[Any, Any], Tensor]
"""(logits, target) of n rows to their mean loss, a tensor without dimensions. Both are tensors, or
dicts by the names of several heads.
"""


@frozen
class CheckedLoss:
    """A loss that checks the shapes of logits and target itself, as those of heads do.

    >>> CheckedLoss(check_shapes(F.l1_loss))(torch.zeros(3), torch.ones(3))
    tensor(1.)
    """

    criterion: Criterion

    def __call__(self, logits: Any, target: Any) -> Tensor:
        return self.criterion(logits, target)


def check_shapes(loss: Callable[..., Tensor]) -> Criterion:
    """Make a loss raise DataError if logits and target differ in shape: they would broadcast.

    >>> check_shapes(F.mse_loss)(torch.zeros(3, 1), torch.zeros(3))
    Traceback (most recent call last):
    mip.errors.DataError: logits of shape (3, 1) and a target of shape (3,) would broadcast
    """

    def criterion(logits: Tensor, target: Tensor) -> Tensor:
        if logits.shape != target.shape:
            raise DataError(f"{_shapes(logits, target)} would broadcast")
        return loss(logits, target)

    return criterion


def check_width(loss: Callable[..., Tensor], width: int, soft: bool = True) -> Criterion:
    """Make a loss raise DataError unless logits are [n, width] and the target is [n] or, if it may
    be `soft` (which mixing makes it), [n, width].

    >>> check_width(F.cross_entropy, 3)(torch.zeros(2, 1), torch.tensor([0, 1]))
    Traceback (most recent call last):
    mip.errors.DataError: logits of shape (2, 1) and a target of shape (2,): \
expected 3 logits per row
    """

    def criterion(logits: Tensor, target: Tensor) -> Tensor:
        rows = target.shape[:1]
        allowed = (rows, (*rows, width)) if soft else (rows,)
        if logits.shape != (*rows, width) or target.shape not in allowed:
            raise DataError(f"{_shapes(logits, target)}: expected {width} logits per row")
        return loss(logits, target)

    return criterion


def _shapes(logits: Tensor, target: Tensor) -> str:
    return f"logits of shape {tuple(logits.shape)} and a target of shape {tuple(target.shape)}"


def log_cosh(pred: Tensor, target: Tensor) -> Tensor:
    """Compute the mean logarithm of the hyperbolic cosine of the error (Green 1990): quadratic
    near zero, the absolute error less log 2 far from it, smooth in between.

    >>> log_cosh(torch.tensor([1.0, 90.0]), torch.tensor([1.0, 0.0])).item() * 2
    89.30685424804688
    """
    # log cosh x = x + log(1 + exp(-2x)) - log 2, where cosh itself would overflow.
    error = pred - target
    return (error + F.softplus(-2 * error) - math.log(2)).mean()


def pinball_loss(
    pred: Tensor, target: Tensor, quantiles: tuple[float, ...], rounding: float = 0.0
) -> Tensor:
    """Compute the mean pinball loss (Koenker and Bassett 1978) of quantiles [n, k] against a
    target [n]: an error costs q times its size if the target lies above, 1 - q times if below.
    `rounding` rounds off its kink, for errors of about that size.

    >>> pinball_loss(torch.tensor([[0.0, 3.0]]), torch.tensor([2.0]), (0.5, 0.9)).item()
    0.550000011920929
    """
    error = target[:, None] - pred
    q = error.new_tensor(quantiles)
    if rounding:
        return ((q - 0.5) * error + (error.square() + rounding**2).sqrt() / 2).mean()
    return torch.maximum(q * error, (q - 1) * error).mean()


def corn_loss(logits: Tensor, levels: Tensor) -> Tensor:
    """Compute the mean negative log-likelihood of ordered classes from levels, both [n, k - 1].

    Logit j is that of P(y > j) among the rows with y > j - 1, and counts for these rows alone:
    CORN (Shi, Cao and Raschka 2023), with the sum divided by the number of rows here, so that it
    is the likelihood of the classes. A level between 0 and 1, which mixing makes, counts in part.

    >>> corn_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])).exp().item()
    4.0
    """
    among = torch.cat([torch.ones_like(levels[:, :1]), levels[:, :-1]], dim=1)
    likelihood = levels * F.logsigmoid(logits) + (among - levels) * F.logsigmoid(-logits)
    return -likelihood.sum(dim=1).mean()


def weighted_cross_entropy(
    log_probs: Tensor,
    target: Tensor,
    class_weight: list[float],
    focal_gamma: float,
    label_smoothing: float,
) -> Tensor:
    """Compute the mean cross-entropy between log probabilities and probabilities, both [n, k].

    Each class has a weight (1 if the list is empty), and its surprise counts
    (1 - p) ** `focal_gamma` times (Lin et al. 2017); `label_smoothing` spreads that share of the
    target over all classes (Szegedy et al. 2016). The mean is over rows, as in Keras. With class
    weights `torch.nn.CrossEntropyLoss` and scikit-learn's `log_loss` divide by the sum of the
    weights instead, so that the share of a row depends on which others are in its batch: the mean
    over batches is then not that of all rows, nor an accumulated gradient that of one large batch.
    With balanced weights, whose mean over the training rows is 1, both agree there.

    >>> log_probs, target = torch.tensor([[0.75, 0.25]]).log(), torch.tensor([[1.0, 0.0]])
    >>> weighted_cross_entropy(log_probs, target, [], focal_gamma=2.0, label_smoothing=0.0)
    tensor(0.0180)
    """
    smooth = (1 - label_smoothing) * target + label_smoothing / target.shape[1]
    surprise = -log_probs * (log_probs.new_tensor(class_weight) if class_weight else 1.0)
    if focal_gamma:
        # At a probability of 1, a power below 1 has an infinite slope, which would become NaN.
        surprise = surprise * (-log_probs.expm1()).clamp_min(1e-30) ** focal_gamma
    return (smooth * surprise).sum(dim=1).mean()


class CrossEntropyOptions(Protocol):
    """A head with options of the cross-entropy; weights of classes are among its facts."""

    @property
    def focal_gamma(self) -> float: ...
    @property
    def label_smoothing(self) -> float: ...


def custom_cross_entropy(head: CrossEntropyOptions, facts: Facts) -> Criterion | None:
    """Return the cross-entropy, of log probabilities and probabilities [n, k], that the options of
    a head ask for; None if they are the defaults, for which torch has a loss of logits.
    """
    class_weight = facts.get("weights", [])
    if not (class_weight or head.focal_gamma or head.label_smoothing):
        return None
    return partial(
        weighted_cross_entropy,
        class_weight=class_weight,
        focal_gamma=head.focal_gamma,
        label_smoothing=head.label_smoothing,
    )
