"""Folder locks: while a process holds one, no other trains into the folder.

It is the operating system's lock on an open file in the folder. It ends with the process, however
that ends, so no file that is left behind can block. The file names its holder, for the error that a
second process gets, and is removed while it is locked. A thread that holds a folder may lock it
again (`mip fit` around `run`). Systems without file locks get a warning instead.
"""

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
"""The file whose lock is the folder's; it exists while the lock is held."""


_HELD: ContextVar[frozenset[Path]] = ContextVar("held", default=frozenset())


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Hold the lock of a folder. A missing folder is created, and removed again if it stays empty.

    The operating system locks an open file, so the lock ends with its process, however that ends.
    It is reentrant within a thread. Raises FileError naming the process that holds the lock, or
    why the folder cannot be written, and for an address. Warns with MipWarning, and does not lock,
    on systems without file locks.
    """
    check_local(folder)
    folder = Path(folder)
    full = Path(os.path.realpath(folder))
    if full in _HELD.get():
        yield
        return
    created = [path for path in (full, *full.parents) if not path.exists()]
    handle, before = _acquire(folder), _HELD.set(_HELD.get() | {full})
    try:
        yield
    finally:
        _HELD.reset(before)
        # Removed while it is locked, or another process might lock it just before that. The full
        # path, because the process may have changed its working directory.
        with suppress(OSError):
            (full / LOCK).unlink()
        os.close(handle)
        with suppress(OSError):  # mostly not empty: a run has been written into it
            for path in created:
                path.rmdir()


def _acquire(folder: Path) -> int:
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise FileError(f"{folder}: cannot be written ({error.strerror or error})") from error
        try:
            is_locked = _flock(handle, folder)
        except BlockingIOError as error:
            # Locked and not signed yet, for a moment.
            holder = os.pread(handle, 200, 0).decode(errors="replace") or "another process"
            os.close(handle)
            text = f"{holder} trains into this folder now; wait for it, or choose another"
            raise FileError(f"{folder}: {text}") from error
        # A former holder may have removed the file after it was opened here and before its lock.
        if not is_locked or _is_at(handle, folder / LOCK):
            with suppress(OSError):  # on a full disk the lock is held without a name
                os.ftruncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
            return handle
        os.close(handle)


def _flock(handle: int, folder: Path) -> bool:
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except (ImportError, OSError) as error:
        text = f"is not locked ({error}): let one process at a time train into it"
        warnings.warn(f"{folder}: {text}", MipWarning, stacklevel=5)
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
