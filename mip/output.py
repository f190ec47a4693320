"""Output files: written whole or not at all, and never over an existing file by accident."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mip.errors import FileError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # a Path makes one slash of two


def check_local(path: str | Path) -> None:
    """Raise FileError for a URL, which would become a local folder of that name.

    >>> check_local("s3://bucket/model.safetensors")
    Traceback (most recent call last):
    mip.errors.FileError: s3://bucket/model.safetensors: is an address; give a path on this machine
    """
    if _URL.match(str(path)):
        raise FileError(f"{path}: is an address; give a path on this machine")


def check_output(
    path: str | Path, overwrite: bool = False, inputs: Iterable[str | Path] = ()
) -> None:
    """Raise FileError if a file must not be written: over one of the `inputs`, over anything but a
    regular file, or, without `overwrite`, over any file at all. URLs are refused too.

    This is the one place that decides what may be replaced: all code that writes a file calls it,
    and the command line calls it before it starts to work.

    >>> check_output("/dev/null", overwrite=True)
    Traceback (most recent call last):
    mip.errors.FileError: /dev/null: is not a regular file
    """
    check_local(path)
    path = Path(path)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:  # a loop of links, a name too long, a NUL in it
        raise FileError(f"{path}: cannot be written ({reason(error)})") from error
    if any(same_file(path, other) for other in inputs):
        raise FileError(f"{path}: is an input and is not written over; choose another name")
    if stat.S_ISDIR(mode):
        raise FileError(f"{path}: is a folder; give the name of a file")
    if not stat.S_ISREG(mode):
        raise FileError(f"{path}: is not a regular file")
    if not overwrite:
        raise FileError(
            f"{path}: exists already; choose another name, or replace it with --force "
            "(overwrite=True in Python)"
        )


def reason(error: OSError | ValueError) -> str:
    """Return what the operating system reports, without error number and path."""
    return getattr(error, "strerror", None) or str(error)


def same_file(path: str | Path, other: str | Path) -> bool:
    """Return whether two paths lead to one file, also through links; False if either is missing."""
    with suppress(OSError):
        return os.path.samefile(path, other)
    return False


def write(path: str | Path, data: bytes, *, overwrite: bool = False, sync: bool = True) -> None:
    """Write a file whole or not at all. Without `overwrite`, a file with exactly these bytes is
    left as it is.

    Raises FileError as `check_output` does, and when the file or its folder cannot be written.
    For `sync` see `replacing`.
    """
    if not overwrite and holds(path, data):
        return
    with replacing(path, overwrite=overwrite, sync=sync) as file:
        file.write(data)


def append(path: str | Path, data: bytes) -> None:
    """Append to a file, all of the data or none of it; the disk is not waited for.

    Raises FileError if the file cannot be written.
    """
    try:
        with open(path, "ab", buffering=0) as file:
            size = file.tell()
            try:
                if file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(size)
                raise
    except OSError as error:
        raise FileError(f"{path}: cannot be written ({reason(error)})") from error


def holds(path: str | Path, data: bytes) -> bool:
    """Return whether a file exists and holds exactly these bytes."""
    with suppress(OSError, ValueError):
        has_length = os.path.isfile(path) and os.path.getsize(path) == len(data)
        return has_length and Path(path).read_bytes() == data
    return False


@contextmanager
def replacing(
    path: str | Path, *, overwrite: bool = False, sync: bool = True
) -> Iterator[BinaryIO]:
    """Open a file that is written whole or not at all: under a temporary name, then fsync, rename,
    and fsync of the folder. Links are followed.

    Readers see the old file or the new one, whatever stops the writer. Without `sync` this holds
    for crashes but not for power loss, and the disk is not waited for. Raises FileError as
    `check_output` does, and when the file or its folder cannot be written.
    """
    check_output(path, overwrite)
    target = Path(os.path.realpath(path))
    draft = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            yield file
            if sync:
                flush(file)
        os.replace(draft, target)
        if sync:
            _flush_folder(target.parent)
    except BaseException as error:
        with suppress(OSError):  # the folder itself is out of reach; the error says so
            draft.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise FileError(f"{path}: cannot be written ({reason(error)})") from error
        raise


def flush(file: BinaryIO) -> None:
    """Wait until everything written to an open file is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
