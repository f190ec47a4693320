"""Shards: a table in Parquet files that memory need not hold, read a row group at a time."""

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

from mip.data.arrow import from_arrow, import_pyarrow, parquet
from mip.data.paths import check_same, files_of, name_of
from mip.data.table import Table
from mip.data.text import check_unique
from mip.errors import DataError
from mip.rng import generator
from mip.tree import concat, leaves, map_tree

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


PIECE = 32_768
"""So many rows of a row group are decoded and encoded at once."""


WINDOW = 131_072
"""Row groups are read together until they have so many rows."""


@frozen(eq=False)
class Group:
    """A row group: its file and its number there, the number of its first row, how many rows it
    has, how many of them count (`size`), and which (packed bits; None for all).
    """

    path: Path
    footer: Any
    number: int
    first: int
    rows: int
    size: int
    used: np.ndarray | None = None

    def places(self) -> np.ndarray:
        """Give the places in the group of the rows that count: int64 [size]."""
        if self.used is None:
            return np.arange(self.rows)
        return np.flatnonzero(np.unpackbits(self.used, count=self.rows))

    def keep(self, kept: np.ndarray) -> Group:
        """Let only some of the rows count: bool [size]."""
        mask = np.zeros(self.rows, dtype=bool)
        mask[self.places()[kept]] = True
        return evolve(self, used=np.packbits(mask), size=int(mask.sum()))


@final
@frozen(eq=False, repr=False)
class Shards:
    """Rows of Parquet files, read a row group at a time: a source for a pipe, and what a plan can
    learn from, however many they are. Rows are numbered on through the files.

    In a pipe row groups are read together until they have `window` rows: in an order of (seed,
    epoch), and the rows of a window in one of (seed, epoch, window). A row group is read whole,
    so a file should not have larger ones than memory can hold a few of.
    """

    name: str
    root: Path
    schema: pa.Schema
    groups: tuple[Group, ...]
    window: int = field(default=WINDOW, validator=gt(0))
    encode: Callable[[Any], Any] = identity
    begins: list[int] = field(init=False)
    """The place of each row group's first row among those that count."""

    @begins.default
    def _begins(self) -> list[int]:
        return [0, *np.cumsum([group.size for group in self.groups], dtype=int).tolist()][:-1]

    def __len__(self) -> int:
        return sum(group.size for group in self.groups)

    def __repr__(self) -> str:
        told = (
            f"{len(self)} rows in {len(self.groups)} row groups, columns {', '.join(self.columns)}"
        )
        return f"Shards({self.name}: {told})"

    @property
    def columns(self) -> list[str]:
        """The names of the columns that are read, in the files' order."""
        return self.schema.names

    @property
    def labels(self) -> pd.Index:
        """The label of each row: its number."""
        import pandas as pd

        return pd.Index(self.row_numbers(torch.arange(len(self))).numpy())

    def map(self, function: Callable[[Any], Any]) -> Self:
        """Apply a function to rows as they are read, many at once, such as `plan.encode`: a
        window then holds what it gives. It must treat each row by itself.
        """
        return evolve(self, encode=compose(function, self.encode))

    def select(self, columns: Collection[str]) -> Self:
        """Read only some of the columns."""
        return evolve(self, schema=_only(self.schema, columns))

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[Table]:
        """Read all rows in their order, up to 32,768 at a time, with these columns alone."""
        return chain.from_iterable(self.pieces(group, columns) for group in self.groups)

    def pieces(self, group: Group, columns: Sequence[str] | None = None) -> Iterator[Table]:
        """Read the rows of a group that count, in their order, up to 32,768 at a time."""
        read = _only(self.schema, columns or self.columns)
        places, begin = group.places(), 0
        for part in _decoded(group, read) if group.size else [read.empty_table()]:
            inside = places[slice(*np.searchsorted(places, [begin, begin + len(part)]))]
            frame = from_arrow(part, self.root, self.name).frame.iloc[inside - begin]
            numbers = group.first + inside
            yield Table(frame.set_axis(numbers), self.name, self.root, numbers)
            begin += len(part)

    def take(self, index: Any) -> Any:
        """Gather rows by their place: a table, or what `map` makes of it.

        Every row group that has one of the rows is read. Raises IndexError for a place that
        is none.
        """
        wanted, slots = torch.from_numpy(np.asarray(index, dtype=np.int64).copy()).sort()
        if not len(slots):
            return self.encode(next(self.chunks()).take([]))
        if wanted[0] < 0 or wanted[-1] >= len(self):
            raise IndexError(f"{self.name}: a place that is not one of {len(self)} rows")
        return _in_place(self._found(wanted, slots), len(slots))

    def _found(self, wanted: Tensor, slots: Tensor) -> Iterator[tuple[Tensor, Any]]:
        for group, begin in zip(self.groups, self.begins, strict=True):
            inside = _between(wanted, begin, group.size)
            for piece in self.pieces(group) if len(wanted[inside]) else ():
                here = _between(wanted, begin, len(piece))
                if len(wanted[here]):
                    yield slots[here], self.encode(piece.take(wanted[here] - begin))
                begin += len(piece)

    def windows(self, epoch: int, seed: int | None = None, skip: int = 0) -> Iterator[Tensor]:
        """Give the places of an epoch's rows, int64 [n], a window at a time: shuffled, or with no
        seed as they stand. The first `skip` rows are left out.
        """
        groups = torch.arange(len(self.groups))
        if seed is not None:
            groups = torch.randperm(len(groups), generator=generator("groups", seed, epoch))
        for number, members in enumerate(self._packed(groups.tolist())):
            rows = sum(self.groups[k].size for k in members)
            if skip < rows:
                places = torch.cat([self._places(k) for k in members])
                if seed is not None:
                    draws = generator("window", seed, epoch, number)
                    places = places[torch.randperm(rows, generator=draws)]
                yield places[skip:]
            skip = max(skip - rows, 0)

    def _packed(self, groups: Sequence[int]) -> Iterator[list[int]]:
        members, rows = list[int](), 0
        for k in groups:
            members, rows = [*members, k], rows + self.groups[k].size
            if rows >= self.window:
                yield members
                members, rows = [], 0
        if members:
            yield members

    def _places(self, k: int) -> Tensor:
        return torch.arange(self.begins[k], self.begins[k] + self.groups[k].size)

    def row_numbers(self, places: Tensor) -> Tensor:
        """Give the row numbers of places: int64 [n]."""
        owners = np.searchsorted(self.begins, places.numpy(), side="right") - 1
        found = np.empty(len(places), dtype=np.int64)
        for k in np.unique(owners):
            inside = places.numpy()[owners == k] - self.begins[k]
            found[owners == k] = self.groups[k].first + self.groups[k].places()[inside]
        return torch.from_numpy(found)

    def divide(self, part: Callable[[Group], np.ndarray], parts: int) -> tuple[Self, ...]:
        """Cut the rows into parts, by a function that gives the part of each row of a group that
        counts: int [size].
        """
        cut = list[list[Group]]()
        for group in self.groups:
            words = part(group)
            cut.append([group.keep(words == k) for k in range(parts)])
        return tuple(evolve(self, groups=groups) for groups in zip(*cut, strict=True))

    def without(self, rows: Collection[int]) -> Self:
        """Leave out rows by their numbers."""
        gone = np.fromiter(rows, dtype=np.int64)
        return self.divide(lambda group: np.isin(group.first + group.places(), gone), 2)[0]

    def digest(self, columns: Collection[str] | None = None) -> dict[str, str]:
        """Fingerprint columns, all by default: SHA-256 of the files' bytes for them, and of which
        rows count. Files that say the same in other bytes have another.
        """
        hashes = {name: hashlib.sha256() for name in columns or self.columns}
        for group in self.groups:
            for name, hashed in hashes.items():
                for leaf, content in _hashes(group)[group.number].items():
                    if f"{leaf}.".startswith(f"{name}."):
                        hashed.update(content)
                hashed.update(b"" if group.used is None else group.used.tobytes())
        return {name: hashed.hexdigest() for name, hashed in hashes.items()}


AnyTable = TypeVar("AnyTable", Table, Shards)
"""Rows of one of the two kinds, and the same kind again."""


def _only(schema: pa.Schema, columns: Collection[str]) -> pa.Schema:
    return import_pyarrow().schema([field for field in schema if field.name in columns])


def _between(wanted: Tensor, begin: int, rows: int) -> slice:
    return slice(*torch.searchsorted(wanted, torch.tensor([begin, begin + rows])).tolist())


def _in_place(parts: Iterator[tuple[Tensor, Any]], rows: int) -> Any:
    (slots, first), parts = peek(parts)
    if isinstance(first, Table):
        places, tables = zip(*parts, strict=True)
        return concat(list(tables)).take(torch.cat(places).argsort())
    # Into their place a piece at a time: two copies of a window would not be small.
    whole = map_tree(lambda leaf: leaf.new_empty((rows, *leaf.shape[1:])), first)
    for slots, part in parts:
        for (_, to), (_, leaf) in zip(leaves(whole), leaves(part), strict=True):
            to[slots] = leaf
    return whole


def stream(path: str | Path, window: int = WINDOW) -> Shards:
    """Open Parquet files whose rows memory need not hold: a file, a folder or a pattern.

    Only the files' footers are read. Raises DataError for what `read` raises it for, and for
    tables that are not Parquet.
    """
    path = Path(path)
    try:
        files = files_of(path)
        footers, schemas = zip(*map(_footer, files), strict=True) if files else ((), ())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not files:
        raise DataError(f"{path}: holds no .parquet files")
    root = path if path.is_dir() else path.parent
    check_same(name_of(path), files, [{f.name: str(f.type) for f in each} for each in schemas])
    groups = tuple(_groups(files, footers))
    if not groups:
        raise DataError(f"{name_of(path)}: the table has no rows")
    shards = Shards(name_of(path), root, schemas[0].remove_metadata(), groups, window)
    # As pandas reads them: without columns that hold its index.
    columns = from_arrow(schemas[0].empty_table(), root, name_of(path)).columns
    for column in sorted(set(columns) - set(shards.columns)):
        raise DataError(f"{shards.name}: what pandas noted names a column '{column}' that is none")
    return shards.select(columns)


def _footer(path: Path) -> tuple[Any, pa.Schema]:
    if path.suffix.lower() != ".parquet":
        raise DataError(f"{path}: only .parquet files can be streamed")
    with parquet(path) as file:
        check_unique(file.schema_arrow.names, "in the schema")
        return file.metadata, file.read_row_groups([]).schema


def _groups(files: Sequence[Path], footers: Sequence[Any]) -> Iterator[Group]:
    first = 0
    for path, footer in zip(files, footers, strict=True):
        for number in range(footer.num_row_groups):
            rows = footer.row_group(number).num_rows
            if rows:
                yield Group(path, footer, number, first, rows, rows)
            first += rows


def _decoded(group: Group, schema: pa.Schema) -> Iterator[pa.Table]:
    pa, rows = import_pyarrow(), 0
    words = [
        f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)
    ]
    with parquet(group.path, group.footer, words) as file:
        for batch in file.iter_batches(PIECE, [group.number], schema.names):
            batch.validate(full=True)
            rows += len(batch)
            # With `a`, Arrow gives `a.b` too.
            yield pa.Table.from_batches([batch]).select(schema.names).replace_schema_metadata()
        if rows != group.rows:
            raise ValueError(f"row group {group.number} has {rows} rows, not {group.rows}")


def _hashes(group: Group) -> Sequence[Mapping[str, bytes]]:
    try:
        about = group.path.stat()
        return _hashed(group.path, group.footer, about.st_size, about.st_mtime_ns)
    except OSError as error:
        raise DataError(f"{group.path}: cannot be read: {error}") from error


@lru_cache(maxsize=4096)
def _hashed(path: Path, footer: Any, size: int, changed: int) -> Sequence[Mapping[str, bytes]]:
    # Of bytes and not of cells, which would take minutes; once for all parts of a table.
    with path.open("rb") as file:
        groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        return [
            dict(_leaf(file, group.column(k)) for k in range(group.num_columns)) for group in groups
        ]


def _leaf(file: BinaryIO, about: Any) -> tuple[str, bytes]:
    file.seek(about.dictionary_page_offset or about.data_page_offset)
    return about.path_in_schema, hashlib.sha256(file.read(about.total_compressed_size)).digest()
