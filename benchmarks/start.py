"""Limits of a start: how long a command takes in a fresh process, beside `python -c pass`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd

from benchmarks.harness import Limit, scratch

ROWS = 500
BASH = {"_MIP_COMPLETE": "complete_bash", "COMP_WORDS": "mip f", "COMP_CWORD": "1"}
TYPO = """
[data]
table = "houses.csv"

[branch.numbers]
kind = "continous"
columns = ["area"]

[head]
kind = "regression"
column = "price"
"""


def _seconds(folder: Path, arguments: tuple[str, ...], variables: Mapping[str, str]) -> float:
    start = perf_counter()
    subprocess.run(
        [sys.executable, *arguments],
        check=False,  # a spelling mistake exits with 2
        cwd=folder,
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return perf_counter() - start


def _drawn() -> Path:
    folder, rng = scratch("start-"), np.random.default_rng(0)
    columns = {
        "area": rng.uniform(30, 200, ROWS).round(1),
        "rooms": rng.integers(1, 6, ROWS),
        "town": rng.choice(["Bonn", "Köln", "Ulm"], ROWS),
        "sold": pd.date_range("2020-01-01", periods=ROWS).strftime("%Y-%m-%d"),
        "price": rng.uniform(1e5, 1e6, ROWS).round(0),
    }
    pd.DataFrame(columns).to_csv(folder / "houses.csv", index=False)
    (folder / "typo.toml").write_text(TYPO)
    return folder


def _ratio(arguments: tuple[str, ...], variables: Mapping[str, str]) -> Callable[[], float]:
    folder = _drawn()

    def measured() -> float:
        least = _seconds(folder, ("-c", "pass"), {})
        return _seconds(folder, arguments, variables) / least

    return measured


def _limit(
    name: str, work: str, aim: float, *arguments: str, variables: Mapping[str, str] | None = None
) -> Limit:
    lay = partial(_ratio, arguments, variables or {})
    return Limit(f"start-{name}", work, "x python -c pass", aim, lay, rounds=7)


NEW = ("-m", "mip", "new", "houses.csv", "--target", "price", "--force")

ALL = (
    _limit("import", "import mip", 6, "-c", "import mip"),
    _limit("help", "mip --help", 20, "-m", "mip", "--help"),
    _limit("version", "mip --version", 20, "-m", "mip", "--version"),
    _limit("completion", "the shell completes `mip f`", 20, "-m", "mip", variables=BASH),
    _limit("new", f"mip new on a table of {ROWS} rows without photos", 50, *NEW),
    _limit("schema", "mip schema", 60, "-m", "mip", "schema"),
    _limit("typo", "mip check of a misspelled kind", 60, "-m", "mip", "check", "typo.toml"),
    _limit("torch", "import torch, which this does not hold against mip", 80, "-c", "import torch"),
)
