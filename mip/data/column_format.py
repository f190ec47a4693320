"""How the cells of a column are written, where that is not the plain form."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Any

from attrs import Attribute, field, frozen
from attrs.validators import in_

from mip.data.cells import parse_number, with_ascii_digits
from mip.data.durations import parse_duration
from mip.data.photo_names import objects_in, parse_list, template_error
from mip.errors import FieldError

_NAMES = {",": "comma", ".": "point", " ": "blank", "'": "apostrophe", "_": "underscore"}


def _as_tuple(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(texts)


def _as_tuples(texts: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(words) for name, words in texts.items()}


def _as_separator(sep: Iterable[str]) -> tuple[str, ...] | str:
    return sep if isinstance(sep, str) else tuple(sep)


@frozen
class ColumnFormat:
    """How the cells of a column are written. Cells that are no text, such as the floats of a
    DataFrame, are read as they are.

    Numbers have `decimal` before their fraction, where "" is a point or a comma, but not before
    three digits, which could be thousands. They may have `thousands` between groups of three
    digits (a comma also between those of two before them, "12,34,567"), and may have `unit` before
    or after them ("$", "m2", "%"), which is left out; "|" divides several units ("year|years").
    `multipliers` are what may follow a number, before the unit, with what it is multiplied by:
    {"k": 1e3, "M": 1e6}. A number in brackets, or with a minus after it, is negative; "5,-" is 5
    where the comma is decimal. With `duration`, numbers are seconds that are written as "1:02:33"
    or "2h 5min" (see `parse_duration`).
    `na_values` are texts that mean a missing cell, besides the usual ones. `date_format` is that of
    `datetime.strptime` ("%d/%m/%Y"), and "Q%q" in it a quarter; or "s" or "ms", seconds or
    milliseconds since 1970, or "excel", its number of a day. `sep` stands between the values of a
    cell that has several: photos, labels, or the numbers of a vector; a list of separators if cells
    have different ones. `merge` makes one class of several: {"other": ["yew", "elm"]}. `key` names
    the value of an object in JSON that is the photo: "src" of [{"src": "a.jpg", "alt": "front"}].
    `path` turns a cell into the path of a photo, "images/{}.jpg" (see `photo_name`); the folder
    that it names is the one that photos may lie in, besides the table's.

    >>> euros = ColumnFormat(decimal=",", thousands=".", unit="€")
    >>> [euros.parse_number(text) for text in ("1.234,50 €", "(€ 7)", "1.23,5", "n/a")]
    [1234.5, -7.0, None, nan]
    >>> dollars = ColumnFormat(unit="$", multipliers={"k": 1e3, "M": 1e6})
    >>> [dollars.parse_number(text) for text in ("$1.2M", "350 k", "12")]
    [1200000.0, 350000.0, 12.0]
    """

    decimal: str = field(default=".", validator=in_((".", ",", "")))
    thousands: str = field(default="", validator=in_(("", ",", ".", " ", "'", "_")))
    unit: str = ""
    multipliers: Mapping[str, float] = field(factory=dict)
    duration: bool = False
    na_values: tuple[str, ...] = field(default=(), converter=_as_tuple)
    date_format: str = ""
    sep: tuple[str, ...] | str = field(default="", converter=_as_separator)
    merge: Mapping[str, tuple[str, ...]] = field(factory=dict, converter=_as_tuples)
    key: str = ""
    path: str = ""

    @multipliers.validator
    def _check_multipliers(self, _: Attribute, multipliers: Mapping[str, float]) -> None:
        for name, factor in multipliers.items():
            if not 0 < factor < math.inf:
                raise FieldError("multipliers", f"must be finite and > 0: {name} = {factor}")
            if not name or any(map(str.isdigit, name)):
                raise FieldError("multipliers", f"are words without digits, not '{name}'")

    @merge.validator
    def _check_merge(self, _: Attribute, merge: Mapping[str, tuple[str, ...]]) -> None:
        classes: dict[str, str] = {}
        for name, words in merge.items():
            for word in words:
                if word in classes:
                    raise FieldError("merge", f"has '{word}' in '{classes[word]}' and in '{name}'")
                classes[word] = name
        for word, name in classes.items():
            if word in self.na_values:
                raise FieldError("merge", f"has '{word}' in '{name}', and 'na_values' has it too")
            if word in merge and word != name:
                raise FieldError("merge", f"has '{word}' in '{name}', and merges others into it")

    def __attrs_post_init__(self) -> None:
        if self.thousands and self.thousands == self.decimal:
            raise FieldError("thousands", f"and 'decimal' are both '{self.decimal}'")
        if not all(self.sep):
            raise FieldError("sep", "has an empty text")
        if self.path and (mistake := template_error(self.path)):
            raise FieldError("path", f"= '{self.path}' {mistake}")

    @cached_property
    def _classes(self) -> dict[str, str]:
        return {word: name for name, words in self.merge.items() for word in words}

    def label(self, text: str) -> str:
        """Return the class that a text means: that of `merge`, or "" if the text or its class means
        a missing cell.

        >>> form = ColumnFormat(na_values=["?", "ash"], merge={"other": ["elm"], "ash": ["Ash"]})
        >>> [form.label(text) for text in ("oak", "elm", "?", "Ash")]
        ['oak', 'other', '', '']
        """
        name = self._classes.get(text, text)
        return "" if text in self.na_values or name in self.na_values else name

    def values(self, cell: Any) -> Any:
        r"""Return a cell as photos or labels: a list if `sep` divides it, or if it is one in Python
        or JSON.

        >>> form = ColumnFormat(sep=[";", "\n"])
        >>> form.values("a.png; b.png"), form.values("c.png"), form.values(["d.png"])
        (['a.png', 'b.png'], 'c.png', ['d.png'])
        >>> form.values("['sea', 'sun']"), ColumnFormat(sep=",").values("{sea,sun}")
        (['sea', 'sun'], ['sea', 'sun'])
        >>> ColumnFormat(key="src").values('[{"src": "a.png", "alt": "front"}]')
        ['a.png']
        """
        if self.key and (objects := objects_in(cell)):
            return [each.get(self.key) for each in objects]
        if not isinstance(cell, str) or not self.sep or cell.startswith("data:"):
            return cell
        found = parse_list(cell, (str,))
        parts = [part for part in (_split(cell, self.sep) if found is cell else found) if part]
        return parts[0] if len(parts) == 1 else parts or None

    @property
    def writes_numbers(self) -> bool:
        """Whether numbers are written otherwise than Python writes them."""
        plain = (self.decimal, self.thousands, self.unit) == (".", "", "")
        return not plain or bool(self.multipliers) or self.duration

    def describe_numbers(self) -> str:
        """Describe how numbers are written, for an error; "" if they are as Python writes them.

        >>> ColumnFormat(decimal=",", thousands=".", unit="€").describe_numbers()
        "with a decimal comma, points between thousands, the unit '€' if any"
        """
        if not self.writes_numbers:
            return ""
        if self.duration:
            return 'of minutes and seconds, such as "1:02:33" or "2h 5min"'
        units = " or ".join(map(repr, filter(None, self.unit.split("|"))))
        words = [
            f"a decimal {_NAMES[self.decimal]}" if self.decimal else "no three decimals",
            f"{_NAMES[self.thousands]}s between thousands" if self.thousands else "",
            f"the unit {units} if any" if units else "",
            f"{' or '.join(map(repr, self.multipliers))} behind it if any" * bool(self.multipliers),
        ]
        return f"with {', '.join(filter(None, words))}"

    def parse_number(self, cell: Any) -> float | None:
        """Parse a cell as a number: NaN if it is blank, None if it is not a number of this format.

        >>> [ColumnFormat(decimal=",").parse_number(cell) for cell in ("2,5", "-", "2.5", 2.5)]
        [2.5, nan, None, 2.5]
        >>> ColumnFormat(thousands=",").parse_number("6,36,961.50")
        636961.5
        """
        if not isinstance(cell, str):
            return parse_number(cell)
        cell = cell if cell.isascii() else with_ascii_digits(cell)
        if self.duration and (seconds := parse_duration(cell)) is not None:
            return seconds
        written = self.decimal, self.thousands, self.unit, (*self.multipliers,)
        found = _number_pattern(*written).fullmatch(cell)
        if found is None or not (found["whole"] or found["fraction"]):
            has_digits = any(map(str.isdigit, cell))
            return None if has_digits else parse_number(cell)
        minuses = (found[name] for name in ("open", "minus", "inner_minus", "last_minus"))
        sign = "-" if any(minuses) else ""
        whole = re.sub("[^0-9]", "", found["whole"])
        number = f"{sign}{whole}.{found['fraction'] or 0}"
        if multiplier := found["multiplier"]:
            # As decimals, so that 4.35M is 4350000 and not a rounding error away.
            return float(Decimal(number) * Decimal(str(self.multipliers[multiplier])))
        return float(f"{number}{found['exponent'] or ''}")


def _split(cell: str, sep: tuple[str, ...] | str) -> list[str]:
    cell = cell.strip()
    inner = cell[1:-1] if cell[:1] + cell[-1:] in {"[]", "()", "{}"} else cell
    between = "|".join(map(re.escape, [sep] if isinstance(sep, str) else sep))
    return [part.strip().strip("'\"") for part in re.split(between, inner)]


@lru_cache
def _number_pattern(
    decimal: str, thousands: str, unit: str, multipliers: tuple[str, ...]
) -> re.Pattern[str]:
    # A blank between thousands may be any, such as a narrow one that does not break a line.
    between = {" ": r"\s", "'": "['’]"}.get(thousands, re.escape(thousands))
    grouped = rf"[1-9][0-9]{{0,2}}(?:{between}[0-9]{{3}})+" if thousands else "(?!)"
    if thousands == ",":  # lakhs and crores too
        grouped += "|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}"
    # Where no mark is known, three digits behind one could be thousands.
    point = re.escape(decimal) or "[.,](?![0-9]{3}(?![0-9]))"
    beside = rf"\s*(?:{_any_of(unit.split('|'))})?\s*" if unit else r"\s*"
    times = rf"|\s*(?P<multiplier>{_any_of(multipliers) or '(?!)'})"
    return re.compile(
        rf"\s*(?:(?P<minus>[-−])|\+|(?P<open>\())?{beside}(?P<inner_minus>-)?"
        rf"(?P<whole>(?P<grouped>{grouped})|[0-9]*)"
        rf"(?:{point}(?:(?P<fraction>[0-9]+)|[-–—]{{1,2}})?)?"
        rf"(?:(?(grouped)(?!))(?P<exponent>[eE][-+]?[0-9]+){times})?(?P<last_minus>\s*[-−])?{beside}"
        r"(?(open)\))\s*"
    )


def _any_of(words: Iterable[str]) -> str:
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
