"""A transformer over several columns."""

from __future__ import annotations

from typing import Any

import torch
from attrs import field, frozen
from attrs.validators import ge, gt, le, lt
from torch import Tensor, nn

from mip.nn import Fill, Tokens, divides
from mip.tree import Tree


@frozen
class FtTransformer:
    """A feature tokenizer and a transformer (FT-Transformer, Gorishniy et al. 2021): each column
    becomes a token of `embedding_dim` numbers, followed by `depth` attention layers of `num_heads`
    heads.
    """

    kind = "ft_transformer"
    embedding_dim: int = field(default=64, validator=[gt(0), le(4096)])
    depth: int = field(default=2, validator=[gt(0), le(64)])
    num_heads: int = field(default=4, validator=[gt(0), le(1024)])
    dropout: float = field(default=0.0, validator=[ge(0), lt(1)])

    @num_heads.validator
    def _dividing(self, _: Any, heads: int) -> None:
        divides(heads, self.embedding_dim)

    def words(self) -> int | None:
        """Give the width of a token, which is a word's vector too."""
        return self.embedding_dim

    def network(self, features: nn.Module, width: int, numbers: int) -> nn.Module:
        """Give float32 [n, embedding_dim]."""
        branches: Any = features.branch
        if numbers:
            branches["numbers"] = Scaled(branches["numbers"], numbers, self.embedding_dim)
        tokens = Tokens(self.embedding_dim, self.depth, self.num_heads, self.dropout)
        return nn.Sequential(Tokenizer(branches, self.embedding_dim), tokens)


class Tokenizer(nn.Module):
    """Make a token of each column: the inputs of numbers and words to [n, columns, width]."""

    def __init__(self, branches: nn.ModuleDict, width: int) -> None:
        super().__init__()
        self.branch, self.width = branches, width

    def forward(self, inputs: Tree) -> Tensor:
        tokens = [module(inputs[name]) for name, module in self.branch.items()]
        return torch.cat([each.unflatten(1, (-1, self.width)) for each in tokens], dim=1)


class Scaled(nn.Module):
    """Scale a vector of each column by its number: float32 [n, c] to float32 [n, c * width].

    A missing number is filled; its flag adds a vector of its own.
    """

    def __init__(self, fill: Fill, columns: int, width: int) -> None:
        super().__init__()
        self.fill, self.columns, bound = fill, columns, width**-0.5
        sizes = (columns, columns, len(fill.value))
        drawn = [torch.empty(size, width).uniform_(-bound, bound) for size in sizes]
        self.weight, self.bias, self.missing = map(nn.Parameter, drawn)

    def forward(self, x: Tensor) -> Tensor:
        numbers, flags = self.fill(x).split([self.columns, len(self.fill.value)], dim=1)
        tokens = numbers.unsqueeze(-1) * self.weight + self.bias
        said = flags.unsqueeze(-1) * self.missing
        return tokens.index_add(1, self.fill.index, said).flatten(1)
