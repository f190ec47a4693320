"""From a map-style torch Dataset to a table, whose columns are inferred from its items."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mip.data.cells import IMAGE_SUFFIXES, as_array, is_image, is_list, is_missing, is_tensor
from mip.data.memory import from_columns
from mip.data.table import Table
from mip.errors import DataError, hint


def from_dataset(dataset: Any, columns: Sequence[str] | None = None, name: str = "table") -> Table:
    """Make a table of a map-style torch Dataset, whose items are dicts or tuples.

    The columns of dicts are their keys, or some of them, `columns`. The parts of a tuple are named
    by `columns`, or by what the first item has there: `image`, `label` (a whole number or a text),
    `number`, `vector`. If the Dataset has `classes` and no `target_transform`, the label is the
    name of its class. Images are Pillow's, or pixels with colours first or last: uint8, or floats
    from 0 to 1.

    Every item is read once and kept in memory, but for those of torchvision's ImageFolder without
    transforms: their cells are the paths. Raises DataError, naming the row, for an item that cannot
    be read, that is neither a dict nor a tuple, or that differs from the first.

    >>> import torch; from torch.utils.data import TensorDataset
    >>> pairs = TensorDataset(torch.zeros(3, 1, 8, 8), torch.tensor([1, 0, 1]))
    >>> from_dataset(pairs)
    Table(table: 3 rows, columns image, label)
    >>> from_dataset([(torch.ones(3, 4, 4), 0), (torch.ones(3, 4, 4) * 2, 1)])
    Traceback (most recent call last):
    mip.errors.DataError: table row 1: 'image' has pixels from 2 to 2, not 0 to 1; leave
    normalization to the model
    """
    from torch.utils.data import IterableDataset

    is_map = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    if isinstance(dataset, IterableDataset) or not is_map:
        kind = type(dataset).__name__
        raise DataError(f"{name}: {kind} is not a map-style dataset (with len() and [])")
    origin, read = _unwrap(dataset)
    items = [_read(read, row, f"{name} row {row}") for row in range(len(dataset))]
    if columns is None:
        columns = _names(items[0]) if items else []
    rows = [_parts_of(item, columns, f"{name} row {row}") for row, item in enumerate(items)]
    cells = {
        column: _cells([row[k] for row in rows], column, name) for k, column in enumerate(columns)
    }
    if items and not isinstance(items[0], Mapping):
        cells |= _class_names(origin, cells, name)
    return from_columns(cells, getattr(origin, "root", None), name)


def _unwrap(dataset: Any) -> tuple[Any, Callable[[int], Any]]:
    """Return the dataset below all subsets, and what reads an item of the outermost."""
    from torch.utils.data import Subset

    if isinstance(dataset, Subset):
        origin, read = _unwrap(dataset.dataset)
        return origin, lambda row: read(dataset.indices[row])
    return dataset, _read_path(dataset) if _is_plain_folder(dataset) else dataset.__getitem__


def _read_path(folder: Any) -> Callable[[int], Any]:
    def read(row: int) -> tuple[str, int]:
        path, label = folder.samples[row]
        return Path(os.path.relpath(path, folder.root)).as_posix(), label

    return read


def _is_plain_folder(dataset: Any) -> bool:
    # Without importing torchvision, which is there if somebody has its ImageFolder.
    module: Any = sys.modules.get("torchvision.datasets.folder")
    return (
        module is not None
        and isinstance(dataset, module.ImageFolder)
        and type(dataset).__getitem__ is module.ImageFolder.__getitem__
        and dataset.loader is module.default_loader
        and dataset.transforms is None
    )


def _read(read: Callable[[int], Any], row: int, where: str) -> Any:
    try:
        return read(row)
    except Exception as error:  # whatever reads a dataset may raise anything
        raise DataError(f"{where}: cannot be read: {type(error).__name__}: {error}") from error


def _names(item: Any) -> list[str]:
    if isinstance(item, Mapping):
        return [*item]
    kinds = [_kind(part) for part in item] if isinstance(item, (tuple, list)) else []
    counts = [kinds[: k + 1].count(kind) for k, kind in enumerate(kinds)]
    return [
        kind if count == 1 else f"{kind}_{count}" for kind, count in zip(kinds, counts, strict=True)
    ]


def _parts_of(item: Any, columns: Sequence[str], where: str) -> list[Any]:
    if isinstance(item, Mapping):
        for column in columns:
            if column not in item:
                raise DataError(f"{where}: the item has no '{column}'{hint(column, item)}")
        return [item[column] for column in columns]
    if not isinstance(item, (tuple, list)):
        raise DataError(f"{where}: {type(item).__name__} is neither a dict nor a tuple")
    if len(item) != len(columns):
        raise DataError(f"{where}: {len(item)} parts, but there are {len(columns)} columns")
    return list(item)


def _kind(cell: Any) -> str:
    """Say what a cell is: an image, a label, a number, a vector, or the name of its type."""
    if is_tensor(cell) or isinstance(cell, np.ndarray):
        if cell.ndim == 0:
            return _kind(cell.item())
        return "vector" if cell.ndim == 1 else "image"
    if is_image(cell) or (isinstance(cell, str) and cell.lower().endswith(IMAGE_SUFFIXES)):
        return "image"
    if isinstance(cell, (str, int, np.integer, np.bool_)):
        return "label"
    if isinstance(cell, (float, np.floating)):
        return "number"
    return "vector" if is_list(cell) else type(cell).__name__


def _cells(cells: Sequence[Any], column: str, name: str) -> list[Any]:
    """Return the cells of a column: all of one kind or missing, and pixels as uint8."""
    first = next((row for row, cell in enumerate(cells) if not _is_blank(cell)), 0)
    expected = _kind(cells[first]) if cells else ""
    for row, cell in enumerate(cells):
        kind = _kind(cell)
        are_numbers = {kind, expected} <= {"label", "number"}
        if isinstance(cell, Mapping) and kind != "image":
            raise DataError(f"{name} row {row}: '{column}' is a dict, which no cell can hold")
        if not (_is_blank(cell) or are_numbers or kind == expected):
            both = f"{_describe(cell)}, but in row {first} {_describe(cells[first])}"
            raise DataError(f"{name} row {row}: '{column}' is {both}")
    return [_cell(cell, f"{name} row {row}: '{column}'") for row, cell in enumerate(cells)]


def _is_blank(cell: Any) -> bool:
    return is_missing(cell) or (isinstance(cell, str) and not cell)


def _describe(cell: Any) -> str:
    kind, of_type = _kind(cell), type(cell).__name__
    return f"an {kind} ({of_type})" if kind == "image" else f"a {kind} ({of_type})"


def _cell(cell: Any, where: str) -> Any:
    if not (is_tensor(cell) or isinstance(cell, np.ndarray)) or cell.ndim not in (0, 3):
        return cell
    array = as_array(cell)
    if array.ndim == 0:
        return array.item()
    colors_last = array.shape[-1] in (1, 3)
    if array.shape[0] in (1, 3) and (is_tensor(cell) or not colors_last):
        array = np.moveaxis(array, 0, -1)
    if array.dtype.kind == "f":
        low, high = array.min(), array.max()
        if not 0 <= low <= high <= 1:
            cure = "leave normalization to the model"
            raise DataError(f"{where} has pixels from {low:g} to {high:g}, not 0 to 1; {cure}")
        array = np.rint(array * 255).astype(np.uint8)
    return array[..., 0] if array.shape[-1] == 1 else array


def _class_names(
    dataset: Any, cells: Mapping[str, Sequence[Any]], name: str
) -> dict[str, list[str]]:
    """Return the column of labels, if there is one, with the names that the dataset gives them."""
    classes: Any = getattr(dataset, "classes", None)
    labels = [column for column in cells if _is_index(cells[column][0])]
    is_index = getattr(dataset, "target_transform", None) is None and is_list(classes)
    if not is_index or len(labels) != 1:
        return {}
    names = [", ".join(text) if is_list(text) else str(text) for text in classes]
    for row, label in enumerate(cells[labels[0]]):
        if not (_is_index(label) and 0 <= label < len(names)):
            known = f"the {len(names)} classes of {type(dataset).__name__}"
            raise DataError(f"{name} row {row}: {label!r} is not the number of one of {known}")
    return {labels[0]: [names[label] for label in cells[labels[0]]]}


def _is_index(cell: Any) -> bool:
    return isinstance(cell, (int, np.integer)) and not isinstance(cell, bool)
