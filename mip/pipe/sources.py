"""What a pipe reads its rows from: a table, or a tree of tensors of one length."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from mip.errors import DataError

CELLS = (bool, int, float, complex, str, bytes, np.generic)
"""The types of a single value, which has no rows."""


def source_of(given: Any) -> Any:
    """Check a source of rows, and make tensors of its numpy arrays and pandas columns: a table or
    anything else with a length and a method `take`, or a tree (tuples and dicts) of these and of
    tensors, with None for what is missing.

    Raises DataError with the cure for anything else, and for rows of different numbers.

    >>> source_of({"x": np.arange(3), "y": torch.ones(3)})
    {'x': tensor([0, 1, 2]), 'y': tensor([1., 1., 1.])}
    >>> source_of((torch.ones(3, 2), torch.ones(4)))
    Traceback (most recent call last):
    mip.errors.DataError: a pipe's source has 3 rows in '0' and 4 rows in '1'
    """
    counts: dict[str, int] = {}
    source = _readable(given, "", counts)
    if not counts:
        raise DataError(f"a pipe's source holds no tensors: {type(given).__name__}")
    (first, rows), *others = counts.items()
    for path, count in others:
        if count != rows:
            raise DataError(
                f"a pipe's source has {rows} rows in '{first}' and {count} rows in '{path}'"
            )
    return source


def _readable(given: Any, path: str, counts: dict[str, int]) -> Any:
    if isinstance(given, dict):
        return {name: _readable(each, _join(path, name), counts) for name, each in given.items()}
    if isinstance(given, tuple):
        parts = [_readable(each, _join(path, k), counts) for k, each in enumerate(given)]
        return getattr(given, "_make", type(given))(parts)
    if given is None and path:
        return None
    array = given.to_numpy() if hasattr(given, "to_numpy") else given
    source = _tensor(array) if isinstance(array, np.ndarray) else given
    if not _has_rows(source):
        where = f" at '{path}'" if path else ""
        raise DataError(f"a pipe cannot read rows from {_described(given)}{where}: {_cure(given)}")
    counts[path] = len(source)
    return source


def _join(path: str, name: Any) -> str:
    return f"{path}/{name}" if path else str(name)


def _tensor(array: np.ndarray) -> Any:
    try:
        # torch shares the memory only of an array that may be written to and runs forwards.
        shares = array.flags.writeable and min(array.strides, default=0) >= 0
        return torch.from_numpy(array if shares else array.copy())
    except (TypeError, ValueError):  # words, objects, foreign byte order
        return array


def _has_rows(source: Any) -> bool:
    if isinstance(source, Tensor):
        return source.dim() > 0
    foreign = isinstance(source, np.ndarray) or hasattr(source, "to_pandas")  # another `take`
    return hasattr(source, "take") and hasattr(source, "__len__") and not foreign


def _described(given: Any) -> str:
    if isinstance(given, (Tensor, np.ndarray)):
        return f"a {type(given).__name__} of {given.dtype} {list(given.shape)}"
    kind = type(given).__name__
    return f"the {kind} {given!r:.40}" if isinstance(given, CELLS) else f"a {kind}"


def _cure(given: Any) -> str:
    if isinstance(given, list):
        return "stack a list of rows (torch.utils.data.default_collate), or name columns in a dict"
    if isinstance(given, str):
        return "mip.read makes a table of a file, mip.from_columns of columns of words"
    if isinstance(given, CELLS):
        return "make a tensor of a list of numbers, by torch.tensor"
    if isinstance(given, np.ndarray):
        return "mip.from_columns makes a table of columns"
    if hasattr(given, "to_pandas"):
        return "mip.from_frame(table.to_pandas()) makes a table"
    if hasattr(given, "iloc"):
        return "mip.from_frame makes a table of a DataFrame"
    if hasattr(given, "tensors"):
        return "give the tensors of a TensorDataset, its `tensors`"
    if isinstance(given, Dataset) and not isinstance(given, IterableDataset):
        return "mip.data.from_dataset makes a table of a Dataset"
    if hasattr(given, "__iter__"):
        return "an iterable of batches is given to fit as it is"
    return "give a table, or tensors or numpy arrays, alone or in dicts and tuples"
