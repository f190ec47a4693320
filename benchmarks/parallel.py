"""Many runs: worker processes against one run after another."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from attrs import evolve

import mip
from benchmarks.harness import Benchmark, Contender
from mip.model import Parts
from mip.runs import Trial, run_trials

N_RUNS, N_ROWS, N_COLUMNS = 8, 4096, 32

SPEC = f"""
[branch.numbers]
kind = "continuous"
columns = {[f"x{k}" for k in range(N_COLUMNS)]}
[head]
kind = "regression"
column = "y"
layers = [128, 128]
[train]
epochs = 80
batch_size = 64
workers = 0
optimizer = {{ kind = "adamw", lr = 1e-3 }}
"""


def _make_trials() -> list[Trial]:
    values = np.random.default_rng(0).normal(size=(N_ROWS, N_COLUMNS + 1))
    names = [*(f"x{k}" for k in range(N_COLUMNS)), "y"]
    table, spec = mip.from_frame(pd.DataFrame(values, columns=names)), mip.parse(SPEC)
    parts = Parts(table, table.take([]), table.take([]))
    return [
        Trial(f"seed {seed}", evolve(spec, train=evolve(spec.train, seed=seed)), parts)
        for seed in range(N_RUNS)
    ]


def _run_all(trials: list[Trial], workers: int) -> None:
    for outcome in run_trials(trials, workers):
        if outcome.error:  # a run that fails early would make the others look fast
            raise outcome.error


def _pair() -> tuple[Contender, Contender]:
    trials = _make_trials()
    return partial(_run_all, trials, 2), partial(_run_all, trials, 1)


SEEDS = Benchmark(
    name="train-many",
    work=f"{N_RUNS} runs of an MLP 32-128-128-1, 80 epochs of {N_ROWS} rows, on 2 workers, "
    "including their start",
    baseline="the same runs one after another",
    aim=1.7,
    pair=_pair,
    rounds=2,
    seconds=0.0,
)

ALL = (SEEDS,)
