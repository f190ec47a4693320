"""The losses of several runs, and of a range of learning rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mip.plots.figures import figure, write_figure
from mip.train import LRCurve


def plot_losses(
    path: str | Path,
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    *,
    overwrite: bool = False,
) -> None:
    """Draw train (dashed) and valid loss (whole line) by epoch, a colour for each run.

    Needs the `plot` extra; raises FileError with the cure without it, and where the file exists
    already, unless `overwrite` says to replace it.
    """
    drawn = figure(path, 7, 4)
    axes = drawn.subplots()
    for place, (name, history) in enumerate(histories.items()):
        _curves(axes, name, history, f"C{place}")
    axes.set(xlabel="epoch", ylabel="loss", yscale=_scale(axes))
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(frameon=False)
    write_figure(path, drawn, overwrite=overwrite)


def plot_rates(path: str | Path, curve: LRCurve, *, overwrite: bool = False) -> None:
    """Draw the smoothed loss by learning rate, with the suggestion.

    Needs the `plot` extra; raises FileError with the cure without it, and where the file exists
    already, unless `overwrite` says to replace it.
    """
    drawn = figure(path, 7, 4)
    axes = drawn.subplots()
    axes.plot(curve.lrs, curve.losses)
    axes.axvline(curve.minimum, linestyle=":", color="C7", label=f"least at {curve.minimum:.2g}")
    axes.axvline(curve.suggestion, color="C1", label=f"suggested {curve.suggestion:.2g}")
    axes.set(xlabel="learning rate", ylabel="smoothed loss", xscale="log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    write_figure(path, drawn, overwrite=overwrite)


def _scale(axes: Any) -> str:
    losses = [loss for line in axes.lines for loss in line.get_ydata()]
    return "log" if losses and min(losses) > 0 else "linear"


def _curves(axes: Any, name: str, history: Sequence[Mapping[str, float]], colour: str) -> None:
    epochs = [row["epoch"] + 1 for row in history]
    for metric, style in (("loss", "--"), ("valid/loss", "-")):
        if history and metric in history[0]:
            label = f"{name}, {'valid' if '/' in metric else 'train'}".lstrip(", ")
            axes.plot(epochs, [row[metric] for row in history], style, color=colour, label=label)
