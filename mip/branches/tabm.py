"""An ensemble of networks over several columns that costs little more than one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from attrs import field, frozen
from attrs.validators import ge, gt, le, lt, min_len
from torch import Tensor, nn

from mip.branch import Facts, names, positive
from mip.branches.tabular import Columns, Embedding, Scale
from mip.table import Rows, Table
from mip.tree import Tree


@frozen
class TabM:
    """An ensemble of `members` MLPs that share their weights, but for rank-1 adapters and biases
    (TabM, Gorishniy et al. 2024; BatchEnsemble, Wen et al. 2020).

    As a branch it gives the mean over its members of the last hidden layer. The paper's members
    each predict, and are trained each by its own loss; here one head stands behind all of them.
    `numbers` are read as `continuous` reads them and `categories` as `categorical` does.
    """

    numbers: tuple[str, ...] = field(default=(), converter=names)
    categories: tuple[str, ...] = field(default=(), converter=names)
    layers: tuple[int, ...] = field(default=(128, 128), converter=tuple, validator=min_len(1))
    members: int = field(default=32, validator=[gt(0), le(1024)])
    dropout: float = field(default=0.0, validator=[ge(0), lt(1)])
    scale: Scale = "standard"
    embedding: Embedding = "none"
    unseen: float = 0.05

    @layers.validator
    def _positive(self, _: Any, widths: tuple[int, ...]) -> None:
        positive(widths)

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
        """Give float32 [n, last of the layers]."""
        features, width = self.reads.features(facts)
        sizes = (width, *self.layers)
        return nn.Sequential(features, Ensemble(sizes, self.members, self.dropout))

    def unknown(self, facts: Facts, rows: Rows) -> Iterator[tuple[str, list[str]]]:
        """Give (column, words) for every column with words that training did not see."""
        return self.reads.unknown(facts, rows)

    def oddities(self, rows: Table) -> Iterator[tuple[int, str]]:
        """Give (place, text) for every number that counts as missing though it is there."""
        return self.reads.oddities(rows)


class Ensemble(nn.Module):
    """Run all members at once and average them: float32 [n, first size] to [n, last size].

    >>> Ensemble([7, 10, 5], members=4, dropout=0.0)(torch.zeros(2, 7)).shape
    torch.Size([2, 5])
    """

    def __init__(self, sizes: Sequence[int], members: int, dropout: float) -> None:
        super().__init__()
        layers = [Adapted(*pair, members) for pair in pairwise(sizes)]
        # Random signs show each member another view of the input; all else begins alike.
        nn.init.trunc_normal_(layers[0].before).data.sign_()
        self.layers = nn.ModuleList(layers)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(1)
        for layer in self.layers:
            x = self.dropout(layer(x).relu())
        return x.mean(dim=1)


class Adapted(nn.Module):
    """A linear layer shared by members, each scaling what goes in and what comes out.

    Takes float32 [n, members or 1, size]; gives float32 [n, members, out].
    """

    def __init__(self, size: int, out: int, members: int) -> None:
        super().__init__()
        self.shared = nn.Linear(size, out, bias=False)
        self.before = nn.Parameter(torch.ones(members, size))
        self.after = nn.Parameter(torch.ones(members, out))
        bound = size**-0.5
        self.bias = nn.Parameter(torch.empty(out).uniform_(-bound, bound).repeat(members, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.shared(x * self.before) * self.after + self.bias
