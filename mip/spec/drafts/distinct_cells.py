"""The distinct cells of a column: what is looked at to guess what the column is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np
from attrs import evolve, frozen

from mip.data import BLANKS, ColumnFormat, Table, as_text, format_row_label, holds_text
from mip.errors import DataError


@frozen(eq=False)
class DistinctCells:
    """The distinct cells of a column, in the order in which they first appear: the positions of the
    first row that has each, and the number of rows that do, int32 [m]. The `table` has all rows of
    this column, and no other.

    Cells that are neither numbers, dates nor strings are not compared: each is one of its own.

    >>> from mip.data import from_columns
    >>> rows = from_columns({"town": ["Ulm", "Bonn", None, "Ulm ", "Ulm"]})
    >>> cells = distinct_cells(rows)["town"]
    >>> cells.values(), cells.firsts, cells.counts
    (['Ulm', 'Bonn', 'Ulm '], array([0, 1, 3], dtype=int32), array([2, 1, 1], dtype=int32))
    >>> cells.count(cells.texts())
    {'Ulm': 3, 'Bonn': 1}
    """

    column: str
    table: Table
    firsts: np.ndarray
    counts: np.ndarray

    def rows(self) -> Table:
        """Take the first row with each cell."""
        return self.table.take(self.firsts)

    def values(self) -> list[Any]:
        """The cells as they are, None if missing (see `Table.cells`)."""
        return self.rows().cells(self.column)

    def objects(self) -> list[Any]:
        """The cells that are neither missing nor texts."""
        form = self.table.formats.get(self.column)
        if holds_text(self.table[self.column]) and not (form and form.sep):
            return []
        return [cell for cell in self.values() if cell is not None and not isinstance(cell, str)]

    def texts(self) -> list[str]:
        """The cells as texts, "" if missing (see `Table.texts`)."""
        return self.rows().texts(self.column).tolist()

    def written(self) -> list[str]:
        """The cells as texts as they are written: "1.000", which may be a thousand, is not "1"."""
        values = ["" if cell is None else cell for cell in self.values()]
        if not self.objects() and "".join(values).isascii():
            return [*map(str.strip, values)]
        return [
            cell.strip() if isinstance(cell, str) and cell.isascii() else as_text(cell)
            for cell in values
        ]

    @cached_property
    def numbers(self) -> np.ndarray | None:
        """The cells as numbers, float64 [m] (see `Table.numbers`); None if some are none."""
        with suppress(DataError):
            return self.rows().numbers(self.column)
        return None

    def days(self) -> np.ndarray | None:
        """The cells as days, float64 [m] (see `Table.timestamps`); None if some are no dates."""
        with suppress(DataError):
            return self.rows().timestamps(self.column)
        return None

    def count(self, texts: Sequence[str]) -> dict[str, int]:
        """Count the rows that have each text, given that of each cell, but for ""."""
        counts = dict(zip(texts, self.counts.tolist(), strict=True))
        if len(counts) < len(texts):  # some cells have the same text
            counts = dict.fromkeys(counts, 0)
            for text, n in zip(texts, self.counts.tolist(), strict=True):
                counts[text] += n
        counts.pop("", None)
        return counts

    def select(self, which: slice | np.ndarray) -> DistinctCells:
        """Keep some of the cells: a slice, or bool [m]."""
        return evolve(self, firsts=self.firsts[which], counts=self.counts[which])

    def row_label(self, position: int) -> str:
        """Write the label of the first row with a cell."""
        return format_row_label(self.table.index[self.firsts[[position]]].tolist()[0])

    def with_format(self, form: ColumnFormat) -> DistinctCells:
        """Read the cells as they are written."""
        return evolve(self, table=self.table.with_formats({self.column: form}))


def distinct_cells(table: Table) -> dict[str, DistinctCells]:
    """Find the distinct cells of each column."""
    return {
        column: _distinct_cells(column, evolve(table, frame=table.frame[[column]]))
        for column in table.columns
    }


def _distinct_cells(column: str, table: Table) -> DistinctCells:
    import pandas as pd

    if table[column].dtype == object:
        known = np.flatnonzero([cell is not None for cell in table.cells(column)])
        return DistinctCells(column, table, known, np.ones_like(known))
    codes, _ = pd.factorize(table[column], use_na_sentinel=True)
    known = np.flatnonzero(codes >= 0)
    counts = np.bincount(codes[known]).astype(np.int32)
    firsts = np.empty_like(counts)
    firsts[codes[known[::-1]]] = known[::-1]  # of several rows the last one written is kept
    return DistinctCells(column, table, firsts, counts)


def without_blanks(counts: Mapping[str, int]) -> Mapping[str, int]:
    """Leave out the texts that mean a missing number.

    >>> without_blanks({"12": 3, "n/a": 1})
    {'12': 3}
    """
    if BLANKS.isdisjoint(map(str.lower, counts)):
        return counts
    return {text: n for text, n in counts.items() if text.lower() not in BLANKS}
