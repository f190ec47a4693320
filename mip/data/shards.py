"""Shards: a table in Parquet files that need not fit in memory, read a row group at a time.

Shards are row groups with a bit per row that says whether it is used, so parts and cleaned rows are
values too. An epoch is a sequence of windows, each of a few row groups; where a window begins
follows from the files' footers, so no order of all rows is ever held.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar, final

import numpy as np
import torch
from attrs import evolve, field, frozen
from attrs.validators import gt
from toolz import compose, identity, peek
from torch import Tensor

from mip.data.arrow import from_arrow, import_pyarrow
from mip.data.checks import check_same_columns, check_unique, fill_schemas
from mip.data.column_format import ColumnFormat
from mip.data.formats.parquet import open_parquet
from mip.data.parts import parts_of_files
from mip.data.paths import METADATA, display_name, table_files
from mip.data.table import Table
from mip.errors import DataError
from mip.rng import generator
from mip.tree import concat, leaves, map_tree

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from pyarrow.parquet import ColumnChunkMetaData, FileMetaData

DECODE_ROWS = 32_768
"""Rows of a row group that are decoded and encoded at a time."""


WINDOW_ROWS = 131_072
"""Row groups are read together until they have this many rows."""


@frozen(eq=False)
class RowGroup:
    """A row group of a file, and which of its rows are used.

    `number` is its number in the file, `first` the id of its first row, `n_rows` the count of all
    rows and `size` that of the used ones, which `used` marks as packed bits (None for all). `part`
    is that of the file, if its name says one.
    """

    path: Path
    footer: FileMetaData
    number: int
    first: int
    n_rows: int
    size: int
    used: np.ndarray | None = None
    part: str = ""

    def positions(self) -> np.ndarray:
        """Return the positions in the group of the used rows: int64 [size]."""
        if self.used is None:
            return np.arange(self.n_rows)
        return np.flatnonzero(np.unpackbits(self.used, count=self.n_rows))

    def row_ids(self) -> np.ndarray:
        """Return the ids of the used rows: int64 [size]."""
        return self.first + self.positions()

    def restrict(self, kept: np.ndarray) -> RowGroup:
        """Keep only some of the used rows: bool [size]."""
        mask = np.zeros(self.n_rows, dtype=bool)
        mask[self.positions()[kept]] = True
        return evolve(self, used=np.packbits(mask), size=int(mask.sum()))


@final
@frozen(eq=False, repr=False)
class Shards:
    """Rows of Parquet files, read a row group at a time: a source for a pipe and for what a plan
    learns, however many rows there are. Row ids continue from file to file.

    In a pipe, row groups are read together until they have `window` rows: row groups in an order
    derived from (seed, epoch), the rows of a window in one derived from (seed, epoch, window). A
    row group is read whole, so memory must hold a few of the largest.
    """

    name: str
    root: Path
    schema: pa.Schema
    groups: tuple[RowGroup, ...]
    window: int = field(default=WINDOW_ROWS, validator=gt(0))
    encode: Callable[[Any], Any] = identity
    formats: Mapping[str, ColumnFormat] = field(factory=dict, kw_only=True)
    begins: list[int] = field(init=False)
    """The position, among the used rows, of each row group's first row."""

    files: dict[int, str] = field(init=False)
    """The name of each file by the id of its first row, if there are several."""

    @files.default
    def _name_files(self) -> dict[int, str]:
        firsts = {group.path: group.first for group in reversed(self.groups)}
        names = {first: path.name for path, first in reversed(firsts.items())}
        return names if len(names) > 1 else {}

    @begins.default
    def _count_begins(self) -> list[int]:
        return [0, *np.cumsum([group.size for group in self.groups], dtype=int).tolist()][:-1]

    def __len__(self) -> int:
        return sum(group.size for group in self.groups)

    def __repr__(self) -> str:
        rows = f"{len(self)} rows in {len(self.groups)} row groups"
        return f"Shards({self.name}: {rows}, columns {', '.join(self.columns)})"

    @property
    def columns(self) -> list[str]:
        """The names of the columns that are read, in the files' order."""
        return self.schema.names

    @property
    def index(self) -> pd.Index:
        """The label of each row: its id."""
        import pandas as pd

        return pd.Index(self.row_ids_at(torch.arange(len(self))).numpy())

    def map(self, function: Callable[[Any], Any]) -> Self:
        """Apply a function, such as `plan.encode`, to rows as they are read, many at a time; a
        window then holds its results. It must treat each row by itself.
        """
        return evolve(self, encode=compose(function, self.encode))

    def select(self, columns: Collection[str]) -> Self:
        """Read only some of the columns."""
        return evolve(self, schema=_select(self.schema, columns))

    def with_formats(self, formats: Mapping[str, ColumnFormat]) -> Self:
        """Read columns as they are written."""
        return evolve(self, formats=formats)

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[Table]:
        """Read all rows in order, up to 32,768 at a time, with only these columns."""
        return chain.from_iterable(self.chunks_of(group, columns) for group in self.groups)

    def chunks_of(self, group: RowGroup, columns: Sequence[str] | None = None) -> Iterator[Table]:
        """Read the used rows of a row group in order, up to 32,768 at a time."""
        schema = _select(self.schema, columns or self.columns)
        positions, begin = group.positions(), 0
        for part in _decode(group, schema) if group.size else [schema.empty_table()]:
            inside = positions[slice(*np.searchsorted(positions, [begin, begin + len(part)]))]
            frame = from_arrow(part, self.root, self.name).frame.iloc[inside - begin]
            row_ids = group.first + inside
            yield Table(
                frame.set_axis(row_ids),
                self.name,
                self.root,
                row_ids,
                formats=self.formats,
                files=self.files,
            )
            begin += len(part)

    def take(self, positions: Sequence[int] | Tensor | np.ndarray) -> Any:
        """Take rows by position: a table, or what `map` makes of it.

        Every row group that holds one of the rows is read. Raises IndexError for a position out of
        range.
        """
        wanted, slots = torch.from_numpy(np.asarray(positions, dtype=np.int64).copy()).sort()
        if not len(slots):
            return self.encode(next(self.chunks()).take([]))
        if wanted[0] < 0 or wanted[-1] >= len(self):
            raise IndexError(f"{self.name}: position out of range for {len(self)} rows")
        return _assemble(self._read(wanted, slots), len(slots))

    def _read(self, wanted: Tensor, slots: Tensor) -> Iterator[tuple[Tensor, Any]]:
        for group, begin in zip(self.groups, self.begins, strict=True):
            inside = _between(wanted, begin, group.size)
            for chunk in self.chunks_of(group) if len(wanted[inside]) else ():
                here = _between(wanted, begin, len(chunk))
                if len(wanted[here]):
                    yield slots[here], self.encode(chunk.take(wanted[here] - begin))
                begin += len(chunk)

    def windows(self, epoch: int, seed: int | None = None, skip: int = 0) -> Iterator[Tensor]:
        """Yield the positions of an epoch's rows, int64 [n], a window at a time: shuffled, or in
        order if there is no seed. The first `skip` rows are left out.
        """
        groups = torch.arange(len(self.groups))
        if seed is not None:
            groups = torch.randperm(len(groups), generator=generator("groups", seed, epoch))
        for number, members in enumerate(self._pack(groups.tolist())):
            n_rows = sum(self.groups[k].size for k in members)
            if skip < n_rows:
                positions = torch.cat(
                    [torch.arange(self.groups[k].size) + self.begins[k] for k in members]
                )
                if seed is not None:
                    draws = generator("window", seed, epoch, number)
                    positions = positions[torch.randperm(n_rows, generator=draws)]
                yield positions[skip:]
            skip = max(skip - n_rows, 0)

    def _pack(self, groups: Sequence[int]) -> Iterator[list[int]]:
        members, n_rows = list[int](), 0
        for k in groups:
            members, n_rows = [*members, k], n_rows + self.groups[k].size
            if n_rows >= self.window:
                yield members
                members, n_rows = [], 0
        if members:
            yield members

    def row_ids_at(self, positions: Tensor) -> Tensor:
        """Return the row ids at these positions: int64 [n]."""
        owners = np.searchsorted(self.begins, positions.numpy(), side="right") - 1
        row_ids = np.empty(len(positions), dtype=np.int64)
        for k in np.unique(owners):
            inside = positions.numpy()[owners == k] - self.begins[k]
            row_ids[owners == k] = self.groups[k].row_ids()[inside]
        return torch.from_numpy(row_ids)

    def divide(self, part_of: Callable[[RowGroup], np.ndarray], n_parts: int) -> tuple[Self, ...]:
        """Divide the rows into parts, by a function that returns the part of each used row of a row
        group: int [size].
        """
        divided = list[list[RowGroup]]()
        for group in self.groups:
            parts = part_of(group)
            divided.append([group.restrict(parts == k) for k in range(n_parts)])
        return tuple(evolve(self, groups=groups) for groups in zip(*divided, strict=True))

    def without(self, row_ids: Collection[int]) -> Self:
        """Drop rows by their ids."""
        dropped = np.fromiter(row_ids, dtype=np.int64)
        return self.divide(lambda group: np.isin(group.row_ids(), dropped), 2)[0]

    def digest(self, columns: Collection[str] | None = None) -> dict[str, str]:
        """Compute the SHA-256 of each column (by default of all columns): of the files' bytes, and
        of which rows are used. The same cells in other bytes have another digest.
        """
        hashes = {name: hashlib.sha256() for name in columns or self.columns}
        for group in self.groups:
            for name, column_hash in hashes.items():
                for leaf, leaf_hash in _column_hashes(group)[group.number].items():
                    if f"{leaf}.".startswith(f"{name}."):
                        column_hash.update(leaf_hash)
                column_hash.update(group.part.encode() if name == "part" else b"")
                column_hash.update(b"" if group.used is None else group.used.tobytes())
        return {name: column_hash.hexdigest() for name, column_hash in hashes.items()}


AnyTable = TypeVar("AnyTable", Table, Shards)
"""A table or shards; a function that takes one returns the same."""


def _select(schema: pa.Schema, columns: Collection[str]) -> pa.Schema:
    return import_pyarrow().schema([field for field in schema if field.name in columns])


def _between(wanted: Tensor, begin: int, n_rows: int) -> slice:
    return slice(*torch.searchsorted(wanted, torch.tensor([begin, begin + n_rows])).tolist())


def _assemble(parts: Iterator[tuple[Tensor, Any]], n_rows: int) -> Any:
    (slots, first), parts = peek(parts)
    if isinstance(first, Table):
        positions, tables = zip(*parts, strict=True)
        return concat(list(tables)).take(torch.cat(positions).argsort())
    # Part by part into their slots: two copies of a window would take too much memory.
    whole = map_tree(lambda leaf: leaf.new_empty((n_rows, *leaf.shape[1:])), first)
    for slots, part in parts:
        for (_, to), (_, leaf) in zip(leaves(whole), leaves(part), strict=True):
            to[slots] = leaf
    return whole


def stream(path: str | Path, window: int = WINDOW_ROWS) -> Shards:
    """Open Parquet files that need not fit in memory: a file, a folder or a pattern.

    Only the files' footers are read. Raises DataError for whatever `read` raises it for, and for
    tables that are not Parquet.
    """
    path = Path(path)
    name, root = display_name(path), path if path.is_dir() else path.parent
    try:
        files = table_files(path)
        footers, schemas = zip(*map(_read_footer, files), strict=True) if files else ((), ())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not files:
        raise DataError(f"{path}: holds no .parquet files")
    if any(file.stem == METADATA for file in files) and files != [root / files[0].name]:
        raise DataError(f"{path}: metadata in folders of parts cannot be streamed; use mip.read")
    parts = parts_of_files(files, root)
    types = [{field.name: str(field.type) for field in schema} for schema in schemas]
    check_same_columns(name, files, fill_schemas(name, types, parts) if parts else types)
    whole = schemas[parts.index("train") if parts else 0]
    groups = tuple(_row_groups(files, footers, parts or [""] * len(files)))
    if not groups:
        raise DataError(f"{name}: the table has no rows")
    # The columns that pandas would read: without those that hold its index.
    columns = from_arrow(whole.empty_table(), root, name).columns
    for column in sorted(set(columns) - set(whole.names)):
        raise DataError(f"{name}: the pandas metadata names a column '{column}' that is not there")
    schema = _select(whole, columns)
    if parts and "part" not in columns:
        schema = schema.append(import_pyarrow().field("part", import_pyarrow().string()))
    return Shards(name, root, schema, groups, window)


def _read_footer(path: Path) -> tuple[FileMetaData, pa.Schema]:
    if path.suffix.lower() != ".parquet":
        raise DataError(f"{path}: only .parquet files can be streamed")
    with open_parquet(path) as file:
        check_unique(file.schema_arrow.names, "in the schema")
        return file.metadata, file.read_row_groups([]).schema


def _row_groups(
    files: Sequence[Path], footers: Sequence[FileMetaData], parts: Sequence[str]
) -> Iterator[RowGroup]:
    first = 0
    for path, footer, part in zip(files, footers, parts, strict=True):
        for number in range(footer.num_row_groups):
            n_rows = footer.row_group(number).num_rows
            if n_rows:
                yield RowGroup(path, footer, number, first, n_rows, n_rows, part=part)
            first += n_rows


def _decode(group: RowGroup, schema: pa.Schema) -> Iterator[pa.Table]:
    pa, n_rows = import_pyarrow(), 0
    stored = _select(group.footer.schema.to_arrow_schema(), schema.names)
    texts = [
        f.name for f in stored if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)
    ]
    with open_parquet(group.path, group.footer, texts) as file:
        for batch in file.iter_batches(DECODE_ROWS, [group.number], stored.names):
            batch.validate(full=True)
            n_rows += len(batch)
            table = pa.Table.from_batches([batch])
            for lacking in (f for f in schema if f.name not in stored.names):
                value = group.part if lacking.name == "part" else None
                cells = pa.repeat(pa.scalar(value, lacking.type), len(batch))
                table = table.append_column(lacking, cells)
            # Asked for a column `a`, Arrow also returns `a.b`.
            yield table.select(schema.names).replace_schema_metadata()
        if n_rows != group.n_rows:
            raise ValueError(f"row group {group.number} has {n_rows} rows, not {group.n_rows}")


def _column_hashes(group: RowGroup) -> Sequence[Mapping[str, bytes]]:
    try:
        stat = group.path.stat()
        return _hash_columns(group.path, group.footer, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise DataError(f"{group.path}: cannot be read: {error}") from error


@lru_cache(maxsize=4096)
def _hash_columns(
    path: Path, footer: FileMetaData, size: int, modified: int
) -> Sequence[Mapping[str, bytes]]:
    # Bytes, not cells, which would take minutes; cached for all parts of a table.
    with path.open("rb") as file:
        groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        return [
            dict(_hash_leaf(file, group.column(k)) for k in range(group.num_columns))
            for group in groups
        ]


def _hash_leaf(file: BinaryIO, chunk: ColumnChunkMetaData) -> tuple[str, bytes]:
    file.seek(chunk.dictionary_page_offset or chunk.data_page_offset)
    return chunk.path_in_schema, hashlib.sha256(file.read(chunk.total_compressed_size)).digest()
