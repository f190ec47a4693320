"""Tables of results, as text, JSON and data frames."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mip.data import mean_and_std
from mip.model import Node, format_bytes, format_shape
from mip.output import write
from mip.runs.sweeps import Combination
from mip.train import format_metric

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table as Grid


def grid(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> Grid:
    """Lay out a table of text: the first column to the left, the others to the right; below it a
    note.
    """
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    drawn = Grid(
        title=Text(title, no_wrap=True, overflow="ignore"),
        caption=Text(note, no_wrap=True, overflow="ignore") if note else None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
    )
    for place, column in enumerate(columns):
        drawn.add_column(column, justify="right" if place else "left")
    for row in rows:
        drawn.add_row(*row)
    return drawn


UNDEFINED = {
    "auc": "where all rows are of one class",
    "f1": "where no row has a label and none is predicted",
    "kappa": "where all are one and the same class",
    "mape": "where a target is 0",
    "median_ape": "where half of the targets are 0",
    "msle": "where a number is -1 or less",
    "r2": "where all targets are equal, as one alone is",
}
"""When metrics are not defined."""


def undefined(found: Iterable[Mapping[str, float]]) -> str:
    """Say of the metrics that are NaN when they are not defined; nothing where none is.

    >>> undefined([{"price.r2": float("nan"), "price.mae": 1.0}, {"loss": 2.0}])
    'n/a, not defined: r2 where all targets are equal, as one alone is'
    """
    gone = {name for scores in found for name, value in scores.items() if value != value}
    names = sorted({name.split("/")[-1].split(".")[-1] for name in gone} & UNDEFINED.keys())
    told = ", ".join(f"{name} {UNDEFINED[name]}" for name in names)
    return f"n/a, not defined: {told}" if told else ""


def scores(title: str, by_part: Mapping[str, Mapping[str, float]]) -> Grid:
    """Lay out metrics, a row each, with a column for every part of the rows."""
    names = list(next(iter(by_part.values())))
    rows = [
        [name, *(format_metric(name, part[name]) for part in by_part.values())] for name in names
    ]
    return grid(title, ["metric", *by_part], rows, undefined(by_part.values()))


def comparison(title: str, found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Grid:
    """Lay out metrics of models, by model and part: below each part of the rows a row a model."""
    first = next(iter(found.values()))
    metrics = list(next(iter(first.values())))
    rows = []
    for part in first:
        rows.append([part, *("" for _ in metrics)])
        for name, scores in found.items():
            values = [format_metric(metric, scores[part][metric]) for metric in metrics]
            rows.append([f"  {name}", *values])
    every = (scores for by_part in found.values() for scores in by_part.values())
    return grid(title, ["model", *metrics], rows, undefined(every))


def spread(title: str, folds: Mapping[str, Mapping[str, float]]) -> Grid:
    """Lay out the metrics of folds, by name: mean, standard deviation, and each fold's."""
    rows = []
    for name in _names(folds.values()):
        values = [fold.get(name, math.nan) for fold in folds.values()]
        mean, deviation, known = mean_and_std(values)
        few = f" ({known} of {len(values)})" * (known < len(values))
        rows.append([name, format_metric(name, mean) + few, format_metric(name, deviation)])
        rows[-1] += [format_metric(name, value) for value in values]
    return grid(title, ["metric", "mean", "±", *folds], rows, undefined(folds.values()))


def averages(folds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Give each metric's mean over the folds in which it is defined, its standard deviation under
    `spread`, how many these folds are under `defined`, and `folds`.

    >>> averages([{"auc": 1.0}, {"auc": 0.5}, {"auc": float("nan")}])
    {'auc': 0.75, 'spread': {'auc': 0.3535533905932738}, 'defined': {'auc': 2}, 'folds': \
[{'auc': 1.0}, {'auc': 0.5}, {'auc': nan}]}
    """
    names = _names(folds)
    found = {name: mean_and_std(fold.get(name, math.nan) for fold in folds) for name in names}
    mean, deviation, known = ({name: found[name][k] for name in names} for k in range(3))
    return {**mean, "spread": deviation, "defined": known, "folds": [dict(fold) for fold in folds]}


def _names(found: Iterable[Mapping[str, float]]) -> list[str]:
    # Of a class that one fold lacks, others can have a metric more.
    return list(dict.fromkeys(name for scores in found for name in scores))


def sweep_grid(title: str, combinations: Sequence[Combination], best: int) -> Grid:
    """Lay out a sweep, a row each: what is changed, the loss and the first metric of each part as
    mean ± standard deviation, and a mark at the best.
    """
    shown = [pair for part in measured(combinations).values() for pair in part[:2]]
    rows = [
        [
            *map(str, each.changes.values()),
            *(_spread(each, part, metric) for part, metric in shown),
            "best" if place == best else "",
        ]
        for place, each in enumerate(combinations)
    ]
    named = [*combinations[0].changes, *map(" ".join, shown), ""]
    found = [{m: each.average(part, m)[0]} for each in combinations for part, m in shown]
    return grid(title, named, rows, undefined(found))


def _spread(one: Combination, part: str, metric: str) -> str:
    mean, deviation, known = one.average(part, metric)
    more = f" ± {format_metric(metric, deviation)}" if known > 1 else ""
    seeds = len(one.outcomes)
    return format_metric(metric, mean) + more + f" ({known} of {seeds})" * (0 < known < seeds)


def measured(combinations: Sequence[Combination]) -> dict[str, list[tuple[str, str]]]:
    """Give each (part, metric) that a run of a sweep has, by part; nothing where all failed."""
    found: dict[str, dict[tuple[str, str], None]] = {}
    for outcome in (each for one in combinations for each in one.outcomes):
        for part, metrics in outcome.scores.items():
            found.setdefault(part, {}).update(dict.fromkeys((part, metric) for metric in metrics))
    return {part: list(pairs) for part, pairs in found.items()}


def sweep_json(combinations: Sequence[Combination], best: int) -> list[dict[str, Any]]:
    """Give what a sweep found as plain values: for each combination its changes, whether it is the
    best, the mean of each metric by part over the seeds in which it is defined, its standard
    deviation under `spread`, how many these seeds are under `defined`, and the folders and errors
    of its runs.
    """
    return [
        {
            "changes": dict(each.changes),
            "best": place == best,
            **_averages(each, combinations, 0),
            "spread": _averages(each, combinations, 1),
            "defined": _averages(each, combinations, 2),
            "runs": [str(folder) for folder in each.folders],
            "errors": [str(run.error) for run in each.outcomes if run.error],
        }
        for place, each in enumerate(combinations)
    ]


def _averages(one: Combination, every: Sequence[Combination], which: int) -> dict[str, Any]:
    return {
        part: {metric: one.average(part, metric)[which] for _, metric in pairs}
        for part, pairs in measured(every).items()
    }


def sweep_frame(combinations: Sequence[Combination], best: int) -> pd.DataFrame:
    """Give what a sweep found as a table: a row for each combination, its metrics as
    `<part>/<metric>` with behind them the standard deviation over seeds, `<part>/<metric> std`, and
    how many seeds these are of, `<part>/<metric> n`.
    """
    import pandas as pd

    rows = []
    for place, each in enumerate(combinations):
        row = {**each.changes, "best": place == best}
        for part, metric in chain(*measured(combinations).values()):
            name = f"{part}/{metric}"
            row[name], row[f"{name} std"], row[f"{name} n"] = each.average(part, metric)
        rows.append(row)
    return pd.DataFrame(rows).rename_axis("combination")


def parts(title: str, nodes: Sequence[Node]) -> Grid:
    """Lay out the tree of a model with what each part takes, gives, and costs a row, and the
    totals.
    """
    rows = [
        [
            n.path,
            n.kind,
            format_shape(n.input_shape),
            format_shape(n.shape),
            *_costs([n]),
            format_bytes(n.output_bytes),
        ]
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
        format_bytes(sum(n.weight_bytes for n in nodes)),
    ]


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
    """Write a value as JSON; a number that is not finite, which JSON lacks, becomes null. Raises
    FileError where the file exists already, unless `overwrite` says to replace it.
    """
    text = json.dumps(_plain(value), indent=2, allow_nan=False) + "\n"
    write(path, text.encode(), overwrite=overwrite)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(child) for name, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_table(path: str | Path, frame: pd.DataFrame, *, overwrite: bool = False) -> None:
    """Write predictions as CSV, or as Parquet by the ending; whole or not at all. Raises FileError
    where the file exists already, unless `overwrite` says to replace it.
    """
    is_parquet = Path(path).suffix.lower() == ".parquet"
    data = frame.to_parquet(index=True) if is_parquet else frame.to_csv().encode()
    write(path, data, overwrite=overwrite)
