"""Heads: what a model says. A frozen class per kind: target, loss, decoding and metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
from attrs import field
from attrs.validators import ge, in_, lt
from torch import Tensor

from mip.branch import Facts
from mip.errors import DataError
from mip.table import Rows, Table

Criterion = Callable[[Tensor, Tensor], Tensor]
"""(logits, target) of n rows to a mean loss, a tensor of no dimensions."""


class Head(Protocol):
    """The verbs of a head. Any frozen attrs class that has them is a kind.

    It also has the fields `column`; `layers` and `dropout`, for the layers between the branches
    and the logits; and `missing`, for rows without a target.
    """

    @property
    def column(self) -> str: ...
    @property
    def layers(self) -> tuple[int, ...]: ...
    @property
    def dropout(self) -> float: ...
    @property
    def missing(self) -> Literal["drop", "error"]: ...

    def adapt(self, rows: Rows) -> Facts:
        """Learn from training rows what the target means; JSON-able."""
        ...

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Turn the target column into a tensor [n] or [n, k]; NaN or -1 where it is missing."""
        ...

    def outputs(self, facts: Facts) -> int | None:
        """Say how many logits a row gets; None for one without a dimension of its own."""
        ...

    def criterion(self, facts: Facts) -> Criterion:
        """Give the loss."""
        ...

    def decode(self, facts: Facts, logits: Tensor) -> dict[str, np.ndarray]:
        """Turn logits into columns of predictions."""
        ...

    def metrics(self, facts: Facts, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Score all rows of a split at once."""
        ...


def checked(loss: Callable[..., Tensor]) -> Criterion:
    """Refuse a loss between a prediction and a target that would broadcast.

    >>> import torch
    >>> checked(torch.nn.functional.mse_loss)(torch.zeros(3, 1), torch.zeros(3))
    Traceback (most recent call last):
    mip.errors.DataError: a loss between shapes (3, 1) and (3,) would broadcast
    """

    def criterion(logits: Tensor, target: Tensor) -> Tensor:
        if logits.shape != target.shape:
            shapes = f"{tuple(logits.shape)} and {tuple(target.shape)}"
            raise DataError(f"a loss between shapes {shapes} would broadcast")
        return loss(logits, target)

    return criterion


def wide(loss: Callable[..., Tensor], width: int, soft: bool = True) -> Criterion:
    """Refuse logits that are not [n, width], and a target that is not [n] or, where it may be
    `soft`, as mixing makes it, [n, width].

    >>> import torch
    >>> wide(torch.nn.functional.cross_entropy, 3)(torch.zeros(2, 1), torch.tensor([0, 1]))
    Traceback (most recent call last):
    mip.errors.DataError: a loss of 3 logits a row between shapes (2, 1) and (2,)
    """

    def criterion(logits: Tensor, target: Tensor) -> Tensor:
        rows = target.shape[:1]
        fitting = (rows, (*rows, width)) if soft else (rows,)
        if logits.shape != (*rows, width) or target.shape not in fitting:
            shapes = f"{tuple(logits.shape)} and {tuple(target.shape)}"
            raise DataError(f"a loss of {width} logits a row between shapes {shapes}")
        return loss(logits, target)

    return criterion


def dropout_field() -> Any:
    """Declare the share of activations that dropout hides behind each of these layers."""
    return field(default=0.0, validator=[ge(0), lt(1)])


def missing_field() -> Any:
    """Declare what becomes of a row without a target."""
    return field(default="drop", validator=in_(("drop", "error")))
