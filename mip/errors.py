"""The errors a user can meet: what is wrong, where, and the nearest right name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


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


def one_line(text: str) -> str:
    r"""Escape what cannot be printed, so that a text which quotes anything fits on one line.

    >>> print(one_line("a name of two\nlines"))
    a name of two\nlines
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def hint(name: str, known: Iterable[str], meant: Sequence[str] = ()) -> str:
    """Suggest the intended names `meant` (the first two), or else the known name with the nearest
    spelling, and list the known names (the first twelve).

    >>> hint("imgae", ["categorical", "continuous", "image"])
    "; did you mean 'image'? (known: categorical, continuous, image)"
    >>> hint("classifier", ["binary", "count", "multiclass"], meant=["multiclass", "binary"])
    "; did you mean 'multiclass' or 'binary'? (known: binary, count, multiclass)"
    >>> hint("x", [])
    ''
    """
    names = [quote(name)[1:-1] for name in sorted(map(str, known))]
    if not names:
        return ""
    near = meant[:2] or get_close_matches(str(name)[:80], names, n=1, cutoff=0.5)
    guess = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    listed = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"{guess} (known: {listed})"


def list_rows(rows: Sequence[int], limit: int = 8) -> str:
    """List the first row numbers in a line of text.

    >>> list_rows([3, 1]), list_rows(range(9), limit=2)
    ('3, 1', '0, 1, …')
    """
    return ", ".join(map(str, rows[:limit])) + (", …" if len(rows) > limit else "")


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
