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

BATCH, ROWS = 256, 200_000


def _by_hand(inputs: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.randperm(len(inputs))
    for begin in range(0, len(inputs), BATCH):
        index = order[begin : begin + BATCH]
        yield inputs.index_select(0, index), labels.index_select(0, index)


def _memory() -> tuple[Contender, Contender]:
    draws = torch.Generator().manual_seed(0)
    inputs = torch.randn(ROWS, 20, generator=draws)
    labels = torch.randint(0, 10, (ROWS, 10), generator=draws)
    batches = mip.batch(BATCH)(mip.sample(shuffle=True)((inputs, labels)))
    return lambda: deque(batches, 0), lambda: deque(_by_hand(inputs, labels), 0)


MEMORY = Benchmark(
    name="pipe-memory",
    work="an epoch of shuffled batches of 256 from (float32 [200000, 20], int64 [200000, 10])",
    anchor="a generator by hand: index_select from a randperm",
    aim=0.9,
    pair=_memory,
)


def _loader() -> tuple[Contender, Contender]:
    ours, _ = _memory()
    draws = torch.Generator().manual_seed(0)
    inputs = torch.randn(ROWS, 20, generator=draws)
    labels = torch.randint(0, 10, (ROWS, 10), generator=draws)
    usual = DataLoader(TensorDataset(inputs, labels), batch_size=BATCH, shuffle=True)
    return ours, lambda: deque(usual, 0)


LOADER = evolve(
    MEMORY,
    name="pipe-memory-loader",
    anchor="the default DataLoader over a TensorDataset of the same rows",
    aim=5.0,
    pair=_loader,
    rounds=9,
)

ALL = (MEMORY, LOADER)
