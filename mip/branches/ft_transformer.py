"""A transformer over columns."""

from __future__ import annotations

import torch
from attrs import field, frozen
from attrs.validators import ge, gt, le, lt
from torch import Tensor, nn

from mip.branches.fuse import FusionNet
from mip.nn import FillMissing, TokenTransformer, check_num_heads
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
    def _check_num_heads(self, _: object, num_heads: int) -> None:
        check_num_heads(num_heads, self.embedding_dim)

    def category_dim(self) -> int:
        """Return the size of a token, since the embedding of a category is one."""
        return self.embedding_dim

    def network(self, features: FusionNet, in_features: int, continuous: int) -> nn.Module:
        """Build a module to float32 [n, embedding_dim]."""
        branches = features.branch
        if continuous:
            fill = branches["numbers"]
            assert isinstance(fill, FillMissing)  # `Tabular` allows no embedding of numbers here
            branches["numbers"] = NumberTokens(fill, continuous, self.embedding_dim)
        tokens = TokenTransformer(self.embedding_dim, self.depth, self.num_heads, self.dropout)
        return nn.Sequential(Tokenizer(branches, self.embedding_dim), tokens)


class Tokenizer(nn.Module):
    """Make a token of each column: the inputs of `numbers` and `words` to [n, columns, size]."""

    def __init__(self, branches: nn.ModuleDict, size: int) -> None:
        super().__init__()
        self.branch, self.size = branches, size

    def forward(self, inputs: dict[str, Tree]) -> Tensor:
        vectors = [module(inputs[name]) for name, module in self.branch.items()]
        return torch.cat([each.unflatten(1, (-1, self.size)) for each in vectors], dim=1)


class NumberTokens(nn.Module):
    """Scale the vector of each column by its number: float32 [n, c] to float32 [n, c * size].

    A missing number is filled, and its flag adds another vector of the column.
    """

    def __init__(self, fill: FillMissing, columns: int, size: int) -> None:
        super().__init__()
        self.fill, self.columns, bound = fill, columns, size**-0.5
        lengths = (columns, columns, len(fill.value))
        drawn = [torch.empty(length, size).uniform_(-bound, bound) for length in lengths]
        self.weight, self.bias, self.missing = map(nn.Parameter, drawn)

    def forward(self, x: Tensor) -> Tensor:
        numbers, flags = self.fill(x).split([self.columns, len(self.fill.value)], dim=1)
        tokens = numbers.unsqueeze(-1) * self.weight + self.bias
        missing = flags.unsqueeze(-1) * self.missing
        return tokens.index_add(1, self.fill.index, missing).flatten(1)
