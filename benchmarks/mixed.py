"""Training on a table and photos together."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import torch
from attrs import evolve
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import mip
from benchmarks import by_hand
from benchmarks.harness import Benchmark, Contender
from mip.model import Parts
from mip.nn import SmallResNet
from mip.runs import Job, prepare_job

N_ROWS, BATCH_SIZE, SIZE, BASE_CHANNELS = 500, 32, 64, 8
N_CONTINUOUS, CARDINALITY, EMBEDDING_DIM = 4, 46, 14
PHOTOS = ("frontal", "kitchen", "bedroom", "bathroom")

SPEC = f"""
[branch.numbers]
kind = "continuous"
columns = {[f"x{k}" for k in range(N_CONTINUOUS)]}

[branch.photos]
kind = "image"
columns = {list(PHOTOS)}
size = {SIZE}
backbone = "small"
base_channels = {BASE_CHANNELS}
pool = "mean"

[branch.words]
kind = "categorical"
columns = ["zipcode"]
unseen_rate = 0.0

[head]
kind = "regression"
column = "y"
layers = [64]

[train]
epochs = 1
batch_size = {BATCH_SIZE}
workers = 0
clip_norm = 0.0
optimizer = {{ kind = "adamw", lr = 1e-3 }}
schedule = {{ kind = "constant" }}
"""

FUSED_ADAMW = partial(torch.optim.AdamW, lr=1e-3, fused=True)


@cache
def random_columns(n_rows: int = N_ROWS) -> dict[str, np.ndarray]:
    """Draw numbers x0…, a zip code, four photos uint8 [rows, 64, 64, 3] and a target y."""
    rng = np.random.default_rng(0)
    numbers = {f"x{k}": rng.normal(size=n_rows).astype(np.float32) for k in range(N_CONTINUOUS)}
    shape = n_rows, SIZE, SIZE, 3
    photos = {name: rng.integers(256, size=shape, dtype=np.uint8) for name in PHOTOS}
    codes = np.arange(n_rows) % CARDINALITY
    y = sum(numbers.values()) + codes / CARDINALITY
    return {**numbers, "zipcode": 85000 + codes, **photos, "y": y.astype(np.float32)}


@cache
def make_job(n_rows: int, compiled: bool = False) -> Job:
    """Prepare what `mip fit` would train."""
    table = mip.from_columns(random_columns(n_rows))
    spec = mip.parse(SPEC, changes={"train.compile": compiled})
    return prepare_job(spec, Parts(table, table.take([]), table.take([])))


def make_fit(compiled: bool = False) -> Contender:
    """Return a fit of one epoch."""
    job = make_job(N_ROWS, compiled)
    return lambda: mip.fit(job.step, job.batches, job.start.state, epochs=1)


def encoded_columns(n_rows: int = N_ROWS) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return numbers, pixels, codes and target, encoded as for our fit, for the hand-written
    loop.
    """
    inputs, target, _ = make_job(n_rows).batches.source
    return inputs["numbers"], inputs["photos"]["pixels"], inputs["words"][:, 0], target


class Network(nn.Module):
    """The same network by hand: numbers float32 [n, 4], pixels uint8 [n, 4, 3, 64, 64] and codes
    int64 [n] to float32 [n]; the backbone runs once, over all photos of the batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = SmallResNet(BASE_CHANNELS)
        self.table = nn.Embedding(1 + CARDINALITY, EMBEDDING_DIM)
        first = nn.Linear(N_CONTINUOUS + 4 * BASE_CHANNELS + EMBEDDING_DIM, 64)
        self.layers = nn.Sequential(first, nn.ReLU(), nn.Linear(64, 1))

    def forward(self, numbers: Tensor, pixels: Tensor, codes: Tensor) -> Tensor:
        images = pixels.flatten(0, 1).float().sub_(127.5).div_(63.75)
        features = self.backbone(images).unflatten(0, pixels.shape[:2]).mean(dim=1)
        return self.layers(torch.cat([numbers, features, self.table(codes)], dim=1)).squeeze(1)


def make_pair(compiled: bool = False) -> tuple[Contender, Contender]:
    """Return a fit and the hand-written loop."""
    torch.manual_seed(0)
    return (
        make_fit(compiled),
        by_hand.make_loop(Network(), FUSED_ADAMW, mse_loss, encoded_columns(), BATCH_SIZE),
    )


MIXED = Benchmark(
    name="train-mixed",
    work="fit from a spec: 500 rows of 4 photos 64x64 (features of one small residual net, "
    "averaged), 4 numbers and a category, batch size 32, fused AdamW; one epoch of 16 steps, rows "
    "in memory",
    baseline="the same network in a hand-written loop over uint8 photos, "
    "torch.optim.AdamW(fused=True)",
    aim=1.05,
    pair=make_pair,
    rounds=11,
)

MIXED_2_THREADS = evolve(
    MIXED, name="train-mixed-2-threads", work=f"{MIXED.work}, 2 threads", threads=2
)

ALL = (MIXED, MIXED_2_THREADS)
