"""The rows and sizes that all contenders train with; what needs no library but torch."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from attrs import frozen
from torch import Tensor, nn

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
    """What a fit has done: steps taken, and parameters trained by them."""

    steps: int
    parameters: int


Run = Callable[[], Done]
"""A fit that is laid out: this call is what is timed."""

Fresh = Callable[[], Run]
"""Lays out a fit of a new model: built, and not timed."""


def digits() -> tuple[Tensor, Tensor]:
    """Give the MLP's rows: float32 [25600, 784] and int64 [25600]."""
    return train.rows(train.BATCH * MLP_STEPS)


def frame() -> pd.DataFrame:
    """Give the table's rows: x0…x19, c0…c9, y."""
    return table.drawn(table.BATCH * TABLE_STEPS)


def count(net: nn.Module) -> int:
    """Count a network's parameters."""
    return sum(param.numel() for param in net.parameters())
