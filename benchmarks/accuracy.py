"""Measure how well the specs predict real data, and write docs/results.md.

    python -m benchmarks.accuracy [NAME ...] --data DATA --json FILE [--page PAGE]

Results are kept in FILE. The given names are measured again; without names, only those that FILE
does not have yet are, so that the same command goes on where it was interrupted. Cases that FILE
does not have keep their rows of PAGE. DATA is a folder with `tabular/`, `houses/`, `covid_cxr/`,
`mnist/`, `splits/` and `weights/`. Needs LightGBM and scikit-learn.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from attrs import evolve, frozen

import mip
from benchmarks.boosting import LIBRARIES, Library, crossval_trees
from mip.data import Table, read_idx, with_folds
from mip.errors import MipError, hint
from mip.model import Parts, target_columns
from mip.output import write
from mip.runs import CrossValidation, sharing_features
from mip.spec import Spec

Result = dict[str, Any]
"""What FILE keeps of a case: `scores` [repeats][folds], `seconds` of CPU time per training, for
MAPE `errors` [repeats][rows], and in `trees` the scores and seconds of other libraries by name.
"""


@frozen
class Case:
    """One spec on one data set: its table, its metric, and the scores to compare it with.

    Each column in `folds` of the folds file is a repeat of the cross-validation; without a file the
    folds are drawn, stratified by the target. `baselines` were published with the data and are not
    run here, while `trees` of the columns are. `digits` is the number of decimals of a score, and
    `weights` the file of the pretrained net that reads the photos.
    """

    spec: str
    table: str
    metric: str
    baselines: str
    aim: float
    folds_file: str = ""
    folds: tuple[str, ...] = ("fold",)
    digits: int = 3
    trees: bool = True
    weights: str = ""


LITE0 = "weights/tf_efficientnet_lite0.safetensors"

HOUSES = Case(
    spec="houses-table",
    table="houses/houses.csv",
    metric="mape",
    baselines="ridge on log area and one-hot zip code .289 ± .006, gradient boosting .294 ± .005",
    aim=0.27,
    folds_file="houses",
    folds=tuple(f"fold_seed{k}" for k in range(5)),
)

COVID = Case(
    spec="covid-cxr",
    table="covid_cxr/covid_cxr.csv",
    metric="auc",
    baselines="LightGBM on sex, age and view .732",
    aim=0.732,
    folds_file="covid_cxr",
)

MNIST = Case(
    spec="mnist",
    table="mnist",
    metric="accuracy",
    baselines="random forest .9705",
    aim=0.992,
    digits=4,
    trees=False,
)

CASES: dict[str, Case] = {
    "houses-table": HOUSES,
    "houses": evolve(HOUSES, spec="houses", trees=False),
    "houses-photos": evolve(HOUSES, spec="houses-photos", aim=0.252, trees=False, weights=LITE0),
    "covid-cxr": COVID,
    "covid-photos": evolve(COVID, spec="covid-photos", aim=0.8, trees=False, weights=LITE0),
    "california": Case(
        spec="california",
        table="tabular/california_housing.csv",
        metric="rmse",
        baselines="ridge 68,861, random forest 48,282, LightGBM 47,507, of 1500 trees 44,818",
        aim=47_507,
        folds_file="california_housing",
        digits=0,
    ),
    "adult": Case(
        spec="adult",
        table="tabular/adult_train.csv",
        metric="auc",
        baselines="none given",
        aim=0.925,
    ),
    "diabetes": Case(
        spec="diabetes",
        table="tabular/diabetes.csv",
        metric="mae",
        baselines="linear 44.3 ± 1.6, LightGBM 45.2, random forest 46.8",
        aim=45,
        folds_file="diabetes",
        digits=1,
    ),
    "cars": Case(
        spec="cars",
        table="tabular/cars.csv",
        metric="mae",
        baselines="LightGBM 2.99 ± .15, random forest 3.16, linear 3.28",
        aim=2.99,
        folds_file="cars",
        digits=2,
    ),
    "wine": Case(
        spec="wine",
        table="tabular/wine.csv",
        metric="accuracy",
        baselines="logistic regression .983, random forest .978",
        aim=0.978,
        folds_file="wine",
    ),
    "titanic": Case(
        spec="titanic",
        table="tabular/titanic.csv",
        metric="accuracy",
        baselines="LightGBM .822 ± .035",
        aim=0.82,
        folds_file="titanic",
    ),
    "mnist-mlp": evolve(MNIST, spec="mnist-mlp", aim=0.98),
    "mnist": MNIST,
}

HIGHER_IS_BETTER = {"accuracy", "auc"}
"""The metrics that grow as a model improves."""


def measure_case(name: str, case: Case, data: Path) -> Result:
    """Train and score a case."""
    weights = str((data / case.weights).resolve())
    changes = {"branch.photos.pretrained": weights} if case.weights else None
    spec = mip.load_spec(f"specs/{case.spec}.toml", changes=changes)
    tables = list(fold_tables(spec, case, data))
    trees = {
        library: measure_trees(train, spec, case, tables)
        for library, train in (LIBRARIES if case.trees else {}).items()
    }
    began = cpu_seconds()
    if case.table == "mnist":
        runs = [score_test_digits(spec, data / case.table)]
    else:
        with sharing_features(mip.Context()) as context:
            runs = [mip.crossval(spec, table, name, context=context) for name, table in tables]
    spent = cpu_seconds() - began
    scores = [[fold[case.metric] for fold in run.scores] for run in runs]
    seconds = spent / sum(map(len, scores))
    print(f"{name}: {case.metric} {np.mean(scores):.4f}, {seconds:.0f} s per training", flush=True)
    errors = []
    if case.metric == "mape":
        errors = [absolute_percentage_errors(run).tolist() for run in runs]
    return {"scores": scores, "seconds": seconds, "errors": errors, "trees": trees}


def cpu_seconds() -> float:
    """Return the CPU time that this process, its threads and its children have taken, in seconds:
    unlike the time on the wall, it hardly depends on what else the machine does.
    """
    return sum(os.times()[:4])


def fold_tables(spec: Spec, case: Case, data: Path) -> Iterator[tuple[str, Table]]:
    """Yield the rows of a case with a column of folds for each repeat, and the name of the column;
    nothing for the digits, which have a test set.
    """
    if case.table == "mnist":
        return
    table, _ = mip.clean(spec, mip.read(data / case.table))
    if not case.folds_file:
        yield "fold_0", mip.folds(table, 5, seed=0, stratify=target_columns(spec)[0])
        return
    folds = mip.read(data / "splits" / f"{case.folds_file}_folds.csv")
    for column in case.folds:
        yield column, with_folds(table, folds, column)


def measure_trees(
    train: Library, spec: Spec, case: Case, tables: Sequence[tuple[str, Table]]
) -> Result:
    """Train and score the trees of a library on the same folds."""
    began = cpu_seconds()
    runs = [crossval_trees(train, spec, table, column) for column, table in tables]
    spent = cpu_seconds() - began
    scores = [[fold[case.metric] for fold in run] for run in runs]
    return {"scores": scores, "seconds": spent / sum(map(len, scores))}


def score_test_digits(spec: Spec, folder: Path) -> CrossValidation:
    """Train on MNIST's 60,000 training digits and score its 10,000 test digits, on which no choice
    depends.
    """
    train, test = (read_digits(folder, part) for part in ("train", "t10k"))
    train, valid = mip.split(train, (0.95, 0.05), seed=0)
    run = mip.run(spec, Parts(train, valid, test))
    return CrossValidation(run.predict(test), (mip.evaluate(run.predict, test),), run.seconds)


def read_digits(folder: Path, part: str) -> Table:
    """Read MNIST's digits: `image`, `label`, and `pixels`, the image as a list from 0 to 1."""
    images, labels = f"{part}-images-idx3-ubyte.gz", f"{part}-labels-idx1-ubyte.gz"
    table = read_idx(folder / images, folder / labels)
    pixels = [cell.ravel() / np.float32(255) for cell in table.frame["image"]]
    return evolve(table, frame=table.frame.assign(pixels=pixels))


def absolute_percentage_errors(run: CrossValidation) -> pd.Series:
    """Return the absolute percentage error of every row, as a fraction."""
    target = run.predictions["target"].astype(float)
    return (run.predictions["value"] / target - 1).abs()


def paired(
    errors: Sequence[Sequence[float]], other_errors: Sequence[Sequence[float]]
) -> tuple[float, float]:
    """Compare the errors [repeats][rows] of two models row by row, averaged over the repeats.
    Return the mean difference, other minus first, and its standard error over the rows.

    >>> difference, standard_error = paired([[0.1, 0.3]], [[0.2, 0.2]])
    >>> round(difference, 3), round(standard_error, 3)
    (0.0, 0.1)
    """
    differences = np.mean(other_errors, axis=0) - np.mean(errors, axis=0)
    standard_error = differences.std(ddof=1) / np.sqrt(len(differences))
    return float(differences.mean()), float(standard_error)


PHOTO_READERS = {"houses": "a small net from scratch", "houses-photos": "a pretrained net"}
"""The cases that are compared with the table of the houses alone."""

HEADER = (
    "spec",
    "metric",
    "score",
    "time per training",
    *LIBRARIES,
    "published baselines, not run here",
    "aim",
)
"""The columns of the page."""


def format_row(case: Case, result: Result) -> dict[str, str]:
    """Format a case's row of the page, a cell for each column of HEADER."""
    bound = "≥" if case.metric in HIGHER_IS_BETTER else "≤"
    trees = result.get("trees", {})
    return {
        "spec": spec_cell(case),
        "metric": case.metric,
        "score": f"**{format_scores(case, result)}**",
        "time per training": format_seconds(result["seconds"]),
        **{name: format_rival(case, trees[name]) for name in trees},
        "published baselines, not run here": case.baselines,
        "aim": f"{bound} {figure(case.aim, case)}",
    }


def spec_cell(case: Case) -> str:
    """Link the spec of a case, by which its row of a page is known."""
    return f"[{case.spec}](../specs/{case.spec}.toml)"


def format_scores(case: Case, result: Result) -> str:
    """Format the mean of scores. ± is the standard deviation over the repeats or, with a single
    one, over its folds.
    """
    scores = np.array(result["scores"])
    samples = scores.mean(axis=1) if len(scores) > 1 else scores[0]
    spread = f" ± {figure(samples.std(ddof=1), case)}" if len(samples) > 1 else ""
    return figure(scores.mean(), case) + spread


def format_rival(case: Case, result: Result) -> str:
    """Format the scores of trees and the time of a training."""
    return f"{format_scores(case, result)}, {format_seconds(result['seconds'])}"


def format_seconds(seconds: float) -> str:
    """Format a time, of less than ten seconds with a decimal.

    >>> format_seconds(0.62), format_seconds(17.7)
    ('.6 s', '18 s')
    """
    return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s".removeprefix("0")


def read_rows(text: str) -> dict[str, dict[str, str]]:
    """Read the rows of an earlier page, by the cell of their spec: a dict by column each.

    >>> read_rows(chr(10).join(["| spec | aim |", "|---|---|", "| [wine] | ≥ 1 |"]))
    {'[wine]': {'spec': '[wine]', 'aim': '≥ 1'}}
    """
    lines = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {cells[0]: dict(zip(lines[0], cells, strict=True)) for cells in lines[1:]}


def figure(value: float, case: Case) -> str:
    """Format a score.

    >>> figure(47506.6, CASES["california"]), figure(0.9254, CASES["adult"])
    ('47,507', '.925')
    """
    return re.sub(r"^(-?)0(?=[.])", r"\1", f"{value:,.{case.digits}f}")


def page(results: Mapping[str, Result], before: str = "") -> str:
    """Format the results as a page of Markdown. Cases without results keep their rows of the page
    as it was `before`.
    """
    kept = read_rows(before)
    rows = [
        format_row(case, results[name]) if name in results else kept.get(spec_cell(case))
        for name, case in CASES.items()
    ]
    cells = [[row.get(column, "") for column in HEADER] for row in rows if row]
    lines = [f"| {' | '.join(line)} |" for line in (HEADER, *cells)]
    return f"""# Results on real data

How well the specs of this project predict data that is not part of it, each trained with one seed,
and from scratch but for the photos of `houses-photos` and `covid-photos`, which a net reads that
was pretrained on ImageNet. The specs with photos and those of the digits were written by hand; all
others are exactly what `mip new` writes. Its rules were tuned on these same data sets, though, so
it may do somewhat worse on others. With the data in a folder DATA, run

    make accuracy DATA=DATA

or, for a single spec, `python -m benchmarks.accuracy NAME --data DATA --json FILE`.

{lines[0]}
|{"---|" * len(HEADER)}
{chr(10).join(lines[1:])}

Scores are means over five folds: those that come with the data (for the X-rays grouped by patient),
or for `adult` five stratified folds of seed 0. The digits are scored on the official test set. ± is
the standard deviation over the folds, or for the houses, which have five times five folds, over the
repeats. `mape` is a fraction; `mae` and `rmse` are in the target's unit.

Times are CPU times of a training with its scores. LightGBM and scikit-learn's gradient boosting,
both with their defaults, learn from the columns of the spec on the same folds, and from no photos.
Rows of tables without their figures are of an earlier measurement, with times by the clock.

{_photo_gains(results, before)}
Measured on 2 cores or fewer of {platform.machine()} with torch {torch.__version__.split("+")[0]};
times are those of that machine.
"""


def _photo_gains(results: Mapping[str, Result], before: str) -> str:
    lines = []
    for name, reader in PHOTO_READERS.items():
        opening = f"- photos read by {reader}: "
        kept = re.search(rf"^{re.escape(opening)}.*$", before, re.MULTILINE)
        if {name, "houses-table"} <= results.keys():
            gain, error = paired(results["houses-table"]["errors"], results[name]["errors"])
            verdict = "they help" if gain < 0 else "they harm"
            verdict = "within the noise" if abs(gain) < 2 * error else verdict
            lines.append(f"{opening}{gain:+.1%} ± {error:.1%}, {verdict}")
        elif kept:
            lines.append(kept[0])
    title = (
        "Houses with photos compared with the table alone: the difference in MAPE, paired row\n"
        "by row over the repeats, with its standard error over the rows."
    )
    return "\n".join([title, "", *lines, ""]) if lines else ""


def main(
    arguments: Sequence[str] | None = None,
    cases: Mapping[str, Case] = CASES,
    measure: Callable[[str, Case, Path], Result] = measure_case,
) -> int:
    """Measure the selected cases, keep their results in a file, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to measure; default: all")
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DATA")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    parser.add_argument("--page", type=Path, metavar="PAGE")
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in cases:
            print(f"'{name}' is not a case{hint(name, cases)}", file=sys.stderr)
            return 2
    results = json.loads(options.json.read_text()) if options.json.is_file() else {}
    for name in options.names or [name for name in cases if name not in results]:
        try:
            results[name] = measure(name, cases[name], options.data)
        except MipError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 2
        write(options.json, json.dumps(results).encode(), overwrite=True)
    if options.page:
        before = options.page.read_text() if options.page.is_file() else ""
        write(options.page, page(results, before).encode(), overwrite=True)
    return 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
