"""One of several classes."""

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
from mip.errors import DataError
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
from mip.heads.losses import Criterion, check_width, custom_cross_entropy
from mip.heads.targets import classes
from mip.metrics import accuracy, auc, log_loss, top_k_accuracy
from mip.nn import Activation, BatchNorm


@frozen
class Multiclass:
    """One of several classes.

    `class_weight`, `focal_gamma` and `label_smoothing` are those of `weighted_cross_entropy`.

    >>> from mip.data import from_columns
    >>> rows = from_columns({"style": ["loft", "flat", ""]})
    >>> head = Multiclass("style", label_smoothing=0.1); facts = head.adapt(rows)
    >>> head.encode(facts, rows).tolist()
    [1, 0, -1]
    >>> round(head.criterion(facts)(torch.tensor([[0.0, 9.0]]), torch.tensor([1])).item(), 3)
    0.45
    """

    kind = "multiclass"
    column: str
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
        """Find the classes, sorted, and their weights if asked for."""
        counts, kinds = classes.count_classes(rows, self.column)
        if len(counts) < 2:
            raise DataError(f"{rows.name}: column '{self.column}' has fewer than 2 classes")
        facts = classes.class_facts(sorted(counts), kinds)
        return {**facts, **classes.weight_facts(facts, counts, self.class_weight)}

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Return int64 [n]: the index of the class, -1 if missing."""
        return torch.from_numpy(classes.class_codes(rows, self.column, facts["classes"]))

    def outputs(self, facts: Facts) -> int:
        """Return the number of classes k: logits are [n, k]."""
        return len(facts["classes"])

    def criterion(self, facts: Facts) -> Criterion:
        """Return the cross-entropy of logits; torch's own by default."""
        loss = custom_cross_entropy(self, facts)
        width, default = len(facts["classes"]), F.cross_entropy
        return check_width(partial(_soft_target_loss, loss=loss) if loss else default, width)

    def decode(self, facts: Facts, logits: Tensor) -> dict[str, np.ndarray]:
        """Return `label` and the probability of each class, `p_<class>`."""
        return classes.class_columns(facts, logits.double().softmax(dim=1).numpy())

    def logits(self, facts: Facts, columns: Mapping[str, np.ndarray]) -> Tensor:
        """Return the logits, float64 [n, k], that decode to these columns."""
        probabilities = classes.stack_probabilities(facts["classes"], columns)
        return probabilities.clamp_min(classes.MIN_PROB).log()

    def calibrate(self, facts: Facts, logits: Tensor, target: Tensor, coverage: float) -> Facts:
        """Return the `temperature`, and the `threshold` of probability, before it, for sets."""
        return classes.calibrate(logits, target, coverage)

    def bounds(self, facts: Facts, calibration: Facts, logits: Tensor) -> dict[str, np.ndarray]:
        """Return the `set` of classes that can be true: "flat | loft"."""
        return classes.bounds(facts, calibration, logits)

    def metric_inputs(self, facts: Facts, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and target as they are."""
        return logits, target

    def metrics(self, facts: Facts, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Compute accuracy, top2 and top5 if there are more classes, auc (one class against the
        rest, averaged over the classes present; NaN if there is only one) and, unless it is the
        loss, log_loss.
        """
        tops = [k for k in (2, 5) if k < logits.shape[1]]
        return {
            "accuracy": accuracy(logits, target),
            **{f"top{k}": top_k_accuracy(logits, target, k) for k in tops},
            "auc": auc(logits, target),
            **({"log_loss": log_loss(logits, target)} if custom_cross_entropy(self, facts) else {}),
        }


def _soft_target_loss(logits: Tensor, target: Tensor, loss: Criterion) -> Tensor:
    soft = target if target.dim() == 2 else F.one_hot(target, logits.shape[1])
    return loss(logits.log_softmax(dim=1), soft.to(logits.dtype))
