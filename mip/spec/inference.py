"""Inference: what each column of a table seems to be, and why."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
from attrs import frozen

from mip import branches
from mip.data import (
    BLANKS,
    BOOLEAN_WORDS,
    IMAGE_SUFFIXES,
    ColumnFormat,
    Table,
    is_image,
    is_list,
)
from mip.errors import DataError
from mip.spec.guess_numbers import has_leading_zeros

_IMAGE_NAME = re.compile(rf".+({'|'.join(map(re.escape, IMAGE_SUFFIXES))})", re.IGNORECASE)
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?")
_OTHER_DATE = re.compile(r"\d{1,2}[./]\d{1,2}[./]\d{2,4}.*")
_NAME_OF_IDS = re.compile(r"(^|_)(id|index|row|number|no)$", re.IGNORECASE)
_NAME_OF_CODES = re.compile(r"zip|post.?code|(^|_)id$|code$", re.IGNORECASE)
_LONG_NUMBER = re.compile("[0-9]{16,}")
_VECTOR = re.compile(r"[\[(] *[-+\d.e]+([,; ]+[-+\d.e]+)+ *[\])]", re.IGNORECASE)


MAX_CATEGORIES = 30
"""A column with at most this many different words is a category, however short the table."""


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
    "images and others",
    "list",
    "lost files",
    "names",
    "odd name",
    "rare text",
    "row name",
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


def guess(table: Table, column: str) -> Guess:
    """Guess the role of a column. A word that can stand for a missing number ("none", "-", "NA") is
    a word among words.

    >>> from mip.data import from_columns
    >>> rows = from_columns({"town": ["Ulm", "Ulm", "none"], "size": ["1", "2.5", "?"]})
    >>> [guess(rows, name).role for name in rows.columns]
    ['category', 'number']
    """
    if not is_writable(column):
        return Guess(column, "odd name", "a spec cannot hold it", "rename the column")
    cells = [cell for cell in table.cells(column) if cell is not None]
    if any(map(is_image, cells)):
        return _guess_images(column, cells)
    if any(map(is_list, cells)):
        return _guess_lists(table, column, cells)
    words = [word for word in table.texts(column) if word]
    known = [word for word in words if word.lower() not in BLANKS]
    n_values, counts = len(set(known)), _counts(known, table)
    are_paths = all(isinstance(cell, (str, os.PathLike)) for cell in cells)
    if are_paths and _share(_IMAGE_NAME, known) > 0.9:
        if any(_is_file(table, word) for word in known):
            return Guess(column, "image", counts)
        return Guess(column, "lost files", counts, "none of these files exists")
    if n_values > 1 and _has_dates(table, column, known):
        return _guess_dates(table, column, counts)
    if n_values == 2 and all(word.lower() in BOOLEAN_WORDS for word in known):
        return Guess(column, "yes or no", counts)
    if n_values > 1 and has_numbers(table, column):
        return guess_number(table, column, known)
    if _share(_VECTOR, known) == 1 and _has_vectors(table, column, len(known)):
        return Guess(column, "vector", f"{counts}, each a list of numbers")
    return _guess_words(table, column, words)


def is_writable(text: str) -> bool:
    """Return whether a spec can hold this text."""
    # TOML is UTF-8, which has no half of a surrogate pair; a key with too many dots is refused.
    has_half = any("\ud800" <= letter <= "\udfff" for letter in text)
    too_long = len(text) > MAX_NAME_LENGTH or text.count(".") > MAX_NAME_LENGTH // 10
    return not has_half and not too_long


def _counts(words: list[str], table: Table) -> str:
    missing = len(table) - len(words)
    return f"{len(set(words))} different values" + (f", {missing} missing" if missing else "")


def _share(pattern: re.Pattern[str], words: list[str]) -> float:
    return sum(bool(pattern.fullmatch(word)) for word in words) / max(len(words), 1)


def _is_file(table: Table, word: str) -> bool:
    try:
        return (Path(table.root or ".") / word).is_file()
    except OSError:  # a name too long for any file
        return False


def has_numbers(table: Table, column: str) -> bool:
    """Return whether a column is one of numbers, some of which may be missing."""
    try:
        return not np.isnan(table.numbers(column)).all()
    except DataError:
        return False


def _has_dates(table: Table, column: str, known: list[str]) -> bool:
    form = table.formats.get(column, ColumnFormat())
    if not form.date_format and _share(_ISO_DATE, known) < 1:
        return False
    try:
        table.timestamps(column)
    except DataError:
        return False
    return True


def _guess_dates(table: Table, column: str, counts: str) -> Guess:
    days = table.timestamps(column)
    if np.isnan(days).all():
        return Guess(column, "constant", counts, "all dates are before 1678 or after 2261")
    first, last = (np.datetime64(int(day // 1), "D") for day in (np.nanmin(days), np.nanmax(days)))
    return Guess(column, "date", f"{counts}, {first} to {last}")


def _has_vectors(table: Table, column: str, n_known: int) -> bool:
    # The training rows, more than half of all, must show how long a vector is.
    if n_known <= len(table) / 2:
        return False
    branch = branches.Vector((column,))
    try:
        branch.encode(branch.adapt(table), table)
    except DataError:
        return False
    return True


def _guess_images(column: str, cells: list[Any]) -> Guess:
    if all(is_image(cell) or isinstance(cell, (str, os.PathLike)) for cell in cells):
        return Guess(column, "image", f"{len(cells)} images within the table")
    return Guess(column, "images and others", "some cells are neither images nor paths")


def _guess_lists(table: Table, column: str, cells: list[Any]) -> Guess:
    lists = [cell if is_list(cell) else [cell] for cell in cells]
    entries = [entry for cell in lists for entry in cell]
    counts = f"lists of {len(entries)} in {len(cells)} rows"
    names = [entry for entry in entries if isinstance(entry, str)]
    if len(names) == len(entries) and _share(_IMAGE_NAME, names) > 0.9:
        return Guess(column, "image", counts)
    are_numbers = all(map(is_list, cells)) and all(isinstance(e, (int, float)) for e in entries)
    if entries and are_numbers and _has_vectors(table, column, len(cells)):
        return Guess(column, "vector", f"{counts}, {len(lists[0])} numbers each")
    return Guess(column, "list", counts, "neither images nor equally many numbers in each")


def _guess_words(table: Table, column: str, words: list[str]) -> Guess:
    n_values, counts = len(set(words)), _counts(words, table)
    if n_values < 2:
        return Guess(column, "constant", counts, "nothing to learn")
    is_text = sum(len(word.split()) for word in words) >= TEXT_LENGTH * len(words)
    if n_values == len(words) == len(table) and not is_text:
        return Guess(column, "names", counts, "another word in each row")
    if _share(_OTHER_DATE, words) > 0.9:
        return Guess(column, "foreign date", counts, "dates are read as 2024-12-31")
    if n_values <= MAX_CATEGORIES or (n_values <= len(words) // 3 and not is_text):
        return Guess(column, "category", counts)
    if is_text:
        return Guess(column, "free text", counts, "too many to be categories")
    return Guess(column, "names", counts, "too many to be categories, too short to be text")


def guess_number(table: Table, column: str, known: list[str]) -> Guess:
    """Guess the role of a column of numbers; `known` are the texts of those that are there."""
    n_values, counts = len(set(known)), _counts(known, table)
    values = table.numbers(column)
    values = values[~np.isnan(values)]
    low, high = values.min(), values.max()
    is_whole, are_unique = bool((values == np.round(values)).all()), n_values == len(table)
    names_ids = high - low == n_values - 1 or re.search(_NAME_OF_IDS, column)
    is_code = _share(_LONG_NUMBER, known) == 1 or has_leading_zeros(known)
    if is_whole and are_unique and (names_ids or is_code):
        return Guess(column, "row name", counts, "it names the rows")
    if is_whole and is_code:
        return _guess_words(table, column, known)
    if is_whole and re.search(_NAME_OF_CODES, column):
        return Guess(column, "category", counts, "a code, not an amount")
    counts = f"{counts}, {low:g} to {high:g}"
    if low > 0 and high >= 10 * low:
        return Guess(column, "log number", counts, "on a log scale")
    return Guess(column, "number", counts)
