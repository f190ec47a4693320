"""Lightning, as in "Lightning in 15 minutes": a module, a DataLoader, `Trainer.fit`.

Its bar, logger and checkpoint at the end are on, as they are by default.
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
        """Give the loss of a batch, and log it."""
        *inputs, target = batch
        loss = self.loss(self.net(*inputs), target)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Give Adam as it is by default."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def mlp() -> Fresh:
    """Train the MLP."""
    rows = TensorDataset(*workloads.digits())
    loader = DataLoader(rows, batch_size=train.BATCH, shuffle=True)
    return partial(_laid, train.mlp, cross_entropy, loader)


def table_() -> Fresh:
    """Train the table, by the network written by hand."""
    rows = TensorDataset(*table.columns(table.BATCH * workloads.TABLE_STEPS))
    loader = DataLoader(rows, batch_size=table.BATCH, shuffle=True)
    return partial(_laid, table.Network, mse_loss, loader)


def _laid(net: Callable[[], nn.Module], loss: Callable[..., Tensor], loader: DataLoader) -> Run:
    module = Module(net(), loss)
    folder = scratch("lightning-")
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=folder)

    def run() -> Done:
        trainer.fit(module, loader)
        return Done(trainer.global_step, workloads.count(module))

    return run


WORKLOADS = {"mlp": mlp, "table": table_}
