"""Photos with greys of more than eight bits, and which of their values are black and white."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mip.data import Table
from mip.images import guess_value_range

LOOKED_AT = 50
"""Rows whose photos are looked at."""


class Greys(NamedTuple):
    """The `value_range` of an image branch as TOML, and what is seen in photos; both may be ""."""

    value_range: str = ""
    seen: str = ""

    @property
    def note(self) -> str:
        """What is seen, and what follows, in a line."""
        return f"{self.seen} (value_range = {self.value_range})" if self.seen else ""


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
    from mip.images import find_deep_greys  # which needs torch

    seen = find_deep_greys(table, columns, LOOKED_AT)
    if not seen:
        return Greys()
    lows, highs = zip(*seen.values(), strict=True)
    black, white = guess_value_range(min(lows), max(highs))
    if (black, white) == (0, 65535) and [*seen] == ["16-bit"]:
        return Greys()
    ranges = (f"{depth} greys from {low:g} to {high:g}" for depth, (low, high) in seen.items())
    text = f"{' and '.join(ranges)} in {min(len(table), LOOKED_AT)} rows that were looked at"
    more = "; all are read alike, so they should have one scale" if len(seen) > 1 else ""
    return Greys(f"[{black:.12g}, {white:.12g}]", text + more)
