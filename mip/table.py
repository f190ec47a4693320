"""Tables: rows with their numbers, what a cell means, how rows are taken."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, final

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor

from mip.errors import DataError, hint

if TYPE_CHECKING:
    import pandas as pd

BLANK = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "-", "<na>"})
"""What stands for a missing number, in lower case. A category keeps its words ("NA" too)."""

FLOAT32 = float(np.finfo(np.float32).max)
"""The largest number that a model can be given."""

_WHOLE = re.compile(r"[-+]?\d+\.0+")


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

    def select(self, columns: Collection[str]) -> Self:
        """Keep only some of the columns."""
        return evolve(self, frame=self.frame[[name for name in self.columns if name in columns]])

    def join(self, others: Sequence[Table]) -> Table:
        """Put the rows of others behind these; all keep their numbers."""
        import pandas as pd

        frames = [self.frame, *(other.frame for other in others)]
        return Table(pd.concat(frames), self.name, self.root)

    def without(self, rows: Collection[int]) -> Self:
        """Leave out rows by their numbers."""
        return evolve(self, frame=self.frame[~self.frame.index.isin(list(rows))])

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
        """Name a cell for an error text: file, row number and column."""
        return f"{self.name} row {self.frame.index[place]}, column '{column}'"

    def cells(self, column: str) -> list[Any]:
        """Give a column's cells as they are, None where one is missing (None, NaN, NaT or "").

        >>> import pandas as pd; from mip.read import from_columns
        >>> from_columns({"photo": ["a.png", "", ["b.png", "c.png"], b"GIF89a"]}).cells("photo")
        ['a.png', None, ['b.png', 'c.png'], b'GIF89a']
        """
        cells = self[column]
        pairs = zip(cells, cells.isna(), strict=True)
        return [None if gone or _is_blank(cell) else cell for cell, gone in pairs]

    def numbers(self, column: str) -> np.ndarray:
        """Read a column as float64 [n]: NaN for blanks and for what float32 cannot hold (1e39,
        infinities); words and images are an error.
        """
        values = self._values(column)
        return np.where(np.abs(values) <= FLOAT32, values, np.nan)

    def beyond(self, column: str) -> np.ndarray:
        """Find the cells that are infinite or past float32: their places, int64 [m].

        >>> import pandas as pd
        >>> from_frame(pd.DataFrame({"area": ["70", "1e39", "", "-inf"]})).beyond("area")
        array([1, 3])
        """
        return np.flatnonzero(np.abs(self._values(column)) > FLOAT32)

    def times(self, column: str) -> np.ndarray:
        """Read a column of ISO dates and times as days since 1970 in UTC, float64 [n]: NaN for
        blanks; other words are an error.

        >>> import pandas as pd
        >>> from_frame(pd.DataFrame({"sold": ["1970-01-02", "1970-01-01 12:00", ""]})).times("sold")
        array([1. , 0.5, nan])
        """
        import pandas as pd

        cells = self._readable(column, "dates")
        if not pd.api.types.is_datetime64_any_dtype(cells.dtype):
            cells = pd.Series(self.texts(column))
        found = pd.to_datetime(cells, format="ISO8601", errors="coerce", utc=True)
        for place in np.flatnonzero(found.isna() & ~cells.isna()).tolist():
            if str(cells.iloc[place]).lower() not in BLANK:
                word = str(cells.iloc[place])[:40]
                raise DataError(f"{self.where(place, column)}: {word!r} is not an ISO date")
        return ((found - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)).to_numpy(np.float64)

    def _values(self, column: str) -> np.ndarray:
        import pandas as pd

        cells = self._readable(column, "numbers")
        if pd.api.types.is_numeric_dtype(cells.dtype):
            return cells.to_numpy(dtype=np.float64, na_value=np.nan)
        return _parse(self, column, cells)

    def texts(self, column: str) -> np.ndarray:
        """Read a column as words, object [n]: a missing cell is '', a whole number has no '.0';
        images are an error.

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
        import pandas as pd

        cells = self._readable(column, "words")
        if cells.dtype == object:  # where equal keys can be different words: True, 1 and 1.0
            return np.where(cells.isna(), -1, np.arange(len(cells))), [*map(_word, cells)]
        codes, uniques = pd.factorize(cells, use_na_sentinel=True)
        return codes, [*map(_word, uniques)]

    def _readable(self, column: str, wanted: str) -> pd.Series:
        cells = self[column]
        if cells.dtype == object and any(map(is_image, cells)):
            raise DataError(f"{self.name}: column '{column}' holds images, not {wanted}")
        return cells


def is_list(cell: Any) -> bool:
    """Whether a cell holds a list: also as an array of objects, which Parquet makes of one.

    >>> is_list(["a.png"]), is_list(np.array(["a.png"], dtype=object)), is_list(np.zeros(2))
    (True, True, False)
    """
    objects = isinstance(cell, np.ndarray) and cell.dtype == np.object_
    return objects or isinstance(cell, (list, tuple))


def is_image(cell: Any) -> bool:
    """Whether a cell holds images themselves (an array, a file's bytes, a Pillow image, or a list
    with one of these) rather than a word, a number or paths.

    >>> is_image(b"GIF89a"), is_image(["a.png", "b.png"]), is_image([np.zeros((8, 8))])
    (True, False, True)
    """
    if is_list(cell):
        return any(map(is_image, cell))
    held = (bytes, bytearray, memoryview, np.ndarray, Tensor)
    return isinstance(cell, held) or _is_pillow(cell)


def _is_pillow(cell: Any) -> bool:
    return type(cell).__module__.startswith("PIL.")  # so that no table has to import Pillow


def _is_blank(cell: Any) -> bool:
    return isinstance(cell, str) and not cell


def _parse(table: Table, column: str, cells: pd.Series) -> np.ndarray:
    import pandas as pd

    if not isinstance(cells.dtype, pd.StringDtype):
        # As objects, so that a date stays a date and does not turn into nanoseconds.
        cells = pd.Series([_bounded(cell) for cell in cells], dtype=object)
    known = pd.to_numeric(cells, errors="coerce")
    values = known.to_numpy(dtype=np.float64, na_value=np.nan)
    for place in np.flatnonzero(np.isnan(values) & ~cells.isna().to_numpy()):
        cell = cells.iloc[place]
        if str(cell).strip().lower() not in BLANK:
            where = table.where(int(place), column)
            raise DataError(f"{where}: {str(cell)[:40]!r} is not a number")
    return values


def _bounded(value: Any) -> Any:
    # pandas does not coerce a whole number past float64, it overflows.
    return math.inf if isinstance(value, int) and abs(value) > FLOAT32 else value


def _word(value: Any) -> str:
    text = str(int(value)) if _is_whole(value) else str(value).strip()
    return text[: text.index(".")] if _WHOLE.fullmatch(text) else text


def _is_whole(value: Any) -> bool:
    return isinstance(value, (float, np.floating)) and float(value).is_integer()


def from_frame(frame: pd.DataFrame, root: str | Path | None = None, name: str = "table") -> Table:
    """Make a table of a DataFrame; rows are numbered anew from 0.

    `root` is the folder that image cells are relative to (default: the current folder).
    """
    frame = frame.reset_index(drop=True).rename(columns=str)
    for twice in frame.columns[frame.columns.duplicated()]:
        raise DataError(f"{name}: the column '{twice}' stands twice")
    return Table(frame, name, Path(root) if root is not None else Path("."))


def contents(table: Table, column: str) -> list[str]:
    """Give a word for every cell, equal where the contents are: a text stands for itself, an
    image for its SHA-256, a list for that of its elements.

    >>> from mip.read import from_columns
    >>> a, b, c = contents(from_columns({"x": [np.zeros(4), np.zeros(4), np.zeros((2, 2))]}), "x")
    >>> a == b != c
    True
    """
    cells = table[column]
    if cells.dtype == object and any(is_image(c) or is_list(c) for c in cells):
        return ["" if cell is None else content(cell) for cell in table.cells(column)]
    return table.texts(column).tolist()


def content(cell: Any) -> str:
    """Give a word for one cell, equal where the contents are."""
    if is_list(cell):
        return digest_of([map(content, cell)])
    if isinstance(cell, (np.ndarray, Tensor)):
        array = np.asarray(cell)
        return _sha256(f"{array.dtype.str}{array.shape}", array.tobytes())
    if _is_pillow(cell):
        return _sha256(f"{cell.mode}{cell.size}{cell.getpalette()}", cell.tobytes())
    return _sha256("bytes", bytes(cell)) if is_image(cell) else _word(cell)


def _sha256(head: str, data: bytes) -> str:
    return hashlib.sha256(head.encode() + b"\x00" + data).hexdigest()


def digest_of(columns: Iterable[Iterable[str]]) -> str:
    """Fingerprint columns of words: one SHA-256 for all."""
    text = "\x1e".join("\x1f".join(words) for words in columns)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
