"""Arrow and Parquet: typed columns to the cells of a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mip.data.paths import check_same
from mip.data.table import Table, from_frame
from mip.data.text import check_unique
from mip.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


# Parquet and Arrow.


def read_parquet(files: Sequence[Path], name: str) -> pa.Table:
    """Read Parquet files of the same columns as one Arrow table."""
    tables = [_parquet(file) for file in files]
    check_same(name, files, [{f.name: str(f.type) for f in t.schema} for t in tables])
    return import_pyarrow().concat_tables(tables, promote_options="permissive")


def _parquet(path: Path) -> pa.Table:
    with parquet(path) as file:
        table = file.read()
        table.validate(full=True)
        check_unique(table.column_names, "in the schema")
        return table


@contextmanager
def parquet(path: Path, footer: Any = None, coded: Sequence[str] = ()) -> Iterator[Any]:
    """Open a Parquet file: a pyarrow ParquetFile whose errors are a DataError.

    A `footer` that is known is not read again; the columns `coded` are read as dictionaries.
    """
    import_pyarrow()
    from pyarrow.parquet import ParquetFile

    # Buffered, so that no column of a row group is in memory whole before it is decoded.
    how = {"pre_buffer": False, "buffer_size": 1 << 16, "read_dictionary": [*coded]}
    try:
        with ParquetFile(path, metadata=footer, **how) as file:
            yield file
    except Exception as error:  # Arrow's decoders raise whatever a broken file provokes
        raise DataError(f"{path.name}: not a readable Parquet table: {error}") from error


def import_pyarrow() -> Any:
    """Import pyarrow; raises DataError with the cure where it is not installed."""
    try:
        import pyarrow as pa
    except ImportError as error:
        cure = "pip install 'mixed-input-pipelines[parquet]'"
        raise DataError(f"reading Parquet and Arrow tables needs pyarrow: {cure}") from error
    return pa


def from_arrow(table: pa.Table, root: str | Path | None = None, name: str = "table") -> Table:
    """Make a table of a pyarrow Table; the cells of list columns become Python lists, and rows keep
    the labels of the DataFrame that the Arrow table was made of.

    Raises DataError for a column that stands twice, and for cells that pandas cannot hold.

    >>> import pyarrow as pa
    >>> from_arrow(pa.table({"photos": [["a.png", "b.png"], None]})).cells("photos")
    [['a.png', 'b.png'], None]
    """
    return from_frame(frame_of(table, name), root, name)


def frame_of(table: pa.Table, name: str) -> pd.DataFrame:
    """Turn an Arrow table into a frame whose cells keep their types."""
    try:
        frame = table.to_pandas().rename(columns=str)
        columns = {name: table.column(name) for name in table.column_names if name in frame}
        odd = {name: _odd(each).array for name, each in columns.items() if _is_odd(each)}
    except Exception as error:  # as above: a date of the year 300000, a foreign type
        raise DataError(f"{name}: an Arrow table that pandas cannot hold: {error}") from error
    return frame.assign(**odd)


def _is_odd(cells: pa.ChunkedArray) -> bool:
    # pandas would make arrays of lists, and floats of whole numbers where one is missing: long
    # ones would lose their last digits.
    return _is_list(cells.type) or (str(cells.type) in {"int64", "uint64"} and cells.null_count > 0)


def _odd(cells: pa.ChunkedArray) -> pd.Series:
    import pandas as pd

    if _is_list(cells.type):
        return pd.Series(cells.to_pylist(), dtype=object)
    whole = {"int64": pd.Int64Dtype(), "uint64": pd.UInt64Dtype()}
    return cells.to_pandas(types_mapper=lambda kind: whole[str(kind)])


def _is_list(kind: Any) -> bool:
    types = import_pyarrow().types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
