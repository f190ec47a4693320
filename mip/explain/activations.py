"""Drawings of layer outputs over the forward passes: their mean and spread, their histograms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mip.errors import MipError
from mip.explain.recording import Record, histograms, statistics_of, to_frame
from mip.plots import legend, panels, write_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MAX_COLUMNS = 5
"""Panels in a row at most."""


MAX_TITLE = 34
"""Letters of a path that fit above a panel."""


def plot_activations(
    path: str | Path, records: Sequence[Record], *, overwrite: bool = False
) -> None:
    """Draw the mean ± standard deviation by pass: a panel for each layer, each with its own scale,
    and a line for each call within a pass.

    Needs the extra `plot`. Raises FileError without it, and if the file exists, unless `overwrite`
    is set; MipError if there are no records or they hold no statistics.
    """
    passes = _passes(path, records)
    rows = {str(name): group for name, group in to_frame(records).groupby("path", sort=False)}
    fig, axes = _panels(path, list(rows), passes, "mean ± standard deviation of layer outputs")
    for panel, group in zip(axes, rows.values(), strict=True):
        _plot_calls(panel, group)
        panel.spines[["top", "right"]].set_visible(False)
    legend(fig, axes)
    write_figure(path, fig, overwrite=overwrite)


def _plot_calls(axes: Axes, rows: pd.DataFrame) -> None:
    for call, lines in rows.groupby("call"):
        x, mean, std = lines["pass"], lines["mean"], lines["std"]
        colour = f"C{call}"
        axes.fill_between(x, mean - std, mean + std, color=colour, alpha=0.2, linewidth=0)
        # Neither a line nor a band would show a single pass.
        yerr, marker = (std, "o") if len(lines) == 1 else (None, None)
        axes.errorbar(
            x,
            mean,
            yerr,
            color=colour,
            linewidth=1.2,
            marker=marker,
            capsize=3,
            label=f"call {call}",
        )


def plot_histograms(
    path: str | Path, records: Sequence[Record], *, overwrite: bool = False
) -> None:
    """Draw the histograms of each layer as an image: a column for each pass, a row for each bin,
    log(1 + count), with a colour scale for each layer.

    Needs the extra `plot`. Raises FileError without it, and if the file exists, unless `overwrite`
    is set; MipError if there are no records or they hold no statistics.
    """
    passes, images = _passes(path, records), histograms(records)
    title = "distribution of layer outputs: log(1 + count)"
    fig, axes = _panels(path, list(images), passes, title, sharey=True)
    extent = (passes[0] - 0.5, passes[-1] + 0.5, *statistics_of(records[0]).span)
    for panel, counts in zip(axes, images.values(), strict=True):
        image = _image(counts, passes)
        panel.imshow(image, origin="lower", aspect="auto", extent=extent, interpolation="nearest")
    write_figure(path, fig, overwrite=overwrite)


def _image(counts: Tensor, passes: Sequence[int]) -> Tensor:
    # The records may be a selection: the column of a pass without records stays blank.
    image = torch.full((len(counts), passes[-1] - passes[0] + 1), torch.nan)
    image[:, [number - passes[0] for number in passes]] = counts.float().log1p()
    return image


def _passes(path: str | Path, records: Sequence[Record]) -> list[int]:
    if not records:
        raise MipError(f"{path}: no records to draw: nothing ran inside the block")
    for record in records:
        statistics_of(record)
    return sorted({record.pass_ for record in records})


def _panels(
    path: str | Path, names: Sequence[str], passes: Sequence[int], title: str, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    fig, axes = panels(path, [shorten(name) for name in names], MAX_COLUMNS, 1.7, sharey)
    # All passes are on the axis: where a layer's output was NaN, its line has a gap.
    axes[0].set_xlim(min(passes) - 0.5, max(passes) + 0.5)
    fig.suptitle(title, fontsize=10, x=0.01, ha="left")
    fig.supxlabel("pass", fontsize=9)
    fig.supylabel("activation", fontsize=9)
    return fig, axes


def shorten(path: str) -> str:
    """Shorten a path to its end, which tells layers apart.

    >>> shorten("photos.branch.net.backbone.cut.layer1.0.relu"), shorten("head.1"), shorten("")
    ('…net.backbone.cut.layer1.0.relu', 'head.1', 'the module')
    """
    if len(path) <= MAX_TITLE:
        return path or "the module"
    end = path[1 - MAX_TITLE :]
    return "…" + end[end.find(".") + 1 :]
