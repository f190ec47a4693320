"""The curves of a history, drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor

from mip.optim import Schedule
from mip.plots.figures import legend, panels
from mip.train import STEP_INFO, History

if TYPE_CHECKING:
    from matplotlib.figure import Figure


WIDEST = 4
"""Panels in a line at most."""


COLOURS = ("#2f6db3", "#e07b1f", "#3a9a5b", "#8a5fb5", "#b04a4a")
"""One for what training measures by itself, then one for each part that is validated."""


Lines = dict[str, dict[str, tuple[list[float], list[float]]]]
"""Epochs and values by metric and part; the part of what training measures by itself is ""."""


def curves(
    path: str | Path,
    history: History,
    schedule: Schedule | None = None,
    scale: Literal["linear", "log"] = "linear",
) -> Figure:
    """Draw a history for the file `path`: a panel for each metric, a line for each part of the
    rows, and faint behind them what each step measured; with a schedule also the learning rate.

    `scale` is that of the loss, where this is above 0. Raises FileError without matplotlib.

    >>> rows = ({"epoch": 0, "step": 2, "loss": 1.5, "valid/loss": 1.8, "valid/mae": 1.1},)
    >>> [axes.get_title("left") for axes in curves("history.png", History(rows)).axes]
    ['loss', 'mae']
    """
    lines, steps = _lines(history), _steps(history)
    drawn, axes = panels(path, [*lines, *["learning rate"] * bool(schedule)], WIDEST, 1.9)
    axes[0].set_xlim(left=0, right=max([1, len(history.epochs), *steps[-1:]]))
    for one, (name, parts) in zip(axes, lines.items(), strict=False):
        values = history.steps.get(name, Tensor())
        if name == "loss" and _positive(parts, values):
            one.set_yscale(scale)
        _epochs(one, parts, _looks(lines))
        _behind(one, steps, values)
    if schedule:
        rates = [schedule(step - 1) for step in history.steps.get("step", Tensor()).tolist()]
        axes[-1].plot(steps, rates, color="C7", linewidth=1.5)
    for one in axes:
        _plain(one)
    drawn.supxlabel("epoch", fontsize=9)
    legend(drawn, axes)
    return drawn


def _lines(history: History) -> Lines:
    lines: Lines = {name: {} for name in history.steps if name not in STEP_INFO}
    for row in history.epochs:
        for name in [name for name in row if name not in {"epoch", "step"}]:
            part, _, metric = name.rpartition("/")
            epochs, values = lines.setdefault(metric, {}).setdefault(part, ([], []))
            epochs.append(row["epoch"] + 1)
            values.append(row[name])
    # What training alone measures, as norms and seconds, stands behind the metrics.
    return dict(sorted(lines.items(), key=lambda line: line[0] != "loss" and not any(line[1])))


def _steps(history: History) -> np.ndarray:
    # Where each step stands on an axis of epochs; the epoch begun is as long as the one before.
    steps = history.steps.get("step", Tensor()).numpy()
    ends = [row["step"] for row in history.epochs]
    edges = [min([*steps[:1], *ends[:1]], default=1) - 1, *ends]
    ahead = edges[-1] - edges[-2] if ends else 1
    edges.append(max([edges[-1] + ahead, *steps[-1:]]))
    return np.interp(steps, edges, range(len(edges)))


def _looks(lines: Lines) -> dict[str, tuple[str, str]]:
    parts = dict.fromkeys(["", *(part for line in lines.values() for part in line)])
    own = "train, mean of its steps" if "train" in parts else "train"
    return {part: (part or own, COLOURS[k % len(COLOURS)]) for k, part in enumerate(parts)}


def _positive(parts: Mapping[str, Any], values: Tensor) -> bool:
    return not (values.le(0).any() or any(each <= 0 for _, one in parts.values() for each in one))


def _epochs(one: Any, parts: Mapping[str, Any], looks: Mapping[str, tuple[str, str]]) -> None:
    for part, (epochs, values) in parts.items():
        label, colour = looks[part]
        # One epoch is a point, which no line would show.
        alone = {"marker": "o", "markersize": 4} if len(epochs) == 1 else {}
        one.plot(epochs, values, color=colour, linewidth=1.5, label=label, **alone)


def _behind(one: Any, steps: np.ndarray, values: Tensor) -> None:
    finite = values[values.isfinite()]
    if not len(finite):
        return
    # The first few steps, or a spike, would flatten all else.
    reach = np.quantile(finite.numpy(), [0.01, 0.99])
    one.update_datalim([(steps[0], reach[0]), (steps[0], reach[1])])
    one.autoscale_view(scalex=False)
    one.autoscale(enable=False, axis="y")
    one.plot(steps, values, color=COLOURS[0], alpha=0.3, linewidth=0.7, zorder=1, label="each step")


def _plain(one: Any) -> None:
    if one.get_yscale() == "linear":
        one.yaxis.set_major_formatter("{x:,g}")
    one.grid(axis="y", color="0.9", linewidth=0.6)
    one.set_axisbelow(True)
    one.tick_params(which="both", color="0.6")
    one.spines[["top", "right"]].set_visible(False)
    one.spines[["left", "bottom"]].set_color("0.6")
