"""How the dates of a column are written, guessed from its cells."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from functools import cache

import numpy as np

from mip.data import BLANKS, ColumnFormat, parse_dates
from mip.spec.guess_numbers import FEW, Writing

_SLASHED = ("%d/%m/%Y", "%d/%m/%y", "%m/%d/%Y", "%m/%d/%y", "%Y/%m/%d")
_NAMED = """%d %b %Y|%d %b %y|%d. %b %Y|%d %b, %Y|%b %d, %Y|%b %d %Y|%b. %d, %Y|%d-%b-%Y|%d-%b-%y
|%d/%b/%Y|%d.%b.%Y|%d%b%Y|%d%b%y|%Y-%b-%d|%Y %b %d|%b %Y|%b, %Y|%b-%Y|%b-%y"""
_WEEKDAYS = ("", "%a, ", "%A, ", "%a ", "%A ")
_MONTHS = ("%m/%Y", "%Y/%m", "%Y-%m")
_TIMES = """%H:%M:%S|%H:%M|%H:%M:%S.%f|%I:%M %p|%I:%M:%S %p|%I:%M%p|%I:%M:%S%p|%H:%M:%S %z
|%H:%M:%S%z|%H:%M %z|%H:%M:%S UTC|%H:%M:%S GMT|%Hh%M"""
_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?![0-9])")
_MAY_BE_DATE = re.compile(r"(?=.*\d)[\w\s.,:/+\-]{4,40}")
_ZERO_DATE = re.compile(r"0{1,4}([-/. ]0{1,4}){2}([ T]0{1,2}:0{2}(:0{2})?)?")
_TIME_NAME = re.compile(
    r"(^|_|\b)(date|time|timestamp|ts|epoch|unix|created|updated|modified|at)(_|\b|$)|time$|date$",
    re.IGNORECASE,
)
_SAMPLE = 5


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
    """List the formats that read one of the first texts: ISO, or else all others."""
    sample = texts[:_SAMPLE]
    if any(map(_ISO_DATE.match, sample)):
        return [""]
    shapes = _formats_by_shape()
    pairs = [(text, each) for text in sample for each in shapes.get(_shape(text), ())]
    return list(dict.fromkeys(each for text, each in pairs if _reads(each, text)))


@cache
def _formats_by_shape() -> dict[str, list[str]]:
    # Python compiles every format that it tries, which is slow; few have the shape of a text.
    named = _NAMED.replace("\n", "").split("|")
    days = [day.replace("/", sep) for day in _SLASHED for sep in "/.- "]
    days += [*named, *(day.replace("%b", "%B") for day in named)]
    days = [weekday + day for weekday in _WEEKDAYS for day in days] + [*_MONTHS]
    times = _TIMES.replace("\n", "").split("|")
    gaps = ("", " ", "T", ", ")
    formats = [day + gap + time for day in days for gap in gaps[1:] for time in times]
    shapes: dict[str, list[str]] = {}
    for each in [*days, *formats, *times]:
        as_text = each.replace("%z", "+00").replace("%p", "AM")
        as_text = re.sub("%[aAbB]", "X", re.sub("%[dmyYHIMSf]", "0", as_text))
        shapes.setdefault(_shape(as_text), []).append(each)
    return shapes


def _shape(text: str) -> str:
    """Write a text with one 0 for its numbers, one A for its words, and one sign for a zone's.

    >>> _shape("Mar 3, 2024 10:15 +0100"), _shape("12:05pm")
    ('A 0, 0 0:0 +0', '0:0A')
    """
    text = re.sub(r"(:[0-9]{2} ?)[-+]([0-9]{2}):?([0-9]{2})$", r"\1+\2\3", text)
    return re.sub(r"[^\W\d_]+", "A", re.sub("[0-9]+", "0", text))


def _reads(date_format: str, text: str) -> bool:
    with suppress(ValueError):
        datetime.strptime(text, date_format)
        return True
    return False


def guess_epoch(values: np.ndarray, column: str) -> ColumnFormat | None:
    """Guess whether whole numbers, float64 [n] without NaN, are days as 20241231, or seconds or
    milliseconds since 1970; the last two need a name that says so, such as "created_at".

    >>> guess_epoch(np.array([1.6e9, 1.7e9]), "created_at").date_format
    's'
    >>> guess_epoch(np.array([1.6e9, 1.7e9]), "income") is None
    True
    >>> days = np.array([20240131.0, 20231224, 20230101, 20220202, 20230303])
    >>> guess_epoch(days, "day").date_format
    '%Y%m%d'
    """
    whole = np.unique(values)
    if not len(whole) or not (whole == np.round(whole)).all():
        return None
    if whole[0] >= 19000101 and whole[-1] <= 21001231 and len(whole) >= 5:
        dates = parse_dates([f"{value:.0f}" for value in whole], "%Y%m%d")
        return None if np.isnat(dates).any() else ColumnFormat(date_format="%Y%m%d")
    if not _TIME_NAME.search(column):
        return None
    for unit, factor in (("s", 1), ("ms", 1000)):
        if whole[0] >= 1e8 * factor and whole[-1] <= 4e9 * factor:  # 1973 to 2096
            return ColumnFormat(date_format=unit)
    return None
