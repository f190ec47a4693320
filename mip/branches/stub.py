"""Stubs: a branch to try the wiring with before the real one is there."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import gt, le
from torch import Tensor, nn

from mip.branches.protocol import Facts
from mip.data import Rows, Table
from mip.rng import derive, uniform


@frozen
class Stub:
    """A vector of `out_features` random numbers, always the same for a row; reads no column.

    >>> from mip.data import from_columns
    >>> Stub(5).encode({}, from_columns({"x": [1, 2]})).shape
    torch.Size([2, 5])
    """

    kind = "stub"
    out_features: int = field(default=8, validator=[gt(0), le(65_536)])

    def adapt(self, rows: Rows) -> Facts:
        """Give nothing: a stub learns nothing."""
        return {}

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Give float32 [n, out_features], each from -1 to 1, drawn from the row's number."""
        return uniform(derive("stub"), rows.rows, self.out_features) * 2 - 1

    def module(self, facts: Facts) -> nn.Module:
        """Give float32 [n, out_features]: what it is given."""
        return nn.Identity()
