"""The names of the three parts: the rows that train, choose and test."""

from __future__ import annotations

from collections.abc import Mapping

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
