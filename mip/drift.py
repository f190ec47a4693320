"""Drawings of what layers give: how it drifts from pass to pass, and how it is spread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mip.errors import MipError
from mip.probe import Record, held, histograms, table
from mip.report import figure, write_figure

if TYPE_CHECKING:
    import pandas as pd

WIDEST = 5
"""Panels in a line at most."""

LETTERS = 34
"""Letters of a path that fit above a panel."""


def plot_drift(path: str | Path, records: Sequence[Record]) -> None:
    """Draw mean ± standard deviation by pass, a panel for each layer, a line for each call of a
    pass; panels have scales of their own.

    Needs the `plot` extra; raises FileError with the cure without it, and MipError where there
    are no records or they hold no statistics.
    """
    passes = _passes(path, records)
    panels = {str(name): rows for name, rows in table(records).groupby("path", sort=False)}
    title = "mean ± standard deviation of what each layer gives"
    drawn, axes = _panels(path, list(panels), passes, title)
    for one, rows in zip(axes, panels.values(), strict=True):
        _bands(one, rows)
        one.spines[["top", "right"]].set_visible(False)
    _calls(drawn, axes)
    write_figure(path, drawn)


def _passes(path: str | Path, records: Sequence[Record]) -> list[int]:
    if not records:
        raise MipError(f"{path}: there are no records to draw: nothing ran inside the probe")
    for each in records:
        held(each)
    return sorted({each.pass_ for each in records})


def _bands(axes: Any, rows: pd.DataFrame) -> None:
    for call, lines in rows.groupby("call"):
        x, mean, std = lines["pass"], lines["mean"], lines["std"]
        colour = f"C{call}"
        axes.fill_between(x, mean - std, mean + std, color=colour, alpha=0.2, linewidth=0)
        # One pass is a point, which neither a line nor a band would show.
        alone = {"marker": "o", "yerr": std, "capsize": 3} if len(lines) == 1 else {}
        axes.errorbar(x, mean, color=colour, linewidth=1.2, label=f"call {call}", **alone)


def _calls(drawn: Any, axes: Sequence[Any]) -> None:
    labels: dict[str, Any] = {}
    for one in axes:
        lines, names = one.get_legend_handles_labels()
        labels = {**dict(zip(names, lines, strict=True)), **labels}
    if len(labels) > 1:
        place = {"loc": "outside upper right", "ncols": 6, "frameon": False, "fontsize": 8}
        drawn.legend(labels.values(), labels.keys(), **place)


def plot_histograms(path: str | Path, records: Sequence[Record]) -> None:
    """Draw the histograms of each layer side by side as an image: a column for each pass, a row
    for each bin, log(1 + count), with a scale of colours for each layer.

    Needs the `plot` extra; raises FileError with the cure without it, and MipError where there
    are no records or they hold no statistics.
    """
    passes, images = _passes(path, records), histograms(records)
    title = "spread of what each layer gives: log(1 + count)"
    drawn, axes = _panels(path, list(images), passes, title, same=True)
    extent = (passes[0] - 0.5, passes[-1] + 0.5, *held(records[0]).span)
    for one, counts in zip(axes, images.values(), strict=True):
        image = _image(counts, passes)
        one.imshow(image, origin="lower", aspect="auto", extent=extent, interpolation="nearest")
    write_figure(path, drawn)


def _image(counts: Tensor, passes: Sequence[int]) -> Tensor:
    # Records may have been chosen: a pass that is not among them stays blank.
    image = torch.full((len(counts), passes[-1] - passes[0] + 1), torch.nan)
    image[:, [each - passes[0] for each in passes]] = counts.float().log1p()
    return image


def _panels(
    path: str | Path, names: Sequence[str], passes: Sequence[int], title: str, same: bool = False
) -> tuple[Any, list[Any]]:
    high = -(-len(names) // WIDEST)
    wide = -(-len(names) // high)
    drawn = figure(path, max(5, 1 + 2.6 * wide), 1 + 1.7 * high)
    # Passes without a number stay to be seen, as an empty end: there the layer gave NaN.
    grid = drawn.subplots(high, wide, sharex=True, sharey=same, squeeze=False).flatten().tolist()
    grid[0].set_xlim(min(passes) - 0.5, max(passes) + 0.5)
    for one, name in zip(grid, names, strict=False):
        _panel(one, name)
    for one in grid[len(names) :]:
        one.set_visible(False)
    # The lowest panel of each column tells the passes, also where the last line is not full.
    for one in grid[len(names) - wide : len(names)]:
        one.tick_params(labelbottom=True)
    drawn.suptitle(title, fontsize=10, x=0.01, ha="left")
    drawn.supxlabel("pass", fontsize=9)
    drawn.supylabel("activation", fontsize=9)
    return drawn, grid[: len(names)]


def _panel(one: Any, name: str) -> None:
    from matplotlib.ticker import MaxNLocator

    one.set_title(short(name), fontsize=8, loc="left")
    one.tick_params(labelsize=7)
    one.yaxis.get_offset_text().set_size(7)
    one.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))


def short(name: str) -> str:
    """Shorten a path to its end, which tells layers apart.

    >>> short("photos.branch.net.backbone.cut.layer1.0.relu"), short("head.1"), short("")
    ('…net.backbone.cut.layer1.0.relu', 'head.1', 'the module')
    """
    if len(name) <= LETTERS:
        return name or "the module"
    end = name[1 - LETTERS :]
    return "…" + end[end.find(".") + 1 :]
