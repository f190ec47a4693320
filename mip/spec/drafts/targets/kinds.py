"""The kind of head that suits a target, and what its cells are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from attrs import frozen

from mip import heads
from mip.data import BLANKS, ColumnFormat, is_list
from mip.errors import DataError, quote
from mip.spec.drafts.distinct_cells import DistinctCells
from mip.spec.drafts.formats.numbers import MISSING_WORDS
from mip.spec.drafts.roles import MAX_CATEGORIES, guess_number, known_numbers
from mip.spec.toml_text import inline

SCALES = (
    "none|very low|low|minor|mild|medium|moderate|normal|high|major|severe|very high|extreme"
    "|urgent|critical",
    "never|almost never|rarely|seldom|sometimes|often|usually|almost always|always",
    "xxs|xs|s|m|l|xl|xxl|2xl|xxxl|3xl|4xl|5xl",
    "tiny|very small|extra small|small|medium|large|big|very large|extra large|huge",
    "awful|terrible|very bad|very poor|bad|poor|fair|average|ok|okay|good|very good|excellent"
    "|premium|ideal",
    "strongly disagree|disagree|somewhat disagree|neither agree nor disagree|neutral"
    "|somewhat agree|agree|strongly agree",
    "very dissatisfied|dissatisfied|neutral|satisfied|very satisfied",
    "very unlikely|unlikely|neutral|likely|very likely",
    "cold|cool|mild|warm|hot",
    "young|middle-aged|old",
    "novice|beginner|intermediate|advanced|expert",
    "i|ii|iii|iv|v|vi",
    "bronze|silver|gold|platinum",
    "sehr niedrig|niedrig|gering|mittel|hoch|sehr hoch",
    "nie|selten|manchmal|oft|immer",
    "ungenügend|mangelhaft|ausreichend|befriedigend|gut|sehr gut",
)
"""Words that have an order, from the lowest on, in lower case."""


GRADES = "f|e-|e|e+|d-|d|d+|c-|c|c+|b-|b|b+|a-|a|a+"
"""Grades from the lowest on, in lower case. Letters alone may be names of classes as well."""


CLASS_KINDS = frozenset({"binary", "multiclass", "ordinal"})
"""The kinds of heads that predict one of several classes."""


MIN_SKEWNESS = 0.5
"""Whole numbers from 0 on that are more skewed than this seem to be counts."""


MAX_LEVELS = 12
"""The number of classes that may be ordered by the numbers in their names."""


_COUNTS = 'if these are counts, kind = "count" suits them, without scale and loss'


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
    known = count_numbers(cells)
    is_number = len(known) > 1
    words = known if is_number else cells.count(cells.texts())
    n_values, n_words = len(words), sum(words.values())
    if n_values < 2:
        raise DataError(f"{table.name}: column '{column}' has {_one_value(cells, words)}")
    if n_values > max(MAX_CATEGORIES, n_words // 2) and not is_number:
        text = f"{n_values} different words in {n_words} rows are too many to be classes"
        raise DataError(f"{table.name}: column '{column}': {text}")
    if n_values == 2:
        both = ", ".join(f"{word:.40}" for word in sorted(words))
        return TargetGuess(column, "binary", f"two values: {both}")
    if is_number and not _are_codes(cells, words):
        return _guess_amount(cells, known)
    if scale := find_scale(words):
        reason = f"{n_values} classes in the order {', '.join(scale)}"
        return TargetGuess(column, "ordinal", reason, (f"order = {inline(scale)}",))
    remarks = (_COUNTS,) if is_number and n_values > 3 and _are_counts(cells) else ()
    likely = {word for word in words if not may_be_missing(word)}
    if len(likely) > 2 and (order := find_scale(likely) or find_order(likely)):
        cure = f'kind = "ordinal", order = {inline(order)} keeps it'
        remarks = (f"if the classes have an order, {cure}", *remarks)
    return TargetGuess(column, "multiclass", f"{n_values} classes", (), remarks)


def count_numbers(cells: DistinctCells) -> dict[str, int]:
    """Count the texts of a column of numbers, without missing ones; none if it is no such column.

    >>> from mip.data import from_columns
    >>> from mip.spec.drafts.distinct_cells import distinct_cells
    >>> count_numbers(distinct_cells(from_columns({"y": ["0", "1", "NA", "0"]}))["y"])
    {'0': 2, '1': 1}
    """
    if cells.numbers is None:
        return {}
    known = cells.select(~np.isnan(cells.numbers))
    return known.count(known.texts())


def may_be_missing(word: str) -> bool:
    """Return whether a word among classes may stand for a missing one.

    >>> may_be_missing("unknown"), may_be_missing("N/A"), may_be_missing("x")
    (True, True, False)
    """
    return word.lower() in BLANKS | MISSING_WORDS - {"x"}


def _one_value(cells: DistinctCells, words: Mapping[str, int]) -> str:
    n_empty = len(cells.table) - sum(words.values())
    if not words or not n_empty:
        return f"{'one value' if words else 'no value'}, nothing to predict"
    empty = "1 empty cell" if n_empty == 1 else f"{n_empty} empty cells"
    cure = "an empty cell is a missing target, so if it is a class, write a word into it"
    return f"one value, {', '.join(map(quote, words))}, and {empty}: {cure}"


def _guess_amount(cells: DistinctCells, known: Mapping[str, int]) -> TargetGuess:
    values = known_numbers(cells)
    guess = guess_number(cells, known, values)
    if _are_counts(cells) and not _writes_numbers(cells):
        reason = f"{guess.reason}, whole numbers from 0 with a long tail"
        return TargetGuess(cells.column, "count", reason)
    scale = "log" if guess.role == "log number" else "standard"
    options = (f'scale = "{scale}"', 'loss = "mae"')
    are_small = 0 <= values.min() < 10 and values.max() < 1000
    may_count = are_small and (values == np.round(values)).all() and not _writes_numbers(cells)
    return TargetGuess(
        cells.column, "regression", guess.reason, options, (_COUNTS,) if may_count else ()
    )


def _are_counts(cells: DistinctCells) -> bool:
    """Whether numbers seem to be counts: whole, from 0 on, with a long tail of large ones."""
    assert cells.numbers is not None
    is_known = ~np.isnan(cells.numbers)
    values, weights = cells.numbers[is_known], cells.counts[is_known]
    if values.min() != 0 or (values != np.round(values)).any():
        return False
    apart = values - np.average(values, weights=weights)
    variance = np.average(apart**2, weights=weights)
    return bool(np.average(apart**3, weights=weights) > MIN_SKEWNESS * variance**1.5)


def _are_codes(cells: DistinctCells, words: Mapping[str, int]) -> bool:
    """Whether numbers are those of classes: few, and each in many rows."""
    few = len(words) <= 10 and len(words) < sum(words.values()) / 10
    are_floats = len(words) <= 5 and _are_float_classes(cells)
    return (few and not _writes_numbers(cells)) or are_floats


def _writes_numbers(cells: DistinctCells) -> bool:
    form = cells.table.formats.get(cells.column)
    return form is not None and form.writes_numbers


def _are_float_classes(cells: DistinctCells) -> bool:
    """Whether numbers are a few codes that floats hold, as 1.0, 2.0 and 3.0, each in many rows."""
    counts = cells.count(["" if cell is None else str(cell) for cell in cells.values()])
    return all(re.fullmatch(r"[0-9]\.0", cell) and n >= 3 for cell, n in counts.items())


def find_scale(words: Collection[str]) -> list[str]:
    """Find the order of words that mean one; empty if they do not.

    >>> find_scale(["medium", "low", "high", "low"]), find_scale(["B+", "A", "B"])
    (['low', 'medium', 'high'], ['B', 'B+', 'A'])
    >>> find_scale(["$$", "$", "$$$"]), find_scale(["A", "B", "C"]), find_scale(["oak", "ash"])
    (['$', '$$', '$$$'], [], [])
    """
    found = set(words)
    if len(found) > 2 and len(set("".join(found))) == 1:
        return sorted(found, key=len)
    grades = {word.lower() for word in found}
    has_signs = any(grade[1:] in {"+", "-"} for grade in grades)
    are_grades = has_signs or ("f" in grades and "e" not in grades)
    for scale in (*SCALES, *[GRADES] * are_grades):
        if order := _order_by(scale, found):
            return order
    return []


def _order_by(scale: str, words: Collection[str]) -> list[str]:
    ranks = {word: rank for rank, word in enumerate(scale.split("|"))}
    if len(words) < 3 or not all(word.lower() in ranks for word in words):
        return []
    return sorted(words, key=lambda word: ranks[word.lower()])


def find_order(words: Collection[str]) -> list[str]:
    """Find the order that words or whole numbers may have; empty if they have none.

    >>> find_order(["B", "A", "C"]), find_order(["3", "1", "2"]), find_order(["oak", "ash"])
    (['C', 'B', 'A'], ['1', '2', '3'], [])
    >>> find_order(["level 2", "level 10"]), find_order(["10-20k", "<10k", "20k+"])
    (['level 2', 'level 10'], ['<10k', '10-20k', '20k+'])
    """
    found = set(words)
    if all(re.fullmatch("[0-9]{1,9}", word) for word in found):
        numbers = sorted(found, key=int)
        return numbers if int(numbers[-1]) - int(numbers[0]) < 2 * len(numbers) else []
    ranks = {word: rank for word in found if (rank := _number_in(word))}
    if len(ranks) == len({*ranks.values()}) == len(found) <= MAX_LEVELS:
        return sorted(found, key=lambda word: ranks[word])
    return _order_by(GRADES, found)


def _number_in(word: str) -> tuple[float, bool] | None:
    """Return the first number in a word, and whether the word means that number or more."""
    found = re.search(r"[0-9]+(\.[0-9]+)?", word)
    return (float(found[0]), not word.startswith(("<", "≤"))) if found else None


def guess_separator(counts: Mapping[str, int]) -> str:
    """Guess what stands between the labels of cells that hold several; "" if they hold one each.

    Labels are few, most recur in other combinations, and some stand alone or in two orders;
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
        recur = sum(n for n in labels.values() if n > 1) >= labels.total() * 2 / 3
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
