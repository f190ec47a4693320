"""How the dates of a column are written, guessed from its cells."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np

from mip.data import BLANKS, ColumnFormat, is_iso_date, parse_dates, plain_date
from mip.spec.drafts.formats.numbers import FEW, Writing, are_most

_SLASHED = ("%d/%m/%Y", "%d/%m/%y", "%m/%d/%Y", "%m/%d/%y", "%Y/%m/%d")
_NAMED = """%d %b %Y|%d %b %y|%d. %b %Y|%d. %b %y|%d %b, %Y|%b %d, %Y|%b %d %Y|%d-%b-%Y|%d-%b-%y
|%d de %b de %Y|%d/%b/%Y|%d.%b.%Y|%d%b%Y|%d%b%y|%Y-%b-%d|%Y %b %d|%b %Y|%b, %Y|%b-%Y|%b-%y"""
_WEEKDAYS = ("", "%a, ", "%A, ", "%a ", "%A ")
_OTHERS = """%m/%Y|%m.%Y|%m/%y|%Y/%m|%Y-%m|%Y年%m月%d日|%Y年%m月|%Y년 %m월 %d일|%Y. %m. %d.
|%G-W%V|%G-W%V-%u|%GW%V|%G W%V|W%V %G|W%V/%G|KW %V/%G
|KW%V/%G|%YQ%q|%Y-Q%q|%Y Q%q|Q%q %Y|Q%q/%Y|Q%q-%Y
|%a %b %d %H:%M:%S %Y|%a %b %d %H:%M:%S %z %Y"""
_TIMES = """%H:%M:%S|%H:%M|%H:%M:%S.%f|%I:%M %p|%I:%M:%S %p|%I:%M%p|%I:%M:%S%p|%H:%M:%S %z
|%H:%M:%S%z|%H:%M %z|%H:%M:%S UTC|%H:%M:%S GMT|%H:%M:%S GMT%z|%Hh%M"""
_MAY_BE_DATE = re.compile(r"(?=.*\d)[\w\s.,:/+\-]{4,40}(?:\([^()]{1,40}\))?")
_MONTH_AND_YEAR = re.compile(r"(?:0?[1-9]|1[0-2])\.(?:19|20)[0-9]{2}")
_SHORT_MONTH = re.compile(r"(?:0[1-9]|1[0-2])/[0-9]{2}")
_ZERO_DATE = re.compile(r"0{1,4}([-/. ]0{1,4}){2}([ T]0{1,2}:0{2}(:0{2})?)?")
_TIME_NAME = re.compile(
    r"(^|_|\b)(date|time|timestamp|ts|epoch|unix|created|updated|modified|at|fecha|dob)(_|\b|$)"
    r"|(time|date|datum|日付|日期)$",
    re.IGNORECASE,
)
_SAMPLE, _MANY = 5, 200


END_DATES = frozenset(
    {"1753-01-01", "1899-12-30", "1899-12-31", "1900-01-01", "1901-01-01", "1970-01-01"}
    | {"2099-12-31", "2100-01-01"}
)
"""Dates that programs write for a missing one, besides those before 1678 and after 2261."""


def is_zero_date(text: str) -> bool:
    """Whether a text is a date of zeros, which no calendar has.

    >>> is_zero_date("00/00/0000"), is_zero_date("0000-00-00 00:00:00"), is_zero_date("0")
    (True, True, False)
    """
    return bool(_ZERO_DATE.fullmatch(text))


def guess_date_writing(counts: Mapping[str, int], day_first: bool | None = None) -> Writing | None:
    """Guess how dates are written: the format that reads the most cells, if nine of ten are dates.
    `counts` has the texts of the cells with how often they occur.

    Rivals are formats that read the same cells as other days: the month first, where no day is
    above 12. `day_first` decides between them; a date with points has the day first.

    >>> from collections import Counter
    >>> guess_date_writing(Counter(["31/12/2024", "1/2/2024"])).form.date_format
    '%d/%m/%Y'
    >>> guess_date_writing(Counter(["01/02/2024"])).rivals[0].date_format
    '%m/%d/%Y'
    >>> guess_date_writing(Counter(["3 Mar 2024 4:05 PM"])).form.date_format
    '%d %b %Y %I:%M %p'
    """
    known = [text for text in counts if text.lower() not in BLANKS and not is_zero_date(text)]
    total = sum(counts[text] for text in known)
    texts = [text for text in known if _MAY_BE_DATE.fullmatch(text)]
    if not texts or sum(counts[text] for text in texts) < (1 - FEW) * total:
        return None
    weights = np.array([counts[text] for text in texts])
    best: list[tuple[str, np.ndarray]] = []
    most = 0
    for date_format in _formats(texts):
        dates = parse_dates(texts, date_format)
        n_read = int(weights[~np.isnat(dates)].sum())
        if n_read > most:
            best, most = [], n_read
        if n_read == most:
            best.append((date_format, dates))
    if not best or most < (1 - FEW) * total:
        return None
    best.sort(key=lambda pair: _rank(pair[0], day_first))
    date_format, dates = best[0]
    read = {text for text, date in zip(texts, dates, strict=True) if not np.isnat(date)}
    rivals = [
        ColumnFormat(date_format=other)
        for other, others in best[1:]
        if not np.array_equal(dates, others, equal_nan=True)
    ]
    odd = [text for text in counts if text.lower() not in BLANKS and text not in read]
    decided = day_first is not None or "." in date_format[:4]
    return Writing(
        ColumnFormat(date_format=date_format), tuple(odd), () if decided else tuple(rivals)
    )


def _rank(date_format: str, day_first: bool | None) -> int:
    is_month_first = "%m" in date_format and date_format.find("%m") < date_format.find("%d")
    return int(is_month_first == (day_first is not False))


def _formats(texts: list[str]) -> list[str]:
    """List the formats that read some of the first texts, or the first of a shape. ISO dates are
    read by each.
    """
    first = {_shape(text): text for text in reversed(texts[:_MANY])}
    sample = [text for text in {*first.values(), *texts[:_SAMPLE]} if not is_iso_date(text)]
    shapes = _formats_by_shape()
    likely = dict.fromkeys(each for text in sample for each in shapes.get(_shape(text), ()))
    if "%m/%y" in likely and not all(map(_SHORT_MONTH.fullmatch, texts)):
        del likely["%m/%y"]
    is_iso = any(map(is_iso_date, first.values()))
    formats = [each for each in likely if not np.isnat(parse_dates(sample, each)).all()]
    return [""] * is_iso + formats


@cache
def _formats_by_shape() -> dict[str, list[str]]:
    # Python compiles every format that it tries, which is slow; few have the shape of a text.
    named = _NAMED.replace("\n", "").split("|")
    days = [day.replace("/", sep) for day in _SLASHED for sep in "/.- "]
    days += [*named, *(day.replace("%b", "%B") for day in named)]
    days = [weekday + day for weekday in _WEEKDAYS for day in days]
    days += _OTHERS.replace("\n", "").split("|")
    times = _TIMES.replace("\n", "").split("|")
    gaps = ("", " ", "T", ", ")
    formats = [day + gap + time for day in days for gap in gaps[1:] for time in times]
    shapes: dict[str, list[str]] = {}
    for each in [*days, *formats, *times]:
        as_text = each.replace("%z", "+00").replace("%p", "AM")
        as_text = re.sub("%[aAbB]", "Jan", re.sub("%[dmyYGHIMSVfqu]", "0", as_text))
        shapes.setdefault(_shape(as_text), []).append(each)
    return shapes


def _shape(text: str) -> str:
    """Write a text with one 0 for its numbers, one A for its words, and one sign for a zone's.

    >>> _shape("Mar 3, 2024 10:15 +0100"), _shape("12:05pm")
    ('A 0, 0 0:0 +0', '0:0A')
    """
    text = re.sub(
        r"(:[0-9]{2} ?(?:GMT)?)[-+]([0-9]{2}):?([0-9]{2})\b", r"\1+\2\3", plain_date(text)
    )
    return re.sub(r"[^\W\d_]+", "A", re.sub("[0-9]+", "0", text))


def are_months(counts: Mapping[str, int]) -> bool:
    """Whether nine of ten texts are months as "11.2025", which could be numbers too.

    >>> are_months({"11.2025": 5, "3.2024": 5, "1.2024": 5, "new": 1}), are_months({"11.2025": 9})
    (True, False)
    """
    return len(counts) > 2 and are_most(counts, _MONTH_AND_YEAR.fullmatch)


def guess_epoch(
    values: np.ndarray, read_texts: Callable[[], Sequence[str]], column: str
) -> ColumnFormat | None:
    """Guess whether numbers, float64 [n] without NaN, which `read_texts` returns as written, are
    dates: days as 20241231, or, if the name of their column says so, as "created_at" does, days as
    241231, the days that Excel counts, or seconds or milliseconds since 1970.

    >>> seconds = np.array([1.6e9, 1.7e9])
    >>> guess_epoch(seconds, list, "created_at").date_format
    's'
    >>> guess_epoch(seconds, list, "income") is None
    True
    >>> guess_epoch(np.array([45356.0, 45357.5]), list, "date").date_format
    'excel'
    >>> days = ["20240131", "20231224", "20230101", "20220202", "20230303"]
    >>> guess_epoch(np.array([*map(float, days)]), lambda: days, "day").date_format
    '%Y%m%d'
    """
    low, high, is_date = values.min(), values.max(), bool(_TIME_NAME.search(column))
    if is_date and low >= 20_000 and high <= 73_050:  # 1954 to 2099
        return ColumnFormat(date_format="excel")
    if (values != np.round(values)).any():
        return None
    if low >= 19000101 and high <= 21001231 and len(values) >= 5:
        return _guess_digits(read_texts(), "%Y%m%d")
    if is_date and high < 10**6 and all(len(text) == 6 for text in read_texts()):
        return _guess_digits(read_texts(), "%y%m%d")
    for unit, factor in (("s", 1), ("ms", 1000)):
        if is_date and low >= 1e8 * factor and high <= 4e9 * factor:  # 1973 to 2096
            return ColumnFormat(date_format=unit)
    return None


def _guess_digits(texts: Sequence[str], date_format: str) -> ColumnFormat | None:
    are_dates = not np.isnat(parse_dates(texts, date_format)).any()
    return ColumnFormat(date_format=date_format) if are_dates else None
