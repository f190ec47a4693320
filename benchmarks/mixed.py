"""Training of a table and photos together."""

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

ROWS, BATCH, SIZE, NUMBERS, WORDS, WIDTH = 500, 32, 64, 4, 46, 8
PHOTOS = ("frontal", "kitchen", "bedroom", "bathroom")

SPEC = f"""
[branch.numbers]
kind = "continuous"
columns = {[f"x{k}" for k in range(NUMBERS)]}

[branch.photos]
kind = "image"
columns = {list(PHOTOS)}
size = {SIZE}
backbone = "small"
base_channels = {WIDTH}
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
batch_size = {BATCH}
workers = 0
clip_norm = 0.0
optimizer = {{ kind = "adamw", lr = 1e-3 }}
schedule = {{ kind = "constant" }}
"""

ADAMW = partial(torch.optim.AdamW, lr=1e-3, fused=True)


@cache
def drawn(rows: int = ROWS) -> dict[str, np.ndarray]:
    """Draw columns: numbers x0…, a zip code, four photos uint8 [rows, 64, 64, 3], a target y."""
    draws = np.random.default_rng(0)
    numbers = {f"x{k}": draws.normal(size=rows).astype(np.float32) for k in range(NUMBERS)}
    shape = rows, SIZE, SIZE, 3
    photos = {name: draws.integers(256, size=shape, dtype=np.uint8) for name in PHOTOS}
    places = np.arange(rows) % WORDS
    y = sum(numbers.values()) + places / WORDS
    return {**numbers, "zipcode": 85000 + places, **photos, "y": y.astype(np.float32)}


@cache
def laid(rows: int = ROWS, compiled: bool = False) -> Job:
    """Lay out what `mip fit` would train."""
    table = mip.from_columns(drawn(rows))
    spec = mip.parse(SPEC, changes={"train.compile": compiled})
    return prepare_job(spec, Parts(table, table.take([]), table.take([])))


def fitted(rows: int = ROWS, epochs: int = 1, compiled: bool = False) -> Contender:
    """Give a fit."""
    one = laid(rows, compiled)
    return lambda: mip.fit(one.step, one.batches, one.start.state, epochs=epochs)


class Network(nn.Module):
    """The same network by hand: numbers float32 [n, 4], pixels uint8 [n, 4, 3, 64, 64] and codes
    int64 [n] to float32 [n]; the backbone runs once, over all photos of the batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.table = SmallResNet(WIDTH), nn.Embedding(1 + WORDS, 14)
        first, last = nn.Linear(NUMBERS + 4 * WIDTH + 14, 64), nn.Linear(64, 1)
        self.layers = nn.Sequential(first, nn.ReLU(), last)

    def forward(self, numbers: Tensor, pixels: Tensor, codes: Tensor) -> Tensor:
        images = pixels.flatten(0, 1).float().sub_(127.5).div_(63.75)
        looks = self.backbone(images).unflatten(0, pixels.shape[:2]).mean(dim=1)
        return self.layers(torch.cat([numbers, looks, self.table(codes)], dim=1)).squeeze(1)


def columns(rows: int = ROWS) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Give numbers, pixels, codes and target as the loop by hand has them."""
    inputs, target, _ = laid(rows).batches.source
    return inputs["numbers"], inputs["photos"]["pixels"], inputs["words"][:, 0], target


def pair(compiled: bool = False) -> tuple[Contender, Contender]:
    """Give a fit and the loop by hand."""
    torch.manual_seed(0)
    return fitted(compiled=compiled), by_hand.loop(Network(), ADAMW, mse_loss, columns(), BATCH)


MIXED = Benchmark(
    name="train-mixed",
    work="fit from a spec: 500 rows of 4 photos 64x64 (one small residual net for all, averaged), "
    "4 numbers and a category, batch 32, fused AdamW; one epoch, 16 steps, rows in memory",
    anchor="the same network and loop by hand over uint8 photos, torch.optim.AdamW(fused=True)",
    aim=1.05,
    pair=pair,
    rounds=11,
)

MIXED_2_THREADS = evolve(
    MIXED, name="train-mixed-2-threads", work=f"{MIXED.work}, 2 threads", threads=2
)

ALL = (MIXED, MIXED_2_THREADS)
