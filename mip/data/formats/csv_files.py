"""CSV and TSV files, every cell as text.

The only parser is Python's, so the rows that are counted are the rows that are read.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from toolz import partition_all

from mip.data.checks import check_same_columns, check_unique
from mip.data.csv_format import PLAIN, CsvFormat, sniff_csv
from mip.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

CHUNK_ROWS = 2_000
"""Rows held as Python strings at a time: these take ten times the memory of a frame."""


def read_csv(files: Sequence[Path], name: str, form: CsvFormat = PLAIN) -> pd.DataFrame:
    """Read CSV or TSV files that have the same columns. Blanks around the names of columns are no
    part of these.
    """
    import pandas as pd

    frames = [_read_file(file, form) for file in files]
    check_same_columns(name, files, [dict.fromkeys(frame.columns, "text") for frame in frames])
    return pd.concat(frames, ignore_index=True)


def _read_file(path: Path, form: CsvFormat) -> pd.DataFrame:
    import pandas as pd

    encoding = "utf-8-sig" if form.encoding == "utf-8" else form.encoding
    try:
        with path.open(newline="", encoding=encoding) as file:
            lines = _parse(file, form.separator(path))
            header = list(form.names) if form.names else next(lines, None)
            if header is None:
                raise ValueError("the file is empty")
            header = [name.strip() for name in header]
            check_unique(header, "in the header")
            chunks = partition_all(CHUNK_ROWS, _check_widths(lines, len(header)))
            frames = [pd.DataFrame(rows, columns=header, dtype=str) for rows in chunks]
            empty = pd.DataFrame(columns=header, dtype=str)
            return pd.concat(frames or [empty], ignore_index=True)
    except ValueError as error:
        cure = _cure(path, form, error)
        raise DataError(f"{path.name}: not a readable CSV table: {error}{cure}") from error


def _cure(path: Path, form: CsvFormat, error: ValueError) -> str:
    # What the file is like is only looked at when it cannot be read as it should be.
    found = sniff_csv(path)
    if isinstance(error, UnicodeError) and found.encoding != form.encoding:
        return f"; it seems to be {found.encoding}: data.format.encoding = '{found.encoding}'"
    if found.separator(path) != form.separator(path):
        return f"; it seems to be separated by {found.separator(path)!r}: data.format.sep"
    return ""


def _parse(file: TextIO, separator: str) -> Iterator[list[str]]:
    reader = csv.reader(file, delimiter=separator, strict=True)
    try:
        yield from filter(None, reader)  # blank lines are no rows
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error


def _check_widths(lines: Iterator[list[str]], width: int) -> Iterator[list[str]]:
    for row, cells in enumerate(lines):
        if len(cells) != width:
            raise ValueError(f"row {row} has {len(cells)} cells, but the header has {width}")
        yield cells
