"""Numbers: standardised, or spread by a logarithm or by rank."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from attrs import field, frozen
from attrs.validators import in_, min_len
from torch import Tensor, nn

from mip.branch import Facts, names
from mip.layers import Fill
from mip.statistics import moments, normal, quantiles
from mip.table import Rows, Table


@frozen
class Continuous:
    """Numbers, a missing cell filled and flagged: standardised (after a signed logarithm for
    "log"), or for "quantile" spread like a normal distribution by their rank among the training
    rows.

    >>> import pandas as pd; from mip.table import from_frame
    >>> rows = from_frame(pd.DataFrame({"area": ["70", "90", ""]}))
    >>> kind = Continuous(["area"]); facts = kind.adapt(rows)
    >>> facts
    {'mean': [80.0], 'std': [10.0], 'missing': [1]}
    >>> kind.encode(facts, rows).flatten().tolist()
    [-1.0, 1.0, nan]
    """

    columns: tuple[str, ...] = field(converter=names, validator=min_len(1))
    scale: Literal["standard", "log", "quantile", "none"] = field(
        default="standard", validator=in_(("standard", "log", "quantile", "none"))
    )

    def adapt(self, rows: Rows) -> Facts:
        """Give mean, standard deviation (population) and count of missing cells by column; for
        "quantile" up to 257 quantiles of each, of a sample of 100,000 rows where there are more.
        """
        if self.scale == "quantile":
            marks, missing = quantiles(rows, self.columns)
            return {"quantiles": marks, "missing": missing}
        found = moments(self._numbers(chunk) for chunk in rows.chunks(self.columns))
        facts = {"missing": found.missing.tolist()}
        if self.scale == "none":
            return facts
        return {"mean": found.mean.tolist(), "std": found.std.tolist(), **facts}

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Give float32 [n, columns]; NaN where a cell is missing, infinite or past float32."""
        scaled = self._scaled(facts, self._numbers(rows))
        limit = np.finfo(np.float32).max
        return torch.from_numpy(np.where(np.abs(scaled) <= limit, scaled, np.nan).astype("float32"))

    def module(self, facts: Facts) -> nn.Module:
        """Give float32 [n, columns + those with missing cells]."""
        return Fill([count > 0 for count in facts["missing"]])

    def oddities(self, rows: Table) -> Iterator[tuple[int, str]]:
        """Give (place, text) for every number that counts as missing though it is there."""
        for column in self.columns:
            for place in rows.beyond(column).tolist():
                yield place, f"'{column}' infinite or past float32, counts as missing"

    def _numbers(self, rows: Table) -> np.ndarray:
        values = np.stack([rows.numbers(column) for column in self.columns], axis=1)
        return np.sign(values) * np.log1p(np.abs(values)) if self.scale == "log" else values

    def _scaled(self, facts: Facts, values: np.ndarray) -> np.ndarray:
        if self.scale == "none":
            return values
        if self.scale == "quantile":
            pairs = zip(values.T, facts["quantiles"], strict=True)
            return np.stack([normal(column, marks) for column, marks in pairs], axis=1)
        return (values - np.array(facts["mean"])) / np.array(facts["std"])
