"""Continuous and categorical columns read by one network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, Protocol

import torch
from attrs import field, frozen
from attrs.validators import ge, lt
from torch import Tensor, nn

from mip.branches.categorical import Categorical
from mip.branches.continuous import Continuous
from mip.branches.fuse import Fuse, FusionNet
from mip.branches.mlp import Mlp
from mip.branches.protocol import Branch, Facts, column_names
from mip.data import Rows, Table
from mip.errors import FieldError
from mip.fields import choice
from mip.tree import Tree

Scale = Literal["standard", "log", "quantile", "none"]


Embedding = Literal["none", "linear", "piecewise", "periodic"]


class TabularNetwork(Protocol):
    """The verbs of a network over columns. Any frozen attrs class that has them is a kind."""

    kind: str

    def category_dim(self) -> int | None:
        """Return how many numbers the embedding of a category must have; None for any."""
        ...

    def network(self, features: FusionNet, in_features: int, continuous: int) -> nn.Module:
        """Build the module: encoded inputs to float32 [n, out_features]. `features` computes the
        vectors of all columns side by side, float32 [n, in_features], for so many `continuous`
        columns and the categorical ones.
        """
        ...


@frozen
class Tabular:
    """Columns read as the kinds `continuous` and `categorical` read them, and a `network` over all:
    `mlp`, `resnet_mlp`, `ft_transformer` or `tabm`.

    >>> from mip.data import from_columns
    >>> table = from_columns({"area": ["70", "90", ""], "zip": ["1", "2", "1"]})
    >>> branch = Tabular(["area"], ["zip"]); facts = branch.adapt(table)
    >>> facts["words"]
    {'words': [['1', '2']]}
    >>> {name: leaf.flatten().tolist() for name, leaf in branch.encode(facts, table).items()}
    {'numbers': [-1.0, 1.0, nan], 'words': [1, 2, 1]}
    """

    kind = "tabular"
    continuous: tuple[str, ...] = field(default=(), converter=column_names)
    categorical: tuple[str, ...] = field(default=(), converter=column_names)
    network: TabularNetwork = Mlp()
    scale: Scale = choice("standard")
    embedding: Embedding = choice("none")
    unseen_rate: float = field(default=0.05, validator=[ge(0), lt(1)])

    def __attrs_post_init__(self) -> None:
        if not self.columns:
            raise FieldError("continuous", "or 'categorical' must name a column")
        if self.embedding != "none" and self.network.category_dim() is not None:
            raise FieldError("embedding", "must be left out: the network makes its own")

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all columns, in the order in which they are read."""
        return self.continuous + self.categorical

    @property
    def _continuous(self) -> Continuous:
        return Continuous(self.continuous, self.scale, self.embedding)

    @property
    def _categorical(self) -> Categorical:
        dim = self.network.category_dim()
        return Categorical(self.categorical, dim, unseen_rate=self.unseen_rate)

    @property
    def _columns(self) -> Fuse:
        # These names are part of the names of facts, inputs and parameters in files.
        branches: dict[str, Branch] = {}
        if self.continuous:
            branches["numbers"] = self._continuous
        if self.categorical:
            branches["words"] = self._categorical
        return Fuse(branches)

    def adapt(self, table: Rows) -> Facts:
        """Return the facts of `continuous` as `numbers` and of `categorical` as `words`."""
        return self._columns.adapt(table)

    def encode(self, facts: Facts, table: Table) -> dict[str, Tree]:
        """Return `numbers` float32 [n, continuous], NaN if missing, and `words` int64
        [n, categorical].
        """
        return self._columns.encode(facts, table)

    def absent(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Mark the rows with neither a number nor a category seen in training: bool [n]."""
        return self._columns.absent(inputs)

    def module(self, facts: Facts) -> nn.Module:
        """Build a module to float32 [n, output of the network]."""
        features, numbers = self._columns.module(facts), len(self.continuous)
        words = torch.zeros(1, len(self.categorical), dtype=torch.int64)
        with torch.no_grad():
            vectors = features.eval()({"numbers": torch.zeros(1, numbers), "words": words})
        return self.network.network(features.train(), vectors.shape[1], numbers)

    def unseen(self, facts: Facts, table: Rows) -> Iterator[tuple[str, list[str]]]:
        """Yield (column, categories) for each column with categories not seen in training."""
        if self.categorical:
            yield from self._categorical.unseen(facts["words"], table)

    def conversions(self, table: Table) -> Iterator[tuple[int, str]]:
        """Yield (row, text) for each cell with a number that counts as missing."""
        if self.continuous:
            yield from self._continuous.conversions(table)
