"""How a table is read for its targets: how its cells are written, what is predicted, which rows can
be used, and how these are split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mip import data, heads
from mip.data import Table, has_parts
from mip.errors import DataError, list_first, quote
from mip.spec.drafts.distinct_cells import DistinctCells, distinct_cells
from mip.spec.drafts.formats.columns import FormatGuess, guess_formats
from mip.spec.drafts.odd_rows import leave_out_headers
from mip.spec.drafts.targets.classes import (
    Formats,
    choose_split,
    label_rows,
    leave_out_rare,
    tidy_classes,
)
from mip.spec.drafts.targets.kinds import (
    CLASS_KINDS,
    TargetGuess,
    describe_set,
    guess_set,
    guess_target,
)

Columns = Mapping[str, DistinctCells]
"""The columns of a table by their names."""


class Reading(NamedTuple):
    """A table whose cells are read as they are written, the rows of it that have all targets, what
    these are, and what was guessed of how columns other than photos are written.
    """

    table: Table
    rows: Table
    targets: tuple[TargetGuess, ...]
    formats: Formats


def read_targets(
    table: Table,
    columns: Columns,
    names: Sequence[str],
    photos: Formats,
    day_first: bool | None = None,
    group: str | None = None,
) -> tuple[Reading, dict[str, Any]]:
    """Read a table for its targets, and choose its split, by a column of groups if there is one:
    the options of `data.split`. Labels that are too rare for every split are left out.

    Raises DataError for a target that cannot be predicted, and where no row has all of them.

    >>> from mip.data import from_columns
    >>> rows = from_columns({"price": [1.5, 3, 4, 2], "sold": ["yes", "no", "yes", ""]})
    >>> reading, split = read_targets(rows, distinct_cells(rows), ["price", "sold"], {})
    >>> [guess.kind for guess in reading.targets], len(reading.rows), split["stratify"]
    (['regression', 'binary'], 3, 'sold')
    """
    names_rows = [group, *(name for name, found in photos.items() if not found.problem)]
    others = {name: cells for name, cells in columns.items() if name not in names_rows}
    formats = _guess_formats(table, others, names, day_first)
    reading = _read(table, columns, names, formats, photos)
    if "part" not in names and has_parts(reading.rows):
        for target in reading.targets:
            _check_parts(reading.rows, target)
        return reading, {"column": "part"}
    if group is not None and (split := choose_split(reading.rows, reading.targets, group)):
        return reading, split
    while (split := choose_split(reading.rows, reading.targets)) is None:
        formats = leave_out_rare(reading.formats, reading.rows, reading.targets)
        reading = _read(table, columns, names, formats, photos)
    return reading, split


def _guess_formats(
    table: Table,
    columns: Columns,
    targets: Sequence[str],
    day_first: bool | None,
) -> Formats:
    """Guess how columns are written that name neither photos nor groups."""
    formats = guess_formats(columns.values(), day_first)
    for target in formats.keys() & {*targets}:
        cells, is_number = columns[target], formats[target].form.writes_numbers
        if not is_number and (form := guess_set(cells)):
            formats[target] = FormatGuess(target, form, (describe_set(cells, form),))
        elif formats[target].form.sep:
            problem = "a list of numbers in each cell: predict one of them, in a column of its own"
            formats[target] = FormatGuess(target, problem=problem)
    return leave_out_headers(formats, table, targets[0])


def _read(
    table: Table, columns: Columns, names: Sequence[str], formats: Formats, photos: Formats
) -> Reading:
    """Read a table as it is written, again if that shows classes in several spellings."""
    found = [*formats.values(), *photos.values()]
    forms = {each.column: each.form for each in found if not each.is_plain}
    read = table.with_formats({**forms, **table.formats})
    cells = {name: _as_written(columns[name], read) for name in names}
    targets = tuple(_guess_target(cells[name], formats) for name in names)
    has_all = np.all([_has_target(read, target) for target in targets], axis=0)
    rows = read if has_all.all() else read.take(np.flatnonzero(has_all))
    if len(names) > 1 and len(rows) < len(read):
        if not len(rows):
            listed = ", ".join(map(quote, names))
            raise DataError(f"{table.name}: no row has all of the targets {listed}")
        left = distinct_cells(rows.select(names))
        targets = tuple(_guess_target(left[name], formats) for name in names)
    tidied = formats
    for target in targets:
        tidied = tidy_classes(tidied, cells[target.column], target)
    if tidied is not formats:
        return _read(table, columns, names, tidied, photos)
    return Reading(read, rows, targets, formats)


def _as_written(cells: DistinctCells, table: Table) -> DistinctCells:
    form = table.formats.get(cells.column)
    return cells.with_format(form) if form else cells


def _guess_target(cells: DistinctCells, formats: Formats) -> TargetGuess:
    try:
        return guess_target(cells)
    except DataError as error:
        problem = formats[cells.column].problem if cells.column in formats else ""
        if problem:
            text = f"{cells.table.name}: column '{cells.column}' is {problem}"
            raise DataError(text) from error
        raise


def _has_target(table: Table, target: TargetGuess) -> np.ndarray:
    if target.kind == "multilabel":
        return heads.Multilabel(target.column).known(table)
    if target.kind in CLASS_KINDS:
        return table.texts(target.column) != ""
    return ~np.isnan(table.numbers(target.column))


# Parts that the table names.


def _check_parts(rows: Table, target: TargetGuess) -> None:
    """Raise DataError for a class or a label that no training row has."""
    parts = data.split(rows, column="part")
    train, valid, test = (label_rows(part, target).keys() for part in parts)
    for label in sorted((valid | test) - train)[:1]:
        text = f"'{label:.40}' is in no row of the part train, so it cannot be learned"
        cure = f"leave out its rows{_rows_of(parts[1:], target, label)}, or move some to train"
        raise DataError(f"{rows.name}: column '{target.column}': {text}; {cure}")


def _rows_of(parts: Sequence[Table], target: TargetGuess, label: str) -> str:
    if target.kind == "multilabel":
        return ""
    rows = [row for part in parts for row in part.index[part.texts(target.column) == label]]
    return f" ({list_first(rows, 3, data.format_row_label)})"
