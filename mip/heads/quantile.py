"""Quantiles of one number: how far it may lie from its middle."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from attrs import field, frozen
from torch import Tensor

from mip.branches import Facts, widths
from mip.data import Rows, Table
from mip.heads.protocol import Criterion, dropout_field, members_field, missing_field, wide
from mip.heads.scale import Scale, average, learn, rescaled, scale_field, scaled, unscaled


def pinball(guess: Tensor, target: Tensor, levels: tuple[float, ...]) -> Tensor:
    """Give the mean pinball loss (Koenker and Bassett 1978) of quantiles [n, levels] against a
    target [n]: an error costs the level where the target lies above, 1 less the level below.

    >>> pinball(torch.tensor([[0.0, 3.0]]), torch.tensor([2.0]), (0.5, 0.9)).item()
    0.550000011920929
    """
    error = target[:, None] - guess
    at = error.new_tensor(levels)
    return torch.maximum(at * error, (at - 1) * error).mean()


@frozen
class Quantile:
    """Quantiles of one number, scaled as for `regression`, at sorted `quantiles` in (0, 1).

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
    layers: tuple[int, ...] = widths()
    dropout: float = dropout_field()
    members: int = members_field()
    missing: Literal["drop", "error"] = missing_field()

    @quantiles.validator
    def _rising(self, _: Any, levels: tuple[float, ...]) -> None:
        ends = zip((0.0, *levels), (*levels, 1.0), strict=True)
        if not levels or not all(below < above for below, above in ends):
            raise ValueError(f"'quantiles' must increase within (0, 1): {list(levels)}")

    def adapt(self, rows: Rows) -> Facts:
        """Give mean and standard deviation of the scaled target."""
        return learn(rows, self.column, self.scale)

    def known(self, rows: Table) -> np.ndarray:
        """Say which rows have a number: bool [n]."""
        return ~np.isnan(rows.numbers(self.column))

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Give float32 [n], NaN for none."""
        return scaled(facts, rows, self.column, self.scale)

    def outputs(self, facts: Facts) -> int | None:
        """Give the number of levels: logits are [n, levels]."""
        return len(self.quantiles)

    def criterion(self, facts: Facts) -> Criterion:
        """Give the pinball loss on the target's scale, averaged over the levels."""
        return wide(partial(pinball, levels=self.quantiles), len(self.quantiles), soft=False)

    def decode(self, facts: Facts, logits: Tensor) -> dict[str, np.ndarray]:
        """Give `q<level>` for every level, float64 in the target's unit, and `value`, that of
        the level nearest to one half.

        Quantiles that cross are sorted, which as a whole brings them no further from the truth
        (Chernozhukov, Fernández-Val and Galichon 2010); a scale keeps their order.
        """
        found = self._quantiles(facts, logits)
        middle = int(np.argmin(np.abs(np.array(self.quantiles) - 0.5)))
        named = {f"q{level}": found[:, k] for k, level in enumerate(self.quantiles)}
        return {**named, "value": found[:, middle]}

    def _quantiles(self, facts: Facts, logits: Tensor) -> np.ndarray:
        return np.sort(unscaled(facts, logits.double().numpy(), self.scale), axis=1)

    def logits(self, facts: Facts, columns: Mapping[str, np.ndarray]) -> Tensor:
        """Give the logits, float64 [n, levels], that decode to these columns."""
        found = np.stack([columns[f"q{level}"] for level in self.quantiles], axis=1)
        return torch.from_numpy(rescaled(facts, found, self.scale))

    def metrics(self, facts: Facts, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Give pinball and the mae of `value` in the target's unit and, of two levels or more,
        coverage: the share of targets from the lowest quantile to the highest.
        """
        found, ranked = self._quantiles(facts, logits), logits.sort(dim=1).values
        truth = unscaled(facts, target.double().numpy(), self.scale)
        # On the scale that is learned, where no rounding makes two numbers equal.
        inside = (ranked[:, 0] <= target) & (target <= ranked[:, -1])
        cost = pinball(torch.from_numpy(found), torch.from_numpy(truth), self.quantiles)
        error = np.abs(self.decode(facts, logits)["value"] - truth)
        return {
            "pinball": float(cost),
            **({"coverage": float(inside.double().mean())} if len(self.quantiles) > 1 else {}),
            "mae": average(torch.from_numpy(error)),
        }
