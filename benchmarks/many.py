"""Many runs: worker processes against one run after another."""

from __future__ import annotations

from collections import deque
from functools import partial

import numpy as np
import pandas as pd
from attrs import evolve

import mip
from benchmarks.harness import Benchmark, Contender
from mip.model import Parts
from mip.runs import Trial, run_trials

RUNS, ROWS, COLUMNS = 8, 4096, 32

SPEC = f"""
[branch.numbers]
kind = "continuous"
columns = {[f"x{k}" for k in range(COLUMNS)]}
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


def _trials() -> list[Trial]:
    draws = np.random.default_rng(0).normal(size=(ROWS, COLUMNS + 1))
    names = [*(f"x{k}" for k in range(COLUMNS)), "y"]
    rows, spec = mip.from_frame(pd.DataFrame(draws, columns=names)), mip.parse(SPEC)
    parts = Parts(rows, rows.take([]), rows.take([]))
    seeds = range(RUNS)
    seeded = [evolve(spec, train=evolve(spec.train, seed=seed)) for seed in seeds]
    return [Trial(f"seed {seed}", seeded[seed], parts) for seed in seeds]


def _all(trials: list[Trial], workers: int) -> None:
    # Nothing is kept of the outcomes but that there were no errors.
    deque((each.run.state for each in run_trials(trials, workers) if each.run), maxlen=0)


def _pair() -> tuple[Contender, Contender]:
    trials = _trials()
    return partial(_all, trials, 2), partial(_all, trials, 1)


SEEDS = Benchmark(
    name="train-many",
    work=f"{RUNS} runs of an MLP 32-128-128-1, 80 epochs of {ROWS} rows, on 2 workers, whose "
    "start is part of it",
    anchor="the same runs one after another",
    aim=1.7,
    pair=_pair,
    rounds=2,
    seconds=0.0,
)

ALL = (SEEDS,)
