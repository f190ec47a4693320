"""The errors a user can meet: what is wrong, where, and the nearest right thing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class MipError(Exception):
    """A mistake in what was given: a spec, a table, an image or a file.

    The command line prints its text as one line and exits with code 2.

    >>> raise MipError("houses.csv: no such table")
    Traceback (most recent call last):
    mip.errors.MipError: houses.csv: no such table
    """


class SpecError(MipError):
    """A spec that cannot mean anything: names the path inside the file."""


class DataError(MipError):
    """A table or an image that cannot be read: names file, row and column."""


class FileError(MipError):
    """A model or checkpoint file that is damaged, foreign or missing."""


class FieldError(ValueError):
    """A field of a spec's class with a value that it cannot have, alone or beside the others.

    Whoever reads a spec file replaces the field's name by its path in the file.

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
    """Something that still works and that the user should know."""


def one_line(text: str) -> str:
    r"""Write a text that may quote anything in one line: what cannot be printed is escaped.

    >>> print(one_line("a name of two\nlines"))
    a name of two\nlines
    """
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def hint(name: str, known: Iterable[str], meant: Sequence[str] = ()) -> str:
    """Propose what is `meant` (two at most) or else the nearest known name, and list those known
    (twelve at most).

    >>> hint("imgae", ["categorical", "continuous", "image"])
    "; did you mean 'image'? (known: categorical, continuous, image)"
    >>> hint("classifier", ["binary", "count", "multiclass"], meant=["multiclass", "binary"])
    "; did you mean 'multiclass' or 'binary'? (known: binary, count, multiclass)"
    >>> hint("x", [])
    ''
    """
    names = [shown(name)[1:-1] for name in sorted(map(str, known))]
    if not names:
        return ""
    near = meant[:2] or get_close_matches(str(name)[:80], names, n=1, cutoff=0.5)
    guess = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    listed = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"{guess} (known: {listed})"


def shown(value: object, most: int = 40) -> str:
    r"""Write a value for a line of text: in quotes, what is not printable escaped, and cut.

    >>> shown("a\nb"), shown(12.5), shown("x" * 50, most=4)
    ("'a\\nb'", "'12.5'", "'xxxx…'")
    """
    try:
        text = str(value)
    except Exception:  # a whole number of more digits than Python writes, an object without text
        text = hex(value) if isinstance(value, int) else type(value).__name__
    return repr(text if len(text) <= most else f"{text[:most]}…")
