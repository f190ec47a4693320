"""The modules that branches and heads are built from; widths are found by a dry run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BOUND = 1e9
"""The size past which numbers are cut before they are squared."""


class Fill(nn.Module):
    """Replace NaN by a learned value and say so with a flag.

    Takes float32 [n, c] with NaN for missing; gives float32 [n, c + f], where f counts the
    columns that had missing cells in training. Other columns are filled with 0, their mean.

    >>> Fill([False, True])(torch.tensor([[1.0, float("nan")]]))
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


class MLP(nn.Sequential):
    """Linear, ReLU and dropout for every width; the input's width is found by a dry run.

    >>> net = MLP((10, 5)); net(torch.zeros(2, 7)).shape
    torch.Size([2, 5])
    """

    def __init__(self, widths: Sequence[int], dropout: float = 0.0) -> None:
        rest = [nn.Dropout(dropout)] if dropout else []
        blocks = [[nn.LazyLinear(width), nn.ReLU(), *rest] for width in widths]
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
"""The activations by name; "silu" is also known as swish."""


BATCH_NORM = ("none", "before", "after")
"""Where a batch norm may stand: nowhere, or before or after each activation."""


class Dense(nn.Sequential):
    """Linear layers: of sizes [7, 10, 5, 1] three, with two activations between them.

    Takes float32 [n, first size]; gives float32 [n, last size].

    >>> [type(layer).__name__ for layer in Dense([7, 10, 5, 1])]
    ['Linear', 'ReLU', 'Linear', 'ReLU', 'Linear']
    >>> [type(layer).__name__ for layer in Dense([7, 10, 1], "silu", "after", 0.5)]
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
            before, after = ([nn.BatchNorm1d(out)] * (batch_norm == at) for at in BATCH_NORM[1:])
            layers += [nn.Linear(size, out), *before, ACTIVATIONS[activation](), *after]
            layers += [nn.Dropout(dropout)] if dropout else []
        super().__init__(*layers, nn.Linear(*last))


class Tower(Dense):
    """What stands between a vector and logits: float32 [n, width] to [n, outputs], or [n] for None.

    >>> Tower(7, (5,), 0.0, None)(torch.zeros(2, 7)).shape
    torch.Size([2])
    """

    def __init__(
        self, width: int, layers: Sequence[int], dropout: float, outputs: int | None
    ) -> None:
        super().__init__((width, *layers, outputs or 1), dropout=dropout)
        self.squeeze = outputs is None

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits.squeeze(1) if self.squeeze else logits


class Members(nn.Module):
    """Several towers that share their hidden weights, but for rank-1 adapters and biases, and have
    an own layer to the logits (TabM, Gorishniy et al. 2024).

    Takes float32 [n, width]. In training it gives the logits of each, [n, members, outputs], so
    that each has its own loss; else their mean, [n, outputs]. Without the last length for None.

    >>> net = Members(7, (5,), 0.0, None, members=4)
    >>> net(torch.zeros(2, 7)).shape, net.eval()(torch.zeros(2, 7)).shape
    (torch.Size([2, 4]), torch.Size([2]))
    """

    def __init__(
        self,
        width: int,
        layers: Sequence[int],
        dropout: float,
        outputs: int | None,
        members: int,
    ) -> None:
        super().__init__()
        sizes = (width, *layers)
        self.layers = adapted(sizes, members)
        self.dropout, self.squeeze = nn.Dropout(dropout), outputs is None
        bound, shape = sizes[-1] ** -0.5, (members, sizes[-1], outputs or 1)
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, outputs or 1).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        x = together(self.layers, self.dropout, x).expand(-1, len(self.weight), -1)
        logits = torch.einsum("nmi,mio->nmo", x, self.weight) + self.bias
        logits = logits if self.training else logits.mean(dim=1)
        return logits.squeeze(-1) if self.squeeze else logits


def adapted(sizes: Sequence[int], members: int) -> nn.ModuleList:
    """Build the hidden layers of members that share their weights; without sizes but one, none."""
    layers = [Adapted(*pair, members) for pair in pairwise(sizes)]
    for first in layers[:1]:
        # Random signs show each member another view of the input; all else begins alike.
        nn.init.trunc_normal_(first.before).data.sign_()
    return nn.ModuleList(layers)


def together(layers: Iterable[nn.Module], dropout: nn.Module, x: Tensor) -> Tensor:
    """Run the hidden layers of all members: float32 [n, size] to [n, members, last size]; without
    layers to [n, 1, size].
    """
    x = x.unsqueeze(1)
    for layer in layers:
        x = dropout(layer(x).relu())
    return x


class Adapted(nn.Module):
    """A linear layer shared by members, each scaling what goes in and what comes out.

    Takes float32 [n, members or 1, size]; gives float32 [n, members, out].
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


class Tokens(nn.Module):
    """Let tokens attend to each other and to a learned one, CLS, whose output is the answer.

    Takes float32 [n, tokens, width]; gives float32 [n, width]. Pre-norm transformer encoder layers
    (Vaswani et al. 2017; Xiong et al. 2020) with GELU; no token knows its place.

    >>> Tokens(8, depth=1, heads=2)(torch.zeros(5, 3, 8)).shape
    torch.Size([5, 8])
    """

    def __init__(self, width: int, depth: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        bound = width**-0.5
        self.first = nn.Parameter(torch.empty(width).uniform_(-bound, bound))
        # nn.TransformerEncoder would copy one layer, so that all began with the same weights.
        self.blocks = nn.Sequential(*[_encoder(width, heads, dropout) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        first = self.first.expand(len(tokens), 1, -1)
        # Layer norm squares: what a number far from all of training gives would become NaN.
        tokens = tokens.clamp(-BOUND, BOUND)
        return self.norm(self.blocks(torch.cat([first, tokens], dim=1))[:, 0])


def _encoder(width: int, heads: int, dropout: float) -> nn.Module:
    return nn.TransformerEncoderLayer(
        width, heads, 2 * width, dropout, F.gelu, batch_first=True, norm_first=True
    )


def divides(heads: int, width: int) -> None:
    """Raise ValueError unless attention's heads can share the width."""
    if width % heads:
        raise ValueError(f"'num_heads' must divide {width}: {heads}")
