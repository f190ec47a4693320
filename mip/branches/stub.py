"""A placeholder branch, to test a model before the real branch exists."""

from __future__ import annotations

import torch
from attrs import field, frozen
from attrs.validators import gt, le
from torch import Tensor, nn

from mip.branches.protocol import Facts
from mip.data import Rows, Table
from mip.rng import derive, uniform


@frozen
class Stub:
    """A vector of `out_features` random numbers, always the same for a row. Reads no columns.

    >>> from mip.data import from_columns
    >>> Stub(5).encode({}, from_columns({"x": [1, 2]})).shape
    torch.Size([2, 5])
    """

    kind = "stub"
    out_features: int = field(default=8, validator=[gt(0), le(65_536)])

    def adapt(self, table: Rows) -> Facts:
        """Return no facts."""
        return {}

    def encode(self, facts: Facts, table: Table) -> Tensor:
        """Return float32 [n, out_features] from -1 to 1, drawn from the row's id."""
        return uniform(derive("stub"), torch.from_numpy(table.row_ids), self.out_features) * 2 - 1

    def blank(self, facts: Facts, n: int) -> Tensor:
        """Return zeros: float32 [n, out_features]."""
        return torch.zeros(n, self.out_features)

    def module(self, facts: Facts) -> nn.Module:
        """Pass the numbers on: float32 [n, out_features]."""
        return nn.Identity()
