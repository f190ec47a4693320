"""Excel workbooks: the first sheet, whose first row, below any titles, names the columns."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mip.data.checks import check_same_columns, check_unique
from mip.data.csv_format import MAX_TITLES, count_titles
from mip.errors import DataError, FileError, MipWarning, quote

if TYPE_CHECKING:
    import pandas as pd


def read_excel(files: Sequence[Path], name: str) -> pd.DataFrame:
    """Read the first sheets of workbooks that have the same columns. Cells keep their types:
    numbers, texts, dates; an empty row is no row. Titles above the names of the columns
    (`mip.data.csv_format.count_titles`) are left out, and cells that are merged with one above are
    blank, both with a MipWarning.

    Raises FileError without the extra `excel`, and DataError for formulas without values.
    """
    import pandas as pd

    frames = [_read_file(file) for file in files]
    check_same_columns(name, files, [dict.fromkeys(frame.columns, "any") for frame in frames])
    return pd.concat(frames, ignore_index=True)


def _read_file(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        cells = pd.read_excel(path, header=None, dtype=object, engine="openpyxl", na_filter=False)
        sheet = _first_sheet(path) if _has_formulas_or_merges(path) else None
    except ImportError as error:
        cure = "pip install 'mixed-input-pipelines[excel]'"
        raise FileError(f"{path.name}: workbooks need openpyxl: {cure}") from error
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path.name}: not a readable workbook: {error}") from error
    rows = _without_titles(path, cells[(cells != "").any(axis=1)])
    if rows.empty:
        raise DataError(f"{path.name}: the first sheet is empty")
    header = [str(cell).strip() for cell in rows.iloc[0]]
    try:
        check_unique(header, "in the first row")
    except ValueError as error:
        raise DataError(f"{path.name}: not a readable workbook: {error}") from error
    if sheet:
        _check_formulas(path, sheet, cells)
        _warn_of_merged(path, sheet, header, first_row=rows.index[0] + 2)
    frame = rows.iloc[1:].set_axis(header, axis=1).replace("", None)
    return frame.reset_index(drop=True).infer_objects()


def _without_titles(path: Path, rows: pd.DataFrame) -> pd.DataFrame:
    top = [[str(cell) for cell in row] for row in rows.head(MAX_TITLES).to_numpy()]
    n_titles = count_titles(top, len(rows.columns))
    if n_titles:
        titles = ", ".join(quote(" ".join(filter(None, row)), 40) for row in top[:n_titles])
        text = f"{path.name}: left out what is above the names of the columns: {titles}"
        warnings.warn(text, MipWarning, stacklevel=7)
    return rows.iloc[n_titles:]


def _has_formulas_or_merges(path: Path) -> bool:
    # Only openpyxl's slow way of reading knows of them, which most workbooks need not go.
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.startswith("xl/worksheets/")]
        return any(re.search(rb"<f[ >]|<mergeCell ", archive.read(name)) for name in names)


def _first_sheet(path: Path) -> Any:
    import pandas as pd

    options = {"read_only": False, "data_only": False}
    with pd.ExcelFile(path, engine="openpyxl", engine_kwargs=options) as file:
        return file.book.worksheets[0]


def _check_formulas(path: Path, sheet: Any, cells: pd.DataFrame) -> None:
    """Raise DataError if no formula has a value, as where a program has written the workbook."""
    formulas = [cell for row in sheet.iter_rows() for cell in row if cell.data_type == "f"]
    values = [cells.iat[cell.row - 1, cell.column - 1] for cell in formulas]
    if formulas and not any(value != "" for value in values):
        several, first = len(formulas) > 1, formulas[0].coordinate
        count = f"{len(formulas)} formulas, such as {first}, have" if several else f"{first} has"
        cure = "open the file in a spreadsheet program, such as Excel or LibreOffice, and save it"
        raise DataError(f"{path.name}: {count} no value, as no program has computed it: {cure}")


def _warn_of_merged(path: Path, sheet: Any, header: Sequence[str], first_row: int) -> None:
    """Warn of the blanks of each column that are cells merged with one above; rows count from 1."""
    areas = [area for area in sheet.merged_cells.ranges if area.min_row >= first_row]
    for column, name in enumerate(header, start=1):
        tall = [area for area in areas if area.min_col <= column <= area.max_col]
        n_blanks = sum(area.max_row - area.min_row for area in tall)
        if n_blanks:
            first = min(tall, key=lambda area: area.min_row)
            cure = f"unmerge them and fill down, or frame[{name!r}] = frame[{name!r}].ffill()"
            cells = f"{n_blanks} blank cell{'s are' if n_blanks > 1 else ' is'}"
            text = f"column {name!r}: {cells} merged with one above ({first})"
            warnings.warn(f"{path.name}, {text}; {cure}", MipWarning, stacklevel=7)
