"""What a head is: the verbs of every kind, the optional ones, and what holds without these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from torch import Tensor, nn

from mip.branches import Facts
from mip.data import Rows, Table
from mip.errors import MipError, SpecError
from mip.heads.fields import Missing
from mip.heads.losses import Criterion
from mip.nn import Activation, BatchNorm, Members, Tower
from mip.tree import Tree

Outputs = int | None | Mapping[str, "Outputs"]
"""The number of logits of a row, None for logits [n], or those of several heads by name."""


class Head(Protocol):
    """The verbs of a head. Any frozen attrs class that has them is a kind; its attribute `kind` is
    its name in specs.

    Most predict one column: see `ColumnHead`. One that holds several heads has them in the field
    `head`, and its facts, targets and logits are dicts by their names. Optional verbs and fields
    are the protocols below; each has a function that says what holds without it.
    """

    kind: str

    def adapt(self, rows: Rows) -> Facts:
        """Learn from training rows what the target means: JSON."""
        ...

    def encode(self, facts: Facts, rows: Table) -> Tree:
        """Turn the target column into a tensor [n] or [n, k]; missing is NaN, or -1 in int64."""
        ...

    def outputs(self, facts: Facts) -> Outputs:
        """Return the number of logits of a row; None if logits are [n]."""
        ...

    def criterion(self, facts: Facts) -> Criterion:
        """Return the loss."""
        ...

    def decode(self, facts: Facts, logits: Any) -> dict[str, np.ndarray]:
        """Turn logits into columns of predictions."""
        ...

    def metrics(self, facts: Facts, logits: Any, target: Any) -> dict[str, float]:
        """Score all rows of a split at once."""
        ...


class ColumnHead(Head, Protocol):
    """A head over one column; `missing` says what happens to rows without a target."""

    @property
    def column(self) -> str: ...
    @property
    def missing(self) -> Missing: ...

    def known(self, rows: Table) -> np.ndarray:
        """Return which rows have a target: bool [n]."""
        ...


@runtime_checkable
class HoldsHeads(Protocol):
    """A head that holds several, by name."""

    @property
    def head(self) -> Mapping[str, Head]: ...


@runtime_checkable
class HasLayers(Protocol):
    """A head whose `layers`, with `dropout`, are between the branches and the logits. It may have
    the fields `activation` and `batch_norm` too.
    """

    @property
    def layers(self) -> tuple[int, ...]: ...
    @property
    def dropout(self) -> float: ...

    def outputs(self, facts: Facts) -> int | None:
        """Return the number of logits of a row; None if logits are [n]."""
        ...


@runtime_checkable
class HasMembers(Protocol):
    """A head with that many networks, which share most weights (see `mip.nn.Members`)."""

    @property
    def members(self) -> int: ...


@runtime_checkable
class BuildsTower(Protocol):
    """A head that builds the module between the branches and the logits itself."""

    def tower(self, facts: Facts, width: int) -> nn.Module:
        """Build it: float32 [n, width] to logits."""
        ...


@runtime_checkable
class Invertible(Protocol):
    """A head that can be averaged in an ensemble: its predictions turn back into logits."""

    def logits(self, facts: Facts, columns: Mapping[str, np.ndarray]) -> Tree:
        """Return the logits, float64, that decode to these columns."""
        ...


@runtime_checkable
class HasMetricInputs(Protocol):
    """A head whose predictions metrics can be asked for by name: `["f1", "ece"]`."""

    def metric_inputs(self, facts: Facts, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return predictions and targets as `mip.metrics` takes them: numbers in the target's unit,
        or logits and classes.
        """
        ...


@runtime_checkable
class HasSmoothLoss(Protocol):
    """A head whose loss has kinks, and which has another one for solvers that need a slope."""

    def smooth_criterion(self, facts: Facts) -> Criterion:
        """Return a loss that is smooth in the logits and has its minimum nearby."""
        ...


def column_heads(head: Head, path: str = "head") -> Iterator[tuple[str, ColumnHead]]:
    """Walk the heads over one column with their paths in the spec.

    >>> from mip.heads.count import Count
    >>> [path for path, _ in column_heads(Count("visits"))]
    ['head']
    """
    if not isinstance(head, HoldsHeads):
        yield path, cast(ColumnHead, head)
        return
    for name, child in head.head.items():
        yield from column_heads(child, f"{path}.head.{name}")


def tower(head: Head, facts: Facts, width: int) -> nn.Module:
    """Build the module between the branches and the logits: float32 [n, width] to [n] or [n, k];
    with several members, in training, to [n, members] or [n, members, k].

    Raises SpecError for a kind with neither layers nor the verb `tower`.
    """
    if isinstance(head, BuildsTower):
        return head.tower(facts, width)
    if not isinstance(head, HasLayers):
        kind = type(head).__name__
        raise SpecError(f"{kind} has neither the fields 'layers' and 'dropout' nor a verb 'tower'")
    sizes = width, head.layers, head.dropout, head.outputs(facts)
    activation: Activation = getattr(head, "activation", "relu")
    batch_norm: BatchNorm = getattr(head, "batch_norm", "none")
    if _members(head) == 1:
        return Tower(*sizes, activation, batch_norm)
    return Members(*sizes, _members(head), activation, batch_norm)


def training_loss(head: Head, facts: Facts) -> Criterion:
    """Return the loss that trains a head: with several members, the mean of their losses."""
    loss, members = head.criterion(facts), _members(head)
    if members == 1:
        return loss
    single = head.outputs(facts) is None

    def member_loss(logits: Tensor, target: Tensor) -> Tensor:
        if logits.dim() == 3 - single and logits.shape[1] == members:
            logits, target = logits.flatten(0, 1), target.repeat_interleave(members, dim=0)
        return loss(logits, target)

    return member_loss


def smooth_loss(head: Head, facts: Facts) -> Criterion:
    """Return a loss of single logits for solvers that need a slope; by default the head's own."""
    if isinstance(head, HasSmoothLoss):
        return head.smooth_criterion(facts)
    return head.criterion(facts)


def _members(head: object) -> int:
    return head.members if isinstance(head, HasMembers) else 1


def scores(head: Head, facts: Facts, logits: Tree, target: Tree) -> dict[str, float]:
    """Compute a head's loss and metrics over all rows of a split."""
    loss = head.criterion(facts)(logits, target)
    return {"loss": float(loss), **head.metrics(facts, logits, target)}


def check_metric_inputs(head: Head) -> HasMetricInputs:
    """Return a head of which metrics can be asked for by name; raise MipError for another one."""
    if isinstance(head, HasMetricInputs):
        return head
    cure = "give a dict of functions of (logits, target)"
    raise MipError(f"head.kind = '{head.kind}' has no metrics by name: {cure}")


def predictions_to_logits(head: Head, facts: Facts, columns: Mapping[str, np.ndarray]) -> Tree:
    """Return the logits, float64, that a head decodes to these columns of numbers.

    Raises SpecError for a kind without the verb `logits`.
    """
    if not isinstance(head, Invertible):
        kind = type(head).__name__
        raise SpecError(f"models with the head {kind} cannot be averaged: it has no verb 'logits'")
    return head.logits(facts, columns)
