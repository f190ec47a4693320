"""Training on a table: numbers and embedded categories through an MLP."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import pandas as pd
import torch
from attrs import evolve
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import mip
from benchmarks import by_hand
from benchmarks.harness import Benchmark, Contender
from mip.model import Parts
from mip.runs import Job, prepare_job

N_ROWS, BATCH_SIZE, N_CONTINUOUS, N_CATEGORICAL = 200_000, 256, 20, 10
CARDINALITY, EMBEDDING_DIM = 50, 14

SPEC = f"""
[branch.numbers]
kind = "continuous"
columns = {[f"x{k}" for k in range(N_CONTINUOUS)]}

[branch.words]
kind = "categorical"
columns = {[f"c{k}" for k in range(N_CATEGORICAL)]}
unseen_rate = 0.0

[head]
kind = "regression"
column = "y"
layers = [256, 128]

[train]
epochs = 1
batch_size = {BATCH_SIZE}
workers = 0
clip_norm = 0.0
optimizer = {{ kind = "adam", lr = 1e-3 }}
schedule = {{ kind = "constant" }}
"""


@cache
def random_frame(n_rows: int = N_ROWS) -> pd.DataFrame:
    """Draw a table: numbers x0… of two decimals, columns c0… of 50 categories each, a target y."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n_rows, N_CONTINUOUS)).round(2)
    codes = rng.integers(CARDINALITY, size=(n_rows, N_CATEGORICAL))
    categories = [f"w{k:02}" for k in range(CARDINALITY)]
    columns = {f"x{k}": x[:, k] for k in range(N_CONTINUOUS)}
    for k in range(N_CATEGORICAL):
        columns[f"c{k}"] = pd.Categorical.from_codes(codes[:, k], categories)
    effects = rng.normal(size=(N_CATEGORICAL, CARDINALITY))[np.arange(N_CATEGORICAL), codes]
    y = x @ rng.normal(size=N_CONTINUOUS) + effects.sum(axis=1) + rng.normal(size=n_rows)
    return pd.DataFrame({**columns, "y": y.round(2)})


@cache
def make_job(n_rows: int) -> Job:
    """Prepare what `mip fit` would train."""
    table = mip.from_frame(random_frame(n_rows))
    return prepare_job(mip.parse(SPEC), Parts(table, table.take([]), table.take([])))


def encoded_columns(n_rows: int = N_ROWS) -> tuple[Tensor, Tensor, Tensor]:
    """Return numbers, codes and target, encoded as for our fit, for the hand-written loop."""
    inputs, target, _ = make_job(n_rows).batches.source
    return inputs["numbers"], inputs["words"], target


class Network(nn.Module):
    """The same network by hand: numbers float32 [n, 20] and codes int64 [n, 10] to float32 [n]."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(
            nn.Embedding(1 + CARDINALITY, EMBEDDING_DIM) for _ in range(N_CATEGORICAL)
        )
        first = nn.Linear(N_CONTINUOUS + N_CATEGORICAL * EMBEDDING_DIM, 256)
        second, last = nn.Linear(256, 128), nn.Linear(128, 1)
        self.layers = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)

    def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:
        vectors = [table(code) for table, code in zip(self.tables, codes.unbind(1), strict=True)]
        return self.layers(torch.cat([numbers, *vectors], dim=1)).squeeze(1)


def _pair(make_optimizer: by_hand.MakeOptimizer) -> tuple[Contender, Contender]:
    torch.manual_seed(0)
    job = make_job(N_ROWS)
    return (
        lambda: mip.fit(job.step, job.batches, job.start.state, epochs=1),
        by_hand.make_loop(Network(), make_optimizer, mse_loss, encoded_columns(), BATCH_SIZE),
    )


TABLE = Benchmark(
    name="train-table",
    work="fit from a spec: 200,000 rows of 20 numbers and 10 categorical columns of 50 categories, "
    "embeddings of 14 and an MLP 256-128, batch size 256, Adam; one epoch of 782 steps, rows "
    "encoded in memory",
    baseline="the same network in a hand-written loop, torch.optim.Adam with its defaults (not "
    "fused)",
    aim=1.25,
    pair=partial(_pair, by_hand.DEFAULT_ADAM),
    rounds=15,
)

FUSED = evolve(
    TABLE,
    name="train-table-fused",
    baseline="the same network in a hand-written loop, torch.optim.Adam(fused=True)",
    aim=1.0,
    pair=partial(_pair, by_hand.FUSED_ADAM),
)

ALL = (TABLE, FUSED)
