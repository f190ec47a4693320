"""Yes or no."""

from __future__ import annotations

import numpy as np
import torch
from attrs import field, frozen
from attrs.validators import min_len
from torch import Tensor, nn

from mip.branches.protocol import Facts, names
from mip.data import ANSWERS, BLANK, Rows, Table
from mip.errors import DataError, shown
from mip.nn import Fill


@frozen
class Boolean:
    """Yes or no, in any of the usual words: 1 and -1. A missing one is filled and flagged.

    >>> import pandas as pd; from mip.data import from_frame
    >>> rows = from_frame(pd.DataFrame({"garden": ["yes", "no", ""], "new": [True, False, True]}))
    >>> kind = Boolean(["garden", "new"]); facts = kind.adapt(rows)
    >>> facts
    {'missing': [1, 0]}
    >>> kind.encode(facts, rows).tolist()
    [[1.0, 1.0], [-1.0, -1.0], [nan, 1.0]]
    """

    kind = "boolean"
    columns: tuple[str, ...] = field(converter=names, validator=min_len(1))

    def adapt(self, rows: Rows) -> Facts:
        """Give the count of missing cells by column."""
        missing = np.zeros(len(self.columns), dtype=np.int64)
        for chunk in rows.chunks(self.columns):
            missing += np.isnan(self.encode({}, chunk).numpy()).sum(0)
        return {"missing": missing.tolist()}

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Give float32 [n, columns]: 1 for yes, -1 for no, NaN for a missing cell.

        Raises DataError for any other word.
        """
        values = [self._values(rows, column) for column in self.columns]
        return torch.from_numpy(np.stack(values, axis=1))

    def _values(self, rows: Table, column: str) -> np.ndarray:
        codes, known = rows.coded(column)
        words = [word.lower() for word in known]
        strange = [k for k, word in enumerate(words) if word not in ANSWERS and word not in BLANK]
        for place in np.flatnonzero(np.isin(codes, strange))[:1].tolist():
            where = rows.where(place, column)
            raise DataError(f"{where}: {shown(known[codes[place]])} is neither yes nor no")
        return np.array([*(ANSWERS.get(word, np.nan) for word in words), np.nan], "float32")[codes]

    def absent(self, inputs: Tensor) -> Tensor:
        """Say which rows have no answer: bool [n]."""
        return inputs.isnan().flatten(1).all(dim=1)

    def module(self, facts: Facts) -> nn.Module:
        """Give float32 [n, columns + those with missing cells]."""
        return Fill([count > 0 for count in facts["missing"]])
