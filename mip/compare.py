"""Where two trees of plain values differ."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple

NOTHING: Final = "nothing"
"""Stands for a value that only the other tree has."""


class Difference(NamedTuple):
    """A dotted path, and what two trees have there."""

    path: str
    one: Any
    other: Any


def differences(
    one: Any, other: Any, ignore: Collection[str] = (), path: str = ""
) -> Iterator[Difference]:
    """Yield where two trees of plain values differ, in the order of the first.

    Mappings are compared key by key and lists of mappings entry by entry. Values at a path that
    matches a pattern of `ignore` may differ, if both trees have one.

    >>> one = {"a": {"b": 1, "c": [2]}, "z": 1}
    >>> for difference in differences(one, {"a": {"b": 1, "c": [3], "d": 4}, "z": 2}, ["z"]):
    ...     print(difference)
    Difference(path='a.c', one=[2], other=[3])
    Difference(path='a.d', one='nothing', other=4)
    """
    ours, theirs = _entries(one), _entries(other)
    if ours is not None and theirs is not None:
        for name in {**ours, **theirs}:
            pair = ours.get(name, NOTHING), theirs.get(name, NOTHING)
            yield from differences(*pair, ignore, f"{path}.{name}" if path else name)
    elif one != other:
        may_differ = any(fnmatchcase(path, pattern) for pattern in ignore)
        if NOTHING in (one, other) or not may_differ:
            yield Difference(path, one, other)


def _entries(tree: Any) -> Mapping[str, Any] | None:
    if isinstance(tree, (list, tuple)) and any(isinstance(child, Mapping) for child in tree):
        return {str(k): child for k, child in enumerate(tree)}
    if isinstance(tree, str) and tree == NOTHING:
        return {}
    return tree if isinstance(tree, Mapping) else None
