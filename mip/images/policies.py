"""Operations on colours and shapes by torchvision's functions, with draws of our own instead of
torch's global generator: the changes of colour of `Augment`, RandAugment and TrivialAugmentWide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import ModuleType

from torch import Tensor

Operation = Callable[[ModuleType, Tensor, float], Tensor]
"""Changes pixels uint8 [..., 3, h, w] by an amount, with torchvision's `functional`."""


OPERATIONS: Mapping[str, Operation] = {
    "Identity": lambda tv, x, by: x,
    "ShearX": lambda tv, x, by: _shear(tv, x, [_degrees(by), 0.0]),
    "ShearY": lambda tv, x, by: _shear(tv, x, [0.0, _degrees(by)]),
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
"""The operations of both policies, by the names that torchvision gives them."""


COLOR_CHANGES: Mapping[str, Operation] = {
    "contrast": OPERATIONS["Contrast"],
    "saturation": OPERATIONS["Color"],
    "hue": lambda tv, x, by: tv.adjust_hue(x, by),
}
"""The changes of colour that are fields of `Augment`."""


UNSIGNED = {"Posterize", "Solarize"}
"""Operations without a direction."""


RAND_LIMITS = {
    "Shear": 0.3,
    "Translate": 150 / 331,
    "Rotate": 30.0,
    "Posterize": 4.0,
    "Solarize": 1.0,
}


TRIVIAL_LIMITS = {
    "Shear": 0.99,
    "Translate": 32.0,
    "Rotate": 135.0,
    "Posterize": 6.0,
    "Solarize": 1.0,
}
"""The amounts of the largest magnitude; 0.9 and 0.99 for all other operations."""


def _degrees(slope: float) -> float:
    return math.degrees(math.atan(slope))


def _shear(tv: ModuleType, pixels: Tensor, angles: list[float]) -> Tensor:
    return tv.affine(pixels, 0.0, [0, 0], 1.0, angles, center=[0, 0])


def recolor(name: str, pixels: Tensor, amount: float) -> Tensor:
    """Apply one of `COLOR_CHANGES` by an amount to pixels uint8 [..., 3, h, w]."""
    from torchvision.transforms.v2 import functional

    return COLOR_CHANGES[name](functional, pixels, amount)


def rand_augment(pixels: Tensor, draws: list[float]) -> Tensor:
    """Apply RandAugment's two operations of magnitude 9 of 30 to pixels uint8 [..., 3, h, w].

    Takes draws in [0, 1): operation and direction of the first, then of the second.

    >>> import torch
    >>> dark = torch.zeros(3, 2, 2, dtype=torch.uint8)
    >>> rand_augment(dark, [0.0, 0.0, 0.0, 0.0]).equal(dark)
    True
    """
    for draw, direction in (draws[:2], draws[2:4]):
        name = _choose_operation(draw)
        limit = _limit(RAND_LIMITS, 0.9, name) * (pixels.shape[-1] if "Translate" in name else 1)
        pixels = apply_operation(pixels, name, 9 / 30 * limit, direction)
    return pixels


def trivial_augment(pixels: Tensor, draws: list[float]) -> Tensor:
    """Apply TrivialAugmentWide's operation to pixels uint8 [..., 3, h, w].

    Takes draws in [0, 1): operation, direction, magnitude (one of 31).

    >>> import torch
    >>> dark = torch.zeros(3, 2, 2, dtype=torch.uint8)
    >>> trivial_augment(dark, [0.8, 0.0, 0.999]).unique().tolist()
    [255]
    """
    name = _choose_operation(draws[0])
    amount = int(draws[2] * 31) / 30 * _limit(TRIVIAL_LIMITS, 0.99, name)
    return apply_operation(pixels, name, amount, draws[1])


def _choose_operation(draw: float) -> str:
    return list(OPERATIONS)[int(draw * len(OPERATIONS))]


def _limit(limits: Mapping[str, float], default: float, name: str) -> float:
    return limits.get(name.rstrip("XY"), default)


def apply_operation(pixels: Tensor, name: str, amount: float, direction: float) -> Tensor:
    """Apply an operation by an amount, which is negated if the draw `direction` is below one half.

    >>> import torch
    >>> grey = torch.full((3, 1, 1), 100, dtype=torch.uint8)
    >>> apply_operation(grey, "Brightness", 0.5, 0.1).tolist()
    [[[50]], [[50]], [[50]]]
    """
    from torchvision.transforms.v2 import functional

    negated = direction < 0.5 and name not in UNSIGNED
    return OPERATIONS[name](functional, pixels, -amount if negated else amount)
