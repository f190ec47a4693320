"""Columns of numbers and of words together: what the networks for tables share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from attrs import field, frozen
from attrs.validators import ge, in_, lt
from torch import Tensor, nn

from mip.branch import Branch, Facts
from mip.branches.categorical import Categorical
from mip.branches.continuous import Continuous
from mip.branches.fuse import Fuse
from mip.table import Rows, Table
from mip.tree import Tree

Scale = Literal["standard", "log", "quantile", "none"]
Embedding = Literal["none", "linear", "piecewise", "periodic"]


@frozen
class Columns:
    """Numbers as `continuous` reads them and words as `categorical` does, either of them or both.

    >>> from mip.read import from_columns
    >>> rows = from_columns({"area": ["70", "90", ""], "zip": ["1", "2", "1"]})
    >>> kind = Columns(("area",), ("zip",)); facts = kind.adapt(rows)
    >>> facts["words"]
    {'words': [['1', '2']]}
    >>> {name: leaf.flatten().tolist() for name, leaf in kind.encode(facts, rows).items()}
    {'numbers': [-1.0, 1.0, nan], 'words': [1, 2, 1]}
    >>> kind.features(facts)[1]
    5
    """

    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    scale: Scale = field(default="standard", validator=in_(get_args(Scale)))
    embedding: Embedding = field(default="none", validator=in_(get_args(Embedding)))
    unseen: float = field(default=0.05, validator=[ge(0), lt(1)])
    width: int | None = None

    def __attrs_post_init__(self) -> None:
        if not self.names:
            raise ValueError("'numbers' or 'categories' must name a column")

    @property
    def names(self) -> tuple[str, ...]:
        """All columns, in the order in which they are read."""
        return self.numbers + self.categories

    @property
    def both(self) -> Fuse:
        """The kinds that read the columns, side by side."""
        kinds: dict[str, Branch] = {}
        if self.numbers:
            kinds["numbers"] = Continuous(self.numbers, self.scale, self.embedding)
        if self.categories:
            kinds["words"] = Categorical(self.categories, self.width, unseen=self.unseen)
        return Fuse(kinds)

    def adapt(self, rows: Rows) -> Facts:
        """Give the facts of `continuous` as `numbers` and of `categorical` as `words`."""
        return self.both.adapt(rows)

    def encode(self, facts: Facts, rows: Table) -> Tree:
        """Give numbers float32 [n, numbers], NaN for missing, and words int64 [n, categories]."""
        return self.both.encode(facts, rows)

    def features(self, facts: Facts) -> tuple[nn.Module, int]:
        """Build the module that gives both side by side, float32 [n, width], and say the width."""
        module = self.both.module(facts)
        with torch.no_grad():
            width = module.eval()(self._zeros()).shape[1]
        return module.train(), width

    def _zeros(self) -> dict[str, Tensor]:
        words = torch.zeros(1, len(self.categories), dtype=torch.int64)
        return {"numbers": torch.zeros(1, len(self.numbers)), "words": words}

    def unknown(self, facts: Facts, rows: Rows) -> Iterator[tuple[str, list[str]]]:
        """Give (column, words) for every column with words that training did not see."""
        words = self.both.branch.get("words")
        if isinstance(words, Categorical):
            yield from words.unknown(facts["words"], rows)

    def oddities(self, rows: Table) -> Iterator[tuple[int, str]]:
        """Give (place, text) for every number that counts as missing though it is there."""
        numbers = self.both.branch.get("numbers")
        if isinstance(numbers, Continuous):
            yield from numbers.oddities(rows)
