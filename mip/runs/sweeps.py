"""Sweeps: every combination of values, with several seeds."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from mip.data import mean_and_std, read, stream
from mip.errors import FileError, MipError, SpecError
from mip.files import is_run
from mip.model import clean, fingerprint, has_same_files, parts
from mip.prediction import Ensemble, Predictor, load
from mip.runs.context import DEFAULT_CONTEXT, Context, sharing_features
from mip.runs.trials import Outcome, Trial, held_out_scores, on_cpu, outcome_or_error, run_trial
from mip.spec import Spec, load_spec
from mip.workers import parallel_map


@frozen
class Combination:
    """The results of one combination of changes: an outcome and a run folder for each seed."""

    changes: Mapping[str, Any]
    outcomes: tuple[Outcome, ...]
    folders: tuple[Path, ...]

    @property
    def valid_loss(self) -> float:
        """The mean valid loss over the seeds; NaN if a run failed or has no finite loss."""
        mean, _, n_seeds = self.average("valid", "loss")
        return mean if n_seeds == len(self.outcomes) else math.nan

    def average(self, part: str, metric: str) -> tuple[float, float, int]:
        """Return mean and standard deviation of a metric over the seeds in which it is defined, and
        the number of these: NaN for the mean of none, and for the deviation of one.
        """
        return mean_and_std(
            outcome.scores.get(part, {}).get(metric, math.nan) for outcome in self.outcomes
        )


def combinations_of(values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """List all combinations of values; the last path changes fastest.

    >>> combinations_of({"train.batch_size": [16, 32], "head.layers": [[8]]})
    [{'train.batch_size': 16, 'head.layers': [8]}, {'train.batch_size': 32, 'head.layers': [8]}]
    """
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


def best_combination(combinations: Sequence[Combination]) -> Combination | None:
    """Return the combination with the least mean valid loss, the first of equals; None if a run of
    each has failed.
    """
    complete = [one for one in combinations if not math.isnan(one.valid_loss)]
    return min(complete, key=lambda one: one.valid_loss, default=None)


def sweep(
    path: str | Path,
    values: Mapping[str, Sequence[Any]],
    out: str | Path,
    *,
    seeds: int = 1,
    workers: int = 1,
    overwrite: bool = False,
    on_outcome: Callable[[Outcome], object] = lambda outcome: None,
    context: Context = DEFAULT_CONTEXT,
) -> list[Combination]:
    """Run a spec file with every combination of changed values, with `seeds` seeds each.

    `values` maps the path of each field to the values to try; seeds count up from the spec's own.
    Each run has a folder in `out`, and is skipped if its model is already there; `on_outcome` is
    called with each outcome as it comes. Paths in the spec are relative to its file. For the
    device see `run_trials`.

    Raises SpecError before any run for a combination that is not a spec and for a spec without
    valid rows, and MipError for values that are not lists. A folder with a run of another spec or
    other rows is an error in the outcome, unless `overwrite` is set.
    """
    _check_arguments(path, values)
    path, out = Path(path), Path(out)
    context = evolve(on_cpu(context), base=path.parent)
    changes = combinations_of(values)
    seeded = [each | seed for each in changes for seed in _seeds(path, each, seeds, context)]
    specs = {name_of(each): load_spec(path, context.kinds, each) for each in seeded}
    if len(specs) < len(seeded):
        raise SpecError("a sweep has a combination of values twice")
    outcomes = []
    with sharing_features(context) as sharing:
        run_one = partial(_run_once, overwrite=overwrite, context=sharing)
        trials = _trials(path, specs, out)
        with closing(parallel_map(partial(outcome_or_error, run_one), trials, workers)) as results:
            for outcome in results:
                on_outcome(outcome)
                outcomes.append(outcome)
    n_seeds = len(outcomes) // len(changes)
    combinations = []
    for k, change in enumerate(changes):
        of_change = tuple(outcomes[k * n_seeds : (k + 1) * n_seeds])
        folders = tuple(out / outcome.name for outcome in of_change)
        combinations.append(Combination(change, of_change, folders))
    return combinations


def _check_arguments(path: Any, values: Any) -> None:
    if isinstance(path, Spec):
        raise MipError("sweep takes the path of a spec file; run_trials takes specs")
    if not isinstance(values, Mapping):
        raise MipError('sweep takes a dict of values to try, {"train.batch_size": [16, 32]}')
    for name, choices in values.items():
        if isinstance(choices, str) or not isinstance(choices, Sequence) or not choices:
            raise MipError(f"sweep takes a list of values for {name}, not {choices!r}")


def _seeds(
    path: Path, changes: Mapping[str, Any], count: int, context: Context
) -> list[dict[str, int]]:
    first = load_spec(path, context.kinds, changes).train.seed
    if count < 1:
        raise SpecError(f"a sweep needs at least one seed, not {count}")
    if count > 1 and "train.seed" in changes:
        raise SpecError("a sweep over train.seed names its seeds; leave out their number")
    return [{"train.seed": first + k} for k in range(count)]


def name_of(changes: Mapping[str, Any]) -> str:
    """Name a combination of changes, safely as a folder's name.

    >>> name_of({"train.optimizer.lr": 0.01, "train.seed": 1})
    'train.optimizer.lr=0.01,train.seed=1'
    """
    text = ",".join(f"{name}={value}" for name, value in changes.items())
    safe = re.sub(r"[^\w.,=+-]", "_", text)[:120]
    # Two combinations may differ only in what was cut or replaced.
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return text if text == safe else f"{safe}-{digest}"


def _trials(path: Path, specs: Mapping[str, Spec], out: Path) -> Iterator[Trial]:
    rows_of = cache(lambda table, form, streamed: stream(table) if streamed else read(table, form))
    for name, spec in specs.items():
        if not spec.data.table:
            raise SpecError(f"{path}: data.table is missing")
        data = spec.data
        rows: Any = rows_of(path.parent / data.table, data.format, data.stream)
        split = parts(spec, clean(spec, rows)[0], path.parent)
        if not len(split.valid):
            raise SpecError(f"{path}: a sweep chooses by valid loss and needs a valid part")
        yield Trial(name, spec, split, out / name)


def _run_once(trial: Trial, *, overwrite: bool, context: Context) -> Outcome:
    assert trial.out is not None
    model = trial.out / "model.safetensors"
    if model.is_file():
        predict = load(model, context.kinds)
        if _is_of(predict, trial, context.base):
            return Outcome(trial.name, held_out_scores(predict, trial.parts, context))
        if not overwrite:
            cure = "choose another --out, or replace it with --force (overwrite=True in Python)"
            raise FileError(f"{trial.out}: holds a run of another spec or other rows; {cure}")
    # A run that was stopped starts again.
    overwrite = overwrite or is_run(trial.out)
    return evolve(run_trial(trial, overwrite=overwrite, context=context), run=None)


def _is_of(predict: Predictor | Ensemble, trial: Trial, base: Path) -> bool:
    plan, rows = predict.plan, fingerprint(trial.spec, trial.parts.train)
    return plan.spec == trial.spec and plan.facts["rows"] == rows and has_same_files(plan, base)
