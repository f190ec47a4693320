"""Rows that a model can predict: which columns they must have."""

from __future__ import annotations

from collections.abc import Iterator

from mip.data import Rows, Shards, Table
from mip.errors import DataError, SpecError
from mip.model import Plan, check_columns, columns_of, target_columns


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
