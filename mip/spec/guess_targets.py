"""The kind of head that suits a target, and what its cells are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from attrs import evolve, frozen

from mip import heads
from mip.data import ColumnFormat, is_list
from mip.errors import DataError, quote
from mip.spec.distinct_cells import DistinctCells, without_blanks
from mip.spec.inference import MAX_CATEGORIES, guess_number, known_numbers

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


def guess_target(cells: DistinctCells) -> TargetGuess:
    """Guess the head for a target column. Raises DataError if no head can predict it."""
    table, column = cells.table, cells.column
    if any(map(is_list, cells.objects())):
        heads.Multilabel(column).adapt(table)
        return TargetGuess(column, "multilabel", "lists: any of several labels")
    words = cells.count(cells.texts())
    known, numbers = without_blanks(words), known_numbers(cells)
    is_number = len(known) > 1 and len(numbers) > 0
    if is_number and len(known) < len(words):
        guess = _guess_regression(cells, known, numbers)
        return evolve(guess, reason=f"{guess.reason} (for classes leave the missing cells empty)")
    n_values, n_words = len(words), sum(words.values())
    if n_values < 2:
        raise DataError(f"{table.name}: column '{column}' has {n_values} value, nothing to predict")
    if n_values > max(MAX_CATEGORIES, n_words // 2) and not is_number:
        text = f"{n_values} different words in {n_words} rows are too many to be classes"
        raise DataError(f"{table.name}: column '{column}': {text}")
    if n_values == 2:
        both = ", ".join(f"{word:.40}" for word in sorted(words))
        return TargetGuess(column, "binary", f"two values: {both}")
    writes_numbers = column in table.formats and table.formats[column].writes_numbers
    few = n_values <= 10 and n_values < n_words / 10 and not writes_numbers
    if not is_number or few or (n_values <= 5 and _are_float_classes(cells)):
        return TargetGuess(column, "multiclass", f"{n_values} classes", (), _remark(words))
    return _guess_regression(cells, known, numbers)


def _guess_regression(
    cells: DistinctCells, known: Mapping[str, int], values: np.ndarray
) -> TargetGuess:
    guess = guess_number(cells, known, values)
    scale = "log" if guess.role == "log number" else "standard"
    remarks: tuple[str, ...] = ()
    if (values == np.round(values)).all() and 0 <= values.min() < 10 and values.max() < 1000:
        remarks = ('if these are counts, kind = "count" suits them, without scale and loss',)
    options = (f'scale = "{scale}"', 'loss = "mae"')
    return TargetGuess(cells.column, "regression", guess.reason, options, remarks)


def _are_float_classes(cells: DistinctCells) -> bool:
    """Whether numbers are a few codes that floats hold, as 1.0, 2.0 and 3.0, each in many rows."""
    counts = cells.count(["" if cell is None else str(cell) for cell in cells.values()])
    return all(re.fullmatch(r"[0-9]\.0", cell) and n >= 3 for cell, n in counts.items())


def _remark(words: Iterable[str]) -> tuple[str, ...]:
    order = find_order(words)
    if not order:
        return ()
    listed = ", ".join(f'"{word}"' for word in order)
    return (f'the classes have an order: kind = "ordinal", order = [{listed}] keeps it',)


def find_order(words: Iterable[str]) -> list[str]:
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
    least = max(2, 0.1 * sum(counts.values()))
    for sep in (";", "|", ",", "/", " + ", " & "):
        if sum(n for text, n in counts.items() if sep in text) < least:
            continue
        form = ColumnFormat(sep=sep)
        cells = {text: _as_list(form.values(text)) for text in counts}
        several = sum(n for text, n in counts.items() if len(cells[text]) > 1)
        labels = Counter(label for words in cells.values() for label in set(words))
        recur = sum(n > 1 for n in labels.values()) >= 0.5 * len(labels)
        few = len(labels) <= min(MAX_CATEGORIES, len(counts))
        if several >= least and few and recur:
            return sep
    return ""


def _as_list(cell: Any) -> list[str]:
    return cell if is_list(cell) else [] if cell is None else [cell]


def guess_set(cells: DistinctCells) -> ColumnFormat | None:
    """Guess the format of a target whose cells hold several labels; None if they do not."""
    if cells.column in cells.table.formats or cells.objects() or cells.numbers is not None:
        return None
    sep = guess_separator(cells.count([cell or "" for cell in cells.values()]))
    return ColumnFormat(sep=sep) if sep else None


def describe_set(cells: DistinctCells, form: ColumnFormat) -> str:
    """Say how cells that hold several labels are read, and what empty ones are."""
    known = cells.count([cell or "" for cell in cells.values()])
    longest = max(known, key=lambda cell: len(_as_list(form.values(cell))))
    labels = form.values(longest)
    n_empty = len(cells.table) - sum(known.values())
    n_rows = (
        "1 empty cell is a missing target"
        if n_empty == 1
        else (f"{n_empty} empty cells are missing targets")
    )
    empty = f'; {n_rows}, not "no label", which is "{form.sep}"' if n_empty else ""
    return f'{quote(longest)} is {len(labels)} labels (sep = "{form.sep}"){empty}'
