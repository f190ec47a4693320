"""A linear model of a few principal components that corrects given logits, and does no harm.

The features of a pretrained net are many and the rows few. So the model sees one principal
component per `ROWS_PER_COMPONENT` rows, the leading ones; its penalty is chosen on held-out rows;
and unless these say that it helps, by more than the standard error over the folds, it is 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mip.heads import Criterion

ROWS_PER_COMPONENT = 10
"""One coefficient per ten rows, as the old rule for regressions has it (Harrell et al. 1996)."""


PENALTIES = (math.inf, *(10.0 ** (k / 2) for k in range(4, -7, -1)))
"""The penalties that are tried, on the mean loss and features of total variance 1: from one that
leaves no model at all, down to 0.001 by half a power of ten.
"""


class Components(NamedTuple):
    """The leading principal components of standardized vectors: their mean, float64 [d], and the
    map [d, components] from what differs from it to scores of total variance 1.
    """

    center: Tensor
    directions: Tensor

    def scores(self, vectors: Tensor) -> Tensor:
        """Return the scores of vectors: float32 [n, components]."""
        return ((vectors.double() - self.center) @ self.directions).float()


def principal_components(vectors: Tensor) -> Components:
    """Find one principal component per `ROWS_PER_COMPONENT` of the vectors, float32 [n, d]. Numbers
    that never change have no part in any.

    >>> components = principal_components(torch.eye(20))
    >>> scores = components.scores(torch.eye(20))
    >>> scores.shape, round(scores.square().sum(dim=1).mean().item(), 3)
    (torch.Size([20, 2]), 1.0)
    """
    values = vectors.double()
    center, spread = values.mean(dim=0), values.std(dim=0, correction=0)
    changes = spread > 1e-6 * (center.abs() + spread.max())
    scale = torch.where(changes, 1 / spread, 0)
    standardized = (values - center) * scale
    # Of the two Gram matrices the smaller one: both have the same eigenvalues.
    wide = standardized.shape[1] > len(standardized)
    gram = standardized @ standardized.T if wide else standardized.T @ standardized
    squares, basis = torch.linalg.eigh(gram)
    count = max(1, len(values) // ROWS_PER_COMPONENT)
    leading = [k for k in range(len(squares) - 1, -1, -1) if squares[k] > 1e-9 * squares[-1]]
    leading = leading[:count] if squares[-1] > 0 else []
    squares, basis = squares[leading], basis[:, leading]
    directions = standardized.T @ basis / squares.sqrt() if wide else basis
    total = (squares.sum() / len(values)).sqrt()
    return Components(center, scale.unsqueeze(1) * directions / total)


class Correction(NamedTuple):
    """A model of scores: its weight, float32 [components, k], and what it adds to the logits of
    rows that it has not seen, [n, k]. Both are 0 if it would not help.
    """

    weight: Tensor
    held_out: Tensor


def fit_correction(
    scores: Tensor, logits: Tensor, target: Tensor, loss: Criterion, fold: np.ndarray
) -> Correction:
    """Fit a linear model of scores, float32 [n, components], whose outputs are added to logits, [n]
    or [n, k], by the penalty that is best on folds, int64 [n], which are held out in turn.

    >>> x = torch.linspace(-1, 1, 40).unsqueeze(1)
    >>> fold, mse = np.arange(40) % 5, torch.nn.functional.mse_loss
    >>> fit_correction(x, torch.zeros(40), 2 * x[:, 0], mse, fold).weight.round(decimals=2)
    tensor([[2.]])
    >>> fit_correction(x, torch.zeros(40), torch.ones(40), mse, fold).weight
    tensor([[0.]])
    """
    names = np.unique(fold)
    losses = torch.zeros(len(PENALTIES), len(names))
    added = torch.zeros(len(PENALTIES), len(logits), logits[:1].numel())
    for k, name in enumerate(names):
        held, rest = (torch.from_numpy(rows) for rows in (fold == name, fold != name))
        path = _weights(scores[rest], logits[rest], target[rest], loss)
        for j, weight in enumerate(path):
            added[j, held] = scores[held] @ weight
            losses[j, k] = loss(logits[held] + added[j, held].view_as(logits[held]), target[held])
    best = _choose(losses)
    weights = _weights(scores, logits, target, loss, PENALTIES[: best + 1])
    return Correction([*weights][-1], added[best])


def _choose(losses: Tensor) -> int:
    """Return which penalty has the least mean loss, [penalties, folds], or 0, no model, unless it
    is better than none by more than the standard error.
    """
    best = int(losses.mean(dim=1).nan_to_num(math.inf).argmin())
    gains = losses[0] - losses[best]
    return best if gains.mean() > gains.std() / len(gains) ** 0.5 else 0


def _weights(
    scores: Tensor,
    logits: Tensor,
    target: Tensor,
    loss: Criterion,
    penalties: tuple[float, ...] = PENALTIES,
) -> Iterator[Tensor]:
    """Yield the weight for each penalty, float32 [components, k], each found from the one before:
    the first is 0.
    """
    weight = scores.new_zeros(scores.shape[1], logits[:1].numel())
    for penalty in penalties:
        if math.isfinite(penalty):
            weight = _minimize(scores, logits, target, loss, penalty, weight)
        yield weight


def _minimize(
    scores: Tensor, logits: Tensor, target: Tensor, loss: Criterion, penalty: float, start: Tensor
) -> Tensor:
    weight = start.clone().requires_grad_()
    # torch's own tolerances are below what float32 resolves, and cost ten times the time.
    solver = torch.optim.LBFGS(
        [weight],
        max_iter=100,
        tolerance_grad=1e-5,
        tolerance_change=1e-7,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        solver.zero_grad()
        mean = loss(logits + (scores @ weight).view_as(logits), target)
        value = mean + penalty / 2 * weight.square().sum()
        value.backward()
        return value

    solver.step(objective)
    return weight.detach()
