"""Figures of panels, and writing them to files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mip.errors import MipError, hint
from mip.output import check_output, write

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


FORMATS = ("jpg", "pdf", "png", "svg", "webp")
"""The suffixes of files that a figure can be written to."""


SMALL, NORMAL = 7, 9
"""Sizes of letters, in points: in panels of a grid, and elsewhere."""


NUMBER = "{x:,.10g}"
"""The format of numbers at an axis: 1,000,000 and 0.01."""


def figure(width: float, height: float) -> Figure:
    """Make an empty figure, in inches. Raises MipError without matplotlib."""
    try:
        from mip.plots.canvas import Canvas
    except ImportError as error:
        cure = "pip install 'mixed-input-pipelines[plot]'"
        raise MipError(f"drawing needs matplotlib: {cure}") from error
    return Canvas(figsize=(width, height), layout="constrained")


def single(width: float, height: float) -> tuple[Figure, Axes]:
    """Make a figure of one panel, in inches. Raises MipError without matplotlib."""
    fig = figure(width, height)
    axes = fig.subplots()
    axes.tick_params(labelsize=SMALL + 1, color="0.6")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("0.6")
    axes.xaxis.set_major_formatter(NUMBER)
    axes.yaxis.set_major_formatter(NUMBER)
    return fig, axes


def panels(
    titles: Sequence[str],
    max_columns: int,
    row_height: float,
    *,
    sharex: bool = True,
    sharey: bool = False,
) -> tuple[Figure, list[Axes]]:
    """Make a figure with a panel for each title, at most `max_columns` in a row of `row_height`
    inches. All share the horizontal axis, with `sharey` the vertical one too. Raises like `figure`.
    """
    n_rows = -(-len(titles) // max_columns)
    n_columns = -(-len(titles) // n_rows)
    fig = figure(max(5, 1 + 2.6 * n_columns), 1 + row_height * n_rows)
    from matplotlib.ticker import MaxNLocator  # `figure` has raised if it is missing

    grid = fig.subplots(n_rows, n_columns, sharex=sharex, sharey=sharey, squeeze=False)
    all_axes = grid.flatten().tolist()
    for axes, title in zip(all_axes, titles, strict=False):
        axes.set_title(title, fontsize=8, loc="left")
        axes.tick_params(labelsize=SMALL)
        axes.yaxis.get_offset_text().set_size(SMALL)
        if sharex:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    for axes in all_axes[len(titles) :]:
        axes.set_visible(False)
    # The lowest panel of each column has tick labels, also if the last row is not full.
    for axes in all_axes[len(titles) - n_columns : len(titles)]:
        axes.tick_params(labelbottom=True)
    return fig, all_axes[: len(titles)]


def legend(fig: Figure, axes: Sequence[Axes]) -> None:
    """Add one legend for the lines of all panels; a single line needs none."""
    lines: dict[str, Artist] = {}
    for each in axes:
        for line, label in zip(*each.get_legend_handles_labels(), strict=True):
            lines.setdefault(label, line)
    if len(lines) > 1:
        place_legend(fig, lines)


def place_legend(fig: Figure, lines: Mapping[str, Artist]) -> None:
    """Add a legend above the panels, or at the right if that takes more than two rows."""
    # A label takes about 0.07 inches a letter, and its line half an inch.
    widest = 0.6 + 0.07 * max(map(len, lines))
    columns = max(1, int(fig.get_figwidth() / widest))
    place: Literal["outside upper right", "outside right upper"] = "outside upper right"
    if len(lines) > 2 * columns:
        columns = -(-len(lines) // int(5 * fig.get_figheight()))
        place = "outside right upper"
        fig.set_figwidth(fig.get_figwidth() + columns * widest)
    handles, labels = list(lines.values()), list(lines)
    fig.legend(handles, labels, loc=place, ncols=columns, frameon=False, fontsize=8)


def format_of(path: str | Path) -> str:
    """Return the format in which a figure is written to a file, by its suffix.

    >>> format_of("loss.PNG")
    'png'
    >>> format_of("loss.pgn")
    Traceback (most recent call last):
    mip.errors.MipError: loss.pgn: a figure is not written as 'pgn'; did you mean 'png'? (known: \
jpg, pdf, png, svg, webp)
    """
    suffix = Path(path).suffix[1:].lower()
    suffix = "jpg" if suffix == "jpeg" else suffix
    if suffix not in FORMATS:
        raise MipError(f"{path}: a figure is not written as '{suffix}'{hint(suffix, FORMATS)}")
    return suffix


def check_path(path: str | Path | None, overwrite: bool) -> None:
    """Raise, before anything is computed, what `save_figure` would raise in the end."""
    if path is not None:
        format_of(path)
        check_output(path, overwrite)


def save_figure(fig: Figure, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a figure whole or not at all, in the format of the path's suffix.

    Raises MipError for a suffix that is not in `FORMATS`, and FileError if the file exists, unless
    `overwrite` is set.
    """
    write(path, render(fig, format_of(path)), overwrite=overwrite)


def render(fig: Figure, suffix: str = "png") -> bytes:
    """Render a figure in the format of a file's suffix."""
    from mip.plots.canvas import render

    return render(fig, suffix)


def finish(fig: Figure, title: str | None, path: str | Path | None, overwrite: bool) -> Figure:
    """Give a figure its title and write it, if it has a path: the end of every plot."""
    if title:
        fig.suptitle(title, fontsize=10, x=0.01, ha="left")
    if path is not None:
        save_figure(fig, path, overwrite=overwrite)
    return fig


def shorten(text: str, length: int) -> str:
    """Cut a text that is longer in its middle: names often differ in their ends.

    >>> shorten("golden retriever", 9), shorten("pug", 9)
    ('gold…ever', 'pug')
    """
    if len(text) <= length:
        return text
    end = (length - 1) // 2
    return f"{text[: length - 1 - end]}…{text[len(text) - end :]}"
