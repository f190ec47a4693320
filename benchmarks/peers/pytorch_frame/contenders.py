"""PyTorch Frame, as in its introduction: a Dataset, its DataLoader of TensorFrames, its encoders
in a custom module, and a hand-written loop with `torch.optim.Adam` and a progress bar.

Expert setup: the same loop with fused Adam and without the bar; the module compiled by
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
from benchmarks.peers.workloads import Fit, FitStats, PrepareFit


class Network(nn.Module):
    """An MLP over PyTorch Frame's embeddings of the categories and the numbers as they are."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()
        names = dataset.tensor_frame.col_names_dict[torch_frame.categorical]
        stats = [dataset.col_stats[name] for name in names]
        self.embeddings = EmbeddingEncoder(table.EMBEDDING_DIM, stats, torch_frame.categorical)
        width = table.N_CONTINUOUS + table.N_CATEGORICAL * table.EMBEDDING_DIM
        first, second = nn.Linear(width, 256), nn.Linear(256, 128)
        self.layers = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(128, 1))

    def forward(self, frame: torch_frame.TensorFrame) -> Tensor:
        """Return float32 [n]."""
        vectors = self.embeddings(frame.feat_dict[torch_frame.categorical]).flatten(1)
        numbers = frame.feat_dict[torch_frame.numerical]
        return self.layers(torch.cat([numbers, vectors], dim=1)).squeeze(1)


def table_() -> PrepareFit:
    """Train on the table as in the introduction."""
    dataset, loader = _load_table()

    def prepare_fit() -> Fit:
        net = Network(dataset)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        return lambda: FitStats(
            _train_epoch(net, optimizer, tqdm(loader)), workloads.count_parameters(net)
        )

    return prepare_fit


def expert_table(compiled: bool) -> PrepareFit:
    """Train on the table as an expert would."""
    dataset, loader = _load_table()
    reset = workloads.make_reset(Network(dataset), compiled)

    def prepare_fit() -> Fit:
        net = reset()
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
        return lambda: FitStats(
            _train_epoch(net, optimizer, loader), workloads.count_parameters(net)
        )

    return prepare_fit


def _load_table() -> tuple[Dataset, DataLoader]:
    numbers = dict.fromkeys([f"x{k}" for k in range(table.N_CONTINUOUS)], torch_frame.numerical)
    categories = dict.fromkeys(
        [f"c{k}" for k in range(table.N_CATEGORICAL)], torch_frame.categorical
    )
    types = {**numbers, **categories, "y": torch_frame.numerical}
    dataset = Dataset(workloads.random_frame(), col_to_stype=types, target_col="y")
    dataset.materialize()
    return dataset, DataLoader(dataset.tensor_frame, batch_size=table.BATCH_SIZE, shuffle=True)


def _train_epoch(
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


TUTORIAL = {"table": table_}
EXPERT = {"table": partial(expert_table, compiled=False)}
COMPILED = {"table": partial(expert_table, compiled=True)}
