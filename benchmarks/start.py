"""Limits of startup: how long a command takes in a new process, relative to `python -c pass`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.harness import Limit, temporary_folder, time_calls

N_ROWS = 500
COMPLETION = {"_MIP_COMPLETE": "complete_bash", "COMP_WORDS": "mip f", "COMP_CWORD": "1"}
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


def _run(folder: Path, arguments: tuple[str, ...], variables: Mapping[str, str]) -> None:
    subprocess.run(
        [sys.executable, *arguments],
        check=False,  # a misspelled kind exits with 2
        cwd=folder,
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _write_files() -> Path:
    folder, rng = temporary_folder("start-"), np.random.default_rng(0)
    columns = {
        "area": rng.uniform(30, 200, N_ROWS).round(1),
        "rooms": rng.integers(1, 6, N_ROWS),
        "town": rng.choice(["Bonn", "Köln", "Ulm"], N_ROWS),
        "sold": pd.date_range("2020-01-01", periods=N_ROWS).strftime("%Y-%m-%d"),
        "price": rng.uniform(1e5, 1e6, N_ROWS).round(0),
    }
    pd.DataFrame(columns).to_csv(folder / "houses.csv", index=False)
    (folder / "typo.toml").write_text(TYPO)
    return folder


def _relative_time(arguments: tuple[str, ...], variables: Mapping[str, str]) -> Callable[[], float]:
    folder = _write_files()

    def measure() -> float:
        empty = time_calls(lambda: _run(folder, ("-c", "pass"), {}))
        return time_calls(lambda: _run(folder, arguments, variables)) / empty

    return measure


def _limit(
    name: str, *arguments: str, work: str, aim: float, variables: Mapping[str, str] | None = None
) -> Limit:
    return Limit(
        name=name,
        work=work,
        unit="x python -c pass",
        aim=aim,
        set_up=partial(_relative_time, arguments, variables or {}),
        rounds=7,
    )


NEW = ("-m", "mip", "new", "houses.csv", "--target", "price", "--force")

ALL = (
    _limit("start-import", "-c", "import mip", work="import mip", aim=6),
    _limit("start-help", "-m", "mip", "--help", work="mip --help", aim=20),
    _limit("start-version", "-m", "mip", "--version", work="mip --version", aim=20),
    _limit(
        "start-completion",
        "-m",
        "mip",
        variables=COMPLETION,
        work="shell completion of `mip f`",
        aim=20,
    ),
    _limit("start-new", *NEW, work=f"mip new on a table of {N_ROWS} rows without photos", aim=50),
    _limit("start-schema", "-m", "mip", "schema", work="mip schema", aim=60),
    _limit(
        "start-typo",
        *("-m", "mip", "check", "typo.toml"),
        work="mip check of a spec with a misspelled kind",
        aim=60,
    ),
    _limit("start-torch", "-c", "import torch", work="import torch, for comparison", aim=80),
)
