"""The curves of a history: metrics by epoch and by step."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from torch import Tensor

from mip.optim import Schedule
from mip.plots.figures import legend, panels
from mip.train import STEP_INFO, History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MAX_COLUMNS = 4
"""Panels in a row at most."""


COLOURS = ("#2f6db3", "#e07b1f", "#3a9a5b", "#8a5fb5", "#b04a4a")
"""One for what training measures itself, then one for each part that is validated."""


Curves = dict[str, tuple[list[float], list[float]]]
"""Epochs and values by part of the rows; what training measures itself has the part ""."""


def curves(
    path: str | Path,
    history: History,
    schedule: Schedule | None = None,
    scale: Literal["linear", "log"] = "linear",
) -> Figure:
    """Draw a history for the file `path`: a panel for each metric, with a line for each part of the
    rows and, faint behind them, the values of each step; with a schedule also the learning rate.

    `scale` is that of the loss, if all its values are above 0. Raises FileError without matplotlib.

    >>> rows = ({"epoch": 0, "step": 2, "loss": 1.5, "valid/loss": 1.8, "valid/mae": 1.1},)
    >>> [axes.get_title("left") for axes in curves("history.png", History(rows)).axes]
    ['loss', 'mae']
    """
    metrics, steps = _by_metric(history), _steps_in_epochs(history)
    titles = [*metrics, *["learning rate"] * bool(schedule)]
    fig, axes = panels(path, titles, MAX_COLUMNS, 1.9)
    axes[0].set_xlim(left=0, right=max([1, len(history.epochs), *steps[-1:]]))
    styles = _styles(metrics)
    for panel, (metric, lines) in zip(axes, metrics.items(), strict=False):
        values = history.steps.get(metric, Tensor())
        epoch_values = chain.from_iterable(line for _, line in lines.values())
        if metric == "loss" and not (values.le(0).any() or any(v <= 0 for v in epoch_values)):
            panel.set_yscale(scale)
        _plot_epochs(panel, lines, styles)
        _plot_steps(panel, steps, values)
    if schedule:
        rates = [schedule(step - 1) for step in history.steps.get("step", Tensor()).tolist()]
        axes[-1].plot(steps, rates, color="C7", linewidth=1.5)
    for panel in axes:
        _format(panel)
    fig.supxlabel("epoch", fontsize=9)
    legend(fig, axes)
    return fig


def _by_metric(history: History) -> dict[str, Curves]:
    metrics: dict[str, Curves] = {name: {} for name in history.steps if name not in STEP_INFO}
    for row in history.epochs:
        for name in [name for name in row if name not in {"epoch", "step"}]:
            part, _, metric = name.rpartition("/")
            epochs, values = metrics.setdefault(metric, {}).setdefault(part, ([], []))
            epochs.append(row["epoch"] + 1)
            values.append(row[name])
    # First the loss, last what only training measures, such as norms and seconds.
    return dict(sorted(metrics.items(), key=lambda item: item[0] != "loss" and not any(item[1])))


def _steps_in_epochs(history: History) -> np.ndarray:
    # Steps as positions on an axis of epochs; an unfinished epoch is drawn as long as the last.
    steps = history.steps.get("step", Tensor()).numpy()
    ends = [row["step"] for row in history.epochs]
    edges = [min([*steps[:1], *ends[:1]], default=1) - 1, *ends]
    length = edges[-1] - edges[-2] if ends else 1
    edges.append(max([edges[-1] + length, *steps[-1:]]))
    return np.interp(steps, edges, range(len(edges)))


def _styles(metrics: Mapping[str, Curves]) -> dict[str, tuple[str, str]]:
    # The label and colour of each part.
    parts = dict.fromkeys(["", *(part for lines in metrics.values() for part in lines)])
    own = "train, mean of its steps" if "train" in parts else "train"
    return {part: (part or own, COLOURS[k % len(COLOURS)]) for k, part in enumerate(parts)}


def _plot_epochs(axes: Axes, lines: Curves, styles: Mapping[str, tuple[str, str]]) -> None:
    for part, (epochs, values) in lines.items():
        label, colour = styles[part]
        # A line would not show a single epoch.
        marker = "o" if len(epochs) == 1 else None
        axes.plot(
            epochs, values, color=colour, linewidth=1.5, label=label, marker=marker, markersize=4
        )


def _plot_steps(axes: Axes, steps: np.ndarray, values: Tensor) -> None:
    finite = values[values.isfinite()]
    if not len(finite):
        return
    # The axis leaves out the extremes: the first few steps, or a spike, would flatten all else.
    low, high = np.quantile(finite.numpy(), [0.01, 0.99])
    axes.update_datalim([(steps[0], low), (steps[0], high)])
    axes.autoscale_view(scalex=False)
    axes.autoscale(enable=False, axis="y")
    label, colour = "each step", COLOURS[0]
    axes.plot(steps, values, color=colour, alpha=0.3, linewidth=0.7, zorder=1, label=label)


def _format(axes: Axes) -> None:
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_formatter("{x:,g}")
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", color="0.6")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("0.6")
