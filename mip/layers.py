"""The modules that branches and heads are built from; widths are found by a dry run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


class Block(nn.Module):
    """A residual block of two 3x3 convolutions (He et al. 2016, basic block)."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.second = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.skip = nn.Conv2d(width, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.first(x)))
        return F.relu(self.norm2(self.second(inner)) + self.skip(x))


class SmallResNet(nn.Sequential):
    """A residual net for a few hundred to some ten thousand small images.

    Takes float32 [n, 3, h, w]; gives float32 [n, 4 * width].

    >>> SmallResNet(8)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 32])
    """

    def __init__(self, width: int) -> None:
        stem = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        blocks = [
            Block(width, width, 1),
            Block(width, 2 * width, 2),
            Block(2 * width, 4 * width, 2),
        ]
        rest = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        super().__init__(stem, nn.BatchNorm2d(width), nn.ReLU(), *blocks, *rest)


class Photos(nn.Module):
    """Run every photo of a row through one backbone and pool what comes out.

    Takes pixels uint8 [n, k, 3, s, s] and present int8 [n, k]; gives float32 [n, d], or
    [n, k * d] for pool "concat". A missing photo (present 0) counts as a learned vector; where a
    row has no further photo (present -1) nothing counts.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: nn.Module, features: int, pool: str, mean: list[float], std: list[float]
    ) -> None:
        super().__init__()
        self.backbone, self.pool = backbone, pool
        self.missing = nn.Parameter(torch.zeros(features))
        self.score = nn.Linear(features, 1) if pool == "attention" else None
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) * 255, persistent=False)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        pixels, present = inputs["pixels"], inputs["present"]
        images = (pixels.flatten(0, 1).float() - self.mean) / self.std
        vectors = self.backbone(images).unflatten(0, present.shape)
        vectors = torch.where((present == 1).unsqueeze(-1), vectors, self.missing)
        return self.pooled(vectors, (present < 0).unsqueeze(-1))

    def pooled(self, vectors: Tensor, over: Tensor) -> Tensor:
        """Pool float32 [n, k, d] over the photos of a row, but for those where `over` is true."""
        if self.pool == "concat":
            return vectors.flatten(1)
        if self.pool == "max":
            return vectors.masked_fill(over, -torch.inf).amax(dim=1)
        if self.score is None:
            return vectors.masked_fill(over, 0).sum(dim=1) / (~over).sum(dim=1)
        weights = self.score(vectors).masked_fill(over, -torch.inf).softmax(dim=1)
        return (weights * vectors).sum(dim=1)


def cut(model: nn.Module) -> nn.Module:
    """Take the last linear layer off a classification model, so that it gives features.

    >>> cut(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 10)))(torch.zeros(1, 4)).shape
    torch.Size([1, 3])
    """
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if linear:
        parent, _, name = linear[-1].rpartition(".")
        setattr(model.get_submodule(parent), name, nn.Identity())
    return model
