"""The names of the three parts, the rows that train, choose and test, and the sizes of parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from mip.errors import DataError

if TYPE_CHECKING:
    from mip.data.table import Rows

PARTS = ("train", "valid", "test")
"""The parts, in the order in which they are returned."""


SYNONYMS: Mapping[str, str] = {
    "training": "train",
    "val": "valid",
    "validation": "valid",
    "testing": "test",
}
"""Other words for the parts, in lower case."""


def part_name(word: str) -> str | None:
    """Return the part that a word names, in any case; None if it names none.

    >>> part_name("train"), part_name("Validation"), part_name("car")
    ('train', 'valid', None)
    """
    name = word.strip().lower()
    return name if name in PARTS else SYNONYMS.get(name)


def has_parts(rows: Rows) -> bool:
    """Return whether the column `part` of rows names the parts, train and another one."""
    names = set[str | None]()
    with suppress(DataError):  # of a column of images
        for chunk in rows.chunks(["part"]) if "part" in rows.columns else ():
            names |= {part_name(word) for word in set(chunk.texts("part"))}
    return len(names) > 1 and "train" in names and None not in names


def part_sizes(fractions: Sequence[float], n_rows: int) -> np.ndarray:
    """Divide rows into parts: int64 [parts], where the largest remainders get the odd rows.

    >>> part_sizes((0.7, 0.15, 0.15), 10)
    array([7, 2, 1])
    """
    shares = np.asarray(fractions, dtype=np.float64) * n_rows
    sizes = np.floor(shares + 1e-9).astype(np.int64)
    odd = np.argsort(-(shares - sizes), kind="stable")[: n_rows - sizes.sum()]
    sizes[odd] += 1
    return sizes
