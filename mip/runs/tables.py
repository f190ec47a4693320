"""Tables of results, as text, JSON and data frames."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mip.data import mean_and_std
from mip.metrics import format_metric
from mip.model import Node, format_bytes, format_shape
from mip.output import write
from mip.runs.sweeps import Combination, best_combination

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

Scores = Mapping[str, float]
"""Metrics by name."""


def text_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], note: str = ""
) -> Table:
    """Lay out a table of text, the first column to the left and the others to the right, with a
    note below it.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title, no_wrap=True, overflow="ignore"),
        caption=Text(note, no_wrap=True, overflow="ignore") if note else None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
    )
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    return table


UNDEFINED_IF = {
    "auc": "if all rows are of one class",
    "average_precision": "if all rows are of class 0",
    "f1": "if no row has a label and none is predicted",
    "kappa": "if all are one and the same class",
    "mape": "if a target is 0",
    "median_ape": "if half of the targets are 0",
    "msle": "if a number is -1 or less",
    "precision": "if class 1 is never predicted",
    "r2": "if all targets are equal, as a single one is",
    "recall": "if all rows are of class 0",
}
"""When metrics are not defined."""


def undefined_note(scores: Iterable[Scores]) -> str:
    """Explain the metrics that are NaN; "" if none is.

    >>> undefined_note([{"price.r2": float("nan"), "price.mae": 1.0}, {"loss": 2.0}])
    'n/a, not defined: r2 if all targets are equal, as a single one is'
    """
    undefined = {name for each in scores for name, value in each.items() if math.isnan(value)}
    metrics = {name.split("/")[-1].split(".")[-1] for name in undefined} & UNDEFINED_IF.keys()
    reasons = ", ".join(f"{metric} {UNDEFINED_IF[metric]}" for metric in sorted(metrics))
    return f"n/a, not defined: {reasons}" if reasons else ""


def scores_table(title: str, by_part: Mapping[str, Scores]) -> Table:
    """Lay out a row for each metric, with a column for each part of the rows."""
    metrics = list(next(iter(by_part.values())))
    rows = [
        [metric, *(format_metric(metric, scores[metric]) for scores in by_part.values())]
        for metric in metrics
    ]
    return text_table(title, ["metric", *by_part], rows, undefined_note(by_part.values()))


def comparison_table(title: str, by_model: Mapping[str, Mapping[str, Scores]]) -> Table:
    """Lay out the metrics of several models: for each part of the rows, a row for each model."""
    by_part = next(iter(by_model.values()))
    metrics = list(next(iter(by_part.values())))
    rows = []
    for part in by_part:
        rows.append([part, *("" for _ in metrics)])
        for model, of_model in by_model.items():
            values = [format_metric(metric, of_model[part][metric]) for metric in metrics]
            rows.append([f"  {model}", *values])
    scores = chain.from_iterable(of_model.values() for of_model in by_model.values())
    return text_table(title, ["model", *metrics], rows, undefined_note(scores))


def importance_table(title: str, importance: pd.DataFrame) -> Table:
    """Lay out what `mip.explain.importance` returns: for each metric what it gets worse by, with
    two standard errors, the most important of each kind first.
    """
    metrics = importance["metric"].unique().tolist()
    order = importance[importance["metric"] == metrics[0]].sort_values(
        ["kind", "importance"], ascending=[True, False]
    )
    rows = []
    for kind, name in zip(order["kind"], order["name"], strict=True):
        found = importance[(importance["kind"] == kind) & (importance["name"] == name)]
        texts = [
            f"{format_metric(each['metric'], each['importance'])} ± "
            f"{format_metric(each['metric'], each['high'] - each['importance'])}"
            for each in found.to_dict("records")
        ]
        rows.append([f"{kind} {name}", *texts])
    note = "by how much each metric gets worse if the cells are those of other rows"
    return text_table(title, ["", *metrics], rows, note)


def branches_table(title: str, branches: pd.DataFrame) -> Table:
    """Lay out what `mip.explain.branches` returns."""
    names = ["effect", "without", "alone"]
    rows = [
        [each["branch"], each["metric"], *(format_metric(each["metric"], each[k]) for k in names)]
        for each in branches.to_dict("records")
    ]
    note = "effects add up; in the others, branches are blank"
    return text_table(title, ["branch", "metric", *names], rows, note)


def effects_table(title: str, effects: pd.DataFrame) -> Table:
    """Lay out what `mip.explain.shapley_columns` returns of one row: for each output, how the
    columns lead from the mean prediction to that of the row.
    """
    outputs = effects["output"].unique().tolist()
    ends = effects.drop_duplicates("output").set_index("output")
    rows = [["mean row", *(format_metric("", ends.loc[name, "base"]) for name in outputs)]]
    for column in effects["column"].unique():
        found = effects[effects["column"] == column]["effect"].tolist()
        rows.append([column, *("+" * (x > 0) + format_metric("", x) for x in found)])
    last = (format_metric("", ends.loc[name, "prediction"]) for name in outputs)
    rows.append(["prediction", *last])
    return text_table(title, ["", *outputs], rows)


def folds_table(title: str, folds: Mapping[str, Scores]) -> Table:
    """Lay out a row for each metric: its mean over folds, standard deviation, and each value."""
    rows = []
    for metric in _metrics(folds.values()):
        values = [scores.get(metric, math.nan) for scores in folds.values()]
        mean, deviation, count = mean_and_std(values)
        of_all = f" ({count} of {len(values)})" if count < len(values) else ""
        rows.append(
            [
                metric,
                format_metric(metric, mean) + of_all,
                format_metric(metric, deviation),
                *(format_metric(metric, value) for value in values),
            ]
        )
    return text_table(title, ["metric", "mean", "±", *folds], rows, undefined_note(folds.values()))


def fold_averages(folds: Sequence[Scores]) -> dict[str, Any]:
    """Return the mean of each metric over the folds in which it is defined, with its standard
    deviation under `spread`, the number of these folds under `defined`, and `folds`.

    >>> fold_averages([{"auc": 1.0}, {"auc": 0.5}, {"auc": float("nan")}])
    {'auc': 0.75, 'spread': {'auc': 0.3535533905932738}, 'defined': {'auc': 2}, 'folds': \
[{'auc': 1.0}, {'auc': 0.5}, {'auc': nan}]}
    """
    summary: dict[str, Any] = {}
    spread, defined = {}, {}
    for metric in _metrics(folds):
        values = (scores.get(metric, math.nan) for scores in folds)
        summary[metric], spread[metric], defined[metric] = mean_and_std(values)
    named = {"spread": spread, "defined": defined, "folds": [dict(scores) for scores in folds]}
    return summary | named


def _metrics(folds: Iterable[Scores]) -> list[str]:
    # A fold that lacks a class can have fewer metrics than others.
    return list(dict.fromkeys(metric for scores in folds for metric in scores))


def sweep_table(title: str, combinations: Sequence[Combination]) -> Table:
    """Lay out a row for each combination of a sweep: its changes, the loss and the first metric of
    each part as mean ± standard deviation, and a mark at the best.
    """
    best = best_combination(combinations)
    shown = [pair for pairs in metrics_by_part(combinations).values() for pair in pairs[:2]]
    rows = [
        [
            *map(str, combination.changes.values()),
            *(_mean_and_deviation(combination, part, metric) for part, metric in shown),
            "best" if combination is best else "",
        ]
        for combination in combinations
    ]
    columns = [*combinations[0].changes, *map(" ".join, shown), ""]
    means = [
        {metric: each.average(part, metric)[0]} for each in combinations for part, metric in shown
    ]
    return text_table(title, columns, rows, undefined_note(means))


def _mean_and_deviation(combination: Combination, part: str, metric: str) -> str:
    mean, deviation, count = combination.average(part, metric)
    n_seeds = len(combination.outcomes)
    text = format_metric(metric, mean)
    text += f" ± {format_metric(metric, deviation)}" if count > 1 else ""
    return text + (f" ({count} of {n_seeds})" if 0 < count < n_seeds else "")


def metrics_by_part(combinations: Sequence[Combination]) -> dict[str, list[tuple[str, str]]]:
    """List each (part, metric) that a run of a sweep has, by part; none if all have failed."""
    pairs: dict[str, dict[tuple[str, str], None]] = {}
    for outcome in chain.from_iterable(each.outcomes for each in combinations):
        for part, scores in outcome.scores.items():
            pairs.setdefault(part, {}).update(dict.fromkeys((part, metric) for metric in scores))
    return {part: list(of_part) for part, of_part in pairs.items()}


def sweep_json(combinations: Sequence[Combination]) -> list[dict[str, Any]]:
    """Return a sweep as plain values: for each combination its changes, whether it is the best, the
    mean of each metric by part over the seeds in which it is defined, its standard deviation under
    `spread`, the number of these seeds under `defined`, and the folders and errors of its runs.
    """
    best, metrics = best_combination(combinations), metrics_by_part(combinations)
    rows = []
    for combination in combinations:
        means, spread, defined = (
            {
                part: {metric: combination.average(part, metric)[k] for _, metric in pairs}
                for part, pairs in metrics.items()
            }
            for k in range(3)
        )
        rows.append(
            {
                "changes": dict(combination.changes),
                "best": combination is best,
                **means,
                "spread": spread,
                "defined": defined,
                "runs": [str(folder) for folder in combination.folders],
                "errors": [str(each.error) for each in combination.outcomes if each.error],
            }
        )
    return rows


def sweep_frame(combinations: Sequence[Combination]) -> pd.DataFrame:
    """Return a sweep as a data frame: a row for each combination, with its changes, whether it is
    the `best`, and a column `<part>/<metric>` for each metric, followed by its standard deviation
    over seeds, `<part>/<metric> std`, and the number of these seeds, `<part>/<metric> n`.
    """
    import pandas as pd

    rows, best = [], best_combination(combinations)
    for combination in combinations:
        row = {**combination.changes, "best": combination is best}
        for part, metric in chain(*metrics_by_part(combinations).values()):
            name = f"{part}/{metric}"
            row[name], row[f"{name} std"], row[f"{name} n"] = combination.average(part, metric)
        rows.append(row)
    return pd.DataFrame(rows).rename_axis("combination")


def model_table(title: str, nodes: Sequence[Node]) -> Table:
    """Lay out the tree of a model: input, output and costs per row of each part, and the total."""
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
    return text_table(title, columns, [*rows, ["total", "", "", "", *_costs(whole), ""]])


def _costs(nodes: Sequence[Node]) -> list[str]:
    return [
        f"{sum(n.parameters for n in nodes):,}",
        f"{sum(n.multiply_adds for n in nodes):,}",
        format_bytes(sum(n.weight_bytes for n in nodes)),
    ]


def files_table(title: str, files: Sequence[tuple[str, int, float]]) -> Table:
    """Lay out files by name, with their megabytes and the day of their last use."""
    rows = [
        [name, f"{size / 1e6:,.1f}", f"{datetime.fromtimestamp(used):%Y-%m-%d %H:%M}"]
        for name, size, used in files
    ]
    total = f"{sum(size for _, size, _ in files) / 1e6:,.1f}"
    return text_table(title, ["file", "MB", "last used"], [*rows, ["total", total, ""]])


def write_json(path: str | Path, value: Any, *, overwrite: bool = False) -> None:
    """Write a value as JSON; numbers that are not finite, which JSON lacks, become null. Raises
    FileError if the file exists already, unless `overwrite` is set.
    """
    text = json.dumps(_json_value(value), indent=2, allow_nan=False) + "\n"
    write(path, text.encode(), overwrite=overwrite)


def _json_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _json_value(child) for name, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_table(path: str | Path, frame: pd.DataFrame, *, overwrite: bool = False) -> None:
    """Write predictions as CSV, or as Parquet if the path ends so; the file is written whole or not
    at all. Raises FileError if it exists already, unless `overwrite` is set.
    """
    is_parquet = Path(path).suffix.lower() == ".parquet"
    data = frame.to_parquet(index=True) if is_parquet else frame.to_csv().encode()
    write(path, data, overwrite=overwrite)
