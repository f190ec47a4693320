"""How cells are written that hold more than a number with a unit: durations, several numbers, and
units with digits in them; guessed from the cells.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from operator import itemgetter

from attrs import evolve

from mip.data import ColumnFormat, parse_duration
from mip.spec.drafts.distinct_cells import without_blanks
from mip.spec.drafts.formats.numbers import (
    FEW,
    Writing,
    are_most,
    find_numbers,
    find_units,
    guess_number_writing,
    has_leading_zeros,
)

_TIME_OF_DAY = re.compile(r"(?:[01][0-9]|2[0-3])(?::[0-5][0-9]){1,2}(?:\.[0-9]+)?")
_WITH_TAIL = re.compile(r"([-+−]?\d(?:[\d.,'’\s]*\d)?)\s*([^\d\s.,:;|_-](?=.*\d)[^|,]{1,15})")
_SEVERAL = re.compile(r"\D{0,3}\d[\d.,]*\s*[^\d\s.,:+()-]\D*\d.*")
_SEPARATORS = (";", ",", "/", "x", "×", "*", "(")
_MANY = 100


def guess_duration_writing(counts: Mapping[str, int]) -> Writing | None:
    """Guess whether cells are durations, as "5:59", "1:02:33" or "2h 5min", nine of ten of them;
    `counts` has the texts of the cells with how often they occur. If all have two digits for an
    hour of the day, they are times of day instead.

    >>> guess_duration_writing({"5:59": 1, "1:02:33": 1}).form.duration
    True
    >>> guess_duration_writing({"05:59": 1, "17:30": 1}) is None
    True
    """
    known = without_blanks(counts)
    are_durations = are_most(known, lambda text: parse_duration(text) is not None)
    if not are_durations or all(map(_TIME_OF_DAY.fullmatch, known)):
        return None
    return Writing(ColumnFormat(duration=True), _odd(known, ColumnFormat(duration=True)))


def guess_tail_writing(
    counts: Mapping[str, int], decimal_comma: bool | None = None
) -> Writing | None:
    """Guess how numbers are written that are followed by one text with digits, a unit of its kind.

    >>> guess_tail_writing({"5,4 l/100 km": 2, "6,0 l/100 km": 3}).form.unit
    'l/100 km'
    >>> guess_tail_writing({"3.5/5": 2, "4/5": 3}).form.unit
    '/5'
    """
    known = without_blanks(counts)
    looks = {text: found for text in known if (found := _WITH_TAIL.fullmatch(text))}
    tails = Counter[str]()
    for text, found in looks.items():
        tails[found[2]] += known[text]
    tail, n_cells = max(tails.items(), key=itemgetter(1), default=("", 0))
    if n_cells < (1 - FEW) * sum(known.values()):
        return None
    numbers = {found[1]: known[text] for text, found in looks.items() if found[2] == tail}
    writing = guess_number_writing(numbers, decimal_comma)
    if writing is None:
        return None
    form, *rivals = (evolve(form, unit=tail) for form in (writing.form, *writing.rivals))
    return Writing(form, _odd(known, form), tuple(rivals), writing.why)


def guess_vector_writing(
    counts: Mapping[str, int], decimal_comma: bool | None = None
) -> Writing | None:
    """Guess how cells are written that hold several numbers, as many in each.

    >>> guess_vector_writing({"52.52,13.40": 1, "48.14,11.58": 1}).form.sep
    ','
    >>> found = guess_vector_writing({"110 kW (150 PS)": 1, "55 kW (75 PS)": 1}).form
    >>> found.unit, [found.parse_number(part) for part in found.values("110 kW (150 PS)")]
    ('kW|PS)', [110.0, 150.0])
    """
    known = without_blanks(counts)
    first = next(iter(known), "")
    for sep in _SEPARATORS:
        parts = Counter(first.split(sep))
        if sep in first and len(find_numbers(parts)) == len(parts):
            some = dict(islice(known.items(), _MANY))
            is_likely = _guess_vector(some, sep, decimal_comma) is not None
            return _guess_vector(known, sep, decimal_comma) if is_likely else None
    return None


def _guess_vector(known: Mapping[str, int], sep: str, decimal_comma: bool | None) -> Writing | None:
    cells = {text: [part for part in map(str.strip, text.split(sep)) if part] for text in known}
    [(length, _)] = Counter(map(len, cells.values())).most_common(1)
    positions = [*zip(*(parts for parts in cells.values() if len(parts) == length), strict=True)]
    looks = [find_numbers(Counter(parts)) for parts in positions]
    numbers = Counter(found["number"] for look in looks for _, found, _ in look)
    writing = None if has_leading_zeros(numbers) else guess_number_writing(numbers, decimal_comma)
    if writing is None or length < 2:
        return None
    units = [max(find_units(Counter(parts)), default="") for parts in positions]
    form = evolve(writing.form, unit="|".join(dict.fromkeys(filter(None, units))), sep=sep)
    odd = {
        text: known[text]
        for text, parts in cells.items()
        if len(parts) != length or any(form.parse_number(part) is None for part in parts)
    }
    return Writing(form, (*odd,)) if sum(odd.values()) <= FEW * sum(known.values()) else None


def has_several(counts: Mapping[str, int]) -> bool:
    """Whether most cells begin with a number and have another, as "£500 to £800"."""
    return are_most(counts, lambda text: _SEVERAL.fullmatch(text) is not None)


def _odd(known: Mapping[str, int], form: ColumnFormat) -> tuple[str, ...]:
    return tuple(text for text in known if form.parse_number(text) is None)
