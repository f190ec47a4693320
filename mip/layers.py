"""The modules that branches and heads are built from; widths are found by a dry run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


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


class Fused(nn.Module):
    """Run each branch on its own input, join the vectors by name, then linear layers.

    Takes a dict of inputs, name to tree of tensors with n rows; gives float32 [n, last width],
    or [n, sum of the branches] without layers.
    """

    def __init__(
        self, branches: Mapping[str, nn.Module], layers: Sequence[int] = (), dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.branch = nn.ModuleDict(dict(branches))
        self.layers = MLP(layers, dropout)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        vectors = [module(inputs[name]) for name, module in self.branch.items()]
        return self.layers(torch.cat(vectors, dim=1))
