"""pytorch-widedeep, as in its first example: a preprocessor, WideDeep, `Trainer.fit`, with its bar.

Dropout is off, so that the network is the same; rows in memory need no workers. A row's four photos
are handed over as one tall image, which the module for images cuts again.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from pytorch_widedeep import Trainer
from pytorch_widedeep.models import TabMlp, WideDeep
from pytorch_widedeep.preprocessing import TabPreprocessor
from torch import Tensor, nn

from benchmarks import mixed, table
from benchmarks.peers import workloads
from benchmarks.peers.workloads import Done, Fresh, Run
from mip.nn import SmallResNet


class Columns(nn.Module):
    """Numbers as they are and the category embedded: float32 [n, 5] to [n, 18]."""

    output_dim = mixed.NUMBERS + table.WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(1 + mixed.WORDS, table.WIDTH)

    def forward(self, rows: Tensor) -> Tensor:
        """Put the vector of the first column behind the numbers."""
        return torch.cat([rows[:, 1:], self.table(rows[:, 0].long())], dim=1)


class Photos(nn.Module):
    """The backbone over four photos in one tall image, averaged: [n, 3, 256, 64] to [n, 32]."""

    output_dim = 4 * mixed.WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.backbone = SmallResNet(mixed.WIDTH)

    def forward(self, tall: Tensor) -> Tensor:
        """Cut, run and average."""
        photos = tall.unflatten(2, (4, mixed.SIZE)).transpose(1, 2).flatten(0, 1)
        return self.backbone(photos).unflatten(0, (len(tall), 4)).mean(dim=1)


def table_() -> Fresh:
    """Train the table."""
    numbers = [f"x{k}" for k in range(table.NUMBERS)]
    words = [f"c{k}" for k in range(table.CATEGORIES)]
    rows = workloads.frame()
    ready = TabPreprocessor(cat_embed_cols=words, continuous_cols=numbers)
    given = {"X_tab": ready.fit_transform(rows), "target": rows["y"].to_numpy()}

    def net() -> WideDeep:
        tab = TabMlp(
            column_idx=ready.column_idx,
            cat_embed_input=ready.cat_embed_input,
            continuous_cols=numbers,
            mlp_hidden_dims=[256, 128],
            mlp_dropout=0.0,
        )
        return WideDeep(deeptabular=tab)

    return partial(_laid, net, torch.optim.Adam, given, table.BATCH, 1)


def mixed_() -> Fresh:
    """Train table and photos."""
    numbers, pixels, codes, target = (each.numpy() for each in mixed.columns())
    # uint8 [n, 4, 3, 64, 64] to [n, 256, 64, 3]
    tall = np.ascontiguousarray(pixels.transpose(0, 1, 3, 4, 2).reshape(len(pixels), -1, 64, 3))
    rows = np.concatenate([codes[:, None], numbers], axis=1).astype(np.float32)
    given = {"X_tab": rows, "X_img": tall, "target": target}

    def net() -> WideDeep:
        parts = {"deeptabular": Columns(), "deepimage": Photos()}
        return WideDeep(**parts, head_hidden_dims=[64], head_dropout=0.0)

    return partial(_laid, net, torch.optim.AdamW, given, mixed.BATCH, workloads.EPOCHS)


def _laid(net: partial, optimizers: type, given: dict, batch: int, epochs: int) -> Run:
    model = net()
    optimizer = optimizers(model.parameters(), lr=1e-3)
    trainer = Trainer(model, objective="regression", optimizers=optimizer, num_workers=0)

    def run() -> Done:
        trainer.fit(**given, n_epochs=epochs, batch_size=batch)
        return Done(int(next(iter(optimizer.state.values()))["step"]), workloads.count(model))

    return run


WORKLOADS = {"table": table_, "mixed": mixed_}
