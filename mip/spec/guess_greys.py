"""Photos with greys of more than eight bits, and which of their values are black and white."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from typing import NamedTuple

import numpy as np

from mip.data import Table
from mip.errors import DataError
from mip.images import guess_value_range, photos_of

LOOKED_AT = 50
"""Rows whose photos are looked at."""


class Greys(NamedTuple):
    """The `value_range` of an image branch as TOML, and what is seen in photos; both may be ""."""

    value_range: str = ""
    seen: str = ""


def guess_greys(table: Table, columns: Sequence[str]) -> Greys:
    """Guess which values are black and white in photos with greys of 16 or 32 bits.

    >>> from PIL import Image
    >>> from mip.data import from_columns
    >>> rows = from_columns({"scan": [Image.new("I;16", (1, 1), grey) for grey in (0, 2299)]})
    >>> guess_greys(rows, ["scan"]).value_range
    '[0, 4095]'
    """
    if not columns:
        return Greys()
    from mip.images import deep_greys  # which needs torch

    spread = np.linspace(0, len(table) - 1, min(len(table), LOOKED_AT)).astype(int)
    rows = table.take(spread)
    seen: dict[str, tuple[float, float]] = {}
    for photo in chain.from_iterable(chain.from_iterable(photos_of(rows, c) for c in columns)):
        with suppress(DataError):  # a photo that cannot be read is counted as missing
            if photo is not None and (found := deep_greys(table.root, photo)):
                depth, low, high = found
                least, most = seen.get(depth, (low, high))
                seen[depth] = min(least, low), max(most, high)
    if not seen:
        return Greys()
    lows, highs = zip(*seen.values(), strict=True)
    black, white = guess_value_range(min(lows), max(highs))
    if (black, white) == (0, 65535) and [*seen] == ["16-bit"]:
        return Greys()
    ranges = (f"{depth} greys from {low:g} to {high:g}" for depth, (low, high) in seen.items())
    text = f"{' and '.join(ranges)} in {len(rows)} rows that were looked at"
    more = "; all are read alike, so they should have one scale" if len(seen) > 1 else ""
    return Greys(f"[{black:.12g}, {white:.12g}]", text + more)
