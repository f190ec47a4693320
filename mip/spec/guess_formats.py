"""How the cells of each column are written, and what about them the user should know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from attrs import evolve, frozen

from mip.data import (
    BLANKS,
    ColumnFormat,
    Table,
    format_row_label,
    holds_objects,
    parse_dates,
    parse_number,
)
from mip.errors import DataError, quote
from mip.spec.guess_dates import END_DATES, guess_date_writing, guess_epoch, is_zero_date
from mip.spec.guess_numbers import (
    MISSING_WORDS,
    Sentinel,
    Writing,
    describe,
    find_sentinels,
    find_units,
    guess_number_writing,
    has_leading_zeros,
)

MAX_ODD = 5
"""The number of different texts that may be no numbers in a column of numbers."""


@frozen
class FormatGuess:
    """How a column is written, `notes` on it for the user, values that may mean a missing one
    (`proposed`), and what is said of them.
    """

    column: str
    form: ColumnFormat = ColumnFormat()
    notes: tuple[str, ...] = ()
    proposed: tuple[str, ...] = ()
    why_proposed: str = ""
    blanks: str = ""
    """Which words count as missing numbers, as they always do."""
    problem: str = ""
    """Why a column that is nearly one of numbers, or that looks like photos, is none."""

    @property
    def is_plain(self) -> bool:
        """Whether nothing has to be written into a spec."""
        return self.form == ColumnFormat() and not self.notes


def guess_formats(table: Table, day_first: bool | None = None) -> dict[str, FormatGuess]:
    """Guess how the cells of each column are written, of the columns that have no format yet.

    Raises DataError for dates that can be read in two ways, unless `day_first` decides.

    >>> from mip.data import from_columns
    >>> rows = from_columns({"price": ["$1,200.50", "$9"], "sold": ["31/12/2024", "00/00/0000"]})
    >>> for found in guess_formats(rows).values():
    ...     print(*found.notes)
    '$1,200.50' is 1200.5 (thousands = ",", unit = "$")
    '31/12/2024' is 2024-12-31 (date_format = "%d/%m/%Y") '00/00/0000' in 1 row \
(row 1) is no date: missing
    """
    names = [name for name in table.columns if name not in table.formats]
    counts = {name: _count_texts(table, name) for name in names}
    decimal_comma = _has_decimal_comma([each for each in counts.values() if each])
    return {
        name: _guess_format(table, name, counts[name], decimal_comma, day_first) for name in names
    }


def _count_texts(table: Table, column: str) -> Counter[str]:
    """Count the texts of a column; nothing for one with cells that are no texts or numbers."""
    if holds_objects(table[column]):
        return Counter()
    # A text of "1.000" is "1", which may not be what is meant.
    pairs = zip(table.cells(column), table.texts(column).tolist(), strict=True)
    counts = Counter(
        cell.strip() if isinstance(cell, str) and cell.isascii() else text for cell, text in pairs
    )
    del counts[""]
    return counts


def _has_decimal_comma(columns: Sequence[Counter[str]]) -> bool | None:
    """Whether all columns of numbers that can be read in one way only have a decimal comma."""
    found = set[bool]()
    for counts in columns:
        if any("," in text for text in counts) and len(counts) > 1:
            writing = guess_number_writing(counts)
            if writing and not writing.rivals:
                found.add(writing.form.decimal == ",")
    return found.pop() if len(found) == 1 else None


def _guess_format(
    table: Table,
    column: str,
    counts: Counter[str],
    decimal_comma: bool | None,
    day_first: bool | None,
) -> FormatGuess:
    known = {text: n for text, n in counts.items() if text.lower() not in BLANKS}
    if len(known) < 2:
        return FormatGuess(column)
    if all(parse_number(text) is not None for text in known):
        found = _guess_plain(table, column, counts, decimal_comma)
        return evolve(found, blanks=_name_blanks(counts))
    numbers = guess_number_writing(counts, decimal_comma)
    if numbers and _is_sure(numbers, known):
        found = _explain_numbers(table, column, counts, numbers, decimal_comma)
        return evolve(found, blanks=_name_blanks(counts))
    dates = guess_date_writing(counts, day_first)
    if dates and _is_sure(dates, known):
        return _explain_dates(table, column, dates)
    return FormatGuess(column, problem=_near_numbers(table, column, known))


def _is_sure(writing: Writing, known: dict[str, int]) -> bool:
    """Whether few enough cells are odd: none, or some beside many that are as they should be."""
    odd = [text for text in writing.odd if not is_zero_date(text)]
    n_different = len(odd) - sum(text.lower() in MISSING_WORDS for text in odd)
    return not odd or (n_different <= MAX_ODD and len(known) - len(writing.odd) >= 5)


def _guess_plain(
    table: Table, column: str, counts: Counter[str], decimal_comma: bool | None
) -> FormatGuess:
    """Explain a column whose cells are numbers as Python writes them."""
    values = table.numbers(column)
    values = values[np.isfinite(values)]
    if has_leading_zeros(list(counts)) or not len(values):
        return FormatGuess(column)
    if epoch := guess_epoch(values, column):
        first = next(text for text in counts if text.lower() not in BLANKS)
        shown = _show_date(epoch, first)
        return FormatGuess(column, epoch, (f"{quote(first)} is {shown} ({describe(epoch)})",))
    if all(len(text.partition(".")[2]) == 3 for text in counts):
        writing = guess_number_writing(counts, decimal_comma)
        if writing and writing.rivals:
            return _explain_numbers(table, column, counts, writing, decimal_comma)
    return _propose(FormatGuess(column), find_sentinels(values))


def _explain_numbers(
    table: Table,
    column: str,
    counts: Counter[str],
    writing: Writing,
    decimal_comma: bool | None,
) -> FormatGuess:
    form = evolve(writing.form, na_values=sorted(writing.odd))
    known = [text for text in counts if text.lower() not in BLANKS | {*writing.odd}]
    notes: list[str] = []
    if writing.rivals:
        notes = [_explain_rivals(known, form, writing.rivals[0], decimal_comma)]
    elif form.writes_numbers or not writing.odd:
        longest = max(known, key=len)
        note = f"{quote(longest)} is {form.parse_number(longest):.15g}"
        notes = [f"{note} ({describe(form)})" if form.writes_numbers else note]
    notes += _explain_odd(table, column, writing.odd, "number")
    values = table.with_formats({**table.formats, column: form}).numbers(column)
    found = FormatGuess(column, form, tuple(notes))
    return _propose(found, find_sentinels(values[~np.isnan(values)]))


def _explain_rivals(
    known: Sequence[str], form: ColumnFormat, rival: ColumnFormat, decimal_comma: bool | None
) -> str:
    """Show a number that can be read in two ways, and why one is taken."""
    text = next(text for text in known if form.parse_number(text) != rival.parse_number(text))
    first, second = (
        f"{each.parse_number(text):.15g} ({describe(each) or 'a decimal point'})"
        for each in (form, rival)
    )
    why = "three digits follow each comma" if form.thousands else "a point is decimal"
    if decimal_comma is not None:
        why = "as in other columns"
    return f"{quote(text)} can be {first} or {second}; the first is taken: {why}"


def _explain_dates(table: Table, column: str, writing: Writing) -> FormatGuess:
    form = evolve(writing.form, na_values=sorted(writing.odd))
    texts = table.texts(column).tolist()
    first = next(t for t in texts if t and t not in writing.odd and t.lower() not in BLANKS)
    for rival in writing.rivals[:1]:
        first = next(
            text
            for text in dict.fromkeys(texts)
            if text
            and text not in writing.odd
            and text.lower() not in BLANKS
            and _show_date(form, text) != _show_date(rival, text)
        )
        ways = [
            f"{_show_date(each, first)} ({describe(each)}, {option})"
            for each, option in ((form, "--day-first"), (rival, "--month-first"))
        ]
        raise DataError(
            f"{table.cell_name(texts.index(first), column)}: {quote(first)} can be "
            f"{ways[0]} or {ways[1]}, and so can all other cells: say which"
        )
    notes: list[str] = []
    if form.date_format:
        notes.append(f"{quote(first)} is {_show_date(form, first)} ({describe(form)})")
    notes += _explain_odd(table, column, writing.odd, "date")
    days = table.with_formats({**table.formats, column: form}).timestamps(column)
    found = [
        sentinel
        for sentinel in find_sentinels(days[~np.isnan(days)])
        if _day(sentinel.value) in END_DATES
    ]
    return _propose_dates(table, FormatGuess(column, form, tuple(notes)), days, found)


def _explain_odd(table: Table, column: str, odd: Sequence[str], kind: str) -> list[str]:
    """Say which cells of a column are no numbers or dates."""
    texts = table.texts(column)
    notes = []
    for text in sorted(odd):
        rows = np.flatnonzero(texts == text)
        row = format_row_label(table.index[rows[:1]].tolist()[0])
        n_rows = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
        where = f"{n_rows} ({'row' if len(rows) == 1 else 'the first:'} {row})"
        notes.append(f"{quote(text)} in {where} is no {kind}: missing")
    return notes


def _name_blanks(counts: Counter[str]) -> str:
    blanks = sorted(text for text in counts if text.lower() in BLANKS)
    n_rows = sum(counts[text] for text in blanks)
    rows = "1 row" if n_rows == 1 else f"{n_rows} rows"
    return f"{' and '.join(map(quote, blanks))} in {rows}: missing" if blanks else ""


def _near_numbers(table: Table, column: str, known: dict[str, int]) -> str:
    """Explain what keeps a column from being one of numbers, if half of its cells are numbers."""
    writing = guess_number_writing(
        {text: n for text, n in known.items() if any(map(str.isdigit, text))}
    )
    forms = [ColumnFormat(), *([writing.form] if writing else [])]
    read = [{t for t in known if form.parse_number(t) is not None} for form in forms]
    numbers = max(read, key=lambda each: sum(known[text] for text in each))
    n_read, total = sum(known[text] for text in numbers), sum(known.values())
    units = find_units(known)
    if n_read < total / 2 and units.total() >= 0.9 * total and len(units) <= 5:
        named = " and ".join(f"{quote(unit)} in {n}" for unit, n in units.items())
        return f"a number with several units, {named} cells: write all in one"
    if n_read < total / 2 or len(numbers) < 5:
        return ""
    texts = table.texts(column)
    position = next(k for k, text in enumerate(texts) if text in known and text not in numbers)
    row = format_row_label(table.index[[position]].tolist()[0])
    return (
        f"a number in {n_read} of {total} cells; row {row} has {quote(texts[position])}: write "
        f"all as numbers, or make them missing (data.columns.{column}.na_values)"
    )


def _propose(found: FormatGuess, sentinels: Sequence[Sentinel]) -> FormatGuess:
    return _with_proposal(found, sentinels, lambda value: f"{value:.15g}")


def _propose_dates(
    table: Table, found: FormatGuess, days: np.ndarray, sentinels: Sequence[Sentinel]
) -> FormatGuess:
    texts = table.texts(found.column)
    proposed = _with_proposal(found, sentinels, _day)
    cells = [texts[np.flatnonzero(days == sentinel.value)[0]] for sentinel in sentinels]
    return evolve(proposed, proposed=tuple(cells))


def _with_proposal(
    found: FormatGuess, sentinels: Sequence[Sentinel], show: Callable[[float], str]
) -> FormatGuess:
    if not sentinels:
        return found
    values = tuple(show(sentinel.value) for sentinel in sentinels)
    counts = " and ".join(
        f"{value} in {sentinel.count} rows"
        for value, sentinel in zip(values, sentinels, strict=True)
    )
    why = f"{counts}, apart from {show(sentinels[0].low)} to {show(sentinels[0].high)}"
    listed = ", ".join(f'"{value}"' for value in values)
    cure = f"if that means missing, set na_values = [{listed}]"
    return evolve(found, notes=(*found.notes, f"{why}; {cure}"), proposed=values, why_proposed=why)


def _show_date(form: ColumnFormat, text: str) -> str:
    [date] = parse_dates([text], form.date_format).astype("datetime64[s]")
    return str(date).replace("T", " ").removesuffix(" 00:00:00")


def _day(days: float) -> str:
    return str(np.datetime64(int(days), "D"))
