"""The plan: the spec and all that the training rows decided, as one JSON value."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor

from mip.branches import Facts
from mip.data import Rows, Table
from mip.errors import DataError, SpecError
from mip.heads import Criterion, scores, training_loss
from mip.model.rows import check_columns, fingerprint, target_columns
from mip.spec import KINDS, Spec, from_dict, to_dict
from mip.tree import Tree, leaves, map_tree

Metric = Callable[[Any, Any], Any]
"""(logits, target) of all rows of a split, on the CPU, to a number."""


NO_METRICS: Mapping[str, Metric] = MappingProxyType({})


class Batch(NamedTuple):
    """Encoded rows: inputs by branch, target [n] or [n, k], by head where there are several (None
    where there is none), row int64 [n].
    """

    inputs: Tree
    target: Tree
    row: Tensor


@frozen
class Plan:
    """A spec with the facts of its training rows; encodes, decodes and scores.

    `facts` holds what branches and head have learned and, as `rows`, a fingerprint of the rows
    they learned it from; `shapes` holds dtype and shape of one encoded row, by branch.
    """

    spec: Spec
    facts: Facts
    shapes: Facts

    def encode(self, rows: Table) -> Batch:
        """Turn rows into tensors, each row by itself: taking rows before or after is the same.

        Raises DataError for a column that is missing, or that holds words for numbers, for a
        target column with a missing cell, and for a photo that cannot be had where the spec's
        policy is "error" or "drop".
        """
        there = set(target_columns(self.spec)) <= set(rows.columns)
        target = self._target(rows) if there else None
        return Batch(
            self.spec.root.encode(self.facts["branch"], rows), target, torch.tensor(rows.row_ids)
        )

    def _target(self, rows: Table) -> Tree:
        # A row without a target would make every parameter NaN.
        target = self.spec.head.encode(self.facts["head"], rows)
        for column, (_, leaf) in zip(target_columns(self.spec), leaves(target), strict=True):
            for place in _missing(leaf).nonzero()[:1, 0].tolist():
                where = rows.cell_name(place, column)
                raise DataError(f"{where}: the target is missing; mip.clean leaves such rows out")
        return target

    def cache(self, rows: Table, folder: str | Path) -> Batch:
        """Encode rows as `encode` does, but leave photos in a file of the folder, decoded when
        they are first taken: a source for a pipe over more photos than memory holds.
        """
        target = self._target(rows)
        inputs = self.spec.root.cache(self.facts["branch"], rows, Path(folder))
        return Batch(inputs, target, torch.tensor(rows.row_ids))

    def augment(self, batch: Batch, key: int) -> Batch:
        """Change a training batch as the branches say; draws depend on key and row alone."""
        if not len(batch.row):
            return batch
        return batch._replace(inputs=self.spec.root.augment(batch.inputs, key, batch.row))

    @property
    def loss(self) -> Criterion:
        """The head's loss: (logits, target) to a mean, a tensor of no dimensions."""
        return training_loss(self.spec.head, self.facts["head"])

    def decode(self, logits: Tree) -> dict[str, np.ndarray]:
        """Turn logits into columns of predictions."""
        return self.spec.head.decode(self.facts["head"], logits)

    def score(
        self, logits: Tree, target: Tree, metrics: Mapping[str, Metric] = NO_METRICS
    ) -> dict[str, float]:
        """Give the loss, the head's metrics, and others, over all rows of a split."""
        own = {name: float(metric(logits, target)) for name, metric in metrics.items()}
        return {**scores(self.spec.head, self.facts["head"], logits, target), **own}

    def example(self, rows: int = 1) -> Tree:
        """Make encoded rows of zeros, to try a module with."""
        return _zeros(self.shapes, rows)


def adapt(spec: Spec, train: Rows) -> Plan:
    """Learn from the training rows all that the data decides; nothing else sees data first.

    Raises SpecError or DataError for columns that are missing or do not suit their kind.
    """
    check_columns(spec, train)
    if not len(train):
        raise DataError(f"{train.name}: there are no training rows")
    learned = {"branch": spec.root.adapt(train), "head": spec.head.adapt(train)}
    plan = Plan(spec, _json({**learned, "rows": fingerprint(spec, train)}), {})
    none = next(train.chunks()).take([])
    inputs = spec.root.encode(plan.facts["branch"], none)
    return evolve(plan, shapes=map_tree(_shape, inputs))


def _missing(target: Tensor) -> Tensor:
    rows = target.flatten(1) if target.dim() > 1 else target.unsqueeze(1)
    return (rows.isnan() if target.is_floating_point() else rows < 0).any(dim=1)


def _json(facts: Facts) -> Facts:
    try:
        return json.loads(json.dumps(facts, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise SpecError(f"adapt must give JSON: {error}") from error


def _shape(leaf: Tensor) -> list[Any]:
    return [str(leaf.dtype).removeprefix("torch."), list(leaf.shape[1:])]


def _zeros(shapes: Any, rows: int) -> Tree:
    if isinstance(shapes, dict):
        return {name: _zeros(child, rows) for name, child in shapes.items()}
    dtype, shape = shapes
    return torch.zeros(rows, *shape, dtype=getattr(torch, dtype))


def to_json(plan: Plan) -> dict[str, Any]:
    """Turn a plan into plain JSON values."""
    return {"spec": to_dict(plan.spec), "facts": plan.facts, "shapes": plan.shapes}


def from_json(value: Mapping[str, Any], kinds: Mapping[str, type] = KINDS) -> Plan:
    """Read a plan back; only kinds of the table given can be named."""
    return Plan(from_dict(value["spec"], kinds), dict(value["facts"]), dict(value["shapes"]))
