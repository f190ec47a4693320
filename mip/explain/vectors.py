"""A model in two halves: from rows to the vectors of its branches, and from these to predictions.

Where there are photos the second half takes a hundredth of the time of the first, so whatever asks
a model about the same rows again, with another branch, keeps their vectors.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor

from mip.branches import branch_columns, leaf_branches
from mip.data import Table
from mip.errors import MipError
from mip.explain.photo_columns import exchange_columns, photo_features
from mip.heads import predictions_to_logits
from mip.model import Batch
from mip.prediction import (
    Ensemble,
    Predictor,
    check_inputs,
    divided,
    encode_rows,
    input_columns,
    mean_columns,
    open_model,
    rows_to_predict,
    rows_with_targets,
)
from mip.rng import derive
from mip.tree import Tree, concat, count_rows, leaves, map_tree, slice_rows, take

Model: TypeAlias = Predictor | Ensemble
"""What is explained."""

Vectors: TypeAlias = tuple[dict[str, Tensor], ...]
"""The vectors of branches by name, float32 [n, d], for each member of an ensemble, or for a single
model: see `mip.model.Net.vectors`.
"""

Scale = Literal["prediction", "logit"]
"""What is explained: the numbers of a prediction, in the target's unit or as probabilities, or the
outputs of the head, before it turns them into these.
"""

ROWS_AT_ONCE = 8192
"""The rows that a head is run on at once."""


@frozen(eq=False)
class Halves:
    """Rows half way through a model: the `table` of those that it can use, the `vectors` of their
    branches, their `target`, or None, and for each member the `photos` that are kept to exchange
    columns (see `mip.explain.photo_columns`).
    """

    model: Model
    table: Table
    vectors: Vectors
    target: Tree
    photos: tuple[dict[str, Tree], ...]

    def __len__(self) -> int:
        return len(self.table)

    @property
    def branches(self) -> list[str]:
        """The names of the branches, in their order."""
        return list(dict.fromkeys(chain.from_iterable(self.vectors)))

    @property
    def columns(self) -> dict[str, list[str]]:
        """The columns that each branch reads, at any depth."""
        found: dict[str, list[str]] = {name: [] for name in self.branches}
        for path, branch in chain(*(leaf_branches(plan.spec.root) for plan in self.model.plans)):
            names = found[path.partition(".")[0]]
            names += [column for column in branch_columns(branch) if column not in names]
        return found

    def take(self, positions: Sequence[int] | np.ndarray) -> Halves:
        """Take rows by position."""
        index = torch.from_numpy(np.array(positions, dtype=np.int64))
        parts = (self.table, self.vectors, self.target, self.photos)
        return Halves(self.model, *take(parts, index))

    def concat(self, others: Sequence[Halves]) -> Halves:
        """Append rows."""
        halves = (self, *others)
        parts = zip(*((h.table, h.vectors, h.target, h.photos) for h in halves), strict=True)
        return Halves(self.model, *map(concat, parts))

    def predict(self, vectors: Vectors | None = None, scale: Scale = "prediction") -> Columns:
        """Return the numbers that the model predicts from these vectors, by default the rows' own,
        by column: float64 [n].
        """
        return predict_vectors(self.model, self.vectors if vectors is None else vectors, scale)

    def score(self, predicted: Columns) -> dict[str, float]:
        """Return the loss and the head's metrics of predictions, columns of numbers that `predict`
        has returned, or means of these. Raises SpecError for a head whose predictions do not turn
        back into logits.
        """
        plan = self.model.plan
        logits = predictions_to_logits(plan.spec.head, plan.facts["head"], predicted)
        return plan.score(map_tree(Tensor.float, logits), self.target)


R = TypeVar("R", Table, Halves)
"""Rows of either form."""

Columns: TypeAlias = Mapping[str, np.ndarray]
"""Numbers by column, float64 [n]."""


def halve(model: Any, rows: Any, *, targets: bool = True) -> Halves:
    """Run the branches of a model, of its file, or of a finished run on rows: a table, or whatever
    `mip.evaluate` takes. Rows that the model cannot use are left out, with `targets` as in
    training, and otherwise those for which it has no prediction. Rows that have been through this
    are returned as they are.

    Raises MipError for a plain module and for rows that are not in memory, and DataError for
    columns that are missing.
    """
    if isinstance(rows, Halves):
        return rows
    predict = open_model(model)
    if not isinstance(predict, (Predictor, Ensemble)):
        raise MipError(f"explain: the model must have branches: {type(predict).__name__} has none")
    return concat(list(_halve_pieces(predict, _usable_rows(predict, rows, targets), targets)))


def _usable_rows(model: Model, rows: Any, targets: bool) -> Table:
    table = rows_to_predict(rows, model.plans)
    if not isinstance(table, Table):
        raise MipError(f"explain: the rows of {table.name} are streamed; give a table in memory")
    if targets:
        return rows_with_targets(model.plans, table)
    for plan in model.plans:
        check_inputs(plan, table)
    return table.select({name for plan in model.plans for name in input_columns(plan)})


def _halve_pieces(model: Model, table: Table, targets: bool) -> Iterator[Halves]:
    for piece in divided(table, model.rows_at_once):
        rows, batches = _encode(model, piece, targets)
        members, inputs = members_of(model), [batch.inputs for batch in batches]
        photos = tuple(photo_features(*pair) for pair in zip(members, inputs, strict=True))
        inputs = [{**each, **kept} for each, kept in zip(inputs, photos, strict=True)]
        vectors = tuple(run_branches(*pair) for pair in zip(members, inputs, strict=True))
        yield Halves(model, rows, vectors, batches[0].target, photos)


def _encode(model: Model, table: Table, targets: bool) -> tuple[Table, list[Batch]]:
    """Encode rows for each member; without targets, those that can be encoded."""
    if targets:
        return table, [plan.encode(table) for plan in model.plans]
    batches, reasons = zip(*(encode_rows(plan, table) for plan in model.plans), strict=True)
    pairs = enumerate(zip(*reasons, strict=True))
    kept = torch.tensor([row for row, each in pairs if not any(each)], dtype=torch.int64)
    return table.take(kept), [take(batch, kept) for batch in batches]


def draw_rows(rows: R, n: int, *key: int | str) -> R:
    """Draw n of more rows, of a table or halved, and keep their order; the key decides which."""
    order = np.random.default_rng(derive(*key)).permutation(len(rows))
    return rows.take(np.sort(order[:n]))


def members_of(model: Model) -> tuple[Predictor, ...]:
    """Return the models of an ensemble; of a single one, itself."""
    return model.members if isinstance(model, Ensemble) else (model,)


def with_columns(halves: Halves, other: Halves, columns: Collection[str]) -> Vectors:
    """Return the vectors of rows that have the cells of as many others in some columns. Branches
    that read these alone are not run again.
    """
    reading = {name: {*read} for name, read in halves.columns.items() if {*read} & {*columns}}
    whole = {name for name, read in reading.items() if read <= {*columns}}
    vectors = replace_vectors(halves.vectors, select_branches(other.vectors, whole))
    members = members_of(halves.model)
    exchanged = [
        exchange_columns(member, mine, theirs, columns)
        for member, mine, theirs in zip(members, halves.photos, other.photos, strict=True)
    ]
    photos = tuple(run_branches(*pair) for pair in zip(members, exchanged, strict=True))
    vectors = replace_vectors(vectors, photos)
    part = reading.keys() - whole - {*chain.from_iterable(exchanged)}
    if not part:
        return vectors
    names = [name for name in halves.table.columns if name in columns]
    cells = {name: other.table.frame[name].array for name in names}
    table = evolve(halves.table, frame=halves.table.frame.assign(**cells))
    return replace_vectors(vectors, encode_branches(halves, table, part))


def encode_branches(halves: Halves, table: Table, branches: Collection[str]) -> Vectors:
    """Run some of the branches on other rows: their vectors alone."""
    found = list[dict[str, Tensor]]()
    for member in members_of(halves.model):
        plan, rows = member.plan, table.with_formats(member.plan.spec.data.columns)
        named = {name: part for name, part in plan.root.branch.items() if name in branches}
        facts = plan.facts["branch"]
        inputs = {name: part.encode(facts[name], rows) for name, part in named.items()}
        found.append(run_branches(member, inputs))
    return tuple(found)


@torch.no_grad()
def run_branches(model: Predictor, inputs: Tree) -> dict[str, Tensor]:
    """Run the branches of a model on encoded rows: float32 [n, d] by name, on the CPU."""
    vectors = list[dict[str, Tensor]]()
    for begin in range(0, max(1, count_rows(inputs)), model.batch_size):
        part = slice_rows(inputs, begin, begin + model.batch_size)
        part = map_tree(lambda leaf: leaf.to(model.device), part)
        vectors.append(map_tree(Tensor.cpu, model.net.vectors(part)))
    return concat(vectors)


def predict_vectors(model: Model, vectors: Vectors, scale: Scale = "prediction") -> Columns:
    """Return what a model predicts from vectors of its branches, columns of numbers, float64 [n];
    for the scale "logit" the outputs of its head, `logit`, `logit_0` or `price.logit`.

    Raises MipError for the logits of an ensemble: those of its models are on scales of their own.
    """
    if scale == "logit" and isinstance(model, Ensemble):
        raise MipError('explain: the models of an ensemble have no common scale "logit"')
    members = members_of(model)
    logits = [_run_head(member, part) for member, part in zip(members, vectors, strict=True)]
    if scale == "logit":
        return dict(_logit_columns(logits[0]))
    pairs = zip(members, logits, strict=True)
    return mean_columns([member.plan.decode(each) for member, each in pairs])


@torch.no_grad()
def _run_head(model: Predictor, vectors: dict[str, Tensor]) -> Tree:
    parts = [
        model.net.from_vectors(map_tree(lambda leaf: leaf.to(model.device), part))
        for begin in range(0, max(1, count_rows(vectors)), ROWS_AT_ONCE)
        for part in [slice_rows(vectors, begin, begin + ROWS_AT_ONCE)]
    ]
    return map_tree(Tensor.cpu, concat(parts))


def _logit_columns(logits: Tree) -> Iterator[tuple[str, np.ndarray]]:
    for path, leaf in leaves(logits):
        name = f"{path.replace('/', '.')}.logit" if path else "logit"
        columns = leaf.double().unsqueeze(1) if leaf.dim() == 1 else leaf.double()
        for k, column in enumerate(columns.numpy().T):
            yield name if leaf.dim() == 1 else f"{name}_{k}", column


def replace_vectors(vectors: Vectors, others: Vectors) -> Vectors:
    """Replace the vectors of those branches of which there are others."""
    return tuple({**old, **new} for old, new in zip(vectors, others, strict=True))


def select_branches(vectors: Vectors, branches: Collection[str]) -> Vectors:
    """Return the vectors of some of the branches."""
    return tuple({k: v for k, v in each.items() if k in branches} for each in vectors)
