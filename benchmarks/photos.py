"""Photos: from JPEG files to normalized float batches."""

from __future__ import annotations

from collections import deque
from functools import cache, partial
from pathlib import Path
from typing import Literal

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
from benchmarks.harness import Benchmark, Contender, temporary_folder
from mip.branches import image
from mip.pipe import Pipe

BATCH_SIZE, SIZE = 32, 128
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Formats = tuple[tuple[int, int, float], ...]
"""The formats that photos take turns in: width, height and standard deviation of the noise."""

SMALL: Formats = ((640, 427, 8.7), (768, 512, 5.7), (896, 640, 3.2), (1024, 768, 1.7))
LARGE: Formats = ((4000, 3000, 5.0),)


@cache
def _write_photos(count: int, formats: Formats) -> Path:
    # Smooth colors plus noise that gives each file the size of a real photo's.
    folder, rng = temporary_folder("photos-"), np.random.default_rng(0)
    for k in range(count):
        width, height, noise = formats[k % len(formats)]
        thumbnail = Image.fromarray(rng.integers(0, 256, (18, 24, 3), dtype=np.uint8))
        smooth = np.asarray(thumbnail.resize((width, height), Image.Resampling.BICUBIC))
        noisy = smooth + rng.normal(0, noise, (height, width, 1))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{k}.jpg", quality=85)
    return folder


class _JpegDataset(Dataset):
    # The usual way: Pillow opens, converts and resizes, torchvision converts to float.
    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.jpg"))
        to_float = v2.ToDtype(torch.float32, scale=True)
        self.transform = v2.Compose([v2.ToImage(), to_float, v2.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.paths[index]) as photo:
            resized = photo.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        return self.transform(resized)


@cache
def _shift_and_scale() -> tuple[Tensor, Tensor]:
    # Expanded to the size of a photo: addcmul takes twice as long when it broadcasts.
    mean, std = (torch.tensor(stat).view(3, 1, 1).expand(3, SIZE, SIZE) for stat in (MEAN, STD))
    return -mean / std, 1 / (255 * std)


def _normalize(pixels: Tensor, out: Tensor) -> Tensor:
    shift, scale = _shift_and_scale()
    return torch.addcmul(shift, out.copy_(pixels), scale, out=out)


def _table(folder: Path) -> mip.Table:
    names = sorted(path.name for path in folder.glob("*.jpg"))
    return mip.from_frame(pd.DataFrame({"photo": names}), folder)


def _with_loader(batches: Pipe, folder: Path) -> tuple[Contender, Contender]:
    loader = DataLoader(_JpegDataset(folder), batch_size=BATCH_SIZE)
    return lambda: deque(batches, 0), lambda: deque(loader, 0)


def _decoding_pair(
    count: int, formats: Formats, *, decoding: Literal["full", "scaled"], workers: int
) -> tuple[Contender, Contender]:
    folder = _write_photos(count, formats)
    table, branch = _table(folder), image.Image(["photo"], size=SIZE, decoding=decoding)
    facts = branch.adapt(table)

    def encode(rows: mip.Table) -> Tensor:
        pixels = branch.encode(facts, rows)["pixels"]
        return _normalize(pixels, out=torch.empty(pixels.shape))

    batch_size = BATCH_SIZE if count > BATCH_SIZE else 2
    batches = pipe(table, mip.batch(batch_size), mip.transform(encode, workers))
    return _with_loader(batches, folder)


def _cached_pair() -> tuple[Contender, Contender]:
    folder = _write_photos(512, SMALL)
    table, branch = _table(folder), image.Image(["photo"], size=SIZE)
    buffer = torch.empty(BATCH_SIZE, 1, 3, SIZE, SIZE)
    batches = pipe(
        branch.cache(branch.adapt(table), table, folder / "cached"),
        mip.sample(shuffle=True),
        mip.batch(BATCH_SIZE),
        mip.transform(lambda rows: _normalize(rows["pixels"], out=buffer)),
    )
    deque(batches, 0)  # the first epoch decodes
    return _with_loader(batches, folder)


FULL = Benchmark(
    name="pipe-photos",
    work="512 JPEGs of about 90 KB to float batches [32, 3, 128, 128], full decoding, 1 thread",
    baseline="DataLoader without workers: Pillow opens, converts and resizes; torchvision "
    "normalizes",
    aim=1.95,
    pair=partial(_decoding_pair, 512, SMALL, decoding="full", workers=0),
    rounds=9,
)

FULL_2_THREADS = evolve(
    FULL,
    name="pipe-photos-2-threads",
    work="512 JPEGs of about 90 KB to float batches [32, 3, 128, 128], full decoding, 2 threads",
    aim=3.9,
    pair=partial(_decoding_pair, 512, SMALL, decoding="full", workers=2),
)

SCALED = evolve(
    FULL,
    name="pipe-photos-scaled",
    work="512 JPEGs of about 90 KB to float batches [32, 3, 128, 128], scaled decoding, 2 threads",
    aim=4.4,
    pair=partial(_decoding_pair, 512, SMALL, decoding="scaled", workers=2),
)

LARGE_SCALED = evolve(
    FULL,
    name="pipe-photos-large",
    work="16 JPEGs of 4000 x 3000 to float batches, scaled decoding, 2 threads",
    aim=6.0,
    pair=partial(_decoding_pair, 16, LARGE, decoding="scaled", workers=2),
)

CACHED = evolve(
    FULL,
    name="pipe-photos-cached",
    work="a later epoch of the same 512 photos, shuffled, from the cache file, normalized into one "
    "reused buffer",
    aim=200.0,
    pair=_cached_pair,
)

ALL = (FULL, FULL_2_THREADS, SCALED, LARGE_SCALED, CACHED)
