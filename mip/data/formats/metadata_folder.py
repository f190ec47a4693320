"""Image folders with a table of metadata beside the images, in the layout of Hugging Face."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mip.data.checks import check_same_columns
from mip.data.parts import part_name
from mip.errors import DataError, hint

if TYPE_CHECKING:
    import pandas as pd

Formats = Mapping[str, Callable[..., "pd.DataFrame"]]
"""The reader of each suffix."""


FILE_NAME = "file_name"
"""The column that names an image beside its table."""


def metadata_files(folder: Path, formats: Formats) -> list[Path]:
    """List the files named `metadata`, with the suffix of a table, in a folder and in those of its
    parts (train, valid, test).
    """
    folders = [folder, *(sub for sub in sorted(folder.iterdir()) if sub.is_dir())]
    files = [sub / f"metadata{suffix}" for sub in folders for suffix in formats]
    return [file for file in files if file.is_file()]


def read_metadata(folder: Path, files: Sequence[Path], formats: Formats) -> pd.DataFrame:
    """Read tables of metadata: their columns, of which `file_name` becomes a path relative to the
    folder, and `part` if each table is in the folder of a part.

    Raises DataError for a table without a column `file_name`, and for tables of other columns.
    """
    import pandas as pd

    frames = [formats[file.suffix]([file], file.name) for file in files]
    for file, frame in zip(files, frames, strict=True):
        if FILE_NAME not in frame:
            known = hint(FILE_NAME, map(str, frame.columns))
            raise DataError(f"{file}: there is no column '{FILE_NAME}', which names images{known}")
    check_same_columns(
        folder.name, files, [dict.fromkeys(map(str, frame.columns), "any") for frame in frames]
    )
    parts = [part_name(file.parent.name) if file.parent != folder else None for file in files]
    for file, frame, part in zip(files, frames, parts, strict=True):
        inside = file.parent.relative_to(folder)
        frame[FILE_NAME] = [(inside / str(name)).as_posix() for name in frame[FILE_NAME]]
        if all(parts):
            frame["part"] = part
    return pd.concat(frames, ignore_index=True)
