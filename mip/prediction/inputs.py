"""Rows that a model can predict: which columns they must have."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from mip.branches import (
    Absence,
    FindsProblems,
    branch_columns,
    having,
    leaf_branches,
    missing_policy,
    problems,
)
from mip.data import (
    IMAGE_SUFFIXES,
    AnyRows,
    PhotoName,
    Rows,
    Shards,
    Table,
    find_images,
    from_frame,
    is_image,
    table_files,
)
from mip.errors import DataError, MipWarning, hint, list_first, quote
from mip.images import is_photos
from mip.model import Plan, columns_of, table_of, target_columns
from mip.tree import get_in

PhotosOrRows: TypeAlias = "AnyRows | Sequence[str] | Sequence[Path]"
"""Whatever holds rows, or photos: by their paths or as images."""


def rows_to_predict(rows: PhotosOrRows, plans: Sequence[Plan]) -> Table | Shards:
    """Convert rows, or the photos that `find_photos` finds, to a table for models.

    Photos are paths, as `find_photos` finds them, or pixels, bytes and Pillow images. In a dict,
    pixels [h, w] or [h, w, 3] of a column of photos are a cell, so the dict is one row.
    Warns with MipWarning of photos that are not found where learned vectors replace them: of any in
    rows that a table is made of, of all in a table. Raises DataError for what is neither rows nor
    photos, and for photos if there is not one column of photos.
    """
    if photos := find_photos(rows):
        return photo_table(photos, photo_column(plans))
    columns = photo_columns(plans)
    if columns and _are_images(rows):
        rows = {photo_column(plans): rows}
    if isinstance(rows, Mapping) and any(_is_pixels(rows.get(column)) for column in columns):
        rows = [rows]
    table = table_of(plans[0].spec, rows)
    is_table = isinstance(rows, (Table, Shards))
    _warn_of_lost_photos(plans[0], table, at_least=len(table) if is_table else 1)
    return table


def _are_images(rows: Any) -> bool:
    each = rows if isinstance(rows, (list, tuple)) else [rows]
    return bool(each) and all(is_image(one) and not isinstance(one, Mapping) for one in each)


def _is_pixels(cell: Any) -> bool:
    shape = tuple(getattr(cell, "shape", ()))
    return len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)


def _warn_of_lost_photos(plan: Plan, table: Rows, at_least: int) -> None:
    lost = list(_lost_photos(plan, table))
    if lost and len(lost) >= at_least:
        count = f"{len(lost)} photo{'s are' if lost[1:] else ' is'} not found"
        cure = "mip.from_frame(frame, root=FOLDER) names another folder"
        text = f"{table.name}: {count} ({lost[0]}), and learned vectors replace them; {cure}"
        warnings.warn(text, MipWarning, stacklevel=4)


def _lost_photos(plan: Plan, table: Rows) -> Iterator[str]:
    """Describe the photos that are named, not found, and replaced by learned vectors."""
    for _, branch in having(plan.spec.root, FindsProblems):
        columns = branch_columns(branch)
        if missing_policy(branch) in ("error", "drop") or not {*columns} <= {*table.columns}:
            continue
        for chunk in table.chunks(columns):
            for problem in problems(branch, chunk):
                if problem.summary == Absence.LOST.value:
                    where = chunk.cell_name(problem.row, problem.column)
                    folder = os.path.realpath(chunk.root or ".")
                    yield f"{where}: {problem.reason} from {folder}"


def find_photos(rows: Any) -> list[tuple[str, Path]]:
    """Find the photos that are named by a path, by a list of paths, or by a folder that is no table
    (`mip.data.table_files`): names and paths. Other rows have none.

    Raises DataError for a list of paths that are not all those of photos.

    >>> [name for name, path in find_photos(["a.jpg", Path("b/c.PNG")])]
    ['a.jpg', 'b/c.PNG']
    >>> find_photos("houses.csv"), find_photos([{"photo": "a.jpg"}])
    ([], [])
    """
    if isinstance(rows, (str, os.PathLike)):
        path = Path(rows)
        if path.is_dir():
            return [] if table_files(path) else _photos_in(path)
        return [(str(path), path)] if _is_photo(path) else []
    listed = rows if isinstance(rows, (list, tuple)) else []
    paths = [Path(row) for row in listed if isinstance(row, (str, os.PathLike))]
    if len(paths) < len(listed):
        return []
    for path in paths:
        if not _is_photo(path):
            kinds = ", ".join(IMAGE_SUFFIXES)
            raise DataError(f"{path}: a list of paths is one of photos ({kinds}); give one table")
    return [(str(path), path) for path in paths]


def _photos_in(folder: Path) -> list[tuple[str, Path]]:
    images, ignored = find_images(folder)
    if ignored:
        count = f"{len(images)} image{'s' * (len(images) > 1)}"
        warnings.warn(f"{folder}: {count}{ignored}", MipWarning, stacklevel=4)
    return [(name.as_posix(), folder / name) for name in images]


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def photo_table(photos: Sequence[tuple[str, Path]], column: str) -> Table:
    """Make a table with a row for each photo, labeled with its name.

    Raises DataError for a photo that is not there.
    """
    import pandas as pd

    for name, path in photos:
        if not path.is_file():
            near = (other.name for other in path.parent.glob("*") if _is_photo(other))
            raise DataError(f"{name}: there is no such photo{hint(path.name, near)}")
    paths = [os.path.realpath(path) for _, path in photos]
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    # As names, to which no rule of the spec applies that leads from cells to paths.
    cells = [PhotoName(os.path.relpath(path, root), Path(root)) for path in paths]
    frame = pd.DataFrame({column: cells}, index=[name for name, _ in photos])
    return from_frame(frame, root, "photos")


def photo_columns(plans: Sequence[Plan]) -> list[str]:
    """Return the columns from which models read photos, sorted."""
    return sorted(
        {
            column
            for plan in plans
            for path, branch in leaf_branches(plan.spec.root)
            if is_photos(get_in(plan.example(), path.split(".")))
            for column in branch_columns(branch)
        }
    )


def photo_column(plans: Sequence[Plan]) -> str:
    """Return the column from which models read photos. Raises DataError unless there is one."""
    columns = photo_columns(plans)
    if not columns:
        reads = _columns_text(input_columns(plans[0]))
        raise DataError(f"photos: the model reads no photos, but {reads}")
    if len(columns) > 1:
        row = ", ".join(f"{column!r}: PATH" for column in columns)
        raise DataError(f"the model reads photos from several columns: give a row as {{{row}}}")
    return columns[0]


def check_inputs(plan: Plan, table: Rows) -> None:
    """Raise DataError for input columns that the table lacks, naming all that the model reads."""
    reads = input_columns(plan)
    missing = [column for column in reads if column not in table.columns]
    if missing:
        others = [column for column in table.columns if column not in reads]
        near = chain.from_iterable(get_close_matches(name, others, 1, 0.5) for name in missing)
        lacks = f"there {'are' if missing[1:] else 'is'} no {_columns_text(missing)}"
        known = hint(missing[0], table.columns, list(dict.fromkeys(near)))
        raise DataError(f"{table.name}: {lacks}{known}; the model reads {_columns_text(reads)}")


def input_columns(plan: Plan) -> list[str]:
    """Return the columns that a model reads, sorted, without its targets."""
    return sorted(set(columns_of(plan.spec)) - set(target_columns(plan.spec)))


def _columns_text(columns: Sequence[str]) -> str:
    names = list_first(columns, 12, quote)
    return f"column{'s' if columns[1:] else ''} {names}"


def select_inputs(plan: Plan, table: Table | Shards) -> Table | Shards:
    """Check that the table has every input column, and drop all others, the target too.

    Raises DataError for a column that the table lacks.
    """
    check_inputs(plan, table)
    return table.select(input_columns(plan))


def divided(rows: Rows, size: int) -> Iterator[Table]:
    """Divide rows into pieces of at most `size`; a chunk without rows is a piece too."""
    for chunk in rows.chunks():
        for begin in range(0, max(len(chunk), 1), size):
            yield chunk.take(range(begin, min(begin + size, len(chunk))))
