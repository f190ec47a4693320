"""Predictions of a plain module on batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from mip.errors import DataError, MipError
from mip.train import holds_batches
from mip.tree import Tree, concat, map_tree


@torch.no_grad()
def predict_net(net: nn.Module, batches: Any) -> Tree:
    """Compute the outputs of a module for all rows, in their order, on the CPU.

    `batches` are a tensor of inputs, a Pipe, a DataLoader, or another iterable of inputs or of
    (inputs, target, …). The module runs in evaluation mode, which is set back afterwards. Raises
    DataError if there are no batches.

    >>> predict_net(nn.Flatten(), [torch.ones(2, 1, 2), torch.zeros(1, 1, 2)]).tolist()
    [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]
    """
    forward = on_device(net)
    with evaluating(net):
        outputs = [map_tree(Tensor.cpu, forward(_inputs_of(b))) for b in batches_in(batches)]
    if not outputs:
        raise DataError("predict: there are no batches")
    return concat(outputs)


def _inputs_of(batch: Any) -> Any:
    return batch[0] if isinstance(batch, (tuple, list)) else batch


def batches_in(batches: Any) -> Iterable[Any]:
    """Return an iterable of batches; a single tensor of inputs is a batch.

    Raises MipError for rows that are not in batches.
    """
    if isinstance(batches, Tensor):
        return [batches]
    if not holds_batches(batches):
        cure = "a module takes batches: pipe(rows, mip.batch(256))"
        raise MipError(f"{type(batches).__name__} is not an iterable of batches: {cure}")
    return cast(Iterable[Any], batches)


def on_device(net: nn.Module) -> Callable[[Any], Any]:
    """Return the module's forward pass for inputs on any device."""
    device = next((tensor.device for tensor in net.parameters()), torch.device("cpu"))
    return lambda inputs: net(map_tree(lambda leaf: leaf.to(device), inputs))


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode for a block, and its parts back into theirs after it."""
    modes = [(part, part.training) for part in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
