"""Prediction: one function from rows to rows, in memory and through a file the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from attrs import evolve, frozen
from torch import Tensor

from mip.branch import at, walk
from mip.errors import DataError, FileError, SpecError
from mip.net import Net, build
from mip.plan import NO_METRICS, Batch, Metric, Plan
from mip.prepare import check_columns, clean, columns_of, learned, target_columns, told
from mip.read import read
from mip.rng import derive
from mip.shards import Shards
from mip.spec import KINDS
from mip.statistics import places
from mip.step import State, averaged
from mip.store import load_model
from mip.table import Rows, Table, from_frame
from mip.tree import Tree, between, concat, leaves, map_tree, mean

if TYPE_CHECKING:
    import pandas as pd

    AnyRows = Table | Shards | pd.DataFrame | str | Path


@frozen
class Predictor:
    """A model that predicts: rows to a DataFrame, one row each, in their order.

    Columns are `value`, with `q<level>` for every quantile that is learned, or `label` and a
    probability `p_<class>` for every class. A row whose photo cannot be had, where the spec's
    policy is not "learn", gets its reason in a column `error` and no prediction; the other rows
    do not notice. Encoded rows are also looked at through each of `views`, and the logits
    averaged; see `tta`.
    """

    plan: Plan
    net: Net
    device: str = "cpu"
    batch: int = 256
    views: tuple[Callable[[Batch], Batch], ...] = ()

    def __call__(self, table: AnyRows) -> pd.DataFrame:
        import pandas as pd

        inputs = inputs_of(self.plan, as_table(table))
        outcomes = [self._predicted(part) for part in _parts(inputs, self.batch)]
        rows, logits, bad = zip(*outcomes, strict=True)
        errors = {row: text for part in bad for row, text in part.items()}
        if errors and len(errors) == len(inputs):
            raise DataError(next(iter(errors.values())))
        frame = pd.DataFrame(self.plan.decode(concat(list(logits))), index=torch.cat(rows).numpy())
        if not errors:
            return frame
        texts = pd.Series([errors.get(row) for row in frame.index], frame.index, dtype=object)
        return frame.mask(texts.notna()).assign(error=texts)

    def _predicted(self, part: Table) -> tuple[Tensor, Tree, dict[int, str]]:
        batch, errors = _encoded(self.plan, part)
        return batch.row, self.forward(batch), errors

    @torch.no_grad()
    def forward(self, batch: Batch) -> Tree:
        """Give the logits of encoded rows: float32 [n] or [n, k], on the CPU; by head where there
        are several.
        """
        if not len(batch.row):
            return between(self._logits(self.plan.example()), 0, 0)
        seen = [self._logits(each.inputs) for each in (batch, *(see(batch) for see in self.views))]
        return mean(seen) if self.views else seen[0]

    def _logits(self, inputs: Tree) -> Tree:
        logits = self.net(map_tree(lambda leaf: leaf.to(self.device), inputs))
        return map_tree(torch.Tensor.cpu, logits)


def _parts(table: Rows, rows: int) -> Iterator[Table]:
    for chunk in table.chunks():
        for k in range(0, max(len(chunk), 1), rows):
            yield chunk.take(range(k, min(k + rows, len(chunk))))


def _encoded(plan: Plan, part: Table) -> tuple[Batch, dict[int, str]]:
    try:
        return plan.encode(part), {}
    except DataError:
        return _one_by_one(plan, part)


def _one_by_one(plan: Plan, part: Table) -> tuple[Batch, dict[int, str]]:
    # A bad row leaves zeros in its place: in a smaller batch the others would differ in a bit.
    batches, errors = [], dict[int, str]()
    for place in range(len(part)):
        row = part.take([place])
        try:
            batches.append(plan.encode(row))
        except DataError as error:
            batches.append(Batch(plan.example(), None, row.rows))
            errors[int(row.rows)] = str(error)
    return concat(batches), errors


def inputs_of(plan: Plan, table: Table | Shards) -> Table | Shards:
    """Check that every input column is there, and leave out what is not read, the target too.

    Raises DataError naming a column that the table lacks.
    """
    check_inputs(plan, table)
    return table.select(set(columns_of(plan.spec)) - set(target_columns(plan.spec)))


def as_table(rows: AnyRows) -> Table | Shards:
    """Make rows of what can be predicted."""
    if isinstance(rows, (Table, Shards)):
        return rows
    return read(rows) if isinstance(rows, (str, Path)) else from_frame(rows)


def check_inputs(plan: Plan, table: Rows) -> None:
    """Raise DataError for an input column that the table lacks."""
    try:
        check_columns(plan.spec, table, target=False)
    except SpecError as error:
        raise DataError(str(error)) from error


def remarks(plan: Plan, table: Rows) -> list[str]:
    """Say, a line each, what predictions have to do without: categories that training did not
    see, and photos that are not there. Vectors that training learned stand for both.
    """
    photos = [told(why, rows) for why, rows in learned(plan.spec, table).items()]
    return [f"{table.name}: {text}" for text in [*_unseen(plan, table), *photos]]


def _unseen(plan: Plan, table: Rows) -> Iterator[str]:
    for path, branch in walk(plan.spec.root):
        if hasattr(branch, "unknown"):
            for column, words in branch.unknown(at(plan.facts["branch"], path), table):
                chunks = table.chunks([column])
                rows = [row for chunk in chunks for row in _with(chunk, column, words)]
                shown = ", ".join(f"'{word}'" for word in words[:5])
                more = ", …" if len(words) > 5 else ""
                yield told(f"unseen categories in '{column}', {shown}{more}", rows)


def _with(table: Table, column: str, words: list[str]) -> list[int]:
    return table.rows[places(table, column, words) >= 0].tolist()


def predictor(plan: Plan, state: State, device: str = "cpu") -> Predictor:
    """Make a predictor of a plan and a state; it owns its module and copies the weights."""
    net = build(plan, pretrain=False)
    try:
        net.load_state_dict({**averaged(state).params, **state.buffers})
    except RuntimeError as error:
        raise FileError(f"the weights do not fit the model of the spec: {error}") from error
    return Predictor(plan, net.eval().to(device), device)


def tta(predict: Predictor, views: int = 8, seed: int = 0) -> Predictor:
    """Augment at test time: average the logits of the rows as they are and of `views` of them.

    The views are changed as the spec says of training, drawn from (seed, view, row), so that
    the batch size does not change them. Raises ValueError for fewer than one view, SpecError
    where the spec asks for no augmentation: such views would cost time and change nothing.
    """
    if views < 1:
        raise ValueError(f"'views' must be >= 1: {views}")
    if not _augments(predict.plan):
        raise SpecError(
            "views at test time are augmented rows, and the model's spec asks for no "
            "augmentation; predict without views"
        )
    keys = [derive("tta", seed, view) for view in range(views)]
    return evolve(predict, views=tuple(partial(predict.plan.augment, key=key) for key in keys))


def _augments(plan: Plan) -> bool:
    # Where nothing is asked for, augmentation gives back the very tensors that it took.
    batch = Batch(plan.example(), None, torch.zeros(1, dtype=torch.int64))
    pairs = zip(leaves(batch.inputs), leaves(plan.augment(batch, 0).inputs), strict=True)
    return any(new is not old for (_, old), (_, new) in pairs)


def load(path: str | Path, kinds: Mapping[str, type] = KINDS, device: str = "cpu") -> Predictor:
    """Load a model file: a function from rows to a DataFrame of predictions.

    Nothing else is needed, and nothing in the file is executed. Raises FileError for a file
    that is damaged or not ours, or that names a kind that is not in `kinds`.
    """
    plan, state = load_model(path, kinds)
    try:
        return predictor(plan, state, device)
    except (AttributeError, KeyError, SpecError, TypeError, ValueError) as error:
        raise FileError(f"{path}: its plan makes no model ({error})") from error


def evaluate(
    predict: Predictor, rows: AnyRows, metrics: Mapping[str, Metric] = NO_METRICS
) -> dict[str, float]:
    """Score a model on rows with targets: the loss, the head's metrics, and `metrics` of yours.

    Rows without a target or without a photo are treated as the spec says, as in training.
    """
    plan, given = predict.plan, as_table(rows)
    check_inputs(plan, given)
    used = clean(plan.spec, given)[0].select(columns_of(plan.spec))
    scored = [_scored(predict, part) for part in _parts(used, predict.batch)]
    logits, target = concat(scored)
    return plan.score(logits, target, metrics)


def _scored(predict: Predictor, part: Table) -> tuple[Tree, Tree]:
    batch = predict.plan.encode(part)
    return predict.forward(batch), batch.target
