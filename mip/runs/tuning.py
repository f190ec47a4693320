"""Tuning: a search for the options of a spec, judged on rows that are not those of test.

Optuna's TPE sampler (Bergstra et al. 2011) proposes; each trial is a run of its own, perhaps in
another process. A journal keeps what has been tried, and the same search goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import asdict, evolve, frozen

from mip.data import Table, read
from mip.errors import FileError, MipError, SpecError, hint
from mip.files import locked
from mip.metrics import mode_of
from mip.model import Parts, clean, deal_folds, fingerprint, outside_test, parts
from mip.output import write
from mip.runs.context import DEFAULT_CONTEXT, Context, sharing_features
from mip.runs.crossvalidation import crossval
from mip.runs.feeding import score_rows
from mip.runs.runner import relocate, run
from mip.runs.search_space import Space, default_space, read_space
from mip.runs.tables import write_json
from mip.runs.trials import on_cpu
from mip.spec import Spec, dump, load_spec
from mip.workers import parallel_map

if TYPE_CHECKING:
    import optuna

JOURNAL = "trials.json"
"""The file of the trials, in the folder of a search."""


@frozen
class Tried:
    """A trial: the changes of the spec, none in trial 0, and its score, NaN if it failed by an
    `error`. `chosen` are the values as the sampler knows them.
    """

    number: int
    changes: Mapping[str, Any]
    chosen: Mapping[str, Any]
    score: float = math.nan
    seconds: float = 0.0
    error: str = ""


@frozen
class Tuned:
    """The result of a search: the trials, the first with the best score, its spec, and what this
    and the spec as it is ("before") score on test, each trained once more.
    """

    trials: tuple[Tried, ...]
    best: Tried
    spec: Spec
    test: Mapping[str, Mapping[str, float]]


def tune(
    path: str | Path,
    out: str | Path,
    space: Mapping[str, str] | None = None,
    *,
    trials: int = 40,
    minutes: float = math.inf,
    k: int = 0,
    metric: str = "loss",
    workers: int = 1,
    overwrite: bool = False,
    on_trial: Callable[[Tried], object] = lambda trial: None,
    context: Context = DEFAULT_CONTEXT,
) -> Tuned:
    """Search for the options of a spec file that score best on valid, or with `k` as the mean over
    k folds of train and valid; the rows of test are not looked at before the end.

    `space` says what is tried, by the path of each field: `"1e-4..1e-2"` is a range, on a log scale
    if its end is ten times its beginning, and `"16,32"` are choices. By default it is `[tune]` of
    the spec, or else `default_space`. No trial begins after `trials`, the first of which is the
    spec as it is, or after so many `minutes`. The folder `out` keeps them in a journal, and the
    same search goes on from there, with more of them too.

    The best of many scores too well on the rows that have chosen it. So the best and the spec as it
    is are trained once more and scored on test. The folder gets `best.toml`, and the run `best`.

    Raises SpecError for a field that the spec does not have and for a spec without valid rows (and
    without `k`), FileError for a folder with another search, unless `overwrite` is set, and
    MipError if Optuna is not installed, or every trial fails.
    """
    path, out = Path(path), Path(out)
    context = evolve(on_cpu(context), base=path.parent)
    spec = load_spec(path, context.kinds)
    named = dict(space or spec.tune or default_space(spec))
    ranges, mode = read_space(named), mode_of(metric)
    fixed = _fixed_fields(path, spec, ranges, context)
    rows = _read_rows(spec, path)
    split = parts(spec, rows, path.parent)
    if not k and not len(split.valid):
        raise SpecError(f"{path}: a search chooses by valid rows or by folds, and has neither")
    dealt = deal_folds(spec, outside_test(rows, split), k) if k else None
    spec = evolve(spec, tune=None)
    meaning = [dump(spec), named, metric, k, fingerprint(spec, split.train)]
    with locked(out), sharing_features(context) as sharing:
        journal = _Journal(out / JOURNAL, _digest(meaning))
        tried = [] if overwrite else journal.read()
        score_one = partial(_score, path, split, dealt, metric, sharing)
        search = partial(_search, tried, journal, score_one, ranges, fixed, mode)
        search(trials, minutes, workers, on_trial)
        best = _best(tried, mode, path)
        chosen = evolve(load_spec(path, context.kinds, best.changes), tune=None)
        text = dump(relocate(chosen, path.parent, out))
        write(out / "best.toml", text.encode(), overwrite=True)
        ended = run(chosen, split, out=out / "best", overwrite=True, context=sharing)
        test = {"best": ended}
        if best.changes:
            test["before"] = run(spec, split, context=sharing)
        scores = {
            name: score_rows(each.predict, split.test, sharing)
            for name, each in test.items()
            if len(split.test)
        }
    return Tuned(tuple(tried), best, chosen, scores)


def _fixed_fields(path: Path, spec: Spec, ranges: Space, context: Context) -> dict[str, str]:
    """Return what each trial must set besides: the kind of an optimizer that the file leaves out.
    Raises SpecError for a path that the spec does not have, or that cannot have these values.
    """
    fixed: dict[str, str] = {}
    for name, values in ranges.items():
        for value in values.ends():
            try:
                load_spec(path, context.kinds, {**fixed, name: value})
            except SpecError:
                kind = {"train.optimizer.kind": spec.train.optimizer.kind}
                if fixed or not name.startswith("train.optimizer."):
                    raise
                load_spec(path, context.kinds, {**kind, name: value})
                fixed = kind
    return fixed


def _read_rows(spec: Spec, path: Path) -> Table:
    if not spec.data.table:
        raise SpecError(f"{path}: data.table is missing")
    return clean(spec, read(path.parent / spec.data.table, spec.data.format))[0]


def _score(
    path: Path, split: Parts, dealt: Table | None, metric: str, context: Context, trial: Tried
) -> Tried:
    """Train a trial and score it; whatever goes wrong is its error."""
    began = time.monotonic()
    try:
        spec = load_spec(path, context.kinds, trial.changes)
        if dealt is None:
            ended = run(spec, split, context=context)
            scores = [score_rows(ended.predict, split.valid, context)]
        else:
            done = crossval(spec, dealt, "fold_0", context=context)
            scores = [dict(each) for each in done.scores]
        if metric not in scores[0]:
            raise MipError(f"there is no metric '{metric}'{hint(metric, scores[0])}")
        score = float(np.mean([each[metric] for each in scores]))
        return evolve(trial, score=score, seconds=time.monotonic() - began)
    except Exception as error:  # whatever a combination of options may raise
        text = str(error) if isinstance(error, MipError) else f"{type(error).__name__}: {error}"
        return evolve(trial, error=text, seconds=time.monotonic() - began)


def _search(
    tried: list[Tried],
    journal: _Journal,
    score_one: Callable[[Tried], Tried],
    ranges: Space,
    fixed: Mapping[str, str],
    mode: str,
    n_trials: int,
    minutes: float,
    workers: int,
    on_trial: Callable[[Tried], object],
) -> None:
    """Run trials, besides those that were tried before, and write each into the journal."""
    began, study = time.monotonic(), _study(tried, ranges, mode)
    distributions = _distributions(ranges)
    asked: dict[int, optuna.Trial] = {}

    def ask() -> Iterator[Tried]:
        if not tried:
            yield Tried(0, {}, {})
        for number in range(max(len(tried), 1), n_trials):
            if time.monotonic() - began > 60 * minutes:
                return
            trial = asked[number] = study.ask(distributions)
            changes = {name: ranges[name].value(drawn) for name, drawn in trial.params.items()}
            yield Tried(number, {**fixed, **changes}, trial.params)

    with closing(parallel_map(score_one, ask(), workers)) as results:
        for done in results:
            if done.number in asked:
                _tell(study, asked.pop(done.number), done.score)
            tried.append(done)
            journal.write(tried)
            on_trial(done)


def _tell(study: optuna.Study, trial: optuna.Trial, score: float) -> None:
    from optuna.trial import TrialState

    if math.isnan(score):
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, score)


def _study(tried: list[Tried], ranges: Space, mode: str) -> optuna.Study:
    """Make a study that knows what was tried before."""
    try:
        import optuna
    except ImportError as error:
        cure = "pip install 'mixed-input-pipelines[tune]'"
        raise MipError(f"a search needs optuna: {cure}") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=len(tried), constant_liar=True)
    direction: Any = f"{mode}imize"
    study = optuna.create_study(direction=direction, sampler=sampler)
    distributions = _distributions(ranges)
    for done in tried:
        if done.chosen and not math.isnan(done.score):
            study.add_trial(
                optuna.trial.create_trial(
                    params=dict(done.chosen), distributions=distributions, value=done.score
                )
            )
    return study


def _distributions(ranges: Space) -> dict[str, Any]:
    return {name: values.distribution() for name, values in ranges.items()}


def _best(tried: list[Tried], mode: str, path: Path) -> Tried:
    scored = [trial for trial in tried if not math.isnan(trial.score)]
    if not scored:
        raise MipError(f"{path}: every trial failed; the first: {tried[0].error}")
    sign = 1 if mode == "min" else -1
    return min(scored, key=lambda trial: sign * trial.score)


def _digest(meaning: Any) -> str:
    return hashlib.sha256(json.dumps(meaning, default=str).encode()).hexdigest()


@frozen
class _Journal:
    """The file of a search's trials, with a digest of what it is a search of."""

    path: Path
    origin: str

    def read(self) -> list[Tried]:
        """Return the trials so far; raises FileError for those of another search."""
        if not self.path.exists():
            return []
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            tried = [Tried(**{**each, "score": _number(each["score"])}) for each in found["trials"]]
            is_same = found["origin"] == self.origin
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FileError(f"{self.path}: not a journal of trials ({error})") from error
        if not is_same:
            cure = "choose another --out, or replace it with --force (overwrite=True in Python)"
            raise FileError(
                f"{self.path}: a search of another spec, other rows or another space; {cure}"
            )
        return tried

    def write(self, tried: list[Tried]) -> None:
        """Write all trials anew: the file is always whole."""
        trials = [asdict(trial) for trial in tried]
        write_json(self.path, {"origin": self.origin, "trials": trials}, overwrite=True)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
