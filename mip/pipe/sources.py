"""Sources of rows for a pipe: a table, a Dataset, or a tree of tensors of one length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from attrs import field, frozen
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset, default_collate

from mip.errors import DataError

NUMBER = (bool, int, float, complex, np.bool_, np.number)
"""The types of single numbers, which have no rows."""


@frozen
class DatasetRows:
    """The items of a map-style Dataset as rows; those of a batch are read when it is made, and
    collated by `torch.utils.data.default_collate`, whose lists become tuples. As in other sources
    float64 becomes the default dtype, unless it is that of a tensor.

    >>> DatasetRows([(1, 2.0), (3, 4.0), (5, 6.0)]).take([2, 0])
    (tensor([5, 1]), tensor([6., 2.]))
    """

    dataset: Any = field(repr=lambda dataset: type(dataset).__name__)

    def __len__(self) -> int:
        return len(self.dataset)

    def take(self, index: Sequence[int] | Tensor) -> Any:
        """Read the items at some positions, and collate them: a batch of so many rows."""
        positions = [int(position) for position in index]
        if hasattr(self.dataset, "__getitems__"):
            items = self.dataset.__getitems__(positions)
        else:
            items = [self.dataset[position] for position in positions]
        return _collated(default_collate(items), items[0]) if items else default_collate(items)


def _collated(batch: Any, item: Any) -> Any:
    """Make tuples of lists, and the default dtype of a float64 that is not that of a tensor."""
    if isinstance(batch, dict):
        return {name: _collated(part, item[name]) for name, part in batch.items()}
    if isinstance(batch, (list, tuple)) and len(batch) == len(item):
        parts = [_collated(part, each) for part, each in zip(batch, item, strict=True)]
        return batch._make(parts) if hasattr(batch, "_make") else tuple(parts)
    if isinstance(batch, Tensor) and batch.dtype == torch.float64 and not isinstance(item, Tensor):
        return _in_default_dtype(batch, "")
    return tuple(batch) if isinstance(batch, list) else batch


def as_source(value: Any) -> Any:
    """Convert what holds rows to a source of rows for a pipe.

    A source is a table, or anything else with a length and a method `take`; a map-style Dataset
    (`DatasetRows`); or tensors, numpy arrays, DataFrames of numbers and lists, alone or in a tree
    (tuples and dicts), with None for what is missing. A list holds a row in each place: a number, a
    tensor, or a tuple or dict of these. Arrays, frames and lists become tensors, float64 in torch's
    default dtype; tensors are used as they are.

    Raises DataError with the cure for anything else, for leaves that differ in their number of
    rows, and for a float64 that the default dtype cannot hold.

    >>> as_source({"x": np.arange(3), "y": [0.5, 1.5, 2.5]})
    {'x': tensor([0, 1, 2]), 'y': tensor([0.5000, 1.5000, 2.5000])}
    >>> as_source([(torch.zeros(2), 0), (torch.ones(2), 1)])
    (tensor([[0., 0.],
            [1., 1.]]), tensor([0, 1]))
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
    if isinstance(value, Mapping):
        return {name: _convert(child, _join(path, name), counts) for name, child in value.items()}
    if isinstance(value, tuple):
        children = [_convert(child, _join(path, k), counts) for k, child in enumerate(value)]
        return getattr(value, "_make", type(value))(children)
    if isinstance(value, TensorDataset):
        return _convert(value.tensors, path, counts)
    if isinstance(value, list) and value and isinstance(value[0], (tuple, Mapping)):
        return _convert(_transpose(value, path), path, counts)
    if value is None and path:
        return None
    source = _as_rows(value, path)
    if source is None:
        raise DataError(f"a pipe cannot read rows from {_describe(value, path)}: {_cure(value)}")
    counts[path] = len(source)
    return source


def _join(path: str, name: Any) -> str:
    return f"{path}/{name}" if path else str(name)


def _transpose(rows: list[Any], path: str) -> Any:
    """Turn rows that are tuples or dicts into a tuple or dict of columns, each a list."""
    for position, row in enumerate(rows):
        if _names(row) != _names(rows[0]):
            differ = f"the parts of row {position} differ from row 0's"
            raise DataError(f"a pipe cannot read rows from {_describe(rows, path)}: {differ}")
    if isinstance(rows[0], Mapping):
        return {name: [row[name] for row in rows] for name in rows[0]}
    return tuple(map(list, zip(*rows, strict=True)))


def _names(row: Any) -> list[Any] | int | None:
    return list(row) if isinstance(row, Mapping) else len(row) if isinstance(row, tuple) else None


def _as_rows(value: Any, path: str) -> Any:
    if isinstance(value, Tensor):
        return value if value.dim() and value.layout == torch.strided else None
    if isinstance(value, list):
        return _stack(value, path) if value else None
    if isinstance(value, IterableDataset):
        return None
    if isinstance(value, Dataset) or hasattr(value, "__getitems__"):
        return DatasetRows(value) if hasattr(value, "__len__") else None
    if hasattr(value, "to_pandas") or hasattr(value, "tocsr") or isinstance(value, (str, bytes)):
        return None
    array = _frame_array(value) if hasattr(value, "to_numpy") else value
    if isinstance(array, np.ndarray):
        return _as_tensor(array, path) if array.ndim else None
    if not hasattr(value, "__len__"):
        return None
    if hasattr(value, "take"):
        return value
    return DatasetRows(value) if hasattr(value, "__getitem__") else None


def _frame_array(frame: Any) -> np.ndarray:
    """Return the array of a DataFrame, Series or the like; numbers and bools together as floats."""
    array = frame.to_numpy()
    kinds = [getattr(dtype, "kind", "O") for dtype in frame.dtypes] if array.ndim == 2 else ["O"]
    if array.dtype == object and set(kinds) <= set("biuf"):
        return frame.to_numpy(dtype=np.float64)
    return array


def _stack(rows: list[Any], path: str) -> Tensor | None:
    if not all(isinstance(row, (Tensor, np.ndarray)) for row in rows):
        try:
            return _as_tensor(np.array(rows), path)
        except ValueError:  # lists of unequal length
            return None
    for position, row in enumerate(rows):
        if row.shape != rows[0].shape:
            shapes = f"{list(rows[0].shape)} and, in row {position}, {list(row.shape)}"
            raise DataError(
                f"a pipe cannot read rows from {_describe(rows, path)}: they have the shapes "
                f"{shapes}; tensors that belong together row by row go in a tuple, (x, y)"
            )
    if rows and isinstance(rows[0], Tensor):
        return torch.stack([torch.as_tensor(row) for row in rows])
    return _as_tensor(np.array(rows), path)


def _as_tensor(array: np.ndarray, path: str) -> Tensor | None:
    try:
        # torch can share memory only with an array that is writeable and has no negative strides.
        shares = array.flags.writeable and min(array.strides, default=0) >= 0
        tensor = torch.from_numpy(array if shares else array.copy())
    except (TypeError, ValueError):  # strings, objects, foreign byte order
        return None
    return _in_default_dtype(tensor, path) if tensor.dtype == torch.float64 else tensor


def _in_default_dtype(tensor: Tensor, path: str) -> Tensor:
    converted = tensor.to(torch.get_default_dtype())
    if (converted.isinf() & tensor.isfinite()).any():
        where, dtype = f" at '{path}'" if path else "", str(converted.dtype).split(".")[-1]
        raise DataError(
            f"a pipe's source{where} has numbers too large for {dtype}: scale them, or pass a "
            "tensor (torch.from_numpy), which keeps its dtype"
        )
    return converted


def _describe(value: Any, path: str) -> str:
    where = f" at '{path}'" if path else ""
    kind = type(value).__name__
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{kind} {value.dtype} {list(value.shape)}{where}"
    return f"{kind} {value!r:.40}{where}" if isinstance(value, (*NUMBER, str)) else kind + where


_CODES = "text becomes numbers by pandas.factorize(labels)[0], one for each class"


def _cure(value: Any) -> str:
    if isinstance(value, Tensor) and value.layout != torch.strided:
        return "a sparse tensor has no rows to take: pass x.to_dense()"
    if hasattr(value, "tocsr"):
        return "a sparse matrix has no rows to take: pass x.toarray()"
    if isinstance(value, Dataset) and not isinstance(value, IterableDataset):
        return "a Dataset needs the method __len__, the number of its rows"
    return _cure_of_table(value)


def _cure_of_table(value: Any) -> str:
    if isinstance(value, list):
        texts = value and isinstance(value[0], str)
        rows = "a list holds a row in each place, all numbers or all tensors of one shape"
        return f"{_CODES if texts else rows}; mip.from_columns makes a table of columns of text"
    if isinstance(value, str):
        return "mip.read reads a table from a file, mip.from_columns makes one of columns of text"
    if isinstance(value, NUMBER):
        return "make a tensor of a list of numbers with torch.tensor"
    if isinstance(value, np.ndarray):
        return f"{_CODES}; mip.from_columns makes a table of columns"
    if hasattr(value, "to_pandas"):
        return "mip.from_frame(table.to_pandas()) makes a table"
    if hasattr(value, "iloc"):
        return f"{_CODES}; for a model of a spec, mip.from_frame makes a table of a DataFrame"
    if hasattr(value, "__iter__"):
        return "an iterable of batches can be passed to fit as it is"
    return "pass a table, a Dataset, or tensors, arrays and lists, alone or in dicts and tuples"
