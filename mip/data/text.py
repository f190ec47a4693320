"""CSV and JSON lines: cells as their text stands, or as JSON types them."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolz import partition_all

from mip.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


CHUNK = 50_000
"""So many rows of a CSV are held as Python's own texts, which take ten times the space."""


# CSV.


def read_csv(path: Path) -> pd.DataFrame:
    """Read a CSV or TSV file, every cell as text."""
    import pandas as pd

    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = _lines(file, "\t" if path.suffix.lower() == ".tsv" else ",")
            header = next(lines, None)
            if header is None:
                raise ValueError("it is empty")
            check_unique(header, "in the header")
            chunks = partition_all(CHUNK, _fitting(lines, len(header)))
            empty = pd.DataFrame(columns=header, dtype=str)
            frames = [pd.DataFrame(rows, columns=header, dtype=str) for rows in chunks]
            return pd.concat(frames or [empty], ignore_index=True)
    except ValueError as error:
        raise DataError(f"{path.name}: not a readable CSV table: {error}") from error


def _lines(file: Any, separator: str) -> Iterator[list[str]]:
    reader = csv.reader(file, delimiter=separator, strict=True)
    try:
        yield from filter(None, reader)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error


def _fitting(lines: Iterator[list[str]], width: int) -> Iterator[list[str]]:
    for row, cells in enumerate(lines):
        if len(cells) != width:
            raise ValueError(f"row {row} has {len(cells)} cells, and the header {width}")
        yield cells


def check_unique(names: Sequence[str], where: str) -> None:
    """Raise ValueError for a name that stands twice."""
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"the column '{name}' stands twice {where}")


# JSON lines.


def read_json_lines(files: Sequence[Path]) -> pd.DataFrame:
    """Read JSON lines, one object a row."""
    import pandas as pd

    rows = [row for file in files for row in _json_lines(file)]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    try:
        cells = {name: pd.Series([row.get(name) for row in rows], dtype=object) for name in columns}
        return pd.DataFrame(cells)
    except ValueError as error:  # half of a surrogate pair in a name
        raise DataError(f"{files[0].name}: not a readable table: {error}") from error


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    row = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _object(line, f"{path.name} line {number}", f"{path.name} row {row}")
                row += 1


def _object(line: bytes, where: str, row: str) -> dict[str, Any]:
    try:
        found = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_pairs)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{where}: not an object: {line[:40].decode(errors='replace').strip()}")
    for column, cell in found.items():
        if _holds_object(cell):
            raise DataError(f"{row}, column '{column}': an object within a cell cannot be read")
    return found


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    check_unique([name for name, _ in pairs], "in one object")
    return dict(pairs)


def _holds_object(cell: Any) -> bool:
    return isinstance(cell, dict) or (isinstance(cell, list) and any(map(_holds_object, cell)))
