"""From data in memory to a table: a DataFrame, columns, dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mip.data.cells import is_tensor
from mip.data.table import Table
from mip.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    from pandas.api.extensions import ExtensionDtype


def from_frame(frame: pd.DataFrame, root: str | Path | None = None, name: str = "table") -> Table:
    """Make a table of a DataFrame: row ids count from 0, and the index is kept.

    `root` is the folder that image paths are relative to (default: the current folder). Raises
    DataError for a duplicate column.
    """
    frame = frame.set_axis([str(column) for column in frame.columns], axis=1)
    for duplicate in frame.columns[frame.columns.duplicated()]:
        raise DataError(f"{name}: duplicate column '{duplicate}'")
    foreign = [name for name in frame.columns if not _is_readable(frame[name].dtype)]
    frame = frame.assign(**{name: _as_objects(frame[name]) for name in foreign})
    return Table(frame, name, Path(root) if root is not None else Path("."))


def _is_readable(dtype: np.dtype | ExtensionDtype) -> bool:
    """Whether a dtype holds numbers, dates, strings, objects, or string categories."""
    import pandas as pd

    if isinstance(dtype, pd.CategoricalDtype):
        return pd.api.types.infer_dtype(dtype.categories) == "string"
    if isinstance(dtype, pd.ArrowDtype):
        return dtype.kind in "biufU"
    if isinstance(dtype, np.dtype):
        return dtype.kind in "biufMO"
    numeric = pd.api.types.is_numeric_dtype(dtype) and not isinstance(dtype, pd.SparseDtype)
    return numeric or isinstance(dtype, (pd.DatetimeTZDtype, pd.StringDtype))


def _as_objects(cells: pd.Series) -> pd.Series:
    import pandas as pd

    return pd.Series(list(cells), index=cells.index, dtype=object)


def from_columns(
    columns: Mapping[str, Any], root: str | Path | None = None, name: str = "table"
) -> Table:
    """Make a table of sequences by column name: lists, arrays, tensors, anything with a length.

    The entries of an array or tensor [n, …] become cells that are views of it. If some columns are
    Series, the table has their index. Raises DataError if lengths or indexes differ, and for what
    is not a sequence of cells, such as a string.

    >>> from_columns({"image": np.zeros((2, 8, 8), dtype="uint8"), "label": ["cat", "dog"]})
    Table(table: 2 rows, columns image, label)
    >>> from_columns({"image": [b"GIF89a", b"GIF89a"], "label": ["cat"]})
    Traceback (most recent call last):
    mip.errors.DataError: table: column 'label' has 1 cells, but column 'image' has 2
    """
    import pandas as pd

    for column, cells in columns.items():
        if isinstance(cells, (str, bytes, Mapping)) or not hasattr(cells, "__len__"):
            kind = type(cells).__name__
            raise DataError(f"{name}: column '{column}' is {kind}, not a sequence of cells")
    sizes = {str(column): len(cells) for column, cells in columns.items()}
    first = next(iter(sizes), "")
    for column, size in sizes.items():
        if size != sizes[first]:
            lengths = f"'{column}' has {size} cells, but column '{first}' has {sizes[first]}"
            raise DataError(f"{name}: column {lengths}")
    index = _common_index(columns, name)
    frame = pd.DataFrame({column: _as_series(cells) for column, cells in columns.items()})
    return from_frame(frame if index is None else frame.set_axis(index), root, name)


def _common_index(columns: Mapping[str, Any], name: str) -> pd.Index | None:
    import pandas as pd

    series = [(column, cells) for column, cells in columns.items() if isinstance(cells, pd.Series)]
    for column, cells in series:
        if not cells.index.equals(series[0][1].index):
            raise DataError(
                f"{name}: column '{column}' and column '{series[0][0]}' have different indexes; "
                "reset_index(drop=True) takes the cells in their order"
            )
    return series[0][1].index if series else None


def _as_series(cells: Any) -> pd.Series:
    import pandas as pd

    cells = cells.to_pylist() if hasattr(cells, "to_pylist") else _from_torch(cells)
    if isinstance(cells, pd.Series):
        return cells.reset_index(drop=True)
    if isinstance(cells, np.ndarray) and cells.ndim == 1:
        return pd.Series(cells)
    objects = np.empty(len(cells), dtype=object)
    for position in range(len(cells)):
        objects[position] = _from_torch(cells[position])
    series = pd.Series(objects, dtype=object)
    try:
        return series.infer_objects()
    except UnicodeEncodeError:  # half of a surrogate pair
        return series


def _from_torch(value: Any) -> Any:
    if not is_tensor(value):
        return value
    array = value.detach().cpu().numpy()
    return array if array.ndim else array.item()


def from_rows(
    rows: Sequence[Mapping[str, Any]], root: str | Path | None = None, name: str = "table"
) -> Table:
    """Make a table of dicts, one per row; a key that a row lacks is a missing cell.

    Raises DataError, naming the row, for what is not a dict.

    >>> from_rows([{"area": 70}, {"area": 95, "town": "Ulm"}]).texts("town").tolist()
    ['', 'Ulm']
    """
    for position, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(f"{name} row {position}: {type(row).__name__} is not a dict of cells")
    columns = dict.fromkeys(column for row in rows for column in row)
    cells = {column: [row.get(column) for row in rows] for column in columns}
    return from_columns(cells, root, name)
