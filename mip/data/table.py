"""Tables: rows with ids and an index, whose columns are read as numbers, texts or timestamps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, final, overload

import numpy as np
from attrs import Attribute, evolve, field, frozen

from mip.data.cells import (
    BLANKS,
    DATE_YEARS,
    FLOAT32_MAX,
    as_date_text,
    as_text,
    content_key,
    digest_texts,
    is_image,
    parse_number,
    to_days,
    with_paths,
)
from mip.data.column_cells import (
    factorize,
    holds_objects,
    holds_text,
    missing_cells,
    parse_plain,
    texts_of,
)
from mip.data.column_format import ColumnFormat
from mip.data.dates import parse_dates
from mip.data.photo_names import photos_in
from mip.errors import DataError, hint, quote

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

FIRST_DAY, END_DAY = to_days(
    np.array([f"{DATE_YEARS[0]}-01-01", f"{DATE_YEARS[1] + 1}-01-01"], dtype="datetime64[D]")
)
"""The first day of `DATE_YEARS` and the day after their last, in days since 1970."""


class Rows(Protocol):
    """Rows to learn from: a table in memory, or shards that are read chunk by chunk."""

    @property
    def name(self) -> str: ...
    @property
    def columns(self) -> list[str]: ...
    def __len__(self) -> int: ...
    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[Table]:
        """Iterate over the rows in order, a chunk at a time, with at least these columns."""
        ...

    def digest(self, columns: Collection[str] | None = None) -> dict[str, str]:
        """Compute a fingerprint for each of the columns, by default all."""
        ...

    def without(self, row_ids: Collection[int]) -> Self:
        """Drop rows by their ids."""
        ...

    def select(self, columns: Collection[str]) -> Self:
        """Keep only some of the columns."""
        ...

    def with_formats(self, formats: Mapping[str, ColumnFormat]) -> Self:
        """Read columns as they are written."""
        ...


@final
@frozen(eq=False, repr=False)
class Table:
    """Rows and columns. An image cell is a path relative to `root`, the bytes of an image file, an
    array, a Pillow image, or a list of these; it is left as it is until a branch reads it.

    A table is a value: taking rows makes a new one. `row_ids`, int64 [n], count from 0 in the data
    as it was read; whatever is drawn at random for a row depends on its id. The frame's index holds
    the labels that errors and predictions show: those of the original DataFrame, or the row ids
    where the data came from a file, or the paths of images from a folder of them.

    >>> import pandas as pd; from mip.data import from_frame
    >>> rows = from_frame(pd.DataFrame({"area": [70, 95, 40], "town": ["Ulm", "Bonn", "Ulm"]}))
    >>> rows
    Table(table: 3 rows, columns area, town)
    >>> rows.take([2]).numbers("area")
    array([40.])
    >>> rows[1]
    {'area': 95, 'town': 'Bonn'}
    """

    frame: pd.DataFrame
    name: str = "table"
    root: Path | None = None
    row_ids: np.ndarray = field()
    formats: Mapping[str, ColumnFormat] = field(factory=dict, kw_only=True)
    """How cells are written, of the columns where that is not the plain form."""
    files: Mapping[int, str] = field(factory=dict, kw_only=True)
    """The names of the files that hold the rows, if there are several, by the id of their first
    row, in order.
    """

    @row_ids.default
    def _count_rows(self) -> np.ndarray:
        return np.arange(len(self.frame))

    @row_ids.validator
    def _check_length(self, _: Attribute[np.ndarray], row_ids: np.ndarray) -> None:
        if len(row_ids) != len(self.frame):
            raise ValueError(f"{len(row_ids)} row ids for a frame of {len(self.frame)} rows")

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        return f"Table({self.name}: {len(self)} rows, columns {', '.join(self.columns)})"

    @overload
    def __getitem__(self, key: str) -> pd.Series: ...
    @overload
    def __getitem__(self, key: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, key: slice) -> Table: ...
    def __getitem__(self, key: str | int | slice) -> pd.Series | dict[str, Any] | Table:
        """Return a column by its name, a row by its position, or the rows of a slice. A row is a
        dict of its cells, in which photos that are in the table's folder are absolute paths, so
        that it can be predicted in any folder.
        """
        if isinstance(key, slice):
            return self.take(range(len(self))[key])
        if isinstance(key, (int, np.integer)):
            [cells] = self.frame.iloc[[key]].to_dict("records")
            return {str(column): with_paths(cell, self.root) for column, cell in cells.items()}
        column = key
        if column not in self.frame.columns:
            known = hint(column, self.columns)
            raise DataError(f"{self.name}: there is no column '{column}'{known}")
        return self.frame[column]

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in their order."""
        return [str(name) for name in self.frame.columns]

    @property
    def index(self) -> pd.Index:
        """The label of each row."""
        return self.frame.index

    def take(self, positions: Sequence[int] | Tensor | np.ndarray) -> Table:
        """Take rows by position; they keep their ids and labels."""
        positions = np.asarray(positions, dtype=np.int64)
        return evolve(self, frame=self.frame.iloc[positions], row_ids=self.row_ids[positions])

    def select(self, columns: Collection[str]) -> Self:
        """Keep only some of the columns."""
        return evolve(self, frame=self.frame[[name for name in self.columns if name in columns]])

    def with_formats(self, formats: Mapping[str, ColumnFormat]) -> Self:
        """Read columns as they are written.

        >>> from mip.data import from_columns
        >>> rows = from_columns({"price": ["1.234,50 €", "-"], "sold": ["31/12/2024", "n/a"]})
        >>> euros = ColumnFormat(decimal=",", thousands=".", unit="€")
        >>> rows.with_formats({"price": euros}).numbers("price")
        array([1234.5,    nan])
        >>> rows.with_formats({"sold": ColumnFormat(date_format="%d/%m/%Y")}).timestamps("sold")
        array([20088.,    nan])
        """
        return self if formats == self.formats else evolve(self, formats=formats)

    def concat(self, others: Sequence[Table]) -> Table:
        """Append the rows of other tables; all keep their ids and labels."""
        import pandas as pd

        tables = [self, *others]
        frame = pd.concat([table.frame for table in tables])
        return evolve(self, frame=frame, row_ids=np.concatenate([t.row_ids for t in tables]))

    def without(self, row_ids: Collection[int]) -> Self:
        """Drop rows by their ids."""
        kept = ~np.isin(self.row_ids, list(row_ids))
        return evolve(self, frame=self.frame[kept], row_ids=self.row_ids[kept])

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[Table]:
        """Yield the table itself: all of its rows are in memory."""
        yield self

    def digest(self, columns: Collection[str] | None = None) -> dict[str, str]:
        """Compute the SHA-256 of each column's contents (by default of all columns), to find out
        which have changed.

        >>> import pandas as pd; from mip.data import from_frame
        >>> a, b = (from_frame(pd.DataFrame({"x": [1, n], "y": [0, 0]})).digest() for n in (2, 3))
        >>> [name for name in a if a[name] != b[name]]
        ['x']
        """
        names = self.columns if columns is None else columns
        return {name: digest_texts([content_keys(self, name)]) for name in names}

    def cell_name(self, position: int, column: str) -> str:
        """Describe a cell in an error text: table, row and column. The row is named by its label;
        if several rows share that label, by its id too, and of several files, by its file.

        >>> import pandas as pd; from mip.data import from_frame
        >>> from_frame(pd.DataFrame({"x": [1, 2]}, index=["h17", "h4"])).cell_name(1, "x")
        "table row 'h4', column 'x'"
        """
        row = format_row_label(self.index[[position]].tolist()[0])
        row_id = "" if self.index.is_unique else f" (number {self.row_ids[position]})"
        return f"{self.name} row {row}{row_id or self._place(position)}, column '{column}'"

    def _place(self, position: int) -> str:
        row_id = int(self.row_ids[position])
        firsts = [first for first in self.files if first <= row_id]
        return f" (row {row_id - firsts[-1]} of {self.files[firsts[-1]]})" if firsts else ""

    def cells(self, column: str) -> list[Any]:
        """Return a column's cells unchanged, with None for missing ones (None, NaN, NaT or "").

        >>> from mip.data import from_columns
        >>> from_columns({"photo": ["a.png", "", ["b.png", "c.png"], b"GIF89a"]}).cells("photo")
        ['a.png', None, ['b.png', 'c.png'], b'GIF89a']
        """
        cells, form = self._known(column), self.formats.get(column)
        if holds_text(cells):
            values = [cell or None for cell in cells.fillna("").tolist()]
        else:
            pairs = zip(cells, missing_cells(cells), strict=True)
            values = [
                None if missing or (isinstance(cell, str) and not cell) else cell
                for cell, missing in pairs
            ]
        return values if form is None else [form.values(cell) for cell in values]

    def photos(self, column: str) -> list[list[Any]]:
        """Read a column as photos, one or several a row: names of files (`PhotoName`), the bytes of
        files, pixels, or None for a missing photo.

        >>> from mip.data import from_columns
        >>> rows = from_columns({"photo": ["a.png", "NA", b"GIF89a"]}).photos("photo")
        >>> [[str(photo) for photo in photos] for photos in rows]
        [['a.png'], ['None'], ["b'GIF89a'"]]
        """
        form = self.formats.get(column)
        template = form.path if form and form.path else "{}"
        return [photos_in(cell, self.root, template) for cell in self.cells(column)]

    def numbers(self, column: str) -> np.ndarray:
        """Read a column as float64 [n]: NaN for blanks and for what float32 cannot hold (1e39,
        infinities), seconds for durations. Raises DataError naming a cell that is not a number.
        """
        values = self._parse_numbers(column)
        return np.where(np.abs(values) <= FLOAT32_MAX, values, np.nan)

    def overflow_rows(self, column: str) -> np.ndarray:
        """Find the numbers that are infinite or too large for float32: their positions, int64 [m].

        >>> import pandas as pd; from mip.data import from_frame
        >>> from_frame(pd.DataFrame({"area": ["70", "1e39", "", "-inf"]})).overflow_rows("area")
        array([1, 3])
        """
        return np.flatnonzero(np.abs(self._parse_numbers(column)) > FLOAT32_MAX)

    def _parse_numbers(self, column: str) -> np.ndarray:
        from pandas.api.types import is_numeric_dtype

        cells = self._without_images(column, "a number")
        if is_numeric_dtype(cells.dtype):
            with np.errstate(over="ignore"):  # of long doubles
                return cells.to_numpy(dtype=np.float64, na_value=np.nan)
        form = self.formats.get(column)
        is_plain = form is None or not form.writes_numbers
        if is_plain and (values := parse_plain(cells, "number")) is not None:
            return values
        codes, numbers = factorize(cells, form.parse_number if form else parse_number)
        if None in numbers:
            position = np.flatnonzero(codes == numbers.index(None))[0]
            where = self.cell_name(position, column)
            wanted = _wanted_number(form, column)
            raise DataError(f"{where}: {quote(cells.iloc[position])} is not {wanted}")
        return np.array([*numbers, np.nan], dtype=np.float64)[codes]

    def timestamps(self, column: str) -> np.ndarray:
        """Read a column of ISO dates and times as days since 1970 in UTC, float64 [n]: NaN for
        blanks and for dates outside of the years 1678 to 2261. Raises DataError naming a cell that
        is not a date.

        >>> import pandas as pd; from mip.data import from_frame
        >>> sold = ["1970-01-02", "1970-01-01 12:00", "", "9999-12-31"]
        >>> from_frame(pd.DataFrame({"sold": sold})).timestamps("sold")
        array([1. , 0.5, nan, nan])
        """
        days = self._parse_days(column)
        return np.where((days >= FIRST_DAY) & (days < END_DAY), days, np.nan)

    def out_of_bounds_rows(self, column: str) -> np.ndarray:
        """Find the dates outside of the years 1678 to 2261: their positions, int64 [m].

        >>> import pandas as pd; from mip.data import from_frame
        >>> rows = from_frame(pd.DataFrame({"sold": ["2024-02-29", "", "9999-12-31"]}))
        >>> rows.out_of_bounds_rows("sold")
        array([2])
        """
        days = self._parse_days(column)
        return np.flatnonzero((days < FIRST_DAY) | (days >= END_DAY))

    def _parse_days(self, column: str) -> np.ndarray:
        import pandas as pd

        cells = self._without_images(column, "a date")
        if cells.dtype.kind == "M":
            zoned = isinstance(cells.dtype, pd.DatetimeTZDtype)
            return to_days((cells.dt.tz_convert(None) if zoned else cells).to_numpy())
        form = self.formats.get(column)
        date_format = form.date_format if form else ""
        if not date_format and (values := parse_plain(cells, "date")) is not None:
            return to_days(values)
        codes, texts = factorize(cells, as_date_text)
        dates = parse_dates([*texts, ""], date_format)
        for position in np.flatnonzero(np.isnat(dates[codes]) & (codes >= 0)).tolist():
            text = texts[codes[position]]
            if text.lower() not in BLANKS:
                where = self.cell_name(position, column)
                raise DataError(f"{where}: {quote(text)} is not {_wanted_date(form, column)}")
        return to_days(dates)[codes]

    def texts(self, column: str) -> np.ndarray:
        """Read a column as texts, object [n]: '' for a missing cell, whole numbers without '.0'.
        Raises DataError naming a cell that is an image.

        The same category reads the same from text, whole numbers and floats:

        >>> import pandas as pd; from mip.data import from_frame
        >>> zips = pd.DataFrame({"a": ["85255", "3.0"], "b": [85255, 3], "c": [85255.0, None]})
        >>> [from_frame(zips).texts(name).tolist() for name in "abc"]
        [['85255', '3'], ['85255', '3'], ['85255', '']]
        """
        form = self.formats.get(column)
        if form is None or not form.merge:
            return texts_of(self._without_images(column, "text"))
        codes, texts = self.factorize(column)
        return np.array([*texts, ""], dtype=object)[codes]

    def factorize(self, column: str) -> tuple[np.ndarray, list[str]]:
        """Read a column as `texts` does, but convert each distinct cell only once: returns codes,
        int64 [n], which index the list of texts, with -1 for a missing cell. The list may hold a
        text twice.
        """
        codes, texts = factorize(self._without_images(column, "text"), as_text)
        form = self.formats.get(column)
        return codes, [*map(form.label, texts)] if form and form.merge else texts

    def _known(self, column: str) -> pd.Series:
        """Return a column in which the `na_values` of its format are missing."""
        cells, form = self[column], self.formats.get(column)
        if form is None or not form.na_values:
            return cells
        return cells.mask(np.isin(texts_of(cells), np.array(form.na_values, dtype=object)))

    def _without_images(self, column: str, wanted: str) -> pd.Series:
        cells = self._known(column)
        if cells.dtype == object:
            for position in (k for k, cell in enumerate(cells) if is_image(cell)):
                image = f"an image ({type(cells.iloc[position]).__name__})"
                raise DataError(f"{self.cell_name(position, column)}: {image} is not {wanted}")
        return cells


def _wanted_number(form: ColumnFormat | None, column: str) -> str:
    written = form.describe_numbers() if form else ""
    return f"a number {written}, as [data.columns.{column}] says" if written else "a number"


def _wanted_date(form: ColumnFormat | None, column: str) -> str:
    iso, block = "an ISO date (2024-12-31)", f"[data.columns.{column}]"
    if form and form.date_format:
        return f"a date of the form {form.date_format}, as {block} says, nor {iso}"
    return f"{iso}, and {block} names no date_format"


def format_row_label(label: object) -> str:
    """Write the label of a row: strings and tuples as Python does, all else as text.

    >>> format_row_label("h17"), format_row_label(17), format_row_label(("a", 1))
    ("'h17'", '17', "('a', 1)")
    """
    return repr(label) if isinstance(label, (str, tuple)) else str(label)


def content_keys(table: Table, column: str) -> list[str]:
    """Return a text for every cell, equal if the contents are: text cells are their own key, an
    image has its SHA-256, a list that of its elements.

    >>> from mip.data import from_columns
    >>> arrays = [np.zeros(4), np.zeros(4), np.zeros((2, 2))]
    >>> a, b, c = content_keys(from_columns({"x": arrays}), "x")
    >>> a == b != c
    True
    """
    cells = table[column]
    if cells.dtype == np.float64:  # with those that its format calls missing
        return texts_of(cells).tolist()
    if holds_objects(cells):
        return ["" if cell is None else content_key(cell) for cell in table.cells(column)]
    return table.texts(column).tolist()
