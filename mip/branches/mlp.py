"""A multilayer perceptron over several columns."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import ge, lt
from torch import nn

from mip.branch import widths
from mip.layers import Dense


@frozen
class Mlp:
    """Linear layers of the sizes `layers`, with ReLU between them, and batch norm before each
    ReLU if asked. What is behind the last is up to the fusion and the head.

    >>> Mlp([10, 5]).network(nn.Identity(), width=4, numbers=4)[1]
    Dense(
      (0): Linear(in_features=4, out_features=10, bias=True)
      (1): ReLU()
      (2): Linear(in_features=10, out_features=5, bias=True)
    )
    """

    layers: tuple[int, ...] = widths((128, 128), least=1)
    batch_norm: bool = False
    dropout: float = field(default=0.0, validator=[ge(0), lt(1)])

    def words(self) -> int | None:
        """Give None: words may have vectors of any width."""
        return None

    def network(self, features: nn.Module, width: int, numbers: int) -> nn.Module:
        """Give float32 [n, last of the layers]."""
        dense = Dense((width, *self.layers), self.batch_norm, self.dropout)
        return nn.Sequential(features, dense)
