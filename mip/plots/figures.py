"""Figures of panels, and how they become files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mip.errors import FileError
from mip.output import write

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure(path: str | Path, width: float, height: float) -> Figure:
    """Make an empty figure of so many inches, for a file. Raises FileError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        cure = "pip install 'mixed-input-pipelines[plot]'"
        raise FileError(f"{path}: drawing needs matplotlib: {cure}") from error
    return Figure(figsize=(width, height), layout="constrained")


def panels(
    path: str | Path, names: Sequence[str], widest: int, tall: float, same: bool = False
) -> tuple[Figure, list[Any]]:
    """Make a figure with a panel for each name, at most `widest` in a line and each `tall` inches;
    all share the horizontal axis, with `same` the vertical one too. Raises as `figure` does.
    """
    high = -(-len(names) // widest)
    wide = -(-len(names) // high)
    drawn = figure(path, max(5, 1 + 2.6 * wide), 1 + tall * high)
    grid = drawn.subplots(high, wide, sharex=True, sharey=same, squeeze=False).flatten().tolist()
    for one, name in zip(grid, names, strict=False):
        _panel(one, name)
    for one in grid[len(names) :]:
        one.set_visible(False)
    # The lowest panel of each column tells the numbers below, also where the last line is not full.
    for one in grid[len(names) - wide : len(names)]:
        one.tick_params(labelbottom=True)
    return drawn, grid[: len(names)]


def _panel(one: Any, name: str) -> None:
    from matplotlib.ticker import MaxNLocator

    one.set_title(name, fontsize=8, loc="left")
    one.tick_params(labelsize=7)
    one.yaxis.get_offset_text().set_size(7)
    one.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))


def legend(drawn: Figure, axes: Sequence[Any]) -> None:
    """Name the lines of all panels once, above them; a single one needs no name."""
    labels: dict[str, Any] = {}
    for one in axes:
        for line, name in zip(*one.get_legend_handles_labels(), strict=True):
            labels.setdefault(name, line)
    if len(labels) > 1:
        looks: dict[str, Any] = {"ncols": 6, "frameon": False, "fontsize": 8}
        drawn.legend(labels.values(), labels.keys(), loc="outside upper right", **looks)


def png(drawn: Figure) -> bytes:
    """Draw a figure as PNG."""
    drawing = io.BytesIO()
    drawn.savefig(drawing, dpi=120, format="png")
    return drawing.getvalue()


def write_figure(path: str | Path, drawn: Figure, *, overwrite: bool = False) -> None:
    """Write a figure as PNG, whole or not at all. Raises FileError where the file exists already,
    unless `overwrite` says to replace it.
    """
    write(path, png(drawn), overwrite=overwrite)
