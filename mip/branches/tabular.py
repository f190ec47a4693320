"""Columns of numbers and of words together, read by one network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol, get_args

import torch
from attrs import field, frozen
from attrs.validators import ge, in_, lt
from torch import Tensor, nn

from mip.branches.categorical import Categorical
from mip.branches.continuous import Continuous
from mip.branches.fuse import Fuse
from mip.branches.mlp import Mlp
from mip.branches.protocol import Branch, Facts, names
from mip.data import Rows, Table
from mip.tree import Tree

Scale = Literal["standard", "log", "quantile", "none"]


Embedding = Literal["none", "linear", "piecewise", "periodic"]


class Network(Protocol):
    """The verbs of a network over columns. Any frozen attrs class that has them is a kind."""

    kind: str

    def words(self) -> int | None:
        """Say how wide a word's vector must be; None for any width."""
        ...

    def network(self, features: nn.Module, width: int, numbers: int) -> nn.Module:
        """Build the module: encoded inputs to float32 [n, own width]. `features` gives them side by
        side, float32 [n, width]; so many of the columns are `numbers`.
        """
        ...


@frozen
class Tabular:
    """Numbers as `continuous` reads them and words as `categorical` does, either of them or both,
    and a `network` over all: `mlp`, `resnet_mlp`, `ft_transformer` or `tabm`.

    >>> from mip.data import from_columns
    >>> rows = from_columns({"area": ["70", "90", ""], "zip": ["1", "2", "1"]})
    >>> kind = Tabular(["area"], ["zip"]); facts = kind.adapt(rows)
    >>> facts["words"]
    {'words': [['1', '2']]}
    >>> {name: leaf.flatten().tolist() for name, leaf in kind.encode(facts, rows).items()}
    {'numbers': [-1.0, 1.0, nan], 'words': [1, 2, 1]}
    """

    kind = "tabular"
    continuous: tuple[str, ...] = field(default=(), converter=names)
    categorical: tuple[str, ...] = field(default=(), converter=names)
    network: Network = Mlp()
    scale: Scale = field(default="standard", validator=in_(get_args(Scale)))
    embedding: Embedding = field(default="none", validator=in_(get_args(Embedding)))
    unseen_rate: float = field(default=0.05, validator=[ge(0), lt(1)])

    def __attrs_post_init__(self) -> None:
        if not self.columns:
            raise ValueError("'continuous' or 'categorical' must name a column")
        if self.embedding != "none" and self.network.words() is not None:
            raise ValueError("'embedding' must be left out: the network makes its own")

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all columns, in the order in which they are read."""
        return self.continuous + self.categorical

    @property
    def reads(self) -> Fuse:
        """The kinds that read the columns, side by side."""
        kinds: dict[str, Branch] = {}
        if self.continuous:
            kinds["numbers"] = Continuous(self.continuous, self.scale, self.embedding)
        if self.categorical:
            width = self.network.words()
            kinds["words"] = Categorical(self.categorical, width, unseen_rate=self.unseen_rate)
        return Fuse(kinds)

    def adapt(self, rows: Rows) -> Facts:
        """Give the facts of `continuous` as `numbers` and of `categorical` as `words`."""
        return self.reads.adapt(rows)

    def encode(self, facts: Facts, rows: Table) -> Tree:
        """Give numbers float32 [n, numbers], NaN for missing, and words int64 [n, categories]."""
        return self.reads.encode(facts, rows)

    def absent(self, inputs: Tree) -> Tensor:
        """Say which rows have neither a number nor a word that training knows: bool [n]."""
        return self.reads.absent(inputs)

    def module(self, facts: Facts) -> nn.Module:
        """Give float32 [n, width of the network]."""
        features = self.reads.module(facts)
        with torch.no_grad():
            width = features.eval()(self._zeros()).shape[1]
        return self.network.network(features.train(), width, len(self.continuous))

    def _zeros(self) -> dict[str, Tensor]:
        words = torch.zeros(1, len(self.categorical), dtype=torch.int64)
        return {"numbers": torch.zeros(1, len(self.continuous)), "words": words}

    def unknown(self, facts: Facts, rows: Rows) -> Iterator[tuple[str, list[str]]]:
        """Give (column, words) for every column with words that training did not see."""
        words = self.reads.branch.get("words")
        if isinstance(words, Categorical):
            yield from words.unknown(facts["words"], rows)

    def oddities(self, rows: Table) -> Iterator[tuple[int, str]]:
        """Give (place, text) for every number that counts as missing though it is there."""
        numbers = self.reads.branch.get("numbers")
        if isinstance(numbers, Continuous):
            yield from numbers.oddities(rows)
