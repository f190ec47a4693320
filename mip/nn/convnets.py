"""The convolutional nets of this library, and the pools that end them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from mip.nn.layers import Activation, BatchNorm, activate

GlobalPool = Literal["avg", "max", "none"]
"""What becomes of a feature map: its average, its maximum, or the map itself."""


def _pool_layers(global_pool: GlobalPool) -> list[nn.Module]:
    if global_pool == "none":
        return []
    pool = nn.AdaptiveAvgPool2d(1) if global_pool == "avg" else nn.AdaptiveMaxPool2d(1)
    return [pool, nn.Flatten()]


def pool_map(features: Tensor, global_pool: GlobalPool, dims: tuple[int, ...] = (2, 3)) -> Tensor:
    """Pool a feature map over the dimensions of the image: float32 [n, c, h, w] to [n, c], or for
    "none" itself. A vector, [n, c], stays as it is.

    >>> import torch
    >>> x = torch.arange(8.0).view(1, 2, 2, 2)
    >>> pool_map(x, "avg"), pool_map(x, "max"), pool_map(x, "none").shape
    (tensor([[1.5000, 5.5000]]), tensor([[3., 7.]]), torch.Size([1, 2, 2, 2]))
    """
    if global_pool == "none" or features.dim() == 2:
        return features
    return features.mean(dims) if global_pool == "avg" else features.amax(dims)


class Block(nn.Module):
    """A residual block of two 3x3 convolutions (He et al. 2016, basic block)."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.second = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.skip = nn.Conv2d(channels, out, 1, bias=False)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.first(x)))
        # A strided 1x1 convolution would do, but oneDNN's gradient of one with few channels, in
        # channels-last memory, writes out of bounds: wrong numbers on some CPUs, crashes on others.
        coarse = F.avg_pool2d(x, 1, self.stride) if self.stride > 1 else x
        return F.relu(self.norm2(self.second(inner)) + self.skip(coarse))


class SmallResNet(nn.Sequential):
    """A residual network for a few hundred to some ten thousand small images.

    Takes float32 [n, 3, h, w]; returns float32 [n, 4 * channels], or for the pool "none" the map,
    [n, 4 * channels, h / 8, w / 8].

    >>> import torch
    >>> SmallResNet(8)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 32])
    """

    def __init__(self, channels: int, global_pool: GlobalPool = "avg") -> None:
        super().__init__(
            nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            Block(channels, channels, 1),
            Block(channels, 2 * channels, 2),
            Block(2 * channels, 4 * channels, 2),
            *_pool_layers(global_pool),
        )


class ConvStack(nn.Sequential):
    """Stages of 3x3 convolutions, one for each of `channels`, then a pool over the image.

    A stage is `depth` convolutions, the first with `stride`, each followed by an activation and
    optionally a batch norm "before" or "after" it; with `max_pool` a max pool halves the image
    between stages. Convolutions are `separable` if each is one per channel and then one of 1x1
    (Chollet 2017). Takes float32 [n, 3, h, w]; returns float32 [n, last of the channels], or the
    map for the pool "none".

    >>> import torch
    >>> ConvStack([5, 7, 10, 14])(torch.zeros(2, 3, 256, 256)).shape
    torch.Size([2, 14])
    >>> net = ConvStack([8, 16], depth=2, stride=1, max_pool=True, global_pool="none")
    >>> net(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 16, 16, 16])
    """

    def __init__(
        self,
        channels: Sequence[int],
        depth: int = 1,
        stride: int = 2,
        separable: bool = False,
        max_pool: bool = False,
        activation: Activation = "relu",
        batch_norm: BatchNorm = "none",
        global_pool: GlobalPool = "avg",
    ) -> None:
        # A batch norm right behind a convolution would take away its bias.
        convolution = partial(_convolution, separable=separable, bias=batch_norm != "before")
        layers: list[nn.Module] = []
        for stage, (before, after) in enumerate(pairwise((3, *channels))):
            layers += [nn.MaxPool2d(2)] if max_pool and stage else []
            for k in range(depth):
                layers += convolution(after if k else before, after, 1 if k else stride)
                layers += activate(activation, batch_norm, nn.BatchNorm2d(after))
        super().__init__(*layers, *_pool_layers(global_pool))


def _convolution(
    channels: int, out: int, stride: int, separable: bool, bias: bool
) -> list[nn.Module]:
    if not separable:
        return [nn.Conv2d(channels, out, 3, stride, padding=1, bias=bias)]
    return [
        nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, out, 1, bias=bias),
    ]
