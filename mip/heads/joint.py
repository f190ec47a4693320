"""Several heads over the same branches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from attrs import Attribute, field, frozen
from torch import Tensor, nn

from mip.branches import Facts, sorted_by_name
from mip.data import Rows, Table
from mip.errors import FieldError, hint
from mip.fields import MinLength, choice
from mip.heads.calibration import check_calibrates
from mip.heads.losses import Criterion
from mip.heads.protocol import Head, Outputs, predictions_to_logits, scores, tower, training_loss

LOG_VARIANCE = "log variance"
"""The key of the learned weights among the logits. No head can have this name: it has a space."""

Weighting = Literal["fixed", "learned"]
"""Where the weights of the losses come from."""


@frozen
class Joint:
    """Several heads over the same branches, each with its own column, trained together.

    The loss is the sum of theirs, weighted by `loss_weights` (default 1). With the weighting
    "learned" it is the sum of exp(-s) * loss + s, with a number s for each head that training
    learns, starting at 0: the logarithm of a variance (Kendall, Gal and Cipolla 2018, without
    their factors of one half). The names of predictions, targets and metrics are prefixed with
    that of their head: `price.value`.

    >>> from mip.heads.binary import Binary; from mip.heads.regression import Regression
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
    head: Mapping[str, Head] = field(converter=sorted_by_name, validator=MinLength(1))
    weighting: Weighting = choice("fixed")
    loss_weights: Mapping[str, float] = field(factory=dict, converter=sorted_by_name)

    @loss_weights.validator
    def _check_weights(self, _: Attribute, weights: Mapping[str, float]) -> None:
        if weights and self.weighting == "learned":
            raise FieldError("loss_weights", "must be omitted: the weighting is learned")
        for name, weight in weights.items():
            if name not in self.head:
                known = hint(name, self.head)
                raise FieldError("loss_weights", f"names '{name}', which is not a head{known}")
            if not 0 <= weight < math.inf:
                raise FieldError("loss_weights", f"of '{name}' must be finite and >= 0: {weight}")

    def adapt(self, rows: Rows) -> Facts:
        """Return the facts of each head by name."""
        return {name: head.adapt(rows) for name, head in self.head.items()}

    def encode(self, facts: Facts, rows: Table) -> dict[str, Any]:
        """Return the target of each head by name."""
        return {name: head.encode(facts[name], rows) for name, head in self.head.items()}

    def outputs(self, facts: Facts) -> dict[str, Outputs]:
        """Return the number of logits of each head by name."""
        return {name: head.outputs(facts[name]) for name, head in self.head.items()}

    def tower(self, facts: Facts, width: int) -> nn.Module:
        """Build a module that returns a dict of logits by name, and of learned weights if any."""
        towers = {name: tower(head, facts[name], width) for name, head in self.head.items()}
        return Towers(towers, learned=self.weighting == "learned")

    def criterion(self, facts: Facts) -> Criterion:
        """Return the weighted sum of the heads' losses."""
        criteria = {name: training_loss(head, facts[name]) for name, head in self.head.items()}
        weights = torch.tensor([self.loss_weights.get(name, 1.0) for name in self.head])

        def criterion(logits: dict[str, Any], target: dict[str, Any]) -> Tensor:
            losses = torch.stack(
                [loss(logits[name], target[name]) for name, loss in criteria.items()]
            )
            if LOG_VARIANCE not in logits:
                return losses @ weights.to(losses.device)
            log_variance = logits[LOG_VARIANCE].mean(dim=0)
            return ((-log_variance).exp() * losses + log_variance).sum()

        return criterion

    def decode(self, facts: Facts, logits: dict[str, Any]) -> dict[str, np.ndarray]:
        """Return the columns of each head, `<head>.<column>`."""
        return {
            f"{name}.{column}": values
            for name, head in self.head.items()
            for column, values in head.decode(facts[name], logits[name]).items()
        }

    def logits(self, facts: Facts, columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return the logits of each head that decode to its columns, without learned weights."""
        return {
            name: predictions_to_logits(head, facts[name], _columns_of(name, columns))
            for name, head in self.head.items()
        }

    def calibrate(
        self, facts: Facts, logits: dict[str, Any], target: dict[str, Any], coverage: float
    ) -> Facts:
        """Calibrate each head: by name. Raises SpecError for a kind that cannot be."""
        return {
            name: check_calibrates(head).calibrate(
                facts[name], logits[name], target[name], coverage
            )
            for name, head in self.head.items()
        }

    def bounds(
        self, facts: Facts, calibration: Facts, logits: dict[str, Any]
    ) -> dict[str, np.ndarray]:
        """Return the bounds of each head, `<head>.<column>`."""
        return {
            f"{name}.{column}": values
            for name, head in self.head.items()
            for column, values in check_calibrates(head)
            .bounds(facts[name], calibration[name], logits[name])
            .items()
        }

    def metrics(
        self, facts: Facts, logits: dict[str, Any], target: dict[str, Any]
    ) -> dict[str, float]:
        """Compute the loss and metrics of each head, `<head>.<metric>`."""
        return {
            f"{name}.{metric}": score
            for name, head in self.head.items()
            for metric, score in scores(head, facts[name], logits[name], target[name]).items()
        }


def _columns_of(head: str, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    prefix = f"{head}."
    return {name.removeprefix(prefix): columns[name] for name in columns if name.startswith(prefix)}


class Towers(nn.Module):
    """Run the towers of several heads on the same vector: float32 [n, width] to logits by name.

    With learned weights the dict also has their logarithms, float32 [n, heads], all rows alike:
    a loss sees logits alone.
    """

    def __init__(self, towers: Mapping[str, nn.Module], learned: bool) -> None:
        super().__init__()
        self.head = nn.ModuleDict(dict(towers))
        self.doubt = nn.Parameter(torch.zeros(len(towers))) if learned else None

    def forward(self, x: Tensor) -> dict[str, Any]:
        logits: dict[str, Any] = {name: head(x) for name, head in self.head.items()}
        if self.doubt is not None:
            logits[LOG_VARIANCE] = self.doubt.repeat(len(x), 1)
        return logits
