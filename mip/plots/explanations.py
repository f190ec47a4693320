"""What `mip.explain` has measured: importance, effects on predictions, and dependence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mip.errors import MipError, hint
from mip.metrics import format_metric
from mip.plots.figures import SMALL, finish, shorten, single

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UP, DOWN = "#2f6db3", "#e07b1f"
"""The colours of what raises and of what lowers a number, which colour-blind people tell apart."""

MAX_BARS = 20
"""Bars in a figure."""

MAX_LINES = 50
"""Lines of single rows in a figure of dependence."""


def importance(
    frame: pd.DataFrame,
    metric: str = "loss",
    *,
    title: str | None = None,
    path: str | Path | None = None,
    overwrite: bool = False,
) -> Figure:
    """Draw what `mip.explain.importance` returns: a bar for each branch and column, the largest
    first, with its interval. Raises MipError for a metric that it does not have.

    >>> import pandas as pd
    >>> known = {"kind": "column", "metric": "mae", "score": 2.0, "low": 0.9, "high": 1.3}
    >>> frame = pd.DataFrame([{**known, "name": "area", "importance": 1.1}])
    >>> importance(frame, "mae").axes[0].get_xlabel()
    'mae gets worse by'
    """
    known = frame["metric"].unique().tolist()
    if metric not in known:
        raise MipError(f"importance: there is no metric '{metric}'{hint(metric, known)}")
    rows = frame[frame["metric"] == metric].sort_values("importance", ascending=False)[:MAX_BARS]
    names = [f"{name} ({kind})" for name, kind in zip(rows["name"], rows["kind"], strict=True)]
    fig, axes = _bars(names, rows["importance"].to_numpy())
    errors = np.abs(rows[["low", "high"]].to_numpy().T - rows["importance"].to_numpy())
    places = range(len(rows))
    axes.errorbar(rows["importance"], places, xerr=errors, fmt="none", ecolor="0.3", linewidth=1)
    axes.set_xlabel(f"{metric} gets worse by", fontsize=SMALL + 1)
    score = f"{metric} {format_metric(metric, float(rows['score'].iloc[0]))} as it is"
    return finish(fig, title or f"importance by permutation: {score}", path, overwrite)


def effects(
    frame: pd.DataFrame,
    row: Any,
    output: str | None = None,
    *,
    title: str | None = None,
    path: str | Path | None = None,
    overwrite: bool = False,
) -> Figure:
    """Draw why a row is predicted so: a bar for each branch or column of what
    `mip.explain.shapley_rows` or `shapley_columns` returns, from the base to the prediction.

    `output` is by default the one with the largest prediction. Raises MipError for a row that is
    not there.
    """
    of_row = frame[frame["row"] == row]
    if not len(of_row):
        raise MipError(f"effects: there is no row {row!r}{hint(str(row), map(str, frame['row']))}")
    output = output or str(of_row.loc[of_row["prediction"].idxmax(), "output"])
    player = "column" if "column" in frame else "branch"
    rows = of_row[of_row["output"] == output]
    rows = rows.reindex(rows["effect"].abs().sort_values(ascending=False).index)[:MAX_BARS]
    fig, axes = _bars(rows[player].tolist(), rows["effect"].to_numpy())
    axes.set_xlabel(f"effect on {output}", fontsize=SMALL + 1)
    base, prediction = (float(rows[name].iloc[0]) for name in ("base", "prediction"))
    ends = format_metric("", prediction), format_metric("", base)
    text = f"row {row}: {output} {ends[0]}, from {ends[1]} for the mean row"
    return finish(fig, title or text, path, overwrite)


def dependence(
    frame: pd.DataFrame,
    output: str | None = None,
    *,
    title: str | None = None,
    path: str | Path | None = None,
    overwrite: bool = False,
) -> Figure:
    """Draw what `mip.explain.dependence` returns for one column: a faint line for each of up to 50
    rows, and their mean. Raises MipError for two columns.
    """
    column, *others = frame.columns.drop(["row", "output", "prediction"])
    if others:
        raise MipError(f"dependence: a figure has one column, not {', '.join([column, *others])}")
    output = output or str(frame["output"].iloc[-1])
    chosen = frame[frame["output"] == output]
    grid = chosen[column].drop_duplicates().tolist()
    lines = chosen["prediction"].to_numpy().reshape(len(grid), -1)
    fig, axes = single(5.2, 3.4)
    is_number = all(isinstance(cell, (int, float, np.number)) for cell in _numbers(grid))
    places = _numbers(grid) if is_number else list(range(len(grid)))
    axes.plot(places, lines[:, :MAX_LINES], color=UP, alpha=0.15, linewidth=0.8)
    axes.plot(places, lines.mean(axis=1), color=DOWN, linewidth=2.2, label="mean of the rows")
    if not is_number:
        slanted = sum(map(len, map(str, grid))) > 40
        labels = [shorten(str(cell) or "(empty)", 18) for cell in grid]
        axes.set_xticks(places, labels)
        if slanted:
            axes.tick_params("x", rotation=40)
    axes.set_xlabel(column, fontsize=SMALL + 1)
    axes.set_ylabel(output, fontsize=SMALL + 1)
    axes.legend(frameon=False, fontsize=SMALL + 1)
    return finish(fig, title or f"{output} if {column} is changed alone", path, overwrite)


def _numbers(cells: list[Any]) -> list[Any]:
    try:
        return [float(cell) for cell in cells]
    except (TypeError, ValueError):
        return cells


def _bars(names: list[str], values: np.ndarray) -> tuple[Figure, Axes]:
    fig, axes = single(6, 1.2 + 0.28 * len(names))
    colours = [UP if value >= 0 else DOWN for value in values]
    axes.barh(range(len(names)), values, color=colours, height=0.65)
    axes.set_yticks(range(len(names)), [shorten(name, 34) for name in names], fontsize=SMALL + 1)
    axes.axvline(0, color="0.6", linewidth=0.8)
    axes.invert_yaxis()
    return fig, axes
