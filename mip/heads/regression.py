"""One number."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from attrs import field, frozen
from attrs.validators import in_
from torch import Tensor

from mip.branch import Facts
from mip.errors import DataError
from mip.head import Criterion, checked, dropout_field, layers_field, missing_field
from mip.statistics import moments
from mip.table import Rows, Table

LOSSES = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.smooth_l1_loss}


@frozen
class Regression:
    """One number. The target is standardised, after a logarithm for scale "log".

    >>> import pandas as pd; from mip.table import from_frame
    >>> rows = from_frame(pd.DataFrame({"price": [100.0, 10000.0]}))
    >>> head = Regression("price", scale="log"); facts = head.adapt(rows)
    >>> head.encode(facts, rows)
    tensor([-1.,  1.])
    >>> head.decode(facts, torch.tensor([-1.0, 0.0]))["value"].round(3).tolist()
    [100.0, 1000.0]
    """

    column: str
    scale: Literal["standard", "log", "none"] = field(
        default="standard", validator=in_(("standard", "log", "none"))
    )
    loss: Literal["mse", "mae", "huber"] = field(default="mse", validator=in_(tuple(LOSSES)))
    layers: tuple[int, ...] = layers_field()
    dropout: float = dropout_field()
    missing: Literal["drop", "error"] = missing_field()

    def adapt(self, rows: Rows) -> Facts:
        """Give mean and standard deviation of the scaled target."""
        if self.scale == "none":
            return {"mean": 0.0, "std": 1.0}
        chunks = rows.chunks([self.column])
        found = moments(self._scaled(chunk)[:, None] for chunk in chunks)
        if not found.known[0]:
            raise DataError(f"{rows.name}: column '{self.column}' has no training target")
        return {"mean": found.mean.item(), "std": found.std.item()}

    def _scaled(self, rows: Table) -> np.ndarray:
        values = rows.numbers(self.column)
        if self.scale != "log":
            return values
        for place in np.flatnonzero(values <= 0)[:1]:
            where = rows.where(int(place), self.column)
            raise DataError(f"{where}: {values[place]:g} has no logarithm (scale = 'log')")
        return np.log(values)

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Give float32 [n]."""
        scaled = (self._scaled(rows) - facts["mean"]) / facts["std"]
        return torch.from_numpy(scaled.astype(np.float32))

    def outputs(self, facts: Facts) -> int | None:
        """Give None: logits are [n]."""
        return None

    def criterion(self, facts: Facts) -> Criterion:
        """Give the mean squared, absolute or smooth absolute error on the target's scale."""
        return checked(LOSSES[self.loss])

    def decode(self, facts: Facts, logits: Tensor) -> dict[str, np.ndarray]:
        """Give the column `value`, float64 in the target's own unit."""
        values = logits.double().numpy() * facts["std"] + facts["mean"]
        return {"value": np.exp(values) if self.scale == "log" else values}

    def metrics(self, facts: Facts, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Give mae and rmse in the target's unit, mape and median_ape as fractions, and r2."""
        import torchmetrics.functional as tm

        guess, truth = (torch.from_numpy(self.decode(facts, x)["value"]) for x in (logits, target))
        scores = {
            "mae": tm.mean_absolute_error(guess, truth),
            "rmse": tm.mean_squared_error(guess, truth, squared=False),
            "mape": tm.mean_absolute_percentage_error(guess, truth),
            "median_ape": ((guess - truth).abs() / truth.abs().clamp_min(1.17e-06)).median(),
            "r2": tm.r2_score(guess, truth) if len(truth) > 1 else torch.tensor(float("nan")),
        }
        return {name: float(score) for name, score in scores.items()}
