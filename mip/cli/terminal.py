"""What the command line prints."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import mip
from mip.errors import FileError, one_line

if TYPE_CHECKING:
    from rich.table import Table

MAX_TABLE_WIDTH = 500
"""The widest table, in characters, that is printed without breaking its lines."""


MAX_WARNINGS = 10
"""A thousand broken photos give this many lines, and one with the number of the others."""


def echo(text: str | Table = "") -> None:
    """Print text, or a table as wide as it is, to standard output. Characters that its encoding
    lacks are escaped.
    """
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=isinstance(text, str))
    if not isinstance(text, str):
        # In a narrow terminal, broken lines of a table are better than truncated names.
        room = console.options.update(max_width=MAX_TABLE_WIDTH)
        console.width = max(console.width, console.measure(text, options=room).maximum)
    with console.capture() as printed:
        console.print(text, markup=False)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    write_stdout(printed.get().encode(encoding, "backslashreplace").decode(encoding))


def write_stdout(text: str) -> None:
    """Write to standard output. If its reader has gone away, the command continues without it.

    Raises FileError if it cannot be written.
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
    # Python would try to write what is left in the buffer, and fail again, when it ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def drop_unwritten() -> None:
    """Flush standard output, or discard what it refuses."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        _discard_output()


def note(text: str) -> None:
    """Print a line to standard error, if there is one."""
    with suppress(OSError):
        sys.stderr.write(f"mip: {one_line(text)}\n")


def print_warning(printed: list[str], text: str) -> None:
    """Print a warning unless it is in `printed`, up to the maximum number of warnings."""
    if text not in printed:
        printed.append(text)
        if len(printed) <= MAX_WARNINGS:
            note(f"warning: {text}")


def show_features(done: int, total: int) -> None:
    """Show of how many rows the features are computed, if standard error is a terminal."""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        sys.stderr.write(f"\rfeatures: {done} of {total} rows{end}")
        sys.stderr.flush()


def show_residual(name: str, before: float, after: float) -> None:
    """Say what a residual branch adds to the others."""
    losses = f"{before:.4g} without it, {after:.4g} with it"
    echo(f"residual branch {name}: loss of held-out rows {losses}")


def progress_bar(label: str) -> Callable[[mip.runs.Job], tuple[mip.train.Hook, ...]]:
    """Return a function that makes a job's progress bar, if standard error is a terminal."""
    return lambda job: (mip.progress(job.steps, label),) if sys.stderr.isatty() else ()
