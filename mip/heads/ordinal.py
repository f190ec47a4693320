"""One of several classes that have an order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from attrs import field, frozen
from torch import Tensor

from mip.branches import Facts, widths
from mip.data import Rows, Table, number, words
from mip.errors import DataError, hint, shown
from mip.heads.classes import SURE, chances_of, codes_of, named
from mip.heads.protocol import Criterion, checked, dropout_field, members_field, missing_field


def conditional(logits: Tensor, levels: Tensor) -> Tensor:
    """Give the mean negative log-likelihood of levels, both [n, k - 1].

    Logit j is that of P(y > j) among the rows with y > j - 1, and counts for these rows alone:
    CORN (Shi, Cao and Raschka 2023), whose sum is divided by the rows here, so that it is the
    likelihood of the classes. Of a level between 0 and 1, as mixing makes it, so much counts.

    >>> conditional(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])).exp().item()
    4.0
    """
    among = torch.cat([torch.ones_like(levels[:, :1]), levels[:, :-1]], dim=1)
    gained = levels * F.logsigmoid(logits) + (among - levels) * F.logsigmoid(-logits)
    return -gained.sum(dim=1).mean()


@frozen
class Ordinal:
    """One of several classes in their `order`; without one they are sorted, as numbers where all
    are numbers.

    The model is CORN, for neural networks without shared thresholds: P(y > k) is a product of
    conditional probabilities, and so never rises with k, whatever the logits are.

    >>> from mip.data import from_columns
    >>> rows = from_columns({"stars": ["10", "9", "8", ""]})
    >>> head = Ordinal("stars"); facts = head.adapt(rows)
    >>> facts
    {'classes': ['8', '9', '10']}
    >>> head.encode(facts, rows).tolist()
    [[1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [nan, nan]]
    >>> {name: column.tolist() for name, column in head.decode(facts, torch.zeros(1, 2)).items()}
    {'label': ['8'], 'p_8': [0.5], 'p_9': [0.25], 'p_10': [0.25]}
    """

    kind = "ordinal"
    column: str
    order: tuple[str, ...] = field(default=(), converter=tuple)
    layers: tuple[int, ...] = widths()
    dropout: float = dropout_field()
    members: int = members_field()
    missing: Literal["drop", "error"] = missing_field()

    @order.validator
    def _classes(self, _: Any, order: tuple[str, ...]) -> None:
        if order and (len(order) < 2 or len(set(order)) < len(order) or "" in order):
            raise ValueError(f"'order' must name 2 classes or more, each once: {list(order)}")

    def adapt(self, rows: Rows) -> Facts:
        """Give the classes in their order.

        Raises DataError for a class that is not in `order`, and for fewer than two.
        """
        found = sorted(words(rows, self.column), key=_rank)
        if not all(math.isfinite(_rank(word)[0]) for word in found):
            found = sorted(found)
        strange = [word for word in found if word not in self.order] if self.order else []
        if strange:
            told = f"{shown(strange[0])} of column '{self.column}' is not in 'order'"
            raise DataError(f"{rows.name}: {told}{hint(strange[0], self.order)}")
        if len(found) < 2:
            raise DataError(f"{rows.name}: column '{self.column}' has {len(found)} class")
        return {"classes": list(self.order) or found}

    def known(self, rows: Table) -> np.ndarray:
        """Say which rows have a word: bool [n]."""
        return rows.texts(self.column) != ""

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Give float32 [n, classes - 1]: 1 where the class lies above, else 0; NaN for none.

        Mixed rows have the mean of their levels, which is that of their probabilities.
        """
        codes = codes_of(rows, self.column, facts["classes"])[:, None]
        levels = (codes > np.arange(len(facts["classes"]) - 1)).astype(np.float32)
        return torch.from_numpy(np.where(codes < 0, np.float32("nan"), levels))

    def outputs(self, facts: Facts) -> int | None:
        """Give the number of levels: logits are [n, classes - 1]."""
        return len(facts["classes"]) - 1

    def criterion(self, facts: Facts) -> Criterion:
        """Give the negative log-likelihood of the classes."""
        return checked(conditional)

    def decode(self, facts: Facts, logits: Tensor) -> dict[str, np.ndarray]:
        """Give `label`, the median class, as CORN does, and `p_<class>` for each class."""
        label = np.array(facts["classes"], dtype=object)[_median(logits).numpy()]
        return {"label": label, **named(facts["classes"], _chances(logits).numpy())}

    def logits(self, facts: Facts, columns: Mapping[str, np.ndarray]) -> Tensor:
        """Give the logits, float64 [n, classes - 1], that decode to these columns."""
        chances = chances_of(facts["classes"], columns).clamp_min(SURE)
        above = chances.flip(1).cumsum(dim=1).flip(1)[:, 1:]
        return (above / chances[:, :-1]).log()

    def metrics(self, facts: Facts, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Give accuracy, mae of the ranks, and quadratic weighted kappa (Cohen 1968)."""
        guess, truth = _median(logits), target.sum(dim=1).round().long()
        return {
            "accuracy": float((guess == truth).double().mean()),
            "mae": float((guess - truth).abs().double().mean()),
            "kappa": kappa(guess, truth),
        }


def kappa(a: Tensor, b: Tensor) -> float:
    """Give the agreement of ranks, int64 [n], by the square of their distance, over that of
    chance (Cohen 1968): 1 is all; NaN where both are one and the same class.

    >>> kappa(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2]))
    1.0
    """
    a, b = a.double(), b.double()
    apart = (a.mean() - b.mean()).square()
    chance = a.var(correction=0) + b.var(correction=0) + apart
    return float(1 - (a - b).square().mean() / chance)


def _above(logits: Tensor) -> Tensor:
    return logits.double().sigmoid().cumprod(dim=1)


def _chances(logits: Tensor) -> Tensor:
    # Each class has what its predecessors have left, and the last one has the rest.
    left = F.pad(_above(logits), (1, 0), value=1.0)
    return left * F.pad((-logits.double()).sigmoid(), (0, 1), value=1.0)


def _median(logits: Tensor) -> Tensor:
    return (_above(logits) > 0.5).sum(dim=1)


def _rank(word: str) -> tuple[float, str]:
    rank = number(word)
    return math.inf if rank is None or math.isnan(rank) else rank, word
