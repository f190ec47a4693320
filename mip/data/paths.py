"""The files that the path of a table names: one, the shards in a folder, what a pattern matches."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from mip.errors import DataError, hint

TABLES = (".csv", ".jsonl", ".ndjson", ".parquet", ".tsv")
"""The endings of files that hold a table."""


def files_of(path: Path) -> list[Path]:
    """Find the files that a path names: itself, its shards, or what a pattern matches."""
    if path.is_dir():
        return matching_files(path, "*.parquet")
    files = [path] if path.is_file() else matching_files(path.parent, path.name)
    if path.suffix.lower() not in TABLES and (files or path.suffix):
        suffix = path.suffix.lower()
        raise DataError(f"{path}: '{suffix}' is not the ending of a table{hint(suffix, TABLES)}")
    if not files:
        near = matching_files(path.parent, f"*{path.suffix}", os.path.exists)
        raise DataError(f"{path}: there is no such table{hint(path.name, (p.name for p in near))}")
    return files


def takes_in(path: Path, file: Path) -> bool:
    """Whether the path of a table, that of a folder or a pattern, takes in this file: as a shard,
    or anywhere in a folder of class folders.

    >>> takes_in(Path("data/part-*.csv"), Path("data/part-2.csv"))
    True
    """
    folder, pattern = (path, "*.parquet") if path.is_dir() else (path.parent, path.name)
    inside, base = Path(os.path.realpath(file)), Path(os.path.realpath(folder))
    if path.is_dir() and not files_of(path):
        return inside.is_relative_to(base)
    return inside.parent == base and not path.is_file() and fnmatchcase(file.name, pattern)


def matching_files(
    folder: Path, pattern: str, wanted: Callable[[Path], bool] = os.path.isfile
) -> list[Path]:
    """List a folder's files that match a pattern, sorted; hidden ones only if asked for."""
    # Names that begin so are hidden files and the marks of what wrote shards, unless asked for.
    hidden = {".", "_"} - {pattern[:1]}
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    named = (path for path in paths if fnmatchcase(path.name, pattern))
    return [path for path in named if wanted(path) and path.name[0] not in hidden]


def name_of(path: Path) -> str:
    """Name a path in an error text: by its last part."""
    return path.absolute().name or str(path)


def check_same(name: str, files: Sequence[Path], schemas: Sequence[dict[str, str]]) -> None:
    """Raise DataError for a file whose columns (name to type) are not those of the first, in any
    order; all types of numbers are one.
    """
    first = schemas[0]
    for file, schema in zip(files, schemas, strict=True):
        where = f"{name}: {file.name} is not like {files[0].name}"
        if schema.keys() != first.keys():
            gaps = {
                "it lacks": first.keys() - schema,
                f"{files[0].name} lacks": schema.keys() - first,
            }
            told = [f"{what} {', '.join(sorted(names))}" for what, names in gaps.items() if names]
            raise DataError(f"{where}: {' and '.join(told)}")
        for column, kind in schema.items():
            if _family(kind) != _family(first[column]):
                raise DataError(f"{where}: column '{column}' is {kind}, not {first[column]}")


def _family(kind: str) -> str:
    return "number" if re.fullmatch(r"u?int\d+|halffloat|float|double", kind) else kind
