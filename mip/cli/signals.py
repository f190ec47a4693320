"""Signals: Ctrl-C, SIGTERM and a closed terminal end a command in one line."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import current_thread, main_thread
from types import FrameType


class Stopped(BaseException):
    """A signal that ends the command: its number, and what is kept and how to go on."""


AGAIN = "nothing is kept: the same command starts again"
"""What is said of a command that leaves nothing to go on from."""


@contextmanager
def stopping(kept: Callable[[], str]) -> Iterator[None]:
    """Say what is kept when a signal ends this block."""
    try:
        yield
    except Stopped as stop:
        raise Stopped(stop.args[0], kept()) from None


@contextmanager
def signals() -> Iterator[None]:
    """Raise Stopped at Ctrl-C, at SIGTERM, and when the terminal is closed."""

    def stop(number: int, frame: FrameType | None) -> None:
        if _is_importing(frame):
            end_while_loading(number, frame)
        raise Stopped(number, AGAIN)

    is_main = current_thread() is main_thread()  # no other can ask for signals
    numbers = [getattr(signal, name) for name in SIGNALS if is_main and hasattr(signal, name)]
    # What is ignored stays so, as nohup wants it.
    heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def end_while_loading(number: int, frame: object) -> None:
    """End the process in one line: a signal handler for the time in which modules are imported.

    An exception in the middle of an import may be taken for a module that is not there.
    """
    with suppress(OSError):
        os.write(2, b"mip: stopped while loading\n")
    os._exit(128 + number)
