"""IDX files, the format of MNIST."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from mip.data.memory import from_columns
from mip.data.paths import matching_files
from mip.data.reading import check_filled
from mip.data.table import Table
from mip.errors import DataError, hint

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
    return check_filled(from_columns(cells, Path(images).parent, Path(images).name))


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
        near = [p.name for p in matching_files(path.parent, "*ubyte*")]
        raise DataError(f"{path}: there is no such idx file{hint(path.name, near)}")
    data = path.read_bytes()
    try:
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path.name}: a damaged gzip file: {error}") from error
