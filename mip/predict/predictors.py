"""Prediction: one function from rows to rows, in memory and through a file the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from attrs import evolve, field, frozen

from mip.branches import FindsUnseen, having
from mip.data import (
    Rows,
    Shards,
    Table,
    category_codes,
    from_arrow,
    from_columns,
    from_frame,
    from_rows,
    import_pyarrow,
    read,
)
from mip.errors import DataError, FileError, SpecError, quote
from mip.files import load_models
from mip.model import (
    NO_METRICS,
    Batch,
    Metric,
    Net,
    Plan,
    build,
    check_columns,
    clean,
    columns_of,
    learned,
    oddities,
    target_columns,
    told,
)
from mip.predict.averaging import check_alike, logits_of, means
from mip.rng import derive
from mip.spec import KINDS
from mip.train import State, with_averaged_params
from mip.tree import Tree, concat, get_in, leaves, map_tree, mean, slice_rows

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


AnyRows: TypeAlias = (
    "Table | Shards | pd.DataFrame | pa.Table | Mapping | Sequence[Mapping] | str | Path"
)


@frozen
class Predictor:
    """A model that predicts: rows to a DataFrame, one row each, in their order and with the index
    that they come with; rows of a file are numbered from 0.

    Columns are `value`, with `q<level>` for every quantile that is learned, or `label` and a
    probability `p_<class>` for every class. A row whose photo cannot be had, where the spec's
    policy is not "learn", gets its reason in a column `error` and no prediction; the other rows
    do not notice. Encoded rows are also looked at through each of `views`, and the logits
    averaged; see `tta`.

    On one machine, with one number of threads, the same rows give the same numbers to the bit.
    In another order, among other rows, or with another `batch`, which is the number of rows that
    the model sees together, each is within 1e-5 of the largest number of its column: the order of
    the sums in a matrix product depends on its shape.
    """

    plan: Plan
    net: Net
    device: str = "cpu"
    batch: int = 256
    views: tuple[Callable[[Batch], Batch], ...] = ()

    def __call__(self, table: AnyRows) -> pd.DataFrame:
        inputs = inputs_of(self.plan, as_table(table))
        outcomes = [self._predicted(part) for part in _parts(inputs, self.batch)]
        logits, bad = zip(*outcomes, strict=True)
        errors = [text for part in bad for text in part]
        if errors and None not in errors:
            raise DataError(errors[0])
        return _frame(self.plan.decode(concat(list(logits))), inputs.index, errors)

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The plan alone: an ensemble has several."""
        return (self.plan,)

    def scored(self, part: Table) -> tuple[Tree, Tree]:
        """Give logits and target of rows that can be used."""
        batch = self.plan.encode(part)
        return self.forward(batch), batch.target

    def _predicted(self, part: Table) -> tuple[Tree, list[str | None]]:
        batch, errors = _encoded(self.plan, part)
        return self.forward(batch), errors

    @torch.no_grad()
    def forward(self, batch: Batch) -> Tree:
        """Give the logits of encoded rows: float32 [n] or [n, k], on the CPU; by head where there
        are several.
        """
        if not len(batch.row):
            return slice_rows(self._logits(self.plan.example()), 0, 0)
        seen = [self._logits(each.inputs) for each in (batch, *(see(batch) for see in self.views))]
        return mean(seen) if self.views else seen[0]

    def _logits(self, inputs: Tree) -> Tree:
        logits = self.net(map_tree(lambda leaf: leaf.to(self.device), inputs))
        return map_tree(torch.Tensor.cpu, logits)


@frozen
class Ensemble:
    """Models of the same head as one: the mean of what each predicts, with equal weights.

    The mean is taken of what the models decode, each with its own plan: of numbers (and of every
    quantile) in the target's unit, and of the probabilities of classes, of which the label is made
    anew. A row that one of the models cannot predict has no prediction. The loss is that of the
    mean, on the scale of the first model. Raises SpecError for fewer than two models, for models
    whose heads differ, and for test-time views.
    """

    members: tuple[Predictor, ...] = field()

    @members.validator
    def _alike(self, _: object, members: tuple[Predictor, ...]) -> None:
        if len(members) < 2:
            raise SpecError(f"an ensemble needs two models or more, and there is {len(members)}")
        if any(each.views for each in members):
            raise SpecError("an ensemble averages models without test-time views")
        check_alike([each.plan for each in members])

    @property
    def plan(self) -> Plan:
        """The plan of the first model: it encodes targets and scores."""
        return self.members[0].plan

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The plans of all models."""
        return tuple(each.plan for each in self.members)

    @property
    def batch(self) -> int:
        """Rows that are looked at together."""
        return self.members[0].batch

    def __call__(self, table: AnyRows) -> pd.DataFrame:
        given = as_table(table)
        frames = [each(given) for each in self.members]
        texts = [frame.pop("error").tolist() for frame in frames if "error" in frame]
        columns = means([{str(name): frame[name] for name in frame} for frame in frames])
        whole = {**self.plan.decode(logits_of(self.plan, columns)), **columns}
        errors = [next(filter(None, row), None) for row in zip(*texts, strict=True)]
        return _frame(whole, frames[0].index, errors)

    def scored(self, part: Table) -> tuple[Tree, Tree]:
        """Give the logits of the mean, float32, and the target, of rows that can be used."""
        batches = [plan.encode(part) for plan in self.plans]
        seen = zip(self.members, batches, strict=True)
        columns = means([each.plan.decode(each.forward(batch)) for each, batch in seen])
        return map_tree(torch.Tensor.float, logits_of(self.plan, columns)), batches[0].target


def _frame(
    columns: Mapping[str, np.ndarray], labels: pd.Index, errors: Sequence[str | None]
) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(columns)
    if any(errors):
        texts = pd.Series(list[Any](errors), dtype=object)
        frame = frame.mask(texts.notna()).assign(error=texts)
    return frame.set_axis(labels.copy())  # only now, since labels may stand twice


def _parts(table: Rows, rows: int) -> Iterator[Table]:
    for chunk in table.chunks():
        for k in range(0, max(len(chunk), 1), rows):
            yield chunk.take(range(k, min(k + rows, len(chunk))))


def _encoded(plan: Plan, part: Table) -> tuple[Batch, list[str | None]]:
    try:
        return plan.encode(part), [None] * len(part)
    except DataError:
        return _one_by_one(plan, part)


def _one_by_one(plan: Plan, part: Table) -> tuple[Batch, list[str | None]]:
    # A bad row leaves zeros in its place: in a batch of another size the others' bits would differ.
    batches, errors = [], list[str | None]()
    for place in range(len(part)):
        row = part.take([place])
        try:
            batches.append(plan.encode(row))
            errors.append(None)
        except DataError as error:
            batches.append(Batch(plan.example(), None, torch.tensor(row.row_ids)))
            errors.append(str(error))
    return concat(batches), errors


def inputs_of(plan: Plan, table: Table | Shards) -> Table | Shards:
    """Check that every input column is there, and leave out what is not read, the target too.

    Raises DataError naming a column that the table lacks.
    """
    check_inputs(plan, table)
    return table.select(set(columns_of(plan.spec)) - set(target_columns(plan.spec)))


def as_table(rows: AnyRows) -> Table | Shards:
    """Make rows of what can be predicted.

    Raises DataError for what is no table, with what to write instead.

    >>> as_table([{"area": 70, "town": "Ulm"}])
    Table(table: 1 rows, columns area, town)
    >>> as_table({"area": [70, 95]})
    Table(table: 2 rows, columns area)
    >>> as_table(None)
    Traceback (most recent call last):
    mip.errors.DataError: rows are a DataFrame, a Table, a file's path, an Arrow table, a dict of
    columns, or a list of dicts, not NoneType
    """
    import pandas as pd

    if isinstance(rows, (Table, Shards)):
        return rows
    if isinstance(rows, (str, os.PathLike)):
        return read(Path(rows))
    if isinstance(rows, pd.DataFrame):
        return from_frame(rows)
    if isinstance(rows, Mapping):
        return from_columns(rows)
    if isinstance(rows, (list, tuple)):
        return from_rows(rows)
    if hasattr(rows, "__arrow_c_stream__") and not isinstance(rows, pd.Series):
        with suppress(TypeError, ValueError):  # a column of Arrow's
            return from_arrow(import_pyarrow().table(rows))
    held = type(rows).__name__
    raise DataError(f"rows are {_ROWS}, not {held}{_CURES.get(held, '')}")


_ROWS = "a DataFrame, a Table, a file's path, an Arrow table, a dict of columns, or a list of dicts"


_CURES = {
    "Series": "; one row is series.to_frame().T",
    "ndarray": "; name its columns: pandas.DataFrame(array, columns=[…])",
}


def check_inputs(plan: Plan, table: Rows) -> None:
    """Raise DataError for an input column that the table lacks."""
    try:
        check_columns(plan.spec, table, target=False)
    except SpecError as error:
        raise DataError(str(error)) from error


def remarks(plan: Plan, table: Rows) -> list[str]:
    """Say, a line each, what predictions have to do without: categories that training did not
    see, photos that are not there, or what else a branch finds missing, and numbers and dates that
    count as missing. What training learned stands for them.
    """
    lost = {**learned(plan.spec, table), **oddities(plan.spec, table, photos=False)}
    said = [told(why, rows) for why, rows in lost.items()]
    return [f"{table.name}: {text}" for text in [*_unseen(plan, table), *said]]


def _unseen(plan: Plan, table: Rows) -> Iterator[str]:
    for path, branch in having(plan.spec.root, FindsUnseen):
        for column, words in branch.unseen(get_in(plan.facts["branch"], path.split(".")), table):
            chunks = table.chunks([column])
            rows = [row for chunk in chunks for row in _with(chunk, column, words)]
            named = ", ".join(map(quote, words[:5]))
            more = ", …" if len(words) > 5 else ""
            yield told(f"unseen categories in '{column}', {named}{more}", rows)


def _with(table: Table, column: str, words: list[str]) -> list[Any]:
    return table.index[category_codes(table, column, words) >= 0].tolist()


def predictor(plan: Plan, state: State, device: str = "cpu") -> Predictor:
    """Make a predictor of a plan and a state; it owns its module and copies the weights."""
    net = build(plan, pretrain=False)
    try:
        net.load_state_dict({**with_averaged_params(state).params, **state.buffers})
    except RuntimeError as error:
        raise FileError(f"the weights do not fit the model of the spec: {error}") from error
    return Predictor(plan, net.eval().to(device), device)


def tta(predict: Predictor | Ensemble, views: int = 8, seed: int = 0) -> Predictor:
    """Augment at test time: average the logits of the rows as they are and of `views` of them.

    The views are changed as the spec says of training, drawn from (seed, view, row), so that
    the batch size does not change them. Raises ValueError for fewer than one view, SpecError
    where the spec asks for no augmentation: such views would cost time and change nothing.
    """
    if views < 1:
        raise ValueError(f"'views' must be >= 1: {views}")
    if isinstance(predict, Ensemble):
        raise SpecError("an ensemble is predicted without test-time views")
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


def load(
    path: str | Path, kinds: Mapping[str, type] = KINDS, device: str = "cpu"
) -> Predictor | Ensemble:
    """Load a model file, or that of an ensemble: a function from rows to a DataFrame.

    Nothing else is needed, and nothing in the file is executed. Raises FileError for a file
    that is damaged or not ours, or that names a kind that is not in `kinds`.
    """
    models = load_models(path, kinds)
    try:
        found = [predictor(plan, state, device) for plan, state in models]
        return found[0] if len(found) == 1 else Ensemble(tuple(found))
    except (AttributeError, KeyError, SpecError, TypeError, ValueError) as error:
        raise FileError(f"{path}: its plan makes no model ({error})") from error


def evaluate(
    predict: Predictor | Ensemble, rows: AnyRows, metrics: Mapping[str, Metric] = NO_METRICS
) -> dict[str, float]:
    """Score a model on rows with targets: the loss, the head's metrics, and `metrics` of yours.

    Rows without a target or without a photo are treated as the spec says, as in training.
    """
    used = as_table(rows)
    for plan in predict.plans:
        check_inputs(plan, used)
        used = clean(plan.spec, used)[0]
    used = used.select({name for plan in predict.plans for name in columns_of(plan.spec)})
    scored = [predict.scored(part) for part in _parts(used, predict.batch)]
    logits, target = concat(scored)
    return predict.plan.score(logits, target, metrics)
