"""Ensembles: several models as one, and the model files of one or several models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from attrs import Attribute, field, frozen

from mip.branches import Facts
from mip.compare import differences
from mip.data import Table
from mip.errors import FileError, SpecError
from mip.files import load_models, save_models
from mip.heads import Head, predictions_to_logits
from mip.model import Plan
from mip.prediction.inputs import PhotosOrRows, rows_to_predict
from mip.prediction.predictors import (
    Errors,
    Predictor,
    check_options,
    prediction_frame,
    predictor,
)
from mip.prediction.rankings import top_classes
from mip.spec import KINDS, to_dict
from mip.train import State
from mip.tree import Tree, map_tree

if TYPE_CHECKING:
    import pandas as pd

FREE_FIELDS = ("*.layers", "*.dropout", "*.members")
"""Fields of a head that may differ between the models of an ensemble: they only shape the model."""


@frozen
class Ensemble:
    """Several models with the same head as one: the mean of their predictions, equally weighted.

    What is averaged is decoded, each model with its own plan: numbers and quantiles in the target's
    unit, and class probabilities, from which the label is derived anew. Logits could not be: models
    of other rows have other scales. A row that one of the models cannot predict has no prediction.
    The loss is that of the mean, on the first model's scale. Raises SpecError for fewer than two
    models, for models whose heads differ, and for test-time augmentation.
    """

    members: tuple[Predictor, ...] = field()

    @members.validator
    def _check(self, _: Attribute[tuple[Predictor, ...]], members: tuple[Predictor, ...]) -> None:
        if len(members) < 2:
            raise SpecError(f"an ensemble needs at least two models, got {len(members)}")
        if any(member.augmentations for member in members):
            raise SpecError("an ensemble averages models without test-time augmentation")
        if any("calibration" in member.plan.facts for member in members):
            raise SpecError("calibrated models cannot be averaged, only those before that")
        _check_heads([member.plan for member in members])

    @property
    def plan(self) -> Plan:
        """The plan of the first model, which encodes targets and scores."""
        return self.members[0].plan

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The plans of all models."""
        return tuple(member.plan for member in self.members)

    @property
    def rows_at_once(self) -> int:
        """The number of rows that are encoded at once."""
        return self.members[0].rows_at_once

    def __call__(
        self, rows: PhotosOrRows, *, top: int | None = None, errors: Errors = "coerce"
    ) -> pd.DataFrame:
        check_options(self.plan, top, errors)
        table = rows_to_predict(rows, self.plans)
        frames = [member(table, errors=errors) for member in self.members]
        reasons = [frame.pop("error").tolist() for frame in frames if "error" in frame]
        columns = mean_columns([{str(name): frame[name] for name in frame} for frame in frames])
        decoded = {**self.plan.decode(self._logits(columns)), **columns}
        first_reasons = [next(filter(None, row), None) for row in zip(*reasons, strict=True)]
        frame = prediction_frame(decoded, frames[0].index, first_reasons)
        return frame if top is None else top_classes(self.plan, frame, top)

    def to(self, device: str) -> Ensemble:
        """Return this ensemble on another device: a copy, with modules of its own."""
        return Ensemble(tuple(member.to(device) for member in self.members))

    def logits_and_target(self, table: Table) -> tuple[Tree, Tree]:
        """Return the logits of the mean, float32, and the target, of rows that have all that the
        models need.
        """
        batches = [plan.encode(table) for plan in self.plans]
        pairs = zip(self.members, batches, strict=True)
        columns = mean_columns(
            [member.plan.decode(member.forward(batch)) for member, batch in pairs]
        )
        return map_tree(torch.Tensor.float, self._logits(columns)), batches[0].target

    def _logits(self, columns: Mapping[str, np.ndarray]) -> Tree:
        return predictions_to_logits(self.plan.spec.head, self.plan.facts["head"], columns)


def _check_heads(plans: Sequence[Plan]) -> None:
    # Targets, classes, scales, quantiles and losses must be the same. What heads have learned from
    # other rows (means, deviations, class weights) may differ: each model decodes with its own.
    first, *others = [_meaning(plan.spec.head, plan.facts["head"]) for plan in plans]
    for k, other in enumerate(others, 2):
        for name, one, two in differences(first, other, ignore=FREE_FIELDS, path="head"):
            text = f"{name} is {_shortened(one)} in model 1 and {_shortened(two)} in model {k}"
            raise SpecError(f"models with different heads cannot be averaged: {text}")


def _meaning(head: Head, facts: Facts) -> dict[str, Any]:
    meaning = to_dict(head)
    for name, child in getattr(head, "head", {}).items():
        meaning["head"][name] = _meaning(child, facts[name])
    return {**meaning, "classes": facts["classes"]} if "classes" in facts else meaning


def _shortened(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def mean_columns(decoded: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Average columns of predictions: those of numbers, for labels are derived from the means."""
    names = [name for name, column in decoded[0].items() if column.dtype == np.float64]
    return {
        name: np.mean([np.asarray(columns[name]) for columns in decoded], axis=0) for name in names
    }


def ensemble(models: Sequence[Predictor | Ensemble]) -> Ensemble:
    """Make one model of several with the same head; see `Ensemble`.

    The members of an ensemble count as models of their own. Raises SpecError naming the first
    difference between heads.
    """
    groups = [model.members if isinstance(model, Ensemble) else (model,) for model in models]
    return Ensemble(tuple(chain.from_iterable(groups)))


def save_ensemble(path: str | Path, models: Ensemble, *, overwrite: bool = False) -> None:
    """Write an ensemble to one safetensors file, which `mip.load` reads like that of a model.

    Equal ensembles give equal bytes. Raises FileError if the file exists, unless `overwrite` is
    set.
    """
    states = [State(dict(m.net.state_dict()), {}, optimizer=()) for m in models.members]
    save_models(path, list(zip(models.plans, states, strict=True)), overwrite=overwrite)


class HasModel(Protocol):
    """What `mip.run` returns."""

    @property
    def predict(self) -> Predictor: ...


def as_model(model: Any) -> Any:
    """Return the Predictor of a finished run; any other model as it is."""
    predict = getattr(model, "predict", None)
    return predict if isinstance(predict, Predictor) else model


def open_model(model: Any) -> Any:
    """Load the file of a model, or return the Predictor of a finished run; any other model as it
    is.
    """
    return load(model) if isinstance(model, (str, Path)) else as_model(model)


def load(
    path: str | Path, kinds: Mapping[str, type] = KINDS, device: str = "cpu"
) -> Predictor | Ensemble:
    """Load the file of a model or an ensemble, or the model in a run folder: a function from rows
    to a DataFrame.

    It needs nothing else, and nothing in the file is executed. Raises FileError for a file that is
    damaged or not a model file, or that names a kind that is not in `kinds`.
    """
    models = load_models(path, kinds)
    try:
        members = [predictor(plan, state, device) for plan, state in models]
        return members[0] if len(members) == 1 else Ensemble(tuple(members))
    except (AttributeError, KeyError, SpecError, TypeError, ValueError) as error:
        raise FileError(f"{path}: no model can be built from its plan ({error})") from error
