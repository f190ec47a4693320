"""Predictions of a plain module on batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor, nn

from mip.devices import find_device
from mip.errors import DataError, MipError
from mip.train import failing_layer, holds_batches
from mip.tree import Tree, concat, leaves, map_tree

_CURE = "a module reads no columns, but batches of tensors: pipe(rows, mip.batch(256))"


@torch.no_grad()
def predict_net(net: nn.Module, batches: Any) -> Tree:
    """Compute the outputs of a module for all rows, in their order, on the CPU.

    `batches` are a tensor of inputs, a Pipe, a DataLoader, or another iterable of inputs or of
    (inputs, target, …). The module runs in evaluation mode, which is set back afterwards. Raises
    MipError for what is not in batches of tensors, and DataError if there are none, or if a layer
    cannot take its input.

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


def copy_to(net: nn.Module, device: str) -> nn.Module:
    """Copy a module to a device; the module itself stays where it is."""
    return deepcopy(net).to(find_device(device))


def batches_in(batches: Any) -> Iterable[Any]:
    """Return an iterable of batches; a single tensor of inputs is a batch.

    Raises MipError for rows that are not in batches.
    """
    if isinstance(batches, Tensor):
        return [batches]
    if not holds_batches(batches):
        raise MipError(f"{type(batches).__name__} is not an iterable of batches: {_CURE}")
    return cast(Iterable[Any], batches)


def on_device(net: nn.Module) -> Callable[[Any], Any]:
    """Return the module's forward pass for inputs on any device.

    It raises MipError for inputs without tensors, and DataError naming the layer that cannot take
    its input.
    """
    device = next((tensor.device for tensor in net.parameters()), torch.device("cpu"))

    def forward(inputs: Any) -> Any:
        if not any(leaves(inputs)):
            raise MipError(f"{type(inputs).__name__} is not a batch of tensors: {_CURE}")
        moved = map_tree(lambda leaf: leaf.to(device), inputs)
        try:
            return net(moved)
        except Exception as error:
            why = failing_layer(net, [moved])
            if why is None:
                raise
            raise DataError(why) from error

    return forward


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
