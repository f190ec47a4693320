"""The modules that branches and heads are built from; a dry run finds the sizes of their inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mip.errors import FieldError

MAX_TOKEN = 1e9
"""Tokens are clamped to this before layer norm squares them."""


class FillMissing(nn.Module):
    """Replace NaN by a learned value, and add a flag that tells so.

    Takes float32 [n, c] with NaN for missing; returns float32 [n, c + f], where f is the number of
    columns with missing cells in training. Other columns are filled with 0, their mean.

    >>> FillMissing([False, True])(torch.tensor([[1.0, float("nan")]]))
    tensor([[1., 0., 1.]], grad_fn=<CatBackward0>)
    """

    index: Tensor

    def __init__(self, flagged: Sequence[bool]) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(sum(flagged)))
        self.register_buffer("index", torch.tensor(flagged).nonzero().flatten(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        missing = x.isnan()
        if not len(self.value):
            return torch.where(missing, 0.0, x)
        fill = x.new_zeros(x.shape[1]).index_put((self.index,), self.value)
        return torch.cat([torch.where(missing, fill, x), missing[:, self.index].float()], dim=1)


class LazyMLP(nn.Sequential):
    """Linear, ReLU and dropout for each size; a dry run finds the size of the input.

    >>> net = LazyMLP((10, 5)); net(torch.zeros(2, 7)).shape
    torch.Size([2, 5])
    """

    def __init__(self, sizes: Sequence[int], dropout: float = 0.0) -> None:
        rest = [nn.Dropout(dropout)] if dropout else []
        blocks = [[nn.LazyLinear(size), nn.ReLU(), *rest] for size in sizes]
        super().__init__(*[layer for block in blocks for layer in block])


ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {
        "gelu": nn.GELU,
        "relu": nn.ReLU,
        "sigmoid": nn.Sigmoid,
        "silu": nn.SiLU,
        "tanh": nn.Tanh,
    }
)
"""The activations by name; "silu" is also called swish."""


BATCH_NORM = ("none", "before", "after")
"""Where to put a batch norm: nowhere, or before or after each activation."""


class MLP(nn.Sequential):
    """Linear layers with activations between them: for the sizes [7, 10, 5, 1] three and two.

    Takes float32 [n, first size]; returns float32 [n, last size].

    >>> [type(layer).__name__ for layer in MLP([7, 10, 5, 1])]
    ['Linear', 'ReLU', 'Linear', 'ReLU', 'Linear']
    >>> [type(layer).__name__ for layer in MLP([7, 10, 1], "silu", "after", 0.5)]
    ['Linear', 'SiLU', 'BatchNorm1d', 'Dropout', 'Linear']
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str = "relu",
        batch_norm: str = "none",
        dropout: float = 0.0,
    ) -> None:
        *hidden, last = pairwise(sizes)
        layers: list[nn.Module] = []
        for size, out in hidden:
            layers.append(nn.Linear(size, out))
            if batch_norm == "before":
                layers.append(nn.BatchNorm1d(out))
            layers.append(ACTIVATIONS[activation]())
            if batch_norm == "after":
                layers.append(nn.BatchNorm1d(out))
            if dropout:
                layers.append(nn.Dropout(dropout))
        super().__init__(*layers, nn.Linear(*last))


class Tower(MLP):
    """The layers of a head: float32 [n, in_features] to logits [n, outputs], or [n] for None.

    >>> Tower(7, (5,), 0.0, None)(torch.zeros(2, 7)).shape
    torch.Size([2])
    """

    def __init__(
        self, in_features: int, layers: Sequence[int], dropout: float, outputs: int | None
    ) -> None:
        super().__init__((in_features, *layers, outputs or 1), dropout=dropout)
        self.squeeze = outputs is None

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits.squeeze(1) if self.squeeze else logits


class Members(nn.Module):
    """Several towers that share all hidden weights except rank-1 adapters and biases, each with its
    own layer to the logits (TabM, Gorishniy et al. 2024).

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
    ) -> None:
        super().__init__()
        sizes = (in_features, *layers)
        self.layers = member_layers(sizes, members)
        self.dropout, self.squeeze = nn.Dropout(dropout), outputs is None
        bound, shape = sizes[-1] ** -0.5, (members, sizes[-1], outputs or 1)
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, outputs or 1).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        x = run_members(self.layers, self.dropout, x).expand(-1, len(self.weight), -1)
        logits = torch.einsum("nmi,mio->nmo", x, self.weight) + self.bias
        logits = logits if self.training else logits.mean(dim=1)
        return logits.squeeze(-1) if self.squeeze else logits


def member_layers(sizes: Sequence[int], members: int) -> nn.ModuleList:
    """Build the hidden layers of members that share their weights, one for each pair of sizes."""
    layers = [AdaptedLinear(before, after, members) for before, after in pairwise(sizes)]
    for first in layers[:1]:
        # Random signs show each member another view of the input; all else starts equal.
        nn.init.trunc_normal_(first.before).data.sign_()
    return nn.ModuleList(layers)


def run_members(layers: Iterable[nn.Module], dropout: nn.Module, x: Tensor) -> Tensor:
    """Run the hidden layers of all members: float32 [n, size] to [n, members, last size], or to
    [n, 1, size] if there are none.
    """
    x = x.unsqueeze(1)
    for layer in layers:
        x = dropout(layer(x).relu())
    return x


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
        return self.shared(x * self.before) * self.after + self.bias


class TokenTransformer(nn.Module):
    """A transformer over tokens and a learned CLS token, whose output is returned.

    Takes float32 [n, tokens, embedding_dim]; returns float32 [n, embedding_dim]. Pre-norm encoder
    layers (Vaswani et al. 2017; Xiong et al. 2020) with GELU, and no positional encoding.

    >>> TokenTransformer(8, depth=1, num_heads=2)(torch.zeros(5, 3, 8)).shape
    torch.Size([5, 8])
    """

    def __init__(
        self, embedding_dim: int, depth: int, num_heads: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        bound = embedding_dim**-0.5
        self.first = nn.Parameter(torch.empty(embedding_dim).uniform_(-bound, bound))
        # nn.TransformerEncoder would copy one layer, so that all started with the same weights.
        layers = (_encoder_layer(embedding_dim, num_heads, dropout) for _ in range(depth))
        self.blocks = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(embedding_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        first = self.first.expand(len(tokens), 1, -1)
        # Layer norm squares: a number far outside of the training range would become NaN.
        tokens = tokens.clamp(-MAX_TOKEN, MAX_TOKEN)
        return self.norm(self.blocks(torch.cat([first, tokens], dim=1))[:, 0])


def _encoder_layer(embedding_dim: int, num_heads: int, dropout: float) -> nn.Module:
    return nn.TransformerEncoderLayer(
        embedding_dim,
        num_heads,
        dim_feedforward=2 * embedding_dim,
        dropout=dropout,
        activation=F.gelu,
        batch_first=True,
        norm_first=True,
    )


def check_num_heads(num_heads: int, embedding_dim: int) -> None:
    """Raise FieldError unless attention heads can share the embedding."""
    if embedding_dim % num_heads:
        raise FieldError("num_heads", f"must divide {embedding_dim}: {num_heads}")
