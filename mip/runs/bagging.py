"""Bagging: the models of all folds as one, which predicts their mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import frozen

from mip.data import AnyRows
from mip.errors import MipError
from mip.files import check_run_folder, clear_run, input_files, locked, write_spec
from mip.prediction import Ensemble, predictor, save_ensemble
from mip.runs.context import DEFAULT_CONTEXT, Context
from mip.runs.crossvalidation import CrossValidation, crossval
from mip.runs.jobs import Job
from mip.runs.runner import no_hooks, relocate
from mip.runs.tables import write_table
from mip.spec import Spec
from mip.train import Hook


@frozen
class Bagged:
    """The models of all folds as one, and the cross-validation that trained them."""

    predict: Ensemble
    folds: CrossValidation


def run_folds(
    spec: Spec,
    rows: AnyRows,
    column: str,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    workers: int = 1,
    make_hooks: Callable[[Job], Sequence[Hook]] = no_hooks,
    context: Context = DEFAULT_CONTEXT,
) -> Bagged:
    """Train a model for each value of `column`, on the other rows, as `crossval` does, and join
    them to one that predicts their mean (Breiman 1996, with folds for bootstrap samples).

    Out-of-fold predictions and scores are those of single models, each of rows that it has not
    seen; the mean of all usually scores better on new rows. The folder `out` gets `spec.toml`,
    `model.safetensors` with all models, and `out_of_fold.csv` with the predictions.

    Raises the errors of `crossval`, that of a fold that fails, and FileError for a folder that
    already holds a run, unless `overwrite` is set.
    """
    if out is None:
        return _train(spec, rows, column, workers, make_hooks, context)
    out = Path(out)
    with locked(out):
        check_run_folder(out, overwrite=overwrite, inputs=input_files(spec, context.base))
        bagged = _train(spec, rows, column, workers, make_hooks, context)
        clear_run(out)
        write_spec(out, relocate(spec, context.base, out))
        predictions = bagged.folds.predictions.rename_axis("row")
        write_table(out / "out_of_fold.csv", predictions, overwrite=True)
        save_ensemble(out / "model.safetensors", bagged.predict, overwrite=True)
    return bagged


def _train(
    spec: Spec,
    rows: AnyRows,
    column: str,
    workers: int,
    make_hooks: Callable[[Job], Sequence[Hook]],
    context: Context,
) -> Bagged:
    done = crossval(
        spec,
        rows,
        column,
        make_hooks=make_hooks,
        workers=workers,
        keep_models=True,
        context=context,
    )
    for error in done.errors.values():
        raise MipError(f"{error}; the mean of the other folds would not be that of all rows")
    device = context.resolved_device()
    models = (predictor(plan, state, device) for plan, state in done.models)
    return Bagged(Ensemble(tuple(models)), done)
