"""What the user should know of how a column is written: how a cell is read, where there is doubt,
and what keeps a column from being one of numbers or dates.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from mip.data import ColumnFormat, is_iso_date, parse_dates
from mip.errors import quote
from mip.spec.drafts.distinct_cells import DistinctCells
from mip.spec.drafts.formats.dates import guess_date_writing
from mip.spec.drafts.formats.numbers import (
    Writing,
    describe,
    find_units,
    guess_number_writing,
    has_digit,
)
from mip.spec.drafts.formats.parts import has_several
from mip.spec.toml_text import inline


def explain_numbers(known: Mapping[str, int], writing: Writing, column: str) -> list[str]:
    """Show how a number is read, the other way if there is one, and how those without a unit are;
    `known` counts the texts that are numbers.

    >>> explain_numbers({"5 kg": 3, "7": 2}, Writing(ColumnFormat(unit="kg")), "weight")[1]
    "no 'kg' in 2 cells, such as '7': read as if it were there"
    """
    form = writing.form
    if writing.rivals:
        notes = [_explain_rival(known, writing, column)]
    elif form.writes_numbers or not writing.odd:
        longest = max(known, key=len)
        unit = " seconds" if form.duration else ""
        note = f"{quote(longest)} is {form.parse_number(longest):.15g}{unit}"
        notes = [f"{note} ({describe(form)})" if form.writes_numbers else note]
    else:
        return []
    return [*notes, *_explain_bare(known, form)]


def _explain_rival(known: Mapping[str, int], writing: Writing, column: str) -> str:
    """Show a number that can be read in two ways, why one is taken, and what changes it."""
    form, rival = writing.form, writing.rivals[0]
    text = next(text for text in known if form.parse_number(text) != rival.parse_number(text))
    first, second = (
        f"{each.parse_number(text):.15g} ({describe(each) or 'a decimal point'})"
        for each in (form, rival)
    )
    names = [
        each for each in ("decimal", "thousands") if getattr(form, each) != getattr(rival, each)
    ]
    lines = " and ".join(f"{name} = {inline(getattr(rival, name))}" for name in names)
    return (
        f"{quote(text)} can be {first} or {second}; the first is taken: {writing.why}; "
        f"for the second set {lines} in data.columns.{column}"
    )


def _explain_bare(known: Mapping[str, int], form: ColumnFormat) -> list[str]:
    """Say how many cells lack the unit or multiplier that others have, and how they are read."""
    as_written = "as written" + '; for percents set unit = "%" instead' * ("%" in form.multipliers)
    ways = [
        ([*filter(None, form.unit.split("|"))], evolve(form, unit=""), "as if it were there"),
        ([*form.multipliers], evolve(form, multipliers={}), as_written),
    ]
    notes = []
    for names, without, how in ways:
        bare = [text for text in known if without.parse_number(text)] if names else []
        if bare and len(bare) < len(known):
            n_cells, named = sum(known[text] for text in bare), " or ".join(map(quote, names))
            cells = "1 cell," if n_cells == 1 else f"{n_cells} cells, such as"
            notes.append(f"no {named} in {cells} {quote(bare[0])}: read {how}")
    return notes


def explain_dates(known: Mapping[str, int], form: ColumnFormat) -> list[str]:
    r"""Show how a date is read, and how many others are ISO dates; nothing if all are.

    >>> explain_dates({"31.12.2024": 3, "2025-01-01": 1}, ColumnFormat(date_format="%d.%m.%Y"))
    ['\'31.12.2024\' is 2024-12-31 (date_format = "%d.%m.%Y")', '1 of 4 cells are ISO dates']
    """
    if not form.date_format:
        return []
    n_iso = sum(n for text, n in known.items() if is_iso_date(text))
    first = min(known, key=is_iso_date)
    note = f"{quote(first)} is {show_date(form, first)} ({describe(form)})"
    if _is_time(form):
        note += ", a time of day; if it is a duration, set duration = true instead"
    return [note, *[f"{n_iso} of {sum(known.values())} cells are ISO dates"] * bool(n_iso)]


def show_date(form: ColumnFormat, text: str) -> str:
    """Show a date as ISO writes it, or a time.

    >>> show_date(ColumnFormat(date_format="%d.%m.%y"), "31.12.24")
    '2024-12-31'
    >>> show_date(ColumnFormat(date_format="%H:%M"), "09:30")
    '09:30:00'
    """
    [date] = parse_dates([text], form.date_format).astype("datetime64[s]")
    day, _, time = str(date).partition("T")
    if _is_time(form):
        return time
    return day if time == "00:00:00" else f"{day} {time}"


def _is_time(form: ColumnFormat) -> bool:
    return form.date_format.startswith(("%H", "%I"))


def why_neither(cells: DistinctCells, known: Mapping[str, int]) -> str:
    """Say what keeps a column from being one of numbers or dates; "" if it is far from that.
    `known` counts the texts of its cells, without blanks.
    """
    with_digits = {text: n for text, n in known.items() if has_digit(text)}
    kinds = {"date": _read_as_dates(with_digits), "number": _read_as_numbers(with_digits)}
    sums = {kind: sum(known[text] for text in texts) for kind, texts in kinds.items()}
    kind, total, units = max(sums, key=sums.__getitem__), sum(known.values()), find_units(known)
    block = f"data.columns.{cells.column}"
    if sums[kind] >= total / 2 and len(kinds[kind]) >= 5:
        texts = cells.texts()
        odd = next(k for k, text in enumerate(texts) if text in known.keys() - kinds[kind])
        return (
            f"a {kind} in {sums[kind]} of {total} cells; row {cells.row_label(odd)} has "
            f"{quote(texts[odd])}: write all as {kind}s, or make them missing ({block}.na_values)"
        )
    if 1 < len(units) <= 5 <= len(known) and units.total() >= 0.9 * total:
        named = " and ".join(f"{quote(unit)} in {n}" for unit, n in units.items())
        cure = f"write all in one, or give each its factor ({block}.multipliers)"
        return f"a number with several units, {named} cells: {cure}"
    if has_several(known):
        cure = "write each in a column of its own"
        return f"several numbers in each cell, such as {quote(next(iter(known)))}: {cure}"
    return ""


def _read_as_numbers(counts: Mapping[str, int]) -> set[str]:
    writing = guess_number_writing(counts)
    forms = [ColumnFormat(), *([writing.form] if writing else [])]
    read = [{text for text in counts if form.parse_number(text) is not None} for form in forms]
    return max(read, key=lambda texts: sum(counts[text] for text in texts))


def _read_as_dates(counts: Mapping[str, int]) -> set[str]:
    writing = guess_date_writing(counts)
    return counts.keys() - writing.odd if writing else set()
