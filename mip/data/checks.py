"""Checks that every source of rows shares: column names, shards that belong together, no rows."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from toolz import groupby

from mip.data.table import Table
from mip.errors import DataError, MipWarning


def check_unique(columns: Sequence[str], where: str) -> None:
    """Raise ValueError for a duplicate column name, and for several columns without a name."""
    for column, count in Counter(columns).items():
        if count > 1 and not column:
            raise ValueError(f"{count} columns have no name {where}; name them")
        if count > 1:
            raise ValueError(f"duplicate column '{column}' {where}; rename one of them")


def fill_schemas(
    name: str, schemas: Sequence[Mapping[str, str]], parts: Sequence[str]
) -> list[Mapping[str, str]]:
    """Add the columns (name to type) of train to the schemas of valid and test that lack some, and
    have no others. Warns with MipWarning that they are blank in the rows of these parts.
    """
    whole, filled = schemas[parts.index("train")], list[Mapping[str, str]]()
    blank = set[tuple[str, str]]()
    for schema, part in zip(schemas, parts, strict=True):
        if part != "train" and schema.keys() <= whole.keys():
            blank |= {(part, column) for column in whole.keys() - schema}
            schema = {**whole, **{name: kind for name, kind in schema.items() if kind != "null"}}
        filled.append(schema)
    for part, pairs in groupby(0, sorted(blank)).items():
        lacks = f"the files of {part} lack {', '.join(column for _, column in pairs)}"
        warnings.warn(f"{name}: {lacks}, blank in their rows", MipWarning, stacklevel=4)
    return filled


def check_same_columns(
    name: str, files: Sequence[Path], schemas: Sequence[Mapping[str, str]]
) -> None:
    """Raise DataError for a file whose columns (name to type) differ from those of the first file.

    Their order does not matter. All types of numbers count as the same, all types of texts too,
    and categories as what they are categories of.
    """
    first, folder = schemas[0], os.path.commonpath([file.parent for file in files])
    names = [file.relative_to(folder).as_posix() for file in files]
    for file, schema in zip(names, schemas, strict=True):
        where = f"{name}: {file} does not match {names[0]}"
        gaps = [(file, first.keys() - schema), (names[0], schema.keys() - first)]
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
