"""fastai, as in its tutorials: DataLoaders, a Learner, `fit`; its bar and recorder are on.

It cannot go without valid rows, so it has one batch of them. The table is by `tabular_learner`,
without its batch norms, so that the network is the same; rows in memory need no workers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.tabular.all import (
    Categorify,
    FillMissing,
    Normalize,
    TabularDataLoaders,
    tabular_config,
    tabular_learner,
)
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import TensorDataset

from benchmarks import mixed, table, train
from benchmarks.peers import workloads
from benchmarks.peers.workloads import Done, Fresh, Run


def mlp() -> Fresh:
    """Train the MLP."""
    loaders = _loaders(workloads.digits(), train.BATCH)
    return partial(_laid, lambda: Learner(loaders, train.mlp(), loss_func=cross_entropy))


def table_() -> Fresh:
    """Train the table."""
    rows = workloads.frame()
    loaders = TabularDataLoaders.from_df(
        table.drawn(len(rows) + table.BATCH),
        procs=[Categorify, FillMissing, Normalize],
        cat_names=[f"c{k}" for k in range(table.CATEGORIES)],
        cont_names=[f"x{k}" for k in range(table.NUMBERS)],
        y_names="y",
        valid_idx=list(range(table.BATCH)),
        bs=table.BATCH,
    )
    config = tabular_config(use_bn=False, bn_cont=False)
    return partial(_laid, lambda: tabular_learner(loaders, layers=[256, 128], config=config))


def mixed_() -> Fresh:
    """Train table and photos, by the network written by hand."""
    loaders = _loaders(mixed.columns(), mixed.BATCH)
    return partial(
        _laid,
        lambda: Learner(loaders, mixed.Network(), loss_func=mse_loss),
        epochs=workloads.EPOCHS,
    )


def _loaders(rows: tuple[Tensor, ...], batch: int) -> DataLoaders:
    valid = TensorDataset(*(column[:batch] for column in rows))
    whole = TensorDataset(*rows)
    return DataLoaders.from_dsets(
        whole, valid, bs=batch, num_workers=0, drop_last=False, device=torch.device("cpu")
    )


def _laid(learners: Callable[[], Learner], epochs: int = 1) -> Run:
    learner = learners()

    def run() -> Done:
        learner.fit(epochs, lr=1e-3)
        return Done(learner.train_iter, workloads.count(learner.model))

    return run


WORKLOADS = {"mlp": mlp, "table": table_, "mixed": mixed_}
