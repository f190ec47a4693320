"""How the cells of a column are written, where that is not the plain form."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from attrs import field, frozen
from attrs.validators import in_

from mip.data.photo_names import template_error
from mip.errors import FieldError


@frozen
class ColumnFormat:
    """How the cells of a column are written. Cells that are no text, such as the floats of a
    DataFrame, are read as they are.

    Numbers have `decimal` before their fraction, may have `thousands` between groups of three
    digits, and may have `unit` before or after them ("$", "m2", "%"), which is left out. A number
    in brackets is negative. `na_values` are texts that mean a missing cell, besides the usual ones.
    `date_format` is that of `datetime.strptime` ("%d/%m/%Y"), or "s" or "ms": seconds or
    milliseconds since 1970. `sep` stands between the values of a cell that has several: photos, or
    labels. `path` turns a cell into the path of a photo, "images/{}.jpg" (see `photo_name`); the
    folder that it names is the one that photos may lie in, besides the table's.

    >>> euros = ColumnFormat(decimal=",", thousands=".", unit="€")
    >>> [euros.plain_number(text) for text in ("1.234,50 €", "(€ 7)", "1.23,5", "n/a")]
    ['1234.50', '-7.0', '1.23,5', 'n/a']
    """

    decimal: str = field(default=".", validator=in_((".", ",")))
    thousands: str = field(default="", validator=in_(("", ",", ".", " ", "'", "_")))
    unit: str = ""
    na_values: tuple[str, ...] = field(default=(), converter=tuple)
    date_format: str = ""
    sep: str = ""
    path: str = ""

    def __attrs_post_init__(self) -> None:
        if self.thousands == self.decimal:
            raise FieldError("thousands", f"and 'decimal' are both '{self.decimal}'")
        if self.path and (mistake := template_error(self.path)):
            raise FieldError("path", f"= '{self.path}' {mistake}")

    def values(self, cell: Any) -> Any:
        """Return a cell as photos or labels: a list if `sep` divides it.

        >>> form = ColumnFormat(sep=";")
        >>> form.values("a.png; b.png"), form.values("c.png"), form.values(["d.png"])
        (['a.png', 'b.png'], 'c.png', ['d.png'])
        """
        if not isinstance(cell, str) or not self.sep or cell.startswith("data:"):
            return cell
        parts = [part.strip() for part in cell.split(self.sep) if part.strip()]
        return parts[0] if len(parts) == 1 else parts or None

    @property
    def writes_numbers(self) -> bool:
        """Whether numbers are written otherwise than Python writes them."""
        return (self.decimal, self.thousands, self.unit) != (".", "", "")

    def plain_number(self, text: str) -> str:
        """Write the number of a cell as Python does; other texts are returned as they are."""
        found = _number_pattern(self.decimal, self.thousands, self.unit).fullmatch(text)
        if found is None or not (found["whole"] or found["fraction"]):
            return text
        sign = "-" if found["open"] or found["minus"] or found["inner_minus"] else ""
        whole = re.sub("[^0-9]", "", found["whole"])
        return f"{sign}{whole}.{found['fraction'] or 0}{found['exponent'] or ''}"


@lru_cache
def _number_pattern(decimal: str, thousands: str, unit: str) -> re.Pattern[str]:
    # A blank between thousands may be any, such as a narrow one that does not break a line.
    between = {" ": r"\s", "'": "['’]"}.get(thousands, re.escape(thousands))
    grouped = rf"[0-9]{{1,3}}(?:{between}[0-9]{{3}})+|" if thousands else ""
    beside = rf"\s*(?:{re.escape(unit)})?\s*" if unit else r"\s*"
    return re.compile(
        rf"\s*(?:(?P<minus>[-−])|\+|(?P<open>\())?{beside}(?P<inner_minus>-)?"
        rf"(?P<whole>{grouped}[0-9]*)(?:{re.escape(decimal)}(?P<fraction>[0-9]*))?"
        rf"(?P<exponent>[eE][-+]?[0-9]+)?{beside}(?(open)\))\s*"
    )
