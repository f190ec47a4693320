"""Reading: a table from a file, its shards, or a folder of class folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mip.data.arrow import frame_of, read_parquet
from mip.data.memory import from_columns
from mip.data.paths import check_same, files_of, name_of
from mip.data.table import Table, from_frame
from mip.data.text import read_csv, read_json_lines
from mip.errors import DataError

if TYPE_CHECKING:
    pass


IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""The endings, in lower case, of the files of a class folder that are its images."""


def read(path: str | Path) -> Table:
    """Read a table from a file, a folder, or the files that a pattern names.

    A file is `.csv`, `.tsv`, `.jsonl` (or `.ndjson`) or `.parquet`; a pattern such as
    "data/part-*.parquet" has its wildcards (`*`, `?`, `[…]`) in the last part, and names shards:
    they are joined in the order of their names, and rows are numbered on. A folder holds
    Parquet shards, or else it is one of class folders (`read_folder`). Image cells are relative
    to the folder that the files lie in.

    The cells of a CSV are text: the spec says what each column means, so "00123" stays what it
    is, and "NA" is a category or a missing number by the kind that reads it. A JSON line is one
    object; its cells keep their types, lists included, and a key that it lacks is a missing cell.

    Raises DataError when there is nothing of that name, it has no rows, it is no table, or its
    shards have not the same columns.
    """
    path = Path(path)
    try:
        files = files_of(path)
        root = path if path.is_dir() else path.parent
        return check_filled(_joined(files, root, name_of(path))) if files else read_folder(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def check_filled(table: Table) -> Table:
    """Return the table, or raise DataError if it has no rows."""
    if not len(table):
        raise DataError(f"{table.name}: the table has no rows")
    return table


def _joined(files: Sequence[Path], root: Path, name: str) -> Table:
    import pandas as pd

    kind = files[0].suffix.lower()
    if kind == ".parquet":
        frame = frame_of(read_parquet(files, name), name)
        return from_frame(frame.reset_index(drop=True), root, name)
    if kind in {".jsonl", ".ndjson"}:
        return from_frame(read_json_lines(files), root, name)
    frames = [read_csv(file) for file in files]
    check_same(name, files, [dict.fromkeys(frame.columns, "text") for frame in frames])
    return from_frame(pd.concat(frames, ignore_index=True), root, name)


# Class folders.


def read_folder(folder: str | Path) -> Table:
    """Read a folder of class folders: columns `image` (a path relative to it) and `label`.

    The label is the name of the folder at the top, however deep an image lies. Images are known
    by their endings (`IMAGES`) and stand in the order of their paths; other files, hidden ones
    and linked folders are left out. A class folder without images gives no row. Raises DataError
    when no class folder has an image, and for an image at the top, which would have no label.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    paths = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    found = [p for p in paths if p.suffix.lower() in IMAGES and not _is_hidden(p)]
    for path in found:
        if len(path.parts) == 1:
            raise DataError(f"{folder}: {path} lies in no class folder, so it has no label")
    if not found:
        raise DataError(f"{folder}: holds neither .parquet files nor class folders with images")
    cells = {"image": [p.as_posix() for p in found], "label": [p.parts[0] for p in found]}
    return from_columns(cells, folder, name_of(folder))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
