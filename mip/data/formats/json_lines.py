"""JSON lines: one object per row, whose cells keep their JSON types, lists included."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mip.data.checks import check_unique
from mip.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


def read_json_lines(files: Sequence[Path], name: str) -> pd.DataFrame:
    """Read JSON lines; a key that a row lacks is a missing cell."""
    import pandas as pd

    rows = [row for file in files for row in _read_file(file)]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    try:
        cells = {
            column: pd.Series([row.get(column) for row in rows], dtype=object) for column in columns
        }
        return pd.DataFrame(cells)
    except ValueError as error:  # half of a surrogate pair in a name
        raise DataError(f"{name}: not a readable table: {error}") from error


def _read_file(path: Path) -> Iterator[dict[str, Any]]:
    row = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _parse(line, f"{path.name} line {number}", f"{path.name} row {row}")
                row += 1


def _parse(line: bytes, where: str, row: str) -> dict[str, Any]:
    try:
        cells = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON: {error}") from error
    if not isinstance(cells, dict):
        raise DataError(f"{where}: not an object: {line[:40].decode(errors='replace').strip()}")
    for column, cell in cells.items():
        if _holds_object(cell):
            raise DataError(f"{row}, column '{column}': objects inside a cell are not supported")
    return cells


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    check_unique([name for name, _ in pairs], "in one object")
    return dict(pairs)


def _holds_object(cell: Any) -> bool:
    return isinstance(cell, dict) or (isinstance(cell, list) and any(map(_holds_object, cell)))
