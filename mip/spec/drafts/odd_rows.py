"""Rows that are no rows of data: headers that repeat, and sums."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mip.data import Table, format_row_label
from mip.errors import list_first, quote
from mip.spec.drafts.distinct_cells import DistinctCells
from mip.spec.drafts.formats.columns import FormatGuess

_TOTALS = frozenset(
    {"total", "totals", "grand total", "sum", "sums", "subtotal", "sub total", "average", "mean"}
    | {"summe", "gesamt", "gesamtsumme", "insgesamt", "durchschnitt", "mittelwert"}
)


def leave_out_headers(
    formats: Mapping[str, FormatGuess], table: Table, target: str
) -> dict[str, FormatGuess]:
    """Let the target be missing in rows that repeat the header, so that they are left out."""
    if len(table.columns) < 2 or target not in formats:
        return dict(formats)
    rows = np.arange(len(table))
    for name in table.columns:
        cells = table[name].iloc[rows].tolist()
        rows = rows[[isinstance(cell, str) and cell == name for cell in cells]]
    found = formats[target]
    if not len(rows) or target in found.form.na_values:
        return dict(formats)
    listed = list_first(rows.tolist())
    note = f"{quote(target)} in the rows that repeat the header ({listed}): missing"
    return {**formats, target: found.leave_out([target], note)}


def find_copies(table: Table, columns: Iterable[DistinctCells]) -> list[str]:
    """Find rows that are copies of others: their likes in test are known from training.

    >>> from mip.data import from_columns
    >>> from mip.spec.drafts.distinct_cells import distinct_cells
    >>> rows = from_columns({"town": ["Ulm", "Bonn", "Ulm"], "sales": ["1", "2", "1"]})
    >>> [note] = find_copies(rows, distinct_cells(rows).values())
    >>> note[:39]
    '1 row is a copy of another, as is row 2'
    """
    are_texts = all(table[name].dtype != object for name in table.columns)
    if not are_texts or any(len(cells.counts) == len(table) for cells in columns):
        return []
    copies = np.flatnonzero(table.frame.duplicated())
    if not len(copies):
        return []
    count = "1 row is a copy" if len(copies) == 1 else f"{len(copies)} rows are copies"
    row = format_row_label(table.index[copies[:1]].tolist()[0])
    cure = "remove them, unless they are different things that look the same"
    why = "what is in training is known in test"
    return [f"{count} of another, as is row {row}: {why}; {cure}"]


def find_totals(columns: Iterable[DistinctCells]) -> list[str]:
    """Find rows that look like sums of the others: one or two with the word, or else the last one
    whose numbers are those sums in at least two columns.

    >>> from mip.data import from_columns
    >>> from mip.spec.drafts.distinct_cells import distinct_cells
    >>> rows = from_columns({"town": ["Ulm", "Bonn", "Total"], "sales": ["1", "2", "3"]})
    >>> find_totals(distinct_cells(rows).values())
    ["row 2 has 'Total' in column 'town': if it is the sum of other rows, remove it"]
    """
    columns, notes = [*columns], []
    for cells in columns:
        if cells.numbers is not None:  # a word is none
            continue
        are_totals = [_is_total(cell) for cell in cells.rows()[cells.column].tolist()]
        if cells.counts[are_totals].sum() in {1, 2} and len(cells.table) > 2:
            texts = cells.table[cells.column].tolist()
            last = max(position for position, cell in enumerate(texts) if _is_total(cell))
            row = format_row_label(cells.table.index[[last]].tolist()[0])
            notes.append(
                f"row {row} has {quote(texts[last])} in column '{cells.column}': if it is the sum "
                "of other rows, remove it"
            )
    sums = [cells.column for cells in columns if _ends_with_sum(cells)]
    if len(sums) > 1 and not notes:
        listed = list_first(sums, 3, quote)
        notes.append(
            f"the last row is the sum of the others in the columns {listed}: if it is, remove it"
        )
    return notes


def _ends_with_sum(cells: DistinctCells) -> bool:
    """Whether the last number of a column is the sum of the others, and larger than each."""
    table, numbers = cells.table, cells.numbers
    if numbers is None or len(table) < 4 or len(numbers) < 3:
        return False
    [last] = table.take(np.array([len(table) - 1])).numbers(cells.column).tolist()
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(np.nansum(numbers * cells.counts))
    is_largest = (numbers < last).sum() == len(numbers) - 1
    return bool(is_largest and abs(total - 2 * last) <= 1e-9 * abs(last))


def _is_total(cell: Any) -> bool:
    return isinstance(cell, str) and cell.strip(" :").lower() in _TOTALS
