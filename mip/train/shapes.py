"""Predictions and targets of one shape, so that no loss broadcasts them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mip.errors import DataError
from mip.heads import CheckedLoss


def match_target(
    logits: Any, target: Any, loss: Callable[[Any, Any], Any] | None
) -> tuple[Any, Any]:
    """Give logits and target the shapes that a loss of the user's can compare: [n, 1] and [n], in
    either order, become [n]; a floating-point target takes the dtype of the logits.

    Raises DataError for shapes that would be broadcast: [n, 1] beside [n, 2], and [n, k] beside
    numbers [n] if the loss does not treat [n] as a column of its own. What is no pair of tensors,
    and what a loss of a head compares, is returned as it is.

    >>> mse = torch.nn.functional.mse_loss
    >>> [part.shape for part in match_target(torch.ones(3, 1), torch.ones(3), mse)]
    [torch.Size([3]), torch.Size([3])]
    >>> match_target(torch.ones(3, 1), torch.ones(3, 2), mse)
    Traceback (most recent call last):
    mip.errors.DataError: predictions of shape [3, 1] and targets of shape [3, 2] would be broadcast
    """
    is_pair = isinstance(logits, Tensor) and isinstance(target, Tensor)
    if not is_pair or isinstance(loss, CheckedLoss):
        return logits, target
    if target.is_floating_point() and target.dtype != logits.dtype:
        target = target.to(logits.dtype)
    if logits.shape == target.shape:
        return logits, target
    if logits.shape == (*target.shape, 1):
        return logits.squeeze(-1), target
    if target.shape == (*logits.shape, 1):
        return logits, target.squeeze(-1)
    if loss and _may_broadcast(logits, target) and _broadcasts(loss, logits, target):
        shapes = (
            f"predictions of shape {list(logits.shape)} and targets of shape {list(target.shape)}"
        )
        raise DataError(f"{shapes} would be broadcast")
    return logits, target


def _may_broadcast(logits: Tensor, target: Tensor) -> bool:
    if not target.is_floating_point() and logits.dim() > target.dim():
        return False  # indices of classes
    pairs = zip(reversed(logits.shape), reversed(target.shape), strict=False)
    return all(a == b or 1 in (a, b) for a, b in pairs)


def _broadcasts(loss: Callable[[Any, Any], Any], logits: Tensor, target: Tensor) -> bool:
    if logits.dim() == target.dim():
        return True
    if not logits.dim() or not target.dim() or torch.compiler.is_compiling():
        return False
    # With another number of rows only a loss that means these shapes can be computed.
    times = 2 if 2 * len(logits) not in (*logits.shape[1:], *target.shape[1:]) else 3
    try:
        with torch.no_grad():
            loss(*(torch.cat([part] * times) for part in (logits, target)))
    except (RuntimeError, ValueError):
        return True
    return False
