"""Limits of a large table: the time and memory of `mip new` and `mip check`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.harness import Limit, temporary_folder, time_calls

N_ROWS = 300_000
NEW = ("new", "houses.csv", "--target", "price", "--force")
CHECK = ("check", "houses.toml")

# Linux counts the memory of the process that starts another as that of the other, so one without
# torch has to start the command.
PEAK = """
import os, subprocess, sys

process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
print(os.wait4(process.pid, 0)[2].ru_maxrss)
"""


@cache
def _write_table() -> Path:
    """Write ten columns of floats, four of words, and six others, and a spec for them."""
    folder, rng = temporary_folder("large-"), np.random.default_rng(0)
    columns: dict[str, object] = {"id": np.arange(N_ROWS)}
    for k in range(10):
        columns[f"x{k}"] = rng.normal(100, 30, N_ROWS).round(1 + k % 4)
    for k, n_words in enumerate((5, 12, 30, 50)):
        columns[f"word{k}"] = rng.choice([f"word-{k}-{j}" for j in range(n_words)], N_ROWS)
    days = pd.Timestamp("2010-01-01") + pd.to_timedelta(rng.integers(0, 5000, N_ROWS), "D")
    columns |= {
        "rooms": rng.integers(1, 12, N_ROWS),
        "year": rng.integers(1900, 2025, N_ROWS),
        "sold": days.strftime("%Y-%m-%d"),
        "garden": rng.choice(["yes", "no"], N_ROWS),
        "price": np.exp(rng.normal(12, 0.4, N_ROWS)).round(2),
    }
    pd.DataFrame(columns).to_csv(folder / "houses.csv", index=False)
    _run(folder, NEW)
    return folder


def _run(folder: Path, arguments: tuple[str, ...]) -> int:
    """Run a verb and return the most memory that it took, in bytes."""
    mip = (sys.executable, "-m", "mip", *arguments)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *mip], check=True, cwd=folder, capture_output=True
    )
    return 1024 * int(done.stdout)


def _relative_time(arguments: tuple[str, ...]) -> Callable[[], float]:
    folder = _write_table()

    def measure() -> float:
        reading = time_calls(lambda: pd.read_csv(folder / "houses.csv", dtype=str))
        return time_calls(lambda: _run(folder, arguments)) / reading

    return measure


def _relative_memory(arguments: tuple[str, ...]) -> Callable[[], float]:
    folder = _write_table()
    return lambda: _run(folder, arguments) / (folder / "houses.csv").stat().st_size


def _limits(name: str, arguments: tuple[str, ...], time: float, memory: float) -> list[Limit]:
    verb, table = f"mip {arguments[0]}", f"a CSV of {N_ROWS:,} rows of 20 columns"
    return [
        Limit(
            name=f"start-{name}-large",
            work=f"{verb} of {table}, start included, relative to `pandas.read_csv(dtype=str)`",
            unit="x read_csv",
            aim=time,
            set_up=lambda: _relative_time(arguments),
            rounds=7,
        ),
        Limit(
            name=f"start-{name}-memory",
            work=f"the most memory that {verb} takes for it, relative to the file",
            unit="x file",
            aim=memory,
            set_up=lambda: _relative_memory(arguments),
            rounds=3,
        ),
    ]


ALL = (*_limits("new", NEW, 4, 8), *_limits("check", CHECK, 4, 8))
