"""Quantiles of one number: its middle, and how far from it the number may be."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from attrs import Attribute, field, frozen
from torch import Tensor

from mip.branches import Facts, layer_sizes_field
from mip.errors import FieldError
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
from mip.heads.losses import Criterion, check_width, pinball_loss
from mip.heads.targets import number
from mip.metrics import mae
from mip.nn import Activation, BatchNorm


@frozen
class Quantile:
    """Quantiles of one number, scaled as for `regression`, at increasing `quantiles` in (0, 1).

    >>> import pandas as pd; from mip.data import from_frame
    >>> rows = from_frame(pd.DataFrame({"price": [2.0, 4.0]}))
    >>> head = Quantile("price", quantiles=[0.1, 0.6]); facts = head.adapt(rows)
    >>> columns = head.decode(facts, torch.tensor([[1.0, 0.0]]))
    >>> {name: column.tolist() for name, column in columns.items()}
    {'q0.1': [3.0], 'q0.6': [4.0], 'value': [4.0]}
    """

    kind = "quantile"
    column: str
    quantiles: tuple[float, ...] = field(default=(0.1, 0.5, 0.9), converter=tuple)
    scale: Scale = scale_field()
    layers: tuple[int, ...] = layer_sizes_field()
    activation: Activation = activation_field()
    batch_norm: BatchNorm = batch_norm_field()
    dropout: float = dropout_field()
    members: int = members_field()
    missing: Missing = missing_field()

    @quantiles.validator
    def _check_increasing(self, _: Attribute, quantiles: tuple[float, ...]) -> None:
        pairs = zip((0.0, *quantiles), (*quantiles, 1.0), strict=True)
        if not quantiles or not all(low < high for low, high in pairs):
            raise FieldError("quantiles", f"must increase within (0, 1): {list(quantiles)}")

    adapt = number.adapt
    known = number.known
    encode = number.encode

    def outputs(self, facts: Facts) -> int:
        """Return the number of quantiles k: logits are [n, k]."""
        return len(self.quantiles)

    def criterion(self, facts: Facts) -> Criterion:
        """Return the pinball loss of scaled numbers, averaged over the quantiles."""
        loss = partial(pinball_loss, quantiles=self.quantiles)
        return check_width(loss, len(self.quantiles), soft=False)

    def smooth_criterion(self, facts: Facts) -> Criterion:
        """Return the pinball loss, rounded off within a tenth of a standard deviation."""
        loss = partial(pinball_loss, quantiles=self.quantiles, rounding=0.1)
        return check_width(loss, len(self.quantiles), soft=False)

    def decode(self, facts: Facts, logits: Tensor) -> dict[str, np.ndarray]:
        """Return `q<quantile>` for each quantile, float64 in the target's unit, and `value`, the
        one nearest to the median.

        Quantiles that cross are sorted, which on the whole takes them no further from the truth
        (Chernozhukov, Fernández-Val and Galichon 2010); a scale keeps their order.
        """
        values = self._sorted(facts, logits)
        middle = int(np.argmin(np.abs(np.array(self.quantiles) - 0.5)))
        columns = {f"q{q}": values[:, k] for k, q in enumerate(self.quantiles)}
        return {**columns, "value": values[:, middle]}

    def _sorted(self, facts: Facts, logits: Tensor) -> np.ndarray:
        return np.sort(number.unscale(facts, logits.double().numpy(), self.scale), axis=1)

    def logits(self, facts: Facts, columns: Mapping[str, np.ndarray]) -> Tensor:
        """Return the logits, float64 [n, k], that decode to these columns."""
        values = np.stack([columns[f"q{q}"] for q in self.quantiles], axis=1)
        return torch.from_numpy(number.rescale(facts, values, self.scale))

    def calibrate(self, facts: Facts, logits: Tensor, target: Tensor, coverage: float) -> Facts:
        """Return the `margin` by which the outer quantiles are moved, on the scale that is learned
        (Romano, Patterson and Candès 2019): the intervals of rows differ in length.
        """
        ranked = logits.sort(dim=1).values
        errors = torch.maximum(ranked[:, 0] - target, target - ranked[:, -1])
        return {"coverage": coverage, "margin": margin(errors, coverage)}

    def bounds(self, facts: Facts, calibration: Facts, logits: Tensor) -> dict[str, np.ndarray]:
        """Return `low` and `high`, float64 in the target's unit."""
        ranked = logits.double().sort(dim=1).values.numpy()
        return number.interval(self, facts, ranked[:, 0], ranked[:, -1], calibration["margin"])

    def metric_inputs(self, facts: Facts, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the `value` that is predicted and the truth, float64 in the target's unit."""
        truth = number.unscale(facts, target.double().numpy(), self.scale)
        return torch.from_numpy(self.decode(facts, logits)["value"]), torch.from_numpy(truth)

    def metrics(self, facts: Facts, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Compute pinball and the mae of `value` in the target's unit and, for two quantiles or
        more, coverage: the share of targets between the lowest and the highest.
        """
        values = torch.from_numpy(self._sorted(facts, logits))
        value, truth = self.metric_inputs(facts, logits, target)
        # Compared on the scale that is learned, where no rounding makes two numbers equal.
        ranked = logits.sort(dim=1).values
        inside = (ranked[:, 0] <= target) & (target <= ranked[:, -1])
        return {
            "pinball": float(pinball_loss(values, truth, self.quantiles)),
            **({"coverage": float(inside.double().mean())} if len(self.quantiles) > 1 else {}),
            "mae": mae(value, truth),
        }
