"""Cross-validation."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from attrs import field, frozen

from mip.data import Table, split
from mip.errors import MipError, MipWarning, SpecError
from mip.heads import column_heads
from mip.model import Parts
from mip.predict import evaluate
from mip.runs.jobs import Job, Run, no_hooks, run
from mip.spec import KINDS, Spec
from mip.train import Hook
from mip.workers import parallel_map

if TYPE_CHECKING:
    import pandas as pd


@frozen
class CrossValidation:
    """Out-of-fold predictions, a row each with its label, in the table's order, and for each of
    `folds` its scores. A fold that failed has neither, and its error under its name.
    """

    predictions: pd.DataFrame
    scores: tuple[Mapping[str, float], ...]
    seconds: float
    folds: tuple[str, ...] = ()
    errors: Mapping[str, MipError] = field(factory=dict)


def crossval(
    spec: Spec,
    table: Table,
    column: str,
    hooks: Callable[[Job], Sequence[Hook]] = no_hooks,
    kinds: Mapping[str, type] = KINDS,
    cache: str | Path | None = None,
    base: str | Path = ".",
    workers: int = 1,
) -> CrossValidation:
    """Train once for each value of `column` on the other rows, and predict its own.

    Where the spec chooses by valid loss (`restore_best` or `patience`), 15% of each training
    part is set aside for it. The models of `[warm_start]` should not have seen the rows either,
    which cannot be checked here. `base` is the folder that the spec's paths are relative to.
    The folds are shared among so many `workers`, processes with a thread of torch's each.

    A fold that fails does not lose the others: it is warned of (MipWarning), and its error is in
    `errors`. Where every fold fails, the error of the first is raised.
    """
    import pandas as pd

    began, words = time.monotonic(), table.texts(column)
    folds = sorted(set(words))
    if len(folds) < 2:
        raise SpecError(f"{table.name}: column '{column}' has {len(folds)} fold, two are needed")
    training = partial(run, spec, hooks=hooks, kinds=dict(kinds), cache=cache, base=base)
    held_out = partial(_held_out, training, spec, table, column)
    outcomes = dict(_outcomes(partial(_attempted, held_out), folds, workers))
    errors = {fold: each for fold, each in outcomes.items() if isinstance(each, MipError)}
    if len(errors) == len(folds):
        raise errors[folds[0]]
    for error in errors.values():
        warnings.warn(str(error), MipWarning, stacklevel=2)
    done = {fold: each for fold, each in outcomes.items() if not isinstance(each, MipError)}
    frames, scores = zip(*done.values(), strict=True)
    places = np.concatenate([np.flatnonzero(words == fold) for fold in done])
    joined = pd.concat(frames, ignore_index=True).iloc[np.argsort(places)]
    predictions = joined.set_axis(table.index[np.sort(places)])
    return CrossValidation(predictions, scores, time.monotonic() - began, tuple(done), errors)


Fold = tuple["pd.DataFrame", dict[str, float]]
"""What one fold gives: its predictions and its scores."""


def _outcomes(
    attempted: Callable[[str], Fold | MipError], folds: Sequence[str], workers: int
) -> Iterator[tuple[str, Fold | MipError]]:
    left = list(folds)
    try:
        for outcome in parallel_map(attempted, folds, workers):
            yield left.pop(0), outcome
    except MipError as error:  # a process that ended takes the folds with it that it had not sent
        yield from ((fold, _named(fold, error)) for fold in left)


def _attempted(held_out: Callable[[str], Fold], fold: str) -> Fold | MipError:
    try:
        return held_out(fold)
    except Exception as error:  # whatever goes wrong in one fold, the others are not lost
        return _named(fold, error)


def _named(fold: str, error: Exception) -> MipError:
    if isinstance(error, MipError):
        return type(error)(f"fold '{fold}': {error}")
    named = MipError(f"fold '{fold}': {type(error).__name__}: {error}")
    named.__cause__ = error
    return named


def _held_out(
    training: Callable[[Parts], Run], spec: Spec, table: Table, column: str, fold: str
) -> Fold:
    own = table.texts(column) == fold
    rest, test = table.take(np.flatnonzero(~own)), table.take(np.flatnonzero(own))
    choosing = spec.train.restore_best or spec.train.patience
    shares = (0.85, 0.15) if choosing else (1.0, 0.0)
    train, valid = split(rest, shares, spec.train.seed, spec.data.split.stratify)
    ended = training(Parts(train, valid, test))
    named = ((path.split(".")[2::2], head.column) for path, head in column_heads(spec.head))
    truth = {".".join(["target", *names]): test[column].array for names, column in named}
    return ended.predict(test).assign(fold=fold, **truth), evaluate(ended.predict, test)
