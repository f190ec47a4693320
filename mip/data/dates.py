"""Dates and times as they are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from mip.data.cells import parse_number

_MONTHS = """
january januar jänner jän janvier janv enero ene gennaio gen janeiro januari stycznia styczeń sty
february februar février févr fév febrero febbraio febbr fevereiro fev februari lutego luty lut
march märz mär maerz mrz mars marzo março maart mrt marca marzec
april avril avr abril abr aprile kwietnia kwiecień kwi
may mai mayo maggio mag maio mei maja maj
june juni juin junio giugno giu junho czerwca czerwiec cze
july juli juillet juil julio luglio lug julho lipca lipiec lip
august août aout agosto ago augustus augusti sierpnia sierpień sie
september sept septembre septiembre setiembre settembre sett set setembro września wrzesień wrz
october oktober okt octobre octubre ottobre ott outubro out października październik paź
november novembre noviembre novembro listopada listopad lis
december dezember dez décembre déc diciembre dicembre dic dezembro grudnia grudzień gru
"""
MONTHS = {
    word: words.split()[0][:3].title()
    for words in _MONTHS.strip().split("\n")
    for word in [*words.split(), words[:3]]
}
"""The names of months, in lower case and in some European languages, with the English short one."""


_YEAR = re.compile(r"[0-9]{4}")
_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?![0-9])")
_ORDINAL = re.compile(r"(?<=[0-9])(?:st|nd|rd|th|er|º)\b")
_BRACKETS = re.compile(r"\s*\([^()]*\)$")
_WORD = re.compile(r"([^\W\d_]{3,})\.?")
_QUARTER = re.compile("Q([1-4])(?![0-9])")


_CALENDAR_DAYS = 400 * 365 + 97
"""Days in 400 years, after which the calendar repeats."""


_EXCEL_EPOCH = 25569
"""Days from that which Excel counts as 0, 1899-12-30, to 1970."""


def parse_dates(texts: Sequence[str], date_format: str = "") -> np.ndarray:
    """Parse dates and times of the years 0 to 9999 as datetime64[us] in UTC, [n]: NaT for other
    texts. They are ISO dates, or of the form `date_format` (see `ColumnFormat`).

    ISO dates are read beside those of any form. Names of months may be short or long, and in some
    other languages of Europe than English; see `plain_date`.

    >>> parse_dates(["31/12/2024", "2024-12-31"], "%d/%m/%Y").astype("datetime64[D]").tolist()
    [datetime.date(2024, 12, 31), datetime.date(2024, 12, 31)]
    >>> parse_dates(["2024-01-01T12:00+02:00", "9999-12-31", "now"]).astype(str).tolist()
    ['2024-01-01T10:00:00.000000', '9999-12-31T00:00:00.000000', 'NaT']
    >>> parse_dates(["1. März 2024", "3. Dez. 2024"], "%d. %B %Y").astype("datetime64[D]").tolist()
    [datetime.date(2024, 3, 1), datetime.date(2024, 12, 3)]
    """
    if date_format in {"s", "ms", "excel"}:
        return _from_numbers(texts, date_format)
    if not date_format:
        return _parse_iso(texts)
    dates = _parse_form(texts, date_format)
    if "%b" in date_format.lower():
        short = date_format.replace("%B", "%b").replace("%b.", "%b")
        dates = _fill(dates, texts, lambda unread: _parse_form([*map(plain_date, unread)], short))
    if "%Y-%d" not in date_format:
        dates = _fill(dates, texts, _parse_full_iso)
    return dates


def plain_date(text: str) -> str:
    """Write a date with a named month as one in English, with its short name, and without what may
    be beside a day or behind the time.

    >>> plain_date("1er févr. 2024"), plain_date("March 7th, 2024"), plain_date("3:00 GMT+1 (CET)")
    ('1 Feb 2024', 'Mar 7, 2024', '3:00 GMT+1')
    """
    text = _BRACKETS.sub("", _ORDINAL.sub("", text))
    return _WORD.sub(lambda word: MONTHS.get(word[1].lower(), word[0]), text)


def is_iso_date(text: str) -> bool:
    """Whether a text begins with an ISO date.

    >>> is_iso_date("2024-12-31 10:15"), is_iso_date("2024-12")
    (True, False)
    """
    return bool(_ISO_DATE.match(text))


def _fill(
    dates: np.ndarray, texts: Sequence[str], parse: Callable[[list[str]], np.ndarray]
) -> np.ndarray:
    """Parse in another way the texts that are no dates yet."""
    positions = np.flatnonzero(np.isnat(dates))
    if len(positions):
        dates[positions] = parse([texts[position] for position in positions.tolist()])
    return dates


def _parse_form(texts: Sequence[str], date_format: str) -> np.ndarray:
    import pandas as pd

    # A week without a day, and a quarter, which strptime does not know, begin with a day.
    if "%V" in date_format and "%u" not in date_format:
        texts, date_format = [f"{text} 1" for text in texts], f"{date_format} %u"
    if "Q%q" in date_format:
        texts = [_QUARTER.sub(_first_month, text) for text in texts]
        date_format = date_format.replace("Q%q", "%m")
    series = pd.Series(texts, dtype=object)
    dates = pd.to_datetime(series, format=date_format, errors="coerce", utc=True)
    return dates.dt.tz_localize(None).to_numpy().astype("datetime64[us]")


def _first_month(quarter: re.Match[str]) -> str:
    return f"{3 * int(quarter[1]) - 2:02d}"


def _from_numbers(texts: Sequence[str], unit: str) -> np.ndarray:
    import pandas as pd

    numbers = pd.Series([parse_number(text) for text in texts], dtype=np.float64)
    if unit == "excel":
        microseconds = ((numbers - _EXCEL_EPOCH) * 86400).round() * 1e6
    else:
        microseconds = numbers * (1e6 if unit == "s" else 1e3)
    in_range = microseconds.abs() < 2.5e17  # the year 9892
    return microseconds.where(in_range).to_numpy().astype("datetime64[us]")


def _parse_full_iso(texts: Sequence[str]) -> np.ndarray:
    """Parse ISO dates with a day, and no others."""
    return _parse_iso([text if is_iso_date(text) else "" for text in texts])


def _parse_iso(texts: Sequence[str]) -> np.ndarray:
    import pandas as pd

    # Years are shifted by multiples of 400 to near 1970, since not every pandas parses far ones.
    cycles = [(int(text[:4]) - 1700) // 400 if _YEAR.match(text) else None for text in texts]
    shifted = [
        None if cycle is None else f"{int(text[:4]) - 400 * cycle}{text[4:]}"
        for text, cycle in zip(texts, cycles, strict=True)
    ]
    series = pd.Series(shifted, dtype=object)
    near = pd.to_datetime(series, format="ISO8601", errors="coerce", utc=True).dt.tz_localize(None)
    days = np.array([cycle or 0 for cycle in cycles], dtype=np.int64) * _CALENDAR_DAYS
    return near.to_numpy().astype("datetime64[us]") + days.astype("timedelta64[D]")
