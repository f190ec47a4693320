"""What the command line shows: tables of text, and plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from mip.figure import figure, write_figure
from mip.finder import Curve
from mip.hooks import number
from mip.many import Combination
from mip.output import write
from mip.summary import Node, Shape

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table as Grid


def grid(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Grid:
    """Lay out a table of text: the first column to the left, the others to the right."""
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    drawn = Grid(
        title=Text(title, no_wrap=True, overflow="ignore"),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
    )
    for place, column in enumerate(columns):
        drawn.add_column(column, justify="right" if place else "left")
    for row in rows:
        drawn.add_row(*row)
    return drawn


def scores(title: str, by_part: Mapping[str, Mapping[str, float]]) -> Grid:
    """Lay out metrics, a row each, with a column for every part of the rows."""
    names = list(next(iter(by_part.values())))
    rows = [[name, *(number(name, part[name]) for part in by_part.values())] for name in names]
    return grid(title, ["metric", *by_part], rows)


def comparison(title: str, found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Grid:
    """Lay out metrics of models, by model and part: below each part of the rows a row a model."""
    first = next(iter(found.values()))
    metrics = list(next(iter(first.values())))
    rows = []
    for part in first:
        rows.append([part, *("" for _ in metrics)])
        for name, scores in found.items():
            values = [number(metric, scores[part][metric]) for metric in metrics]
            rows.append([f"  {name}", *values])
    return grid(title, ["model", *metrics], rows)


def spread(title: str, folds: Sequence[Mapping[str, float]]) -> Grid:
    """Lay out the metrics of folds: mean, standard deviation, and each fold's."""
    summary = averages(folds)
    rows = [
        [name, number(name, summary[name]), number(name, summary["spread"][name])]
        + [number(name, fold[name]) for fold in folds]
        for name in folds[0]
    ]
    return grid(title, ["metric", "mean", "±", *map(str, range(1, len(folds) + 1))], rows)


def averages(folds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Give each metric's mean over folds, its standard deviation under `spread`, and `folds`.

    >>> averages([{"mae": 1.0}, {"mae": 3.0}])["mae"]
    2.0
    """
    names = list(folds[0])
    deviation = {name: stdev(fold[name] for fold in folds) for name in names}
    means = {name: mean(fold[name] for fold in folds) for name in names}
    return {**means, "spread": deviation, "folds": [dict(fold) for fold in folds]}


def sweep_grid(title: str, combinations: Sequence[Combination], best: int) -> Grid:
    """Lay out a sweep, a row each: what is changed, the loss and the first metric of each part as
    mean ± standard deviation, and a mark at the best.
    """
    shown = [pair for part in measured(combinations).values() for pair in part[:2]]
    rows = [
        [
            *map(str, each.changes.values()),
            *(_spread(metric, *each.average(part, metric)) for part, metric in shown),
            "best" if place == best else "",
        ]
        for place, each in enumerate(combinations)
    ]
    named = [*combinations[0].changes, *map(" ".join, shown), ""]
    return grid(title, named, rows)


def _spread(metric: str, middle: float, deviation: float | None) -> str:
    more = "" if deviation is None else f" ± {number(metric, deviation)}"
    return number(metric, middle) + more


def measured(combinations: Sequence[Combination]) -> dict[str, list[tuple[str, str]]]:
    """Give the (part, metric) that a sweep has, by part; nothing where every run failed."""
    scores = [each.scores for one in combinations for each in one.outcomes if each.scores]
    found = scores[0] if scores else {}
    return {part: [(part, metric) for metric in metrics] for part, metrics in found.items()}


def sweep_json(combinations: Sequence[Combination], best: int) -> list[dict[str, Any]]:
    """Give what a sweep found as plain values: for each combination its changes, whether it is the
    best, the mean of each metric by part, its standard deviation over seeds under `spread`, and
    the folders and errors of its runs.
    """
    return [
        {
            "changes": dict(each.changes),
            "best": place == best,
            **{part: _averages(each, pairs, 0) for part, pairs in measured(combinations).items()},
            "spread": {
                part: _averages(each, pairs, 1) for part, pairs in measured(combinations).items()
            },
            "runs": [str(folder) for folder in each.folders],
            "errors": [str(run.error) for run in each.outcomes if run.error],
        }
        for place, each in enumerate(combinations)
    ]


def _averages(one: Combination, pairs: Sequence[tuple[str, str]], which: int) -> dict[str, Any]:
    return {metric: one.average(part, metric)[which] for part, metric in pairs}


def sweep_frame(combinations: Sequence[Combination], best: int) -> pd.DataFrame:
    """Give what a sweep found as a table: a row for each combination, its metrics as
    `<part>/<metric>` with the standard deviation over seeds behind, `<part>/<metric> std`.
    """
    import pandas as pd

    rows = []
    for place, each in enumerate(combinations):
        row = {**each.changes, "best": place == best}
        for part, metric in chain(*measured(combinations).values()):
            name = f"{part}/{metric}"
            row[name], row[f"{name} std"] = each.average(part, metric)
        rows.append(row)
    return pd.DataFrame(rows).rename_axis("combination")


def parts(title: str, nodes: Sequence[Node]) -> Grid:
    """Lay out the tree of a model with what each part takes, gives, and costs a row, and the
    totals.
    """
    rows = [
        [n.path, n.kind, shape(n.takes), shape(n.shape), *_costs([n]), memory(n.output_bytes)]
        for n in nodes
    ]
    whole = [n for n in nodes if n.path in {"branch", "head"}]
    costs = ["parameters", "multiply-adds", "weights", "activations"]
    columns = ["part", "kind", "input", "output", *costs]
    return grid(title, columns, [*rows, ["total", "", "", "", *_costs(whole), ""]])


def _costs(nodes: Sequence[Node]) -> list[str]:
    return [
        f"{sum(n.parameters for n in nodes):,}",
        f"{sum(n.multiply_adds for n in nodes):,}",
        memory(sum(n.weight_bytes for n in nodes)),
    ]


def shape(lengths: Shape) -> str:
    """Write the shape of a part's input or output.

    >>> shape(("n", 3, 64, 64))
    'n × 3 × 64 × 64'
    """
    return " × ".join(map(str, lengths))


def memory(size: int) -> str:
    """Write a number of bytes for a person.

    >>> memory(640), memory(4_096), memory(102_230_128)
    ('640 B', '4.1 kB', '102.2 MB')
    """
    if size < 1000:
        return f"{size} B"
    return f"{size / 1e3:,.1f} kB" if size < 1e6 else f"{size / 1e6:,.1f} MB"


def census(counts: Mapping[str, tuple[int, int]]) -> str:
    """Write how many layers there are of each type, and how often they run if more often.

    >>> census({"Conv2d": (53, 53), "ReLU": (17, 49)})
    '53 Conv2d, 17 ReLU (run 49 times)'
    """
    more = {kind: f" (run {calls} times)" * (calls != n) for kind, (n, calls) in counts.items()}
    return ", ".join(f"{n} {kind}{more[kind]}" for kind, (n, _) in counts.items())


def stored(title: str, files: Sequence[tuple[str, int, float]]) -> Grid:
    """Lay out files by name with their megabytes and the day of their last use."""
    from datetime import datetime

    rows = [
        [name, f"{size / 1e6:,.1f}", f"{datetime.fromtimestamp(used):%Y-%m-%d %H:%M}"]
        for name, size, used in files
    ]
    total = f"{sum(size for _, size, _ in files) / 1e6:,.1f}"
    return grid(title, ["file", "MB", "last used"], [*rows, ["total", total, ""]])


def write_json(path: str | Path, value: Any, *, overwrite: bool = False) -> None:
    """Write a value as JSON; NaN, which JSON lacks, becomes null. Raises FileError where the file
    exists already, unless `overwrite` says to replace it.
    """
    text = json.dumps(_plain(value), indent=2, allow_nan=False) + "\n"
    write(path, text.encode(), overwrite=overwrite)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(child) for name, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(child) for child in value]
    return None if isinstance(value, float) and value != value else value


def write_table(path: str | Path, frame: pd.DataFrame, *, overwrite: bool = False) -> None:
    """Write predictions as CSV, or as Parquet by the ending; whole or not at all. Raises FileError
    where the file exists already, unless `overwrite` says to replace it.
    """
    is_parquet = Path(path).suffix.lower() == ".parquet"
    data = frame.to_parquet() if is_parquet else frame.to_csv().encode()
    write(path, data, overwrite=overwrite)


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


def plot_rates(path: str | Path, curve: Curve, *, overwrite: bool = False) -> None:
    """Draw the smoothed loss by learning rate, with the suggestion.

    Needs the `plot` extra; raises FileError with the cure without it, and where the file exists
    already, unless `overwrite` says to replace it.
    """
    drawn = figure(path, 7, 4)
    axes = drawn.subplots()
    axes.plot(curve.rates, curve.losses)
    axes.axvline(curve.least, linestyle=":", color="C7", label=f"least at {curve.least:.2g}")
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
