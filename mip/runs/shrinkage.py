"""A linear model of a few principal components that corrects given logits, and does no harm.

The features of a pretrained net are many and the rows few. So the model sees one principal
component per `ROWS_PER_COMPONENT` rows, the leading ones; and it is an average over penalties, from
one that leaves nothing of it, each with a share by what held-out rows say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mip.heads import Criterion

ROWS_PER_COMPONENT = 3
"""Fewer components lose what the photos know; more are noise, which the penalty then removes."""

PENALTIES = (math.inf, *(10.0**k for k in range(2, -4, -1)))
"""The penalties on the mean loss, for features of total variance 1: from one that leaves no model
at all down to 0.001.
"""


TINY = torch.finfo(torch.float32).tiny
"""A divisor in the place of a loss of 0."""


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
    (torch.Size([20, 6]), 1.0)
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
    """A model of scores: its weight, float32 [components, k]; what it adds to the logits of rows
    that it has not seen, [n, k]; and the loss of these without and with it.
    """

    weight: Tensor
    held_out: Tensor
    before: float
    after: float

    @property
    def evidence(self) -> float:
        """About a log-likelihood ratio: n/2 times the share by which the loss falls."""
        return len(self.held_out) / 2 * (self.before - self.after) / max(abs(self.before), TINY)


def fit_correction(
    scores: Tensor, logits: Tensor, target: Tensor, loss: Criterion, folds: np.ndarray
) -> Correction:
    """Fit a linear model of scores, float32 [n, components], whose outputs are added to logits, [n]
    or [n, k]: the mean of the models of all penalties, each with a share by its loss on held-out
    rows. `folds`, int64 [repeats, n], says which rows are held out together.

    A share is proportional to exp(-n/2 loss / loss without a model), which is about the likelihood
    of held-out rows under normal errors: a pseudo-Bayesian average (Yao et al. 2018, Bayesian
    Analysis 13, equation 8). To take the best penalty alone would follow the noise of few rows.

    >>> x = torch.linspace(-1, 1, 40).unsqueeze(1)
    >>> folds, mse = np.arange(40)[None] % 5, torch.nn.functional.mse_loss
    >>> fitted = fit_correction(x, torch.zeros(40), 2 * x[:, 0], mse, folds)
    >>> fitted.weight.round(decimals=1), round(fitted.evidence)
    (tensor([[1.9000]]), 20)
    >>> fit_correction(x, torch.zeros(40), torch.ones(40), mse, folds).evidence < 1
    True
    """
    added = torch.stack([_held_out(scores, logits, target, loss, fold) for fold in folds])
    losses = torch.tensor([[loss(logits + x.view_as(logits), target) for x in xs] for xs in added])
    means = losses.double().mean(dim=0).nan_to_num(math.inf)
    scale = len(logits) / 2 / means[0].abs().clamp(min=TINY)
    shares = torch.softmax(-scale * means, dim=0).float()
    weights = torch.stack([*_weights(scores, logits, target, loss)])
    weight = torch.einsum("p,pck->ck", shares, weights)
    held_out = torch.einsum("p,rpnk->nk", shares, added) / len(folds)
    after = float(loss(logits + held_out.view_as(logits), target))
    return Correction(weight, held_out, float(means[0]), after)


def _held_out(
    scores: Tensor, logits: Tensor, target: Tensor, loss: Criterion, fold: np.ndarray
) -> Tensor:
    """Return what the model of each penalty adds to rows of a fold that it has not seen: float32
    [penalties, n, k].
    """
    added = torch.zeros(len(PENALTIES), len(logits), logits[:1].numel())
    for name in np.unique(fold):
        held, rest = (torch.from_numpy(rows) for rows in (fold == name, fold != name))
        path = _weights(scores[rest], logits[rest], target[rest], loss)
        for j, weight in enumerate(path):
            added[j, held] = scores[held] @ weight
    return added


def _weights(
    scores: Tensor,
    logits: Tensor,
    target: Tensor,
    loss: Criterion,
) -> Iterator[Tensor]:
    """Yield the weight for each penalty, float32 [components, k], each found from the one before:
    the first is 0.
    """
    weight = scores.new_zeros(scores.shape[1], logits[:1].numel())
    for penalty in PENALTIES:
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
