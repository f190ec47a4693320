"""Predictions of a plain module on batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from mip.devices import find_device
from mip.errors import DataError, MipError
from mip.pipe import Pipe
from mip.train import State, Step, failing_layer, holds_batches
from mip.tree import Tree, concat, leaves, map_tree

RANDOM = RandomSampler, SubsetRandomSampler, WeightedRandomSampler
"""The samplers of a DataLoader that draw rows at random."""


_CURE = "a module reads no columns, but batches of tensors: pipe(rows, mip.batch(256))"


@torch.no_grad()
def predict_net(net: nn.Module, batches: Any) -> Tree:
    """Compute the outputs of a module for all rows, in their order, on the CPU.

    `batches` are a tensor or an array of inputs, a Pipe, a DataLoader, or another iterable of
    inputs or of (inputs, target, …). The module runs in evaluation mode, which is set back
    afterwards. Raises MipError for what is not in batches of tensors and for a Pipe or DataLoader
    that shuffles or drops rows, and DataError if there are none, or if a layer cannot take its
    input.

    >>> predict_net(nn.Flatten(), [torch.ones(2, 1, 2), torch.zeros(1, 1, 2)]).tolist()
    [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]
    """
    check_rows_in_order(batches)
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
    """Return an iterable of batches; a single tensor or array of inputs is a batch.

    Raises MipError for rows that are not in batches.
    """
    if isinstance(batches, (Tensor, np.ndarray)):
        return [Pipe(batches).source]
    if not holds_batches(batches):
        kind, cure = type(batches).__name__, _CURE
        if isinstance(batches, (tuple, dict)):
            cure = f"put a batch of several parts into a list, [batch]; {_CURE}"
        raise MipError(f"{kind} is not an iterable of batches: {cure}")
    return cast(Iterable[Any], batches)


def check_rows_in_order(batches: Any) -> None:
    """Raise MipError for a Pipe or a DataLoader whose batches have rows in another order than their
    source, or lack some: its predictions could not be told apart.

    >>> import mip
    >>> check_rows_in_order(mip.sample(shuffle=True)(torch.arange(3)))
    Traceback (most recent call last):
    mip.errors.MipError: predict: the pipe shuffles its rows, and predictions would not be in \
their order: leave sample(…) out
    """
    if isinstance(batches, Pipe):
        kind, cure, shuffles = "pipe", "sample(…)", batches.is_shuffled
    elif isinstance(batches, DataLoader):
        sampler = getattr(batches.batch_sampler, "sampler", batches.sampler)
        kind, cure, shuffles = "loader", "shuffle=True", isinstance(sampler, RANDOM)
    else:
        return
    if shuffles:
        raise MipError(
            f"predict: the {kind} shuffles its rows, and predictions would not be in their order: "
            f"leave {cure} out"
        )
    if batches.drop_last:
        raise MipError(
            f"predict: the {kind} drops the rows of a smaller last batch, which would have no "
            "predictions: leave drop_last out"
        )


def check_model(model: Any, where: str) -> None:
    """Raise MipError for what makes no predictions, with what to pass in its place.

    >>> from mip.train import State
    >>> check_model(State({}, {}, ()), "predict")
    Traceback (most recent call last):
    mip.errors.MipError: predict: the model is a State: pass the net, which holds the state of the \
last fit, or mip.module(net, state)
    """
    kind = type(model).__name__
    if isinstance(model, State):
        cure = "pass the net, which holds the state of the last fit, or mip.module(net, state)"
        raise MipError(f"{where}: the model is a {kind}: {cure}")
    if isinstance(model, Step):
        raise MipError(f"{where}: the model is a {kind}: pass its net")
    if not callable(model):
        raise MipError(f"{where}: the model comes first, {where}(model, rows), not {kind}")


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
