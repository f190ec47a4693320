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


def find_totals(columns: Iterable[DistinctCells]) -> list[str]:
    """Find rows that look like sums of the others: a last row, or one of two, with the word.

    >>> from mip.data import from_columns
    >>> from mip.spec.drafts.distinct_cells import distinct_cells
    >>> rows = from_columns({"town": ["Ulm", "Bonn", "Total"], "sales": ["1", "2", "3"]})
    >>> find_totals(distinct_cells(rows).values())
    ["row 2 has 'Total' in column 'town': if it is the sum of other rows, remove it"]
    """
    notes = []
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
    return notes


def _is_total(cell: Any) -> bool:
    return isinstance(cell, str) and cell.strip(" :").lower() in _TOTALS
