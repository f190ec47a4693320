"""What is shown below the cell of a notebook, and replaced in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping


def in_notebook() -> bool:
    """Say whether this runs in a notebook, which shows pictures.

    >>> in_notebook()
    False
    """
    from rich.console import Console

    return Console().is_jupyter


def in_place() -> Callable[[Mapping[str, str]], None]:
    """Make a function that shows a value below the running cell, each in place of the one before.

    A value is given by media type, as `{"text/plain": "…"}`; images are base64. To be called in a
    notebook, where IPython is.
    """
    from IPython.display import DisplayHandle

    cell, shown = DisplayHandle(), [False]

    def show(value: Mapping[str, str]) -> None:
        put = cell.update if shown[0] else cell.display
        shown[0] = True
        put(dict(value), raw=True)

    return show
