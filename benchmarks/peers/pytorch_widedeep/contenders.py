"""pytorch-widedeep, as in its first example: a preprocessor, WideDeep, `Trainer.fit`, with its bar.
Dropout is off, so that the network is the same; rows in memory need no workers. A row's four photos
are passed as one tall image, which the module for images cuts again.

As an expert runs it: `verbose=0`, torch's fused optimizer, a CustomDataLoader that indexes a batch
of the table at once, photos as float32, converted before, and channels last; the module compiled by
torch.compile.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from pytorch_widedeep import Trainer
from pytorch_widedeep.dataloaders import CustomDataLoader
from pytorch_widedeep.models import TabMlp, WideDeep
from pytorch_widedeep.preprocessing import TabPreprocessor
from torch import Tensor, nn
from torch.utils.data import BatchSampler, RandomSampler

from benchmarks import mixed, table
from benchmarks.peers import workloads
from benchmarks.peers.workloads import Done, Fresh, Run
from mip.nn import SmallResNet

Columns = dict[str, np.ndarray]
"""What `Trainer.fit` takes: X_tab, X_img, target."""


class Table(nn.Module):
    """Numbers as they are and the category embedded: float32 [n, 5] to [n, 18]."""

    output_dim = mixed.NUMBERS + table.WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(1 + mixed.WORDS, table.WIDTH)

    def forward(self, rows: Tensor) -> Tensor:
        """Append the vector of the first column to the numbers."""
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
    """Train the table as in the first example."""
    columns, net = _table()
    return partial(_fit, net, torch.optim.Adam, columns, table.BATCH, 1)


def mixed_() -> Fresh:
    """Train table and photos as in the first example."""
    columns = _mixed()
    # [n, 3, 256, 64] to [n, 256, 64, 3]
    columns["X_img"] = np.ascontiguousarray(columns["X_img"].transpose(0, 2, 3, 1))
    return partial(_fit, _wide_deep, torch.optim.AdamW, columns, mixed.BATCH, workloads.EPOCHS)


def expert_table(compiled: bool) -> Fresh:
    """Train the table as an expert does."""
    columns, net = _table()
    columns["target"] = columns["target"].astype(np.float32)
    restart, adam = workloads.restarting(net(), compiled), partial(torch.optim.Adam, fused=True)

    def fresh() -> Run:
        indices = BatchSampler(RandomSampler(columns["target"]), table.BATCH, drop_last=False)
        loader = CustomDataLoader(batch_size=None, sampler=indices)
        return _fit(restart, adam, columns, table.BATCH, 1, verbose=0, train_dataloader=loader)

    return fresh


def expert_mixed(compiled: bool) -> Fresh:
    """Train table and photos as an expert does."""
    columns = _mixed()
    columns["X_img"] = (columns["X_img"].astype(np.float32) - 127.5) / 63.75
    net = _wide_deep().to(memory_format=torch.channels_last)
    restart = workloads.restarting(net, compiled)
    adamw = partial(torch.optim.AdamW, fused=True)
    return partial(_fit, restart, adamw, columns, mixed.BATCH, workloads.EPOCHS, verbose=0)


def _table() -> tuple[Columns, Callable[[], WideDeep]]:
    numbers = [f"x{k}" for k in range(table.NUMBERS)]
    words = [f"c{k}" for k in range(table.CATEGORIES)]
    rows = workloads.frame()
    preprocessor = TabPreprocessor(cat_embed_cols=words, continuous_cols=numbers)
    columns = {"X_tab": preprocessor.fit_transform(rows), "target": rows["y"].to_numpy()}

    def net() -> WideDeep:
        tab = TabMlp(
            column_idx=preprocessor.column_idx,
            cat_embed_input=preprocessor.cat_embed_input,
            continuous_cols=numbers,
            mlp_hidden_dims=[256, 128],
            mlp_dropout=0.0,
        )
        return WideDeep(deeptabular=tab)

    return columns, net


def _mixed() -> Columns:
    numbers, pixels, codes, target = (column.numpy() for column in mixed.columns())
    # uint8 [n, 4, 3, 64, 64] to [n, 3, 256, 64]
    tall = pixels.transpose(0, 2, 1, 3, 4).reshape(len(pixels), 3, -1, mixed.SIZE)
    rows = np.concatenate([codes[:, None], numbers], axis=1).astype(np.float32)
    return {"X_tab": rows, "X_img": tall, "target": target}


def _wide_deep() -> WideDeep:
    return WideDeep(
        deeptabular=Table(), deepimage=Photos(), head_hidden_dims=[64], head_dropout=0.0
    )


def _fit(
    net: Callable[[], WideDeep],
    optimizers: Callable[..., torch.optim.Optimizer],
    columns: Columns,
    batch: int,
    epochs: int,
    verbose: int = 1,
    train_dataloader: CustomDataLoader | None = None,
) -> Run:
    model = net()
    optimizer = optimizers(model.parameters(), lr=1e-3)
    trainer = Trainer(
        model, objective="regression", optimizers=optimizer, num_workers=0, verbose=verbose
    )

    def run() -> Done:
        trainer.fit(**columns, n_epochs=epochs, batch_size=batch, train_dataloader=train_dataloader)
        return Done(int(next(iter(optimizer.state.values()))["step"]), workloads.count(model))

    return run


WORKLOADS = {"table": table_, "mixed": mixed_}
EXPERT = {
    "table": partial(expert_table, compiled=False),
    "mixed": partial(expert_mixed, compiled=False),
}
COMPILED = {
    "table": partial(expert_table, compiled=True),
    "mixed": partial(expert_mixed, compiled=True),
}
