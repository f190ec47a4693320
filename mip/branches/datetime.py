"""Moments in time: how late, and where in the day, the week and the year."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from attrs import field, frozen
from attrs.validators import min_len
from torch import Tensor, nn

from mip.branches.protocol import Facts, names
from mip.data import YEARS, Rows, Table, moments
from mip.nn import Fill

CYCLES = (1.0, 7.0, 365.2425)
"""The day, the week and the year, in days."""


EPOCH = 3.0
"""Days from a Monday at midnight to the first of January 1970."""


@frozen
class Datetime:
    """ISO dates and times: the trend, standardised, and sine and cosine of the time of day, the
    day of the week and the day of the year. A missing one is filled and flagged.

    Without a zone a time is UTC. What lies outside of the years 1678 to 2261, such as 9999-12-31
    for "no end", counts as missing.

    >>> import pandas as pd; from mip.data import from_frame
    >>> rows = from_frame(pd.DataFrame({"sold": ["2024-01-01", "2024-01-03 06:00", ""]}))
    >>> kind = Datetime(["sold"]); facts = kind.adapt(rows)
    >>> facts["mean"], facts["missing"]
    ([19724.125], [1])
    >>> kind.encode(facts, rows)[:, :3].round(decimals=3)
    tensor([[-1.,  0.,  1.],
            [ 1.,  1.,  0.],
            [nan, nan, nan]])
    """

    kind = "datetime"
    columns: tuple[str, ...] = field(converter=names, validator=min_len(1))

    def adapt(self, rows: Rows) -> Facts:
        """Give mean and standard deviation, in days since 1970, and the count of missing cells."""
        found = moments(self._days(chunk) for chunk in rows.chunks(self.columns))
        mean, std = found.mean.tolist(), found.std.tolist()
        return {"mean": mean, "std": std, "missing": found.missing.tolist()}

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Give float32 [n, columns * 7]; NaN where a cell is missing."""
        days = self._days(rows)
        trend = (days - np.array(facts["mean"])) / np.array(facts["std"])
        turns = [2 * np.pi * ((days + EPOCH) / cycle % 1) for cycle in CYCLES[:2]]
        turns += [2 * np.pi * (days / CYCLES[2] % 1)]
        waves = [wave(turn) for turn in turns for wave in (np.sin, np.cos)]
        parts = np.stack([trend, *waves], axis=2)
        return torch.from_numpy(parts.astype(np.float32)).flatten(1)

    def absent(self, inputs: Tensor) -> Tensor:
        """Say which rows have no date: bool [n]."""
        return inputs.isnan().flatten(1).all(dim=1)

    def module(self, facts: Facts) -> nn.Module:
        """Give float32 [n, columns * 7 + those with missing cells]."""
        # Of a date's numbers the first tells whether it is missing.
        return Fill([flag for count in facts["missing"] for flag in (count > 0, *[False] * 6)])

    def oddities(self, rows: Table) -> Iterator[tuple[int, str]]:
        """Give (place, text) for every date that counts as missing though it is there."""
        for column in self.columns:
            for place in rows.far(column).tolist():
                yield place, f"'{column}' outside of {YEARS[0]} to {YEARS[1]}, counts as missing"

    def _days(self, rows: Table) -> np.ndarray:
        return np.stack([rows.times(column) for column in self.columns], axis=1)
