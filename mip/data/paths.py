"""The files that the path of a table names: a file, the shards in a folder, or a pattern's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from mip.data.formats import FORMATS
from mip.errors import DataError, hint

JUNK = "__MACOSX"
"""The folder that a Mac adds to an archive: it holds no photo that opens."""


def table_files(path: Path) -> list[Path]:
    """List the files that a path names: itself, its shards, or what a pattern matches."""
    if path.is_dir():
        return matching_files(path, "*.parquet")
    files = [path] if path.is_file() else matching_files(path.parent, path.name)
    suffix = path.suffix.lower()
    if suffix not in FORMATS and (files or suffix):
        raise DataError(f"{path}: '{suffix}' is not the suffix of a table{hint(suffix, FORMATS)}")
    if not files:
        near = matching_files(path.parent, f"*{path.suffix}", os.path.exists)
        raise DataError(f"{path}: there is no such table{hint(path.name, (p.name for p in near))}")
    return files


def includes_file(path: Path, file: Path) -> bool:
    """Whether a table's path, if a folder or a pattern, includes this file: as one of its shards,
    or anywhere inside a folder of images, which skips only CSV and JSON.

    >>> includes_file(Path("data/part-*.csv"), Path("data/part-2.csv"))
    True
    """
    folder, pattern = (path, "*.parquet") if path.is_dir() else (path.parent, path.name)
    inside, base = Path(os.path.realpath(file)), Path(os.path.realpath(folder))
    if path.is_dir() and not table_files(path):
        # Of any other name a folder may be made, and images in it.
        return inside.is_relative_to(base) and file.suffix.lower() not in {".csv", ".json"}
    return inside.parent == base and not path.is_file() and fnmatchcase(file.name, pattern)


def matching_files(
    folder: Path, pattern: str, wanted: Callable[[Path], bool] = os.path.isfile
) -> list[Path]:
    """List a folder's files that match a pattern, sorted.

    Names that begin with "." or "_" are hidden files and the markers of programs that write shards:
    they are listed only if the pattern begins so too.
    """
    hidden = {".", "_"} - {pattern[:1]}
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    named = (path for path in paths if fnmatchcase(path.name, pattern))
    return [path for path in named if wanted(path) and path.name[0] not in hidden]


def walk_files(folder: Path) -> Iterator[Path]:
    """Iterate over the files below a folder, by their paths relative to it, those of a folder
    before those of the folders in it. Hidden files and folders, `__MACOSX` and linked folders are
    skipped.
    """
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] != "." and name != JUNK)
        inside = Path(os.path.relpath(place, folder))
        yield from (inside / name for name in sorted(files) if name[0] != ".")


def display_name(path: Path) -> str:
    """Return a path's last part, which names its table in error texts."""
    return path.absolute().name or str(path)
