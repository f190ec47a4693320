"""A multilayer perceptron over columns."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import ge, lt
from torch import nn

from mip.branches.protocol import layer_sizes_field
from mip.fields import choice
from mip.nn import MLP, Activation, BatchNorm


@frozen
class Mlp:
    """Linear layers of the sizes `layers` with an `activation` between them, optionally with a
    `batch_norm` "before" or "after" each, and `dropout`. The last layer has none of these; the
    fusion and the head follow.

    >>> Mlp([10, 5]).network(nn.Identity(), in_features=4, continuous=4)[1]
    MLP(
      (0): Linear(in_features=4, out_features=10, bias=True)
      (1): ReLU()
      (2): Linear(in_features=10, out_features=5, bias=True)
    )
    """

    kind = "mlp"
    layers: tuple[int, ...] = layer_sizes_field((128, 128), min_layers=1)
    activation: Activation = choice("relu")
    batch_norm: BatchNorm = choice("none")
    dropout: float = field(default=0.0, validator=[ge(0), lt(1)])

    def category_dim(self) -> None:
        """Accept embeddings of categories of any size."""

    def network(self, features: nn.Module, in_features: int, continuous: int) -> nn.Module:
        """Build a module to float32 [n, last of the layers]."""
        sizes = (in_features, *self.layers)
        return nn.Sequential(features, MLP(sizes, self.activation, self.batch_norm, self.dropout))
