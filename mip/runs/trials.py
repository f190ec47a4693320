"""Many runs in worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from attrs import evolve, field, frozen

from mip.errors import MipError
from mip.model import Parts
from mip.prediction import Ensemble, Predictor
from mip.runs.context import DEFAULT_CONTEXT, Context, sharing_features
from mip.runs.feeding import score_rows
from mip.runs.runner import Run, run
from mip.spec import Spec
from mip.workers import parallel_map

ScoresByPart = Mapping[str, Mapping[str, float]]
"""The loss and the metrics of the parts `valid` and `test`, if these have rows."""


@frozen
class Trial:
    """One of many runs: a spec, its rows, a name that says what is special about it, and the folder
    that the run is saved in; without one nothing is kept.
    """

    name: str
    spec: Spec
    parts: Parts
    out: Path | None = None


@frozen
class Outcome:
    """How a trial ended: with scores and a run, or with an error. A sweep leaves `run` out, for its
    runs are in their folders.
    """

    name: str
    scores: ScoresByPart = field(factory=dict)
    run: Run | None = None
    error: MipError | None = None


def run_trials(
    trials: Iterable[Trial],
    workers: int = 1,
    *,
    overwrite: bool = False,
    context: Context = DEFAULT_CONTEXT,
) -> Iterator[Outcome]:
    """Run trials in `workers` processes and yield their outcomes in the order of the trials.

    They run on the CPU unless the context names a device. Each is the very run that `mip.run`
    makes alone, bit for bit if that has one torch thread, as each process has. A trial that fails
    has its error in its outcome, and the others continue. A folder that already holds a run is
    such an error, unless `overwrite` is set.
    """
    with sharing_features(on_cpu(context)) as context:
        run_one = partial(run_trial, overwrite=overwrite, context=context)
        yield from parallel_map(partial(outcome_or_error, run_one), trials, workers)


def on_cpu(context: Context) -> Context:
    """Return a context whose default device is the CPU, for runs in several processes."""
    return evolve(context, device=context.device or "cpu")


def run_trial(trial: Trial, *, overwrite: bool, context: Context) -> Outcome:
    """Run a trial and score its model."""
    ended = run(trial.spec, trial.parts, out=trial.out, overwrite=overwrite, context=context)
    return Outcome(trial.name, held_out_scores(ended.predict, trial.parts, context), ended)


def held_out_scores(
    predict: Predictor | Ensemble, parts: Parts, context: Context = DEFAULT_CONTEXT
) -> ScoresByPart:
    """Score a model on the valid and the test rows, if there are any."""
    held_out = {"valid": parts.valid, "test": parts.test}
    return {
        name: score_rows(predict, rows, context) for name, rows in held_out.items() if len(rows)
    }


def outcome_or_error(run_one: Callable[[Trial], Outcome], trial: Trial) -> Outcome:
    """Run a trial; whatever goes wrong becomes an outcome with an error that names the trial."""
    try:
        return run_one(trial)
    except MipError as error:
        return Outcome(trial.name, error=type(error)(f"{trial.name}: {error}"))
    except Exception as error:  # a bug in one run must not lose the others
        text = f"{trial.name}: {type(error).__name__}: {error}"
        return Outcome(trial.name, error=MipError(text))
