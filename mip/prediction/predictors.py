"""A model that predicts: one function from rows to a DataFrame, in memory and from a file alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from attrs import evolve, frozen

from mip.data import Table
from mip.devices import find_device
from mip.errors import DataError, FileError, MipError, SpecError, quote
from mip.model import Batch, Net, Plan, build
from mip.prediction.inputs import PhotosOrRows, divided, rows_to_predict, select_inputs
from mip.prediction.rankings import check_top, top_classes
from mip.rng import derive
from mip.train import State, with_averaged_params
from mip.tree import Tree, concat, leaves, map_tree, mean, slice_rows

if TYPE_CHECKING:
    import pandas as pd

    from mip.prediction.ensembles import Ensemble


Errors = Literal["coerce", "raise"]
"""What happens to a row that cannot be predicted: it is missing, with the reason in a column
`error`, or it raises.
"""


ENCODED_BYTES = 1 << 20
"""Batches are encoded together up to this size."""


@frozen
class Predictor:
    """A model that predicts rows: a DataFrame with a row for each, in their order and with their
    index; the rows of a file are numbered from 0, and photos are labeled with their paths.

    The columns are `value`, with `q<level>` for every learned quantile, or `label` and a
    probability `p_<class>` for every class; with `top`, those of `top_classes`. A row with a word
    among its numbers, or whose photo is missing or broken, if the spec's policy is not "learn",
    gets the reason in a column `error` and no prediction, alone and among others, which are not
    affected; with `errors="raise"` the first such row raises DataError. With `augmentations`, the
    logits are averaged over the encoded rows and each augmentation of them; see `tta`.

    On one machine and with one number of threads, the same rows give the same numbers bit for bit.
    In another order, among other rows, or with another `batch_size`, each is within 1e-5 of the
    largest number in its column: the order of the sums in a matrix product depends on its shape.
    """

    plan: Plan
    net: Net
    device: str = "cpu"
    batch_size: int = 256
    augmentations: tuple[Callable[[Batch], Batch], ...] = ()

    def _repr_html_(self) -> str:
        return self.plan._repr_html_()

    def __call__(
        self, rows: PhotosOrRows, *, top: int | None = None, errors: Errors = "coerce"
    ) -> pd.DataFrame:
        check_options(self.plan, top, errors)
        inputs = select_inputs(self.plan, rows_to_predict(rows, self.plans))
        logits, reasons = list[Tree](), list[str | None]()
        for table in divided(inputs, self.rows_at_once):
            batch, of_batch = encode_rows(self.plan, table)
            if errors == "raise":
                raise_first(of_batch)
            logits.append(self.forward(batch))
            reasons += of_batch
        frame = prediction_frame(self.plan.decode(concat(logits)), inputs.index, reasons)
        return frame if top is None else top_classes(self.plan, frame, top)

    def to(self, device: str) -> Predictor:
        """Return this model on another device: a copy, with a module of its own."""
        device = find_device(device)
        return evolve(self, net=deepcopy(self.net).to(device), device=device)

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The plan; an ensemble has several."""
        return (self.plan,)

    @property
    def rows_at_once(self) -> int:
        """The number of rows that are encoded at once: a batch, or many small ones."""
        return self.batch_size * max(1, ENCODED_BYTES // (self.plan.row_bytes * self.batch_size))

    def logits_and_target(self, table: Table) -> tuple[Tree, Tree]:
        """Return the logits and the target of rows that have all that the model needs."""
        batch = self.plan.encode(table)
        return self.forward(batch), batch.target

    @torch.no_grad()
    def forward(self, batch: Batch) -> Tree:
        """Compute the logits of encoded rows, batch by batch: float32 [n] or [n, k] on the CPU; a
        dict by head if there are several.
        """
        if not len(batch.row):
            return slice_rows(self._logits(self.plan.example()), 0, 0)
        size = self.batch_size
        batches = (slice_rows(batch, k, k + size) for k in range(0, len(batch.row), size))
        return concat([*map(self._averaged, batches)])

    def _averaged(self, batch: Batch) -> Tree:
        batches = [batch, *(augment(batch) for augment in self.augmentations)]
        logits = [self._logits(each.inputs) for each in batches]
        return mean(logits) if self.augmentations else logits[0]

    def _logits(self, inputs: Tree) -> Tree:
        logits = self.net(map_tree(lambda leaf: leaf.to(self.device), inputs))
        return map_tree(torch.Tensor.cpu, logits)


def encode_rows(plan: Plan, table: Table) -> tuple[Batch, list[str | None]]:
    """Encode rows, and return for each the reason why it cannot be predicted, or None; what stands
    for such a row means nothing.
    """
    try:
        return plan.encode(table), [None] * len(table)
    except DataError as error:
        if len(table) == 1:
            # As zeros: in a batch of another size the bits of the other rows would differ.
            return Batch(plan.example(), None, torch.tensor(table.row_ids)), [str(error)]
    middle = len(table) // 2
    halves = [table.take(range(middle)), table.take(range(middle, len(table)))]
    batches, errors = zip(*(encode_rows(plan, half) for half in halves), strict=True)
    return concat(list(batches)), [*errors[0], *errors[1]]


def check_options(plan: Plan, top: int | None, errors: str) -> None:
    """Raise MipError for a word that is not one of `Errors`, and as `check_top` for classes that
    the model cannot rank.
    """
    if errors not in get_args(Errors):
        raise MipError(f"errors must be 'coerce' or 'raise', not {quote(errors)}")
    if top is not None:
        check_top(plan, top)


def raise_first(errors: Sequence[str | None]) -> None:
    """Raise DataError with the first of the rows' errors, if there is one."""
    for error in filter(None, errors):
        raise DataError(error)


def prediction_frame(
    columns: Mapping[str, np.ndarray], index: pd.Index, errors: Sequence[str | None]
) -> pd.DataFrame:
    """Make the DataFrame of predictions: rows with an error are missing, and say why."""
    import pandas as pd

    frame = pd.DataFrame(columns)
    if any(errors):
        texts = pd.Series(list[Any](errors), dtype=object)
        # Classes that are numbers stay such beside missing ones.
        nullable = {np.dtype(np.int64): "Int64", np.dtype(bool): "boolean"}
        dtypes = {name: nullable.get(dtype, dtype) for name, dtype in frame.dtypes.items()}
        frame = frame.astype(dtypes).mask(texts.notna()).assign(error=texts)
    return frame.set_axis(index.copy())  # only now: `mask` aligns, and labels may be duplicates


def predictor(plan: Plan, state: State, device: str = "cpu") -> Predictor:
    """Make a predictor of a plan and a state; it has a module of its own and copies the weights.

    Raises MipError for a device that this machine lacks; "auto" is the GPU if there is one.
    """
    device = find_device(device)
    net = build(plan, pretrain=False)
    try:
        net.load_state_dict({**with_averaged_params(state).params, **state.buffers})
    except RuntimeError as error:
        raise FileError(f"the weights do not fit the model of the spec: {error}") from error
    return Predictor(plan, net.eval().to(device), device)


def tta(predict: Predictor | Ensemble, n: int = 8, seed: int = 0) -> Predictor:
    """Average predictions over the rows and `n` augmentations of them (test-time augmentation).

    Rows are augmented as the spec says for training, with draws derived from (seed, augmentation,
    row), so that the batch size changes nothing. Raises ValueError if `n` is less than 1, and
    SpecError for an ensemble, and if the spec has no augmentation: that would take time and change
    nothing.
    """
    if n < 1:
        raise ValueError(f"'n' must be >= 1: {n}")
    if not isinstance(predict, Predictor):
        raise SpecError("an ensemble predicts without test-time augmentation")
    plan = predict.plan
    example = Batch(plan.example(), None, torch.zeros(1, dtype=torch.int64))
    # Without augmentation in the spec, `augment` returns the very tensors that it was given.
    pairs = zip(leaves(example.inputs), leaves(plan.augment(example, 0).inputs), strict=True)
    if all(new is old for (_, old), (_, new) in pairs):
        raise SpecError(
            "test-time augmentation needs a model whose spec has an augmentation, and this one has "
            "none"
        )
    keys = [derive("tta", seed, number) for number in range(n)]
    return evolve(predict, augmentations=tuple(partial(plan.augment, key=key) for key in keys))
