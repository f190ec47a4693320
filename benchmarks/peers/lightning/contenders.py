"""Lightning, as in "Lightning in 15 minutes": a module, a DataLoader, `Trainer.fit`; its bar,
logger and checkpoint at the end are on, as they are by default.

As an expert runs it: `Trainer(barebones=True)`, nothing logged, fused Adam, a DataLoader that
indexes a batch at once; compiled by `torch.compile` of the LightningModule.
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
from benchmarks.harness import scratch
from benchmarks.peers import workloads
from benchmarks.peers.workloads import Done, Fresh, Run


class Module(lightning.LightningModule):
    """A network with a loss, trained by Adam."""

    def __init__(self, net: nn.Module, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.net, self.loss = net, loss

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        """Compute the loss of a batch, and log it."""
        *inputs, target = batch
        loss = self.loss(self.net(*inputs), target)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam as it is by default."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class ExpertModule(lightning.LightningModule):
    """The same, trained by fused Adam and without a log."""

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


def mlp() -> Fresh:
    """Train the MLP as in the tutorial."""
    rows = TensorDataset(*workloads.digits())
    loader = DataLoader(rows, batch_size=train.BATCH, shuffle=True)
    return partial(_fit, train.mlp, cross_entropy, loader)


def table_() -> Fresh:
    """Train the table as in the tutorial, by the network written by hand."""
    rows = TensorDataset(*_columns())
    loader = DataLoader(rows, batch_size=table.BATCH, shuffle=True)
    return partial(_fit, table.Network, mse_loss, loader)


def expert_mlp(compiled: bool) -> Fresh:
    """Train the MLP as an expert does."""
    loader = workloads.batch_loader(TensorDataset(*workloads.digits()), train.BATCH)
    return _expert(ExpertModule(train.mlp(), cross_entropy), loader, compiled)


def expert_table(compiled: bool) -> Fresh:
    """Train the table as an expert does."""
    loader = workloads.batch_loader(TensorDataset(*_columns()), table.BATCH)
    return _expert(ExpertModule(table.Network(), mse_loss), loader, compiled)


def _columns() -> tuple[Tensor, ...]:
    return table.columns(table.BATCH * workloads.TABLE_STEPS)


def _fit(net: Callable[[], nn.Module], loss: Callable[..., Tensor], loader: DataLoader) -> Run:
    module = Module(net(), loss)
    folder = scratch("lightning-")
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=folder)

    def run() -> Done:
        trainer.fit(module, loader)
        return Done(trainer.global_step, workloads.count(module))

    return run


def _expert(module: ExpertModule, loader: DataLoader, compiled: bool) -> Fresh:
    restart = workloads.restarting(module, compiled=False)
    # Lightning compiles `training_step`, loss included, instead of `forward`.
    fitted = torch.compile(module, dynamic=False) if compiled else module

    def fresh() -> Run:
        restart()
        trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", barebones=True)

        def run() -> Done:
            trainer.fit(fitted, loader)
            return Done(trainer.global_step, workloads.count(module))

        return run

    return fresh


WORKLOADS = {"mlp": mlp, "table": table_}
EXPERT = {
    "mlp": partial(expert_mlp, compiled=False),
    "table": partial(expert_table, compiled=False),
}
COMPILED = {
    "mlp": partial(expert_mlp, compiled=True),
    "table": partial(expert_table, compiled=True),
}
