"""Output below the running cell of a notebook that is updated in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping


def in_notebook() -> bool:
    """Return whether this runs in a notebook, which can show pictures.

    >>> in_notebook()
    False
    """
    from rich.console import Console

    return Console().is_jupyter


def updating_output() -> Callable[[Mapping[str, str]], None]:
    """Make a function that shows a value below the running cell, replacing the one before.

    A value is a mapping by media type, such as `{"text/plain": "…"}`; images are base64. For a
    notebook only, since it needs IPython.
    """
    from IPython.display import DisplayHandle

    cell, is_shown = DisplayHandle(), False

    def show(value: Mapping[str, str]) -> None:
        nonlocal is_shown
        put = cell.update if is_shown else cell.display
        is_shown = True
        put(dict(value), raw=True)

    return show
