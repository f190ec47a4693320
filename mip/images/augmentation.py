"""Augmentation: random changes of pixels in training, each drawn from (key, row id).

To add one: a field of `Augment`, its place in `__call__`, and a function of pixels and draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial, reduce
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from attrs import field, frozen
from attrs.validators import ge, gt, le, lt
from torch import Tensor

from mip.fields import choice
from mip.images.policies import COLOR_CHANGES, rand_augment, recolor, trivial_augment
from mip.rng import derive, uniform

CROP_ASPECT, ERASE_ASPECT = 4 / 3, 3.3
"""The largest ratio of the sides of a crop, and of an erased rectangle."""


ERASE_AREA = (0.02, 0.33)
"""The smallest and largest share of the area that is erased (Zhong et al. 2020)."""


GREY = 128


@frozen
class Augment:
    """Changes of images in training, drawn from (seed, epoch, row id), the same for all photos of a
    row, and applied in this order.

    `flip` mirrors half of the rows. `crop` resizes a rectangle of at least this share of the area,
    with sides of at most 3 to 4, to the whole image; `rotate` rotates by up to this many degrees;
    `shift` translates and scales by up to this fraction of the size. `brightness`, `contrast` and
    `saturation` change by a factor of 1 ± this, `hue` by ± this fraction of the colour wheel.
    `auto` is "rand" (RandAugment: two operations of magnitude 9 of 30; Cubuk et al. 2020) or
    "trivial" (TrivialAugmentWide: one of any magnitude; Müller and Hutter 2021). `erase` is the
    probability that a rectangle of 2% to 33% of the area turns grey.

    Takes pixels uint8 [n, k, 3, size, size] and row ids int64 [n]; returns new pixels of that
    shape, or the same tensor if there is nothing to change.

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
    auto: Literal["", "rand", "trivial"] = choice("")

    def __call__(self, pixels: Tensor, key: int, row_ids: Tensor) -> Tensor:
        if not len(row_ids):
            return pixels
        draws = uniform(key, row_ids, 5)
        if self.flip:
            pixels = flip(pixels, draws[:, 0])
        if matrices := list(self._matrices(draws[:, 1:4], key, row_ids)):
            pixels = warp(pixels, reduce(torch.matmul, matrices))
        if self.brightness:
            pixels = brighten(pixels, draws[:, 4], self.brightness)
        for name in COLOR_CHANGES:
            if limit := getattr(self, name):
                amounts = (_draw(name, key, row_ids, 1) * 2 - 1) * limit
                pixels = _by_row(partial(recolor, name), pixels, amounts.squeeze(1).tolist())
        if self.auto:
            policy = rand_augment if self.auto == "rand" else trivial_augment
            pixels = _by_row(policy, pixels, _draw(self.auto, key, row_ids, 6).tolist())
        if self.erase:
            pixels = erase(pixels, _draw("erase", key, row_ids, 5), self.erase)
        return pixels

    def _matrices(self, shifts: Tensor, key: int, row_ids: Tensor) -> Iterator[Tensor]:
        # From positions in the new image to those in the photo, so the last change comes first.
        if self.crop < 1:
            yield crop_matrices(_draw("crop", key, row_ids, 4), self.crop)
        if self.rotate:
            yield rotation_matrices(_draw("rotate", key, row_ids, 1)[:, 0], self.rotate)
        if self.shift:
            yield shift_matrices(shifts, self.shift)


def _draw(change: str, key: int, row_ids: Tensor, num_draws: int) -> Tensor:
    # Each change has its own draws, so that using one does not alter another.
    return uniform(derive(change, key), row_ids, num_draws)


Amount = TypeVar("Amount")
"""What a change of one row's photos depends on."""


def _by_row(
    change: Callable[[Tensor, Amount], Tensor], pixels: Tensor, amounts: list[Amount]
) -> Tensor:
    rows = zip(pixels, amounts, strict=True)
    return torch.stack([change(photos, amount) for photos, amount in rows])


def flip(pixels: Tensor, draw: Tensor, p: float = 0.5) -> Tensor:
    """Mirror images left to right with probability `p`: where the draw is below it.

    Takes pixels [n, k, 3, h, w] and draws in [0, 1) as [n]; all images of a row are mirrored.

    >>> row = torch.tensor([1, 2]).view(1, 1, 1, 1, 2)
    >>> flip(row, torch.tensor([0.2])).flatten().tolist()
    [2, 1]
    """
    mirrored = (draw < p).view(-1, 1, 1, 1, 1)
    return torch.where(mirrored, pixels.flip(-1), pixels)


def warp(pixels: Tensor, matrices: Tensor) -> Tensor:
    """Sample each pixel of the new images where its matrix points, with the border repeated.

    Takes pixels uint8 [n, k, 3, h, w] and matrices float32 [n, 3, 3] of (x, y, 1), in coordinates
    where the image spans -1 to 1.

    >>> row = torch.tensor([1, 2, 3, 4], dtype=torch.uint8).view(1, 1, 1, 1, 4)
    >>> mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))[None]
    >>> warp(row, mirror).flatten().tolist()
    [4, 3, 2, 1]
    """
    flat = pixels.flatten(0, 1)
    matrices = matrices[:, :2].repeat_interleave(pixels.shape[1], 0)
    grid = F.affine_grid(matrices, list(flat.shape), align_corners=False)
    warped = F.grid_sample(flat.float(), grid, padding_mode="border", align_corners=False)
    return warped.round().to(torch.uint8).view_as(pixels)


def shift_matrices(draws: Tensor, limit: float) -> Tensor:
    """Translate and scale by up to `limit` of the size: matrices float32 [n, 3, 3] for `warp`.

    Takes draws in [0, 1) as [n, 3] (x, y, scale).

    >>> shift_matrices(torch.tensor([[0.75, 0.5, 0.5]]), 0.5)[0].tolist()
    [[1.0, 0.0, 0.5], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    x, y, zoom = ((draws * 2 - 1) * limit * 2).unbind(1)
    scale = 1 + zoom / 2
    return _matrix(scale, 0, x, 0, scale, y)


def rotation_matrices(draw: Tensor, degrees: float) -> Tensor:
    """Rotate square images by up to ± `degrees`: matrices float32 [n, 3, 3] from draws [n].

    >>> rotation_matrices(torch.tensor([0.5]), 30)[0].tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    angle = (draw.double() * 2 - 1) * math.radians(degrees)
    return _matrix(angle.cos(), -angle.sin(), 0, angle.sin(), angle.cos(), 0)


def crop_matrices(draws: Tensor, min_area: float) -> Tensor:
    """Resize a rectangle of square images, of at least the share `min_area` of the area, to the
    whole image.

    Takes draws in [0, 1) as [n, 4] (area, aspect, x, y); returns matrices float32 [n, 3, 3] for
    `warp`.

    >>> crop_matrices(torch.tensor([[0.0, 0.5, 0.5, 0.0]]), 0.25)[0].tolist()
    [[0.5, 0.0, 0.0], [0.0, 0.5, -0.5], [0.0, 0.0, 1.0]]
    """
    width, height = rectangles(draws[:, :2], (min_area, 1.0), CROP_ASPECT)
    x, y = (draws[:, 2:].double() * 2 - 1).unbind(1)
    return _matrix(width, 0, x * (1 - width), 0, height, y * (1 - height))


def _matrix(*entries: Tensor | int) -> Tensor:
    # The first two rows of the matrices, row by row; the third is (0, 0, 1).
    zeros = torch.zeros_like(next(entry for entry in entries if isinstance(entry, Tensor)))
    columns = [zeros + entry for entry in (*entries, 0, 0, 1)]
    return torch.stack(columns, dim=1).float().unflatten(1, (3, 3))


def rectangles(draws: Tensor, area: tuple[float, float], aspect: float) -> tuple[Tensor, Tensor]:
    """Choose the sides of rectangles inside the unit square: width and height, float64 [n].

    Takes draws in [0, 1) as [n, 2]: one for the area, between two bounds, and one for the logarithm
    of width over height, up to `aspect` in either direction as far as the square allows.

    >>> rectangles(torch.tensor([[0.0, 0.5]]), (0.25, 1.0), 4 / 3)
    (tensor([0.5000], dtype=torch.float64), tensor([0.5000], dtype=torch.float64))
    """
    # In float64, so that rounding errors vanish in the float32 of the matrices.
    area_draw, aspect_draw = draws.double().unbind(1)
    share = area[0] + area_draw * (area[1] - area[0])
    limit = (-share.log()).clamp(max=math.log(aspect))
    ratio = ((aspect_draw * 2 - 1) * limit).exp()
    return (share * ratio).sqrt(), (share / ratio).sqrt()


def brighten(pixels: Tensor, draw: Tensor, limit: float) -> Tensor:
    """Multiply brightness by 1 ± `limit`; takes pixels uint8 [n, k, 3, h, w] and draws [n]."""
    factor = (1 + (draw * 2 - 1) * limit).view(-1, 1, 1, 1, 1)
    return (pixels.float() * factor).round().clamp(0, 255).to(torch.uint8)


def erase(pixels: Tensor, draws: Tensor, p: float) -> Tensor:
    """Turn a rectangle of the images grey with probability `p`: where the first draw is below it.

    Takes pixels uint8 [n, k, 3, h, w] and draws in [0, 1) as [n, 5] (whether, area, aspect, x, y);
    all images of a row lose the same rectangle.

    >>> dark = torch.zeros(1, 1, 1, 2, 4, dtype=torch.uint8)
    >>> erase(dark, torch.tensor([[0.0, 0.9, 0.5, 0.9, 0.0]]), 0.5).flatten().tolist()
    [0, 0, 128, 128, 0, 0, 0, 0]
    """
    width, height = rectangles(draws[:, 1:3], ERASE_AREA, ERASE_ASPECT)
    erased = rectangle_mask(width, height, draws[:, 3:], pixels.shape[-2:])
    erased &= (draws[:, 0] < p).view(-1, 1, 1, 1, 1)
    return torch.where(erased, GREY, pixels)


def rectangle_mask(width: Tensor, height: Tensor, draws: Tensor, size: tuple[int, ...]) -> Tensor:
    """Mark the pixels of rectangles in images of a size (h, w): bool [n, 1, 1, h, w].

    Takes their sides as shares [n] and draws of their positions in [0, 1) as [n, 2] (x, y).

    >>> half = torch.tensor([0.5])
    >>> rectangle_mask(half, half, torch.tensor([[0.0, 0.9]]), (2, 2)).int().flatten().tolist()
    [0, 0, 1, 0]
    """
    columns = _interval_mask(width, draws[:, 0], size[1])
    rows = _interval_mask(height, draws[:, 1], size[0])
    return (rows[:, :, None] & columns[:, None, :])[:, None, None]


def _interval_mask(share: Tensor, draw: Tensor, size: int) -> Tensor:
    # A rectangle is never thinner than a pixel.
    length = (share * size).round().clamp(1, size)
    first = (draw * (size - length + 1)).floor()
    pixel = torch.arange(size)
    return (pixel >= first[:, None]) & (pixel < (first + length)[:, None])
