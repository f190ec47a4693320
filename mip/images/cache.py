"""The cache: encoded photos in memory-mapped files, decoded once and shared by all processes."""

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

from mip.data import Table, content, photos_of
from mip.errors import MipWarning
from mip.tree import Tree

FORMAT = 1


CACHE = re.compile(r".+-[0-9a-f]{16}\.rows")
"""The names of cache files: that of the table, and a digest of what decides the records."""


Shapes = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""Names to dtype and shape of one row; every dtype takes one byte."""


def default_folder() -> Path:
    """Give the folder of caches: `$MIP_CACHE`, or `mip` in the user's folder for caches."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MIP_CACHE") or Path(cache) / "mip")


def default_budget() -> int:
    """Give the bytes that a folder of caches may take: `$MIP_CACHE_BYTES`, or 20 GiB. The files
    not used for longest make room for others.
    """
    return int(os.environ.get("MIP_CACHE_BYTES", 20 << 30))


@frozen(eq=False)
class Kept:
    """Encoded rows that lie in a memory-mapped file: a leaf of a tree that rows are taken from.

    A record of the file belongs to a row's number: eight bytes that mark its content, then its
    tensors, in words of int64, for these are gathered faster than bytes. A record whose mark is
    not that of the row is encoded when it is first taken, so that what has changed is done anew
    and nothing else. The pixels reach the disk before their mark; processes that write the same
    record write the same bytes.
    """

    table: Table
    encode: Callable[[Table], dict[str, Tensor]]
    shapes: Shapes
    rows: Tensor
    marks: Tensor
    records: Tensor
    path: Path

    def __len__(self) -> int:
        return len(self.table)

    def take(self, index: Tensor) -> Tree:
        """Gather rows by place, int64 [m]: each tensor as `encode` would give it."""
        found = self.records.index_select(0, self.rows.index_select(0, index))
        stale = (found[:, 0] != self.marks.index_select(0, index)).nonzero().flatten()
        if len(stale):
            found[stale] = self._filled(index[stale])
        return self._tree(found.view(torch.uint8))

    def _filled(self, index: Tensor) -> Tensor:
        tree, rows, marks = self.encode(self.table.take(index)), self.rows[index], self.marks[index]
        parts = torch.cat([tree[name].view(torch.uint8).flatten(1) for name in self.shapes], dim=1)
        fresh = F.pad(parts, (0, -parts.shape[1] % 8)).view(torch.int64)
        self.records[rows, 1:] = fresh
        _sync(self.path)
        self.records[rows, 0] = marks
        return torch.cat([marks[:, None], fresh], dim=1)

    def _tree(self, records: Tensor) -> Tree:
        tree, begin = {}, 8
        for name, (dtype, shape) in self.shapes.items():
            part = records[:, begin : begin + prod(shape)]
            tree[name], begin = part.view(dtype).unflatten(1, shape), begin + prod(shape)
        return tree


@frozen(eq=False)
class Lazy:
    """Rows that are encoded anew whenever they are taken."""

    table: Table
    encode: Callable[[Table], dict[str, Tensor]]

    def __len__(self) -> int:
        return len(self.table)

    def take(self, index: Tensor) -> Tree:
        """Encode rows by place, int64 [m]."""
        return self.encode(self.table.take(index))


def _sync(path: Path) -> None:
    if not path.exists():
        return  # cleared by somebody; the mapping lives on, and nothing has to last
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def keep(
    table: Table,
    columns: Sequence[str],
    encode: Callable[[Table], dict[str, Tensor]],
    shapes: Shapes,
    key: Sequence[Any],
    folder: Path,
) -> Kept | None:
    """Lay encoded rows into a file of the folder, named by the table and the key.

    Looks at every photo's size and time of change once. None, with a MipWarning, where the
    budget or the disk is too small.
    """
    length = 1 + -(-sum(prod(shape) for _, shape in shapes.values()) // 8)
    numbers = table.rows
    rows = 1 + max(numbers.tolist(), default=0)
    about = (FORMAT, os.path.realpath(table.root or "."), *key, 8 * length)
    digest = hashlib.blake2b(repr(about).encode(), digest_size=8).hexdigest()
    path = folder / f"{re.sub(r'[^A-Za-z0-9.]+', '-', table.name)}-{digest}.rows"
    if not _reserved(path, 8 * rows * length):
        return None
    records = torch.from_file(str(path), shared=True, size=rows * length, dtype=torch.int64)
    marks = _of(table, columns)
    return Kept(table, encode, shapes, numbers, marks, records.view(rows, length), path)


def _of(table: Table, columns: Sequence[str]) -> Tensor:
    cells = zip(*(table.cells(name) for name in columns), strict=True)
    return torch.tensor([_mark(each, table.root or Path(".")) for each in cells], dtype=torch.int64)


def _mark(cells: Sequence[Any], root: Path) -> int:
    hashed = hashlib.blake2b(digest_size=8)
    for cell in cells:
        hashed.update(b"|")
        for photo in photos_of(cell):
            hashed.update(_content(photo, root).encode(errors="surrogatepass"))
    return int.from_bytes(hashed.digest(), "little", signed=True) or 1  # an empty record has 0


def _content(photo: Any, root: Path) -> str:
    if not isinstance(photo, str):
        return content(photo)
    try:
        about = os.stat(root / photo)
        return f"{photo!r} {about.st_size} {about.st_mtime_ns}"
    except (OSError, ValueError):
        return f"{photo!r} absent"


def _reserved(path: Path, size: int) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        here = path.stat().st_size if path.exists() else 0
        if size > here:
            _make_room(path, size, default_budget())
        with path.open("ab") as file:
            _allocate(file.fileno(), max(size, here))
        os.utime(path)
    except OSError as error:
        warnings.warn(f"{path.parent}: photos are not cached: {error}", MipWarning, stacklevel=3)
        return False
    return True


def _allocate(handle: int, size: int) -> None:
    # Space that is only promised would end the process when the disk is full.
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:
        os.ftruncate(handle, size)


def _make_room(path: Path, size: int, budget: int) -> None:
    others = sorted((f for f in _files(path.parent) if f != path), key=lambda f: f.stat().st_mtime)
    taken = sum(f.stat().st_size for f in others)
    while others and taken + size > budget:
        taken -= others[0].stat().st_size
        others.pop(0).unlink(missing_ok=True)
    free = shutil.disk_usage(path.parent).free
    if size > min(budget, free):
        raise OSError(f"{size:,} bytes are needed, the budget is {budget:,} and {free:,} are free")


def _files(folder: Path) -> list[Path]:
    # Files of others that end alike are not ours to remove.
    return sorted(path for path in folder.glob("*.rows") if CACHE.fullmatch(path.name))


def caches(folder: Path) -> list[tuple[str, int, float]]:
    """List the caches of a folder: name, bytes, and when each was last used (seconds)."""
    return [(f.name, f.stat().st_size, f.stat().st_mtime) for f in _files(folder)]


def clear(folder: Path) -> int:
    """Remove a folder's caches and give their bytes. Runs that use them go on undisturbed."""
    freed = 0
    for path in _files(folder):
        freed += path.stat().st_size
        path.unlink(missing_ok=True)
    return freed
