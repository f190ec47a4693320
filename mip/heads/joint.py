"""Several heads over the same branches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from attrs import field, frozen
from attrs.validators import in_, min_len
from torch import Tensor, nn

from mip.branches import Facts, by_name
from mip.data import Rows, Table
from mip.errors import hint
from mip.heads.protocol import Criterion, Head, loss_of, recoded, scores, tower

DOUBT = "log variance"
"""The name of the learned weights among the logits, which no head can have: it has a space."""


Weighting = Literal["fixed", "learned"]


@frozen
class Joint:
    """Several heads over the same branches, each with a column of its own, learned together.

    The loss is the sum of theirs, each times its `loss_weights` (1 where none is given). With the
    weighting "learned" it is the sum of exp(-s) * loss + s, with a number s for each head that
    training learns from 0 on: the logarithm of a variance (Kendall, Gal and Cipolla 2018,
    without their factors of one half). Each name of a prediction, a target or a metric stands
    behind its head's: `price.value`.

    >>> from mip.heads.classes import Binary; from mip.heads.regression import Regression
    >>> heads = {"price": Regression("price"), "sold": Binary("sold")}
    >>> head = Joint(heads, loss_weights={"sold": 0.5})
    >>> from mip.data import from_columns
    >>> rows = from_columns({"price": [70, 90], "sold": ["yes", "no"]})
    >>> facts = head.adapt(rows); target = head.encode(facts, rows)
    >>> target
    {'price': tensor([-1.,  1.]), 'sold': tensor([1., 0.])}
    >>> logits = {"price": torch.zeros(2), "sold": torch.zeros(2)}
    >>> head.criterion(facts)(logits, target)
    tensor(1.3466)
    >>> list(head.decode(facts, logits))
    ['price.value', 'sold.label', 'sold.p_no', 'sold.p_yes']
    """

    kind = "joint"
    head: Mapping[str, Head] = field(converter=by_name, validator=min_len(1))
    weighting: Weighting = field(default="fixed", validator=in_(("fixed", "learned")))
    loss_weights: Mapping[str, float] = field(factory=dict, converter=by_name)

    @loss_weights.validator
    def _of_heads(self, _: Any, weight: Mapping[str, float]) -> None:
        if weight and self.weighting == "learned":
            raise ValueError("'loss_weights' must be left out: the weighting is learned")
        for name, value in weight.items():
            if name not in self.head:
                known = hint(name, self.head)
                raise ValueError(f"'loss_weights' names '{name}', which is no head{known}")
            if not 0 <= value < math.inf:
                raise ValueError(f"'loss_weights' of '{name}' must be 0 or more: {value}")

    def adapt(self, rows: Rows) -> Facts:
        """Give each head's facts by name."""
        return {name: head.adapt(rows) for name, head in self.head.items()}

    def encode(self, facts: Facts, rows: Table) -> dict[str, Any]:
        """Give each head's target by name."""
        return {name: head.encode(facts[name], rows) for name, head in self.head.items()}

    def outputs(self, facts: Facts) -> dict[str, Any]:
        """Give each head's number of logits by name."""
        return {name: head.outputs(facts[name]) for name, head in self.head.items()}

    def tower(self, facts: Facts, width: int) -> nn.Module:
        """Give a dict of each head's logits by name; with learned weights, these beside them."""
        each = {name: tower(head, facts[name], width) for name, head in self.head.items()}
        return Towers(each, self.weighting == "learned")

    def criterion(self, facts: Facts) -> Criterion:
        """Give the weighted sum of the heads' losses."""
        losses = {name: loss_of(head, facts[name]) for name, head in self.head.items()}
        fixed = torch.tensor([self.loss_weights.get(name, 1.0) for name in self.head])

        def criterion(logits: dict[str, Any], target: dict[str, Any]) -> Tensor:
            values = [loss(logits[name], target[name]) for name, loss in losses.items()]
            each = torch.stack(values)
            if DOUBT not in logits:
                return each @ fixed.to(each.device)
            doubt = logits[DOUBT].mean(dim=0)
            return ((-doubt).exp() * each + doubt).sum()

        return criterion

    def decode(self, facts: Facts, logits: dict[str, Any]) -> dict[str, np.ndarray]:
        """Give each head's columns, `<head>.<column>`."""
        return {
            f"{name}.{column}": values
            for name, head in self.head.items()
            for column, values in head.decode(facts[name], logits[name]).items()
        }

    def logits(self, facts: Facts, columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Give each head's logits that decode to its columns, without learned weights."""
        return {
            name: recoded(head, facts[name], _own(name, columns))
            for name, head in self.head.items()
        }

    def metrics(
        self, facts: Facts, logits: dict[str, Any], target: dict[str, Any]
    ) -> dict[str, float]:
        """Give each head's loss and metrics, `<head>.<metric>`."""
        return {
            f"{name}.{metric}": score
            for name, head in self.head.items()
            for metric, score in scores(head, facts[name], logits[name], target[name]).items()
        }


def _own(head: str, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    start = f"{head}."
    return {name.removeprefix(start): columns[name] for name in columns if name.startswith(start)}


class Towers(nn.Module):
    """Run each head on the same vector: float32 [n, width] to a dict of logits by name.

    With learned weights the dict also has these, float32 [n, heads], each row alike.
    """

    def __init__(self, heads: Mapping[str, nn.Module], learned: bool) -> None:
        super().__init__()
        self.head = nn.ModuleDict(dict(heads))
        self.doubt = nn.Parameter(torch.zeros(len(heads))) if learned else None

    def forward(self, x: Tensor) -> dict[str, Any]:
        logits: dict[str, Any] = {name: head(x) for name, head in self.head.items()}
        if self.doubt is not None:
            logits[DOUBT] = self.doubt.repeat(len(x), 1)
        return logits
