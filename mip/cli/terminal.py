"""What the command line prints."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import mip
from mip.errors import FileError, one_line


def say(what: Any = "") -> None:
    """Print text or a table of text to standard output, as wide as it is; what its encoding lacks
    is escaped.
    """
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=isinstance(what, str))
    if not isinstance(what, str):
        # In a narrow terminal a table had better break its lines than cut its names.
        room = console.options.update(max_width=WIDEST)
        console.width = max(console.width, console.measure(what, options=room).maximum)
    with console.capture() as shown:
        console.print(what, markup=False)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    emit(shown.get().encode(encoding, "backslashreplace").decode(encoding))


WIDEST = 500
"""Letters of the widest table that is printed whole."""


def emit(text: str) -> None:
    """Write to standard output. Where its reader has gone, the work goes on without it.

    Raises FileError where it cannot be written.
    """
    if sys.stdout is None:
        raise FileError("standard output: is closed")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except UnicodeEncodeError as error:
        letter = error.object[error.start]
        cure = "set PYTHONIOENCODING=utf-8, or write to a file with --out"
        raise FileError(f"standard output: {error.encoding} has no {letter!r}; {cure}") from error
    except OSError as error:
        _discard_output()
        if not isinstance(error, BrokenPipeError):
            why = error.strerror
            raise FileError(f"standard output: cannot be written ({why})") from error


def _discard_output() -> None:
    # What is left in the buffer would be tried again, and fail again, when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def note(text: str) -> None:
    """Print a line to standard error, where there is one."""
    with suppress(OSError):
        sys.stderr.write(f"mip: {one_line(text)}\n")


def bar_of(label: str) -> Callable[[mip.runs.Job], tuple[mip.train.Hook, ...]]:
    """Make the hooks of a run: a bar, where standard error is a terminal."""
    return lambda job: (mip.progress(job.steps, label),) if sys.stderr.isatty() else ()


def drop_unwritten() -> None:
    """Flush standard output; drop what it refuses."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        _discard_output()


WARNINGS = 10
"""A thousand broken photos give so many lines, and one with the count of the others."""


def show_warning(told: list[str], text: str) -> None:
    """Print a warning once; the first ten of them."""
    if text not in told:
        told.append(text)
        if len(told) <= WARNINGS:
            note(f"warning: {text}")
