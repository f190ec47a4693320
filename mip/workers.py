"""Worker processes: a parallel map whose results come in order.

Processes are spawned. Tasks and results are pickled bytes in pipes between our own processes, never
in a file. A worker waits in a thread for the end of its parent, and then has two seconds to remove
its temporary folders.
"""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import Any, NoReturn, TypeVar

import torch

from mip.errors import MipError

Item = TypeVar("Item")


Result = TypeVar("Result")


GRACE = 2.0
"""Seconds that a worker has to clean up after its parent is gone, before it is ended."""


def parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int = 1
) -> Generator[Result, None, None]:
    """Apply a function to items in worker processes, each with one thread of torch's; with one
    worker, in this process. Results are yielded in the order of the items, as soon as they are
    there.

    Items are taken only as they are needed. The workers stop when the iterator is closed, as on
    Ctrl-C or an exception, and when this process ends in any way. Raises MipError if something
    cannot be sent to a worker, and if a worker ends without a result; ValueError for fewer than one
    worker; and what the function raises.

    >>> list(parallel_map(abs, [-1, 2]))
    [1, 2]
    """
    if workers < 1:
        raise ValueError(f"'workers' must be >= 1: {workers}")
    if workers == 1:
        yield from map(function, items)
        return
    # A forked process would inherit torch's locks in whatever state they are.
    context = get_context("spawn")
    alive, ours = context.Pipe(duplex=False)
    with _signals_blocked():
        pool = ProcessPoolExecutor(workers, context, _init_worker, (alive,))
    try:
        for future in _submit_ahead(pool, function, items, 2 * workers):
            yield pickle.loads(future.result())  # noqa: S301 - a worker of ours wrote it
    except BrokenProcessPool as error:
        raise MipError(
            "a worker process ended without a result: it ran out of memory, or the script starts "
            "workers outside of `if __name__ == '__main__':`"
        ) from error
    finally:
        ours.close()  # stops the workers that are still busy
        pool.shutdown(cancel_futures=True)
        alive.close()


def _submit_ahead(
    pool: ProcessPoolExecutor, function: Callable[[Any], Any], items: Iterable[Any], ahead: int
) -> Iterator[Future[bytes]]:
    pending: deque[Future[bytes]] = deque()
    for item in items:
        task = _pickled((function, item))
        with _signals_blocked():
            pending.append(pool.submit(_run_task, task))
        while pending and (pending[0].done() or len(pending) >= ahead):
            yield pending.popleft()
    yield from pending


def _pickled(task: object) -> bytes:
    # The pool's own pickling would send tensors as shared memory, which ends with its process.
    try:
        return pickle.dumps(task)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise MipError(
            f"cannot be sent to a worker process ({error}): define kinds and hooks at the top of a "
            "module, or use one worker"
        ) from error


@contextmanager
def _signals_blocked() -> Iterator[None]:
    # Processes started here never receive Ctrl-C or a hangup of the terminal; their parent does.
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# What runs in the workers:


def _init_worker(alive: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, args=(alive,), daemon=True).start()
    torch.set_num_threads(1)


def _exit(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)  # so that temporary folders are removed


def _end_with_parent(alive: Connection) -> None:
    wait([alive])  # until the parent closes its end, or is gone
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


def _run_task(task: bytes) -> bytes:
    try:
        signal.signal(signal.SIGTERM, _exit)  # before, there is nothing to clean up
        function, item = pickle.loads(task)  # noqa: S301 - `_pickled` wrote it
        return pickle.dumps(function(item))
    except SystemExit:
        os._exit(1)  # stopped: nobody waits for the result
    except Exception as error:
        if _is_sendable(error):
            raise
        raise RuntimeError(f"{type(error).__name__}: {error}") from error


def _is_sendable(error: Exception) -> bool:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - just pickled
    except Exception:  # an exception class that cannot be unpickled
        return False
    return True
