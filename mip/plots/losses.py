"""The losses of several runs, and the loss over a range of learning rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mip.plots.figures import figure, write_figure
from mip.train import LRCurve


def plot_losses(
    path: str | Path,
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    *,
    overwrite: bool = False,
) -> None:
    """Draw the train loss (dashed) and valid loss (solid) by epoch, a colour for each run.

    Needs the extra `plot`. Raises FileError without it, and if the file exists, unless `overwrite`
    is set.
    """
    fig = figure(path, 7, 4)
    axes = fig.subplots()
    all_losses = []
    for k, (name, history) in enumerate(histories.items()):
        epochs = [row["epoch"] + 1 for row in history]
        for part, metric, style in (("train", "loss", "--"), ("valid", "valid/loss", "-")):
            if history and metric in history[0]:
                losses = [row[metric] for row in history]
                label = f"{name}, {part}".lstrip(", ")
                axes.plot(epochs, losses, style, color=f"C{k}", label=label)
                all_losses += losses
    positive = bool(all_losses) and min(all_losses) > 0
    axes.set(xlabel="epoch", ylabel="loss", yscale="log" if positive else "linear")
    axes.spines[["top", "right"]].set_visible(False)
    if all_losses:
        axes.legend(frameon=False)
    write_figure(path, fig, overwrite=overwrite)


def plot_lr_curve(path: str | Path, curve: LRCurve, *, overwrite: bool = False) -> None:
    """Draw the smoothed loss by learning rate, with the suggested rate.

    Needs the extra `plot`. Raises FileError without it, and if the file exists, unless `overwrite`
    is set.
    """
    fig = figure(path, 7, 4)
    axes = fig.subplots()
    axes.plot(curve.lrs, curve.losses)
    axes.axvline(curve.minimum, linestyle=":", color="C7", label=f"least at {curve.minimum:.2g}")
    axes.axvline(curve.suggestion, color="C1", label=f"suggested {curve.suggestion:.2g}")
    axes.set(xlabel="learning rate", ylabel="smoothed loss", xscale="log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    write_figure(path, fig, overwrite=overwrite)
