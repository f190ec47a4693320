"""JSON lines: one object per row, whose cells keep their JSON types, lists included.

The values of an object inside a row are cells of their own, in columns such as "size.w", as
pandas.json_normalize has them; one that is a photo stays as it is, and so do lists of objects.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mip.data.cells import IMAGE_SUFFIXES, is_image
from mip.data.checks import check_unique
from mip.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


def read_json_lines(files: Sequence[Path], name: str) -> pd.DataFrame:
    """Read JSON lines; a key that a row lacks is a missing cell, and so is null for an object."""
    import pandas as pd

    rows = [row for file in files for row in _read_file(file)]
    columns = _columns(rows)
    try:
        cells = {
            column: pd.Series([row.get(column) for row in rows], dtype=object) for column in columns
        }
        return pd.DataFrame(cells)
    except ValueError as error:  # half of a surrogate pair in a name
        raise DataError(f"{name}: not a readable table: {error}") from error


def _read_file(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _parse(line, f"{path.name} line {number}")


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        cells = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON: {error}") from error
    if not isinstance(cells, dict):
        raise DataError(f"{where}: not an object: {line[:40].decode(errors='replace').strip()}")
    flat = list(_flatten(cells))
    try:
        check_unique([name for name, _ in flat], "in one object")
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    return dict(flat)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    check_unique([name for name, _ in pairs], "in one object")
    return dict(pairs)


def _flatten(cells: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Iterate over the names and values of an object and of the objects in it.

    >>> list(_flatten({"size": {"w": 3}, "photo": {"src": "a.jpg"}, "tags": [{"id": 1}]}))
    [('size.w', 3), ('photo', {'src': 'a.jpg'}), ('tags', [{'id': 1}])]
    """
    for name, cell in cells.items():
        if isinstance(cell, dict) and not _is_photo(cell):
            yield from ((f"{name}.{inner}", value) for inner, value in _flatten(cell))
        else:
            yield name, cell


def _is_photo(cell: Mapping[str, Any]) -> bool:
    texts = [value.strip().lower() for value in cell.values() if isinstance(value, str)]
    named = any(text.endswith(IMAGE_SUFFIXES) or text.startswith("data:image/") for text in texts)
    return is_image(cell) or named


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """List the columns of rows; one that is null wherever it is no object is none."""
    names = dict.fromkeys(column for row in rows for column in row)
    objects = {name[:k] for name in names for k, char in enumerate(name) if char == "."}
    null = {name for name in objects & names.keys() if all(row.get(name) is None for row in rows)}
    return [name for name in names if name not in null]
