"""One number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor

from mip.branches import Facts, layer_sizes_field
from mip.fields import choice
from mip.heads.conformal import margin
from mip.heads.fields import (
    Missing,
    Scale,
    activation_field,
    batch_norm_field,
    dropout_field,
    members_field,
    missing_field,
    scale_field,
)
from mip.heads.losses import Criterion, check_shapes, log_cosh
from mip.heads.targets import number
from mip.metrics import mae, mape, median_ape, r2, rmse
from mip.nn import Activation, BatchNorm

Loss = Literal["mse", "mae", "huber", "log_cosh"]

LOSSES: Mapping[Loss, Callable[..., Tensor]] = {
    "mse": F.mse_loss,
    "mae": F.l1_loss,
    "huber": F.smooth_l1_loss,
    "log_cosh": log_cosh,
}


@frozen
class Regression:
    """One number. The target is standardized, after a logarithm for scale "log".

    >>> import pandas as pd; from mip.data import from_frame
    >>> rows = from_frame(pd.DataFrame({"price": [100.0, 10000.0]}))
    >>> head = Regression("price", scale="log"); facts = head.adapt(rows)
    >>> head.encode(facts, rows)
    tensor([-1.,  1.])
    >>> head.decode(facts, torch.tensor([-1.0, 0.0]))["value"].round(3).tolist()
    [100.0, 1000.0]
    """

    kind = "regression"
    column: str
    scale: Scale = scale_field()
    loss: Loss = choice("mse")
    layers: tuple[int, ...] = layer_sizes_field()
    activation: Activation = activation_field()
    batch_norm: BatchNorm = batch_norm_field()
    dropout: float = dropout_field()
    members: int = members_field()
    missing: Missing = missing_field()

    adapt = number.adapt
    known = number.known
    encode = number.encode

    def outputs(self, facts: Facts) -> int | None:
        """Return None: logits are [n]."""
        return None

    def criterion(self, facts: Facts) -> Criterion:
        """Return the mean squared, absolute, Huber or log-cosh error of scaled numbers."""
        return check_shapes(LOSSES[self.loss])

    def smooth_criterion(self, facts: Facts) -> Criterion:
        """Return the loss, or the mean squared error for the mean absolute one."""
        return check_shapes(LOSSES["mse" if self.loss == "mae" else self.loss])

    def decode(self, facts: Facts, logits: Tensor) -> dict[str, np.ndarray]:
        """Return the column `value`, float64 in the target's unit."""
        return {"value": number.unscale(facts, logits.double().numpy(), self.scale)}

    def logits(self, facts: Facts, columns: Mapping[str, np.ndarray]) -> Tensor:
        """Return the logits, float64 [n], that decode to these columns."""
        return torch.from_numpy(number.rescale(facts, columns["value"], self.scale))

    def calibrate(self, facts: Facts, logits: Tensor, target: Tensor, coverage: float) -> Facts:
        """Return the `margin` on the scale that is learned, the same for all rows."""
        return {"coverage": coverage, "margin": margin((target - logits).abs(), coverage)}

    def bounds(self, facts: Facts, calibration: Facts, logits: Tensor) -> dict[str, np.ndarray]:
        """Return `low` and `high`, float64 in the target's unit."""
        middle = logits.double().numpy()
        return number.interval(self, facts, middle, middle, calibration["margin"])

    def metric_inputs(self, facts: Facts, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return predictions and truth, float64 in the target's unit."""
        pred, truth = (self.decode(facts, scaled)["value"] for scaled in (logits, target))
        return torch.from_numpy(pred), torch.from_numpy(truth)

    def metrics(self, facts: Facts, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Compute mae and rmse in the target's unit, mape and median_ape as fractions, and r2."""
        pred, truth = self.metric_inputs(facts, logits, target)
        return {
            "mae": mae(pred, truth),
            "rmse": rmse(pred, truth),
            "mape": mape(pred, truth),
            "median_ape": median_ape(pred, truth),
            "r2": r2(pred, truth),
        }
