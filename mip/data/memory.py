"""From what is in memory to a table: columns, rows, a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mip.data.cells import is_tensor
from mip.data.table import Table, from_frame
from mip.errors import DataError, hint

if TYPE_CHECKING:
    import pandas as pd


# What is in memory.


def from_columns(
    columns: Mapping[str, Any], root: str | Path | None = None, name: str = "table"
) -> Table:
    """Make a table of sequences by column name: lists, arrays, tensors, whatever has a length.

    The entries of an array or tensor [n, …] are cells and stay views of it. Rows have the labels of
    the Series among the columns. Raises DataError when lengths or the labels of Series differ, and
    for what is no sequence of cells, a text among them.

    >>> from_columns({"image": np.zeros((2, 8, 8), dtype="uint8"), "label": ["cat", "dog"]})
    Table(table: 2 rows, columns image, label)
    >>> from_columns({"image": [b"GIF89a", b"GIF89a"], "label": ["cat"]})
    Traceback (most recent call last):
    mip.errors.DataError: table: column 'label' has 1 cells, and column 'image' 2
    """
    import pandas as pd

    for column, cells in columns.items():
        if isinstance(cells, (str, bytes, Mapping)) or not hasattr(cells, "__len__"):
            told = f"column '{column}' is {type(cells).__name__}, not a sequence of cells"
            raise DataError(f"{name}: {told}")
    sizes = {str(column): len(cells) for column, cells in columns.items()}
    first = next(iter(sizes), "")
    for column, size in sizes.items():
        if size != sizes[first]:
            told = f"column '{column}' has {size} cells, and column '{first}' {sizes[first]}"
            raise DataError(f"{name}: {told}")
    labels = _labels(columns, name)
    frame = pd.DataFrame({column: _series(cells) for column, cells in columns.items()})
    return from_frame(frame if labels is None else frame.set_axis(labels), root, name)


def _labels(columns: Mapping[str, Any], name: str) -> pd.Index | None:
    import pandas as pd

    series = [(column, cells) for column, cells in columns.items() if isinstance(cells, pd.Series)]
    for column, cells in series:
        if not cells.index.equals(series[0][1].index):
            told = f"column '{column}' has another index than column '{series[0][0]}'"
            raise DataError(f"{name}: {told}; reset_index(drop=True) takes cells as they stand")
    return series[0][1].index if series else None


def from_rows(
    rows: Sequence[Mapping[str, Any]], root: str | Path | None = None, name: str = "table"
) -> Table:
    """Make a table of dicts, a row each; a key that one lacks is a missing cell.

    Raises DataError, naming the row, for what is no dict.

    >>> from_rows([{"area": 70}, {"area": 95, "town": "Ulm"}]).texts("town").tolist()
    ['', 'Ulm']
    """
    for place, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(f"{name} row {place}: {type(row).__name__} is not a dict of cells")
    columns = dict.fromkeys(column for row in rows for column in row)
    cells = {column: [row.get(column) for row in rows] for column in columns}
    return from_columns(cells, root, name)


def _series(cells: Any) -> pd.Series:
    import pandas as pd

    cells = cells.to_pylist() if hasattr(cells, "to_pylist") else _plain(cells)
    if isinstance(cells, pd.Series):
        return cells.reset_index(drop=True)
    if isinstance(cells, np.ndarray) and cells.ndim == 1:
        return pd.Series(cells)
    objects = np.empty(len(cells), dtype=object)
    for place in range(len(cells)):
        objects[place] = _plain(cells[place])
    series = pd.Series(objects, dtype=object)
    try:
        return series.infer_objects()
    except UnicodeEncodeError:  # half of a surrogate pair
        return series


def _plain(value: Any) -> Any:
    if not is_tensor(value):
        return value
    array = value.detach().cpu().numpy()
    return array if array.ndim else array.item()


def from_dataset(dataset: Any, columns: Sequence[str] | None = None, name: str = "table") -> Table:
    """Make a table of a map-style torch Dataset, whose items are dicts or tuples.

    Every item is read once, and kept. `columns` names the parts of a tuple in their order; of
    dicts it chooses keys (default: those of the first). Raises DataError, naming the row, for an
    item that is neither or has other parts.

    >>> import torch; from torch.utils.data import TensorDataset
    >>> pairs = TensorDataset(torch.zeros(3, 8, 8), torch.tensor([1, 0, 1]))
    >>> from_dataset(pairs, columns=["image", "label"]).numbers("label")
    array([1., 0., 1.])
    """
    from torch.utils.data import IterableDataset

    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        raise DataError(f"{name}: {type(dataset).__name__} is no map-style dataset (len and [])")
    items = [dataset[row] for row in range(len(dataset))]
    if columns is None:
        columns = list(items[0]) if items and isinstance(items[0], Mapping) else []
    rows = [_item(item, columns, f"{name} row {row}") for row, item in enumerate(items)]
    return from_columns(
        {column: [row[place] for row in rows] for place, column in enumerate(columns)}, name=name
    )


def _item(item: Any, columns: Sequence[str], where: str) -> list[Any]:
    if isinstance(item, Mapping):
        for column in columns:
            if column not in item:
                raise DataError(f"{where}: the item has no '{column}'{hint(column, item)}")
        return [item[column] for column in columns]
    if not isinstance(item, (tuple, list)):
        raise DataError(f"{where}: {type(item).__name__} is neither a dict nor a tuple")
    if len(item) != len(columns):
        raise DataError(f"{where}: {len(item)} parts, and {len(columns)} names in 'columns'")
    return list(item)
