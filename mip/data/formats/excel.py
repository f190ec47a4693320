"""Excel workbooks: the first sheet, whose first row names the columns."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mip.data.checks import check_same_columns, check_unique
from mip.errors import DataError, FileError

if TYPE_CHECKING:
    import pandas as pd


def read_excel(files: Sequence[Path], name: str) -> pd.DataFrame:
    """Read the first sheets of workbooks that have the same columns. Cells keep their types:
    numbers, texts, dates; an empty row is no row.

    Raises FileError without the extra `excel`.
    """
    import pandas as pd

    frames = [_read_file(file) for file in files]
    check_same_columns(name, files, [dict.fromkeys(frame.columns, "any") for frame in frames])
    return pd.concat(frames, ignore_index=True)


def _read_file(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        cells = pd.read_excel(path, header=None, dtype=object, engine="openpyxl", na_filter=False)
    except ImportError as error:
        cure = "pip install 'mixed-input-pipelines[excel]'"
        raise FileError(f"{path.name}: workbooks need openpyxl: {cure}") from error
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path.name}: not a readable workbook: {error}") from error
    rows = cells[(cells != "").any(axis=1)]
    if rows.empty:
        raise DataError(f"{path.name}: the first sheet is empty")
    header = [str(cell).strip() for cell in rows.iloc[0]]
    try:
        check_unique(header, "in the first row")
    except ValueError as error:
        raise DataError(f"{path.name}: not a readable workbook: {error}") from error
    frame = rows.iloc[1:].set_axis(header, axis=1).replace("", None)
    return frame.reset_index(drop=True).infer_objects()
