"""The modules that branches and heads are built from; a dry run finds the sizes of their inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from attrs import field, frozen
from torch import Tensor, nn

from mip.errors import FieldError, SpecError

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


Activation = Literal[
    "elu",
    "gelu",
    "hard_swish",
    "leaky_relu",
    "mish",
    "none",
    "relu",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "tanh",
]
"""The names of activations."""


ACTIVATIONS: Mapping[Activation, Callable[[], nn.Module]] = MappingProxyType(
    {
        "elu": nn.ELU,
        "gelu": nn.GELU,
        "hard_swish": nn.Hardswish,
        "leaky_relu": nn.LeakyReLU,
        "mish": nn.Mish,
        "none": nn.Identity,
        "relu": nn.ReLU,
        "selu": nn.SELU,
        "sigmoid": nn.Sigmoid,
        "silu": nn.SiLU,
        "softplus": nn.Softplus,
        "tanh": nn.Tanh,
    }
)
"""The activations by name, as torch has them; "silu" is also called swish."""


BatchNorm = Literal["none", "before", "after"]
"""Where a batch norm is: nowhere, or before or after each activation (Ioffe and Szegedy 2015)."""


def activate(activation: Activation, batch_norm: BatchNorm, norm: nn.Module) -> list[nn.Module]:
    """Return the modules that follow a layer: an activation, and `norm` before or after it.

    >>> [type(module).__name__ for module in activate("silu", "before", nn.BatchNorm2d(8))]
    ['BatchNorm2d', 'SiLU']
    """
    before, after = ([norm] if batch_norm == where else [] for where in ("before", "after"))
    return [*before, ACTIVATIONS[activation](), *after]


def _hidden(
    linear: nn.Module, size: int, activation: Activation, batch_norm: BatchNorm, dropout: float
) -> list[nn.Module]:
    rest = [nn.Dropout(dropout)] if dropout else []
    return [linear, *activate(activation, batch_norm, nn.BatchNorm1d(size)), *rest]


@frozen
class Function:
    """A function that a spec names, and its name in the table of kinds: a layer, or what builds a
    backbone.

    >>> Function("double", lambda x: 2 * x).name
    'double'
    >>> Function("net", nn.Linear(2, 2))
    Traceback (most recent call last):
    mip.errors.FieldError: 'function' is a module, which all models would share: pass a function
    """

    name: str
    function: Callable[..., Any] = field()

    @function.validator
    def _check_function(self, _: object, function: Any) -> None:
        if isinstance(function, nn.Module):
            raise FieldError(
                "function", "is a module, which all models would share: pass a function"
            )
        if not callable(function):
            raise FieldError("function", f"cannot be called: {function!r}")


class Lambda(nn.Module):
    """A function as a layer: a tensor [n, …] to a tensor [n, …].

    `path` is where the spec names it. Raises SpecError, with both shapes, if it does not return a
    tensor with a row for each.

    >>> Lambda(Function("flatten", torch.flatten), "layers[0]")(torch.zeros(2, 3))
    Traceback (most recent call last):
    mip.errors.SpecError: layers[0] = 'flatten' must return [2, …] for [2, 3], not [6]
    """

    def __init__(self, function: Function, path: str) -> None:
        super().__init__()
        self.function, self.path = function, path

    def forward(self, x: Tensor) -> Tensor:
        y = self.function.function(x)
        if isinstance(y, Tensor) and y.dim() > 1 and len(y) == len(x):
            return y
        actual = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
        expected = f"must return [{len(x)}, …] for {list(x.shape)}, not {actual}"
        raise SpecError(f"{self.path} = '{self.function.name}' {expected}")

    def extra_repr(self) -> str:
        """Return the name of the function."""
        return self.function.name


class LazyMLP(nn.Sequential):
    """A linear layer, an activation and dropout for each size, or a function; a dry run finds the
    size of the input.

    Takes float32 [n, …] and returns float32 [n, last size]. A linear layer flattens its input.

    >>> net = LazyMLP((10, 5)); net(torch.zeros(2, 7)).shape
    torch.Size([2, 5])
    >>> net = LazyMLP((Function("abs", torch.abs), 5), 0.1, "gelu", "before")
    >>> net(torch.zeros(2, 3, 4, 4)).shape, [type(layer).__name__ for layer in net]
    (torch.Size([2, 5]), ['Lambda', 'Linear', 'BatchNorm1d', 'GELU', 'Dropout'])
    """

    def __init__(
        self,
        layers: Sequence[int | Function],
        dropout: float = 0.0,
        activation: Activation = "relu",
        batch_norm: BatchNorm = "none",
    ) -> None:
        modules: list[nn.Module] = []
        for k, layer in enumerate(layers):
            if isinstance(layer, Function):
                modules.append(Lambda(layer, f"layers[{k}]"))
            else:
                modules += _hidden(nn.LazyLinear(layer), layer, activation, batch_norm, dropout)
        super().__init__(*modules)

    def forward(self, x: Tensor) -> Tensor:
        for module in self:
            x = module(x.flatten(1) if isinstance(module, nn.Linear) else x)
        return x


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
        activation: Activation = "relu",
        batch_norm: BatchNorm = "none",
        dropout: float = 0.0,
    ) -> None:
        *hidden, last = pairwise(sizes)
        layers: list[nn.Module] = []
        for size, out in hidden:
            layers += _hidden(nn.Linear(size, out), out, activation, batch_norm, dropout)
        super().__init__(*layers, nn.Linear(*last))


class Tower(MLP):
    """The layers of a head: float32 [n, in_features] to logits [n, outputs], or [n] for None.

    >>> Tower(7, (5,), 0.0, None)(torch.zeros(2, 7)).shape
    torch.Size([2])
    """

    def __init__(
        self,
        in_features: int,
        layers: Sequence[int],
        dropout: float,
        outputs: int | None,
        activation: Activation = "relu",
        batch_norm: BatchNorm = "none",
    ) -> None:
        super().__init__((in_features, *layers, outputs or 1), activation, batch_norm, dropout)
        self.squeeze = outputs is None

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits.squeeze(1) if self.squeeze else logits


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
