"""The data and sizes that all contenders train with, and helpers that need only torch."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pandas as pd
from attrs import frozen
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

from benchmarks import table, train

MLP_STEPS, TABLE_STEPS, MIXED_EPOCHS = 400, 400, 2

DESCRIPTIONS = {
    "mlp": f"an MLP 784-100-100-100-10, batch size 64, {MLP_STEPS} steps, Adam",
    "table": f"20 numbers and 10 categorical columns, embeddings of 14 and an MLP 256-128, batch "
    f"size 256, {TABLE_STEPS} steps, Adam",
    "mixed": "4 photos 64x64, 4 numbers and a category, a small residual net for the photos, batch "
    f"size 32, {MIXED_EPOCHS} epochs of 16 steps, AdamW",
}
"""The workloads by name."""


@frozen
class FitStats:
    """The number of steps that a fit took and of parameters that it trained."""

    steps: int
    parameters: int


Fit = Callable[[], FitStats]
"""Fits a model that is already built; only this call is timed."""

PrepareFit = Callable[[], Fit]
"""Prepares the fit of a new model, which is not timed."""


def random_digits() -> tuple[Tensor, Tensor]:
    """Return the MLP's rows: float32 [25600, 784] and int64 [25600]."""
    return train.random_digits(train.BATCH_SIZE * MLP_STEPS)


def random_frame() -> pd.DataFrame:
    """Return the table's rows: x0…x19, c0…c9, y."""
    return table.random_frame(table.BATCH_SIZE * TABLE_STEPS)


def count_parameters(net: nn.Module) -> int:
    """Count a network's parameters."""
    return sum(param.numel() for param in net.parameters())


def batch_loader(dataset: Dataset, batch_size: int) -> DataLoader:
    """Return a loader of shuffled batches that indexes the dataset once per batch instead of once
    per row, as torch's documentation proposes for rows in memory.
    """
    indices = BatchSampler(RandomSampler(dataset), batch_size, drop_last=False)
    return DataLoader(dataset, batch_size=None, sampler=indices)


def make_reset(net: nn.Module, compiled: bool) -> Callable[[], nn.Module]:
    """Return a function that resets a network to its current weights and returns it.

    With `compiled` the network is compiled in place. Since it remains the same object, all fits
    after the first reuse the compiled graphs.
    """
    if compiled:
        net.compile(dynamic=False)
    initial = deepcopy(net.state_dict())

    def reset() -> nn.Module:
        net.load_state_dict(initial)
        net.zero_grad()
        return net

    return reset
