"""How a CSV file is written: its separator, its encoding, the names of its columns."""

from __future__ import annotations

import codecs
import csv
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path

from attrs import field, frozen

from mip.data.cells import parse_number
from mip.data.table import Table
from mip.errors import DataError, FieldError, list_first

SEPARATORS = (",", ";", "\t", "|")
"""The separators that are recognised, the likeliest first."""


SAMPLE_LINES = 1000
"""The lines by which the separator is recognised, and by which names are told from cells."""


BLOCK_BYTES = 1 << 20
"""The bytes that are decoded at a time to recognise the encoding."""


MAX_CELL = min(sys.maxsize, 2**31 - 1)
"""The characters of the longest cell: a photo in base64 has more than Python's 131,072."""


def _as_tuple(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(names)


@frozen
class CsvFormat:
    """How a CSV file is written: the separator `sep` (one character; "" is a tab in a `.tsv` file
    and a comma in others), the `encoding`, which is a name of Python's codecs, and the `names` of
    the columns if its first line is a row. UTF-8 may begin with a byte order mark.
    """

    sep: str = ""
    encoding: str = "utf-8"
    names: tuple[str, ...] = field(default=(), converter=_as_tuple)

    def __attrs_post_init__(self) -> None:
        if len(self.sep) > 1 or self.sep in {'"', "\n", "\r"}:
            raise FieldError("sep", f"must be one character, and no quote: {self.sep!r}")
        try:
            codecs.lookup(self.encoding)
        except (LookupError, ValueError) as error:
            raise FieldError("encoding", f"= '{self.encoding}' is no encoding of Python") from error

    def separator(self, path: Path) -> str:
        """Return the separator of a file."""
        return self.sep or ("\t" if path.suffix.lower() == ".tsv" else ",")


PLAIN = CsvFormat()
"""Commas, or tabs in a `.tsv` file, in UTF-8, with a header."""


def parse_lines(lines: Iterable[str], separator: str, strict: bool = True) -> Iterator[list[str]]:
    r"""Parse the lines of a CSV file; blank ones are no rows. Raises ValueError naming a line that
    is no CSV, which is read somehow if not `strict`.

    >>> list(parse_lines(["a,b\n", "\n", '"1,5",2\n'], ","))
    [['a', 'b'], ['1,5', '2']]
    """
    csv.field_size_limit(MAX_CELL)
    reader = csv.reader(lines, delimiter=separator, strict=strict)
    try:
        yield from filter(None, reader)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error


def sniff_csv(path: str | Path, names: Sequence[str] = ()) -> CsvFormat:
    """Recognise how a CSV file is written; any other file, and several, are of the plain form.

    The encoding is UTF-8 or UTF-16, by its mark or its bytes, or else cp1252, that of Western
    Windows. The separator is the one of `SEPARATORS` that divides each of the first lines into
    equally many cells, two at least: the most if several do. `names` are passed on.
    """
    path = Path(path)
    if path.suffix.lower() not in {".csv", ".tsv"} or not path.is_file():
        return CsvFormat(names=names)
    encoding = _encoding(path)
    default = PLAIN.separator(path)
    likely = sorted(SEPARATORS, key=lambda sep: sep != default)
    widths = {sep: _width(path, encoding, sep) for sep in likely}
    best = max(likely, key=lambda sep: widths[sep])  # the first of equals
    return CsvFormat("" if best == default else best, encoding, names)


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        sample = file.read(10_000)
        if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        if b"\0" in sample:  # ASCII in UTF-16 has a zero in every second place
            return "utf-16-le" if sample[1::2].count(0) > sample[::2].count(0) else "utf-16-be"
        blocks = chain([sample], iter(partial(file.read, BLOCK_BYTES), b""))
        try:
            deque(codecs.iterdecode(blocks, PLAIN.encoding), maxlen=0)
        except UnicodeDecodeError:
            return "cp1252"
    return PLAIN.encoding


def certain_encoding(path: Path) -> str | None:
    """Return the encoding of which the bytes of a file leave no doubt: UTF-16 with its mark, or
    UTF-8 with its mark or letters that ASCII lacks. None for another file.
    """
    with path.open("rb") as file:
        blocks = iter(partial(file.read, BLOCK_BYTES), b"")
        if all(map(bytes.isascii, blocks)):
            return None
    found = _encoding(path)
    return found if found in {PLAIN.encoding, "utf-16"} else None


def _width(path: Path, encoding: str, sep: str) -> int:
    """Return into how many cells a separator divides the first lines; 1 if into different ones."""
    with path.open(newline="", encoding=encoding, errors="replace") as file:
        try:
            lines = parse_lines(file, sep, strict=False)
            widths = {len(line) for line in islice(lines, SAMPLE_LINES)}
        except ValueError:
            return 1
    return widths.pop() if len(widths) == 1 else 1


def csv_remarks(form: CsvFormat, path: Path) -> list[str]:
    """Describe how a file is written, in a line, if it is not the plain form.

    >>> csv_remarks(CsvFormat(";", "cp1252"), Path("t.csv"))
    ["t.csv: read with sep = ';', encoding = 'cp1252'"]
    """
    parts = [f"sep = {form.sep!r}"] if form.sep else []
    parts += [f"encoding = {form.encoding!r}"] if form.encoding != PLAIN.encoding else []
    return [f"{path.name}: read with {', '.join(parts)}"] if parts else []


def check_header(table: Table) -> None:
    """Raise DataError if the names of a table's columns look like a row: one is a number with a
    fraction, and every word among them is also found in its own column.

    >>> from mip.data import from_columns
    >>> check_header(from_columns({"5.1": ["4.9"], "iris": ["iris"]}))
    Traceback (most recent call last):
    mip.errors.DataError: table: the first line looks like a row: 5.1, iris; give the names of the \
columns: --names A,B
    >>> check_header(from_columns({"2019": ["4.9"], "2020": ["5.1"], "iris": ["iris"]}))
    """
    rows = table.take(range(min(len(table), SAMPLE_LINES)))
    numbers = [name for name in table.columns if _is_number(name)]
    words = [name for name in table.columns if name not in numbers]
    has_fraction = any(not name.strip().isdecimal() for name in numbers)
    if has_fraction and all(name in rows.texts(name) for name in words):
        names = list_first(table.columns)
        letters = ",".join("ABCDEFGH"[: len(table.columns)])
        cure = f"give the names of the columns: --names {letters}"
        raise DataError(f"{table.name}: the first line looks like a row: {names}; {cure}")


def _is_number(text: str) -> bool:
    value = parse_number(text)
    return value is not None and value == value
