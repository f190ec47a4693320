"""Inference: what each column of a table seems to be, and why."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from attrs import frozen

from mip import branches
from mip.data import (
    BOOLEAN_WORDS,
    IMAGE_SUFFIXES,
    ColumnFormat,
    Table,
    is_image,
    is_list,
)
from mip.errors import DataError
from mip.spec.drafts.distinct_cells import DistinctCells, without_blanks
from mip.spec.drafts.formats.numbers import has_leading_zeros

_IMAGE_NAME = re.compile(rf".+({'|'.join(map(re.escape, IMAGE_SUFFIXES))})", re.IGNORECASE)
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?")
_OTHER_DATE = re.compile(r"\d{1,2}[./]\d{1,2}[./]\d{2,4}.*")
_UNNAMED = re.compile(r"^(unnamed(: ?\d+)?)?$", re.IGNORECASE)
NAME_OF_IDS = re.compile(rf"(^|_)(id|index|row|number|no)$|{_UNNAMED.pattern}", re.IGNORECASE)
_NAME_OF_CODES = re.compile(r"zip|post.?code|(^|_)id$|code$", re.IGNORECASE)
_LONG_NUMBER = re.compile("[0-9]{16,}")
_VECTOR = re.compile(r"[\[(] *[-+\d.e]+([,; ]+[-+\d.e]+)+ *[\])]", re.IGNORECASE)


MAX_CATEGORIES = 30
"""A column with at most this many different words is a category, however short the table."""


NEARLY_ALL = 0.9
"""The share of the rows that numbers name, if they name rows: one may be a total."""


MIN_FLAGGED = 0.01
"""The smallest share of the rows that a flag marks, and leaves unmarked."""


TEXT_LENGTH = 3
"""Cells with at least this many words on average are text."""


MAX_NAME_LENGTH = 10_000
"""The length of the longest name that is written into a spec."""


Role = Literal[
    "number",
    "log number",
    "category",
    "yes or no",
    "date",
    "free text",
    "vector",
    "image",
    # These are left out.
    "constant",
    "foreign date",
    "group",
    "images and others",
    "list",
    "lost files",
    "lost photos",
    "names",
    "nearly numbers",
    "odd name",
    "rare text",
    "row name",
    "same photos",
]


@frozen
class Guess:
    """What a column seems to be, what its cells are, and what follows from that."""

    column: str
    role: Role
    cells: str
    conclusion: str = ""

    @property
    def reason(self) -> str:
        """The cells and the conclusion."""
        return f"{self.cells}: {self.conclusion}" if self.conclusion else self.cells


def guess(cells: DistinctCells) -> Guess:
    """Guess the role of a column. A word that can stand for a missing number ("none", "-", "NA") is
    a word among words.

    >>> from mip.data import from_columns
    >>> from mip.spec.drafts.distinct_cells import distinct_cells
    >>> rows = from_columns({"town": ["Ulm", "Ulm", "none"], "size": ["1", "2.5", "?"]})
    >>> [guess(cells).role for cells in distinct_cells(rows).values()]
    ['category', 'number']
    """
    column, objects = cells.column, cells.objects()
    if not is_writable(column):
        return Guess(column, "odd name", "a spec cannot hold it", "rename the column")
    if any(map(is_image, objects)):
        return _guess_images(cells)
    if any(map(is_list, objects)):
        return _guess_lists(cells)
    words = cells.count(cells.texts())
    known = without_blanks(words)
    n_values, counts = len(known), _counts(known, cells)
    are_paths = all(isinstance(cell, os.PathLike) for cell in objects)
    if are_paths and _match(_IMAGE_NAME, known, share=0.9):
        if any(_is_file(cells.table, word) for word in known):
            return Guess(column, "image", counts)
        return Guess(column, "lost files", counts, "none of these files exists")
    if n_values > 1 and (days := _days(cells, known)) is not None:
        return _guess_dates(column, days, counts)
    if _are_answers(known):
        return Guess(column, "yes or no", counts)
    if n_values > 1 and len(numbers := known_numbers(cells)):
        return guess_number(cells, known, numbers)
    if _match(_VECTOR, known) and _has_vectors(cells, sum(known.values())):
        return Guess(column, "vector", f"{counts}, each a list of numbers")
    return _guess_words(cells, words)


def is_writable(text: str) -> bool:
    """Return whether a spec can hold this text."""
    # TOML is UTF-8, which has no half of a surrogate pair; a key with too many dots is refused.
    has_half = any("\ud800" <= letter <= "\udfff" for letter in text)
    too_long = len(text) > MAX_NAME_LENGTH or text.count(".") > MAX_NAME_LENGTH // 10
    return not has_half and not too_long


def _counts(words: Mapping[str, int], cells: DistinctCells) -> str:
    missing = len(cells.table) - sum(words.values())
    values = "1 value" if len(words) == 1 else f"{len(words)} different values"
    return values + (f", {missing} missing" if missing else "")


def _match(pattern: re.Pattern[str], words: Mapping[str, int], share: float = 1.0) -> bool:
    """Whether a pattern matches words, all of them or those of more than a share of the rows."""
    total = left = sum(words.values())
    for word, n in words.items():
        if not pattern.fullmatch(word):
            left -= n
            if left / total <= share:
                return False
    return total > 0


def _are_answers(words: Iterable[str]) -> bool:
    """Whether all words mean yes or no, and both are there."""
    answers = set[float]()
    for word in words:
        if word.lower() not in BOOLEAN_WORDS:
            return False
        answers.add(BOOLEAN_WORDS[word.lower()])
    return len(answers) == 2


def _is_file(table: Table, word: str) -> bool:
    try:
        return (Path(table.root or ".") / word).is_file()
    except OSError:  # a name too long for any file
        return False


def known_numbers(cells: DistinctCells) -> np.ndarray:
    """Return the distinct numbers of a column, float64, without missing ones; none if some of its
    cells are no numbers.
    """
    values = np.zeros(0) if cells.numbers is None else cells.numbers
    return values[~np.isnan(values)]


def _days(cells: DistinctCells, known: Mapping[str, int]) -> np.ndarray | None:
    form = cells.table.formats.get(cells.column, ColumnFormat())
    return cells.days() if form.date_format or _match(_ISO_DATE, known) else None


def _guess_dates(column: str, days: np.ndarray, counts: str) -> Guess:
    if np.isnan(days).all():
        return Guess(column, "constant", counts, "all dates are before 1678 or after 2261")
    first, last = (np.datetime64(int(day // 1), "D") for day in (np.nanmin(days), np.nanmax(days)))
    return Guess(column, "date", f"{counts}, {first} to {last}")


def _has_vectors(cells: DistinctCells, n_known: int) -> bool:
    # The training rows, more than half of all, must show how long a vector is.
    if n_known <= len(cells.table) / 2:
        return False
    branch, rows = branches.Vector((cells.column,)), cells.rows()
    try:
        branch.encode(branch.adapt(rows), rows)
    except DataError:
        return False
    return True


def _guess_images(cells: DistinctCells) -> Guess:
    images = [cell for cell in cells.table.cells(cells.column) if cell is not None]
    if all(is_image(cell) or isinstance(cell, (str, os.PathLike)) for cell in images):
        return Guess(cells.column, "image", f"{len(images)} images within the table")
    return Guess(cells.column, "images and others", "some cells are neither images nor paths")


def _guess_lists(cells: DistinctCells) -> Guess:
    known = [cell for cell in cells.table.cells(cells.column) if cell is not None]
    lists = [cell if is_list(cell) else [cell] for cell in known]
    entries = [entry for cell in lists for entry in cell]
    counts = f"lists of {len(entries)} in {len(lists)} rows"
    are_names = all(isinstance(entry, str) for entry in entries)
    if are_names and _match(_IMAGE_NAME, Counter(entries), share=0.9):
        return Guess(cells.column, "image", counts)
    form = cells.table.formats.get(cells.column)
    types = (int, float, str) if form and form.sep else (int, float)
    are_numbers = all(map(is_list, known)) and all(isinstance(e, types) for e in entries)
    if entries and are_numbers and _has_vectors(cells, len(lists)):
        return Guess(cells.column, "vector", f"{counts}, {len(lists[0])} numbers each")
    return Guess(cells.column, "list", counts, "neither images nor equally many numbers in each")


def _guess_words(cells: DistinctCells, words: Mapping[str, int]) -> Guess:
    column, n_values, n_words = cells.column, len(words), sum(words.values())
    counts = _counts(words, cells)
    if len(without_blanks(words)) == 1 == n_values and _is_flag(n_words, len(cells.table)):
        return Guess(column, "category", counts, "marked or not")
    if n_values < 2:
        return Guess(column, "constant", counts, "nothing to learn")
    is_text = sum(len(word.split()) * n for word, n in words.items()) >= TEXT_LENGTH * n_words
    if n_values == n_words == len(cells.table) and not is_text:
        return Guess(column, "names", counts, "another word in each row")
    if _match(_OTHER_DATE, words, share=0.9):
        return Guess(column, "foreign date", counts, "dates are read as 2024-12-31")
    if n_values <= MAX_CATEGORIES or (n_values <= n_words // 3 and not is_text):
        return Guess(column, "category", counts)
    if is_text:
        return Guess(column, "free text", counts, "too many to be categories")
    return Guess(column, "names", counts, "too many to be categories, too short to be text")


def _is_flag(n_marked: int, n_rows: int) -> bool:
    """Whether cells that are all the same or empty mark rows."""
    return min(n_marked, n_rows - n_marked) >= max(2, MIN_FLAGGED * n_rows)


def guess_number(cells: DistinctCells, known: Mapping[str, int], values: np.ndarray) -> Guess:
    """Guess the role of a column of numbers; `known` counts the texts of those that are there, and
    `values` are their `known_numbers`.
    """
    column, n_values, counts = cells.column, len(known), _counts(known, cells)
    low, high = values.min(), values.max()
    is_whole, n_known = bool((values == np.round(values)).all()), sum(known.values())
    are_unique = n_values == n_known >= NEARLY_ALL * len(cells.table)
    names_ids = high - low == n_values - 1 or re.search(NAME_OF_IDS, column)
    if is_whole and _UNNAMED.search(column) and high - low < 2 * n_values > len(cells.table):
        return Guess(column, "row name", counts, "it names the rows, some of them twice")
    is_code = is_whole and (_match(_LONG_NUMBER, known) or has_leading_zeros(known))
    if is_whole and are_unique and (names_ids or is_code):
        return Guess(column, "row name", counts, "it names the rows")
    if is_code:
        return _guess_words(cells, known)
    if is_whole and re.search(_NAME_OF_CODES, column):
        return Guess(column, "category", counts, "a code, not an amount")
    counts = f"{counts}, {low:g} to {high:g}"
    if low > 0 and high >= 10 * low:
        return Guess(column, "log number", counts, "on a log scale")
    return Guess(column, "number", counts)
