"""Limits of a pipe over many rows: milliseconds to seek to a step, and memory beyond the table."""

from __future__ import annotations

import ctypes
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from attrs import evolve
from PIL import Image
from toolz import pipe

import mip
from benchmarks.harness import Limit, time_calls

BATCH_SIZE, STEP, N_PHOTOS = 256, 1_000_000, 1_000_000

SPEC = """
[branch.photo]
kind = "image"
columns = ["photo"]

[head]
kind = "regression"
column = "price"
"""


def _seek(n_rows: int) -> Callable[[], float]:
    batches = pipe(torch.arange(n_rows), mip.sample(shuffle=True), mip.batch(BATCH_SIZE))

    def measure() -> float:
        # Any implementation has to draw the epoch's order; we measure the time beyond that.
        shuffle = time_calls(lambda: torch.randperm(n_rows))
        return 1000 * (time_calls(lambda: next(batches.iter_from(STEP))) - shuffle)

    return measure


def _resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def _table(folder: str, n_rows: int) -> mip.Table:
    frame = pd.DataFrame({"photo": ["photo.png"] * n_rows, "price": np.arange(n_rows)})
    return mip.from_frame(frame, folder)


def measure_photo_pipe() -> float:
    """Return the megabytes that a pipe over many photos and its first batch take, beyond the
    table.
    """
    with TemporaryDirectory() as folder:
        Image.new("RGB", (64, 64)).save(Path(folder, "photo.png"))
        plan = mip.adapt(mip.parse(SPEC), _table(folder, 64))
        stages = mip.sample(shuffle=True), mip.batch(32), mip.transform(plan.encode)
        next(iter(pipe(_table(folder, 64), *stages)))  # what libraries allocate once
        table = _table(folder, N_PHOTOS)
        # Otherwise memory that was freed while building the table would be reused, uncounted.
        ctypes.CDLL(None).malloc_trim(0)
        before, batches = _resident_megabytes(), iter(pipe(table, *stages))
        next(batches)
        return _resident_megabytes() - before


def _measure_in_subprocess() -> float:
    code = "from benchmarks.pipe_limits import measure_photo_pipe; print(measure_photo_pipe())"
    command = [sys.executable, "-c", code]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


AT = Limit(
    name="pipe-at",
    work="pipe.iter_from(1_000_000) over 200,000 shuffled rows until the first batch, minus a "
    "randperm",
    unit="ms",
    aim=50.0,
    set_up=partial(_seek, 200_000),
)

AT_MILLION = evolve(
    AT,
    name="pipe-at-million",
    work="pipe.iter_from(1_000_000) over 1,000,000 shuffled rows until the first batch, minus a "
    "randperm",
    set_up=partial(_seek, 1_000_000),
)

MEMORY = Limit(
    name="pipe-photos-memory",
    work="memory of a shuffled pipe over 1,000,000 photos and its first batch, without the table",
    unit="MB",
    aim=50.0,
    set_up=lambda: _measure_in_subprocess,
    rounds=3,
)

ALL = (AT, AT_MILLION, MEMORY)
