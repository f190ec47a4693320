"""Rows that a model can predict: what they may be, and which columns they must have."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mip.data import (
    Rows,
    Shards,
    Table,
    from_arrow,
    from_columns,
    from_frame,
    from_rows,
    import_pyarrow,
    read,
)
from mip.errors import DataError, SpecError
from mip.model import Plan, check_columns, columns_of, target_columns

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


AnyRows: TypeAlias = (
    "Table | Shards | pd.DataFrame | pa.Table | Mapping | Sequence[Mapping] | str | Path"
)


_ROWS = "a DataFrame, a Table, a file's path, an Arrow table, a dict of columns, or a list of dicts"


_CURES = {
    "Series": "; one row is series.to_frame().T",
    "ndarray": "; name its columns: pandas.DataFrame(array, columns=[…])",
}


def as_table(rows: AnyRows) -> Table | Shards:
    """Convert anything that can be predicted to a table.

    Raises DataError for anything else, saying what to write instead.

    >>> as_table([{"area": 70, "town": "Ulm"}])
    Table(table: 1 rows, columns area, town)
    >>> as_table({"area": [70, 95]})
    Table(table: 2 rows, columns area)
    >>> as_table(None)
    Traceback (most recent call last):
    mip.errors.DataError: rows are a DataFrame, a Table, a file's path, an Arrow table, a dict of
    columns, or a list of dicts, not NoneType
    """
    import pandas as pd

    if isinstance(rows, (Table, Shards)):
        return rows
    if isinstance(rows, (str, os.PathLike)):
        return read(Path(rows))
    if isinstance(rows, pd.DataFrame):
        return from_frame(rows)
    if isinstance(rows, Mapping):
        return from_columns(rows)
    if isinstance(rows, (list, tuple)):
        return from_rows(rows)
    if hasattr(rows, "__arrow_c_stream__") and not isinstance(rows, pd.Series):
        with suppress(TypeError, ValueError):  # a column, not a table
            return from_arrow(import_pyarrow().table(rows))
    kind = type(rows).__name__
    raise DataError(f"rows are {_ROWS}, not {kind}{_CURES.get(kind, '')}")


def check_inputs(plan: Plan, table: Rows) -> None:
    """Raise DataError for an input column that the table lacks."""
    try:
        check_columns(plan.spec, table, target=False)
    except SpecError as error:
        raise DataError(str(error)) from error


def select_inputs(plan: Plan, table: Table | Shards) -> Table | Shards:
    """Check that the table has every input column, and drop all others, the target too.

    Raises DataError for a column that the table lacks.
    """
    check_inputs(plan, table)
    return table.select(set(columns_of(plan.spec)) - set(target_columns(plan.spec)))


def batches_of(rows: Rows, batch_size: int) -> Iterator[Table]:
    """Divide rows into batches; a chunk without rows is a batch too."""
    for chunk in rows.chunks():
        for begin in range(0, max(len(chunk), 1), batch_size):
            yield chunk.take(range(begin, min(begin + batch_size, len(chunk))))
