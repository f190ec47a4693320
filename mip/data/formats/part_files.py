"""Tables that are read file by file: those of parts, and those beside the images that they name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mip.data.cells import IMAGE_SUFFIXES, as_text, is_missing
from mip.data.checks import check_same_columns, fill_schemas
from mip.data.parts import part_name
from mip.data.paths import walk_files
from mip.errors import DataError, MipWarning, hint

if TYPE_CHECKING:
    import pandas as pd

FILE_NAME = "file_name"
"""The column that names an image beside its table, or the end of its name ("left_file_name")."""


def read_one_by_one(
    files: Sequence[Path],
    folder: Path,
    read: Callable[[Sequence[Path]], pd.DataFrame],
    parts: Sequence[str] | None,
    are_metadata: bool,
) -> pd.DataFrame:
    """Read the files of a table one by one. If they are in `parts`, `part` is that of each row; in
    metadata, the columns `file_name` become paths relative to the folder.

    A file of valid or test may lack columns that those of train have, with a MipWarning: they are
    blank in its rows. Raises DataError for other columns, for metadata without `file_name`, and for
    a column `part` that says otherwise.
    """
    import pandas as pd

    frames = [read([file]) for file in files]
    if are_metadata:
        _warn_of_images_without_metadata(folder, files)
        pairs = zip(frames, files, strict=True)
        frames = [_with_paths(frame, file, folder) for frame, file in pairs]
    schemas: list[Mapping[str, str]]
    schemas = [dict.fromkeys(map(str, frame.columns), "any") for frame in frames]
    if parts:
        triples = zip(frames, files, parts, strict=True)
        frames = [_with_part(frame, file, part) for frame, file, part in triples]
        schemas = fill_schemas(folder.name, schemas, parts)
    check_same_columns(folder.name, files, schemas)
    columns = frames[parts.index("train") if parts else 0].columns
    return pd.concat([_with_blanks(frame, columns) for frame in frames], ignore_index=True)


def _with_blanks(frame: pd.DataFrame, columns: pd.Index) -> pd.DataFrame:
    import pandas as pd

    # Objects, for beside floats whole numbers would become such, and long ones lose digits.
    blank = pd.Series([None] * len(frame), frame.index, dtype=object)
    return frame.assign(**{name: blank for name in columns if name not in frame})[columns]


def _with_part(frame: pd.DataFrame, file: Path, part: str) -> pd.DataFrame:
    if "part" in frame and any(part_name(as_text(cell)) != part for cell in frame["part"]):
        cure = "rename the column"
        raise DataError(f"{file}: is of the part {part}, but its column 'part' is not: {cure}")
    return frame.assign(part=part)


def _with_paths(frame: pd.DataFrame, file: Path, folder: Path) -> pd.DataFrame:
    columns = [column for column in map(str, frame.columns) if column.endswith(FILE_NAME)]
    if not columns:
        known = hint(FILE_NAME, map(str, frame.columns))
        raise DataError(f"{file}: there is no column '{FILE_NAME}', which names images{known}")
    inside = file.parent.relative_to(folder)
    frame = frame.copy(deep=False)
    for column in columns:
        frame[column] = [_joined(inside, cell) for cell in frame[column]]
    return frame


def _joined(inside: Path, cell: Any) -> str | None:
    return None if is_missing(cell) or cell == "" else (inside / str(cell)).as_posix()


def _warn_of_images_without_metadata(folder: Path, files: Sequence[Path]) -> None:
    known = {file.parent for file in files}
    for sub in [] if folder in known else sorted(folder.iterdir()):
        if sub.is_dir() and part_name(sub.name) and sub not in known:
            n_images = sum(path.suffix.lower() in IMAGE_SUFFIXES for path in walk_files(sub))
            why = "there is no metadata beside them"
            are = (
                f"{n_images} images in {sub.name} are"
                if n_images > 1
                else f"image in {sub.name} is"
            )
            text = f"{folder}: the {are} left out: {why}"
            if n_images:
                warnings.warn(text, MipWarning, stacklevel=4)
