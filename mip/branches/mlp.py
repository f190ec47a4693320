"""A multilayer perceptron over several columns."""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen
from attrs.validators import ge, in_, lt
from torch import nn

from mip.branches.protocol import widths
from mip.nn import ACTIVATIONS, BATCH_NORM, Dense


@frozen
class Mlp:
    """Linear layers of the sizes `layers`, with an `activation` between them ("relu", "gelu",
    "silu", "tanh" or "sigmoid"), and a batch norm "before" or "after" each if asked (Ioffe and
    Szegedy 2015). What is behind the last is up to the fusion and the head.

    >>> Mlp([10, 5]).network(nn.Identity(), width=4, numbers=4)[1]
    Dense(
      (0): Linear(in_features=4, out_features=10, bias=True)
      (1): ReLU()
      (2): Linear(in_features=10, out_features=5, bias=True)
    )
    """

    kind = "mlp"
    layers: tuple[int, ...] = widths((128, 128), least=1)
    activation: Literal["relu", "gelu", "silu", "tanh", "sigmoid"] = field(
        default="relu", validator=in_(tuple(ACTIVATIONS))
    )
    batch_norm: Literal["none", "before", "after"] = field(
        default="none", validator=in_(BATCH_NORM)
    )
    dropout: float = field(default=0.0, validator=[ge(0), lt(1)])

    def words(self) -> int | None:
        """Give None: words may have vectors of any width."""
        return None

    def network(self, features: nn.Module, width: int, numbers: int) -> nn.Module:
        """Give float32 [n, last of the layers]."""
        dense = Dense((width, *self.layers), self.activation, self.batch_norm, self.dropout)
        return nn.Sequential(features, dense)
