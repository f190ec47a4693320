"""How the cells of each column are written, and what about them the user should know."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np
from attrs import evolve, field, frozen

from mip.data import BLANKS, ColumnFormat, is_image, is_list, parse_number
from mip.errors import DataError, quote
from mip.spec.drafts.distinct_cells import DistinctCells, without_blanks
from mip.spec.drafts.formats.dates import (
    END_DATES,
    are_months,
    guess_date_writing,
    guess_epoch,
    is_zero_date,
)
from mip.spec.drafts.formats.notes import (
    explain_dates,
    explain_numbers,
    show_date,
    why_neither,
)
from mip.spec.drafts.formats.numbers import (
    MISSING_WORDS,
    Sentinel,
    Writing,
    describe,
    find_sentinels,
    guess_number_writing,
    has_digit,
    has_leading_zeros,
)
from mip.spec.drafts.formats.parts import (
    guess_duration_writing,
    guess_tail_writing,
    guess_vector_writing,
)

MAX_ODD = 5
"""The number of different texts that may be no numbers in a column of numbers."""


SAMPLE = 100
"""The cells that are looked at first where one may already tell."""


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
    same_as: str = ""
    """The column that names the same photos."""

    def leave_out(self, words: Sequence[str], *notes: str) -> FormatGuess:
        """Let words of the column be missing, and say so."""
        form = evolve(self.form, na_values=(*self.form.na_values, *words))
        return evolve(self, form=form, notes=(*self.notes, *notes))

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
    >>> from mip.spec.drafts.distinct_cells import distinct_cells
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
            if writing and not writing.rivals and writing.form.decimal:
                found.add(writing.form.decimal == ",")
    return found.pop() if len(found) == 1 else None


def _guess_format(
    cells: DistinctCells, decimal_comma: bool | None, day_first: bool | None
) -> FormatGuess:
    if cells.numbers is not None and _is_plain(cells, cells.numbers):
        return _guess_plain(cells, cells.numbers, decimal_comma)
    counts = _count_texts(cells)
    known = without_blanks(counts)
    if len(known) < 2:
        return FormatGuess(cells.column)
    are_dates, blanks = are_months(known), _name_blanks(counts)
    if not _have_digits(known):
        return FormatGuess(cells.column)
    ways: list[tuple[Callable[[], Writing | None], Callable[..., FormatGuess]]] = [
        (lambda: guess_number_writing(counts, decimal_comma), _explain_numbers),
        (lambda: guess_duration_writing(counts), _explain_numbers),
        (lambda: guess_date_writing(counts, day_first), _explain_dates),
        (lambda: guess_tail_writing(counts, decimal_comma), _explain_numbers),
        (lambda: guess_vector_writing(counts, decimal_comma), _explain_vectors),
    ]
    for guess, explain in ways[2:] if are_dates else ways:
        writing = guess()
        if writing and _is_sure(writing, known):
            return evolve(explain(cells, counts, writing), blanks=blanks)
    return FormatGuess(cells.column, problem=why_neither(cells, known))


def _is_plain(cells: DistinctCells, numbers: np.ndarray) -> bool:
    """Whether numbers are written as Python writes them, and are no months such as "11.2025"."""
    if cells.objects() and any(parse_number(text) is None for text in cells.written()):
        return False
    may_be_months = (np.isnan(numbers) | ((numbers > 1) & (numbers < 13))).all()
    return not (may_be_months and are_months(without_blanks(_count_texts(cells))))


def _have_digits(known: Mapping[str, int]) -> bool:
    """Whether half of the cells have digits, without words for a missing number."""
    words = {text: n for text, n in known.items() if not has_digit(text)}
    n_words = sum(n for text, n in words.items() if text.lower() not in MISSING_WORDS)
    return n_words <= (sum(known.values()) - sum(words.values()))


def _is_sure(writing: Writing, known: Mapping[str, int]) -> bool:
    """Whether few enough cells are odd: none, or some beside many that are as they should be."""
    odd = [text for text in writing.odd if not is_zero_date(text)]
    n_different = len(odd) - sum(text.lower() in MISSING_WORDS for text in odd)
    return not odd or (n_different <= MAX_ODD and len(known) - len(writing.odd) >= 5)


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
    are_codes = has_leading_zeros(counts) and not found.form.date_format
    return FormatGuess(cells.column, blanks=blanks) if are_codes else found


def _explain_plain(
    cells: DistinctCells, numbers: np.ndarray, decimal_comma: bool | None
) -> FormatGuess:
    column, is_finite = cells.column, np.isfinite(numbers)
    values, finite = numbers[is_finite], cells.select(is_finite)
    if not len(values):
        return FormatGuess(column)
    if epoch := guess_epoch(values, finite.written, column):
        first = finite.select(slice(1)).written()[0]
        shown = show_date(epoch, first)
        return FormatGuess(column, epoch, (f"{quote(first)} is {shown} ({describe(epoch)})",))
    if _may_have_thousands(finite):
        counts = cells.count(cells.written())
        writing = guess_number_writing(counts, decimal_comma)
        if writing and writing.rivals:
            return _explain_numbers(cells, counts, writing)
    sentinels = find_sentinels(values, finite.counts)
    return _with_proposal(FormatGuess(column), sentinels, "{:.15g}".format)


def _may_have_thousands(cells: DistinctCells) -> bool:
    """Whether the points in numbers may be those of thousands: each has three digits after it."""
    lengths = set[int]()
    for some in (cells.select(slice(SAMPLE)), cells):  # nearly always, a few already tell
        lengths = {len(text.partition(".")[2]) for text in some.written()}
        if not lengths <= {0, 3}:
            return False
    return 3 in lengths


def _explain_numbers(
    cells: DistinctCells, counts: Mapping[str, int], writing: Writing
) -> FormatGuess:
    form, column, known = writing.full_form, cells.column, writing.select(counts)
    notes = [*explain_numbers(known, writing, column), *_explain_odd(cells, writing.odd, "number")]
    values = cells.with_format(form).rows().numbers(column)
    is_known = ~np.isnan(values)
    found = FormatGuess(column, form, tuple(notes))
    texts = {form.parse_number(text): text for text in known}
    sentinels = find_sentinels(values[is_known], cells.counts[is_known])
    return _with_proposal(found, sentinels, texts.__getitem__)


def _explain_vectors(
    cells: DistinctCells, counts: Mapping[str, int], writing: Writing
) -> FormatGuess:
    form, first = writing.full_form, next(iter(writing.select(counts)))
    numbers = [f"{form.parse_number(part):.15g}" for part in form.values(first)]
    note = f"{quote(first)} is {len(numbers)} numbers, {' and '.join(numbers)} ({describe(form)})"
    notes = (note, *_explain_odd(cells, writing.odd, "list of as many numbers"))
    return FormatGuess(cells.column, form, notes)


def _explain_dates(
    cells: DistinctCells, counts: Mapping[str, int], writing: Writing
) -> FormatGuess:
    form, texts = writing.full_form, cells.texts()
    known = writing.select(cells.count(texts))
    for rival in writing.rivals[:1]:
        first = next(text for text in known if show_date(form, text) != show_date(rival, text))
        ways = [
            f"{show_date(each, first)} ({describe(each)}, {option})"
            for each, option in ((form, "--day-first"), (rival, "--month-first"))
        ]
        position = cells.firsts[texts.index(first)]
        raise DataError(
            f"{cells.table.cell_name(position, cells.column)}: {quote(first)} can be "
            f"{ways[0]} or {ways[1]}, and so can all other cells: say which"
        )
    notes = [*explain_dates(known, form), *_explain_odd(cells, writing.odd, "date")]
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


def _day(days: float) -> str:
    return str(np.datetime64(int(days), "D"))
