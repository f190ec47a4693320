"""Checks of what a training step is made of, each with the cure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy

from mip.errors import DataError, MipError
from mip.metrics import Metric, assumes_logits
from mip.optim import Optimizer


def check_net(net: Any) -> None:
    """Raise MipError for anything but an instance of `nn.Module`."""
    if isinstance(net, type) and issubclass(net, nn.Module):
        raise MipError(f"the net is the class {net.__name__}: make one, {net.__name__}(…)")
    if not isinstance(net, nn.Module):
        raise MipError(f"the net must be an nn.Module, not {type(net).__name__}")


def check_trainable(net: Any) -> None:
    """Raise MipError for anything but a module with parameters to train.

    >>> check_trainable(nn.ReLU())
    Traceback (most recent call last):
    mip.errors.MipError: the net has no parameters that require a gradient
    """
    check_net(net)
    for path, param in net.named_parameters():
        if isinstance(param, nn.parameter.UninitializedParameter):
            cure = "run the net on a few rows first, net(inputs)"
            raise MipError(f"the parameter '{path}' of the net has no shape yet: {cure}")
    if any(param.requires_grad for param in net.parameters()):
        return
    lists = [
        name
        for module in net.modules()
        for name, value in vars(module).items()
        if isinstance(value, (list, tuple)) and any(isinstance(each, nn.Module) for each in value)
    ]
    cure = f": torch finds no layers in a list, make '{lists[0]}' an nn.ModuleList" if lists else ""
    raise MipError(f"the net has no parameters that require a gradient{cure}")


def check_loss(loss: Any) -> None:
    """Raise MipError for anything but a function of (logits, target).

    >>> check_loss(nn.MSELoss)
    Traceback (most recent call last):
    mip.errors.MipError: the loss is the class MSELoss: make one, nn.MSELoss()
    """
    if isinstance(loss, type):
        prefix = "nn." if loss.__module__.startswith("torch.nn") else ""
        name = loss.__name__
        raise MipError(f"the loss is the class {name}: make one, {prefix}{name}()")
    if isinstance(loss, Optimizer):
        raise MipError("the loss is an optimizer: the order is train_step(net, loss, optimizer)")
    if not callable(loss):
        cure = "pass a function of (logits, target), such as torch.nn.functional.mse_loss"
        raise MipError(f"the loss must be callable, not {type(loss).__name__}: {cure}")
    options = loss.keywords if isinstance(loss, partial) else getattr(loss, "__dict__", {})
    if options.get("reduction") == "sum":
        cure = "take reduction='mean', with which the learning rate suits every batch size"
        raise MipError(f"the loss is a sum over rows and not their mean: {cure}")


def check_loss_value(value: Any, source: str) -> Tensor:
    """Return what a loss has returned; raise DataError unless it is a tensor.

    >>> check_loss_value(0.5, "the loss")
    Traceback (most recent call last):
    mip.errors.DataError: the loss returned a float and not a tensor: leave out item() and float()
    """
    if isinstance(value, Tensor):
        return value
    if value is None:
        raise DataError(f"{source} returned None: it must return the loss")
    cure = "leave out item() and float()" if isinstance(value, float) else "return one number"
    raise DataError(f"{source} returned a {type(value).__name__} and not a tensor: {cure}")


def scalar(loss: Tensor) -> Tensor:
    """Return a loss of one number as a tensor without dimensions; raise DataError for several.

    >>> scalar(torch.ones(16))
    Traceback (most recent call last):
    mip.errors.DataError: the loss has the shape [16] and is not one number: take the mean, as \
reduction='mean' does
    """
    if loss.numel() != 1:
        cure = "take the mean, as reduction='mean' does"
        raise DataError(f"the loss has the shape {list(loss.shape)} and is not one number: {cure}")
    return loss.reshape(())


def check_logits(metrics: Mapping[str, Metric], net: nn.Module, loss: Any) -> None:
    """Raise MipError if a metric takes predictions as logits that are known to be probabilities,
    from the last layer or the loss.

    >>> from mip.metrics import accuracy
    >>> check_logits({"accuracy": accuracy}, nn.Sequential(nn.Linear(2, 1), nn.Sigmoid()), None)
    Traceback (most recent call last):
    mip.errors.MipError: the metric 'accuracy' takes logits, and the net ends with Sigmoid: leave \
that out, or give {"accuracy": functools.partial(mip.metrics.accuracy, from_logits=False)}
    """
    last = net[-1] if isinstance(net, nn.Sequential) and len(net) else None
    if isinstance(last, (nn.Sigmoid, nn.Softmax)):
        why = f"the net ends with {type(last).__name__}: leave that out"
    elif isinstance(loss, nn.BCELoss) or loss is binary_cross_entropy:
        why = "the loss probabilities: train with binary_cross_entropy_with_logits"
    else:
        return
    for name, metric in metrics.items():
        if assumes_logits(metric):
            function = getattr(getattr(metric, "func", metric), "__name__", name)
            cure = f"functools.partial(mip.metrics.{function}, from_logits=False)"
            raise MipError(
                f"the metric '{name}' takes logits, and {why}, or give {{\"{name}\": {cure}}}"
            )


def check_optimizer(optimizer: Any) -> None:
    """Raise MipError for anything but an optimizer of `mip.optim`.

    >>> check_optimizer(torch.optim.Adamax)
    Traceback (most recent call last):
    mip.errors.MipError: Adamax is an optimizer of torch: pass mip.optim.from_torch(Adamax, {"lr": \
1e-3})
    """
    if isinstance(optimizer, Optimizer):
        if optimizer.changes != "parameters":
            cure = "chain an optimizer with it, mip.chain(mip.clip_norm(1.0), mip.adamw(1e-3))"
            raise MipError(f"the optimizer trains nothing, it changes {optimizer.changes}: {cure}")
        return
    kind = optimizer if isinstance(optimizer, type) else type(optimizer)
    if issubclass(kind, torch.optim.Optimizer):
        ready = {"Adam": "mip.adam", "AdamW": "mip.adamw", "SGD": "mip.sgd"}.get(kind.__name__)
        cure = f'mip.optim.from_torch({kind.__name__}, {{"lr": 1e-3}})'
        cure += f", or {ready}(1e-3)" if ready else ""
        raise MipError(f"{kind.__name__} is an optimizer of torch: pass {cure}")
    if callable(optimizer):
        name = getattr(optimizer, "__name__", kind.__name__)
        raise MipError(f"the optimizer is the function {name}: call it, as in mip.adamw(1e-3)")
    cure = f"such as mip.adamw(1e-3), not {kind.__name__}"
    raise MipError(f"the optimizer must be one of mip.optim, {cure}")


def check_step(step: Any) -> None:
    """Raise MipError for anything but a function of (state, batch).

    >>> check_step(nn.Linear(1, 1))
    Traceback (most recent call last):
    mip.errors.MipError: the step is a net: make one, mip.train_step(net, loss, optimizer)
    """
    if isinstance(step, nn.Module):
        raise MipError("the step is a net: make one, mip.train_step(net, loss, optimizer)")
    if not callable(step):
        kind = type(step).__name__
        raise MipError(f"the step is a {kind}: the order is fit(step, batches, state)")


def holds_batches(value: Any) -> bool:
    """Return whether a value can be an iterable of batches; a tensor, a dict, a DataFrame and a
    tuple of tensors hold rows.

    >>> holds_batches([(torch.ones(2, 1), torch.ones(2))]), holds_batches(torch.ones(2, 1))
    (True, False)
    """
    holds_rows = isinstance(value, (torch.Tensor, np.ndarray, Mapping, str))
    holds_rows = holds_rows or hasattr(value, "iloc")
    if isinstance(value, tuple) and value and not isinstance(value[0], (tuple, list)):
        holds_rows = True
    return hasattr(value, "__iter__") and not holds_rows


def check_batches(batches: Any, where: str) -> None:
    """Raise MipError unless a value can be an iterable of batches, (inputs, target, …) each.

    >>> check_batches(torch.ones(2, 1), "fit")
    Traceback (most recent call last):
    mip.errors.MipError: fit: Tensor is not an iterable of batches: batch rows with \
pipe(rows, mip.batch(32)), a Dataset too
    """
    if not holds_batches(batches):
        cure = "batch rows with pipe(rows, mip.batch(32)), a Dataset too"
        kind = type(batches).__name__
        raise MipError(f"{where}: {kind} is not an iterable of batches: {cure}")


def check_batch(batch: Any) -> None:
    """Raise MipError unless a batch is (inputs, target), or a named tuple that begins with these.

    >>> check_batch({"image": torch.ones(3), "label": torch.ones(3)})
    Traceback (most recent call last):
    mip.errors.MipError: a batch must be (inputs, target), not a dict: make it one, \
mip.transform(lambda batch: (batch["image"], batch["label"]))
    """
    if isinstance(batch, Mapping):
        first, second = [*batch, "inputs", "target"][:2] if len(batch) > 1 else ["inputs", "target"]
        cure = f'mip.transform(lambda batch: (batch["{first}"], batch["{second}"]))'
        raise MipError(f"a batch must be (inputs, target), not a dict: make it one, {cure}")
    if not isinstance(batch, (tuple, list)):
        kind = type(batch).__name__
        cure = "rows go in a tuple, pipe((inputs, target), mip.batch(32))"
        raise MipError(f"a batch must be (inputs, target), not {kind}: {cure}")
    if len(batch) < 2:
        raise MipError("a batch must be (inputs, target), but has only one part")
    if len(batch) > 2 and not hasattr(batch, "_fields"):
        raise MipError(
            f"a batch must be (inputs, target), but has {len(batch)} parts, and nobody reads the "
            "rest: weights of rows go to the loss in the target, (inputs, (target, weights)); "
            "mip.transform(lambda batch: batch[:2]) leaves the rest out"
        )
