"""From whatever holds rows to a table."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from mip.data.arrow import from_arrow, import_pyarrow
from mip.data.column_format import ColumnFormat
from mip.data.csv_format import PLAIN, CsvFormat
from mip.data.datasets import from_dataset
from mip.data.memory import from_columns, from_frame, from_rows
from mip.data.reading import read
from mip.data.shards import AnyTable, Shards
from mip.data.table import Table
from mip.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from torch.utils.data import Dataset


TableLike: TypeAlias = (
    "pd.DataFrame | pa.Table | Mapping[str, Any] | Sequence[Mapping[str, Any]] | Dataset | str"
    " | Path"
)
"""What `as_table` makes a table of."""


AnyRows: TypeAlias = "Table | Shards | TableLike"
"""A table, or what `as_table` makes one of."""


_ROWS = (
    "a DataFrame, a Table, a path, an Arrow table, a dict of columns or of one row's cells, a list "
    "of such rows, or a Dataset"
)


_CURES = {
    "Series": (
        "; the target is a column of the rows: rows.assign(price=series); one row is "
        "series.to_frame().T"
    ),
    "ndarray": "; name its columns: pandas.DataFrame(array, columns=[…])",
}


def as_table(
    rows: AnyTable | TableLike,
    name: str = "table",
    formats: Mapping[str, ColumnFormat] = MappingProxyType({}),
    csv: CsvFormat = PLAIN,
) -> AnyTable:
    """Convert anything that holds rows to a table; a table is returned as it is, but for the
    formats of its columns, if some are given. `name` stands in errors for what comes from memory;
    `csv` says how a CSV file is written.

    A dict is one row if one of its cells is no sequence, and columns otherwise. In dicts of rows, a
    photo may be anywhere if its cell is a `Path`; a string names a file below the current folder,
    as in a table. Raises DataError for a `Path` that is no file, and for anything that holds no
    rows, saying what to write instead.

    >>> as_table([{"area": 70, "town": "Ulm"}])
    Table(table: 1 rows, columns area, town)
    >>> as_table({"area": [70, 95]}, name="houses")
    Table(houses: 2 rows, columns area)
    >>> as_table(None)
    Traceback (most recent call last):
    mip.errors.DataError: rows are a DataFrame, a Table, a path, an Arrow table, a dict of columns
    or of one row's cells, a list of such rows, or a Dataset, not NoneType
    """
    table: AnyTable = _as_table(rows, name, csv)
    return table.with_formats(formats) if formats else table


def _as_table(rows: Any, name: str, csv: CsvFormat) -> Any:
    import pandas as pd

    if isinstance(rows, (Table, Shards)):
        return rows
    if isinstance(rows, (str, os.PathLike)):
        return read(Path(rows), csv)
    if isinstance(rows, pd.DataFrame):
        return from_frame(rows, name=name)
    if isinstance(rows, Mapping):
        are_columns = all(map(_is_sequence, rows.values()))
        return from_columns(rows, name=name) if are_columns else _as_table([rows], name, csv)
    if isinstance(rows, (list, tuple)):
        cells = [
            _with_photos(row, f"{name} row {k}") if isinstance(row, Mapping) else row
            for k, row in enumerate(rows)
        ]
        return from_rows(cells, name=name)
    if _is_dataset(rows):
        return from_dataset(rows, name=name)
    if hasattr(rows, "__arrow_c_stream__") and not isinstance(rows, pd.Series):
        with suppress(TypeError, ValueError):  # a column, not a table
            return from_arrow(import_pyarrow().table(rows), name=name)
    kind = type(rows).__name__
    raise DataError(f"rows are {_ROWS}, not {kind}{_CURES.get(kind, '')}")


def _is_dataset(rows: Any) -> bool:
    # Without importing torch, which is there if somebody has a Dataset.
    torch_data = sys.modules.get("torch.utils.data")
    return isinstance(rows, getattr(torch_data, "Dataset", ()))


def _is_sequence(cells: Any) -> bool:
    is_cell = isinstance(cells, (str, bytes, Mapping)) or getattr(cells, "ndim", 1) == 0
    return hasattr(cells, "__len__") and not is_cell


def _with_photos(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    # Only who wrote the program can give a Path, so it may leave the current folder.
    return {column: _read_paths(cell, f"{name}, column '{column}'") for column, cell in row.items()}


def _read_paths(cell: Any, name: str) -> Any:
    if isinstance(cell, (list, tuple)) and any(isinstance(part, os.PathLike) for part in cell):
        return [_read_paths(part, name) for part in cell]
    if not isinstance(cell, os.PathLike):
        return cell
    if not os.path.isfile(cell):
        raise DataError(f"{name}: there is no file {os.fsdecode(cell)}")
    return Path(cell).read_bytes()
