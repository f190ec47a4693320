"""Checks that every source of rows shares: column names, shards that belong together, no rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from mip.data.table import Table
from mip.errors import DataError


def check_unique(columns: Sequence[str], where: str) -> None:
    """Raise ValueError for a duplicate column name."""
    for column, count in Counter(columns).items():
        if count > 1:
            raise ValueError(f"duplicate column '{column}' {where}")


def check_same_columns(
    name: str, files: Sequence[Path], schemas: Sequence[Mapping[str, str]]
) -> None:
    """Raise DataError for a file whose columns (name to type) differ from those of the first file.

    Their order does not matter. All types of numbers count as the same, all types of texts too,
    and categories as what they are categories of.
    """
    first = schemas[0]
    for file, schema in zip(files, schemas, strict=True):
        where = f"{name}: {file.name} does not match {files[0].name}"
        gaps = [(file.name, first.keys() - schema), (files[0].name, schema.keys() - first)]
        lacks = [f"{path} lacks {', '.join(sorted(columns))}" for path, columns in gaps if columns]
        if lacks:
            raise DataError(f"{where}: {' and '.join(lacks)}")
        for column, kind in schema.items():
            if _type_family(kind) != _type_family(first[column]):
                raise DataError(f"{where}: column '{column}' is {kind}, not {first[column]}")


def _type_family(kind: str) -> str:
    kind = re.sub(r"dictionary<values=(.+), indices=.*>", r"\1", kind)
    families = {"number": r"u?int\d+|halffloat|float|double", "text": r"(large_)?string(_view)?"}
    return next((name for name, kinds in families.items() if re.fullmatch(kinds, kind)), kind)


def check_filled(table: Table) -> Table:
    """Return the table, or raise DataError if it has no rows."""
    if not len(table):
        raise DataError(f"{table.name}: the table has no rows")
    return table
