"""The kind of head that suits a target, and what its cells are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from attrs import evolve, frozen

from mip import heads
from mip.data import BLANKS, ColumnFormat, Table, is_list
from mip.errors import DataError, quote
from mip.spec.inference import MAX_CATEGORIES, guess_number, has_numbers

SCALES = (
    "none|very low|low|minor|mild|medium|moderate|normal|high|major|severe|very high|extreme",
    "never|rarely|seldom|sometimes|often|usually|always",
    "xxs|xs|s|m|l|xl|xxl|xxxl",
    "tiny|very small|small|medium|large|big|very large|huge",
    "awful|terrible|very bad|very poor|bad|poor|fair|average|ok|okay|good|very good|excellent"
    "|premium|ideal",
    "strongly disagree|disagree|neutral|agree|strongly agree",
    "very dissatisfied|dissatisfied|neutral|satisfied|very satisfied",
    "cold|cool|mild|warm|hot",
    "young|middle-aged|old",
    "f|e-|e|e+|d-|d|d+|c-|c|c+|b-|b|b+|a-|a|a+",
    "i|ii|iii|iv|v|vi",
    "bronze|silver|gold|platinum",
)
"""Words that have an order, from the lowest on, in lower case."""


@frozen
class TargetGuess:
    """The kind of head that suits a target, why, its options besides the column, in TOML, and other
    kinds that may suit it (`remarks`).
    """

    column: str
    kind: str
    reason: str
    options: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def guess_target(table: Table, column: str) -> TargetGuess:
    """Guess the head for a target column. Raises DataError if no head can predict it."""
    if any(map(is_list, table.cells(column))):
        heads.Multilabel(column).adapt(table)
        return TargetGuess(column, "multilabel", "lists: any of several labels")
    words = [word for word in table.texts(column) if word]
    known = [word for word in words if word.lower() not in BLANKS]
    is_number = len(set(known)) > 1 and has_numbers(table, column)
    if is_number and len(known) < len(words):
        guess = _guess_regression(table, column, known)
        return evolve(guess, reason=f"{guess.reason} (for classes leave the missing cells empty)")
    n_values = len(set(words))
    if n_values < 2:
        raise DataError(f"{table.name}: column '{column}' has {n_values} value, nothing to predict")
    if n_values > max(MAX_CATEGORIES, len(words) // 2) and not is_number:
        text = f"{n_values} different words in {len(words)} rows are too many to be classes"
        raise DataError(f"{table.name}: column '{column}': {text}")
    if n_values == 2:
        both = ", ".join(f"{word:.40}" for word in sorted(set(words)))
        return TargetGuess(column, "binary", f"two values: {both}")
    writes_numbers = column in table.formats and table.formats[column].writes_numbers
    few = n_values <= 10 and n_values < len(words) / 10 and not writes_numbers
    if not is_number or few or _are_float_classes(table, column, is_number):
        return TargetGuess(column, "multiclass", f"{n_values} classes", (), _remark(words))
    return _guess_regression(table, column, known)


def _guess_regression(table: Table, column: str, known: list[str]) -> TargetGuess:
    guess = guess_number(table, column, known)
    scale = "log" if guess.role == "log number" else "standard"
    remarks: tuple[str, ...] = ()
    values = table.numbers(column)
    values = values[~np.isnan(values)]
    if (values == np.round(values)).all() and 0 <= values.min() < 10 and values.max() < 1000:
        remarks = ('if these are counts, kind = "count" suits them, without scale and loss',)
    options = (f'scale = "{scale}"', 'loss = "mae"')
    return TargetGuess(column, "regression", guess.reason, options, remarks)


def _are_float_classes(table: Table, column: str, is_number: bool) -> bool:
    """Whether numbers are a few codes that floats hold, as 1.0, 2.0 and 3.0, each in many rows."""
    cells = [str(cell) for cell in table.cells(column) if cell is not None]
    if not is_number or not all(re.fullmatch(r"[0-9]\.0", cell) for cell in cells):
        return False
    counts = Counter(cells).values()
    return len(counts) <= 5 and min(counts) >= 3


def _remark(words: Sequence[str]) -> tuple[str, ...]:
    order = find_order(words)
    if not order:
        return ()
    listed = ", ".join(f'"{word}"' for word in order)
    return (f'the classes have an order: kind = "ordinal", order = [{listed}] keeps it',)


def find_order(words: Sequence[str]) -> list[str]:
    """Find the order of words or whole numbers that have one; empty if they have none.

    >>> find_order(["medium", "low", "high", "low"]), find_order(["B", "A", "C"])
    (['low', 'medium', 'high'], ['C', 'B', 'A'])
    >>> find_order(["oak", "ash"]), find_order(["3", "1", "2"])
    ([], ['1', '2', '3'])
    """
    found = set(words)
    if all(re.fullmatch("[0-9]{1,2}", word) for word in found):
        numbers = sorted(found, key=int)
        return numbers if int(numbers[-1]) - int(numbers[0]) < 2 * len(numbers) else []
    for scale in SCALES:
        ranks = {word: rank for rank, word in enumerate(scale.split("|"))}
        if len(found) > 2 and all(word.lower() in ranks for word in found):
            return sorted(found, key=lambda word: ranks[word.lower()])
    return []


def guess_separator(counts: Mapping[str, int]) -> str:
    """Guess what stands between the labels of cells that hold several; "" if they hold one each.

    Labels are few, recur in other combinations, and stand alone in some cells or in two orders;
    `counts` has the texts of the cells with how often they occur.

    >>> guess_separator({"pool": 3, "pool,sea": 2, "sea,new": 2, "new": 1})
    ','
    >>> guess_separator({"Fish, fresh": 30, "Meat, frozen": 20})
    ''
    """
    for sep in (";", "|", ",", "/", " + ", " & "):
        form = ColumnFormat(sep=sep)
        cells = {text: _as_list(form.values(text)) for text in counts}
        several = sum(n for text, n in counts.items() if len(cells[text]) > 1)
        labels = Counter(label for words in cells.values() for label in set(words))
        if several < 0.1 * sum(counts.values()) or several < 2:
            continue
        recur = sum(n > 1 for n in labels.values()) >= 0.5 * len(labels)
        if len(labels) <= MAX_CATEGORIES and len(labels) <= len(counts) and recur:
            return sep
    return ""


def _as_list(cell: Any) -> list[str]:
    return cell if is_list(cell) else [] if cell is None else [cell]


def guess_set(table: Table, column: str) -> ColumnFormat | None:
    """Guess the format of a target whose cells hold several labels; None if they do not."""
    cells = [cell for cell in table.cells(column) if cell is not None]
    if column in table.formats or not all(isinstance(cell, str) for cell in cells):
        return None
    sep = guess_separator(Counter(cells))
    return ColumnFormat(sep=sep) if sep else None


def describe_set(table: Table, column: str, form: ColumnFormat) -> str:
    """Say how cells that hold several labels are read, and what empty ones are."""
    cells = [cell for cell in table.cells(column) if cell is not None]
    longest = max(cells, key=lambda cell: len(_as_list(form.values(cell))))
    labels = form.values(longest)
    n_empty = len(table) - len(cells)
    n_rows = (
        "1 empty cell is a missing target"
        if n_empty == 1
        else (f"{n_empty} empty cells are missing targets")
    )
    empty = f'; {n_rows}, not "no label", which is "{form.sep}"' if n_empty else ""
    return f'{quote(longest)} is {len(labels)} labels (sep = "{form.sep}"){empty}'
