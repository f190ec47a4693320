"""Parquet files larger than memory: `python -m benchmarks.stream [ROWS]`, at full size.

Writes a table of 30 columns (by default 20 million rows), fits a plan to it and trains a small MLP
for one epoch, reading the files; then trains one for an epoch over the same rows in memory.
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
from benchmarks.harness import Benchmark, Contender, Limit, temporary_folder, time_calls
from mip.model import Plan
from mip.pipe import Pipe
from mip.train import State

N_ROWS, FILE_ROWS, BATCH_SIZE = 1_000_000, 1_000_000, 1024
CARDINALITIES = (2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000)

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


def write_files(folder: Path, n_rows: int, group_rows: int = FILE_ROWS) -> None:
    """Write random rows of 19 numbers, 10 categories and a target to files of a million rows, in
    row groups of `group_rows`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    for number, first in enumerate(range(0, n_rows, FILE_ROWS)):
        rng, size = np.random.default_rng(number), min(FILE_ROWS, n_rows - first)
        x = rng.normal(size=(19, size)).astype(np.float32)
        columns = {f"x{k}": column for k, column in enumerate(x)}
        for k, cardinality in enumerate(CARDINALITIES):
            categories = pa.array([f"word {word}" for word in range(cardinality)])
            columns[f"c{k}"] = categories.take(pa.array(rng.integers(cardinality, size=size)))
        columns["y"] = 2 * x[0] + x[1] + rng.normal(size=size).astype(np.float32)
        path = folder / f"part-{number:03d}.parquet"
        pq.write_table(pa.table(columns), path, row_group_size=group_rows)


def stream_batches(plan: Plan, folder: Path) -> Pipe:
    """Return a pipe that reads its batches from the files."""
    return pipe(
        mip.stream(folder).map(plan.encode), mip.sample(shuffle=True), mip.batch(BATCH_SIZE)
    )


def in_memory(batches: Pipe) -> Pipe:
    """Return the same pipe over the same rows, collected in memory."""
    return pipe(mip.collect(batches), mip.sample(shuffle=True), mip.batch(BATCH_SIZE))


def make_fit(plan: Plan, batches: Pipe) -> Callable[[], State]:
    """Return a function that trains a small MLP for one epoch."""
    net, optimizer = mip.build(plan), mip.chain(mip.adamw(1e-3))
    step, state = mip.train_step(net, plan.loss, optimizer), mip.init(net, optimizer)
    return lambda: mip.fit(step, batches, state, epochs=1)


def adapt_and_fit(folder: Path) -> dict[str, float]:
    """Fit a plan to the files in a folder and train on them for one epoch. Return the seconds of
    both and the peak memory of the process in megabytes.
    """
    start = perf_counter()
    plan = mip.adapt(mip.parse(SPEC), mip.stream(folder))
    adapted = perf_counter()
    make_fit(plan, stream_batches(plan, folder))()
    fitted = perf_counter()
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1000
    return {"adapt": adapted - start, "epoch": fitted - adapted, "peak": peak}


def adapt_and_fit_in_subprocess(folder: Path) -> dict[str, float]:
    """Run `adapt_and_fit` in a new process, whose peak memory is due to this work alone."""
    command = [sys.executable, "-m", "benchmarks.stream", "--adapt-and-fit", str(folder)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@cache
def _make_folder(n_rows: int, group_rows: int) -> Path:
    folder = temporary_folder("shards-")
    write_files(folder, n_rows, group_rows)
    return folder


def _pair() -> tuple[Contender, Contender]:
    folder = _make_folder(N_ROWS, 125_000)
    plan = mip.adapt(mip.parse(SPEC), mip.stream(folder))
    batches = stream_batches(plan, folder)
    return make_fit(plan, batches), make_fit(plan, in_memory(batches))


FIT = Benchmark(
    name="pipe-shards",
    work="one epoch of a small MLP from a Parquet file of 1,000,000 rows in 8 row groups",
    baseline="the same fit over the same rows, encoded in memory",
    aim=0.8,
    pair=_pair,
    rounds=5,
)

MEMORY = Limit(
    name="pipe-shards-memory",
    work="peak memory of a process that adapts to 3,000,000 rows and trains on them for one epoch",
    unit="MB",
    aim=1500.0,
    set_up=lambda: lambda: adapt_and_fit_in_subprocess(_make_folder(3 * N_ROWS, FILE_ROWS))["peak"],
    rounds=2,
)

ALL = (FIT, MEMORY)


def main(n_rows: int) -> None:
    """Write `n_rows` rows and print the cost of training on them."""
    with TemporaryDirectory(prefix="shards-") as name:
        folder = Path(name)
        write_files(folder, n_rows)
        sizes = [file.stat().st_size for file in folder.iterdir()]
        print(f"{n_rows:,} rows of 30 columns in {len(sizes)} files, {sum(sizes) / 1e9:.2f} GB")
        cost = adapt_and_fit_in_subprocess(folder)
        print(f"adapt: {cost['adapt']:.0f} s; peak memory of the process: {cost['peak']:.0f} MB")
        print(f"epoch from the files: {n_rows / cost['epoch']:,.0f} rows/s")
        plan = mip.adapt(mip.parse(SPEC), mip.stream(folder))
        fit = make_fit(plan, in_memory(stream_batches(plan, folder)))
        print(f"epoch from memory: {n_rows / time_calls(fit):,.0f} rows/s")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--adapt-and-fit"]:
        print(json.dumps(adapt_and_fit(Path(sys.argv[2]))))
    else:
        main(int(sys.argv[1].replace("_", "")) if sys.argv[1:] else 20 * N_ROWS)
