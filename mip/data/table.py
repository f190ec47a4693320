"""Tables: rows with their numbers and labels, columns by what they mean, how rows are taken."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, final

import numpy as np
from attrs import evolve, field, frozen

from mip.data.cells import (
    BLANK,
    FLOAT32,
    YEARS,
    content,
    dates,
    days,
    digest_of,
    is_image,
    is_list,
    is_missing,
    moment,
    number,
    word,
)
from mip.errors import DataError, hint, shown

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor


_BEGIN, _END = days(np.array([f"{YEARS[0]}-01-01", f"{YEARS[1] + 1}-01-01"], dtype="datetime64[D]"))


class Rows(Protocol):
    """Rows that can be learned from: a table in memory, or one that is read in chunks."""

    @property
    def name(self) -> str: ...
    @property
    def columns(self) -> list[str]: ...
    def __len__(self) -> int: ...
    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[Table]:
        """Give the rows in their order, some at a time, with these columns at least."""
        ...

    def digest(self, columns: Collection[str] | None = None) -> dict[str, str]:
        """Fingerprint columns, all by default."""
        ...

    def without(self, rows: Collection[int]) -> Self:
        """Leave out rows by their numbers."""
        ...

    def select(self, columns: Collection[str]) -> Self:
        """Keep only some of the columns."""
        ...


@final
@frozen(eq=False, repr=False)
class Table:
    """Rows of columns. Image cells are paths relative to `root`, bytes of image files, arrays,
    Pillow images, or lists of these, and stay so until a branch reads them.

    A table is a value: taking rows makes another. `row` holds each row's number, counted from 0 in
    what was read; what is drawn for a row hangs on it. The frame's index holds each row's label, in
    which errors speak and which predictions have: that of the frame that the table was made of, and
    the row's number where it was read from a file.

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
    row: np.ndarray = field()

    @row.default
    def _counted(self) -> np.ndarray:
        return np.arange(len(self.frame))

    @row.validator
    def _aligned(self, _: Any, row: np.ndarray) -> None:
        if len(row) != len(self.frame):
            raise ValueError(f"{len(row)} row numbers, and a frame of {len(self.frame)} rows")

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
        """The number of each row: int64 [n]."""
        import torch

        return torch.from_numpy(self.row.copy())

    @property
    def labels(self) -> pd.Index:
        """The label of each row."""
        return self.frame.index

    def take(self, index: Sequence[int] | Tensor | np.ndarray) -> Table:
        """Gather rows by their place in this table; they keep their numbers and labels."""
        places = np.asarray(index, dtype=np.int64)
        return evolve(self, frame=self.frame.iloc[places], row=self.row[places])

    def select(self, columns: Collection[str]) -> Self:
        """Keep only some of the columns."""
        return evolve(self, frame=self.frame[[name for name in self.columns if name in columns]])

    def join(self, others: Sequence[Table]) -> Table:
        """Put the rows of others behind these; all keep their numbers and labels."""
        import pandas as pd

        frame = pd.concat([self.frame, *(other.frame for other in others)])
        return evolve(self, frame=frame, row=np.concatenate([self.row, *(o.row for o in others)]))

    def without(self, rows: Collection[int]) -> Self:
        """Leave out rows by their numbers."""
        kept = ~np.isin(self.row, list(rows))
        return evolve(self, frame=self.frame[kept], row=self.row[kept])

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[Table]:
        """Give the table itself: all of its rows are in memory."""
        yield self

    def digest(self, columns: Collection[str] | None = None) -> dict[str, str]:
        """Fingerprint columns, all by default: SHA-256 of their contents, to tell what changed.

        >>> import pandas as pd
        >>> a, b = (from_frame(pd.DataFrame({"x": [1, n], "y": [0, 0]})).digest() for n in (2, 3))
        >>> [name for name in a if a[name] != b[name]]
        ['x']
        """
        names = self.columns if columns is None else columns
        return {name: digest_of([contents(self, name)]) for name in names}

    def where(self, place: int, column: str) -> str:
        """Name a cell for an error text: table, row and column. The row is named by its label, and
        where several rows have that, by its number too.

        >>> import pandas as pd
        >>> from_frame(pd.DataFrame({"x": [1, 2]}, index=["h17", "h4"])).where(1, "x")
        "table row 'h4', column 'x'"
        """
        twice = "" if self.labels.is_unique else f" (number {self.row[place]})"
        name = label(self.labels[[place]].tolist()[0])
        return f"{self.name} row {name}{twice}, column '{column}'"

    def cells(self, column: str) -> list[Any]:
        """Give a column's cells as they are, None where one is missing (None, NaN, NaT or "").

        >>> import pandas as pd; from mip.data.memory import from_columns
        >>> from_columns({"photo": ["a.png", "", ["b.png", "c.png"], b"GIF89a"]}).cells("photo")
        ['a.png', None, ['b.png', 'c.png'], b'GIF89a']
        """
        cells = self[column]
        pairs = zip(cells, _missing(cells), strict=True)
        return [None if gone or _is_blank(cell) else cell for cell, gone in pairs]

    def numbers(self, column: str) -> np.ndarray:
        """Read a column as float64 [n]: NaN for blanks and for what float32 cannot hold (1e39,
        infinities). Raises DataError naming a cell that is no number.
        """
        values = self._values(column)
        return np.where(np.abs(values) <= FLOAT32, values, np.nan)

    def beyond(self, column: str) -> np.ndarray:
        """Find the numbers that are infinite or past float32: their places, int64 [m].

        >>> import pandas as pd
        >>> from_frame(pd.DataFrame({"area": ["70", "1e39", "", "-inf"]})).beyond("area")
        array([1, 3])
        """
        return np.flatnonzero(np.abs(self._values(column)) > FLOAT32)

    def _values(self, column: str) -> np.ndarray:
        from pandas.api.types import is_numeric_dtype

        cells = self._readable(column, "a number")
        if is_numeric_dtype(cells.dtype):
            with np.errstate(over="ignore"):  # of long doubles
                return cells.to_numpy(dtype=np.float64, na_value=np.nan)
        values = [number(cell) for cell in cells.to_numpy(dtype=object)]
        if None in values:
            place = values.index(None)
            raise DataError(
                f"{self.where(place, column)}: {shown(cells.iloc[place])} is not a number"
            )
        return np.array(values, dtype=np.float64)

    def times(self, column: str) -> np.ndarray:
        """Read a column of ISO dates and times as days since 1970 in UTC, float64 [n]: NaN for
        blanks and for what lies outside of the years 1678 to 2261. Raises DataError naming a cell
        that is no date.

        >>> import pandas as pd
        >>> sold = ["1970-01-02", "1970-01-01 12:00", "", "9999-12-31"]
        >>> from_frame(pd.DataFrame({"sold": sold})).times("sold")
        array([1. , 0.5, nan, nan])
        """
        found = self._days(column)
        return np.where((found >= _BEGIN) & (found < _END), found, np.nan)

    def far(self, column: str) -> np.ndarray:
        """Find the dates outside of the years 1678 to 2261: their places, int64 [m].

        >>> import pandas as pd
        >>> from_frame(pd.DataFrame({"sold": ["2024-02-29", "", "9999-12-31"]})).far("sold")
        array([2])
        """
        found = self._days(column)
        return np.flatnonzero((found < _BEGIN) | (found >= _END))

    def _days(self, column: str) -> np.ndarray:
        import pandas as pd

        cells = self._readable(column, "a date")
        if cells.dtype.kind == "M":
            zoned = isinstance(cells.dtype, pd.DatetimeTZDtype)
            return days((cells.dt.tz_convert(None) if zoned else cells).to_numpy())
        codes, words = _coded(cells, moment)
        moments = dates([*words, ""])
        for place in np.flatnonzero(np.isnat(moments[codes]) & (codes >= 0)).tolist():
            text = words[codes[place]]
            if text.lower() not in BLANK:
                raise DataError(f"{self.where(place, column)}: {shown(text)} is not an ISO date")
        return days(moments)[codes]

    def texts(self, column: str) -> np.ndarray:
        """Read a column as words, object [n]: a missing cell is '', a whole number has no '.0'.
        Raises DataError naming a cell that is an image.

        The same category reads the same from text, whole numbers and floats:

        >>> import pandas as pd
        >>> zips = pd.DataFrame({"a": ["85255", "3.0"], "b": [85255, 3], "c": [85255.0, None]})
        >>> [from_frame(zips).texts(name).tolist() for name in "abc"]
        [['85255', '3'], ['85255', '3'], ['85255', '']]
        """
        codes, words = self.coded(column)
        return np.array([*words, ""], dtype=object)[codes]

    def coded(self, column: str) -> tuple[np.ndarray, list[str]]:
        """Read a column as `texts` does, each different cell once: the place of each row's word,
        int64 [n], -1 for a missing cell, and the words. A word may stand twice.
        """
        return _coded(self._readable(column, "a word"), word)

    def _readable(self, column: str, wanted: str) -> pd.Series:
        cells = self[column]
        if cells.dtype == object:
            for place in (place for place, cell in enumerate(cells) if is_image(cell)):
                held = type(cells.iloc[place]).__name__
                raise DataError(f"{self.where(place, column)}: an image ({held}) is not {wanted}")
        return cells


def label(name: Any) -> str:
    """Say the label of a row: texts in quotes, all else as it is.

    >>> label("h17"), label(17), label(("a", 1))
    ("'h17'", '17', "('a', 1)")
    """
    return repr(name) if isinstance(name, (str, tuple)) else str(name)


def _is_blank(cell: Any) -> bool:
    return isinstance(cell, str) and not cell


def _missing(cells: pd.Series) -> np.ndarray:
    try:
        return cells.isna().to_numpy()
    except ArithmeticError:  # of a decimal that is a signalling NaN
        return np.array([is_missing(cell) for cell in cells], dtype=bool)


def _coded(cells: pd.Series, read: Callable[[Any], str]) -> tuple[np.ndarray, list[str]]:
    import pandas as pd

    if cells.dtype == object:  # where equal keys can be different words: True, 1 and 1.0
        return np.where(_missing(cells), -1, np.arange(len(cells))), [*map(read, cells)]
    codes, uniques = pd.factorize(cells, use_na_sentinel=True)
    return codes, [*map(read, uniques)]


def from_frame(frame: pd.DataFrame, root: str | Path | None = None, name: str = "table") -> Table:
    """Make a table of a DataFrame: rows are numbered from 0, and keep the labels of its index.

    `root` is the folder that image cells are relative to (default: the current folder). Raises
    DataError for a column that stands twice.
    """
    frame = frame.set_axis([str(column) for column in frame.columns], axis=1)
    for twice in frame.columns[frame.columns.duplicated()]:
        raise DataError(f"{name}: the column '{twice}' stands twice")
    odd = {name for name in frame.columns if not _is_plain(frame[name].dtype)}
    frame = frame.assign(**{name: _objects(frame[name]) for name in odd})
    return Table(frame, name, Path(root) if root is not None else Path("."))


def _is_plain(dtype: Any) -> bool:
    """Whether a dtype is one of numbers, moments, texts or objects, or of categories of texts."""
    import pandas as pd

    if isinstance(dtype, pd.CategoricalDtype):
        return pd.api.types.infer_dtype(dtype.categories) == "string"
    if isinstance(dtype, pd.ArrowDtype):
        return dtype.kind in "biufU"
    if isinstance(dtype, np.dtype):
        return dtype.kind in "biufMO"
    numeric = pd.api.types.is_numeric_dtype(dtype) and not isinstance(dtype, pd.SparseDtype)
    return numeric or isinstance(dtype, (pd.DatetimeTZDtype, pd.StringDtype))


def _objects(cells: pd.Series) -> pd.Series:
    import pandas as pd

    return pd.Series(list(cells), index=cells.index, dtype=object)


def contents(table: Table, column: str) -> list[str]:
    """Give a word for every cell, equal where the contents are: a text stands for itself, an
    image for its SHA-256, a list for that of its elements.

    >>> from mip.data.memory import from_columns
    >>> a, b, c = contents(from_columns({"x": [np.zeros(4), np.zeros(4), np.zeros((2, 2))]}), "x")
    >>> a == b != c
    True
    """
    cells = table[column]
    if cells.dtype == object and any(is_image(c) or is_list(c) for c in cells):
        return ["" if cell is None else content(cell) for cell in table.cells(column)]
    return table.texts(column).tolist()
