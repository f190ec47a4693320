"""The names of the three parts, the rows that train, choose and test, and the sizes of parts."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mip.errors import DataError, list_first, quote

if TYPE_CHECKING:
    from mip.data.table import Rows

PARTS = ("train", "valid", "test")
"""The parts, in the order in which they are returned."""


SYNONYMS: Mapping[str, str] = {
    "training": "train",
    "dev": "valid",
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


def part_in_name(name: str) -> str | None:
    """Return the part that the name of a file has among its words; None unless it has one.

    >>> part_in_name("train-00000-of-00002.parquet"), part_in_name("houses_val.csv")
    ('train', 'valid')
    >>> part_in_name("trains.csv"), part_in_name("train_and_test.csv")
    (None, None)
    """
    parts = {*filter(None, map(part_name, re.split("[^a-z]+", name.lower())))}
    return parts.pop() if len(parts) == 1 else None


def parts_of_files(files: Sequence[Path], folder: Path) -> list[str] | None:
    """Return the part of each file of a table, which its name has, or that of its folder below
    `folder`: train for some and another one for others. None if files are not named so.

    Raises DataError for a file of no part beside those.

    >>> parts_of_files([Path("data/train-0.parquet"), Path("data/val-0.parquet")], Path("data"))
    ['train', 'valid']
    """
    tops = [file.relative_to(folder).parts[0] for file in files]
    pairs = zip(tops, files, strict=True)
    found = {file: part_name(top) or part_in_name(file.name) for top, file in pairs}
    if not divides(found.values()):
        return None
    names = {file.relative_to(folder).as_posix(): part for file, part in found.items()}
    train = next(str(file) for file, part in found.items() if part == "train")
    cure = f"name it after a part, move it away, or give one file, such as {train}"
    check_no_stray(folder, names, "files of the parts", cure)
    return [part for part in found.values() if part]


def divides(parts: Collection[str | None]) -> bool:
    """Whether these are parts to train on and others, whatever else is among them."""
    return len({*parts} - {None}) > 1 and "train" in parts


def check_no_stray(folder: Path, parts: Mapping[str, str | None], what: str, cure: str) -> None:
    """Raise DataError for a name of no part beside those of train and another one."""
    strays = sorted(name for name, part in parts.items() if not part)
    if strays and divides(parts.values()):
        named = sorted({*parts} - {*strays})
        listed = list_first(named, 5)
        raise DataError(f"{folder}: {quote(strays[0])} is beside the {what} ({listed}): {cure}")


def has_parts(rows: Rows) -> bool:
    """Return whether the column `part` of rows names the parts, train and another one."""
    names = set[str | None]()
    with suppress(DataError):  # of a column of images
        for chunk in rows.chunks(["part"]) if "part" in rows.columns else ():
            names |= {part_name(word) for word in set(chunk.texts("part"))}
    return divides(names) and None not in names


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
