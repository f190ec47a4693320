"""Which rows train, choose and test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeGuard

import numpy as np

from mip.data import (
    AnyRows,
    AnyTable,
    Shards,
    Table,
    TableLike,
    as_table,
    folds,
    has_parts,
    read,
    split,
    with_folds,
)
from mip.errors import DataError, SpecError, hint
from mip.model.columns import table_of
from mip.spec import Spec, Split


class Parts(NamedTuple, Generic[AnyTable]):
    """The rows that train, choose and test."""

    train: AnyTable
    valid: AnyTable
    test: AnyTable


def as_parts(
    train: AnyRows | Sequence[AnyRows],
    valid: AnyRows | None = None,
    test: AnyRows | None = None,
    *,
    read: Callable[[Any, str], Any] = as_table,
) -> Parts[Any]:
    """Make parts of rows, or of a tuple of them as `split` returns it: train, valid and test, of
    which the last two may be left out. `read` makes a table of rows and the name of their part.

    Raises DataError for more than three, and for `valid` or `test` beside a tuple.

    >>> [len(rows) for rows in as_parts({"x": [1, 2]}, test={"x": [3]})]
    [2, 0, 1]
    >>> [len(rows) for rows in as_parts(split({"x": range(10)}, (0.8, 0.2)))]
    [8, 2, 0]
    """
    if are_parts(train):
        if valid is not None or test is not None or len(train) > 3:
            raise DataError(
                "parts are (train, valid, test), of which the last two may be left out; beside "
                "them there are no others (a folder to write to is out=…)"
            )
        return as_parts(*train, read=read)
    rows = read(train, "train")
    empty = split(rows, (0.0, 1.0))[0]
    return Parts(
        rows,
        empty if valid is None else read(valid, "valid"),
        empty if test is None else read(test, "test"),
    )


def are_parts(rows: Any) -> TypeGuard[Sequence[AnyRows]]:
    """Return whether rows are a tuple or list of parts, and not the rows of one.

    >>> are_parts(split({"x": range(4)}, (0.5, 0.5))), are_parts([{"x": 1}, {"x": 2}])
    (True, False)
    """
    return isinstance(rows, (tuple, list)) and bool(rows) and not isinstance(rows[0], Mapping)


def parts(spec: Spec, rows: AnyTable | TableLike, base: str | Path = ".") -> Parts[AnyTable]:
    """Split rows as `data.split` says; paths of files are relative to `base`.

    Raises SpecError for rows with a column `part` of part names, as those of a folder with the
    folders train and test have, if the spec does not say how they are split.
    """
    table: AnyTable = table_of(spec, rows)
    config = spec.data.split
    if config == Split() and has_parts(table):
        raise SpecError(
            f"data.split is missing, and {table.name} is in parts already, which would be mixed: "
            'write split = { column = "part" } in [data], or a split with another seed'
        )
    if config.folds:
        if isinstance(table, Shards):
            raise SpecError("data.split.folds needs a table in memory; leave out data.stream")
        return _by_fold(spec, table, read(Path(base) / config.folds))
    divided: tuple[AnyTable, ...] = split(
        table,
        () if config.column else config.fractions,
        config.seed,
        stratify=config.stratify,
        group=config.group,
        time=config.time,
        key=config.key,
        column=config.column,
    )
    return Parts(*divided)


def outside_test(rows: Table, split: Parts) -> Table:
    """Return the rows of a table, split into parts, that are not those of test, in their order."""
    return rows.take(np.flatnonzero(~np.isin(rows.row_ids, split.test.row_ids)))


def deal_folds(spec: Spec, rows: Table, k: int) -> Table:
    """Add the column `fold_0` of k folds, stratified or grouped as the spec splits (see
    `mip.folds`).
    """
    config = spec.data.split
    return folds(rows, k, 1, config.seed, config.stratify, config.group)


def _by_fold(spec: Spec, table: Table, folds: Table) -> Parts[Table]:
    config, column = spec.data.split, spec.data.split.column or "fold"
    table = with_folds(table, folds, column)
    names = table.texts(column)
    for part in ("test", "valid"):
        fold = getattr(config, part)
        if fold is not None and str(fold) not in names:
            known = hint(str(fold), set(names))
            raise SpecError(f"data.split.{part} = {fold} is not a fold{known}")
    test, valid = names == str(config.test), names == str(config.valid)
    return Parts(*(table.take(np.flatnonzero(rows)) for rows in (~(test | valid), valid, test)))
