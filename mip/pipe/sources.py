"""Sources of rows for a pipe: a table, or a tree of tensors of one length."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from mip.errors import DataError

SCALARS = (bool, int, float, complex, str, bytes, np.generic)
"""The types of single values, which have no rows."""


def as_source(value: Any) -> Any:
    """Check a source of rows, and convert its numpy arrays and pandas columns to tensors.

    A source is a table, or anything else with a length and a method `take`, or a tree (tuples and
    dicts) of these and of tensors, with None for what is missing. Raises DataError with the cure
    for anything else, and for leaves that differ in their number of rows.

    >>> as_source({"x": np.arange(3), "y": torch.ones(3)})
    {'x': tensor([0, 1, 2]), 'y': tensor([1., 1., 1.])}
    >>> as_source((torch.ones(3, 2), torch.ones(4)))
    Traceback (most recent call last):
    mip.errors.DataError: a pipe's source has 3 rows in '0' and 4 rows in '1'
    """
    counts: dict[str, int] = {}
    source = _convert(value, "", counts)
    if not counts:
        raise DataError(f"a pipe's source contains no tensors: {type(value).__name__}")
    (first, n_rows), *others = counts.items()
    for path, count in others:
        if count != n_rows:
            raise DataError(
                f"a pipe's source has {n_rows} rows in '{first}' and {count} rows in '{path}'"
            )
    return source


def _convert(value: Any, path: str, counts: dict[str, int]) -> Any:
    if isinstance(value, dict):
        return {name: _convert(child, _join(path, name), counts) for name, child in value.items()}
    if isinstance(value, tuple):
        children = [_convert(child, _join(path, k), counts) for k, child in enumerate(value)]
        return getattr(value, "_make", type(value))(children)
    if value is None and path:
        return None
    array = value.to_numpy() if hasattr(value, "to_numpy") else value
    source = _as_tensor(array) if isinstance(array, np.ndarray) else value
    if not _has_rows(source):
        where = f" at '{path}'" if path else ""
        raise DataError(f"a pipe cannot read rows from {_describe(value)}{where}: {_cure(value)}")
    counts[path] = len(source)
    return source


def _join(path: str, name: Any) -> str:
    return f"{path}/{name}" if path else str(name)


def _as_tensor(array: np.ndarray) -> Tensor | np.ndarray:
    try:
        # torch can share memory only with an array that is writeable and has no negative strides.
        shares = array.flags.writeable and min(array.strides, default=0) >= 0
        return torch.from_numpy(array if shares else array.copy())
    except (TypeError, ValueError):  # strings, objects, foreign byte order
        return array


def _has_rows(source: Any) -> bool:
    if isinstance(source, Tensor):
        return source.dim() > 0
    # The `take` of numpy and Arrow is another one.
    foreign = isinstance(source, np.ndarray) or hasattr(source, "to_pandas")
    return hasattr(source, "take") and hasattr(source, "__len__") and not foreign


def _describe(value: Any) -> str:
    kind = type(value).__name__
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{kind} {value.dtype} {list(value.shape)}"
    return f"{kind} {value!r:.40}" if isinstance(value, SCALARS) else kind


def _cure(value: Any) -> str:
    if isinstance(value, list):
        return "stack a list of rows (torch.utils.data.default_collate), or name columns in a dict"
    if isinstance(value, str):
        return "mip.read reads a table from a file, mip.from_columns makes one of columns of text"
    if isinstance(value, SCALARS):
        return "make a tensor of a list of numbers with torch.tensor"
    if isinstance(value, np.ndarray):
        return "mip.from_columns makes a table of columns"
    if hasattr(value, "to_pandas"):
        return "mip.from_frame(table.to_pandas()) makes a table"
    if hasattr(value, "iloc"):
        return "mip.from_frame makes a table of a DataFrame"
    if hasattr(value, "tensors"):
        return "pass the tensors of a TensorDataset, its `tensors`"
    if isinstance(value, Dataset) and not isinstance(value, IterableDataset):
        return "mip.data.from_dataset makes a table of a Dataset"
    if hasattr(value, "__iter__"):
        return "an iterable of batches can be passed to fit as it is"
    return "pass a table, or tensors or numpy arrays, alone or in dicts and tuples"
