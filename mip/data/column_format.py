"""How the cells of a column are written, where that is not the plain form."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from attrs import field, frozen
from attrs.validators import in_

from mip.data.cells import parse_number
from mip.data.photo_names import template_error
from mip.errors import FieldError


def _as_tuple(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(texts)


@frozen
class ColumnFormat:
    """How the cells of a column are written. Cells that are no text, such as the floats of a
    DataFrame, are read as they are.

    Numbers have `decimal` before their fraction, may have `thousands` between groups of three
    digits, and may have `unit` before or after them ("$", "m2", "%"), which is left out; "|"
    divides several units ("year|years"). A number in brackets, or with a minus after it, is
    negative; "5,-" is 5 where the comma is decimal.
    `na_values` are texts that mean a missing cell, besides the usual ones. `date_format` is that of
    `datetime.strptime` ("%d/%m/%Y"), or "s" or "ms": seconds or milliseconds since 1970. `sep`
    stands between the values of a cell that has several: photos, or labels. `path` turns a cell
    into the path of a photo, "images/{}.jpg" (see `photo_name`); the folder that it names is the
    one that photos may lie in, besides the table's.

    >>> euros = ColumnFormat(decimal=",", thousands=".", unit="€")
    >>> [euros.parse_number(text) for text in ("1.234,50 €", "(€ 7)", "1.23,5", "n/a")]
    [1234.5, -7.0, None, nan]
    """

    decimal: str = field(default=".", validator=in_((".", ",")))
    thousands: str = field(default="", validator=in_(("", ",", ".", " ", "'", "_")))
    unit: str = ""
    na_values: tuple[str, ...] = field(default=(), converter=_as_tuple)
    date_format: str = ""
    sep: str = ""
    path: str = ""

    def __attrs_post_init__(self) -> None:
        if self.thousands == self.decimal:
            raise FieldError("thousands", f"and 'decimal' are both '{self.decimal}'")
        if self.path and (mistake := template_error(self.path)):
            raise FieldError("path", f"= '{self.path}' {mistake}")

    def values(self, cell: Any) -> Any:
        """Return a cell as photos or labels: a list if `sep` divides it, without the brackets and
        quotes of a list in Python or JSON.

        >>> form = ColumnFormat(sep=";")
        >>> form.values("a.png; b.png"), form.values("c.png"), form.values(["d.png"])
        (['a.png', 'b.png'], 'c.png', ['d.png'])
        >>> ColumnFormat(sep=",").values("['sea', 'sun']")
        ['sea', 'sun']
        """
        if not isinstance(cell, str) or not self.sep or cell.startswith("data:"):
            return cell
        parts = [part for part in _split_list(cell, self.sep) if part]
        return parts[0] if len(parts) == 1 else parts or None

    @property
    def writes_numbers(self) -> bool:
        """Whether numbers are written otherwise than Python writes them."""
        return (self.decimal, self.thousands, self.unit) != (".", "", "")

    def parse_number(self, cell: Any) -> float | None:
        """Parse a cell as a number: NaN if it is blank, None if it is not a number of this format.

        >>> [ColumnFormat(decimal=",").parse_number(cell) for cell in ("2,5", "-", "2.5", 2.5)]
        [2.5, nan, None, 2.5]
        """
        if not isinstance(cell, str):
            return parse_number(cell)
        found = _number_pattern(self.decimal, self.thousands, self.unit).fullmatch(cell)
        if found is None or not (found["whole"] or found["fraction"]):
            has_digits = any(map(str.isdigit, cell))
            return None if has_digits else parse_number(cell)
        minuses = (found[name] for name in ("open", "minus", "inner_minus", "last_minus"))
        sign = "-" if any(minuses) else ""
        whole = re.sub("[^0-9]", "", found["whole"])
        return float(f"{sign}{whole}.{found['fraction'] or 0}{found['exponent'] or ''}")


def _split_list(cell: str, sep: str) -> list[str]:
    cell = cell.strip()
    inner = cell[1:-1] if cell[:1] + cell[-1:] in {"[]", "()", "{}"} else cell
    return [part.strip().strip("'\"") for part in inner.split(sep)]


@lru_cache
def _number_pattern(decimal: str, thousands: str, unit: str) -> re.Pattern[str]:
    # A blank between thousands may be any, such as a narrow one that does not break a line.
    between = {" ": r"\s", "'": "['’]"}.get(thousands, re.escape(thousands))
    grouped = rf"[1-9][0-9]{{0,2}}(?:{between}[0-9]{{3}})+|" if thousands else ""
    units = "|".join(map(re.escape, sorted(unit.split("|"), key=len, reverse=True)))
    beside = rf"\s*(?:{units})?\s*" if unit else r"\s*"
    return re.compile(
        rf"\s*(?:(?P<minus>[-−])|\+|(?P<open>\())?{beside}(?P<inner_minus>-)?"
        rf"(?P<whole>{grouped}[0-9]*)(?:{re.escape(decimal)}"
        rf"(?:(?P<fraction>[0-9]+)|[-–—]{{1,2}})?)?(?P<exponent>[eE][-+]?[0-9]+)?(?P<last_minus>\s*[-−])?{beside}"
        r"(?(open)\))\s*"
    )
