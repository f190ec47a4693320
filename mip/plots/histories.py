"""The curves of histories: metrics by epoch and by step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from attrs import frozen
from torch import Tensor

from mip.errors import MipError, hint
from mip.optim import REPORTED, Schedule
from mip.plots.figures import finish, legend, panels, place_legend, shorten
from mip.plots.sources import HistorySource, as_history
from mip.train import STEP_INFO, History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MAX_COLUMNS = 4
"""Panels in a row at most."""


COLOURS = ("#2f6db3", "#e07b1f", "#3a9a5b", "#8a5fb5", "#b04a4a")
"""One for what training measures itself, then one for each part that is validated."""


LINES: tuple[Literal["-", "--", ":", "-."], ...] = ("--", "-", ":", "-.")
"""The same for several runs, whose colours tell them apart."""


Scale = Literal["linear", "log"]
"""The scale of the vertical axis of losses."""


@frozen
class Curve:
    """A metric of a run: the values of a part of the rows ("" for what training measures itself) by
    epoch.
    """

    run: str
    part: str
    epochs: list[float]
    values: list[float]


@frozen
class Style:
    """How a run's part is drawn: the label of its line, that of the part, its colour and line."""

    label: str
    part: str
    colour: str
    line: Literal["-", "--", ":", "-."]


def history(
    histories: HistorySource | Mapping[str, HistorySource],
    schedule: Schedule | None = None,
    metrics: Sequence[str] | None = None,
    scale: Scale = "linear",
    *,
    title: str | None = None,
    path: str | Path | None = None,
    overwrite: bool = False,
) -> Figure:
    """Draw one history, or several by name: a panel for each metric, with a line for each part of
    the rows and each run. A single run has the values of its steps faint behind.

    A history is what `mip.fit`, `mip.run` or `mip.load_checkpoint` returns, a History, rows of
    epochs, the file of the hook `log`, or a run folder. `metrics` selects panels, such as
    `["loss"]`, or single lines: `["valid/loss"]`. Rates of the optimizer that never change have a
    panel only if they are selected. `scale` is that of losses, if all values are above 0. A
    schedule is drawn as learning rate if the history has none. Raises MipError for a metric that no
    history has.

    >>> rows = ({"epoch": 0, "step": 2, "loss": 1.5, "valid/loss": 1.8, "valid/mae": 1.1},)
    >>> [axes.get_title("left") for axes in history(History(rows)).axes]
    ['loss', 'mae']
    """
    runs = _read(histories)
    curves = _select(_by_metric(runs), metrics, runs.values())
    rates = _rates(runs, schedule) if schedule is not None and "lr" not in curves else {}
    titles = [*(shorten(name, 34) for name in curves), *["learning rate"] * bool(rates)]
    if not titles:
        raise MipError("the history has no metrics: nothing has run yet")
    fig, axes = panels(titles, MAX_COLUMNS, 1.9)
    steps = {name: _steps_in_epochs(run) for name, run in runs.items()}
    ends = [row["epoch"] + 1 for run in runs.values() for row in run.epochs]
    axes[0].set_xlim(left=0, right=max([1, *ends, *(s[-1] for s in steps.values() if len(s))]))
    styles = _styles(curves, list(runs))
    for panel, (metric, lines) in zip(axes, curves.items(), strict=False):
        if metric.split(".")[-1] == "loss" and _is_positive(metric, lines, [*runs.values()]):
            panel.set_yscale(scale)
        for curve in lines:
            _plot_epochs(panel, curve, styles[curve.run, curve.part])
        if metrics is None or metric in metrics:
            _plot_steps(panel, metric, runs, steps, styles)
    for name, values in rates.items():
        axes[-1].plot(steps[name], values, color="C7", linewidth=1.5)
    for panel in axes:
        _format(panel)
    fig.supxlabel("epoch" if ends else "step", fontsize=9)
    if len(runs) == 1:
        legend(fig, axes)
    else:
        _explain_runs(fig, styles, curves)
    return finish(fig, title, path, overwrite)


def history_by_metric(
    histories: HistorySource | Mapping[str, HistorySource], scale: Scale = "linear"
) -> dict[str, Figure]:
    """Draw a figure of its own for each metric of what `history` takes.

    >>> list(history_by_metric([{"epoch": 0, "step": 2, "loss": 1.5, "valid/mae": 1.1}]))
    ['loss', 'mae']
    """
    runs = _read(histories)
    names = _select(_by_metric(runs), None, runs.values())
    return {name: history(runs, metrics=[name], scale=scale) for name in names}


def _read(histories: HistorySource | Mapping[str, HistorySource]) -> dict[str, History]:
    by_run = histories if isinstance(histories, Mapping) else {"": histories}
    return {str(name): as_history(source) for name, source in by_run.items()}


def _by_metric(runs: Mapping[str, History]) -> dict[str, list[Curve]]:
    names = (name for run in runs.values() for name in run.steps if name not in STEP_INFO)
    metrics: dict[str, list[Curve]] = {name: [] for name in names}
    for run, measured in runs.items():
        curves: dict[str, Curve] = {}
        for row in measured.epochs:
            for name in [name for name in row if name not in {"epoch", "step"}]:
                part, _, metric = name.rpartition("/")
                if name not in curves:
                    curves[name] = Curve(run, part, [], [])
                    metrics.setdefault(metric, []).append(curves[name])
                curves[name].epochs.append(row["epoch"] + 1)
                curves[name].values.append(row[name])
    # First the loss, last what only training measures, such as norms and seconds.
    is_scored = {metric: any(curve.part for curve in metrics[metric]) for metric in metrics}
    return dict(
        sorted(metrics.items(), key=lambda item: item[0] != "loss" and not is_scored[item[0]])
    )


def _select(
    curves: dict[str, list[Curve]], metrics: Sequence[str] | None, runs: Iterable[History]
) -> dict[str, list[Curve]]:
    if metrics is None:
        return {name: lines for name, lines in curves.items() if not _is_fixed(name, lines, runs)}
    selected: dict[str, list[Curve]] = {}
    for name in metrics:
        part, _, metric = name.rpartition("/")
        lines = [curve for curve in curves.get(metric, []) if part in ("", curve.part)]
        if metric not in curves or (part and not lines):
            raise MipError(f"no history has the metric '{name}'{hint(name, _all_names(curves))}")
        selected.setdefault(metric, []).extend(lines)
    return selected


def _is_fixed(metric: str, lines: Sequence[Curve], runs: Iterable[History]) -> bool:
    # A rate other than the learning rate, such as the weight decay, that no run changes.
    if metric == "lr" or metric.split(".")[0] not in REPORTED:
        return False
    by_step = [run.steps[metric].tolist() for run in runs if metric in run.steps]
    return all(len({*values}) == 1 for values in [*by_step, *(curve.values for curve in lines)])


def _all_names(curves: Mapping[str, Sequence[Curve]]) -> list[str]:
    parts = [f"{c.part}/{metric}" for metric, lines in curves.items() for c in lines if c.part]
    return [*dict.fromkeys([*curves, *parts])]


def _is_positive(metric: str, lines: Sequence[Curve], runs: Sequence[History]) -> bool:
    values = [run.steps[metric] for run in runs if metric in run.steps]
    return not any((v <= 0).any() for v in values) and all(
        not value <= 0 for curve in lines for value in curve.values
    )


def _steps_in_epochs(measured: History) -> np.ndarray:
    # Steps as positions on an axis of epochs; an unfinished epoch is drawn as long as the last.
    # Without any epoch the axis is one of steps.
    steps = measured.steps.get("step", Tensor()).numpy()
    if not measured.epochs:
        return steps
    ends = [row["step"] for row in measured.epochs]
    edges = [min([*steps[:1], *ends[:1]]) - 1, *ends]
    edges.append(max([edges[-1] + edges[-1] - edges[-2], *steps[-1:]]))
    first = measured.epochs[0]["epoch"]
    return first + np.interp(steps, edges, range(len(edges)))


def _styles(
    metrics: Mapping[str, Sequence[Curve]], runs: Sequence[str]
) -> dict[tuple[str, str], Style]:
    # A single run has a colour for each part; several have one each, and a line for each part, the
    # plain one if there is only one.
    parts = dict.fromkeys(["", *(curve.part for curves in metrics.values() for curve in curves)])
    lines = LINES if len(parts) > 1 else ("-",)
    own = "train, mean of its steps" if "train" in parts else "train"
    return {
        (run, part): Style(
            f"{run}, {part or own}", part or own, f"C{k % 10}", lines[j % len(lines)]
        )
        if len(runs) > 1
        else Style(part or own, part or own, COLOURS[j % len(COLOURS)], "-")
        for k, run in enumerate(runs)
        for j, part in enumerate(parts)
    }


def _explain_runs(
    fig: Figure,
    styles: Mapping[tuple[str, str], Style],
    metrics: Mapping[str, Sequence[Curve]],
) -> None:
    # The colour of each run and, if there are several, the line of each part.
    from matplotlib.lines import Line2D

    lines = {
        shorten(run, 40): Line2D([], [], color=style.colour) for (run, _), style in styles.items()
    }
    drawn = [(curve.run, curve.part) for curves in metrics.values() for curve in curves]
    parts = {styles[each].part: styles[each].line for each in drawn}
    if len(parts) > 1:
        for part, line in parts.items():
            lines[part] = Line2D([], [], color="0.4", linestyle=line)
    place_legend(fig, lines)


def _plot_epochs(axes: Axes, curve: Curve, style: Style) -> None:
    colour = style.colour
    axes.plot(
        curve.epochs, curve.values, style.line, color=colour, linewidth=1.5, label=style.label
    )
    # A line would not show a value between values that are missing, or the only one.
    finite = np.isfinite(np.array([np.nan, *curve.values, np.nan], dtype=float))
    alone = finite[1:-1] & ~finite[:-2] & ~finite[2:]
    x, y = (np.array(each)[alone] for each in (curve.epochs, curve.values))
    if len(x):
        axes.plot(x, y, "o", color=colour, markersize=4, clip_on=False, label="_")


def _plot_steps(
    axes: Axes,
    metric: str,
    runs: Mapping[str, History],
    steps: Mapping[str, np.ndarray],
    styles: Mapping[tuple[str, str], Style],
) -> None:
    # Several runs with steps would hide each other; but steps may be all that a run has.
    for name, run in runs.items():
        values = run.steps.get(metric, Tensor())
        finite = values[values.isfinite()]
        if not len(finite) or (len(runs) > 1 and run.epochs):
            continue
        # The axis leaves out the extremes: the first few steps, or a spike, would flatten all else.
        low, high = np.quantile(finite.numpy(), [0.01, 0.99])
        axes.update_datalim([(steps[name][0], low), (steps[name][0], high)])
        axes.autoscale_view(scalex=False)
        width, alpha, order = (0.7, 0.3, 1) if run.epochs else (1.0, 1.0, 2)
        axes.plot(
            steps[name],
            values,
            color=styles[name, ""].colour,
            label=f"{name}, each step" if len(runs) > 1 else "each step",
            linewidth=width,
            alpha=alpha,
            zorder=order,
            scaley=False,
        )


def _rates(runs: Mapping[str, History], schedule: Schedule) -> dict[str, list[float]]:
    return {
        name: [schedule(step - 1) for step in run.steps.get("step", Tensor()).tolist()]
        for name, run in runs.items()
    }


def _format(axes: Axes) -> None:
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_formatter("{x:,g}")
    else:
        from matplotlib.ticker import LogLocator, NullFormatter

        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", color="0.6")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("0.6")
