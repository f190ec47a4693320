"""Parquet files: read whole, or opened to read row group by row group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mip.data.arrow import frame_from_arrow, import_pyarrow
from mip.data.checks import check_same_columns, check_unique
from mip.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from pyarrow.parquet import FileMetaData, ParquetFile


def read_parquet(files: Sequence[Path], name: str) -> pd.DataFrame:
    """Read Parquet files that have the same columns."""
    tables = [_read_file(file) for file in files]
    check_same_columns(name, files, [{f.name: str(f.type) for f in t.schema} for t in tables])
    plain = _decode_mixed_categories(tables)
    whole = import_pyarrow().concat_tables(plain, promote_options="permissive")
    return frame_from_arrow(whole, name).reset_index(drop=True)


def _decode_mixed_categories(tables: Sequence[pa.Table]) -> Iterator[pa.Table]:
    """Make plain columns of categories that are plain in another table."""
    is_category = import_pyarrow().types.is_dictionary
    plain = {f.name for table in tables for f in table.schema if not is_category(f.type)}
    for table in tables:
        for k, (field, cells) in enumerate(zip(table.schema, table.columns, strict=True)):
            if is_category(field.type) and field.name in plain:
                table = table.set_column(k, field.name, cells.cast(field.type.value_type))
        yield table


def _read_file(path: Path) -> pa.Table:
    with open_parquet(path) as file:
        table = file.read()
        table.validate(full=True)
        check_unique(table.column_names, "in the schema")
        return table


@contextmanager
def open_parquet(
    path: Path, footer: FileMetaData | None = None, dictionary_columns: Sequence[str] = ()
) -> Iterator[ParquetFile]:
    """Open a Parquet file; whatever goes wrong inside the block is raised as a DataError.

    If the `footer` is known it is not read again; `dictionary_columns` are read as dictionaries.
    """
    import_pyarrow()
    from pyarrow.parquet import ParquetFile

    # A buffer, for without one pyarrow reads a column chunk whole before it decodes a page of it.
    options = {
        "pre_buffer": False,
        "buffer_size": 1 << 16,
        "read_dictionary": [*dictionary_columns],
    }
    try:
        with ParquetFile(path, metadata=footer, **options) as file:
            yield file
    except Exception as error:  # Arrow's decoders raise whatever a broken file provokes
        raise DataError(f"{path.name}: not a readable Parquet table: {error}") from error
