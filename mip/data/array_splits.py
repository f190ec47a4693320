"""Rows in arrays, tensors and Datasets: their number, and some of them by position."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from mip.errors import DataError


def are_arrays(rows: Any) -> bool:
    """Return whether rows are in an array, a tensor, a Dataset, a tuple of what holds rows, such as
    (x, y), or a dict with a tensor in it, and not in a table or what becomes one.

    >>> are_arrays((np.zeros(3), [1, 2, 3])), are_arrays({"area": [70, 95]})
    (True, False)
    """
    if isinstance(rows, Mapping):
        return any(_is_torch(part, "Tensor") or isinstance(part, tuple) for part in rows.values())
    if isinstance(rows, tuple):
        return bool(rows) and not any(isinstance(row, Mapping) for row in rows)
    return isinstance(rows, np.ndarray) or _is_torch(rows, "Tensor") or is_dataset(rows)


def is_dataset(rows: Any) -> bool:
    """Return whether rows are a Dataset of torch, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(rows, torch.utils.data.Dataset)


def _is_torch(value: Any, name: str) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, getattr(torch, name))


def count_array_rows(rows: Any) -> int:
    """Count the rows of arrays; raise DataError if they have different numbers of them.

    >>> count_array_rows((np.zeros(3), [1, 2]))
    Traceback (most recent call last):
    mip.errors.DataError: split: the parts have 3 and 2 rows
    """
    if not isinstance(rows, (Mapping, tuple)):
        return len(rows)
    parts = rows.values() if isinstance(rows, Mapping) else rows
    counts = sorted({count_array_rows(part) for part in parts}, reverse=True)
    if len(counts) != 1:
        raise DataError(f"split: the parts have {' and '.join(map(str, counts))} rows")
    return counts[0]


def take_array_rows(rows: Any, index: np.ndarray) -> Any:
    """Take rows by position (int64 [n]), and return the same kind; of a Dataset a Subset.

    >>> take_array_rows((np.arange(5), list("abcde")), np.array([3, 0]))
    (array([3, 0]), ['d', 'a'])
    """
    if isinstance(rows, Mapping):
        return {name: take_array_rows(part, index) for name, part in rows.items()}
    if isinstance(rows, tuple):
        parts = [take_array_rows(part, index) for part in rows]
        return getattr(rows, "_make", tuple)(parts)
    if is_dataset(rows):
        from torch.utils.data import Subset

        return Subset(rows, index.tolist())
    if hasattr(rows, "iloc"):
        return rows.iloc[index]
    return [rows[k] for k in index.tolist()] if isinstance(rows, list) else rows[index]
