"""PyTorch Frame, as in its introduction: a Dataset, its DataLoader of TensorFrames, its encoders in
a module of one's own, and a loop by hand with `torch.optim.Adam` and a bar.

As an expert runs it: the same loop with fused Adam and without the bar; the module compiled by
torch.compile, as in its examples.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
import torch_frame
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch_frame.data import DataLoader, Dataset
from torch_frame.nn import EmbeddingEncoder
from tqdm import tqdm

from benchmarks import table
from benchmarks.peers import workloads
from benchmarks.peers.workloads import Done, Fresh, Run


class Network(nn.Module):
    """The embeddings of PyTorch Frame, numbers standardised by its statistics, and an MLP."""

    def __init__(self, rows: Dataset) -> None:
        super().__init__()
        names = rows.tensor_frame.col_names_dict[torch_frame.categorical]
        stats = [rows.col_stats[name] for name in names]
        self.embeddings = EmbeddingEncoder(table.WIDTH, stats, torch_frame.categorical)
        width = table.NUMBERS + table.CATEGORIES * table.WIDTH
        first, second = nn.Linear(width, 256), nn.Linear(256, 128)
        self.layers = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(128, 1))

    def forward(self, frame: torch_frame.TensorFrame) -> Tensor:
        """Return float32 [n]."""
        vectors = self.embeddings(frame.feat_dict[torch_frame.categorical]).flatten(1)
        numbers = frame.feat_dict[torch_frame.numerical]
        return self.layers(torch.cat([numbers, vectors], dim=1)).squeeze(1)


def table_() -> Fresh:
    """Train the table as in the introduction."""
    rows, loader = _loaded()

    def fresh() -> Run:
        net = Network(rows)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        return lambda: Done(_train(net, optimizer, tqdm(loader)), workloads.count(net))

    return fresh


def expert_table(compiled: bool) -> Fresh:
    """Train the table as an expert does."""
    rows, loader = _loaded()
    restart = workloads.restarting(Network(rows), compiled)

    def fresh() -> Run:
        net = restart()
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
        return lambda: Done(_train(net, optimizer, loader), workloads.count(net))

    return fresh


def _loaded() -> tuple[Dataset, DataLoader]:
    numbers = dict.fromkeys([f"x{k}" for k in range(table.NUMBERS)], torch_frame.numerical)
    words = dict.fromkeys([f"c{k}" for k in range(table.CATEGORIES)], torch_frame.categorical)
    types = {**numbers, **words, "y": torch_frame.numerical}
    rows = Dataset(workloads.frame(), col_to_stype=types, target_col="y")
    rows.materialize()
    return rows, DataLoader(rows.tensor_frame, batch_size=table.BATCH, shuffle=True)


def _train(
    net: nn.Module, optimizer: torch.optim.Optimizer, frames: Iterable[torch_frame.TensorFrame]
) -> int:
    steps = 0
    for frame in frames:
        loss = mse_loss(net(frame), frame.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    return steps


WORKLOADS = {"table": table_}
EXPERT = {"table": partial(expert_table, compiled=False)}
COMPILED = {"table": partial(expert_table, compiled=True)}
