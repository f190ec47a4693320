"""pytorch-widedeep, as in its first example: a preprocessor, WideDeep and `Trainer.fit`, with
progress bar. Dropout is off, so that the network is the same; rows in memory need no workers. The
four photos of a row are passed as one tall image, which the image module splits again.

Expert setup: `verbose=0`, torch's fused optimizer, a CustomDataLoader that indexes a whole batch of
the table at once, photos converted to float32 in advance and in channels-last format; the module
compiled by torch.compile.
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
from benchmarks.peers.workloads import Fit, FitStats, PrepareFit
from mip.nn import SmallResNet

Columns = dict[str, np.ndarray]
"""The arrays that `Trainer.fit` takes: X_tab, X_img, target."""


class Table(nn.Module):
    """The numbers and an embedding of the category: float32 [n, 5] to [n, 18]."""

    output_dim = mixed.N_CONTINUOUS + mixed.EMBEDDING_DIM

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(1 + mixed.CARDINALITY, mixed.EMBEDDING_DIM)

    def forward(self, rows: Tensor) -> Tensor:
        """Append the embedding of the first column to the numbers."""
        return torch.cat([rows[:, 1:], self.table(rows[:, 0].long())], dim=1)


class Photos(nn.Module):
    """The backbone's average over the photos of a tall image: [n, 3, 256, 64] to [n, 32]."""

    output_dim = 4 * mixed.BASE_CHANNELS

    def __init__(self) -> None:
        super().__init__()
        self.backbone = SmallResNet(mixed.BASE_CHANNELS)

    def forward(self, tall: Tensor) -> Tensor:
        """Split the image, run the backbone and average its features."""
        photos = tall.unflatten(2, (4, mixed.SIZE)).transpose(1, 2).flatten(0, 1)
        return self.backbone(photos).unflatten(0, (len(tall), 4)).mean(dim=1)


def table_() -> PrepareFit:
    """Train on the table as in the first example."""
    columns, make_net = _table_columns_and_net()
    return partial(
        _prepare_fit,
        make_net=make_net,
        make_optimizer=torch.optim.Adam,
        columns=columns,
        batch_size=table.BATCH_SIZE,
    )


def mixed_() -> PrepareFit:
    """Train on table and photos as in the first example."""
    columns = _mixed_columns()
    # [n, 3, 256, 64] to [n, 256, 64, 3]
    columns["X_img"] = np.ascontiguousarray(columns["X_img"].transpose(0, 2, 3, 1))
    return partial(
        _prepare_fit,
        make_net=_mixed_net,
        make_optimizer=torch.optim.AdamW,
        columns=columns,
        batch_size=mixed.BATCH_SIZE,
        epochs=workloads.MIXED_EPOCHS,
    )


def expert_table(compiled: bool) -> PrepareFit:
    """Train on the table as an expert would."""
    columns, make_net = _table_columns_and_net()
    columns["target"] = columns["target"].astype(np.float32)
    reset = workloads.make_reset(make_net(), compiled)

    def prepare_fit() -> Fit:
        indices = BatchSampler(RandomSampler(columns["target"]), table.BATCH_SIZE, drop_last=False)
        return _prepare_fit(
            make_net=reset,
            make_optimizer=partial(torch.optim.Adam, fused=True),
            columns=columns,
            batch_size=table.BATCH_SIZE,
            verbose=0,
            train_dataloader=CustomDataLoader(batch_size=None, sampler=indices),
        )

    return prepare_fit


def expert_mixed(compiled: bool) -> PrepareFit:
    """Train on table and photos as an expert would."""
    columns = _mixed_columns()
    columns["X_img"] = (columns["X_img"].astype(np.float32) - 127.5) / 63.75
    net = _mixed_net().to(memory_format=torch.channels_last)
    return partial(
        _prepare_fit,
        make_net=workloads.make_reset(net, compiled),
        make_optimizer=partial(torch.optim.AdamW, fused=True),
        columns=columns,
        batch_size=mixed.BATCH_SIZE,
        epochs=workloads.MIXED_EPOCHS,
        verbose=0,
    )


def _table_columns_and_net() -> tuple[Columns, Callable[[], WideDeep]]:
    numbers = [f"x{k}" for k in range(table.N_CONTINUOUS)]
    categories = [f"c{k}" for k in range(table.N_CATEGORICAL)]
    frame = workloads.random_frame()
    preprocessor = TabPreprocessor(cat_embed_cols=categories, continuous_cols=numbers)
    columns = {"X_tab": preprocessor.fit_transform(frame), "target": frame["y"].to_numpy()}

    def make_net() -> WideDeep:
        tab = TabMlp(
            column_idx=preprocessor.column_idx,
            cat_embed_input=preprocessor.cat_embed_input,
            continuous_cols=numbers,
            mlp_hidden_dims=[256, 128],
            mlp_dropout=0.0,
        )
        return WideDeep(deeptabular=tab)

    return columns, make_net


def _mixed_columns() -> Columns:
    numbers, pixels, codes, target = (column.numpy() for column in mixed.encoded_columns())
    # uint8 [n, 4, 3, 64, 64] to [n, 3, 256, 64]
    tall = pixels.transpose(0, 2, 1, 3, 4).reshape(len(pixels), 3, -1, mixed.SIZE)
    rows = np.concatenate([codes[:, None], numbers], axis=1).astype(np.float32)
    return {"X_tab": rows, "X_img": tall, "target": target}


def _mixed_net() -> WideDeep:
    return WideDeep(
        deeptabular=Table(), deepimage=Photos(), head_hidden_dims=[64], head_dropout=0.0
    )


def _prepare_fit(
    *,
    make_net: Callable[[], WideDeep],
    make_optimizer: Callable[..., torch.optim.Optimizer],
    columns: Columns,
    batch_size: int,
    epochs: int = 1,
    verbose: int = 1,
    train_dataloader: CustomDataLoader | None = None,
) -> Fit:
    model = make_net()
    optimizer = make_optimizer(model.parameters(), lr=1e-3)
    trainer = Trainer(
        model, objective="regression", optimizers=optimizer, num_workers=0, verbose=verbose
    )

    def fit() -> FitStats:
        trainer.fit(
            **columns, n_epochs=epochs, batch_size=batch_size, train_dataloader=train_dataloader
        )
        return FitStats(
            int(next(iter(optimizer.state.values()))["step"]), workloads.count_parameters(model)
        )

    return fit


TUTORIAL = {"table": table_, "mixed": mixed_}
EXPERT = {
    "table": partial(expert_table, compiled=False),
    "mixed": partial(expert_mixed, compiled=False),
}
COMPILED = {
    "table": partial(expert_table, compiled=True),
    "mixed": partial(expert_mixed, compiled=True),
}
