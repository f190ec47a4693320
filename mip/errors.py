"""The errors a user can meet: what is wrong, where, and the nearest right name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import accumulate
from typing import Any, cast

LISTED_WIDTH = 200
"""The most characters of a list of known names."""


LISTED_NEAR = 6
"""The most names that come first in a list because of their spelling."""


class MipError(Exception):
    """A mistake in a spec, a table, an image, a file or an argument.

    The command line prints its text as one line and exits with code 2.

    >>> raise MipError("houses.csv: no such table")
    Traceback (most recent call last):
    mip.errors.MipError: houses.csv: no such table
    """


class SpecError(MipError):
    """A spec that is not valid; the text names the path inside the file."""


class DataError(MipError):
    """A table or an image that cannot be used; the text names file, row and column."""


class FileError(MipError):
    """A model or checkpoint file that is damaged, foreign or missing, or a path that must not be
    written.
    """


class FieldError(ValueError):
    """A value that a field of a spec's class cannot have, by itself or beside the other fields.

    The reader of a spec file replaces the name of the field by its path in the file.

    >>> raise FieldError("num_heads", "must divide 30: 4")
    Traceback (most recent call last):
    mip.errors.FieldError: 'num_heads' must divide 30: 4
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(field, message)
        self.field, self.message = field, message

    def __str__(self) -> str:
        return f"'{self.field}' {self.message}"


class MipWarning(UserWarning):
    """Something that works, and that the user should know."""


@contextmanager
def warnings_shown_once() -> Iterator[None]:
    """Show each MipWarning once while a block runs, in whatever thread. Python by itself shows it
    again whenever somebody has changed the filters of warnings meanwhile, as torch does.
    """
    show, seen = warnings.showwarning, set[str]()

    def show_new(message: Warning | str, category: type[Warning], *where: Any) -> None:
        if not issubclass(category, MipWarning) or str(message) not in seen:
            seen.add(str(message))
            show(message, category, *where)

    warnings.showwarning = cast(Any, show_new)
    try:
        yield
    finally:
        warnings.showwarning = show


def add_note(error: BaseException, note: str) -> None:
    """Add a note to an error that does not have it yet: one that is raised again, by a hook or by
    the next pass over a pipe, comes by the same places.

    >>> error = ValueError("no number")
    >>> for _ in range(2): add_note(error, "in row 3")
    >>> error.__notes__
    ['in row 3']
    """
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)


def one_line(text: str) -> str:
    r"""Escape what cannot be printed, so that a text which quotes anything fits on one line.

    >>> print(one_line("a name of two\nlines"))
    a name of two\nlines
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def hint(name: str, known: Iterable[str], meant: Sequence[str] = ()) -> str:
    """Suggest the intended names `meant` (the first two), or else the known name with the nearest
    spelling, and list the known names: all if they fit, or else as many as fit, the nearest first.

    >>> hint("imgae", ["categorical", "continuous", "image"])
    "; did you mean 'image'? (known: categorical, continuous, image)"
    >>> hint("classifier", ["binary", "count", "multiclass"], meant=["multiclass", "binary"])
    "; did you mean 'multiclass' or 'binary'? (known: binary, count, multiclass)"
    >>> hint("layer9", [f"layer{k}" for k in range(1000)])[:64]
    "; did you mean 'layer9'? (known: layer9, layer99, layer98, layer"
    >>> hint("x", [])
    ''
    """
    names = [quote(name)[1:-1] for name in sorted(map(str, known))]
    if not names:
        return ""
    near = get_close_matches(str(name)[:80], names, n=LISTED_NEAR, cutoff=0.5)
    likely = list(meant[:2] or near[:1])
    guess = f"; did you mean {' or '.join(map(repr, likely))}?" if likely else ""
    if len(", ".join(names)) <= LISTED_WIDTH:
        return f"{guess} (known: {', '.join(names)})"
    ordered = dict.fromkeys([*(each for each in likely if each in names), *near, *names])
    ends = accumulate(len(each) + 2 for each in ordered)
    listed = [each for each, end in zip(ordered, ends, strict=True) if end <= LISTED_WIDTH]
    return f"{guess} (known: {', '.join(listed)}, …)"


def list_first(items: Sequence[Any], limit: int = 8, write: Callable[[Any], str] = str) -> str:
    """List the first items in a line of text.

    >>> list_first([3, 1]), list_first(["oak", "ash", "fir"], 2, quote)
    ('3, 1', "'oak', 'ash', …")
    """
    return ", ".join(map(write, items[:limit])) + (", …" if len(items) > limit else "")


def quote(value: object, limit: int = 40) -> str:
    r"""Quote a value in a line of text: cut after `limit` characters, unprintable ones escaped.

    >>> quote("a\nb"), quote(12.5), quote("x" * 50, limit=4)
    ("'a\\nb'", "'12.5'", "'xxxx…'")
    """
    try:
        text = str(value)
    except Exception:  # an integer with more digits than Python formats, an object without text
        text = hex(value) if isinstance(value, int) else type(value).__name__
    return repr(text if len(text) <= limit else f"{text[:limit]}…")
