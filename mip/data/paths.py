"""The files that the path of a table names: a file, the shards in a folder, or a pattern's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path

from mip.data.formats import FORMATS
from mip.data.parts import part_name, parts_of_files
from mip.errors import DataError, hint

JUNK = "__MACOSX"
"""The folder that a Mac adds to an archive: it holds no photo that opens."""


METADATA = "metadata"
"""The name, before its suffix, of a table that lies beside the images that it names."""


def table_files(path: Path) -> list[Path]:
    """List the files of the table that a path names: itself, those that match a pattern, or those
    of a folder; none for a folder of images without a table.

    Of a folder these are, of the first kind that there is: tables named `metadata` in it and in its
    folders; Parquet files in it, or in its folders `data`, train, valid and test; tables of another
    format in it whose names say train and another part.
    """
    if path.is_dir():
        return _folder_tables(path)
    files = [path] if path.is_file() else matching_files(path.parent, path.name)
    suffix = path.suffix.lower()
    if suffix not in FORMATS and (files or suffix):
        raise DataError(f"{path}: '{suffix}' is not the suffix of a table{hint(suffix, FORMATS)}")
    if not files:
        near = matching_files(path.parent, f"*{path.suffix}", os.path.exists)
        raise DataError(f"{path}: there is no such table{hint(path.name, (p.name for p in near))}")
    return files


def _folder_tables(folder: Path) -> list[Path]:
    inside = [sub for sub in sorted(folder.iterdir()) if sub.is_dir()]
    beside_images = [
        file
        for sub in (folder, *inside)
        for suffix in FORMATS
        if (file := sub / f"{METADATA}{suffix}").is_file()
    ]
    if beside_images:
        _check_one_each(folder, beside_images)
        return beside_images
    if shards := matching_files(folder, "*.parquet"):
        return shards
    deeper = [sub for sub in inside if sub.name == "data" or part_name(sub.name)]
    if shards := [file for sub in deeper for file in matching_files(sub, "*.parquet")]:
        return shards
    by_format = (matching_files(folder, f"*{suffix}") for suffix in FORMATS)
    return next((files for files in by_format if parts_of_files(files, folder)), [])


def _check_one_each(folder: Path, tables: Sequence[Path]) -> None:
    """Raise DataError for two tables beside the same images, of which every row would be double."""
    for first, second in pairwise(tables):
        if first.parent == second.parent:
            both = " and ".join(table.relative_to(folder).as_posix() for table in (first, second))
            raise DataError(f"{folder}: {both} are beside the same images: remove one of them")


def includes_file(path: Path, file: Path) -> bool:
    """Whether a table's path, if a folder or a pattern, includes this file: as one of its tables,
    or anywhere inside a folder of images, which skips only CSV and JSON.

    >>> includes_file(Path("data/part-*.csv"), Path("data/part-2.csv"))
    True
    """
    inside = Path(os.path.realpath(file))
    base = os.path.realpath(path if path.is_dir() else path.parent)
    if not path.is_dir():
        is_match = not path.is_file() and fnmatchcase(file.name, path.name)
        return is_match and inside.parent == Path(base)
    tables = table_files(path)
    if not tables:
        # Of any other name a folder may be made, and images in it.
        return inside.is_relative_to(base) and file.suffix.lower() not in {".csv", ".json"}
    folders = {base, *(os.path.realpath(table.parent) for table in tables)}
    first = tables[0]
    is_like = file.name == first.name if first.stem == METADATA else file.suffix == first.suffix
    return is_like and str(inside.parent) in folders


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
