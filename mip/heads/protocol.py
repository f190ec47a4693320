"""Heads: what a model says. A frozen class per kind: target, loss, decoding and metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol

import numpy as np
from attrs import field
from attrs.validators import ge, in_, le, lt
from torch import Tensor, nn

from mip.branches import Facts
from mip.data import Rows, Table
from mip.errors import DataError, SpecError
from mip.nn import Members, Tower
from mip.tree import Tree

Criterion = Callable[[Any, Any], Tensor]
"""(logits, target) of n rows to a mean loss, a tensor of no dimensions."""


class Head(Protocol):
    """The verbs of a head. Any frozen attrs class that has them is a kind; its attribute `kind` is
    its name in specs.

    One over a column also has the fields of a `Target`; one over several heads has them in the
    field `head`, and its target, logits and outputs are dicts by their names. A kind that also has
    `tower(facts, width)` builds what stands between the branches and the logits by itself. One
    with `logits(facts, columns)`, which is `decode` backwards, can be averaged in an ensemble.
    """

    kind: str

    def adapt(self, rows: Rows) -> Facts:
        """Learn from training rows what the target means; JSON-able."""
        ...

    def encode(self, facts: Facts, rows: Table) -> Tree:
        """Turn the target column into a tensor [n] or [n, k]; NaN or -1 where it is missing."""
        ...

    def outputs(self, facts: Facts) -> Any:
        """Say how many logits a row gets; None for one without a dimension of its own."""
        ...

    def criterion(self, facts: Facts) -> Criterion:
        """Give the loss."""
        ...

    def decode(self, facts: Facts, logits: Any) -> dict[str, np.ndarray]:
        """Turn logits into columns of predictions."""
        ...

    def metrics(self, facts: Facts, logits: Any, target: Any) -> dict[str, float]:
        """Score all rows of a split at once."""
        ...


class Target(Head, Protocol):
    """A head over one column: `layers` and `dropout` describe the layers between the branches and
    the logits, of which there are `members` that share weights (see `mip.nn.Members`);
    `missing` says what becomes of rows without a target.
    """

    @property
    def column(self) -> str: ...
    @property
    def layers(self) -> tuple[int, ...]: ...
    @property
    def dropout(self) -> float: ...
    @property
    def members(self) -> int: ...
    @property
    def missing(self) -> Literal["drop", "error"]: ...

    def known(self, rows: Table) -> np.ndarray:
        """Say which rows have a target: bool [n]."""
        ...


def targets(head: Any, path: str = "head") -> Iterator[tuple[str, Target]]:
    """Walk the heads over one column with their paths in the spec.

    >>> from mip.heads.count import Count
    >>> [path for path, _ in targets(Count("visits"))]
    ['head']
    """
    if not hasattr(head, "head"):
        yield path, head
        return
    for name, child in head.head.items():
        yield from targets(child, f"{path}.head.{name}")


def tower(head: Any, facts: Facts, width: int) -> nn.Module:
    """Build what makes logits of the branches' vector: float32 [n, width] to [n] or [n, k]; of
    several members, in training, to [n, members] or [n, members, k].
    """
    if hasattr(head, "tower"):
        return head.tower(facts, width)
    sizes = width, head.layers, head.dropout, head.outputs(facts)
    members = getattr(head, "members", 1)
    return Tower(*sizes) if members == 1 else Members(*sizes, members)


def loss_of(head: Any, facts: Facts) -> Criterion:
    """Give the loss that trains a head: of several members, the mean of the losses of each."""
    loss, members = head.criterion(facts), getattr(head, "members", 1)
    if members == 1:
        return loss
    single = head.outputs(facts) is None

    def each(logits: Tensor, target: Tensor) -> Tensor:
        if logits.dim() == 3 - single and logits.shape[1] == members:
            logits, target = logits.flatten(0, 1), target.repeat_interleave(members, dim=0)
        return loss(logits, target)

    return each


def scores(head: Head, facts: Facts, logits: Any, target: Any) -> dict[str, float]:
    """Give a head's loss and metrics over all rows of a split."""
    loss = head.criterion(facts)(logits, target)
    return {"loss": float(loss), **head.metrics(facts, logits, target)}


def recoded(head: Any, facts: Facts, columns: Mapping[str, np.ndarray]) -> Tree:
    """Give the logits, float64, that a head decodes to these columns of numbers.

    Raises SpecError for a kind without the verb `logits`.
    """
    if not hasattr(head, "logits"):
        kind = type(head).__name__
        raise SpecError(f"models with the head {kind} cannot be averaged: it has no verb 'logits'")
    return head.logits(facts, columns)


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


def members_field() -> Any:
    """Declare how many members predict together, each with a loss of its own."""
    return field(default=1, validator=[ge(1), le(1024)])


def missing_field() -> Any:
    """Declare what becomes of a row without a target."""
    return field(default="drop", validator=in_(("drop", "error")))
