"""The modules that branches and heads are built from; widths are found by a dry run."""

from __future__ import annotations

from collections.abc import Sequence

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


class Tower(nn.Sequential):
    """An `MLP` and a linear layer to so many outputs: float32 [n, any] to [n, outputs], or [n] for
    None.

    >>> Tower((5,), 0.0, None)(torch.zeros(2, 7)).shape
    torch.Size([2])
    """

    def __init__(self, layers: Sequence[int], dropout: float, outputs: int | None) -> None:
        super().__init__(*MLP(layers, dropout), nn.LazyLinear(outputs or 1))
        self.squeeze = outputs is None

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits.squeeze(1) if self.squeeze else logits


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
        raise ValueError(f"'heads' must divide the width {width}: {heads}")
