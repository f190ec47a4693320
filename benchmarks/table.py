"""Training of a table: numbers and categories through embeddings and an MLP."""

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

ROWS, BATCH, NUMBERS, CATEGORIES, WORDS, WIDTH = 200_000, 256, 20, 10, 50, 14

SPEC = f"""
[branch.numbers]
kind = "continuous"
columns = {[f"x{k}" for k in range(NUMBERS)]}

[branch.words]
kind = "categorical"
columns = {[f"c{k}" for k in range(CATEGORIES)]}
unseen_rate = 0.0

[head]
kind = "regression"
column = "y"
layers = [256, 128]

[train]
epochs = 1
batch_size = {BATCH}
workers = 0
clip_norm = 0.0
optimizer = {{ kind = "adam", lr = 1e-3 }}
schedule = {{ kind = "constant" }}
"""


@cache
def drawn(rows: int = ROWS) -> pd.DataFrame:
    """Draw a table: numbers x0… of two digits, categories c0… of 50 words each, and a target y."""
    draws = np.random.default_rng(0)
    x = draws.normal(size=(rows, NUMBERS)).round(2)
    codes = draws.integers(WORDS, size=(rows, CATEGORIES))
    words = [f"w{k:02}" for k in range(WORDS)]
    columns = {f"x{k}": x[:, k] for k in range(NUMBERS)}
    columns |= {f"c{k}": pd.Categorical.from_codes(codes[:, k], words) for k in range(CATEGORIES)}
    effects = draws.normal(size=(CATEGORIES, WORDS))[np.arange(CATEGORIES), codes].sum(axis=1)
    y = x @ draws.normal(size=NUMBERS) + effects + draws.normal(size=rows)
    return pd.DataFrame({**columns, "y": y.round(2)})


@cache
def laid(rows: int = ROWS) -> Job:
    """Lay out what `mip fit` would train."""
    table = mip.from_frame(drawn(rows))
    return prepare_job(mip.parse(SPEC), Parts(table, table.take([]), table.take([])))


def fitted(rows: int = ROWS) -> Contender:
    """Give a fit of one epoch."""
    one = laid(rows)
    return lambda: mip.fit(one.step, one.batches, one.start.state, epochs=1)


class Network(nn.Module):
    """The same network by hand: numbers float32 [n, 20] and codes int64 [n, 10] to float32 [n]."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(1 + WORDS, WIDTH) for _ in range(CATEGORIES))
        first, second = nn.Linear(NUMBERS + CATEGORIES * WIDTH, 256), nn.Linear(256, 128)
        self.layers = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(128, 1))

    def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:
        vectors = [table(code) for table, code in zip(self.tables, codes.unbind(1), strict=True)]
        return self.layers(torch.cat([numbers, *vectors], dim=1)).squeeze(1)


def columns(rows: int = ROWS) -> tuple[Tensor, Tensor, Tensor]:
    """Give numbers, codes and target as the loop by hand has them: encoded in the same way."""
    inputs, target, _ = laid(rows).batches.source
    return inputs["numbers"], inputs["words"], target


def _pair(optimizers: by_hand.Optimizers) -> tuple[Contender, Contender]:
    torch.manual_seed(0)
    return fitted(), by_hand.loop(Network(), optimizers, mse_loss, columns(), BATCH)


TABLE = Benchmark(
    name="train-table",
    work="fit from a spec: 200,000 rows of 20 numbers and 10 categories of 50 words, embeddings "
    "of 14 and an MLP 256-128, batch 256, Adam; one epoch, 782 steps, rows encoded in memory",
    anchor="the same network and loop by hand, torch.optim.Adam as it is by default, not fused",
    aim=1.25,
    pair=partial(_pair, by_hand.DEFAULT),
    rounds=15,
)

FUSED = evolve(
    TABLE,
    name="train-table-fused",
    anchor="the same network and loop by hand, torch.optim.Adam(fused=True)",
    aim=1.0,
    pair=partial(_pair, by_hand.FUSED),
)

ALL = (TABLE, FUSED)
