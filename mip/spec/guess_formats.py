"""How the cells of each column are written, and what about them the user should know."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np
from attrs import evolve, field, frozen

from mip.data import BLANKS, ColumnFormat, is_image, is_list, parse_dates, parse_number
from mip.errors import DataError, quote
from mip.spec.distinct_cells import DistinctCells, without_blanks
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
    (`proposed`), and classes that may be merged.
    """

    column: str
    form: ColumnFormat = ColumnFormat()
    notes: tuple[str, ...] = ()
    proposed: tuple[str, ...] = ()
    proposed_merge: Mapping[str, Sequence[str]] = field(factory=dict)
    blanks: str = ""
    """Which words count as missing numbers, as they always do."""
    problem: str = ""
    """Why a column that is nearly one of numbers, or that looks like photos, is none."""

    @property
    def is_plain(self) -> bool:
        """Whether nothing has to be written into a spec."""
        return self.form == ColumnFormat() and not self.notes


def guess_formats(
    columns: Iterable[DistinctCells], day_first: bool | None = None
) -> dict[str, FormatGuess]:
    """Guess how the cells of each column are written, of the columns that have no format yet.

    Raises DataError for dates that can be read in two ways, unless `day_first` decides.

    >>> from mip.data import from_columns
    >>> from mip.spec.distinct_cells import distinct_cells
    >>> rows = from_columns({"price": ["$1,200.50", "$9"], "sold": ["31/12/2024", "00/00/0000"]})
    >>> for found in guess_formats(distinct_cells(rows).values()).values():
    ...     print(*found.notes)
    '$1,200.50' is 1200.5 (thousands = ",", unit = "$")
    '31/12/2024' is 2024-12-31 (date_format = "%d/%m/%Y") '00/00/0000' in 1 row \
(row 1) is no date: missing
    """
    plain = [cells for cells in columns if cells.column not in cells.table.formats]
    decimal_comma = _has_decimal_comma(plain)
    return {cells.column: _guess_format(cells, decimal_comma, day_first) for cells in plain}


def _count_texts(cells: DistinctCells) -> dict[str, int]:
    """Count the texts of a column; nothing for one with images or lists."""
    if any(is_image(cell) or is_list(cell) for cell in cells.objects()):
        return {}
    return cells.count(cells.written())


def _has_decimal_comma(columns: Iterable[DistinctCells]) -> bool | None:
    """Whether all columns of numbers that can be read in one way only have a decimal comma."""
    found = set[bool]()
    for cells in columns:
        if cells.numbers is not None:
            continue
        counts = _count_texts(cells)
        if any("," in text for text in counts) and len(counts) > 1:
            writing = guess_number_writing(counts)
            if writing and not writing.rivals:
                found.add(writing.form.decimal == ",")
    return found.pop() if len(found) == 1 else None


def _guess_format(
    cells: DistinctCells, decimal_comma: bool | None, day_first: bool | None
) -> FormatGuess:
    if cells.numbers is not None and (not cells.objects() or _are_numbers(cells.written())):
        return _guess_plain(cells, cells.numbers, decimal_comma)
    counts = _count_texts(cells)
    known = without_blanks(counts)
    if len(known) < 2:
        return FormatGuess(cells.column)
    numbers = guess_number_writing(counts, decimal_comma)
    if numbers and _is_sure(numbers, known):
        found = _explain_numbers(cells, counts, numbers, decimal_comma)
        return evolve(found, blanks=_name_blanks(counts))
    dates = guess_date_writing(counts, day_first)
    if dates and _is_sure(dates, known):
        return _explain_dates(cells, dates)
    return FormatGuess(cells.column, problem=_near_numbers(cells, known))


def _is_sure(writing: Writing, known: Mapping[str, int]) -> bool:
    """Whether few enough cells are odd: none, or some beside many that are as they should be."""
    odd = [text for text in writing.odd if not is_zero_date(text)]
    n_different = len(odd) - sum(text.lower() in MISSING_WORDS for text in odd)
    return not odd or (n_different <= MAX_ODD and len(known) - len(writing.odd) >= 5)


def _are_numbers(texts: Iterable[str]) -> bool:
    return all(parse_number(text) is not None for text in texts)


def _guess_plain(
    cells: DistinctCells, numbers: np.ndarray, decimal_comma: bool | None
) -> FormatGuess:
    """Explain a column whose cells are numbers as Python writes them."""
    unread = cells.select(np.isnan(numbers))
    blanks = _name_blanks(unread.count(unread.written()))
    found = evolve(_explain_plain(cells, numbers, decimal_comma), blanks=blanks)
    if found == FormatGuess(cells.column):
        return found
    counts = cells.count(cells.written())
    if len(without_blanks(counts)) < 2:
        return FormatGuess(cells.column)
    are_codes = has_leading_zeros(counts)
    return FormatGuess(cells.column, blanks=blanks) if are_codes else found


def _explain_plain(
    cells: DistinctCells, numbers: np.ndarray, decimal_comma: bool | None
) -> FormatGuess:
    column, is_finite = cells.column, np.isfinite(numbers)
    values, texts = numbers[is_finite], [text for text in cells.written() if text]
    if not len(values):
        return FormatGuess(column)
    if epoch := guess_epoch(values, column):
        first = next(text for text in texts if text.lower() not in BLANKS)
        shown = _show_date(epoch, first)
        return FormatGuess(column, epoch, (f"{quote(first)} is {shown} ({describe(epoch)})",))
    if all(len(text.partition(".")[2]) == 3 for text in texts):
        counts = cells.count(cells.written())
        writing = guess_number_writing(counts, decimal_comma)
        if writing and writing.rivals:
            return _explain_numbers(cells, counts, writing, decimal_comma)
    sentinels = find_sentinels(values, cells.counts[is_finite])
    return _with_proposal(FormatGuess(column), sentinels, "{:.15g}".format)


def _explain_numbers(
    cells: DistinctCells,
    counts: Mapping[str, int],
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
    notes += _explain_odd(cells, writing.odd, "number")
    values = cells.with_format(form).rows().numbers(cells.column)
    is_known = ~np.isnan(values)
    found = FormatGuess(cells.column, form, tuple(notes))
    texts = {form.parse_number(text): text for text in known}
    sentinels = find_sentinels(values[is_known], cells.counts[is_known])
    return _with_proposal(found, sentinels, texts.__getitem__)


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


def _explain_dates(cells: DistinctCells, writing: Writing) -> FormatGuess:
    form = evolve(writing.form, na_values=sorted(writing.odd))
    texts = cells.texts()
    known = [text for text in without_blanks(cells.count(texts)) if text not in writing.odd]
    first = known[0]
    for rival in writing.rivals[:1]:
        first = next(text for text in known if _show_date(form, text) != _show_date(rival, text))
        ways = [
            f"{_show_date(each, first)} ({describe(each)}, {option})"
            for each, option in ((form, "--day-first"), (rival, "--month-first"))
        ]
        position = cells.firsts[texts.index(first)]
        raise DataError(
            f"{cells.table.cell_name(position, cells.column)}: {quote(first)} can be "
            f"{ways[0]} or {ways[1]}, and so can all other cells: say which"
        )
    notes: list[str] = []
    if form.date_format:
        notes.append(f"{quote(first)} is {_show_date(form, first)} ({describe(form)})")
    notes += _explain_odd(cells, writing.odd, "date")
    days = cells.with_format(form).rows().timestamps(cells.column)
    is_known = ~np.isnan(days)
    found = [
        sentinel
        for sentinel in find_sentinels(days[is_known], cells.counts[is_known])
        if _day(sentinel.value) in END_DATES
    ]
    proposed = _with_proposal(FormatGuess(cells.column, form, tuple(notes)), found, _day)
    written = [texts[np.flatnonzero(days == sentinel.value)[0]] for sentinel in found]
    return evolve(proposed, proposed=tuple(written))


def _explain_odd(cells: DistinctCells, odd: Collection[str], kind: str) -> list[str]:
    """Say which cells of a column are no numbers or dates."""
    written = cells.written()
    counts = cells.count(written)
    notes = []
    for text in sorted(odd):
        row, n = cells.row_label(written.index(text)), counts[text]
        where = f"1 row (row {row})" if n == 1 else f"{n} rows (the first: {row})"
        notes.append(f"{quote(text)} in {where} is no {kind}: missing")
    return notes


def _name_blanks(counts: Mapping[str, int]) -> str:
    blanks = sorted(text for text in counts if text.lower() in BLANKS)
    n_rows = sum(counts[text] for text in blanks)
    rows = "1 row" if n_rows == 1 else f"{n_rows} rows"
    return f"{' and '.join(map(quote, blanks))} in {rows}: missing" if blanks else ""


def _near_numbers(cells: DistinctCells, known: Mapping[str, int]) -> str:
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
    texts = cells.texts()
    position = next(k for k, text in enumerate(texts) if text in known and text not in numbers)
    return (
        f"a number in {n_read} of {total} cells; row {cells.row_label(position)} has "
        f"{quote(texts[position])}: write all as numbers, or make them missing "
        f"(data.columns.{cells.column}.na_values)"
    )


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
    return evolve(found, notes=(*found.notes, f"{why}; {cure}"), proposed=values)


def _show_date(form: ColumnFormat, text: str) -> str:
    [date] = parse_dates([text], form.date_format).astype("datetime64[s]")
    return str(date).replace("T", " ").removesuffix(" 00:00:00")


def _day(days: float) -> str:
    return str(np.datetime64(int(days), "D"))
