"""Arrow tables: typed columns become the cells of a table."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from mip.data.memory import from_frame
from mip.data.table import Table
from mip.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def import_pyarrow() -> ModuleType:
    """Import pyarrow. Raises DataError saying how to install it if it is missing."""
    try:
        import pyarrow as pa
    except ImportError as error:
        cure = "pip install 'mixed-input-pipelines[parquet]'"
        raise DataError(f"reading Parquet and Arrow tables needs pyarrow: {cure}") from error
    return pa


def from_arrow(table: pa.Table, root: str | Path | None = None, name: str = "table") -> Table:
    """Make a table of a pyarrow Table. The cells of list columns become Python lists, and if the
    Arrow table was made of a DataFrame, rows keep the labels of that.

    Raises DataError for a duplicate column, and for cells that pandas cannot hold.

    >>> import pyarrow as pa
    >>> from_arrow(pa.table({"photos": [["a.png", "b.png"], None]})).cells("photos")
    [['a.png', 'b.png'], None]
    """
    return from_frame(frame_from_arrow(table, name), root, name)


def frame_from_arrow(table: pa.Table, name: str) -> pd.DataFrame:
    """Convert an Arrow table to a DataFrame whose cells keep their types."""
    try:
        frame = table.to_pandas().rename(columns=str)
        columns = {name: table.column(name) for name in table.column_names if name in frame}
        converted = {
            name: _convert(cells).array for name, cells in columns.items() if _loses_type(cells)
        }
    except Exception as error:  # a date of the year 300000, a foreign type
        raise DataError(f"{name}: an Arrow table that pandas cannot hold: {error}") from error
    return frame.assign(**converted)


def _loses_type(cells: pa.ChunkedArray) -> bool:
    # pandas makes arrays of lists, and floats of whole numbers where one is missing: long ones
    # would lose their last digits.
    return _is_list(cells.type) or (str(cells.type) in {"int64", "uint64"} and cells.null_count > 0)


def _convert(cells: pa.ChunkedArray) -> pd.Series:
    import pandas as pd

    if _is_list(cells.type):
        return pd.Series(cells.to_pylist(), dtype=object)
    nullable = {"int64": pd.Int64Dtype(), "uint64": pd.UInt64Dtype()}
    return cells.to_pandas(types_mapper=lambda kind: nullable[str(kind)])


def _is_list(kind: pa.DataType) -> bool:
    types = import_pyarrow().types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
