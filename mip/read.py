"""Reading: from files, folders and what is in memory to a Table; each source says what is wrong."""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from toolz import partition_all
from torch import Tensor
from torch.utils.data import IterableDataset

from mip.errors import DataError, hint
from mip.table import Table, from_frame

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

TABLES = (".csv", ".jsonl", ".ndjson", ".parquet", ".tsv")
"""The endings of files that hold a table."""

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""The endings, in lower case, of the files of a class folder that are its images."""

CHUNK = 50_000
"""So many rows of a CSV are held as Python's own texts, which take ten times the space."""


def read(path: str | Path) -> Table:
    """Read a table from a file, a folder, or the files that a pattern names.

    A file is `.csv`, `.tsv`, `.jsonl` (or `.ndjson`) or `.parquet`; a pattern such as
    "data/part-*.parquet" has its wildcards (`*`, `?`, `[…]`) in the last part, and names shards:
    they are joined in the order of their names, and rows are numbered on. A folder holds
    Parquet shards, or else it is one of class folders (`read_folder`). Image cells are relative
    to the folder that the files lie in.

    The cells of a CSV are text: the spec says what each column means, so "00123" stays what it
    is, and "NA" is a category or a missing number by the kind that reads it. A JSON line is one
    object; its cells keep their types, lists included, and a key that it lacks is a missing cell.

    Raises DataError when there is nothing of that name, it has no rows, it is no table, or its
    shards have not the same columns.
    """
    path = Path(path)
    try:
        files = files_of(path)
        root = path if path.is_dir() else path.parent
        return _filled(_joined(files, root, name_of(path))) if files else read_folder(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def files_of(path: Path) -> list[Path]:
    """Find the files that a path names: itself, its shards, or what a pattern matches."""
    if path.is_dir():
        return _matching(path, "*.parquet")
    files = [path] if path.is_file() else _matching(path.parent, path.name)
    if path.suffix.lower() not in TABLES and (files or path.suffix):
        suffix = path.suffix.lower()
        raise DataError(f"{path}: '{suffix}' is not the ending of a table{hint(suffix, TABLES)}")
    if not files:
        near = _matching(path.parent, f"*{path.suffix}", os.path.exists)
        raise DataError(f"{path}: there is no such table{hint(path.name, (p.name for p in near))}")
    return files


def takes_in(path: Path, file: Path) -> bool:
    """Whether the path of a table, that of a folder or a pattern, takes in this file: as a shard,
    or anywhere in a folder of class folders.

    >>> takes_in(Path("data/part-*.csv"), Path("data/part-2.csv"))
    True
    """
    folder, pattern = (path, "*.parquet") if path.is_dir() else (path.parent, path.name)
    inside, base = Path(os.path.realpath(file)), Path(os.path.realpath(folder))
    if path.is_dir() and not files_of(path):
        return inside.is_relative_to(base)
    return inside.parent == base and not path.is_file() and fnmatchcase(file.name, pattern)


def _matching(
    folder: Path, pattern: str, wanted: Callable[[Path], bool] = os.path.isfile
) -> list[Path]:
    # Names that begin so are hidden files and the marks of what wrote shards, unless asked for.
    hidden = {".", "_"} - {pattern[:1]}
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    named = (path for path in paths if fnmatchcase(path.name, pattern))
    return [path for path in named if wanted(path) and path.name[0] not in hidden]


def name_of(path: Path) -> str:
    """Name a path in an error text: by its last part."""
    return path.absolute().name or str(path)


def _filled(table: Table) -> Table:
    if not len(table):
        raise DataError(f"{table.name}: the table has no rows")
    return table


def _joined(files: Sequence[Path], root: Path, name: str) -> Table:
    import pandas as pd

    kind = files[0].suffix.lower()
    if kind == ".parquet":
        frame = _frame(_shards(files, name), name)
        return from_frame(frame.reset_index(drop=True), root, name)
    if kind in {".jsonl", ".ndjson"}:
        return from_frame(_objects(files), root, name)
    frames = [_csv(file) for file in files]
    check_same(name, files, [dict.fromkeys(frame.columns, "text") for frame in frames])
    return from_frame(pd.concat(frames, ignore_index=True), root, name)


def check_same(name: str, files: Sequence[Path], schemas: Sequence[dict[str, str]]) -> None:
    """Raise DataError for a file whose columns (name to type) are not those of the first, in any
    order; all types of numbers are one.
    """
    first = schemas[0]
    for file, schema in zip(files, schemas, strict=True):
        where = f"{name}: {file.name} is not like {files[0].name}"
        if schema.keys() != first.keys():
            gaps = {
                "it lacks": first.keys() - schema,
                f"{files[0].name} lacks": schema.keys() - first,
            }
            told = [f"{what} {', '.join(sorted(names))}" for what, names in gaps.items() if names]
            raise DataError(f"{where}: {' and '.join(told)}")
        for column, kind in schema.items():
            if _family(kind) != _family(first[column]):
                raise DataError(f"{where}: column '{column}' is {kind}, not {first[column]}")


def _family(kind: str) -> str:
    return "number" if re.fullmatch(r"u?int\d+|halffloat|float|double", kind) else kind


# CSV.


def _csv(path: Path) -> pd.DataFrame:
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


def _objects(files: Sequence[Path]) -> pd.DataFrame:
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


# Parquet and Arrow.


def _shards(files: Sequence[Path], name: str) -> pa.Table:
    tables = [_parquet(file) for file in files]
    check_same(name, files, [{f.name: str(f.type) for f in t.schema} for t in tables])
    return arrow().concat_tables(tables, promote_options="permissive")


def _parquet(path: Path) -> pa.Table:
    with parquet(path) as file:
        table = file.read()
        table.validate(full=True)
        check_unique(table.column_names, "in the schema")
        return table


@contextmanager
def parquet(path: Path, footer: Any = None, coded: Sequence[str] = ()) -> Iterator[Any]:
    """Open a Parquet file: a pyarrow ParquetFile whose errors are a DataError.

    A `footer` that is known is not read again; the columns `coded` are read as dictionaries.
    """
    arrow()
    from pyarrow.parquet import ParquetFile

    # Buffered, so that no column of a row group is in memory whole before it is decoded.
    how = {"pre_buffer": False, "buffer_size": 1 << 16, "read_dictionary": [*coded]}
    try:
        with ParquetFile(path, metadata=footer, **how) as file:
            yield file
    except Exception as error:  # Arrow's decoders raise whatever a broken file provokes
        raise DataError(f"{path.name}: not a readable Parquet table: {error}") from error


def arrow() -> Any:
    """Import pyarrow; raises DataError with the cure where it is not installed."""
    try:
        import pyarrow as pa
    except ImportError as error:
        cure = "pip install 'mixed-input-pipelines[parquet]'"
        raise DataError(f"reading Parquet and Arrow tables needs pyarrow: {cure}") from error
    return pa


def from_arrow(table: pa.Table, root: str | Path | None = None, name: str = "table") -> Table:
    """Make a table of a pyarrow Table; the cells of list columns become Python lists, and rows keep
    the labels of the DataFrame that the Arrow table was made of.

    Raises DataError for a column that stands twice, and for cells that pandas cannot hold.

    >>> import pyarrow as pa
    >>> from_arrow(pa.table({"photos": [["a.png", "b.png"], None]})).cells("photos")
    [['a.png', 'b.png'], None]
    """
    return from_frame(_frame(table, name), root, name)


def _frame(table: pa.Table, name: str) -> pd.DataFrame:
    try:
        frame = table.to_pandas().rename(columns=str)
        columns = {name: table.column(name) for name in table.column_names if name in frame}
        odd = {name: _odd(each).array for name, each in columns.items() if _is_odd(each)}
    except Exception as error:  # as above: a date of the year 300000, a foreign type
        raise DataError(f"{name}: an Arrow table that pandas cannot hold: {error}") from error
    return frame.assign(**odd)


def _is_odd(cells: pa.ChunkedArray) -> bool:
    # pandas would make arrays of lists, and floats of whole numbers where one is missing: long
    # ones would lose their last digits.
    return _is_list(cells.type) or (str(cells.type) in {"int64", "uint64"} and cells.null_count > 0)


def _odd(cells: pa.ChunkedArray) -> pd.Series:
    import pandas as pd

    if _is_list(cells.type):
        return pd.Series(cells.to_pylist(), dtype=object)
    whole = {"int64": pd.Int64Dtype(), "uint64": pd.UInt64Dtype()}
    return cells.to_pandas(types_mapper=lambda kind: whole[str(kind)])


def _is_list(kind: Any) -> bool:
    types = arrow().types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


# What is in memory.


def from_columns(
    columns: Mapping[str, Any], root: str | Path | None = None, name: str = "table"
) -> Table:
    """Make a table of sequences by column name: lists, arrays, tensors, whatever has a length.

    The entries of an array or tensor [n, …] are cells and stay views of it. Rows have the labels of
    the Series among the columns. Raises DataError when lengths or the labels of Series differ, and
    for what is no sequence of cells, a text among them.

    >>> from_columns({"image": np.zeros((2, 8, 8), dtype="uint8"), "label": ["cat", "dog"]})
    Table(table: 2 rows, columns image, label)
    >>> from_columns({"image": [b"GIF89a", b"GIF89a"], "label": ["cat"]})
    Traceback (most recent call last):
    mip.errors.DataError: table: column 'label' has 1 cells, and column 'image' 2
    """
    import pandas as pd

    for column, cells in columns.items():
        if isinstance(cells, (str, bytes, Mapping)) or not hasattr(cells, "__len__"):
            told = f"column '{column}' is {type(cells).__name__}, not a sequence of cells"
            raise DataError(f"{name}: {told}")
    sizes = {str(column): len(cells) for column, cells in columns.items()}
    first = next(iter(sizes), "")
    for column, size in sizes.items():
        if size != sizes[first]:
            told = f"column '{column}' has {size} cells, and column '{first}' {sizes[first]}"
            raise DataError(f"{name}: {told}")
    labels = _labels(columns, name)
    frame = pd.DataFrame({column: _series(cells) for column, cells in columns.items()})
    return from_frame(frame if labels is None else frame.set_axis(labels), root, name)


def _labels(columns: Mapping[str, Any], name: str) -> pd.Index | None:
    import pandas as pd

    series = [(column, cells) for column, cells in columns.items() if isinstance(cells, pd.Series)]
    for column, cells in series:
        if not cells.index.equals(series[0][1].index):
            told = f"column '{column}' has another index than column '{series[0][0]}'"
            raise DataError(f"{name}: {told}; reset_index(drop=True) takes cells as they stand")
    return series[0][1].index if series else None


def from_rows(
    rows: Sequence[Mapping[str, Any]], root: str | Path | None = None, name: str = "table"
) -> Table:
    """Make a table of dicts, a row each; a key that one lacks is a missing cell.

    Raises DataError, naming the row, for what is no dict.

    >>> from_rows([{"area": 70}, {"area": 95, "town": "Ulm"}]).texts("town").tolist()
    ['', 'Ulm']
    """
    for place, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(f"{name} row {place}: {type(row).__name__} is not a dict of cells")
    columns = dict.fromkeys(column for row in rows for column in row)
    cells = {column: [row.get(column) for row in rows] for column in columns}
    return from_columns(cells, root, name)


def _series(cells: Any) -> pd.Series:
    import pandas as pd

    cells = cells.to_pylist() if hasattr(cells, "to_pylist") else _plain(cells)
    if isinstance(cells, pd.Series):
        return cells.reset_index(drop=True)
    if isinstance(cells, np.ndarray) and cells.ndim == 1:
        return pd.Series(cells)
    objects = np.empty(len(cells), dtype=object)
    for place in range(len(cells)):
        objects[place] = _plain(cells[place])
    series = pd.Series(objects, dtype=object)
    try:
        return series.infer_objects()
    except UnicodeEncodeError:  # half of a surrogate pair
        return series


def _plain(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    array = value.detach().cpu().numpy()
    return array if array.ndim else array.item()


def from_dataset(dataset: Any, columns: Sequence[str] | None = None, name: str = "table") -> Table:
    """Make a table of a map-style torch Dataset, whose items are dicts or tuples.

    Every item is read once, and kept. `columns` names the parts of a tuple in their order; of
    dicts it chooses keys (default: those of the first). Raises DataError, naming the row, for an
    item that is neither or has other parts.

    >>> import torch; from torch.utils.data import TensorDataset
    >>> pairs = TensorDataset(torch.zeros(3, 8, 8), torch.tensor([1, 0, 1]))
    >>> from_dataset(pairs, columns=["image", "label"]).numbers("label")
    array([1., 0., 1.])
    """
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        raise DataError(f"{name}: {type(dataset).__name__} is no map-style dataset (len and [])")
    items = [dataset[row] for row in range(len(dataset))]
    if columns is None:
        columns = list(items[0]) if items and isinstance(items[0], Mapping) else []
    rows = [_item(item, columns, f"{name} row {row}") for row, item in enumerate(items)]
    return from_columns(
        {column: [row[place] for row in rows] for place, column in enumerate(columns)}, name=name
    )


def _item(item: Any, columns: Sequence[str], where: str) -> list[Any]:
    if isinstance(item, Mapping):
        for column in columns:
            if column not in item:
                raise DataError(f"{where}: the item has no '{column}'{hint(column, item)}")
        return [item[column] for column in columns]
    if not isinstance(item, (tuple, list)):
        raise DataError(f"{where}: {type(item).__name__} is neither a dict nor a tuple")
    if len(item) != len(columns):
        raise DataError(f"{where}: {len(item)} parts, and {len(columns)} names in 'columns'")
    return list(item)


# idx files, the format of MNIST.


def read_idx(
    images: str | Path, labels: str | Path, columns: tuple[str, str] = ("image", "label")
) -> Table:
    """Read a pair of idx files, plain or gzipped: MNIST and its kin.

    The first column holds uint8 arrays [height, width], views of one array; the second int64
    labels. Raises DataError for a file that is missing, foreign, truncated or too long, and for
    counts that differ.

    >>> read_idx("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
    Traceback (most recent call last):
    mip.errors.DataError: train-images-idx3-ubyte.gz: there is no such idx file
    """
    pixels, classes = _idx(Path(images), 3), _idx(Path(labels), 1)
    if len(pixels) != len(classes):
        told = f"{len(pixels)} images, and {Path(labels).name} has {len(classes)} labels"
        raise DataError(f"{Path(images).name}: {told}")
    cells = {columns[0]: pixels, columns[1]: classes.astype(np.int64)}
    return _filled(from_columns(cells, Path(images).parent, Path(images).name))


def _idx(path: Path, dims: int) -> np.ndarray:
    data = _unpacked(path)
    head = 4 + 4 * dims
    if data[:4] != bytes([0, 0, 8, dims]) or len(data) < head:
        kind = f"idx{dims}-ubyte"
        raise DataError(
            f"{path.name}: not an {kind} file (magic number {data[:4].hex() or 'none'})"
        )
    shape = np.frombuffer(data[4:head], dtype=">u4").tolist()
    if len(data) - head != math.prod(shape):
        told = f"{len(data) - head} bytes of data, not {' x '.join(map(str, shape))}"
        raise DataError(f"{path.name}: a damaged idx file: {told}")
    # A copy, as torch warns of arrays that lie in bytes and cannot be written.
    return np.frombuffer(data, dtype=np.uint8, offset=head).reshape(shape).copy()


def _unpacked(path: Path) -> bytes:
    if not path.is_file():
        near = [p.name for p in _matching(path.parent, "*ubyte*")]
        raise DataError(f"{path}: there is no such idx file{hint(path.name, near)}")
    data = path.read_bytes()
    try:
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path.name}: a damaged gzip file: {error}") from error


# Class folders.


def read_folder(folder: str | Path) -> Table:
    """Read a folder of class folders: columns `image` (a path relative to it) and `label`.

    The label is the name of the folder at the top, however deep an image lies. Images are known
    by their endings (`IMAGES`) and stand in the order of their paths; other files, hidden ones
    and linked folders are left out. A class folder without images gives no row. Raises DataError
    when no class folder has an image, and for an image at the top, which would have no label.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    paths = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    found = [p for p in paths if p.suffix.lower() in IMAGES and not _is_hidden(p)]
    for path in found:
        if len(path.parts) == 1:
            raise DataError(f"{folder}: {path} lies in no class folder, so it has no label")
    if not found:
        raise DataError(f"{folder}: holds neither .parquet files nor class folders with images")
    cells = {"image": [p.as_posix() for p in found], "label": [p.parts[0] for p in found]}
    return from_columns(cells, folder, name_of(folder))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
