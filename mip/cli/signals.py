"""Signals: Ctrl-C, SIGTERM and a closed terminal end a command in one line."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
"""The signals that end a command, where the system has them."""


NOTHING_KEPT = "nothing is kept: the same command starts again"
"""What a command says that leaves nothing to continue from."""


class Stopped(BaseException):
    """A signal has ended the command: its number, and what is kept and how to continue."""

    def __init__(self, number: int, what_is_kept: str) -> None:
        super().__init__(number, what_is_kept)
        self.number = number
        self.what_is_kept = what_is_kept


@contextmanager
def signals() -> Iterator[None]:
    """Raise Stopped at Ctrl-C, at SIGTERM, and when the terminal is closed."""

    def stop(number: int, frame: FrameType | None) -> None:
        if _is_importing(frame):
            end_while_loading(number, frame)
        raise Stopped(number, NOTHING_KEPT)

    # Only the main thread can ask for signals.
    before = set_handler(stop) if current_thread() is main_thread() else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def on_stop(what_is_kept: Callable[[], str]) -> Iterator[None]:
    """Say what is kept when a signal ends this block."""
    try:
        yield
    except Stopped as stopped:
        raise Stopped(stopped.number, what_is_kept()) from None


def set_handler(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Handle the signals that end a command, and return their handlers until now. Those that are
    ignored stay so, as nohup wants it.
    """
    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heard}


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def end_while_loading(number: int, frame: object) -> None:
    """End the process in one line, as the signal handler while modules are imported: there an
    exception could be taken for a module that is not installed.
    """
    with suppress(OSError):
        os.write(2, b"mip: stopped while loading\n")
    os._exit(128 + number)
