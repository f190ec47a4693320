"""The rows and sizes that all contenders train with, and what needs no library but torch."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pandas as pd
from attrs import frozen
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

from benchmarks import table, train

MLP_STEPS, TABLE_STEPS, EPOCHS = 400, 400, 2

TEXTS = {
    "mlp": f"an MLP 784-100-100-100-10, batch 64, {MLP_STEPS} steps, Adam",
    "table": f"20 numbers and 10 categories through embeddings of 14 and an MLP 256-128, batch "
    f"256, {TABLE_STEPS} steps, Adam",
    "mixed": f"4 photos 64x64, 4 numbers and a category, a small residual net for the photos, "
    f"batch 32, {EPOCHS} epochs of 16 steps, AdamW",
}
"""The workloads by name."""


@frozen
class Done:
    """What a fit has done: its number of steps, and of parameters trained."""

    steps: int
    parameters: int


Run = Callable[[], Done]
"""Fits a model that has been built; only this call is timed."""

Fresh = Callable[[], Run]
"""Prepares the fit of a new model, which is not timed."""


def digits() -> tuple[Tensor, Tensor]:
    """Return the MLP's rows: float32 [25600, 784] and int64 [25600]."""
    return train.rows(train.BATCH * MLP_STEPS)


def frame() -> pd.DataFrame:
    """Return the table's rows: x0…x19, c0…c9, y."""
    return table.drawn(table.BATCH * TABLE_STEPS)


def count(net: nn.Module) -> int:
    """Count a network's parameters."""
    return sum(param.numel() for param in net.parameters())


def batch_loader(rows: Dataset, batch_size: int) -> DataLoader:
    """Load shuffled rows, indexing the dataset once per batch instead of once per row: the way
    torch's documentation proposes for rows in memory.
    """
    indices = BatchSampler(RandomSampler(rows), batch_size, drop_last=False)
    return DataLoader(rows, batch_size=None, sampler=indices)


def restarting(net: nn.Module, compiled: bool) -> Callable[[], nn.Module]:
    """Return a function that resets a network to the weights that it has now, and returns it.

    With `compiled` the network is compiled in place. Since it stays the same object, all fits after
    the first use the graphs that the first has made.
    """
    if compiled:
        net.compile(dynamic=False)
    start = deepcopy(net.state_dict())

    def restart() -> nn.Module:
        net.load_state_dict(start)
        net.zero_grad()
        return net

    return restart
