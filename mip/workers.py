"""Work shared among processes: a map whose results come in order."""

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
"""Seconds that a process has to clean up when it is stopped, before it ends itself."""


def parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int = 1
) -> Generator[Result, None, None]:
    """Apply a function to items, in so many processes with a thread of torch's each; with one
    worker, in this process. Results come in the order of the items, each as soon as it is there.

    Items are taken as they are needed. The processes are stopped when the iterator is closed, as
    Ctrl-C or an error in it does, and when this process ends, however it ends. Raises MipError
    where something cannot be sent to a process, and where a process ends without an answer;
    ValueError for fewer than one worker; and what the function raises.

    >>> list(parallel_map(abs, [-1, 2]))
    [1, 2]
    """
    if workers < 1:
        raise ValueError(f"'workers' must be >= 1: {workers}")
    if workers == 1:
        yield from map(function, items)
        return
    # A process that is forked inherits torch's locks as they stand, so each one starts afresh.
    context = get_context("spawn")
    alive, ours = context.Pipe(duplex=False)
    with _unheard():
        pool = ProcessPoolExecutor(workers, context, _begin, (alive,))
    try:
        for future in _ahead(pool, function, items, 2 * workers):
            yield pickle.loads(future.result())  # noqa: S301 - a process of ours wrote it
    except BrokenProcessPool as error:
        raise MipError(
            "a worker process ended without an answer: out of memory, or a script that starts "
            "workers outside of `if __name__ == '__main__':`"
        ) from error
    finally:
        ours.close()  # which stops whoever is still at work
        pool.shutdown(cancel_futures=True)
        alive.close()


def _ahead(
    pool: ProcessPoolExecutor, function: Callable[[Any], Any], items: Iterable[Any], most: int
) -> Iterator[Future[bytes]]:
    waiting: deque[Future[bytes]] = deque()
    for item in items:
        work = _sent((function, item))
        with _unheard():
            waiting.append(pool.submit(_applied, work))
        while waiting and (waiting[0].done() or len(waiting) >= most):
            yield waiting.popleft()
    yield from waiting


def _sent(work: object) -> bytes:
    # Left to the pool, tensors would travel as shared memory, which ends with its process.
    try:
        return pickle.dumps(work)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise MipError(
            f"cannot be sent to a worker process ({error}): define kinds and hooks at the top of a "
            "module, or take one worker"
        ) from error


@contextmanager
def _unheard() -> Iterator[None]:
    # A process that is started here never hears Ctrl-C, or its terminal's end: its parent does.
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# In the processes.


def _begin(alive: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _exit)
    Thread(target=_end_with_parent, args=(alive,), daemon=True).start()
    torch.set_num_threads(1)


def _exit(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)  # so that temporary folders are removed


def _end_with_parent(alive: Connection) -> None:
    wait([alive])  # until its other end is closed, by the parent or with it
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


def _applied(work: bytes) -> bytes:
    try:
        function, item = pickle.loads(work)  # noqa: S301 - `_sent` wrote it
        return pickle.dumps(function(item))
    except SystemExit:
        os._exit(1)  # stopped: nobody waits for an answer
    except Exception as error:
        if _is_sendable(error):
            raise
        raise RuntimeError(f"{type(error).__name__}: {error}") from error


def _is_sendable(error: Exception) -> bool:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - what was just written
    except Exception:  # an error of a class that pickle cannot make again
        return False
    return True
