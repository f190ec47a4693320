"""Inference: what each column of a table seems to be, and why."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from attrs import evolve, frozen

from mip import branches, heads
from mip.data import BLANKS, BOOLEAN_WORDS, IMAGE_SUFFIXES, Table, is_image, is_list
from mip.errors import DataError

PICTURE = re.compile(rf".+({'|'.join(map(re.escape, IMAGE_SUFFIXES))})", re.IGNORECASE)


ISO = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?")


DATE = re.compile(r"\d{1,2}[./]\d{1,2}[./]\d{2,4}.*")


IDENTITY = re.compile(r"(^|_)(id|index|row|number|no)$", re.IGNORECASE)


CODE = re.compile(r"zip|post.?code|(^|_)id$|code$", re.IGNORECASE)


VECTOR = re.compile(r"[\[(] *[-+\d.e]+([,; ]+[-+\d.e]+)+ *[\])]", re.IGNORECASE)


LOST = ": none of these files is there"


LOG = ": on a log scale"


FEW = 30
"""A column of words with at most so many different ones is a category, however short the table."""


SENTENCE = 3
"""So many words a cell, on average, are text."""


LONGEST = 10_000
"""So many letters has the longest name that is written."""


@frozen
class Guess:
    """What a column seems to be, and why."""

    column: str
    role: str
    reason: str


def guess(table: Table, column: str) -> Guess:
    """Guess a column's role: number, log number, category, yes or no, date, free text, vector,
    image, or what is left out. What stands for a missing number ("none", "-", "NA") is a word
    among words.

    >>> from mip.data import from_columns
    >>> rows = from_columns({"town": ["Ulm", "none"], "size": ["1.5", "2.5"], "age": ["none", ""]})
    >>> [guess(rows, name).role for name in rows.columns]
    ['category', 'number', 'constant']
    """
    if not is_writable(column):
        return Guess(column, "odd name", "a spec cannot hold it: rename the column")
    cells = [cell for cell in table.cells(column) if cell is not None]
    if any(map(is_image, cells)):
        return _guess_images(column, cells)
    if any(map(is_list, cells)):
        return _guess_list(table, column, cells)
    words = [word for word in table.texts(column) if word]
    known = [word for word in words if word.lower() not in BLANKS]
    kinds, told = len(set(known)), _counts(known, table)
    if _share(PICTURE, known) > 0.9 and all(isinstance(cell, (str, os.PathLike)) for cell in cells):
        there = any(map(partial(_is_file, table), known))
        return Guess(column, "image" if there else "lost files", f"{told}{'' if there else LOST}")
    if kinds == 2 and all(word.lower() in BOOLEAN_WORDS for word in known):
        return Guess(column, "yes or no", told)
    if kinds > 1 and _is_number(table, column):
        return _guess_number(table, column, kinds, told)
    if kinds > 1 and _share(ISO, known) == 1 and _is_date(table, column):
        return Guess(column, "date", f"{told}, {min(known):.10} to {max(known):.10}")
    if _share(VECTOR, known) == 1 and _is_vector(table, column, known):
        return Guess(column, "vector", f"{told}, each a list of numbers")
    return _guess_words(column, words, _counts(words, table))


def _counts(words: list[str], table: Table) -> str:
    blank = len(table) - len(words)
    return f"{len(set(words))} different values" + (f", {blank} missing" if blank else "")


def _is_file(table: Table, word: str) -> bool:
    try:
        return (Path(table.root or ".") / word).is_file()
    except OSError:  # a name too long for any file
        return False


def is_writable(text: str) -> bool:
    """Whether a spec can hold this text."""
    # TOML is UTF-8, which has no half of a surrogate pair; a line with too many dots is no spec.
    halves = any("\ud800" <= letter <= "\udfff" for letter in text)
    return not halves and len(text) <= LONGEST and text.count(".") <= LONGEST // 10


def _guess_words(column: str, words: list[str], told: str) -> Guess:
    kinds = len(set(words))
    if kinds < 2:
        return Guess(column, "constant", f"{told}: nothing to learn")
    if _share(DATE, words) > 0.9:
        return Guess(column, "foreign date", f"{told}: dates are read as 2024-12-31")
    long = sum(len(word.split()) for word in words) >= SENTENCE * len(words)
    if kinds <= FEW or (kinds <= len(words) // 3 and not long):
        return Guess(column, "category", told)
    if long:
        return Guess(column, "free text", f"{told}: too many to be categories")
    return Guess(column, "names", f"{told}: too many to be categories, too short to be text")


def _guess_images(column: str, cells: list[Any]) -> Guess:
    if all(is_image(cell) or isinstance(cell, (str, os.PathLike)) for cell in cells):
        return Guess(column, "image", f"{len(cells)} images within the table")
    return Guess(column, "images and others", "some cells are neither images nor paths")


def _guess_list(table: Table, column: str, cells: list[Any]) -> Guess:
    listed = [cell if is_list(cell) else [cell] for cell in cells]
    words = [word for cell in listed for word in cell]
    told = f"lists of {len(words)} in {len(cells)} rows"
    names = [word for word in words if isinstance(word, str)]
    if len(names) == len(words) and _share(PICTURE, names) > 0.9:
        return Guess(column, "image", told)
    numbers = all(isinstance(word, (int, float)) for word in words)
    if words and numbers and all(map(is_list, cells)) and _is_vector(table, column, cells):
        return Guess(column, "vector", f"{told}, {len(listed[0])} numbers each")
    return Guess(column, "list", f"{told}: neither images nor as many numbers in each")


def _share(pattern: re.Pattern[str], words: list[str]) -> float:
    return sum(bool(pattern.fullmatch(word)) for word in words) / max(len(words), 1)


def _is_number(table: Table, column: str) -> bool:
    try:
        return not np.isnan(table.numbers(column)).all()
    except DataError:
        return False


def _is_vector(table: Table, column: str, known: list[Any]) -> bool:
    # The training rows, more than half of all, tell how long it is.
    if len(known) <= len(table) / 2:
        return False
    branch = branches.Vector((column,))
    try:
        branch.encode(branch.adapt(table), table)
    except DataError:
        return False
    return True


def _is_date(table: Table, column: str) -> bool:
    try:
        table.timestamps(column)
    except DataError:
        return False
    return True


def _guess_number(table: Table, column: str, kinds: int, told: str) -> Guess:
    values = table.numbers(column)
    values = values[~np.isnan(values)]
    whole = bool((values == np.round(values)).all())
    counted = whole and kinds == len(table) and values.max() - values.min() == kinds - 1
    if counted or (whole and kinds == len(table) and re.search(IDENTITY, column)):
        return Guess(column, "row name", f"{told}: it names the rows")
    if whole and re.search(CODE, column):
        return Guess(column, "category", f"{told}: a code, not an amount")
    low, high = values.min(), values.max()
    told = f"{told}, {low:g} to {high:g}"
    if low > 0 and high >= 10 * low:
        return Guess(column, "log number", f"{told}{LOG}")
    return Guess(column, "number", told)


@frozen
class TargetGuess:
    """The kind of head that suits a target, why, and its options beside the column, in TOML."""

    column: str
    kind: str
    reason: str
    options: tuple[str, ...] = ()


def guess_target(table: Table, column: str) -> TargetGuess:
    """Guess the head for a target column, and its reason."""
    if any(map(is_list, table.cells(column))):
        heads.Multilabel(column).adapt(table)
        return TargetGuess(column, "multilabel", "lists: any of several labels")
    words = [word for word in table.texts(column) if word]
    known = [word for word in words if word.lower() not in BLANKS]
    number = len(set(known)) > 1 and _is_number(table, column)
    if number and len(known) < len(words):
        found = _regression(table, column, known)
        return evolve(found, reason=f"{found.reason} (for classes leave the missing cells empty)")
    kinds = len(set(words))
    if kinds < 2:
        raise DataError(f"{table.name}: column '{column}' has {kinds} value, nothing to predict")
    if kinds > max(FEW, len(words) // 2) and not number:
        told = f"{kinds} different words in {len(words)} rows are too many to be classes"
        raise DataError(f"{table.name}: column '{column}': {told}")
    if kinds == 2:
        both = ", ".join(f"{word:.40}" for word in sorted(set(words)))
        return TargetGuess(column, "binary", f"two values: {both}")
    if not number or (kinds <= 10 and kinds < len(words) / 10):
        return TargetGuess(column, "multiclass", f"{kinds} classes")
    return _regression(table, column, known)


def _regression(table: Table, column: str, known: list[str]) -> TargetGuess:
    found = _guess_number(table, column, len(set(known)), _counts(known, table))
    scale = "log" if found.role == "log number" else "standard"
    return TargetGuess(column, "regression", found.reason, (f'scale = "{scale}"', 'loss = "mae"'))
