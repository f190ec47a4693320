"""Training as an expert writes it by hand, for one network and one purpose: the anchors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.harness import Contender

Optimizers = Callable[..., torch.optim.Optimizer]
"""Parameters to an optimizer of torch's."""

Loss = Callable[[Tensor, Tensor], Tensor]

FUSED = partial(torch.optim.Adam, lr=1e-3, fused=True)
DEFAULT = partial(torch.optim.Adam, lr=1e-3)


def step(
    net: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss, batch: Sequence[Tensor]
) -> Tensor:
    """Take one step on (inputs, …, target) and give the loss before it."""
    *inputs, target = batch
    value = loss(net(*inputs), target)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    return value


def loop(
    start: nn.Module,
    optimizers: Optimizers,
    loss: Loss,
    rows: Sequence[Tensor],
    batch: int,
    epochs: int = 1,
    close: Callable[[nn.Module], object] = id,
) -> Contender:
    """Give a loop over shuffled rows (inputs, …, target), with `close` after each epoch."""

    def run() -> None:
        # Each call trains anew: weights that converge would change what a step costs.
        net = deepcopy(start)
        optimizer = optimizers(net.parameters())
        for _ in range(epochs):
            for index in torch.randperm(len(rows[0])).split(batch):
                step(net, optimizer, loss, [column.index_select(0, index) for column in rows])
            close(net)

    return run
