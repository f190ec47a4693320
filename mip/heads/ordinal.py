"""One of several classes that have an order."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from attrs import Attribute, field, frozen
from torch import Tensor

from mip.branches import Facts, layer_sizes_field
from mip.data import Rows, Table, parse_number
from mip.errors import DataError, FieldError, hint, quote
from mip.heads.fields import (
    Missing,
    activation_field,
    batch_norm_field,
    dropout_field,
    members_field,
    missing_field,
)
from mip.heads.losses import Criterion, check_shapes, corn_loss
from mip.heads.targets import classes
from mip.metrics import accuracy, mae, quadratic_kappa
from mip.nn import Activation, BatchNorm


@frozen
class Ordinal:
    """One of several classes in their `order`; without one they are sorted, as numbers if all are
    numbers.

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
    layers: tuple[int, ...] = layer_sizes_field()
    activation: Activation = activation_field()
    batch_norm: BatchNorm = batch_norm_field()
    dropout: float = dropout_field()
    members: int = members_field()
    missing: Missing = missing_field()

    @order.validator
    def _check_order(self, _: Attribute, order: tuple[str, ...]) -> None:
        if order and (len(order) < 2 or len(set(order)) < len(order) or "" in order):
            raise FieldError("order", f"must name at least 2 distinct classes: {list(order)}")

    known = classes.known

    def adapt(self, rows: Rows) -> Facts:
        """Find the classes, in their order.

        Raises DataError for a class that is not in `order`, and for fewer than two.
        """
        counts, kinds = classes.count_classes(rows, self.column)
        names = sorted(counts)
        if all(math.isfinite(_rank(name)[0]) for name in names):
            names = sorted(names, key=_rank)
        unknown = [name for name in names if name not in self.order] if self.order else []
        if unknown:
            text = f"{quote(unknown[0])} of column '{self.column}' is not in 'order'"
            raise DataError(f"{rows.name}: {text}{hint(unknown[0], self.order)}")
        if len(names) < 2:
            raise DataError(f"{rows.name}: column '{self.column}' has fewer than 2 classes")
        return classes.class_facts(list(self.order) or names, kinds)

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Return float32 [n, classes - 1]: 1 where the class is above, else 0; NaN if missing.

        Mixed rows have the mean of their levels, which is that of their probabilities.
        """
        codes = classes.class_codes(rows, self.column, facts["classes"])[:, None]
        levels = (codes > np.arange(len(facts["classes"]) - 1)).astype(np.float32)
        return torch.from_numpy(np.where(codes < 0, np.float32("nan"), levels))

    def outputs(self, facts: Facts) -> int:
        """Return the number of levels: logits are [n, classes - 1]."""
        return len(facts["classes"]) - 1

    def criterion(self, facts: Facts) -> Criterion:
        """Return the negative log-likelihood of the classes."""
        return check_shapes(corn_loss)

    def decode(self, facts: Facts, logits: Tensor) -> dict[str, np.ndarray]:
        """Return `label`, the median class, as CORN does, and `p_<class>` for each class."""
        label = classes.class_values(facts)[_median(logits).numpy()]
        probabilities = _probabilities(logits).numpy()
        return {"label": label, **classes.probability_columns(facts["classes"], probabilities)}

    def logits(self, facts: Facts, columns: Mapping[str, np.ndarray]) -> Tensor:
        """Return the logits, float64 [n, classes - 1], that decode to these columns."""
        probabilities = classes.stack_probabilities(facts["classes"], columns)
        probabilities = probabilities.clamp_min(classes.MIN_PROB)
        above = probabilities.flip(1).cumsum(dim=1).flip(1)[:, 1:]
        return (above / probabilities[:, :-1]).log()

    def metrics(self, facts: Facts, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Compute accuracy, mae of the ranks, and quadratic weighted kappa."""
        pred, truth = _median(logits), target.sum(dim=1).round().long()
        return {
            "accuracy": accuracy(pred, truth),
            "mae": mae(pred, truth),
            "kappa": quadratic_kappa(pred, truth),
        }


def _above(logits: Tensor) -> Tensor:
    return logits.double().sigmoid().cumprod(dim=1)


def _probabilities(logits: Tensor) -> Tensor:
    # Each class gets its share of what the classes below have left, and the last one the rest.
    left = F.pad(_above(logits), (1, 0), value=1.0)
    return left * F.pad((-logits.double()).sigmoid(), (0, 1), value=1.0)


def _median(logits: Tensor) -> Tensor:
    return (_above(logits) > 0.5).sum(dim=1)


def _rank(word: str) -> tuple[float, str]:
    rank = parse_number(word)
    return math.inf if rank is None or math.isnan(rank) else rank, word
