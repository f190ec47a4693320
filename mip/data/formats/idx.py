"""IDX files, the format of MNIST: a pair of files, images and labels."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from mip.data.checks import check_filled
from mip.data.memory import from_columns
from mip.data.paths import matching_files
from mip.data.table import Table
from mip.errors import DataError, hint


def read_idx(
    images: str | Path, labels: str | Path, columns: tuple[str, str] = ("image", "label")
) -> Table:
    """Read a pair of idx files, plain or gzipped: MNIST and its kin.

    The first column holds uint8 arrays [height, width], views of one array; the second int64
    labels. Raises DataError for a file that is missing, foreign, truncated or too long, and if the
    counts differ.

    >>> read_idx("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
    Traceback (most recent call last):
    mip.errors.DataError: train-images-idx3-ubyte.gz: there is no such idx file
    """
    images, labels = Path(images), Path(labels)
    pixels, classes = _read_array(images, dims=3), _read_array(labels, dims=1)
    if len(pixels) != len(classes):
        raise DataError(
            f"{images.name}: {len(pixels)} images, but {labels.name} has {len(classes)} labels"
        )
    cells = {columns[0]: pixels, columns[1]: classes.astype(np.int64)}
    return check_filled(from_columns(cells, images.parent, images.name))


def _read_array(path: Path, dims: int) -> np.ndarray:
    data = _read_bytes(path)
    header = 4 + 4 * dims
    if data[:4] != bytes([0, 0, 8, dims]) or len(data) < header:
        magic = data[:4].hex() or "none"
        raise DataError(f"{path.name}: not an idx{dims}-ubyte file (magic number {magic})")
    shape = np.frombuffer(data[4:header], dtype=">u4").tolist()
    size = len(data) - header
    if size != math.prod(shape):
        expected = " x ".join(map(str, shape))
        raise DataError(f"{path.name}: damaged idx file: {size} bytes of data, expected {expected}")
    # A copy, since torch warns of read-only arrays.
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape).copy()


def _read_bytes(path: Path) -> bytes:
    if not path.is_file():
        near = [p.name for p in matching_files(path.parent, "*ubyte*")]
        raise DataError(f"{path}: there is no such idx file{hint(path.name, near)}")
    data = path.read_bytes()
    try:
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path.name}: damaged gzip file: {error}") from error
