"""Training loops as an expert would write them by hand for one network: the baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.harness import Contender

MakeOptimizer = Callable[..., torch.optim.Optimizer]
"""Makes a torch optimizer of parameters."""

Loss = Callable[[Tensor, Tensor], Tensor]

FUSED_ADAM = partial(torch.optim.Adam, lr=1e-3, fused=True)
DEFAULT_ADAM = partial(torch.optim.Adam, lr=1e-3)


def step(
    net: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss, batch: Sequence[Tensor]
) -> Tensor:
    """Take one step on (inputs, …, target) and return the loss before it."""
    *inputs, target = batch
    value = loss(net(*inputs), target)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    return value


def make_loop(
    initial_net: nn.Module,
    make_optimizer: MakeOptimizer,
    loss: Loss,
    columns: Sequence[Tensor],
    batch_size: int,
    epochs: int = 1,
    after_epoch: Callable[[nn.Module], object] | None = None,
) -> Contender:
    """Return a training loop over the shuffled rows of (inputs, …, target)."""

    def loop() -> None:
        # Each call trains a new copy: converged weights would change what a step costs.
        net = deepcopy(initial_net)
        optimizer = make_optimizer(net.parameters())
        for _ in range(epochs):
            for index in torch.randperm(len(columns[0])).split(batch_size):
                step(net, optimizer, loss, [column.index_select(0, index) for column in columns])
            if after_epoch:
                after_epoch(net)

    return loop
