"""Photos: from JPEG files to normalised float batches."""

from __future__ import annotations

from collections import deque
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from attrs import evolve
from PIL import Image
from toolz import pipe
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

import mip
from benchmarks.harness import Benchmark, Contender, scratch
from mip.branches import image
from mip.pipe import Pipe

BATCH, SIZE = 32, 128
SMALL = ((640, 427, 8.7), (768, 512, 5.7), (896, 640, 3.2), (1024, 768, 1.7))
LARGE = ((4000, 3000, 5.0),)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@cache
def _drawn(count: int, forms: tuple[tuple[int, int, float], ...]) -> Path:
    # Smooth colours under a grain that brings a file to the bytes of a real photo.
    folder, draws = scratch("photos-"), np.random.default_rng(0)
    for k in range(count):
        width, height, grain = forms[k % len(forms)]
        few = draws.integers(0, 256, (18, 24, 3), dtype=np.uint8)
        smooth = Image.fromarray(few).resize((width, height), Image.Resampling.BICUBIC)
        rough = np.asarray(smooth) + draws.normal(0, grain, (height, width, 1))
        Image.fromarray(rough.clip(0, 255).astype(np.uint8)).save(folder / f"{k}.jpg", quality=85)
    return folder


class _Files(Dataset):
    # The usual way: Pillow opens, converts and shrinks, torchvision makes floats of it.
    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.jpg"))
        floats = (v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD))
        self.floats = v2.Compose(floats)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> Tensor:
        with Image.open(self.paths[place]) as image:
            square = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        return self.floats(square)


def _normalised(pixels: Tensor) -> Tensor:
    return _into(torch.empty(pixels.shape), pixels)


@cache
def _shift_and_scale() -> tuple[Tensor, Tensor]:
    # As large as a photo, for addcmul takes twice the time where it broadcasts.
    mean, std = (torch.tensor(each).view(3, 1, 1).expand(3, SIZE, SIZE) for each in (MEAN, STD))
    return -mean / std, 1 / (255 * std)


def _into(room: Tensor, pixels: Tensor) -> Tensor:
    shift, scale = _shift_and_scale()
    return torch.addcmul(shift, room.copy_(pixels), scale, out=room)


def _table(folder: Path) -> mip.Table:
    names = sorted(path.name for path in folder.glob("*.jpg"))
    return mip.from_frame(pd.DataFrame({"photo": names}), folder)


def _against_loader(batches: Pipe, folder: Path) -> tuple[Contender, Contender]:
    usual = DataLoader(_Files(folder), batch_size=BATCH)
    return lambda: deque(batches, 0), lambda: deque(usual, 0)


def _photos(count: int, forms: tuple, decoding: str, workers: int) -> tuple[Contender, Contender]:
    folder = _drawn(count, forms)
    table, kind = _table(folder), image.Image(["photo"], size=SIZE, decoding=decoding)
    facts = kind.adapt(table)
    batches = pipe(
        table,
        mip.batch(BATCH if count > BATCH else 2),
        mip.transform(lambda rows: _normalised(kind.encode(facts, rows)["pixels"]), workers),
    )
    return _against_loader(batches, folder)


def _kept() -> tuple[Contender, Contender]:
    folder = _drawn(512, SMALL)
    table, kind = _table(folder), image.Image(["photo"], size=SIZE)
    room = torch.empty(BATCH, 1, 3, SIZE, SIZE)
    batches = pipe(
        kind.cache(kind.adapt(table), table, folder / "cached"),
        mip.sample(shuffle=True),
        mip.batch(BATCH),
        mip.transform(lambda rows: _into(room, rows["pixels"])),
    )
    deque(batches, 0)  # the first epoch, which decodes
    return _against_loader(batches, folder)


ONE = Benchmark(
    name="pipe-photos",
    work="512 JPEGs of about 90 KB to float batches [32, 3, 128, 128], decoded whole, 1 thread",
    anchor="DataLoader without workers: Pillow opens, converts, shrinks; torchvision normalises",
    aim=1.95,
    pair=partial(_photos, 512, SMALL, "full", 0),
    rounds=9,
)

TWO = evolve(
    ONE,
    name="pipe-photos-2-threads",
    work=ONE.work.replace("1 thread", "2 threads"),
    aim=3.9,
    pair=partial(_photos, 512, SMALL, "full", 2),
)

SCALED = evolve(
    ONE,
    name="pipe-photos-scaled",
    work=ONE.work.replace("whole, 1 thread", "scaled, 2 threads"),
    aim=4.4,
    pair=partial(_photos, 512, SMALL, "scaled", 2),
)

LARGE_SCALED = evolve(
    ONE,
    name="pipe-photos-large",
    work="16 JPEGs of 4000 x 3000 to float batches, decoded scaled, 2 threads",
    aim=6.0,
    pair=partial(_photos, 16, LARGE, "scaled", 2),
)

KEPT = evolve(
    ONE,
    name="pipe-photos-kept",
    work="a later epoch of the same 512 photos, shuffled, from the file that keeps them, "
    "normalised in one buffer",
    aim=200.0,
    pair=_kept,
)

ALL = (ONE, TWO, SCALED, LARGE_SCALED, KEPT)
