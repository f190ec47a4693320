"""CSV and TSV files, every cell as text.

Python's parser says what a file means, and what is wrong with it. A file without quotes is nothing
but lines and separators: Arrow, if it is installed, divides it in a fifth of the time, and what it
refuses is left to Python.
"""

from __future__ import annotations

import codecs
import re
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve
from toolz import partition_all

from mip.data.checks import check_same_columns, check_unique
from mip.data.csv_format import (
    MAX_CELL,
    PLAIN,
    CsvFormat,
    declared_separator,
    parse_lines,
    sniff_csv,
)
from mip.data.encodings import BLOCK_BYTES, certain_encoding, find_encoding, unknown_encoding
from mip.errors import DataError, MipWarning, quote

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

CHUNK_ROWS = 2_000
"""Rows held as Python strings at a time: these take ten times the memory of a frame."""


_SKIP = "if it is a title: data.format.skip_rows, or mip new --skip-rows, skips the lines above"


def read_csv(files: Sequence[Path], name: str, form: CsvFormat = PLAIN) -> pd.DataFrame:
    """Read CSV or TSV files that have the same columns. Blanks around the names of columns are no
    part of these.
    """
    import pandas as pd

    frames = [_read_file(file, form) for file in files]
    check_same_columns(name, files, [dict.fromkeys(frame.columns, "text") for frame in frames])
    return pd.concat(frames, ignore_index=True)


def _read_file(path: Path, form: CsvFormat) -> pd.DataFrame:
    try:
        form = _form_of(path, form)
        encoding = "utf-8-sig" if form.encoding == "utf-8" else form.encoding
        with path.open(newline="", encoding=encoding) as file:
            lines = parse_lines(islice(file, form.skip_rows, None), form.separator(path))
            header = list(form.names) if form.names else next(lines, None)
            if header is None:
                raise ValueError("the file is empty")
            header = [name.strip() for name in header]
            check_unique(header, "in the header")
            if len(header) == 1 and not form.sep and sniff_csv(path, encoding=form.encoding).sep:
                raise ValueError(f"the header has one name, {quote(header[0])}")
            frame = _read_unquoted(path, form, header)
            return _read_lines(lines, header) if frame is None else frame
    except ValueError as error:
        why = _explain(path, form, error)
        raise DataError(f"{path.name}: not a readable CSV table: {why}") from error


def _form_of(path: Path, form: CsvFormat) -> CsvFormat:
    """Return the format of a file, with what it surely says itself: its encoding, and a first line
    such as `sep=;`, which is no row.
    """
    form = evolve(form, encoding=_encoding_of(path, form))
    declared = declared_separator(path, form.encoding)
    if not declared:
        return form
    return evolve(form, sep=form.sep or declared, skip_rows=max(form.skip_rows, 1))


def _encoding_of(path: Path, form: CsvFormat) -> str:
    """Return the encoding of a file: that of the format, unless it is surely another."""
    is_unicode = codecs.lookup(form.encoding).name.startswith("utf")
    found = None if is_unicode else certain_encoding(path)
    if found is None:
        return form.encoding
    text = f"{path.name}: is in {found}, and read so, though data.format.encoding"
    warnings.warn(f"{text} = '{form.encoding}'", MipWarning, stacklevel=4)
    return found


def _explain(path: Path, form: CsvFormat, error: ValueError) -> str:
    """Say what is wrong with a file, and how it seems to be written, if otherwise than it is read:
    that is only looked at now.
    """
    if isinstance(error, UnicodeDecodeError):
        line, byte = _first_undecodable_line(path, form.encoding), error.object[error.start]
        why = f"line {line} has a byte 0x{byte:02x}, which is not {form.encoding}"
        return why + _encoding_cure(path, form)
    if isinstance(error, UnicodeError):
        return str(error) + _encoding_cure(path, form)
    found, why = sniff_csv(path, form.names, encoding=form.encoding), str(error)
    cure = _layout_cure(path, form, found)
    is_title = not cure and re.fullmatch(r"row 0 .* the header has 1", why)
    return why + cure + (f"; {_SKIP}" if is_title else "")


def _encoding_cure(path: Path, form: CsvFormat) -> str:
    found = find_encoding(path)
    if found is None:
        return f"; it {unknown_encoding(path)}"
    cure = f"; it seems to be {found}: data.format.encoding = '{found}'"
    return cure if found != form.encoding else ""


def _layout_cure(path: Path, form: CsvFormat, found: CsvFormat) -> str:
    separator = found.separator(path)
    if separator != form.separator(path):
        return f"; it seems to be separated by {separator!r}: data.format.sep = {separator!r}"
    if found.skip_rows != form.skip_rows and found.skip_rows:
        cure = f"data.format.skip_rows = {found.skip_rows}"
        return f"; its table seems to begin below line {found.skip_rows}: {cure}"
    return ""


def _read_unquoted(path: Path, form: CsvFormat, header: Sequence[str]) -> pd.DataFrame | None:
    """Read a file in UTF-8 that has no quote; None for another, or if Arrow cannot."""
    sep = form.separator(path)
    is_plain = form.encoding == PLAIN.encoding and len(sep) == 1 and sep.isascii()
    if not is_plain or _has_quote(path):
        return None
    try:
        import pandas as pd
        import pyarrow as pa
    except ImportError:
        return None
    columns = _divide(path, form, len(header))
    if columns is None:
        return None
    # Pieces would be joined whenever rows are taken. Only one column at a time is there twice.
    whole = {name: columns.pop(0).combine_chunks() for name in header}
    text = pd.StringDtype(na_value=float("nan"))
    return pa.table(whole).to_pandas(types_mapper={pa.large_string(): text}.get)


def _has_quote(path: Path) -> bool:
    with path.open("rb") as file:
        return any(b'"' in block for block in iter(partial(file.read, BLOCK_BYTES), b""))


def _divide(path: Path, form: CsvFormat, width: int) -> list[pa.ChunkedArray] | None:
    """Divide a file without quotes into columns of texts; None if Arrow cannot."""
    import pyarrow as pa
    from pyarrow import compute
    from pyarrow import csv as arrow_csv

    types = {str(k): pa.large_string() for k in range(width)}
    try:
        table = arrow_csv.read_csv(
            path,
            arrow_csv.ReadOptions(
                use_threads=False, column_names=[*types], skip_rows=form.skip_rows
            ),
            arrow_csv.ParseOptions(delimiter=form.separator(path), quote_char=False),
            arrow_csv.ConvertOptions(column_types=types, strings_can_be_null=False),
        )
    except pa.ArrowInvalid:
        return None
    lengths = [compute.max(compute.binary_length(cells)).as_py() or 0 for cells in table.columns]
    return table.slice(0 if form.names else 1).columns if max(lengths) <= MAX_CELL else None


def _read_lines(lines: Iterator[list[str]], header: list[str]) -> pd.DataFrame:
    import pandas as pd

    chunks = partition_all(CHUNK_ROWS, _check_widths(lines, len(header)))
    frames = [pd.DataFrame(rows, columns=header, dtype=str) for rows in chunks]
    empty = pd.DataFrame(columns=header, dtype=str)
    return pd.concat(frames or [empty], ignore_index=True)


def _first_undecodable_line(path: Path, encoding: str) -> int:
    try:
        path.read_bytes().decode(encoding)
    except UnicodeDecodeError as error:
        return error.object[: error.start].count(b"\n") + 1
    return 1


def _check_widths(lines: Iterator[list[str]], width: int) -> Iterator[list[str]]:
    for row, cells in enumerate(lines):
        if len(cells) != width:
            count = f"{len(cells)} cell{'s' * (len(cells) > 1)}"
            raise ValueError(f"row {row} has {count}, but the header has {width}")
        yield cells
