"""fastai, as in its tutorials: `DataLoaders`, a `Learner` and `fit`, with progress bar and
recorder. It requires validation rows, so it gets one batch of them. The table is trained with
`tabular_learner` without batch norm, so that the network is the same; rows in memory need no
workers.

Expert setup: a Learner with TrainEvalCallback as its only callback, torch's fused optimizer in an
OptimWrapper, torch's DataLoader over tensors (also for the table), photos in channels-last format,
no validation rows; the module compiled by torch.compile.
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
from benchmarks.peers.workloads import Fit, FitStats, PrepareFit


def mlp() -> PrepareFit:
    """Train the MLP as in the tutorials."""
    loaders = _make_loaders(workloads.random_digits(), train.BATCH_SIZE)
    return partial(
        _prepare_fit, lambda: Learner(loaders, train.build_mlp(), loss_func=cross_entropy)
    )


def table_() -> PrepareFit:
    """Train on the table as in the tutorials."""
    return partial(_prepare_fit, partial(_tabular_learner, _tabular_loaders()))


def mixed_() -> PrepareFit:
    """Train on table and photos as in the tutorials, with the hand-written network."""
    loaders = _make_loaders(mixed.encoded_columns(), mixed.BATCH_SIZE)
    return partial(
        _prepare_fit,
        lambda: Learner(loaders, mixed.Network(), loss_func=mse_loss),
        epochs=workloads.MIXED_EPOCHS,
    )


def expert_mlp(compiled: bool) -> PrepareFit:
    """Train the MLP as an expert would."""
    return _expert_fit(
        net=train.build_mlp(),
        loss=cross_entropy,
        make_optimizer=partial(torch.optim.Adam, fused=True),
        columns=workloads.random_digits(),
        batch_size=train.BATCH_SIZE,
        compiled=compiled,
    )


def expert_table(compiled: bool) -> PrepareFit:
    """Train on the table as an expert would: the net of `tabular_learner` over encoded tensors."""
    loaders = _tabular_loaders()
    encoded = loaders.train_ds
    codes = torch.from_numpy(encoded.cats.to_numpy("int64"))
    numbers = torch.from_numpy(encoded.conts.to_numpy("float32"))
    target = torch.from_numpy(encoded.ys.to_numpy("float32"))
    return _expert_fit(
        net=_tabular_learner(loaders).model,
        loss=mse_loss,
        make_optimizer=partial(torch.optim.Adam, fused=True),
        columns=(codes, numbers, target),
        batch_size=table.BATCH_SIZE,
        compiled=compiled,
    )


def expert_mixed(compiled: bool) -> PrepareFit:
    """Train on table and photos as an expert would."""
    return _expert_fit(
        net=mixed.Network().to(memory_format=torch.channels_last),
        loss=mse_loss,
        make_optimizer=partial(torch.optim.AdamW, fused=True),
        columns=mixed.encoded_columns(),
        batch_size=mixed.BATCH_SIZE,
        compiled=compiled,
        epochs=workloads.MIXED_EPOCHS,
    )


def _tabular_loaders() -> DataLoaders:
    return TabularDataLoaders.from_df(
        table.random_frame(len(workloads.random_frame()) + table.BATCH_SIZE),
        procs=[Categorify, FillMissing, Normalize],
        cat_names=[f"c{k}" for k in range(table.N_CATEGORICAL)],
        cont_names=[f"x{k}" for k in range(table.N_CONTINUOUS)],
        y_names="y",
        valid_idx=list(range(table.BATCH_SIZE)),
        bs=table.BATCH_SIZE,
    )


def _tabular_learner(loaders: DataLoaders) -> Learner:
    config = tabular_config(use_bn=False, bn_cont=False)
    return tabular_learner(loaders, layers=[256, 128], config=config)


def _make_loaders(columns: tuple[Tensor, ...], batch_size: int) -> DataLoaders:
    valid_rows = TensorDataset(*(column[:batch_size] for column in columns))
    train_rows = TensorDataset(*columns)
    return DataLoaders.from_dsets(
        train_rows,
        valid_rows,
        bs=batch_size,
        num_workers=0,
        drop_last=False,
        device=torch.device("cpu"),
    )


def _expert_fit(
    net: nn.Module,
    loss: Callable[..., Tensor],
    make_optimizer: Callable[..., torch.optim.Optimizer],
    columns: tuple[Tensor, ...],
    batch_size: int,
    compiled: bool,
    epochs: int = 1,
) -> PrepareFit:
    loaders = DataLoaders(workloads.batch_loader(TensorDataset(*columns), batch_size), [])
    reset = workloads.make_reset(net, compiled)

    def make_learner() -> Learner:
        return Learner(
            loaders,
            reset(),
            loss_func=loss,
            opt_func=partial(OptimWrapper, opt=make_optimizer),
            default_cbs=False,
            cbs=TrainEvalCallback,
        )

    return partial(_prepare_fit, make_learner, epochs)


def _prepare_fit(make_learner: Callable[[], Learner], epochs: int = 1) -> Fit:
    learner = make_learner()

    def fit() -> FitStats:
        learner.fit(epochs, lr=1e-3)
        return FitStats(learner.train_iter, workloads.count_parameters(learner.model))

    return fit


TUTORIAL = {"mlp": mlp, "table": table_, "mixed": mixed_}
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
