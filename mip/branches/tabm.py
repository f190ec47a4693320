"""An ensemble of networks over several columns that costs little more than one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import torch
from attrs import field, frozen
from attrs.validators import ge, gt, le, lt
from torch import Tensor, nn

from mip.branches.protocol import layer_sizes_field
from mip.nn import member_layers, run_members


@frozen
class TabM:
    """An ensemble of `members` MLPs that share all weights except rank-1 adapters and biases
    (TabM, Gorishniy et al. 2024; BatchEnsemble, Wen et al. 2020).

    A branch returns the mean over its members of the last hidden layer. In the paper each member
    predicts and has its own loss; the `members` of a head do that.
    """

    kind = "tabm"
    layers: tuple[int, ...] = layer_sizes_field((128, 128), min_layers=1)
    members: int = field(default=32, validator=[gt(0), le(1024)])
    dropout: float = field(default=0.0, validator=[ge(0), lt(1)])

    def category_dim(self) -> None:
        """Accept embeddings of categories of any size."""

    def network(self, features: nn.Module, in_features: int, continuous: int) -> nn.Module:
        """Build a module to float32 [n, last of the layers]."""
        sizes = (in_features, *self.layers)
        return nn.Sequential(features, Ensemble(sizes, self.members, self.dropout))


class Ensemble(nn.Module):
    """Run all members at once and average their outputs: float32 [n, first size] to [n, last size].

    >>> Ensemble([7, 10, 5], members=4, dropout=0.0)(torch.zeros(2, 7)).shape
    torch.Size([2, 5])
    """

    def __init__(self, sizes: Sequence[int], members: int, dropout: float) -> None:
        super().__init__()
        self.layers = member_layers(sizes, members)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return run_members(self.layers, repeat(torch.relu), self.dropout, x).mean(dim=1)
