"""How a CSV file is written: separator, encoding, names of columns, and the lines above them."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise, takewhile
from pathlib import Path

from attrs import field, frozen

from mip.data.cells import parse_number
from mip.data.encodings import UTF_8, WESTERN, encoding_error, foreign_word, known_encoding
from mip.data.table import Table
from mip.errors import DataError, FieldError, list_first, quote

SEPARATORS = (",", ";", "\t", "|")
"""The separators that are recognised, the likeliest first."""


WHITESPACE = "whitespace"
"""The separator of columns that blanks and tabs divide, one or more."""


SAMPLE_LINES = 1000
"""The lines by which the separator is recognised, and by which names are told from cells."""


MAX_TITLES = 50
"""The lines above the names of the columns among which titles are looked for."""


MAX_CELL = min(sys.maxsize, 2**31 - 1)
"""The characters of the longest cell: a photo in base64 has more than Python's 131,072."""


_DECLARED = re.compile(r"\ufeff?\"?sep=(.)\"?\s*", re.IGNORECASE)


def _as_tuple(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(names)


@frozen
class CsvFormat:
    """How a CSV file is written: the separator `sep` (one character, or "whitespace" for any number
    of blanks; "" is what a first line such as `sep=;` says, or a tab in a `.tsv` file and a comma
    in others), the `encoding`, which is a name of Python's codecs, the `names` of the columns if
    its first line is a row, and how many lines above the table to skip (`skip_rows`). UTF-8 may
    begin with a byte order mark.
    """

    sep: str = ""
    encoding: str = UTF_8
    names: tuple[str, ...] = field(default=(), converter=_as_tuple)
    skip_rows: int = 0

    def __attrs_post_init__(self) -> None:
        if self.sep != WHITESPACE and (len(self.sep) > 1 or self.sep in {'"', "\n", "\r"}):
            what = f'one character, and no quote, or "{WHITESPACE}"'
            raise FieldError("sep", f"must be {what}: {self.sep!r}")
        if mistake := encoding_error(self.encoding):
            raise FieldError("encoding", mistake)
        if self.skip_rows < 0:
            raise FieldError("skip_rows", f"must be 0 or more: {self.skip_rows}")

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
    >>> list(parse_lines([" a   b\n", '"1 5" \t2 \n'], "whitespace"))
    [['a', 'b'], ['1 5', '2']]
    """
    csv.field_size_limit(MAX_CELL)
    if separator == WHITESPACE:
        blanks = (f"{line.strip()}\n".replace("\t", " ") for line in lines)
        reader = csv.reader(blanks, delimiter=" ", skipinitialspace=True, strict=strict)
    else:
        reader = csv.reader(lines, delimiter=separator, strict=strict)
    try:
        yield from filter(None, reader)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error


def sniff_csv(
    path: str | Path,
    names: Sequence[str] = (),
    sep: str = "",
    encoding: str = "",
    skip_rows: int | None = None,
) -> CsvFormat:
    """Recognise how a CSV file is written; any other file, and several, are of the plain form.
    What is given is not looked for.

    The encoding is UTF-8 or UTF-16, by its mark or its bytes, or else cp1252, that of Western
    Windows. The separator is the one of `SEPARATORS` that divides each of the first lines into
    equally many cells, two at least: the most if several do; or else blanks, if they divide every
    line so, and one of the columns has only numbers. Lines above the table have half as many cells
    as it has columns, or fewer (`count_titles`).

    Raises DataError for a file that looks like no text in these encodings, naming likely ones.
    """
    path, given = Path(path), CsvFormat(sep, encoding or UTF_8, names, skip_rows or 0)
    if path.suffix.lower() not in {".csv", ".tsv"} or not path.is_file():
        return given
    encoding = encoding or known_encoding(path)
    try:
        return _recognise(path, names, sep, encoding, skip_rows)
    except UnicodeError as error:  # no mark of UTF-16
        raise DataError(f"{path.name}: is not in {encoding}: {error}") from error


def _recognise(
    path: Path, names: Sequence[str], sep: str, encoding: str, skip_rows: int | None
) -> CsvFormat:
    default = PLAIN.separator(path)
    known = sep or declared_separator(path, encoding)
    likely = [known] if known else sorted(SEPARATORS, key=lambda each: each != default)
    layouts = {each: _layout(path, encoding, each, skip_rows, not names) for each in likely}
    best = max(likely, key=lambda each: _rank(layouts[each]))  # the first of equals
    if layouts[best][0] == 1 and not known:
        layouts[WHITESPACE] = _layout(path, encoding, WHITESPACE, skip_rows, not names)
        if _has_numbers(_sample(path, encoding, WHITESPACE, layouts[WHITESPACE][1])):
            best = WHITESPACE
    return CsvFormat("" if best == default else best, encoding, names, layouts[best][1])


def declared_separator(path: Path, encoding: str) -> str:
    """Return what a first line such as `sep=;` says, which Excel writes and reads; "" without."""
    with path.open(newline="", encoding=encoding, errors="replace") as file:
        found = _DECLARED.fullmatch(file.readline(20))
    return found[1] if found else ""


def _sample(path: Path, encoding: str, sep: str, skip_rows: int) -> list[list[str]]:
    """Parse the first lines of a file, as far as they are CSV."""
    with path.open(newline="", encoding=encoding, errors="replace") as file:
        lines = parse_lines(islice(file, skip_rows, None), sep, strict=False)
        try:
            return list(islice(lines, SAMPLE_LINES))
        except ValueError:
            return []


def _layout(
    path: Path, encoding: str, sep: str, skip_rows: int | None, has_header: bool
) -> tuple[int, int]:
    """Return into how many cells a separator divides the first lines of the table, 1 if into
    different ones, and how many lines are above it.
    """
    if skip_rows is not None:
        return _width(_sample(path, encoding, sep, skip_rows)), skip_rows
    is_declared = bool(declared_separator(path, encoding))
    with path.open(newline="", encoding=encoding, errors="replace") as file:
        top = list(islice(file, int(is_declared), MAX_TITLES))
    cells = [next(parse_lines([line], sep, strict=False), []) for line in top]
    whole = _sample(path, encoding, sep, int(is_declared))
    n_titles = count_titles(cells, len(whole[-1]) if whole else 1, has_header)
    if n_titles:
        rows = _sample(path, encoding, sep, n_titles + is_declared)
        if len(rows) > 1 and _width(rows) > 1:
            return _width(rows), n_titles + is_declared
    return _width(whole), 0


def _width(rows: Sequence[Sequence[str]]) -> int:
    widths = {len(row) for row in rows}
    return widths.pop() if len(widths) == 1 else 1


def _rank(layout: tuple[int, int]) -> tuple[bool, int]:
    width, n_skipped = layout
    return width > 1 and not n_skipped, width


def count_titles(rows: Sequence[Sequence[str]], width: int, has_header: bool = True) -> int:
    """Count the first rows of a sheet that are above the names of its columns: a title, a blank
    row, a comment (`# …`). They have cells for half of the columns at most, and the names of all
    columns follow, which are different. 0 if that is not certain.

    >>> count_titles([["Sales 2024"], [], ["town", "year", "price"], ["Ulm", "2023", "3"]], 3)
    2
    >>> count_titles([["mpg"], ["Mazda", "21"], ["Fiat", "32"]], 2)  # names, but none for the first
    0
    """

    def is_title(pair: tuple[Sequence[str], Sequence[str]]) -> bool:
        row, next_row = pair
        n_cells = sum(bool(cell.strip()) for cell in row)
        may_be_padded = has_header and width > 2
        if _is_comment(row):  # the last of several may have the names
            return len(row) != width or _is_comment(next_row)
        return n_cells <= width // 2 and (len(row) < width or may_be_padded)

    n_titles = sum(1 for _ in takewhile(is_title, pairwise(rows)))
    header = [cell.strip() for cell in rows[n_titles]] if n_titles < len(rows) else []
    if not has_header:
        return n_titles if len(header) == width else 0
    are_names = len(header) == width == len({*header}) and all(header)
    may_be_row = width == 2 and any(map(_is_number, header))
    return n_titles if are_names and not may_be_row else 0


def _is_comment(row: Sequence[str]) -> bool:
    return bool(row) and row[0].lstrip().startswith("#")


def _has_numbers(rows: Sequence[Sequence[str]]) -> bool:
    """Whether rows are all as wide as their header, and numbers in one of the columns."""
    cells = zip(*rows[1:], strict=True) if _width(rows) > 1 else ()
    return any(all(map(_is_number, column)) and column for column in cells)


def csv_remarks(form: CsvFormat, path: Path) -> list[str]:
    """Describe how a file is written, in a line, if it is not the plain form.

    >>> csv_remarks(CsvFormat(";", "utf-16"), Path("t.csv"))
    ["t.csv: read with sep = ';', encoding = 'utf-16'"]
    """
    parts = [f"sep = {form.sep!r}"] if form.sep else []
    if form.encoding != PLAIN.encoding:
        is_guess = form.encoding == WESTERN and path.is_file()
        word = foreign_word(path, form.encoding) if is_guess else ""
        parts.append(f"encoding = {form.encoding!r}" + (f" ({quote(word, 40)})" if word else ""))
    if form.skip_rows:
        parts.append(f"skip_rows = {form.skip_rows}{_skipped(path, form)}")
    return [f"{path.name}: read with {', '.join(parts)}"] if parts else []


def _skipped(path: Path, form: CsvFormat) -> str:
    if not path.is_file():
        return ""
    with path.open(encoding=form.encoding, errors="replace") as file:
        lines = filter(None, map(str.strip, islice(file, form.skip_rows)))
        return f" (above the names of the columns: {', '.join(quote(x, 40) for x in lines)})"


def check_header(table: Table) -> None:
    """Raise DataError if the names of a table's columns look like a row: one is a number with a
    fraction, and every word among them is also found in its own column. Also if the only name has
    several blanks in a row, as where columns are aligned by blanks.

    >>> from mip.data import from_columns
    >>> check_header(from_columns({"5.1": ["4.9"], "iris": ["iris"]}))
    Traceback (most recent call last):
    mip.errors.DataError: table: the first line looks like a row: 5.1, iris; give the names of the \
columns: --names A,B
    >>> check_header(from_columns({"2019": ["4.9"], "2020": ["5.1"], "iris": ["iris"]}))
    """
    if len(table.columns) == 1 and len(found := re.split(r"\s{2,}", table.columns[0])) > 1:
        shown = ", ".join(map(quote, found[:8]))
        cure = "blanks align the columns, but also divide cells or replace them: save it as CSV"
        raise DataError(f"{table.name}: one column, with the names {shown}; {cure}")
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
