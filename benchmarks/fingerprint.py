"""The limit of the fingerprint of rows, by which a resumed run tells whether they have changed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

import mip
from benchmarks.harness import Limit, temporary_folder, time_calls

N_ROWS, N_COLUMNS = 200_000, 20


def _random_frame() -> pd.DataFrame:
    numbers = np.random.default_rng(0).normal(size=(N_ROWS, N_COLUMNS))
    return pd.DataFrame(numbers).rename(columns=lambda k: f"x{k}")


@cache
def _write_frame() -> Path:
    path = temporary_folder("fingerprint-") / "numbers.csv"
    _random_frame().to_csv(path, index=False)
    return path


def _set_up() -> Callable[[], float]:
    table = mip.from_frame(_random_frame())

    def measure() -> float:
        path = _write_frame()
        reading = time_calls(lambda: pd.read_csv(path, dtype=str))
        return time_calls(table.digest) / reading

    return measure


FINGERPRINT = Limit(
    name="fit-fingerprint",
    work=f"the fingerprint of a DataFrame of {N_ROWS:,} rows of {N_COLUMNS} floats, which a fit "
    "computes once, relative to `pandas.read_csv(dtype=str)` of the same rows",
    unit="x read_csv",
    aim=1,
    set_up=_set_up,
)

ALL = (FINGERPRINT,)
