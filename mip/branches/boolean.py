"""Yes or no."""

from __future__ import annotations

import numpy as np
import torch
from attrs import field, frozen
from torch import Tensor, nn

from mip.branches.protocol import Facts, column_names
from mip.data import BLANKS, BOOLEAN_WORDS, Rows, Table
from mip.errors import DataError, quote
from mip.fields import MinLength
from mip.nn import FillMissing


@frozen
class Boolean:
    """Yes or no, in any of the usual words, as 1 and -1. Missing cells are filled and flagged.

    >>> import pandas as pd; from mip.data import from_frame
    >>> table = from_frame(pd.DataFrame({"garden": ["yes", "no", ""], "new": [True, False, True]}))
    >>> branch = Boolean(["garden", "new"]); facts = branch.adapt(table)
    >>> facts
    {'missing': [1, 0]}
    >>> branch.encode(facts, table).tolist()
    [[1.0, 1.0], [-1.0, -1.0], [nan, 1.0]]
    """

    kind = "boolean"
    columns: tuple[str, ...] = field(converter=column_names, validator=MinLength(1))

    def adapt(self, table: Rows) -> Facts:
        """Return the number of missing cells of each column."""
        missing = np.zeros(len(self.columns), dtype=np.int64)
        for chunk in table.chunks(self.columns):
            missing += np.isnan(self.encode({}, chunk).numpy()).sum(0)
        return {"missing": missing.tolist()}

    def encode(self, facts: Facts, table: Table) -> Tensor:
        """Return float32 [n, columns]: 1 for yes, -1 for no, NaN for a missing cell.

        Raises DataError for any other word.
        """
        values = [self._values(table, column) for column in self.columns]
        return torch.from_numpy(np.stack(values, axis=1))

    def _values(self, table: Table, column: str) -> np.ndarray:
        codes, cells = table.factorize(column)
        words = [cell.lower() for cell in cells]
        known = BOOLEAN_WORDS.keys() | BLANKS
        neither = [k for k, word in enumerate(words) if word not in known]
        for row in np.flatnonzero(np.isin(codes, neither))[:1].tolist():
            where = table.cell_name(row, column)
            raise DataError(f"{where}: {quote(cells[codes[row]])} is neither yes nor no")
        values = [*(BOOLEAN_WORDS.get(word, np.nan) for word in words), np.nan]
        return np.array(values, "float32")[codes]

    def absent(self, inputs: Tensor) -> Tensor:
        """Mark the rows without any answer: bool [n]."""
        return inputs.isnan().flatten(1).all(dim=1)

    def module(self, facts: Facts) -> nn.Module:
        """Build a module to float32 [n, columns + those with missing cells]."""
        return FillMissing([count > 0 for count in facts["missing"]])
