"""Image folders: photos, in class folders or loose, all in one part or in folders of parts."""

from __future__ import annotations

from pathlib import Path, PurePath

from mip.data.memory import from_columns
from mip.data.parts import part_name
from mip.data.paths import display_name
from mip.data.table import Table
from mip.errors import DataError

IMAGE_SUFFIXES = (
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".j2k", ".jp2", ".jpeg", ".jpg", ".png", ".tif",
    ".tiff", ".webp",
)  # fmt: skip
"""The suffixes, in lower case, of the files that are images."""


def read_image_folder(folder: str | Path) -> Table:
    """Read a folder of images: column `image` (a path relative to it), and `part` and `label` if
    its folders name these.

    If all folders at the top are named after parts (`part_name`: train, val, Test, …), `part` is
    train, valid or test, and class folders are those inside. `label` is the name of the class
    folder, however deep the image is in it; an image beside class folders has none. If there are
    only loose images, there is no column `label`.

    Images are recognised by suffix (`IMAGE_SUFFIXES`) and sorted by path; other files, hidden ones
    and linked folders are skipped. A class folder without images yields no row. Raises DataError if
    there is no image, and for an image beside the folders of the parts.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*") if _is_image(path))
    images = [path for path in paths if not any(part.startswith(".") for part in path.parts)]
    if not images:
        raise DataError(f"{folder}: holds neither .parquet files nor images")
    columns: dict[str, list[str | None]] = {"image": [path.as_posix() for path in images]}
    tops = {path.parts[0] for path in images if len(path.parts) > 1}
    has_parts = bool(tops) and all(map(part_name, tops))
    labels = [_folder_at(int(has_parts), path) for path in images]
    columns |= {"label": labels} if any(labels) else {}
    columns |= {"part": [_part_of(path, folder) for path in images]} if has_parts else {}
    return from_columns(columns, folder, display_name(folder))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _folder_at(depth: int, path: PurePath) -> str | None:
    return path.parts[depth] if len(path.parts) > depth + 1 else None


def _part_of(path: PurePath, folder: Path) -> str | None:
    if len(path.parts) == 1:
        raise DataError(f"{folder}: {path} is in none of the folders of the parts")
    return part_name(path.parts[0])
