"""One of two classes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor

from mip.branches import Facts, layer_sizes_field
from mip.data import Rows, Table
from mip.errors import DataError, hint, quote
from mip.heads.fields import (
    ClassWeight,
    Missing,
    activation_field,
    batch_norm_field,
    class_weight_field,
    dropout_field,
    focal_gamma_field,
    label_smoothing_field,
    members_field,
    missing_field,
)
from mip.heads.losses import Criterion, check_shapes, custom_cross_entropy
from mip.heads.targets import classes
from mip.metrics import accuracy, auc, log_loss
from mip.nn import Activation, BatchNorm


@frozen
class Binary:
    """One of two classes; the positive one is `pos_label`, or the later in sorted order.

    `class_weight`, `focal_gamma` and `label_smoothing` are those of `weighted_cross_entropy`.

    >>> from mip.data import from_columns
    >>> rows = from_columns({"sold": ["yes", "no", "no", ""]})
    >>> head = Binary("sold", class_weight="balanced"); facts = head.adapt(rows)
    >>> facts
    {'classes': ['no', 'yes'], 'weights': [0.75, 1.5]}
    >>> head.encode(facts, rows).tolist()
    [1.0, 0.0, 0.0, nan]
    >>> head.decode(facts, torch.tensor([0.0, 9.0]))["label"].tolist()
    ['no', 'yes']
    """

    kind = "binary"
    column: str
    pos_label: str | None = None
    class_weight: ClassWeight = class_weight_field()
    focal_gamma: float = focal_gamma_field()
    label_smoothing: float = label_smoothing_field()
    layers: tuple[int, ...] = layer_sizes_field()
    activation: Activation = activation_field()
    batch_norm: BatchNorm = batch_norm_field()
    dropout: float = dropout_field()
    members: int = members_field()
    missing: Missing = missing_field()

    known = classes.known

    def adapt(self, rows: Rows) -> Facts:
        """Find the two classes, the positive one last, and their weights if asked for."""
        counts, kinds = classes.count_classes(rows, self.column)
        names = sorted(counts)
        if len(names) != 2:
            listed = ", ".join(quote(name)[1:-1] for name in names[:5])
            count = f"{len(names)} values ({listed})"
            raise DataError(f"{rows.name}: column '{self.column}' has {count}; binary needs 2")
        if self.pos_label is not None and self.pos_label not in names:
            text = f"'{self.pos_label}' is not a value of column '{self.column}'"
            raise DataError(f"{rows.name}: {text}{hint(self.pos_label, names)}")
        names = sorted(names, key=lambda name: (name == self.pos_label, name))
        facts = classes.class_facts(names, kinds)
        return {**facts, **classes.weight_facts(facts, counts, self.class_weight)}

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Return float32 [n]: 1 for the positive class, 0 for the other, NaN if missing."""
        codes = classes.class_codes(rows, self.column, facts["classes"])
        return torch.from_numpy(np.where(codes < 0, np.nan, codes).astype(np.float32))

    def outputs(self, facts: Facts) -> int | None:
        """Return None: logits are [n]."""
        return None

    def criterion(self, facts: Facts) -> Criterion:
        """Return the binary cross-entropy of logits; torch's own by default."""
        loss = custom_cross_entropy(self, facts)
        default = F.binary_cross_entropy_with_logits
        return check_shapes(partial(_two_class_loss, loss=loss) if loss else default)

    def decode(self, facts: Facts, logits: Tensor) -> dict[str, np.ndarray]:
        """Return `label` and the probability of each class, `p_<class>`."""
        positive = logits.double().sigmoid().numpy()
        return classes.class_columns(facts, np.stack([1 - positive, positive], axis=1))

    def logits(self, facts: Facts, columns: Mapping[str, np.ndarray]) -> Tensor:
        """Return the logits, float64 [n], that decode to these columns."""
        positive = classes.stack_probabilities(facts["classes"], columns)[:, 1]
        return positive.logit(eps=classes.MIN_PROB)

    def calibrate(self, facts: Facts, logits: Tensor, target: Tensor, coverage: float) -> Facts:
        """Return the `temperature`, and the `threshold` of probability, before it, for sets."""
        return classes.calibrate(_both_logits(logits), target.long(), coverage)

    def bounds(self, facts: Facts, calibration: Facts, logits: Tensor) -> dict[str, np.ndarray]:
        """Return the `set` of classes that can be true: "no | yes"."""
        return classes.bounds(facts, calibration, _both_logits(logits))

    def metric_inputs(self, facts: Facts, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and target as they are."""
        return logits, target

    def metrics(self, facts: Facts, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Compute accuracy at 0.5, auc (NaN if one class alone is present) and, unless it is the
        loss, log_loss.
        """
        return {
            "accuracy": accuracy(logits, target),
            "auc": auc(logits, target),
            **({"log_loss": log_loss(logits, target)} if custom_cross_entropy(self, facts) else {}),
        }


def _both_logits(logits: Tensor) -> Tensor:
    return torch.stack([torch.zeros_like(logits), logits], dim=1)


def _two_class_loss(logits: Tensor, target: Tensor, loss: Criterion) -> Tensor:
    log_probs = F.logsigmoid(torch.stack([-logits, logits], dim=1))
    return loss(log_probs, torch.stack([1 - target, target], dim=1))
