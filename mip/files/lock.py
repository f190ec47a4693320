"""One process at a time: a folder that nobody else writes into while its lock is held."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from mip.errors import FileError, MipWarning
from mip.output import check_local

LOCK = ".mip-lock"
"""The file whose lock is the folder's; it is there while the lock is held."""


_HELD: ContextVar[frozenset[Path]] = ContextVar("held", default=frozenset())


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Hold a folder, which is made where it is missing; made for nothing, it is removed again.

    The lock is the operating system's, on an open file: it ends with its process, however that
    ends. Inside, the same thread may hold the folder again. Raises FileError naming the process
    that holds it, or why the folder cannot be written; for an address too. Where the system has no
    file locks a MipWarning says that the folder is not held.
    """
    check_local(folder)
    folder = Path(folder)
    full = Path(os.path.realpath(folder))
    if full in _HELD.get():
        yield
        return
    made = [each for each in (full, *full.parents) if not each.exists()]
    handle, before = _take(folder), _HELD.set(_HELD.get() | {full})
    try:
        yield
    finally:
        _HELD.reset(before)
        _give_back(full / LOCK, handle)  # whatever folder the process stands in by now
        _tidy(made)


def _take(folder: Path) -> int:
    while True:
        handle = _opened(folder)
        try:
            held = _flocked(handle, folder)
        except BlockingIOError as error:
            told = f"{_holder(handle)} trains into this folder now; wait for it, or choose another"
            os.close(handle)
            raise FileError(f"{folder}: {told}") from error
        # Whoever held it before may have removed the file between the opening and the locking.
        if not held or _is_at(handle, folder / LOCK):
            with suppress(OSError):  # on a full disk it is held without a name
                os.ftruncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
            return handle
        os.close(handle)


def _opened(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise FileError(f"{folder}: cannot be written ({error.strerror or error})") from error


def _flocked(handle: int, folder: Path) -> bool:
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except (ImportError, OSError) as error:
        told = f"is not locked ({error}): let one process at a time train into it"
        warnings.warn(f"{folder}: {told}", MipWarning, stacklevel=5)
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _holder(handle: int) -> str:
    # Taken and not signed yet, for a moment.
    return os.pread(handle, 200, 0).decode(errors="replace") or "another process"


def _give_back(path: Path, handle: int) -> None:
    # Removed while it is held, so that nobody holds a file that another then removes.
    with suppress(OSError):
        path.unlink()
    os.close(handle)


def _tidy(made: list[Path]) -> None:
    with suppress(OSError):  # most often it is not empty, for a run has been written into it
        for folder in made:
            folder.rmdir()
