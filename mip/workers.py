"""Work shared among processes: a map whose results come in order."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

import torch

from mip.errors import MipError

Item = TypeVar("Item")
Result = TypeVar("Result")


def mapped(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int = 1
) -> Iterator[Result]:
    """Apply a function to items, in so many processes with a thread of torch's each; with one
    worker, in this process. Results come in the order of the items, each as soon as it is there.

    Items are taken as they are needed. Raises MipError where something cannot be sent to a
    process, and where a process ends without an answer; ValueError for fewer than one worker.

    >>> list(mapped(abs, [-1, 2]))
    [1, 2]
    """
    if workers < 1:
        raise ValueError(f"'workers' must be >= 1: {workers}")
    if workers == 1:
        yield from map(function, items)
        return
    # A process that is forked inherits torch's locks as they stand, so each one starts afresh.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _alone)
    try:
        for future in _ahead(pool, function, items, 2 * workers):
            yield pickle.loads(future.result())  # noqa: S301 - a process of ours wrote it
    except BrokenProcessPool as error:
        raise MipError(
            "a worker process ended without an answer: out of memory, or a script that starts "
            "workers outside of `if __name__ == '__main__':`"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _ahead(
    pool: ProcessPoolExecutor, function: Callable[[Any], Any], items: Iterable[Any], most: int
) -> Iterator[Future[bytes]]:
    waiting: deque[Future[bytes]] = deque()
    for item in items:
        waiting.append(pool.submit(_applied, _sent((function, item))))
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


def _applied(work: bytes) -> bytes:
    function, item = pickle.loads(work)  # noqa: S301 - `_sent` wrote it
    return pickle.dumps(function(item))


def _alone() -> None:
    torch.set_num_threads(1)
