"""A multilayer perceptron over several columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from attrs import field, frozen
from attrs.validators import ge, lt, min_len
from torch import nn

from mip.branch import Facts, names, positive
from mip.branches.tabular import Columns, Embedding, Scale
from mip.table import Rows, Table
from mip.tree import Tree


@frozen
class Mlp:
    """Linear layers of the sizes `layers`, with ReLU between them, and batch norm before each
    ReLU if asked. What is behind the last is up to the fusion and the head.

    `numbers` are read as `continuous` reads them and `categories` as `categorical` does.

    >>> from mip.read import from_columns
    >>> kind = Mlp(["area"], ["zip"], layers=[10, 5])
    >>> facts = kind.adapt(from_columns({"area": ["70", "90"], "zip": ["1", "2"]}))
    >>> kind.module(facts)[1]
    Dense(
      (0): Linear(in_features=4, out_features=10, bias=True)
      (1): ReLU()
      (2): Linear(in_features=10, out_features=5, bias=True)
    )
    """

    numbers: tuple[str, ...] = field(default=(), converter=names)
    categories: tuple[str, ...] = field(default=(), converter=names)
    layers: tuple[int, ...] = field(default=(128, 128), converter=tuple, validator=min_len(1))
    batch_norm: bool = False
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
        dense = Dense((width, *self.layers), self.batch_norm, self.dropout)
        return nn.Sequential(features, dense)

    def unknown(self, facts: Facts, rows: Rows) -> Iterator[tuple[str, list[str]]]:
        """Give (column, words) for every column with words that training did not see."""
        return self.reads.unknown(facts, rows)

    def oddities(self, rows: Table) -> Iterator[tuple[int, str]]:
        """Give (place, text) for every number that counts as missing though it is there."""
        return self.reads.oddities(rows)


class Dense(nn.Sequential):
    """Linear layers: of sizes [7, 10, 5, 1] three, with two times ReLU between them.

    Takes float32 [n, first size]; gives float32 [n, last size].

    >>> [type(layer).__name__ for layer in Dense([7, 10, 5, 1])]
    ['Linear', 'ReLU', 'Linear', 'ReLU', 'Linear']
    """

    def __init__(
        self, sizes: Sequence[int], batch_norm: bool = False, dropout: float = 0.0
    ) -> None:
        *hidden, last = pairwise(sizes)
        layers: list[nn.Module] = []
        for size, out in hidden:
            layers += [nn.Linear(size, out), *([nn.BatchNorm1d(out)] if batch_norm else [])]
            layers += [nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
        super().__init__(*layers, nn.Linear(*last))
