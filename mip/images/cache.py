"""The cache: encoded photos in memory-mapped files, decoded once and shared by all processes.

A record of a file belongs to a row id and carries a digest of the row's cells; if the digest
differs, the row is encoded again. Pixels reach the disk before their digest, so a process that is
killed, or a machine that loses power, leaves records that are encoded again. Processes that fill
the same record write the same bytes, so no lock is needed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor

from mip.data import PhotoName, Table, content_key
from mip.errors import DataError, MipWarning
from mip.images.photo_files import find_photo, photos_of
from mip.tree import Tree

FORMAT = 1


FILE_NAME = re.compile(r".+-[0-9a-f]{16}\.rows")
"""The names of cache files: that of the table, and a digest of all that decides about records."""


Encode = Callable[[Table], Mapping[str, Any]]
"""Encodes rows to tensors by name."""


Shapes = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""The dtype and shape of one row of each tensor, by name; those of larger dtypes come first."""


def default_cache_folder() -> Path:
    """Return the folder of caches: `$MIP_CACHE`, or `mip` in the user's cache folder."""
    user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MIP_CACHE") or Path(user_cache) / "mip")


def _byte_budget() -> int:
    return int(os.environ.get("MIP_CACHE_BYTES", 20 << 30))


@frozen(eq=False)
class CachedRows:
    """Encoded rows in a memory-mapped file: a leaf of a tree of tensors that rows are taken from.

    A row's id is the index of its record in the file: a digest of the row's cells in eight bytes,
    then its tensors, all as int64, which is gathered faster than bytes. When a row is taken whose
    record has another digest, it is encoded, so that changed photos are decoded again, and no
    others. The pixels reach the disk before the digest; processes that write the same record write
    the same bytes.
    """

    table: Table
    encode: Encode
    shapes: Shapes
    row_ids: Tensor
    digests: Tensor
    records: Tensor
    path: Path

    def __len__(self) -> int:
        return len(self.table)

    def take(self, index: Tensor) -> Tree:
        """Gather rows by index, int64 [m]: each tensor as `encode` would return it."""
        records = self.records.index_select(0, self.row_ids.index_select(0, index))
        stale = (records[:, 0] != self.digests.index_select(0, index)).nonzero().flatten()
        if len(stale):
            records[stale] = self._fill(index[stale])
        return self._split(records.view(torch.uint8))

    def _fill(self, index: Tensor) -> Tensor:
        tensors = self.encode(self.table.take(index))
        row_ids, digests = self.row_ids[index], self.digests[index]
        parts = [tensors[name].view(torch.uint8).flatten(1) for name in self.shapes]
        row_bytes = torch.cat(parts, dim=1)
        values = F.pad(row_bytes, (0, -row_bytes.shape[1] % 8)).view(torch.int64)
        self.records[row_ids, 1:] = values
        _sync(self.path)
        self.records[row_ids, 0] = digests
        return torch.cat([digests[:, None], values], dim=1)

    def _split(self, records: Tensor) -> Tree:
        tensors, begin = {}, 8
        for name, (dtype, shape) in self.shapes.items():
            end = begin + prod(shape) * dtype.itemsize
            tensors[name] = records[:, begin:end].view(dtype).unflatten(1, shape)
            begin = end
        return tensors


@frozen(eq=False)
class LazyRows:
    """Rows that are encoded whenever they are taken: a leaf, as `CachedRows` is."""

    table: Table
    encode: Encode

    def __len__(self) -> int:
        return len(self.table)

    def take(self, index: Tensor) -> Tree:
        """Encode rows by index, int64 [m]."""
        return self.encode(self.table.take(index))


def _sync(path: Path) -> None:
    if not path.exists():
        return  # the cache was cleared; the mapping lives on, and nothing has to last
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_cache(
    table: Table,
    columns: Sequence[str],
    encode: Encode,
    shapes: Shapes,
    key: Sequence[Any],
    folder: Path,
) -> CachedRows | None:
    """Open the file of the folder for a table's encoded rows, whose name depends on the table and
    on the `key`: all that decides how the image `columns` are encoded.

    Reads the size and modification time of every photo once. Returns None, with a MipWarning, if
    the budget (`$MIP_CACHE_BYTES`, 20 GiB) or the disk is too small; the files that have not been
    used for longest make room.
    """
    n_bytes = sum(prod(shape) * dtype.itemsize for dtype, shape in shapes.values())
    length = 1 + -(-n_bytes // 8)
    count = 1 + max(table.row_ids.tolist(), default=0)
    parts = (FORMAT, os.path.realpath(table.root or "."), *key, 8 * length)
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()
    path = folder / f"{re.sub(r'[^A-Za-z0-9.]+', '-', table.name)}-{digest}.rows"
    try:
        _reserve(path, 8 * count * length)
    except OSError as error:
        warnings.warn(f"{folder}: photos are not cached: {error}", MipWarning, stacklevel=2)
        return None
    records = torch.from_file(str(path), shared=True, size=count * length, dtype=torch.int64)
    return CachedRows(
        table=table,
        encode=encode,
        shapes=shapes,
        row_ids=torch.tensor(table.row_ids),
        digests=_digests(table, columns),
        records=records.view(count, length),
        path=path,
    )


def _digests(table: Table, columns: Sequence[str]) -> Tensor:
    rows = zip(*(photos_of(table, column) for column in columns), strict=True)
    return torch.tensor([_digest(photos) for photos in rows], dtype=torch.int64)


def _digest(columns: Sequence[Sequence[Any]]) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for photos in columns:
        digest.update(b"|")
        for photo in photos:
            digest.update(_version_of(photo).encode(errors="surrogatepass"))
    return int.from_bytes(digest.digest(), "little", signed=True) or 1  # an empty record has 0


def _version_of(photo: Any) -> str:
    if not isinstance(photo, PhotoName):
        return content_key(photo)
    try:
        stat = find_photo(photo).stat()
        return f"{photo.text!r} {photo.template} {stat.st_size} {stat.st_mtime_ns}"
    except (DataError, OSError):
        return f"{photo.text!r} absent"


def _reserve(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    present = path.stat().st_size if path.exists() else 0
    if size > present:
        _make_room(path, size, _byte_budget())
    with path.open("ab") as file:
        _allocate(file.fileno(), max(size, present))
    os.utime(path)


def _allocate(handle: int, size: int) -> None:
    # Writing to a sparse file would kill the process when the disk is full.
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:
        os.ftruncate(handle, size)


def _make_room(path: Path, size: int, budget: int) -> None:
    others = sorted((f for f in _files(path.parent) if f != path), key=lambda f: f.stat().st_mtime)
    used = sum(file.stat().st_size for file in others)
    while others and used + size > budget:
        used -= others[0].stat().st_size
        others.pop(0).unlink(missing_ok=True)
    free = shutil.disk_usage(path.parent).free
    if size > min(budget, free):
        raise OSError(f"{size:,} bytes are needed, the budget is {budget:,} and {free:,} are free")


def _files(folder: Path) -> list[Path]:
    # Files of others with the same ending are not ours to remove.
    return sorted(path for path in folder.glob("*.rows") if FILE_NAME.fullmatch(path.name))


def list_caches(folder: Path) -> list[tuple[str, int, float]]:
    """List the caches of a folder: name, bytes, and time of last use in seconds."""
    return [(f.name, f.stat().st_size, f.stat().st_mtime) for f in _files(folder)]


def clear_caches(folder: Path) -> int:
    """Remove a folder's caches and return their size in bytes. Runs that use them are not
    disturbed.
    """
    freed = 0
    for path in _files(folder):
        freed += path.stat().st_size
        path.unlink(missing_ok=True)
    return freed
