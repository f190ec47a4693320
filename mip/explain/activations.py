"""Drawings of what layers give: how it drifts from pass to pass, and how it is spread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mip.errors import MipError
from mip.explain.probes import Record, held, histograms, table
from mip.plots import legend, panels, write_figure

if TYPE_CHECKING:
    import pandas as pd


WIDEST = 5
"""Panels in a line at most."""


LETTERS = 34
"""Letters of a path that fit above a panel."""


def plot_drift(path: str | Path, records: Sequence[Record], *, overwrite: bool = False) -> None:
    """Draw mean ± standard deviation by pass, a panel for each layer, a line for each call of a
    pass; panels have scales of their own.

    Needs the `plot` extra; raises FileError with the cure without it, and where the file exists
    already, unless `overwrite` says to replace it; MipError where there are no records or they
    hold no statistics.
    """
    passes = _passes(path, records)
    panels = {str(name): rows for name, rows in table(records).groupby("path", sort=False)}
    title = "mean ± standard deviation of what each layer gives"
    drawn, axes = _panels(path, list(panels), passes, title)
    for one, rows in zip(axes, panels.values(), strict=True):
        _bands(one, rows)
        one.spines[["top", "right"]].set_visible(False)
    legend(drawn, axes)
    write_figure(path, drawn, overwrite=overwrite)


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


def plot_histograms(
    path: str | Path, records: Sequence[Record], *, overwrite: bool = False
) -> None:
    """Draw the histograms of each layer side by side as an image: a column for each pass, a row
    for each bin, log(1 + count), with a scale of colours for each layer.

    Needs the `plot` extra; raises FileError with the cure without it, and where the file exists
    already, unless `overwrite` says to replace it; MipError where there are no records or they
    hold no statistics.
    """
    passes, images = _passes(path, records), histograms(records)
    title = "spread of what each layer gives: log(1 + count)"
    drawn, axes = _panels(path, list(images), passes, title, same=True)
    extent = (passes[0] - 0.5, passes[-1] + 0.5, *held(records[0]).span)
    for one, counts in zip(axes, images.values(), strict=True):
        image = _image(counts, passes)
        one.imshow(image, origin="lower", aspect="auto", extent=extent, interpolation="nearest")
    write_figure(path, drawn, overwrite=overwrite)


def _image(counts: Tensor, passes: Sequence[int]) -> Tensor:
    # Records may have been chosen: a pass that is not among them stays blank.
    image = torch.full((len(counts), passes[-1] - passes[0] + 1), torch.nan)
    image[:, [each - passes[0] for each in passes]] = counts.float().log1p()
    return image


def _panels(
    path: str | Path, names: Sequence[str], passes: Sequence[int], title: str, same: bool = False
) -> tuple[Any, list[Any]]:
    drawn, axes = panels(path, [short(name) for name in names], WIDEST, 1.7, same)
    # Passes without a number stay to be seen, as an empty end: there the layer gave NaN.
    axes[0].set_xlim(min(passes) - 0.5, max(passes) + 0.5)
    drawn.suptitle(title, fontsize=10, x=0.01, ha="left")
    drawn.supxlabel("pass", fontsize=9)
    drawn.supylabel("activation", fontsize=9)
    return drawn, axes


def short(name: str) -> str:
    """Shorten a path to its end, which tells layers apart.

    >>> short("photos.branch.net.backbone.cut.layer1.0.relu"), short("head.1"), short("")
    ('…net.backbone.cut.layer1.0.relu', 'head.1', 'the module')
    """
    if len(name) <= LETTERS:
        return name or "the module"
    end = name[1 - LETTERS :]
    return "…" + end[end.find(".") + 1 :]
