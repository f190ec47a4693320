"""fastai, as in its tutorials: DataLoaders, a Learner, `fit`; its bar and recorder are on. It
cannot do without valid rows, so it has one batch of them. The table is trained by
`tabular_learner`, without its batch norms, so that the network is the same; rows in memory need no
workers.

As an expert runs it: a Learner with TrainEvalCallback as its only callback, torch's fused optimizer
in an OptimWrapper, torch's DataLoader over tensors, also for the table, photos channels last, and
no valid batch; the module compiled by torch.compile.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from fastai.callback.core import TrainEvalCallback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from fastai.tabular.all import (
    Categorify,
    FillMissing,
    Normalize,
    TabularDataLoaders,
    tabular_config,
    tabular_learner,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import TensorDataset

from benchmarks import mixed, table, train
from benchmarks.peers import workloads
from benchmarks.peers.workloads import Done, Fresh, Run


def mlp() -> Fresh:
    """Train the MLP as in the tutorials."""
    loaders = _loaders(workloads.digits(), train.BATCH)
    return partial(_fit, lambda: Learner(loaders, train.mlp(), loss_func=cross_entropy))


def table_() -> Fresh:
    """Train the table as in the tutorials."""
    return partial(_fit, partial(_tabular, _tables()))


def mixed_() -> Fresh:
    """Train table and photos as in the tutorials, by the network written by hand."""
    loaders = _loaders(mixed.columns(), mixed.BATCH)
    return partial(
        _fit,
        lambda: Learner(loaders, mixed.Network(), loss_func=mse_loss),
        epochs=workloads.EPOCHS,
    )


def expert_mlp(compiled: bool) -> Fresh:
    """Train the MLP as an expert does."""
    rows, adam = workloads.digits(), partial(torch.optim.Adam, fused=True)
    return _expert(train.mlp(), cross_entropy, adam, rows, train.BATCH, compiled)


def expert_table(compiled: bool) -> Fresh:
    """Train the table as an expert does: the network of `tabular_learner` over encoded tensors."""
    loaders, adam = _tables(), partial(torch.optim.Adam, fused=True)
    encoded = loaders.train_ds
    codes = torch.from_numpy(encoded.cats.to_numpy("int64"))
    numbers = torch.from_numpy(encoded.conts.to_numpy("float32"))
    target = torch.from_numpy(encoded.ys.to_numpy("float32"))
    net, rows = _tabular(loaders).model, (codes, numbers, target)
    return _expert(net, mse_loss, adam, rows, table.BATCH, compiled)


def expert_mixed(compiled: bool) -> Fresh:
    """Train table and photos as an expert does."""
    rows, adamw = mixed.columns(), partial(torch.optim.AdamW, fused=True)
    net = mixed.Network().to(memory_format=torch.channels_last)
    epochs = workloads.EPOCHS
    return _expert(net, mse_loss, adamw, rows, mixed.BATCH, compiled, epochs)


def _tables() -> DataLoaders:
    return TabularDataLoaders.from_df(
        table.drawn(len(workloads.frame()) + table.BATCH),
        procs=[Categorify, FillMissing, Normalize],
        cat_names=[f"c{k}" for k in range(table.CATEGORIES)],
        cont_names=[f"x{k}" for k in range(table.NUMBERS)],
        y_names="y",
        valid_idx=list(range(table.BATCH)),
        bs=table.BATCH,
    )


def _tabular(loaders: DataLoaders) -> Learner:
    config = tabular_config(use_bn=False, bn_cont=False)
    return tabular_learner(loaders, layers=[256, 128], config=config)


def _loaders(rows: tuple[Tensor, ...], batch: int) -> DataLoaders:
    valid = TensorDataset(*(column[:batch] for column in rows))
    whole = TensorDataset(*rows)
    return DataLoaders.from_dsets(
        whole, valid, bs=batch, num_workers=0, drop_last=False, device=torch.device("cpu")
    )


def _expert(
    net: nn.Module,
    loss: Callable[..., Tensor],
    optimizers: Callable[..., torch.optim.Optimizer],
    rows: tuple[Tensor, ...],
    batch: int,
    compiled: bool,
    epochs: int = 1,
) -> Fresh:
    loaders = DataLoaders(workloads.batch_loader(TensorDataset(*rows), batch), [])
    restart = workloads.restarting(net, compiled)

    def learner() -> Learner:
        return Learner(
            loaders,
            restart(),
            loss_func=loss,
            opt_func=partial(OptimWrapper, opt=optimizers),
            default_cbs=False,
            cbs=TrainEvalCallback,
        )

    return partial(_fit, learner, epochs)


def _fit(learners: Callable[[], Learner], epochs: int = 1) -> Run:
    learner = learners()

    def run() -> Done:
        learner.fit(epochs, lr=1e-3)
        return Done(learner.train_iter, workloads.count(learner.model))

    return run


WORKLOADS = {"mlp": mlp, "table": table_, "mixed": mixed_}
EXPERT = {
    "mlp": partial(expert_mlp, compiled=False),
    "table": partial(expert_table, compiled=False),
    "mixed": partial(expert_mixed, compiled=False),
}
COMPILED = {
    "mlp": partial(expert_mlp, compiled=True),
    "table": partial(expert_table, compiled=True),
    "mixed": partial(expert_mixed, compiled=True),
}
