"""Greys of more than eight bits: which of their values are black and white."""

from __future__ import annotations

from math import ceil, floor, log10
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


MAX_16_BITS = 65535
"""The grey of 16 bits that is white, unless a range of values says otherwise."""


ENOUGH = 0.25
"""Values that use a smaller share of a range have too few levels left of its 256."""


class NoScaleError(ValueError):
    """Pixels of 32 bits, of which nothing says what is black and white."""


def depth(image: Image.Image) -> str:
    """Return how deep the greys of an image are, "" if they have eight bits or are colours.

    >>> from PIL import Image
    >>> [depth(Image.new(mode, (1, 1))) for mode in ("I;16", "I", "F", "L", "RGB")]
    ['16-bit', '32-bit', '32-bit float', '', '']
    """
    if image.mode.startswith("I;16"):
        return "16-bit"
    return {"I": "32-bit", "F": "32-bit float"}.get(image.mode, "")


def extremes(image: Image.Image) -> tuple[float, float]:
    """Return the smallest and the largest grey of a deep image that are finite, as stored."""
    values = _stored_greys(image)
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def _stored_greys(image: Image.Image) -> np.ndarray:
    stored = image if image.mode == "F" else image.convert("I")
    return np.asarray(stored, dtype=np.float64)


def scale_greys(image: Image.Image, value_range: tuple[float, float] | None) -> Image.Image:
    """Scale a deep image to eight bits: the first value of the range is black, the second white,
    and so are those beyond. Without a range 65535 is white.

    Raises NoScaleError for 32 bits without a range.

    >>> from PIL import Image
    >>> image = Image.fromarray(np.array([[-5, 0, 2047, 4095, 9999]], dtype=np.int32))
    >>> np.asarray(scale_greys(image, (0, 4095))).tolist()
    [[0, 0, 127, 255, 255]]
    """
    from PIL import Image

    if value_range is None:
        if image.mode in {"F", "I"}:
            raise NoScaleError
        return image.convert("I").point(lambda grey: grey / 257).convert("L")
    low, high = value_range
    shares = (np.nan_to_num(_stored_greys(image), nan=low) - low) / (high - low)
    return Image.fromarray((shares.clip(0, 1) * 255).astype(np.uint8))


def is_nearly_black(high: float) -> bool:
    """Whether greys of 16 bits up to this one leave few of the 256 levels between black and white,
    where 65535 is white.

    >>> [is_nearly_black(high) for high in (0, 4095, 16383, 30000)]
    [False, True, True, False]
    """
    return 0 < high < ENOUGH * MAX_16_BITS


def guess_value_range(low: float, high: float) -> tuple[float, float]:
    """Guess which values are black and white from the smallest and the largest that are seen.

    Values that are not negative begin at 0 and end at 1, or at the largest number of as many bits,
    if that leaves them a quarter of the range; others at round numbers.

    >>> [guess_value_range(*seen) for seen in ((0, 2299), (7, 450), (0.1, 0.9))]
    [(0.0, 4095.0), (0.0, 511.0), (0.0, 1.0)]
    >>> guess_value_range(-1000, 1299.5), guess_value_range(30100, 31042)
    ((-1000.0, 1300.0), (30100.0, 31050.0))
    """
    if low >= 0:
        white = 1 if high <= 1 else 2 ** ceil(high).bit_length() - 1
        if high - low >= ENOUGH * white:
            return 0.0, float(white)
    if not high > low:
        return low, low + 1.0
    step = 10.0 ** (floor(log10(high - low)) - 1)
    low, high = floor(low / step) * step, ceil(high / step) * step
    return float(f"{low:.12g}"), float(f"{high:.12g}")
