"""Durations as they are written: "5:59", "1:02:33", "2 h 5 min"."""

from __future__ import annotations

import re

_WORDS = {
    86400: "d|day|days|tag|tage|jour|jours|día|días|dia|dias",
    3600: "h|hr|hrs|hour|hours|std|stunde|stunden|heure|heures|hora|horas",
    60: "m|min|mins|minute|minutes|minuten|minuto|minutos",
    1: "s|sec|secs|second|seconds|sek|sekunde|sekunden|seconde|secondes",
}
_SECONDS = {word: seconds for seconds, words in _WORDS.items() for word in words.split("|")}
_NUMBER = r"[0-9]+(?:[.,][0-9]+)?"
_PART = rf"({_NUMBER})\s*({'|'.join(_SECONDS)})(?![^\W\d_])\.?,?\s*"
_DURATION = re.compile(
    rf"\s*(?P<sign>[-−+])?(?P<parts>(?:{_PART})*)"
    rf"\+?(?P<clock>[0-9]+(?::[0-5][0-9])?:[0-5][0-9](?:[.,][0-9]+)?)?\s*",
    re.IGNORECASE,
)


def parse_duration(text: str) -> float | None:
    """Parse a duration as a number of seconds; None if it is none. Two numbers with a colon are
    minutes and seconds, so that hours and minutes are read as a number of minutes.

    >>> [parse_duration(text) for text in ("5:59", "1:02:33", "2h 5min", "-1 days +02:00:00")]
    [359.0, 3753.0, 7500.0, -79200.0]
    >>> parse_duration("12"), parse_duration("5 kg"), parse_duration("5:60")
    (None, None, None)
    """
    found = _DURATION.fullmatch(text)
    if found is None or not (found["parts"] or found["clock"]):
        return None
    parts = sum(
        _parse(number) * _SECONDS[word.lower()]
        for number, word in re.findall(_PART, found["parts"], re.IGNORECASE)
    )
    clock = 0.0
    for number in (found["clock"] or "0").split(":"):
        clock = 60 * clock + _parse(number)
    sign = -1 if found["sign"] in {"-", "−"} else 1
    # Python and pandas write the sign of the days alone.
    return sign * parts + (clock if parts else sign * clock)


def _parse(number: str) -> float:
    return float(number.replace(",", "."))
