"""Measure how well the specs predict real data, and write docs/results.md.

    python -m benchmarks.accuracy [NAME ...] --data DATA --json FILE [--page PAGE]

FILE keeps the results: a name that is given is measured anew, and without names those that FILE
lacks are. DATA is a folder with `tabular/`, `houses/`, `covid_cxr/`, `mnist/` and `splits/`.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from attrs import evolve, frozen

import mip
from mip.data import Table, read_idx, with_folds
from mip.errors import hint
from mip.model import Parts, target_columns
from mip.output import write
from mip.runs import CrossValidation
from mip.spec import Spec

Result = dict[str, Any]
"""What FILE keeps of a case: `scores` by repeat, `spread`, `seconds` a training, `errors` a row."""


@frozen
class Case:
    """One spec on one data set: where its rows are, how they are scored, what to hold it against.

    `folds` names the columns of the folds file, a repeat each; without a file the rows are dealt,
    stratified by the target. `baselines` come with the data and are not run here.
    """

    spec: str
    table: str
    metric: str
    baselines: str
    aim: float
    folds_file: str = ""
    folds: tuple[str, ...] = ("fold",)
    digits: int = 3


HOUSES = Case(
    "houses-table",
    "houses/houses.csv",
    "mape",
    "ridge on log area and one-hot zip code .289 ± .006, gradient boosting .294 ± .005",
    0.27,
    "houses",
    tuple(f"fold_seed{k}" for k in range(5)),
)

CASES: dict[str, Case] = {
    "houses-table": HOUSES,
    "houses": evolve(HOUSES, spec="houses"),
    "covid-cxr": Case(
        "covid-cxr",
        "covid_cxr/covid_cxr.csv",
        "auc",
        "LightGBM on sex, age and view .732",
        0.732,
        "covid_cxr",
    ),
    "california": Case(
        "california",
        "tabular/california_housing.csv",
        "rmse",
        "ridge 68,861, random forest 48,282, LightGBM 47,507, of 1500 trees 44,818",
        47_507,
        "california_housing",
        digits=0,
    ),
    "adult": Case("adult", "tabular/adult_train.csv", "auc", "none given", 0.925),
    "diabetes": Case(
        "diabetes",
        "tabular/diabetes.csv",
        "mae",
        "linear 44.3 ± 1.6, LightGBM 45.2, random forest 46.8",
        45,
        "diabetes",
        digits=1,
    ),
    "cars": Case(
        "cars",
        "tabular/cars.csv",
        "mae",
        "LightGBM 2.99 ± .15, random forest 3.16, linear 3.28",
        2.99,
        "cars",
        digits=2,
    ),
    "wine": Case(
        "wine",
        "tabular/wine.csv",
        "accuracy",
        "logistic regression .983, random forest .978",
        0.978,
        "wine",
    ),
    "titanic": Case(
        "titanic", "tabular/titanic.csv", "accuracy", "LightGBM .822 ± .035", 0.82, "titanic"
    ),
    "mnist-mlp": Case("mnist-mlp", "mnist", "accuracy", "random forest .9705", 0.98, digits=4),
    "mnist": Case("mnist", "mnist", "accuracy", "random forest .9705", 0.992, digits=4),
}

RISING = {"accuracy", "auc"}
"""The metrics of which more is better."""


def measured(name: str, case: Case, data: Path) -> Result:
    """Train and score a case."""
    spec = mip.load_spec(f"specs/{case.spec}.toml")
    runs = official(spec, data / case.table) if case.table == "mnist" else folded(spec, case, data)
    scores = [[fold[case.metric] for fold in run.scores] for run in runs]
    told = sum(run.seconds for run in runs) / sum(map(len, scores))
    print(f"{name}: {case.metric} {np.mean(scores):.4f}, {told:.0f} s a training", flush=True)
    errors = [rows_of(run, spec).tolist() for run in runs] if case.metric == "mape" else []
    return {"scores": scores, "seconds": told, "errors": errors}


def folded(spec: Spec, case: Case, data: Path) -> list[CrossValidation]:
    """Cross-validate once for each column of folds."""
    table, _ = mip.clean(spec, mip.read(data / case.table))
    if not case.folds_file:
        dealt = mip.folds(table, 5, seed=0, stratify=target_columns(spec)[0])
        return [mip.crossval(spec, dealt, "fold_0")]
    folds = mip.read(data / "splits" / f"{case.folds_file}_folds.csv")
    return [mip.crossval(spec, with_folds(table, folds, each), each) for each in case.folds]


def official(spec: Spec, folder: Path) -> list[CrossValidation]:
    """Train on MNIST's 60,000 digits, and score its 10,000 others, which choose nothing."""
    train, test = (digits(folder, part) for part in ("train", "t10k"))
    rest, valid = mip.split(train, (0.95, 0.05), seed=0)
    done = mip.run(spec, Parts(rest, valid, test))
    return [CrossValidation(done.predict(test), (mip.evaluate(done.predict, test),), done.seconds)]


def digits(folder: Path, part: str) -> Table:
    """Read MNIST's digits: `image`, `label`, and `pixels`, the image as a list from 0 to 1."""
    names = (f"{part}-images-idx3-ubyte.gz", f"{part}-labels-idx1-ubyte.gz")
    table = read_idx(*(folder / name for name in names))
    pixels = [cell.ravel() / np.float32(255) for cell in table.frame["image"]]
    return evolve(table, frame=table.frame.assign(pixels=pixels))


def rows_of(run: CrossValidation, spec: Spec) -> pd.Series:
    """Give the absolute percentage error of every row, as a fraction."""
    target = run.predictions["target"].astype(float)
    return (run.predictions["value"] / target - 1).abs()


def paired(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Compare two models' errors [repeats][rows] row by row: the mean gap, and its standard error
    over the rows, each averaged over the repeats first.

    >>> gap, error = paired([[0.1, 0.3]], [[0.2, 0.2]])
    >>> round(gap, 3), round(error, 3)
    (0.0, 0.1)
    """
    gaps = np.mean(other, axis=0) - np.mean(one, axis=0)
    return float(gaps.mean()), float(gaps.std(ddof=1) / np.sqrt(len(gaps)))


def line(name: str, case: Case, result: Result) -> str:
    """Write a case's row of the page: the spread is over the repeats, or else over the folds."""
    scores = np.array(result["scores"])
    apart = scores.mean(axis=1) if len(scores) > 1 else scores[0]
    spread = f" ± {figure(apart.std(ddof=1), case)}" if len(apart) > 1 else ""
    found = f"{figure(scores.mean(), case)}{spread}"
    aim = f"{'≥' if case.metric in RISING else '≤'} {figure(case.aim, case)}"
    spec = f"[{case.spec}](../specs/{case.spec}.toml)"
    told = f"{case.baselines} | {aim} | {result['seconds']:.0f} s"
    return f"| {spec} | {case.metric} | **{found}** | {told} |"


def figure(value: float, case: Case) -> str:
    """Write a score.

    >>> figure(47506.6, CASES["california"]), figure(0.9254, CASES["adult"])
    ('47,507', '.925')
    """
    return re.sub(r"^(-?)0(?=[.])", r"\1", f"{value:,.{case.digits}f}")


def page(results: Mapping[str, Result]) -> str:
    """Write the results as a page of Markdown."""
    rows = [line(name, case, results[name]) for name, case in CASES.items() if name in results]
    return f"""# Results on real data

How well the specs of this project predict data that is not part of it, each trained from scratch
with one seed. The specs for the digits, the X-rays and the houses with photos were written by hand;
all others are exactly what `mip new` writes. Its rules were tuned on these same data sets, though,
so it may do somewhat worse on others. With the data in a folder DATA, run

    make accuracy DATA=DATA

or, for a single spec, `python -m benchmarks.accuracy NAME --data DATA --json FILE`.

| spec | metric | score | published baselines, not run here | aim | time per training |
|---|---|---|---|---|---|
{chr(10).join(rows)}

Scores are means over five folds: those that come with the data (for the X-rays grouped by patient),
or for `adult` five stratified folds of seed 0. The digits are scored on the official test set. ± is
the standard deviation over the folds, or for the houses, which have five times five folds, over the
repeats. `mape` is a fraction; `mae` and `rmse` are in the target's unit.

{_photos(results)}
Measured on 2 cores or fewer of {platform.machine()} with torch {torch.__version__.split("+")[0]};
times are those of that machine.
"""


def _photos(results: Mapping[str, Result]) -> str:
    if not {"houses", "houses-table"} <= results.keys():
        return ""
    gap, error = paired(results["houses-table"]["errors"], results["houses"]["errors"])
    told = f"{gap:+.1%} ± {error:.1%} in MAPE (standard error over the rows)"
    return f"""Houses with photos compared with the table alone, paired row by row over the repeats:
{told}. {_verdict(gap, error)}
"""


def _verdict(gap: float, error: float) -> str:
    if abs(gap) < 2 * error:
        return "The difference is within the noise: the photos neither help nor harm."
    return "The photos help." if gap < 0 else "The photos harm."


def main(
    arguments: Sequence[str] | None = None,
    cases: Mapping[str, Case] = CASES,
    measure: Callable[[str, Case, Path], Result] = measured,
) -> int:
    """Measure what is asked for, keep it in a file, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to measure; default: all")
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DATA")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    parser.add_argument("--page", type=Path, metavar="PAGE")
    told = parser.parse_args(arguments)
    for name in told.names:
        if name not in cases:
            print(f"'{name}' is not a case{hint(name, cases)}", file=sys.stderr)
            return 2
    results = json.loads(told.json.read_text()) if told.json.is_file() else {}
    for name in told.names or [name for name in cases if name not in results]:
        results[name] = measure(name, cases[name], told.data)
        write(told.json, json.dumps(results).encode(), overwrite=True)
    if told.page:
        write(told.page, page(results).encode(), overwrite=True)
    return 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
