"""Figures of panels, and writing them to files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mip.errors import FileError
from mip.output import write

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def figure(path: str | Path, width: float, height: float) -> Figure:
    """Make an empty figure, in inches, for the file `path`. Raises FileError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        cure = "pip install 'mixed-input-pipelines[plot]'"
        raise FileError(f"{path}: drawing needs matplotlib: {cure}") from error
    return Figure(figsize=(width, height), layout="constrained")


def panels(
    path: str | Path,
    titles: Sequence[str],
    max_columns: int,
    row_height: float,
    sharey: bool = False,
) -> tuple[Figure, list[Axes]]:
    """Make a figure with a panel for each title, at most `max_columns` in a row of `row_height`
    inches. All share the horizontal axis, with `sharey` the vertical one too. Raises like `figure`.
    """
    n_rows = -(-len(titles) // max_columns)
    n_columns = -(-len(titles) // n_rows)
    fig = figure(path, max(5, 1 + 2.6 * n_columns), 1 + row_height * n_rows)
    from matplotlib.ticker import MaxNLocator  # `figure` has raised if it is missing

    grid = fig.subplots(n_rows, n_columns, sharex=True, sharey=sharey, squeeze=False)
    all_axes = grid.flatten().tolist()
    for axes, title in zip(all_axes, titles, strict=False):
        axes.set_title(title, fontsize=8, loc="left")
        axes.tick_params(labelsize=7)
        axes.yaxis.get_offset_text().set_size(7)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    for axes in all_axes[len(titles) :]:
        axes.set_visible(False)
    # The lowest panel of each column has tick labels, also if the last row is not full.
    for axes in all_axes[len(titles) - n_columns : len(titles)]:
        axes.tick_params(labelbottom=True)
    return fig, all_axes[: len(titles)]


def legend(fig: Figure, axes: Sequence[Axes]) -> None:
    """Add one legend for the lines of all panels, above them; a single line needs none."""
    lines: dict[str, Artist] = {}
    for each in axes:
        for line, label in zip(*each.get_legend_handles_labels(), strict=True):
            lines.setdefault(label, line)
    if len(lines) > 1:
        fig.legend(
            lines.values(),
            lines.keys(),
            loc="outside upper right",
            ncols=6,
            frameon=False,
            fontsize=8,
        )


def png(fig: Figure) -> bytes:
    """Render a figure as PNG."""
    data = io.BytesIO()
    fig.savefig(data, dpi=120, format="png")
    return data.getvalue()


def write_figure(path: str | Path, fig: Figure, *, overwrite: bool = False) -> None:
    """Write a figure as PNG, atomically. Raises FileError if the file exists, unless `overwrite` is
    set.
    """
    write(path, png(fig), overwrite=overwrite)
