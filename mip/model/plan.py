"""The plan: a spec and everything that the training rows decided, as one JSON value."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from attrs import evolve, field, frozen
from toolz import dissoc
from torch import Tensor, nn

from mip.branches import Facts, Fuse, files_of, leaf_branches, path_in_spec
from mip.data import AnyRows, Rows, Table
from mip.errors import DataError, SpecError
from mip.heads import (
    CheckedLoss,
    Criterion,
    calibrated_logits,
    check_calibrates,
    check_metric_inputs,
    scores,
    training_loss,
)
from mip.metrics import NO_METRICS, MetricSet, check_metric_names, compute_metrics, metrics_by_name
from mip.model.columns import check_columns, fingerprint, table_of, target_columns
from mip.model.spec_files import root_at
from mip.nn import file_digest
from mip.spec import KINDS, Kinds, Spec, from_dict, to_dict
from mip.tree import Tree, get_in, leaves, map_tree


class Batch(NamedTuple):
    """Encoded rows: inputs by branch; target [n] or [n, k], by head if there are several, or None;
    and the ids of the rows, int64 [n].
    """

    inputs: Tree
    target: Tree
    row: Tensor


@frozen
class Plan:
    """A spec with the facts of its training rows; encodes, decodes and scores.

    `facts` holds what branches and head have learned from the rows, as `rows` the rows'
    fingerprint, and of a calibrated plan `calibration`; `shapes` holds dtype and shape of one
    encoded row, by branch. `encoder` is the tree of branches that encodes rows, by default the
    spec's: see `with_features`.
    """

    spec: Spec
    facts: Facts
    shapes: Facts
    encoder: Fuse | None = field(default=None, eq=False, repr=False)

    @property
    def root(self) -> Fuse:
        """The tree of branches that encodes rows."""
        return self.encoder or self.spec.root

    def _repr_html_(self) -> str:
        return self.spec._repr_html_()

    def encode(self, table: Table) -> Batch:
        """Turn rows into tensors, each row by itself: selecting rows before or after is the same.

        Raises DataError for a column that is missing, or that has words for numbers, for a target
        column with a missing cell, and for a photo that cannot be read if the spec's policy is
        "error" or "drop".
        """
        table = table.with_formats(self.spec.data.columns)
        has_target = set(target_columns(self.spec)) <= set(table.columns)
        target = self._target(table) if has_target else None
        inputs = self.root.encode(self.facts["branch"], table)
        return Batch(inputs, target, torch.tensor(table.row_ids))

    def _target(self, table: Table) -> Tree:
        # A row without a target would make every parameter NaN.
        target = self.spec.head.encode(self.facts["head"], table)
        for column, (_, leaf) in zip(target_columns(self.spec), leaves(target), strict=True):
            cells = leaf.flatten(1) if leaf.dim() > 1 else leaf.unsqueeze(1)
            missing = (cells.isnan() if leaf.is_floating_point() else cells < 0).any(dim=1)
            for row in missing.nonzero()[:1, 0].tolist():
                cell = table.cell_name(row, column)
                raise DataError(f"{cell}: the target is missing; mip.clean leaves such rows out")
        return target

    def cache(self, table: Table, folder: str | Path) -> Batch:
        """Encode rows as `encode` does, but leave photos in a file of the folder, where each is
        decoded when it is first read: a source for a pipe over more photos than fit in memory.
        """
        target = self._target(table)
        inputs = self.root.cache(self.facts["branch"], table, Path(folder))
        return Batch(inputs, target, torch.tensor(table.row_ids))

    def augment(self, batch: Batch, key: int) -> Batch:
        """Augment a training batch as its branches do; draws depend on key and row id alone."""
        if not len(batch.row):
            return batch
        return batch._replace(inputs=self.root.augment(batch.inputs, key, batch.row))

    @property
    def fused(self) -> Plan:
        """The plan of the branches that training needs: all but the residual ones. It encodes
        batches for the module of the whole plan.
        """
        names = self.spec.root.fused
        if len(names) == len(self.spec.branch):
            return self
        fusion = evolve(self.spec.fusion, residual=())
        spec = evolve(self.spec, branch=names, fusion=fusion, warm_start={})
        facts = {**self.facts, "branch": _only(names, self.facts["branch"])}
        encoder = self.encoder and evolve(
            self.encoder, branch=_only(names, {**self.encoder.branch}), fusion=fusion
        )
        shapes = _only(names, self.shapes)
        return evolve(self, spec=spec, facts=facts, shapes=shapes, encoder=encoder)

    @property
    def loss(self) -> Criterion:
        """The head's loss: (logits, target) to a mean, a tensor without dimensions."""
        return CheckedLoss(training_loss(self.spec.head, self.facts["head"]))

    def decode(self, logits: Tree) -> dict[str, np.ndarray]:
        """Turn logits into columns of predictions; those of a calibrated plan have bounds too."""
        head, facts = self.spec.head, self.facts["head"]
        if "calibration" not in self.facts:
            return head.decode(facts, logits)
        learned = self.facts["calibration"]
        decoded = head.decode(facts, calibrated_logits(head, learned, logits))
        return {**decoded, **check_calibrates(head).bounds(facts, learned, logits)}

    def score(
        self, logits: Tree, target: Tree, metrics: MetricSet = NO_METRICS
    ) -> dict[str, float]:
        """Return the loss, the head's metrics and further `metrics` over all rows of a split:
        functions of logits and target, by name, or a list of names, of which those that the head
        does not have are computed in the target's unit.

        Raises MipError for an unknown name, and for a head that has no metrics by name.
        """
        head, facts = self.spec.head, self.facts["head"]
        if "calibration" in self.facts:
            logits = calibrated_logits(head, self.facts["calibration"], logits)
        measured = scores(head, facts, logits, target)
        check_metric_names(metrics, {"loss"})
        if isinstance(metrics, Mapping):
            return measured | compute_metrics(metrics, [(logits, target)])
        named = dissoc(metrics_by_name(metrics), *measured)
        inputs = check_metric_inputs(head).metric_inputs(facts, logits, target)
        return measured | compute_metrics(named, [inputs])

    def example(self, n_rows: int = 1) -> Tree:
        """Make encoded rows of zeros, to try a module with."""
        return _zeros(self.shapes, n_rows)

    @property
    def row_bytes(self) -> int:
        """The bytes of the inputs of an encoded row."""
        return sum(leaf.nbytes for _, leaf in leaves(self.example()))


def adapt(
    spec: Spec,
    train: AnyRows,
    digests: Mapping[str, str] | None = None,
    base: str | Path = ".",
) -> Plan:
    """Learn from the training rows everything that the data decides; no other rows are used.
    `digests` are those of their columns (`train.digest()`), if they are known. Files of pretrained
    weights are relative to the folder `base`.

    Raises SpecError or DataError for columns that are missing or do not suit their kind.
    """
    train = table_of(spec, train)
    check_columns(spec, train)
    if not len(train):
        raise DataError(f"{train.name}: there are no training rows")
    facts = {
        "branch": _adapt_branches(root_at(spec, base), train),
        "head": spec.head.adapt(train),
        "rows": fingerprint(spec, train, digests),
    }
    try:
        facts = json.loads(json.dumps(facts, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise SpecError(f"adapt must return JSON: {error}") from error
    return Plan(spec, facts, _shapes_of(spec.root, facts, train))


def _adapt_branches(root: Fuse, train: Rows) -> Facts:
    try:
        return root.adapt(train)
    except DataError:
        for path, branch in leaf_branches(root):  # again, to name the one that fails
            try:
                branch.adapt(train)
            except DataError as error:
                raise type(error)(f"{error} ({path_in_spec(path)})") from error
        raise


def _shape(leaf: Tensor) -> list[Any]:
    return [str(leaf.dtype).removeprefix("torch."), list(leaf.shape[1:])]


def _zeros(shapes: Any, n_rows: int) -> Tree:
    if isinstance(shapes, dict):
        return {name: _zeros(child, n_rows) for name, child in shapes.items()}
    dtype, shape = shapes
    return torch.zeros(n_rows, *shape, dtype=getattr(torch, dtype))


def with_features(
    plan: Plan,
    body: nn.Module,
    rows: Rows,
    *,
    augmented: bool = False,
    folder: Path | None = None,
) -> Plan:
    """Return a plan that runs the frozen parts of a net's `body` when it encodes rows such as
    these: the net takes what it encodes and computes the rest. Without such parts that is the plan.

    The plan is for training and scoring, and is not saved. If `augmented` rows are encoded for
    training, which augments them. What is computed is kept in the folder, if there is one.
    """
    root = plan.spec.root.with_features(body, augmented, folder)
    if root is plan.spec.root:
        return plan
    return evolve(plan, encoder=root, shapes=_shapes_of(root, plan.facts, rows))


def _shapes_of(root: Fuse, facts: Facts, rows: Rows) -> Facts:
    no_rows = next(rows.chunks()).take([])
    return map_tree(_shape, root.encode(facts["branch"], no_rows))


def has_same_files(plan: Plan, base: str | Path = ".") -> bool:
    """Tell whether the files that the branches read, relative to `base`, are those that the plan
    was adapted to.
    """
    for path, branch in leaf_branches(root_at(plan.spec, base)):
        digest = get_in(plan.facts["branch"], path.split(".")).get("sha256")
        if any(file_digest(file) != digest for file in files_of(branch)):
            return False
    return True


def _only(names: Collection[str], parts: Facts) -> Facts:
    return {name: part for name, part in parts.items() if name in names}


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """Turn a plan into plain JSON values."""
    return {"spec": to_dict(plan.spec), "facts": plan.facts, "shapes": plan.shapes}


def plan_from_dict(value: Mapping[str, Any], kinds: Kinds = KINDS) -> Plan:
    """Read a plan from plain JSON values; it can name only kinds of the table."""
    return Plan(from_dict(value["spec"], kinds), dict(value["facts"]), dict(value["shapes"]))
