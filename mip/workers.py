"""Work shared among processes: a map whose results come in order."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, count, islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from threading import Thread
from traceback import format_exc
from typing import TypeVar, cast

import torch

from mip.errors import MipError

Item = TypeVar("Item")
Result = TypeVar("Result")

GRACE = 2.0
"""Seconds that a process has to clean up when it is stopped, before it is killed."""


def mapped(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int = 1
) -> Generator[Result, None, None]:
    """Apply a function to items, in so many processes with a thread of torch's each; with one
    worker, in this process. Results come in the order of the items, each as soon as it is there.

    Items are taken as they are needed. The processes are stopped when the iterator is closed, as
    Ctrl-C or an error in it does, and when this process ends, however it ends. Raises MipError
    where something cannot be sent to a process, and where a process ends without an answer;
    ValueError for fewer than one worker; and what the function raises.

    >>> list(mapped(abs, [-1, 2]))
    [1, 2]
    """
    if workers < 1:
        raise ValueError(f"'workers' must be >= 1: {workers}")
    if workers == 1:
        yield from map(function, items)
        return
    works = (_sent((function, item)) for item in items)
    first = list(islice(works, workers))
    with _processes(len(first)) as ends:
        for answer in _answers(ends, chain(first, works), 2 * workers):
            result, error = pickle.loads(answer)  # noqa: S301 - a process of ours wrote it
            if error is not None:
                raise error
            yield result


def _sent(work: object) -> bytes:
    # Sent as they are, tensors would travel as shared memory, which ends with its process.
    try:
        return pickle.dumps(work)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise MipError(
            f"cannot be sent to a worker process ({error}): define kinds and hooks at the top of a "
            "module, or take one worker"
        ) from error


@contextmanager
def _processes(number: int) -> Iterator[list[Connection]]:
    # A process that is forked inherits torch's locks as they stand, so each one starts afresh.
    context = get_context("spawn")
    ends: list[Connection] = []
    started: list[SpawnProcess] = []
    try:
        for _ in range(number):
            end, theirs = context.Pipe()
            ends.append(end)
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            with _without_ctrl_c():
                process.start()
            started.append(process)
            theirs.close()
        yield ends
    except BaseException:
        for one in started:
            one.terminate()
        raise
    finally:
        for end in ends:
            end.close()
        _join(started)


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    # A process that is started here never hears the Ctrl-C of its terminal: its parent does.
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _join(processes: Sequence[SpawnProcess]) -> None:
    end = time.monotonic() + GRACE
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
        process.kill()
        process.join()


def _answers(ends: Sequence[Connection], works: Iterator[bytes], most: int) -> Iterator[bytes]:
    """Hand works to idle processes, `most` of them ahead; give the answers in the works' order."""
    idle, doing, taken = list(ends), dict[Connection, int](), 0
    answers: dict[int, bytes] = {}
    for due in count():
        while True:
            while idle and taken < due + most and (work := next(works, None)) is not None:
                with _death_told():
                    idle[-1].send_bytes(work)
                doing[idle.pop()] = taken
                taken += 1
            if due in answers or not doing:
                break
            for end in cast(list[Connection], wait(list(doing))):
                with _death_told():
                    answers[doing.pop(end)] = end.recv_bytes()
                idle.append(end)
        if due not in answers:
            return
        yield answers.pop(due)


@contextmanager
def _death_told() -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise MipError(
            "a worker process ended without an answer: out of memory, or a script that starts "
            "workers outside of `if __name__ == '__main__':`"
        ) from error


# In the processes.


def _serve(end: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _exit)
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    with suppress(EOFError, ConnectionError):  # there is no more to do, or nobody to do it for
        while True:
            end.send_bytes(_answer(end.recv_bytes()))


def _exit(number: int, frame: object) -> None:
    raise SystemExit(128 + number)  # so that temporary folders are removed


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


def _answer(work: bytes) -> bytes:
    try:
        function, item = pickle.loads(work)  # noqa: S301 - `_sent` wrote it
        return pickle.dumps((function(item), None))
    except Exception as error:
        error.add_note(f"in a worker process:\n{format_exc()}")  # a traceback cannot be sent
        return pickle.dumps((None, _sendable(error)))


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - what was just written
    except Exception:  # an error of a class that pickle cannot make again
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
