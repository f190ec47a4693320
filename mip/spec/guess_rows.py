"""Rows that are no rows of data: headers that repeat, and sums."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from attrs import evolve

from mip.data import Table, format_row_label
from mip.errors import list_rows, quote
from mip.spec.guess_formats import FormatGuess

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
    repeats = [
        [isinstance(cell, str) and cell == name for cell in table[name].tolist()]
        for name in table.columns
    ]
    rows = np.flatnonzero(np.all(repeats, axis=0)).tolist()
    found = formats[target]
    if not rows or target in found.form.na_values:
        return dict(formats)
    form = evolve(found.form, na_values=(*found.form.na_values, target))
    note = f"{quote(target)} in the rows that repeat the header ({list_rows(rows)}): missing"
    return {**formats, target: evolve(found, form=form, notes=(*found.notes, note))}


def find_totals(table: Table) -> list[str]:
    """Find rows that look like sums of the others: a last row, or one of two, with the word.

    >>> from mip.data import from_columns
    >>> find_totals(from_columns({"town": ["Ulm", "Bonn", "Total"], "sales": ["1", "2", "3"]}))
    ["row 2 has 'Total' in column 'town': if it is the sum of other rows, remove it"]
    """
    notes = []
    for column in table.columns:
        cells = table[column].tolist()
        rows = [
            row
            for row, cell in enumerate(cells)
            if isinstance(cell, str) and cell.strip(" :").lower() in _TOTALS
        ]
        if len(rows) in {1, 2} and len(cells) > 2:
            row = format_row_label(table.index[rows[-1:]].tolist()[0])
            notes.append(
                f"row {row} has {quote(cells[rows[-1]])} in column '{column}': if it is the sum of "
                "other rows, remove it"
            )
    return notes
