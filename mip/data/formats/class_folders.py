"""Class folders: a folder of images per class."""

from __future__ import annotations

from pathlib import Path

from mip.data.memory import from_columns
from mip.data.table import Table
from mip.errors import DataError

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""The suffixes, in lower case, of the files that are images."""


def read_class_folders(folder: str | Path) -> Table:
    """Read a folder of class folders: columns `image` (a path relative to it) and `label`.

    The label is the name of the top-level folder, however deep the image is inside it. Images are
    recognised by suffix (`IMAGE_SUFFIXES`) and sorted by path; other files, hidden ones and linked
    folders are skipped. A class folder without images yields no row. Raises DataError if no class
    folder has an image, and for an image outside of them, which would have no label.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    images = [
        path
        for path in paths
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.parts)
    ]
    for path in images:
        if len(path.parts) == 1:
            raise DataError(f"{folder}: {path} is in no class folder, so it has no label")
    if not images:
        raise DataError(f"{folder}: holds neither .parquet files nor class folders with images")
    cells = {"image": [p.as_posix() for p in images], "label": [p.parts[0] for p in images]}
    return from_columns(cells, folder, folder.absolute().name or str(folder))
