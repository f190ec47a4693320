"""A count: a whole number, 0 or more."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor

from mip.branches import Facts, layer_sizes_field
from mip.data import Rows, Table
from mip.errors import DataError
from mip.heads.fields import (
    Missing,
    activation_field,
    batch_norm_field,
    dropout_field,
    members_field,
    missing_field,
)
from mip.heads.losses import Criterion, check_shapes
from mip.heads.targets import number
from mip.metrics import mae, rmse
from mip.nn import Activation, BatchNorm


@frozen
class Count:
    """A count by Poisson regression with a logarithmic link (Nelder and Wedderburn 1972).

    Logits are logarithms of the rate over the training mean, so that a model starts near it.

    >>> import pandas as pd; from mip.data import from_frame
    >>> rows = from_frame(pd.DataFrame({"visits": [0, 3, 6]}))
    >>> head = Count("visits"); facts = head.adapt(rows)
    >>> head.encode(facts, rows).tolist()
    [0.0, 3.0, 6.0]
    >>> head.decode(facts, torch.tensor([0.0, -1.0]))["value"].round(3).tolist()
    [3.0, 1.104]
    """

    kind = "count"
    column: str
    layers: tuple[int, ...] = layer_sizes_field()
    activation: Activation = activation_field()
    batch_norm: BatchNorm = batch_norm_field()
    dropout: float = dropout_field()
    members: int = members_field()
    missing: Missing = missing_field()

    known = number.known

    def adapt(self, rows: Rows) -> Facts:
        """Compute the mean; 1 if all counts are 0, for which there is no logarithm."""
        total, n = 0.0, 0
        for chunk in rows.chunks([self.column]):
            counts = self._counts(chunk)
            total, n = total + float(np.nansum(counts)), n + int((counts >= 0).sum())
        if not n:
            raise DataError(f"{rows.name}: column '{self.column}' has no training target")
        return {"mean": total / n or 1.0}

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Return float32 [n], NaN if missing. Raises DataError for a cell that is not a count."""
        return torch.from_numpy(self._counts(rows).astype(np.float32))

    def _counts(self, rows: Table) -> np.ndarray:
        values = rows.numbers(self.column)
        for row in np.flatnonzero((values < 0) | (values % 1 > 0))[:1].tolist():
            where = rows.cell_name(row, self.column)
            raise DataError(f"{where}: {values[row]:g} is not a whole number, 0 or more")
        return values

    def outputs(self, facts: Facts) -> int | None:
        """Return None: logits are [n]."""
        return None

    def criterion(self, facts: Facts) -> Criterion:
        """Return the mean negative log-likelihood of Poisson, without the terms that are constant
        in the rate.
        """
        log_mean = math.log(facts["mean"])
        return check_shapes(lambda logits, target: F.poisson_nll_loss(logits + log_mean, target))

    def decode(self, facts: Facts, logits: Tensor) -> dict[str, np.ndarray]:
        """Return the column `value`, the rate: float64, in counts."""
        return {"value": self._log_rate(facts, logits).exp().numpy()}

    def _log_rate(self, facts: Facts, logits: Tensor) -> Tensor:
        return (logits.double() + math.log(facts["mean"])).clamp_max(number.MAX_LOG)

    def logits(self, facts: Facts, columns: Mapping[str, np.ndarray]) -> Tensor:
        """Return the logits, float64 [n], that decode to these columns."""
        # A rate too small for a float64 was decoded to 0, which has no logarithm.
        rate = np.maximum(columns["value"], np.finfo(float).tiny)
        return torch.from_numpy(np.log(rate) - math.log(facts["mean"]))

    def metric_inputs(self, facts: Facts, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return rates and counts, float64."""
        return self._log_rate(facts, logits).exp(), target.double()

    def metrics(self, facts: Facts, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Compute mae, rmse and poisson_deviance: per row, twice the log-likelihood lost against
        rates that equal the counts.
        """
        log_rate = self._log_rate(facts, logits)
        rate, truth = self.metric_inputs(facts, logits, target)
        lost = truth.xlogy(truth) - truth * log_rate + (rate - truth)
        return {
            "mae": mae(rate, truth),
            "rmse": rmse(rate, truth),
            "poisson_deviance": float(2 * lost.mean()),
        }
