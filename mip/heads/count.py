"""How many: a whole number, 0 or more."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor

from mip.branches import Facts, widths
from mip.data import Rows, Table
from mip.errors import DataError
from mip.heads.protocol import Criterion, checked, dropout_field, members_field, missing_field
from mip.heads.scale import LARGEST, average, root_mean_square


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
    layers: tuple[int, ...] = widths()
    dropout: float = dropout_field()
    members: int = members_field()
    missing: Literal["drop", "error"] = missing_field()

    def adapt(self, rows: Rows) -> Facts:
        """Give the mean, 1 where every count is 0: it has a logarithm."""
        total, known = 0.0, 0
        for chunk in rows.chunks([self.column]):
            counts = self._counts(chunk)
            total, known = total + float(np.nansum(counts)), known + int((counts >= 0).sum())
        if not known:
            raise DataError(f"{rows.name}: column '{self.column}' has no training target")
        return {"mean": total / known or 1.0}

    def _counts(self, rows: Table) -> np.ndarray:
        values = rows.numbers(self.column)
        for place in np.flatnonzero((values < 0) | (values % 1 > 0))[:1].tolist():
            where = rows.where(place, self.column)
            raise DataError(f"{where}: {values[place]:g} is not a whole number, 0 or more")
        return values

    def known(self, rows: Table) -> np.ndarray:
        """Say which rows have a number: bool [n]."""
        return ~np.isnan(rows.numbers(self.column))

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Give float32 [n], NaN for none. Raises DataError for what is not a count."""
        return torch.from_numpy(self._counts(rows).astype(np.float32))

    def outputs(self, facts: Facts) -> int | None:
        """Give None: logits are [n]."""
        return None

    def criterion(self, facts: Facts) -> Criterion:
        """Give the mean negative log-likelihood of Poisson, less what the rate cannot change."""
        start = math.log(facts["mean"])
        return checked(lambda logits, target: F.poisson_nll_loss(logits + start, target))

    def decode(self, facts: Facts, logits: Tensor) -> dict[str, np.ndarray]:
        """Give the column `value`, the rate: float64, in counts."""
        return {"value": self._log_rate(facts, logits).exp().numpy()}

    def _log_rate(self, facts: Facts, logits: Tensor) -> Tensor:
        return (logits.double() + math.log(facts["mean"])).clamp_max(LARGEST)

    def logits(self, facts: Facts, columns: Mapping[str, np.ndarray]) -> Tensor:
        """Give the logits, float64 [n], that decode to these columns."""
        # A rate too small for a float64 has been decoded to 0, which has no logarithm.
        rate = np.maximum(columns["value"], np.finfo(float).tiny)
        return torch.from_numpy(np.log(rate) - math.log(facts["mean"]))

    def metrics(self, facts: Facts, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Give mae, rmse, and poisson_deviance (twice the log-likelihood lost against rates that
        are the counts themselves, a row).
        """
        log_rate, truth = self._log_rate(facts, logits), target.double()
        error = log_rate.exp() - truth
        lost = truth.xlogy(truth) - truth * log_rate + error
        return {
            "mae": average(error.abs()),
            "rmse": root_mean_square(error),
            "poisson_deviance": float(2 * lost.mean()),
        }
