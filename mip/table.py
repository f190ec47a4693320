"""Tables: rows with their numbers, read from a file or a DataFrame."""

from __future__ import annotations

import csv
import hashlib
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from mip.errors import DataError, hint

if TYPE_CHECKING:
    import pandas as pd

BLANK = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "-", "<na>"})
"""What stands for a missing number, in lower case. A category keeps its words ("NA" too)."""

FLOAT32 = float(np.finfo(np.float32).max)
"""The largest number that a model can be given."""

_WHOLE = re.compile(r"[-+]?\d+\.0+")


@frozen(eq=False, repr=False)
class Table:
    """Rows of columns; image cells stay paths, relative to `root`.

    A table is a value: taking rows makes another. The frame's index holds each
    row's number in the file, counted from 0, and errors speak in these numbers.

    >>> import pandas as pd
    >>> rows = from_frame(pd.DataFrame({"area": [70, 95, 40], "town": ["Ulm", "Bonn", "Ulm"]}))
    >>> rows
    Table(table: 3 rows, columns area, town)
    >>> rows.take([2]).numbers("area")
    array([40.])
    """

    frame: pd.DataFrame
    name: str = "table"
    root: Path | None = None

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        return f"Table({self.name}: {len(self)} rows, columns {', '.join(self.columns)})"

    def __getitem__(self, column: str) -> pd.Series:
        if column not in self.frame.columns:
            known = hint(column, self.columns)
            raise DataError(f"{self.name}: there is no column '{column}'{known}")
        return self.frame[column]

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in the file's order."""
        return [str(name) for name in self.frame.columns]

    @property
    def rows(self) -> Tensor:
        """The number of each row in the file: int64 [n]."""
        return torch.from_numpy(self.frame.index.to_numpy(dtype=np.int64, copy=True))

    def take(self, index: Sequence[int] | Tensor | np.ndarray) -> Table:
        """Gather rows by their place in this table; row numbers stay those of the file."""
        return Table(self.frame.iloc[np.asarray(index, dtype=np.int64)], self.name, self.root)

    def where(self, place: int, column: str) -> str:
        """Name a cell for an error text: file, row number and column."""
        return f"{self.name} row {self.frame.index[place]}, column '{column}'"

    def numbers(self, column: str) -> np.ndarray:
        """Read a column as float64 [n]: NaN for blanks and for what float32 cannot hold (1e39,
        infinities); words are an error.
        """
        import pandas as pd

        cells = self[column]
        if pd.api.types.is_numeric_dtype(cells.dtype):
            values = cells.to_numpy(dtype=np.float64, na_value=np.nan)
        else:
            values = _parse(self, column, cells)
        return np.where(np.abs(values) <= FLOAT32, values, np.nan)

    def texts(self, column: str) -> np.ndarray:
        """Read a column as words, object [n]: a missing cell is '', a whole number has no '.0'.

        The same category reads the same from text, whole numbers and floats:

        >>> import pandas as pd
        >>> zips = pd.DataFrame({"a": ["85255", "3.0"], "b": [85255, 3], "c": [85255.0, None]})
        >>> [from_frame(zips).texts(name).tolist() for name in "abc"]
        [['85255', '3'], ['85255', '3'], ['85255', '']]
        """
        import pandas as pd

        uniques: Any
        cells = self[column]
        if cells.dtype == object:  # where equal keys can be different words: True, 1 and 1.0
            codes, uniques = np.where(cells.isna(), -1, np.arange(len(cells))), cells
        else:
            codes, uniques = pd.factorize(cells, use_na_sentinel=True)
        words = np.array([*map(_word, uniques), ""], dtype=object)
        return words[codes]


def _parse(table: Table, column: str, cells: pd.Series) -> np.ndarray:
    import pandas as pd

    # As objects, so that a date stays a date and does not turn into nanoseconds.
    known = pd.to_numeric(cells.astype(object), errors="coerce")
    values = known.to_numpy(dtype=np.float64, na_value=np.nan)
    for place in np.flatnonzero(np.isnan(values)):
        cell = cells.iloc[place]
        if pd.notna(cell) and str(cell).strip().lower() not in BLANK:
            where = table.where(int(place), column)
            raise DataError(f"{where}: {str(cell)[:40]!r} is not a number")
    return values


def _word(value: Any) -> str:
    text = str(int(value)) if _is_whole(value) else str(value).strip()
    return text[: text.index(".")] if _WHOLE.fullmatch(text) else text


def _is_whole(value: Any) -> bool:
    return isinstance(value, (float, np.floating)) and float(value).is_integer()


def read(path: str | Path) -> Table:
    """Read a table by its ending: `.csv`, `.tsv` or `.parquet`.

    Raises DataError when there is no such file, it is empty, or it is no table.
    """
    readers = {".csv": read_csv, ".tsv": read_csv, ".parquet": read_parquet}
    suffix = Path(path).suffix.lower()
    if suffix not in readers:
        raise DataError(f"{path}: a table ends in .csv, .tsv or .parquet{hint(suffix, readers)}")
    return readers[suffix](path)


def read_csv(path: str | Path) -> Table:
    """Read a CSV or TSV file, every cell as text: the spec says what each column means.

    So "00123" stays what it is, and "NA" is a category or a missing number by the kind that
    reads it. Raises DataError for a missing or empty file, a name that stands twice in the
    header, and rows that do not fit it.
    """
    import pandas as pd

    path = _present(path)
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            _check_cells(path, separator)
            frame = _read_text(path, separator)
    except (ValueError, pd.errors.ParserWarning, csv.Error) as error:
        raise DataError(f"{path.name}: not a readable CSV table: {error}") from error
    return _filled(Table(frame, path.name, path.parent))


def read_parquet(path: str | Path) -> Table:
    """Read one Parquet file (needs the `parquet` extra)."""
    import pandas as pd

    path = _present(path)
    try:
        frame = pd.read_parquet(path)
    except ImportError as error:
        cure = "pip install 'mixed-input-pipelines[parquet]'"
        raise DataError(f"{path.name}: reading Parquet needs pyarrow: {cure}") from error
    except (ValueError, OSError) as error:
        raise DataError(f"{path.name}: not a readable Parquet table: {error}") from error
    return _filled(from_frame(frame, root=path.parent, name=path.name))


def from_frame(frame: pd.DataFrame, root: str | Path | None = None, name: str = "table") -> Table:
    """Make a table of a DataFrame; rows are numbered anew from 0.

    `root` is the folder that image cells are relative to (default: the current folder).
    """
    frame = frame.reset_index(drop=True).rename(columns=str)
    for twice in frame.columns[frame.columns.duplicated()]:
        raise DataError(f"{name}: the column '{twice}' stands twice")
    return Table(frame, name, Path(root) if root is not None else Path("."))


def _read_text(path: Path, separator: str) -> pd.DataFrame:
    import pandas as pd

    return pd.read_csv(
        path,
        sep=separator,
        dtype=str,
        keep_default_na=False,
        index_col=False,
        encoding="utf-8-sig",
    )


def _present(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        near = path.parent.glob(f"*{path.suffix}") if path.parent.is_dir() else []
        raise DataError(f"{path}: there is no such table{hint(path.name, (p.name for p in near))}")
    return path


def _check_cells(path: Path, separator: str) -> None:
    # pandas would fill a short row with blanks, and number columns of one name.
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = filter(None, csv.reader(file, delimiter=separator))
        header = next(lines, [])
        counts = [*map(len, lines)]
    for name in header:
        if header.count(name) > 1:
            raise ValueError(f"the column '{name}' stands twice in the header")
    for row, cells in enumerate(counts):
        if cells != len(header):
            raise ValueError(f"row {row} has {cells} cells, and the header {len(header)}")


def _filled(table: Table) -> Table:
    if not len(table):
        raise DataError(f"{table.name}: the table has no rows")
    return table


def digest(table: Table) -> dict[str, str]:
    """Fingerprint every column (SHA-256 of its cells as text), to tell what has changed.

    >>> import pandas as pd
    >>> a, b = (from_frame(pd.DataFrame({"x": [1, last], "y": [0, 0]})) for last in (2, 3))
    >>> [name for name in a.columns if digest(a)[name] != digest(b)[name]]
    ['x']
    """
    return {name: digest_of([table.texts(name)]) for name in table.columns}


def digest_of(columns: Iterable[Iterable[str]]) -> str:
    """Fingerprint columns of words: one SHA-256 for all."""
    text = "\x1e".join("\x1f".join(words) for words in columns)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
