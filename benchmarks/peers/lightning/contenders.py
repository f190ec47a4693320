"""Lightning, as in "Lightning in 15 minutes": a module, a DataLoader and `Trainer.fit`, with
progress bar, logger and a final checkpoint, which are on by default.

Expert setup: `Trainer(barebones=True)`, no logging, fused Adam, a DataLoader that indexes a whole
batch at once; `torch.compile` applied to the LightningModule.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import lightning
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import table, train
from benchmarks.harness import temporary_folder
from benchmarks.peers import workloads
from benchmarks.peers.workloads import Fit, FitStats, PrepareFit


class Module(lightning.LightningModule):
    """A network and its loss, trained with Adam."""

    def __init__(self, net: nn.Module, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.net, self.loss = net, loss

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        """Compute and log the loss of a batch."""
        *inputs, target = batch
        loss = self.loss(self.net(*inputs), target)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam with its defaults."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class ExpertModule(lightning.LightningModule):
    """The same, trained with fused Adam and without logging."""

    def __init__(self, net: nn.Module, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.net, self.loss = net, loss

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        """Compute the loss of a batch."""
        *inputs, target = batch
        return self.loss(self.net(*inputs), target)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return fused Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3, fused=True)


def mlp() -> PrepareFit:
    """Train the MLP as in the tutorial."""
    rows = TensorDataset(*workloads.random_digits())
    loader = DataLoader(rows, batch_size=train.BATCH_SIZE, shuffle=True)
    return partial(_prepare_fit, train.build_mlp, cross_entropy, loader)


def table_() -> PrepareFit:
    """Train on the table as in the tutorial, with the hand-written network."""
    rows = TensorDataset(*_table_columns())
    loader = DataLoader(rows, batch_size=table.BATCH_SIZE, shuffle=True)
    return partial(_prepare_fit, table.Network, mse_loss, loader)


def expert_mlp(compiled: bool) -> PrepareFit:
    """Train the MLP as an expert would."""
    loader = workloads.batch_loader(TensorDataset(*workloads.random_digits()), train.BATCH_SIZE)
    return _expert_fit(ExpertModule(train.build_mlp(), cross_entropy), loader, compiled)


def expert_table(compiled: bool) -> PrepareFit:
    """Train on the table as an expert would."""
    loader = workloads.batch_loader(TensorDataset(*_table_columns()), table.BATCH_SIZE)
    return _expert_fit(ExpertModule(table.Network(), mse_loss), loader, compiled)


def _table_columns() -> tuple[Tensor, ...]:
    return table.encoded_columns(table.BATCH_SIZE * workloads.TABLE_STEPS)


def _prepare_fit(
    make_net: Callable[[], nn.Module], loss: Callable[..., Tensor], loader: DataLoader
) -> Fit:
    module = Module(make_net(), loss)
    folder = temporary_folder("lightning-")
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=folder)

    def fit() -> FitStats:
        trainer.fit(module, loader)
        return FitStats(trainer.global_step, workloads.count_parameters(module))

    return fit


def _expert_fit(module: ExpertModule, loader: DataLoader, compiled: bool) -> PrepareFit:
    reset = workloads.make_reset(module, compiled=False)
    # Lightning compiles `training_step`, loss included, instead of `forward`.
    fitted_module = torch.compile(module, dynamic=False) if compiled else module

    def prepare_fit() -> Fit:
        reset()
        trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", barebones=True)

        def fit() -> FitStats:
            trainer.fit(fitted_module, loader)
            return FitStats(trainer.global_step, workloads.count_parameters(module))

        return fit

    return prepare_fit


TUTORIAL = {"mlp": mlp, "table": table_}
EXPERT = {
    "mlp": partial(expert_mlp, compiled=False),
    "table": partial(expert_table, compiled=False),
}
COMPILED = {
    "mlp": partial(expert_mlp, compiled=True),
    "table": partial(expert_table, compiled=True),
}
