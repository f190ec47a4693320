"""An ensemble of networks over several columns that costs little more than one."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen
from attrs.validators import ge, gt, le, lt
from torch import Tensor, nn

from mip.branches.protocol import widths
from mip.nn import adapted, together


@frozen
class TabM:
    """An ensemble of `members` MLPs that share their weights, but for rank-1 adapters and biases
    (TabM, Gorishniy et al. 2024; BatchEnsemble, Wen et al. 2020).

    As a branch it gives the mean over its members of the last hidden layer. The paper's members
    each predict, and are trained each by its own loss, as the `members` of a head are.
    """

    kind = "tabm"
    layers: tuple[int, ...] = widths((128, 128), least=1)
    members: int = field(default=32, validator=[gt(0), le(1024)])
    dropout: float = field(default=0.0, validator=[ge(0), lt(1)])

    def words(self) -> int | None:
        """Give None: words may have vectors of any width."""
        return None

    def network(self, features: nn.Module, width: int, numbers: int) -> nn.Module:
        """Give float32 [n, last of the layers]."""
        sizes = (width, *self.layers)
        return nn.Sequential(features, Ensemble(sizes, self.members, self.dropout))


class Ensemble(nn.Module):
    """Run all members at once and average them: float32 [n, first size] to [n, last size].

    >>> import torch
    >>> Ensemble([7, 10, 5], members=4, dropout=0.0)(torch.zeros(2, 7)).shape
    torch.Size([2, 5])
    """

    def __init__(self, sizes: Sequence[int], members: int, dropout: float) -> None:
        super().__init__()
        self.layers = adapted(sizes, members)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return together(self.layers, self.dropout, x).mean(dim=1)
