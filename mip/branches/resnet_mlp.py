"""A residual network over columns."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import ge, gt, le, lt
from torch import Tensor, nn


@frozen
class ResnetMlp:
    """A residual MLP (Gorishniy et al. 2021): a linear layer to `hidden` features, `depth`
    residual blocks, batch norm and ReLU.
    """

    kind = "resnet_mlp"
    hidden: int = field(default=128, validator=[gt(0), le(65_536)])
    depth: int = field(default=2, validator=[gt(0), le(256)])
    dropout: float = field(default=0.0, validator=[ge(0), lt(1)])

    def category_dim(self) -> None:
        """Accept embeddings of categories of any size."""

    def network(self, features: nn.Module, in_features: int, continuous: int) -> nn.Module:
        """Build a module to float32 [n, hidden]."""
        blocks = [Residual(self.hidden, self.dropout) for _ in range(self.depth)]
        end = [nn.BatchNorm1d(self.hidden), nn.ReLU()]
        return nn.Sequential(features, nn.Linear(in_features, self.hidden), *blocks, *end)


class Residual(nn.Module):
    """A block x + f(x), where f is batch norm, linear, ReLU, dropout and linear: float32 [n, size].

    The inner layer has twice the size.

    >>> import torch
    >>> Residual(8, 0.0)(torch.zeros(5, 8)).shape
    torch.Size([5, 8])
    """

    def __init__(self, size: int, dropout: float) -> None:
        super().__init__()
        rest = [nn.Dropout(dropout)] if dropout else []
        first, last = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)
        self.inner = nn.Sequential(nn.BatchNorm1d(size), first, nn.ReLU(), *rest, last)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)
