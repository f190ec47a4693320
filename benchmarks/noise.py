"""Measure what a residual branch of pure noise takes away from a model.

    python -m benchmarks.noise [NAME ...] --data DATA

Each table is cross-validated as in `benchmarks.accuracy`, without its photos, and once more with a
residual branch of `LENGTH` random numbers. Prints a row of Markdown for each: the two scores, and
their difference with its standard error over the folds.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from attrs import evolve

import mip
from benchmarks.accuracy import CASES, Case, figure, fold_tables
from mip.branches import Vector
from mip.data import Table
from mip.errors import hint
from mip.spec import Spec

LENGTH = 300
"""The length of the random vectors: about as many numbers as the smallest tables have rows."""


NAMES = ("houses-table", "covid-cxr", "diabetes", "cars", "titanic")


def compare(case: Case, data: Path) -> str:
    """Cross-validate a table alone and beside noise; return the row of Markdown."""
    spec = mip.load_spec(f"specs/{case.spec}.toml")
    spec = evolve(spec, branch={name: b for name, b in spec.branch.items() if name != "looks"})
    (column, table), *_ = fold_tables(spec, case, data)
    runs = [
        mip.crossval(spec, table, column),
        mip.crossval(with_noise(spec), with_noise_column(table), column),
    ]
    alone, beside = (np.array([fold[case.metric] for fold in run.scores]) for run in runs)
    change = beside - alone
    error = change.std(ddof=1) / len(change) ** 0.5
    scores = f"{figure(alone.mean(), case)} | {figure(beside.mean(), case)}"
    return f"| {case.spec} | {case.metric} | {scores} | {change.mean():+.4f} ± {error:.4f} |"


def with_noise(spec: Spec) -> Spec:
    """Add a residual branch that reads the column `noise`."""
    branches = {**spec.branch, "noise": Vector(columns=("noise",))}
    return evolve(spec, branch=branches, fusion=evolve(spec.fusion, residual=("noise",)))


def with_noise_column(table: Table) -> Table:
    """Add a column `noise`: `LENGTH` numbers from a normal distribution in each row."""
    vectors = np.random.default_rng(0).normal(size=(len(table), LENGTH))
    return evolve(table, frame=table.frame.assign(noise=[row.tolist() for row in vectors]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the named tables, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.noise", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: {' '.join(NAMES)}")
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DATA")
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in NAMES:
            print(f"'{name}' is not a table{hint(name, NAMES)}", file=sys.stderr)
            return 2
    for name in options.names or NAMES:
        print(compare(CASES[name], options.data), flush=True)
    return 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
