"""Augmentation: the changes that training makes to pixels, each drawn from (key, row)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial, reduce
from typing import Any, Literal

import torch
import torch.nn.functional as F
from attrs import field, frozen
from attrs.validators import ge, gt, in_, le, lt
from torch import Tensor

from mip.rng import derive, uniform

ASPECT, ERASED_ASPECT = 4 / 3, 3.3
"""How far the sides of a crop, and of an erased rectangle, are from a square's at most."""


ERASED = (0.02, 0.33)
"""The least and the largest share of the area that is erased (Zhong et al. 2020)."""


GREY = 128


@frozen
class Augment:
    """Changes to images in training, drawn from (seed, epoch, row), the same for all of a row's
    photos, and made in this order.

    `flip` mirrors half of the rows. `crop` keeps a rectangle of at least this share of the area,
    its sides as 3 to 4 at most, and fills the image with it; `rotate` turns by up to so many
    degrees; `shift` moves and scales by up to this part of the size. `brightness`, `contrast`
    and `saturation` change by a factor of 1 ± this, `hue` by ± this part of the circle. `auto`
    is "rand" (RandAugment: two operations of magnitude 9 of 30; Cubuk et al. 2020) or "trivial"
    (TrivialAugmentWide: one of any magnitude; Müller and Hutter 2021). `erase` is the chance
    that a rectangle of 2% to 33% of the area turns grey.

    Takes pixels uint8 [n, k, 3, size, size] and row numbers int64 [n]; gives new pixels of that
    shape, or the very same where nothing is asked for.

    >>> grey = torch.full((2, 1, 3, 8, 8), 100, dtype=torch.uint8)
    >>> Augment(brightness=0.5)(grey, 7, torch.tensor([3, 4]))[:, 0, 0, 0, 0].tolist()
    [126, 140]
    >>> Augment()(grey, 7, torch.tensor([3, 4])) is grey
    True
    """

    flip: bool = False
    shift: float = field(default=0.0, validator=[ge(0), lt(0.5)])
    brightness: float = field(default=0.0, validator=[ge(0), lt(1)])
    rotate: float = field(default=0.0, validator=[ge(0), le(180)])
    crop: float = field(default=1.0, validator=[gt(0), le(1)])
    contrast: float = field(default=0.0, validator=[ge(0), lt(1)])
    saturation: float = field(default=0.0, validator=[ge(0), lt(1)])
    hue: float = field(default=0.0, validator=[ge(0), le(0.5)])
    erase: float = field(default=0.0, validator=[ge(0), le(1)])
    auto: Literal["", "rand", "trivial"] = field(default="", validator=in_(("", "rand", "trivial")))

    def __call__(self, pixels: Tensor, key: int, rows: Tensor) -> Tensor:
        if not len(rows):
            return pixels
        draws = uniform(key, rows, 5)
        if self.flip:
            pixels = flip(pixels, draws[:, 0])
        matrices = list(self._matrices(draws, key, rows))
        if matrices:
            pixels = warp(pixels, reduce(torch.matmul, matrices))
        return self._erased(self._coloured(pixels, draws[:, 4], key, rows), key, rows)

    def _matrices(self, draws: Tensor, key: int, rows: Tensor) -> Iterator[Tensor]:
        # The last is applied to the new image's places first, and so made to the photo last.
        if self.crop < 1:
            yield cropping(_drawn("crop", key, rows, 4), self.crop)
        if self.rotate:
            yield rotating(_drawn("rotate", key, rows, 1)[:, 0], self.rotate)
        if self.shift:
            yield shifting(draws[:, 1:4], self.shift)

    def _coloured(self, pixels: Tensor, draw: Tensor, key: int, rows: Tensor) -> Tensor:
        if self.brightness:
            pixels = brighten(pixels, draw, self.brightness)
        for name in COLOURS:
            reach = getattr(self, name)
            if reach:
                amounts = (_drawn(name, key, rows, 1) * 2 - 1) * reach
                pixels = _each(partial(_recoloured, name), pixels, amounts.squeeze(1).tolist())
        if self.auto:
            chosen = _drawn(self.auto, key, rows, 6).tolist()
            pixels = _each(rand if self.auto == "rand" else trivial, pixels, chosen)
        return pixels

    def _erased(self, pixels: Tensor, key: int, rows: Tensor) -> Tensor:
        return erase(pixels, _drawn("erase", key, rows, 5), self.erase) if self.erase else pixels


def _drawn(word: str, key: int, rows: Tensor, draws: int) -> Tensor:
    # Each change has draws of its own: asking for one leaves the others as they were.
    return uniform(derive(word, key), rows, draws)


def _each(change: Callable[[Tensor, Any], Tensor], pixels: Tensor, amounts: list) -> Tensor:
    changed = [change(row, amount) for row, amount in zip(pixels, amounts, strict=True)]
    return torch.stack(changed)


def flip(pixels: Tensor, draw: Tensor, chance: float = 0.5) -> Tensor:
    """Mirror images left to right where the draw falls below the chance.

    Takes pixels [n, k, 3, h, w] and draws in [0, 1) as [n]; a row's images turn together.

    >>> row = torch.tensor([1, 2]).view(1, 1, 1, 1, 2)
    >>> flip(row, torch.tensor([0.2])).flatten().tolist()
    [2, 1]
    """
    mirrored = (draw < chance).view(-1, 1, 1, 1, 1)
    return torch.where(mirrored, pixels.flip(-1), pixels)


def warp(pixels: Tensor, matrices: Tensor) -> Tensor:
    """Fetch each place of the new images from where its matrix points, the border repeated.

    Takes pixels uint8 [n, k, 3, h, w] and matrices float32 [n, 3, 3] of (x, y, 1), where the
    image reaches from -1 to 1.

    >>> row = torch.tensor([1, 2, 3, 4], dtype=torch.uint8).view(1, 1, 1, 1, 4)
    >>> turned = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))[None]
    >>> warp(row, turned).flatten().tolist()
    [4, 3, 2, 1]
    """
    flat = pixels.flatten(0, 1)
    matrices = matrices[:, :2].repeat_interleave(pixels.shape[1], 0)
    grid = F.affine_grid(matrices, list(flat.shape), align_corners=False)
    moved = F.grid_sample(flat.float(), grid, padding_mode="border", align_corners=False)
    return moved.round().to(torch.uint8).view_as(pixels)


def shifting(draws: Tensor, reach: float) -> Tensor:
    """Move and scale by up to `reach` of the size: matrices float32 [n, 3, 3] for `warp`.

    Takes draws in [0, 1) as [n, 3] (across, down, scale).

    >>> shifting(torch.tensor([[0.75, 0.5, 0.5]]), 0.5)[0].tolist()
    [[1.0, 0.0, 0.5], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    across, down, zoom = ((draws * 2 - 1) * reach * 2).unbind(1)
    scale = 1 + zoom / 2
    return _matrix(scale, 0, across, 0, scale, down)


def rotating(draw: Tensor, degrees: float) -> Tensor:
    """Turn square images by up to ± `degrees`: matrices float32 [n, 3, 3] from draws [n].

    >>> rotating(torch.tensor([0.5]), 30)[0].tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    angle = (draw.double() * 2 - 1) * math.radians(degrees)
    return _matrix(angle.cos(), -angle.sin(), 0, angle.sin(), angle.cos(), 0)


def cropping(draws: Tensor, least: float) -> Tensor:
    """Fill square images with a rectangle of them, of at least the share `least` of the area.

    Takes draws in [0, 1) as [n, 4] (area, aspect, across, down); gives matrices float32
    [n, 3, 3] for `warp`.

    >>> cropping(torch.tensor([[0.0, 0.5, 0.5, 0.0]]), 0.25)[0].tolist()
    [[0.5, 0.0, 0.0], [0.0, 0.5, -0.5], [0.0, 0.0, 1.0]]
    """
    wide, tall = rectangles(draws[:, :2], (least, 1.0), ASPECT)
    across, down = (draws[:, 2:].double() * 2 - 1).unbind(1)
    return _matrix(wide, 0, across * (1 - wide), 0, tall, down * (1 - tall))


def _matrix(*entries: Tensor | int) -> Tensor:
    like = next(entry for entry in entries if isinstance(entry, Tensor))
    columns = [torch.zeros_like(like) + entry for entry in (*entries, 0, 0, 1)]
    return torch.stack(columns, dim=1).float().unflatten(1, (3, 3))


def rectangles(draws: Tensor, area: tuple[float, float], aspect: float) -> tuple[Tensor, Tensor]:
    """Draw the sides of rectangles inside the unit square: width and height, float64 [n].

    Takes draws in [0, 1) as [n, 2]. The first is of the area, between two bounds; the second of
    the logarithm of width over height, up to `aspect` either way as far as the square allows.

    >>> rectangles(torch.tensor([[0.0, 0.5]]), (0.25, 1.0), 4 / 3)
    (tensor([0.5000], dtype=torch.float64), tensor([0.5000], dtype=torch.float64))
    """
    # In float64, so that what is left of rounding disappears in the float32 of the matrices.
    size, shape = draws.double().unbind(1)
    share = area[0] + size * (area[1] - area[0])
    reach = (-share.log()).clamp(max=math.log(aspect))
    ratio = ((shape * 2 - 1) * reach).exp()
    return (share * ratio).sqrt(), (share / ratio).sqrt()


def brighten(pixels: Tensor, draw: Tensor, reach: float) -> Tensor:
    """Multiply brightness by 1 ± `reach`; takes pixels uint8 [n, k, 3, h, w] and draws [n]."""
    factor = (1 + (draw * 2 - 1) * reach).view(-1, 1, 1, 1, 1)
    return (pixels.float() * factor).round().clamp(0, 255).to(torch.uint8)


def erase(pixels: Tensor, draws: Tensor, chance: float) -> Tensor:
    """Turn a rectangle of the images grey where the first draw falls below the chance.

    Takes pixels uint8 [n, k, 3, h, w] and draws in [0, 1) as [n, 5] (whether, area, aspect,
    across, down); a row's images lose the same rectangle.

    >>> dark = torch.zeros(1, 1, 1, 2, 4, dtype=torch.uint8)
    >>> erase(dark, torch.tensor([[0.0, 0.9, 0.5, 0.9, 0.0]]), 0.5).flatten().tolist()
    [0, 0, 128, 128, 0, 0, 0, 0]
    """
    wide, tall = rectangles(draws[:, 1:3], ERASED, ERASED_ASPECT)
    hidden = inside(wide, tall, draws[:, 3:], pixels.shape[-2:])
    hidden &= (draws[:, 0] < chance).view(-1, 1, 1, 1, 1)
    return torch.where(hidden, GREY, pixels)


def inside(wide: Tensor, tall: Tensor, draws: Tensor, size: tuple[int, ...]) -> Tensor:
    """Mark the pixels of rectangles: bool [n, 1, 1, h, w].

    Takes their sides as shares [n] and draws in [0, 1) as [n, 2] (across, down).

    >>> half = torch.tensor([0.5])
    >>> inside(half, half, torch.tensor([[0.0, 0.9]]), (2, 2)).int().flatten().tolist()
    [0, 0, 1, 0]
    """
    across = _within(wide, draws[:, 0], size[1])
    down = _within(tall, draws[:, 1], size[0])
    return (down[:, :, None] & across[:, None, :])[:, None, None]


def _within(share: Tensor, draw: Tensor, size: int) -> Tensor:
    # A rectangle is never thinner than a pixel.
    length = (share * size).round().clamp(1, size)
    first = (draw * (size - length + 1)).floor()
    place = torch.arange(size)
    return (place >= first[:, None]) & (place < (first + length)[:, None])


OPERATIONS: Mapping[str, Callable[[Any, Tensor, float], Tensor]] = {
    "Identity": lambda tv, x, by: x,
    "ShearX": lambda tv, x, by: _sheared(tv, x, [_degrees(by), 0.0]),
    "ShearY": lambda tv, x, by: _sheared(tv, x, [0.0, _degrees(by)]),
    "TranslateX": lambda tv, x, by: tv.affine(x, 0.0, [int(by), 0], 1.0, [0.0, 0.0]),
    "TranslateY": lambda tv, x, by: tv.affine(x, 0.0, [0, int(by)], 1.0, [0.0, 0.0]),
    "Rotate": lambda tv, x, by: tv.rotate(x, by),
    "Brightness": lambda tv, x, by: tv.adjust_brightness(x, 1 + by),
    "Color": lambda tv, x, by: tv.adjust_saturation(x, 1 + by),
    "Contrast": lambda tv, x, by: tv.adjust_contrast(x, 1 + by),
    "Sharpness": lambda tv, x, by: tv.adjust_sharpness(x, 1 + by),
    "Posterize": lambda tv, x, by: tv.posterize(x, 8 - round(by)),
    "Solarize": lambda tv, x, by: tv.solarize(x, 255 * (1 - by)),
    "AutoContrast": lambda tv, x, by: tv.autocontrast(x),
    "Equalize": lambda tv, x, by: tv.equalize(x),
}
"""The operations of both policies, of torchvision's `functional`, by torchvision's names."""


COLOURS = {
    "contrast": OPERATIONS["Contrast"],
    "saturation": OPERATIONS["Color"],
    "hue": lambda tv, x, by: tv.adjust_hue(x, by),
}
"""The changes of colour that a spec asks for by name, called as the operations are."""


UNSIGNED = {"Posterize", "Solarize"}
"""Operations that know one direction only."""


RAND = {"Shear": 0.3, "Translate": 150 / 331, "Rotate": 30.0, "Posterize": 4.0, "Solarize": 1.0}


TRIVIAL = {"Shear": 0.99, "Translate": 32.0, "Rotate": 135.0, "Posterize": 6.0, "Solarize": 1.0}
"""How far operations reach at the largest magnitude; the others reach 0.9 and 0.99."""


def _degrees(slope: float) -> float:
    return math.degrees(math.atan(slope))


def _sheared(tv: Any, pixels: Tensor, angles: list[float]) -> Tensor:
    return tv.affine(pixels, 0.0, [0, 0], 1.0, angles, center=[0, 0])


def _recoloured(name: str, pixels: Tensor, amount: float) -> Tensor:
    from torchvision.transforms.v2 import functional

    return COLOURS[name](functional, pixels, amount)


def rand(pixels: Tensor, draws: list[float]) -> Tensor:
    """Apply RandAugment's two operations of magnitude 9 of 30 to pixels uint8 [..., 3, h, w].

    Takes draws in [0, 1): operation and direction of the first, then of the second.

    >>> dark = torch.zeros(3, 2, 2, dtype=torch.uint8)
    >>> rand(dark, [0.0, 0.0, 0.0, 0.0]).equal(dark)
    True
    """
    for choice, turn in (draws[:2], draws[2:4]):
        name = _chosen(choice)
        reach = _reach(RAND, 0.9, name) * (pixels.shape[-1] if "Translate" in name else 1)
        pixels = operate(pixels, name, 9 / 30 * reach, turn)
    return pixels


def trivial(pixels: Tensor, draws: list[float]) -> Tensor:
    """Apply TrivialAugmentWide's operation to pixels uint8 [..., 3, h, w].

    Takes draws in [0, 1): operation, direction, magnitude (one of 31).

    >>> trivial(torch.zeros(3, 2, 2, dtype=torch.uint8), [0.8, 0.0, 0.999]).unique().tolist()
    [255]
    """
    name = _chosen(draws[0])
    return operate(pixels, name, int(draws[2] * 31) / 30 * _reach(TRIVIAL, 0.99, name), draws[1])


def _chosen(draw: float) -> str:
    return list(OPERATIONS)[int(draw * len(OPERATIONS))]


def _reach(reaches: Mapping[str, float], default: float, name: str) -> float:
    return reaches.get(name.rstrip("XY"), default)


def operate(pixels: Tensor, name: str, by: float, turn: float) -> Tensor:
    """Apply an operation of the table, backwards where the draw `turn` falls below one half.

    >>> operate(torch.full((3, 1, 1), 100, dtype=torch.uint8), "Brightness", 0.5, 0.1).tolist()
    [[[50]], [[50]], [[50]]]
    """
    from torchvision.transforms.v2 import functional

    return OPERATIONS[name](functional, pixels, -by if turn < 0.5 and name not in UNSIGNED else by)
