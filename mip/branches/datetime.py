"""Dates and times: the trend, and the position in the day, the week and the year."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from attrs import field, frozen
from torch import Tensor, nn

from mip.branches.protocol import Facts, column_names
from mip.data import DATE_YEARS, Rows, Table, moments
from mip.fields import MinLength
from mip.nn import FillMissing

DAY, WEEK, YEAR = 1.0, 7.0, 365.2425
"""The cycles, in days."""


THURSDAY = 3.0
"""Days from a Monday at midnight to the first of January 1970."""


@frozen
class Datetime:
    """ISO dates and times: the trend, standardized, and sine and cosine of the time of day, the
    day of the week and the day of the year. Missing cells are filled and flagged.

    Times without a zone are UTC. Dates outside of the years 1678 to 2261, such as 9999-12-31 for
    "no end", count as missing.

    >>> import pandas as pd; from mip.data import from_frame
    >>> table = from_frame(pd.DataFrame({"sold": ["2024-01-01", "2024-01-03 06:00", ""]}))
    >>> branch = Datetime(["sold"]); facts = branch.adapt(table)
    >>> facts["mean"], facts["missing"]
    ([19724.125], [1])
    >>> branch.encode(facts, table)[:, :3].round(decimals=3)
    tensor([[-1.,  0.,  1.],
            [ 1.,  1.,  0.],
            [nan, nan, nan]])
    """

    kind = "datetime"
    columns: tuple[str, ...] = field(converter=column_names, validator=MinLength(1))

    def adapt(self, table: Rows) -> Facts:
        """Return mean and standard deviation, in days since 1970, and the number of missing cells
        of each column.
        """
        stats = moments(self._days(chunk) for chunk in table.chunks(self.columns))
        mean, std = stats.mean.tolist(), stats.scale.tolist()
        return {"mean": mean, "std": std, "missing": stats.missing.tolist()}

    def encode(self, facts: Facts, table: Table) -> Tensor:
        """Return float32 [n, columns * 7]; NaN if a cell is missing."""
        days = self._days(table)
        trend = (days - np.array(facts["mean"])) / np.array(facts["std"])
        cycles = ((days + THURSDAY) / DAY, (days + THURSDAY) / WEEK, days / YEAR)
        waves = [wave(2 * np.pi * (cycle % 1)) for cycle in cycles for wave in (np.sin, np.cos)]
        parts = np.stack([trend, *waves], axis=2)
        return torch.from_numpy(parts.astype(np.float32)).flatten(1)

    def absent(self, inputs: Tensor) -> Tensor:
        """Mark the rows without any date: bool [n]."""
        return inputs.isnan().flatten(1).all(dim=1)

    def module(self, facts: Facts) -> nn.Module:
        """Build a module to float32 [n, columns * 7 + those with missing cells]."""
        # The first of a date's numbers is enough to flag it as missing.
        return FillMissing(
            [flag for count in facts["missing"] for flag in (count > 0, *[False] * 6)]
        )

    def conversions(self, table: Table) -> Iterator[tuple[int, str]]:
        """Yield (row, text) for each cell with a date that counts as missing."""
        years = f"outside of {DATE_YEARS[0]} to {DATE_YEARS[1]}"
        for column in self.columns:
            for row in table.out_of_bounds_rows(column).tolist():
                yield row, f"'{column}' {years}, counts as missing"

    def _days(self, table: Table) -> np.ndarray:
        return np.stack([table.timestamps(column) for column in self.columns], axis=1)
