"""A residual network over several columns."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import field, frozen
from attrs.validators import ge, gt, le, lt
from torch import Tensor, nn

from mip.branch import Facts, names
from mip.branches.tabular import Columns, Embedding, Scale
from mip.table import Rows, Table
from mip.tree import Tree


@frozen
class ResnetMlp:
    """A residual MLP (Gorishniy et al. 2021): a linear layer to `width`, `depth` residual blocks,
    batch norm and ReLU.

    `numbers` are read as `continuous` reads them and `categories` as `categorical` does.
    """

    numbers: tuple[str, ...] = field(default=(), converter=names)
    categories: tuple[str, ...] = field(default=(), converter=names)
    width: int = field(default=128, validator=[gt(0), le(65_536)])
    depth: int = field(default=2, validator=[gt(0), le(256)])
    dropout: float = field(default=0.0, validator=[ge(0), lt(1)])
    scale: Scale = "standard"
    embedding: Embedding = "none"
    unseen: float = 0.05

    def __attrs_post_init__(self) -> None:
        self.reads  # noqa: B018 - whose validators say what is wrong

    @property
    def reads(self) -> Columns:
        """The columns and how they are read."""
        return Columns(self.numbers, self.categories, self.scale, self.embedding, self.unseen)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all columns."""
        return self.reads.names

    def adapt(self, rows: Rows) -> Facts:
        """Give the facts of `continuous` as `numbers` and of `categorical` as `words`."""
        return self.reads.adapt(rows)

    def encode(self, facts: Facts, rows: Table) -> Tree:
        """Give numbers float32 [n, numbers], NaN for missing, and words int64 [n, categories]."""
        return self.reads.encode(facts, rows)

    def module(self, facts: Facts) -> nn.Module:
        """Give float32 [n, width]."""
        features, wide = self.reads.features(facts)
        blocks = [Residual(self.width, self.dropout) for _ in range(self.depth)]
        end = [nn.BatchNorm1d(self.width), nn.ReLU()]
        return nn.Sequential(features, nn.Linear(wide, self.width), *blocks, *end)

    def unknown(self, facts: Facts, rows: Rows) -> Iterator[tuple[str, list[str]]]:
        """Give (column, words) for every column with words that training did not see."""
        return self.reads.unknown(facts, rows)

    def oddities(self, rows: Table) -> Iterator[tuple[int, str]]:
        """Give (place, text) for every number that counts as missing though it is there."""
        return self.reads.oddities(rows)


class Residual(nn.Module):
    """A block x + f(x) of batch norm, linear, ReLU, dropout and linear: float32 [n, width].

    The inner layer is twice as wide.

    >>> import torch
    >>> Residual(8, 0.0)(torch.zeros(5, 8)).shape
    torch.Size([5, 8])
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        rest = [nn.Dropout(dropout)] if dropout else []
        first, last = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.inner = nn.Sequential(nn.BatchNorm1d(width), first, nn.ReLU(), *rest, last)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)
