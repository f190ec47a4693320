"""Towers and hidden layers that share most of their weights: ensembles that cost little more than
one network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mip.nn.layers import Activation, BatchNorm, activate


class Members(nn.Module):
    """Several towers that share all hidden weights except rank-1 adapters and biases, each with its
    own batch norms and its own layer to the logits (TabM, Gorishniy et al. 2024).

    Takes float32 [n, in_features]. In training it returns the logits of each member, [n, members,
    outputs], so that each has its own loss; otherwise their mean, [n, outputs]. If `outputs` is
    None the last dimension is left out.

    >>> net = Members(7, (5,), 0.0, None, members=4)
    >>> net(torch.zeros(2, 7)).shape, net.eval()(torch.zeros(2, 7)).shape
    (torch.Size([2, 4]), torch.Size([2]))
    """

    def __init__(
        self,
        in_features: int,
        layers: Sequence[int],
        dropout: float,
        outputs: int | None,
        members: int,
        activation: Activation = "relu",
        batch_norm: BatchNorm = "none",
    ) -> None:
        super().__init__()
        sizes = (in_features, *layers)
        self.layers = member_layers(sizes, members)
        self.activations = nn.ModuleList(
            nn.Sequential(*activate(activation, batch_norm, MemberNorm(size, members)))
            for size in layers
        )
        self.dropout, self.squeeze = nn.Dropout(dropout), outputs is None
        bound, shape = sizes[-1] ** -0.5, (members, sizes[-1], outputs or 1)
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, outputs or 1).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        x = run_members(self.layers, self.activations, self.dropout, x)
        if self.weight.shape[2] == 1:
            # The matrix product of a single column takes seven times as long on a CPU.
            logits = (x * self.weight.squeeze(2)).sum(dim=2, keepdim=True)
        else:
            members = len(self.weight)
            logits = torch.einsum("nmi,mio->nmo", x.expand(-1, members, -1), self.weight)
        logits = logits + self.bias
        logits = logits if self.training else logits.mean(dim=1)
        return logits.squeeze(-1) if self.squeeze else logits


def member_layers(sizes: Sequence[int], members: int) -> nn.ModuleList:
    """Build the hidden layers of members that share their weights, one for each pair of sizes."""
    layers = [AdaptedLinear(before, after, members) for before, after in pairwise(sizes)]
    for first in layers[:1]:
        # Random signs show each member another view of the input; all else starts equal.
        nn.init.trunc_normal_(first.before).data.sign_()
    return nn.ModuleList(layers)


def run_members(
    layers: Iterable[nn.Module],
    activations: Iterable[Callable[[Tensor], Tensor]],
    dropout: nn.Module,
    x: Tensor,
) -> Tensor:
    """Run the hidden layers of all members, each with what follows it: float32 [n, size] to
    [n, members, last size], or to [n, 1, size] if there are none.
    """
    x = x.unsqueeze(1)
    for layer, activation in zip(layers, activations, strict=False):
        x = dropout(activation(layer(x)))
    return x


class MemberNorm(nn.BatchNorm1d):
    """A batch norm for each member: float32 [n, members, size] to the same shape."""

    def __init__(self, size: int, members: int) -> None:
        super().__init__(members * size)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1)).view_as(x)


class AdaptedLinear(nn.Module):
    """A linear layer shared by members, each with its own scales of inputs and outputs, and bias.

    Takes float32 [n, members or 1, size]; returns float32 [n, members, out].
    """

    def __init__(self, size: int, out: int, members: int) -> None:
        super().__init__()
        self.shared = nn.Linear(size, out, bias=False)
        self.before = nn.Parameter(torch.ones(members, size))
        self.after = nn.Parameter(torch.ones(members, out))
        bound = size**-0.5
        self.bias = nn.Parameter(torch.empty(out).uniform_(-bound, bound).repeat(members, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.bias, self.shared(x * self.before), self.after)
