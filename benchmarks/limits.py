"""Limits of a pipe over many rows: milliseconds to any step, and memory beyond the table."""

from __future__ import annotations

import ctypes
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import pandas as pd
import torch
from attrs import evolve
from PIL import Image
from toolz import pipe

import mip
from benchmarks.harness import Limit

BATCH, STEP, MANY = 256, 1_000_000, 1_000_000

SPEC = """
[branch.photo]
kind = "image"
columns = ["photo"]

[head]
kind = "regression"
column = "price"
"""


def _milliseconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return 1000 * (perf_counter() - start)


def _standing(rows: int) -> Callable[[], float]:
    # The epoch's order must be drawn in any case; what is asked is the time beyond that.
    batches = pipe(torch.arange(rows), mip.sample(shuffle=True), mip.batch(BATCH))

    def measured() -> float:
        order = _milliseconds(lambda: torch.randperm(rows))
        return _milliseconds(lambda: next(batches.iter_from(STEP))) - order

    return measured


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def _batches(plan: mip.model.Plan, table: mip.Table) -> mip.pipe.Pipe:
    stages = mip.sample(shuffle=True), mip.batch(32), mip.transform(plan.encode)
    return pipe(table, *stages)


def _table(folder: str, rows: int) -> mip.Table:
    frame = pd.DataFrame({"photo": ["photo.png"] * rows, "price": np.arange(rows)})
    return mip.from_frame(frame, folder)


def photos() -> float:
    """Give the megabytes of a pipe over many photos and its first batch, beyond the table."""
    with TemporaryDirectory() as folder:
        Image.new("RGB", (64, 64)).save(Path(folder, "photo.png"))
        plan = mip.adapt(mip.parse(SPEC), _table(folder, 64))
        next(iter(_batches(plan, _table(folder, 64))))  # what libraries take once
        table = _table(folder, MANY)
        ctypes.CDLL(None).malloc_trim(0)  # else what making the table has freed is taken again
        before, stream = _resident(), iter(_batches(plan, table))
        next(stream)
        return _resident() - before


def _fresh() -> float:
    command = [sys.executable, "-c", "from benchmarks.limits import photos; print(photos())"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


AT = Limit(
    name="pipe-at",
    work="pipe.iter_from(1_000_000) of 200,000 shuffled rows to the first batch, beyond a randperm",
    unit="ms",
    aim=50.0,
    lay=partial(_standing, 200_000),
)

AT_MILLION = evolve(
    AT,
    name="pipe-at-million",
    work=AT.work.replace("200,000", "1,000,000"),
    lay=partial(_standing, MANY),
)

MEMORY = Limit(
    name="pipe-photos-memory",
    work="a shuffled pipe over 1,000,000 rows of photos and its first batch, beyond the table",
    unit="MB",
    aim=50.0,
    lay=lambda: _fresh,
    rounds=3,
)

ALL = (AT, AT_MILLION, MEMORY)
