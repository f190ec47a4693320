"""Cross-validation."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from attrs import field, frozen

from mip.data import AnyRows, Shards, Table, split
from mip.errors import DataError, MipError, MipWarning, SpecError
from mip.heads import column_heads
from mip.model import Parts, Plan, table_of
from mip.prediction import evaluate
from mip.runs.context import DEFAULT_CONTEXT, Context, sharing_features
from mip.runs.feeding import scoring_predictor
from mip.runs.jobs import Job
from mip.runs.runner import no_hooks, run
from mip.spec import Spec
from mip.train import Hook, State
from mip.workers import parallel_map

if TYPE_CHECKING:
    import pandas as pd


@frozen
class CrossValidation:
    """Out-of-fold predictions, a row each with its label, in the table's order, and the scores of
    each of `folds`. A fold that failed has neither; `errors` has its error by its name.
    """

    predictions: pd.DataFrame
    scores: tuple[Mapping[str, float], ...]
    seconds: float
    folds: tuple[str, ...] = ()
    errors: Mapping[str, MipError] = field(factory=dict)
    models: tuple[tuple[Plan, State], ...] = field(default=(), repr=False)
    """The trained models, if they were to be kept, each without the state of its optimizer."""


class _Fold(NamedTuple):
    predictions: pd.DataFrame
    scores: dict[str, float]
    models: tuple[tuple[Plan, State], ...]


def crossval(
    spec: Spec,
    rows: AnyRows,
    column: str,
    *,
    make_hooks: Callable[[Job], Sequence[Hook]] = no_hooks,
    workers: int = 1,
    keep_models: bool = False,
    context: Context = DEFAULT_CONTEXT,
) -> CrossValidation:
    """For each value of `column`, train on the other rows and predict those with the value.

    If the spec chooses by valid loss (`restore_best` or `patience`), 15% of each training part is
    set aside for it. The models of `[warm_start]` should not have seen the rows either, which
    cannot be checked here. The folds are shared among `workers` processes of one torch thread
    each. `keep_models` returns the models too; `run_folds` joins them.

    A fold that fails does not lose the others: it is warned of (MipWarning), and its error is in
    `errors`. If every fold fails, the error of the first is raised.
    """
    import pandas as pd

    if not isinstance(column, str):
        cure = "mip.folds(rows, k=5) makes 'fold_0'"
        raise SpecError(f"crossval: name a column of folds, not {column!r}; {cure}")
    began, table = time.monotonic(), table_of(spec, rows)
    if isinstance(table, Shards):
        raise DataError("crossval: shards must be read into memory: mip.read")
    fold_of_row = table.texts(column)
    for position in np.flatnonzero(fold_of_row == "")[:1].tolist():
        raise DataError(f"{table.cell_name(position, column)}: no fold")
    names = sorted(set(fold_of_row))
    if len(names) < 2:
        raise SpecError(f"{table.name}: column '{column}' has {len(names)} fold; 2 are needed")
    with sharing_features(context) as sharing:
        run_fold = partial(_run_fold, spec, table, column, make_hooks, sharing, keep_models)
        outcomes = _run_folds(run_fold, names, workers)
    folds = {name: fold for name, fold in outcomes.items() if isinstance(fold, _Fold)}
    errors = {name: error for name, error in outcomes.items() if isinstance(error, MipError)}
    if not folds:
        raise errors[names[0]]
    for error in errors.values():
        warnings.warn(str(error), MipWarning, stacklevel=2)
    indices = np.concatenate([np.flatnonzero(fold_of_row == name) for name in folds])
    joined = pd.concat([fold.predictions for fold in folds.values()], ignore_index=True)
    in_order = joined.iloc[np.argsort(indices)].set_axis(table.index[np.sort(indices)])
    scores = tuple(fold.scores for fold in folds.values())
    models = tuple(chain.from_iterable(fold.models for fold in folds.values()))
    seconds = time.monotonic() - began
    return CrossValidation(in_order, scores, seconds, tuple(folds), errors, models)


def join_repeats(repeats: Mapping[str, CrossValidation]) -> CrossValidation:
    """Join the cross-validations over several columns of folds, which are named by these columns:
    the predictions have the column in `repeat`, and a fold is called `fold_0: 3`. A single one
    stays as it is.
    """
    import pandas as pd

    if len(repeats) == 1:
        return next(iter(repeats.values()))
    predictions = [done.predictions.assign(repeat=name) for name, done in repeats.items()]
    return CrossValidation(
        pd.concat(predictions),
        tuple(scores for done in repeats.values() for scores in done.scores),
        sum(done.seconds for done in repeats.values()),
        tuple(f"{name}: {fold}" for name, done in repeats.items() for fold in done.folds),
        {
            f"{name}: {k}": error
            for name, done in repeats.items()
            for k, error in done.errors.items()
        },
    )


def _run_folds(
    run_fold: Callable[[str], _Fold], names: Sequence[str], workers: int
) -> dict[str, _Fold | MipError]:
    outcomes: dict[str, _Fold | MipError] = {}
    try:
        results = parallel_map(partial(_fold_or_error, run_fold), names, workers)
        outcomes.update(zip(names, results, strict=True))  # keeps what came before an error
    except MipError as error:  # a process died, and with it the folds that are not yet here
        outcomes |= {name: _naming(name, error) for name in names if name not in outcomes}
    return outcomes


def _fold_or_error(run_fold: Callable[[str], _Fold], name: str) -> _Fold | MipError:
    try:
        return run_fold(name)
    except Exception as error:  # whatever goes wrong in one fold, the others are not lost
        return _naming(name, error)


def _naming(name: str, error: Exception) -> MipError:
    if isinstance(error, MipError):
        return type(error)(f"fold '{name}': {error}")
    named = MipError(f"fold '{name}': {type(error).__name__}: {error}")
    named.__cause__ = error
    return named


def _run_fold(
    spec: Spec,
    table: Table,
    column: str,
    make_hooks: Callable[[Job], Sequence[Hook]],
    context: Context,
    keep_model: bool,
    name: str,
) -> _Fold:
    in_fold = table.texts(column) == name
    rest, test = table.take(np.flatnonzero(~in_fold)), table.take(np.flatnonzero(in_fold))
    needs_valid = spec.train.restore_best or spec.train.patience
    fractions = (0.85, 0.15) if needs_valid else (1.0, 0.0)
    by = spec.data.split
    train, valid = split(rest, fractions, spec.train.seed, by.stratify, by.group)
    parts = Parts(train, valid, test)
    ended = run(spec, parts, make_hooks=make_hooks, context=context)
    predict = scoring_predictor(ended.predict, test, context)
    heads = ((path.split(".")[2::2], head.column) for path, head in column_heads(spec.head))
    truth = {".".join(["target", *names]): test[column].array for names, column in heads}
    predictions = predict(test).assign(fold=name, **truth)
    weights = {name: value.cpu() for name, value in ended.predict.net.state_dict().items()}
    models = ((ended.plan, State(weights, {}, optimizer=())),) if keep_model else ()
    return _Fold(predictions, evaluate(predict, test), models)
