"""Parquet files that memory need not hold: `python -m benchmarks.stream [ROWS]` at full size.

Draws a table of 30 columns (20 million rows), learns a plan of it and trains a small MLP for one
epoch, from the files; and then for one over the same rows in memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch
from toolz import pipe

import mip
from benchmarks.harness import Benchmark, Contender, Limit, scratch
from mip.model import Plan
from mip.pipe import Pipe
from mip.train import State

ROWS, SHARD, BATCH = 1_000_000, 1_000_000, 1024
CATEGORIES = (2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000)

SPEC = f"""
[branch.numbers]
kind = "continuous"
columns = {[f"x{k}" for k in range(19)]}

[branch.words]
kind = "categorical"
columns = {[f"c{k}" for k in range(10)]}

[head]
kind = "regression"
column = "y"
layers = [64, 64]
"""


def draw(folder: Path, rows: int, group: int = SHARD) -> None:
    """Draw files of a million rows, in row groups of as many or fewer: 19 numbers, 10 categories
    and a target.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    for number, first in enumerate(range(0, rows, SHARD)):
        draws, size = np.random.default_rng(number), min(SHARD, rows - first)
        x = draws.normal(size=(19, size)).astype(np.float32)
        columns = {f"x{k}": column for k, column in enumerate(x)}
        for k, count in enumerate(CATEGORIES):
            words = pa.array([f"word {word}" for word in range(count)])
            columns[f"c{k}"] = words.take(pa.array(draws.integers(count, size=size)))
        columns["y"] = 2 * x[0] + x[1] + draws.normal(size=size).astype(np.float32)
        path = folder / f"part-{number:03d}.parquet"
        pq.write_table(pa.table(columns), path, row_group_size=group)


def streamed(plan: Plan, folder: Path) -> Pipe:
    """Lay the pipe that trains from the files."""
    return pipe(mip.stream(folder).map(plan.encode), mip.sample(shuffle=True), mip.batch(BATCH))


def held(batches: Pipe) -> Pipe:
    """Lay the same pipe over the same rows in memory."""
    return pipe(mip.collect(batches), mip.sample(shuffle=True), mip.batch(BATCH))


def epoch(plan: Plan, batches: Pipe) -> Callable[[], State]:
    """Give a function that trains a small MLP for one epoch."""
    net, optimizer = mip.build(plan), mip.chain(mip.adamw(1e-3))
    step, start = mip.train_step(net, plan.loss, optimizer), mip.init(net, optimizer)
    return lambda: mip.fit(step, batches, start, epochs=1)


def passed(folder: Path) -> dict[str, float]:
    """Learn a plan of the files in a folder and train an epoch of them: the seconds of both, and
    the process's peak in megabytes.
    """
    began = perf_counter()
    plan = mip.adapt(mip.parse(SPEC), mip.stream(folder))
    adapted = perf_counter()
    epoch(plan, streamed(plan, folder))()
    ended = perf_counter()
    return {"adapt": adapted - began, "epoch": ended - adapted, "peak": _peak()}


def _peak() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000


def apart(folder: Path) -> dict[str, float]:
    """Do as `passed` in a process of its own, so that its peak is that of this work alone."""
    command = [sys.executable, "-m", "benchmarks.stream", "--passed", str(folder)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@cache
def _drawn(rows: int, group: int) -> Path:
    folder = scratch("shards-")
    draw(folder, rows, group)
    return folder


def _pair() -> tuple[Contender, Contender]:
    folder = _drawn(ROWS, 125_000)
    plan = mip.adapt(mip.parse(SPEC), mip.stream(folder))
    files = streamed(plan, folder)
    return epoch(plan, files), epoch(plan, held(files))


FIT = Benchmark(
    name="pipe-shards",
    work="an epoch of a small MLP from a Parquet file of 1,000,000 rows in 8 row groups",
    anchor="the same fit over the same rows in memory, encoded",
    aim=0.8,
    pair=_pair,
    rounds=5,
)

MEMORY = Limit(
    name="pipe-shards-memory",
    work="the peak of a whole process that adapts to 3,000,000 rows and trains an epoch of them",
    unit="MB",
    aim=1500.0,
    lay=lambda: lambda: apart(_drawn(3 * ROWS, SHARD))["peak"],
    rounds=2,
)

ALL = (FIT, MEMORY)


def main(rows: int) -> None:
    """Draw so many rows and tell what it takes to train of them."""
    with TemporaryDirectory(prefix="shards-") as name:
        folder = Path(name)
        draw(folder, rows)
        size = sum(file.stat().st_size for file in folder.iterdir()) / 1e9
        print(f"{rows:,} rows of 30 columns in {len(list(folder.iterdir()))} files, {size:.2f} GB")
        took = apart(folder)
        print(f"adapt: {took['adapt']:.0f} s; peak of the process: {took['peak']:.0f} MB")
        print(f"epoch from the files: {rows / took['epoch']:,.0f} rows a second")
        plan = mip.adapt(mip.parse(SPEC), mip.stream(folder))
        fit, began = epoch(plan, held(streamed(plan, folder))), perf_counter()
        fit()
        print(f"epoch from memory: {rows / (perf_counter() - began):,.0f} rows a second")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--passed"]:
        print(json.dumps(passed(Path(sys.argv[2]))))
    else:
        main(int(sys.argv[1].replace("_", "")) if sys.argv[1:] else 20 * ROWS)
