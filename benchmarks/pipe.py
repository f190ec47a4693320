"""Pipes: batches without training."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import torch
from attrs import evolve
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import mip
from benchmarks.harness import Benchmark, Contender
from mip.pipe import Pipe

BATCH_SIZE, N_ROWS = 256, 200_000


def _random_columns() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(N_ROWS, 20, generator=generator)
    return inputs, torch.randint(0, 10, (N_ROWS, 10), generator=generator)


def _batches(columns: tuple[Tensor, Tensor]) -> Pipe:
    return mip.batch(BATCH_SIZE)(mip.sample(shuffle=True)(columns))


def _batches_by_hand(inputs: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.randperm(len(inputs))
    for start in range(0, len(inputs), BATCH_SIZE):
        index = order[start : start + BATCH_SIZE]
        yield inputs.index_select(0, index), labels.index_select(0, index)


def _generator_pair() -> tuple[Contender, Contender]:
    columns = _random_columns()
    batches = _batches(columns)
    return lambda: deque(batches, 0), lambda: deque(_batches_by_hand(*columns), 0)


def _loader_pair() -> tuple[Contender, Contender]:
    columns = _random_columns()
    batches = _batches(columns)
    loader = DataLoader(TensorDataset(*columns), batch_size=BATCH_SIZE, shuffle=True)
    return lambda: deque(batches, 0), lambda: deque(loader, 0)


MEMORY = Benchmark(
    name="pipe-memory",
    work="one epoch of shuffled batches of 256 from (float32 [200000, 20], int64 [200000, 10])",
    baseline="a hand-written generator: index_select from a randperm",
    aim=0.9,
    pair=_generator_pair,
)

LOADER = evolve(
    MEMORY,
    name="pipe-memory-loader",
    baseline="the default DataLoader over a TensorDataset of the same rows",
    aim=5.0,
    pair=_loader_pair,
    rounds=9,
)

ALL = (MEMORY, LOADER)
