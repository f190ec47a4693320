"""Many runs: combinations of values and seeds, in worker processes."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cache as cached
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from mip.data import mean_and_std, read, stream
from mip.errors import FileError, MipError, SpecError
from mip.files import is_run
from mip.model import Parts, clean, fingerprint, parts
from mip.predict import Ensemble, Predictor, evaluate, load
from mip.runs.jobs import Run, run
from mip.spec import KINDS, Spec, load_spec
from mip.workers import parallel_map

Scores = Mapping[str, Mapping[str, float]]
"""The loss and the metrics by part: `valid` and `test`, where these have rows."""


@frozen
class Trial:
    """One of many runs: a name that says what it changes, a spec, its rows, and the folder that
    keeps it; without one nothing is kept.
    """

    name: str
    spec: Spec
    parts: Parts
    out: Path | None = None


@frozen
class Outcome:
    """How a trial ended: with scores and a run, or with an error that names it. A run that a sweep
    finds in its folder, or leaves there, is not given.
    """

    name: str
    scores: Scores = field(factory=dict)
    run: Run | None = None
    error: MipError | None = None


def runs(
    trials: Iterable[Trial],
    workers: int = 1,
    *,
    overwrite: bool = False,
    kinds: Mapping[str, type] = KINDS,
    base: str | Path = ".",
    cache: str | Path | None = None,
) -> Iterator[Outcome]:
    """Run trials on the CPU in so many processes; outcomes come in their order.

    Each is the very run that `mip.run` makes alone, to the bit where that has one thread of
    torch's, as each process has. An error of one is in its outcome, and the others go on.
    A folder that holds a run already is such an error, unless `overwrite` says to replace it.
    """
    with_run = partial(_ran, base=Path(base), cache=cache, overwrite=overwrite)
    return parallel_map(partial(_guarded, with_run, dict(kinds)), trials, workers)


def _ran(
    trial: Trial,
    kinds: Mapping[str, type],
    base: Path,
    cache: str | Path | None,
    overwrite: bool = False,
) -> Outcome:
    keeping = partial(run, kinds=kinds, device="cpu", base=base, cache=cache)
    ended = keeping(trial.spec, trial.parts, trial.out, overwrite=overwrite)
    return Outcome(trial.name, scores_of(ended.predict, trial.parts), ended)


def failed(trial: Trial, error: MipError) -> Outcome:
    """Give the outcome of a trial that ended with an error, which then names it."""
    return Outcome(trial.name, error=type(error)(f"{trial.name}: {error}"))


def scores_of(predict: Predictor | Ensemble, cut: Parts) -> Scores:
    """Score a model on the valid and the test rows, where there are some."""
    held = {"valid": cut.valid, "test": cut.test}
    return {name: evaluate(predict, rows) for name, rows in held.items() if len(rows)}


def _guarded(
    function: Callable[[Trial, Mapping[str, type]], Outcome],
    kinds: Mapping[str, type],
    trial: Trial,
) -> Outcome:
    try:
        return function(trial, kinds)
    except MipError as error:
        return failed(trial, error)
    except Exception as error:  # whatever goes wrong in one run, the others are not lost
        told = f"{trial.name}: {type(error).__name__}: {error}"
        return Outcome(trial.name, error=MipError(told))


# Sweeps.


@frozen
class Combination:
    """What one combination of changes gave: an outcome for each seed, and where the runs lie."""

    changes: Mapping[str, Any]
    outcomes: tuple[Outcome, ...]
    folders: tuple[Path, ...]

    @property
    def valid(self) -> float:
        """The mean valid loss over the seeds; NaN where a run failed, or its loss is NaN."""
        mean, _, known = self.average("valid", "loss")
        return mean if known == len(self.outcomes) else math.nan

    def average(self, part: str, metric: str) -> tuple[float, float, int]:
        """Give mean and standard deviation of a metric over the seeds that ended and in which it is
        defined, and how many these are: NaN for the mean of none, and the deviation of one.
        """
        found = (each.scores.get(part, {}).get(metric, math.nan) for each in self.outcomes)
        return mean_and_std(found)


def grid(values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Make all combinations of changes; the last path changes fastest.

    >>> grid({"train.batch_size": [16, 32], "head.layers": [[8]]})
    [{'train.batch_size': 16, 'head.layers': [8]}, {'train.batch_size': 32, 'head.layers': [8]}]
    """
    return [dict(zip(values, each, strict=True)) for each in product(*values.values())]


def best(combinations: Sequence[Combination]) -> int:
    """Find the place of the least mean valid loss; -1 where every combination has a failed run."""
    losses = {k: each.valid for k, each in enumerate(combinations) if each.valid == each.valid}
    return min(losses, key=losses.__getitem__, default=-1)


def sweep(
    path: str | Path,
    values: Mapping[str, Sequence[Any]],
    out: str | Path,
    *,
    seeds: int = 1,
    workers: int = 1,
    overwrite: bool = False,
    kinds: Mapping[str, type] = KINDS,
    cache: str | Path | None = None,
    told: Callable[[Outcome], object] = lambda outcome: None,
) -> list[Combination]:
    """Run a spec file with every combination of changed values, with so many seeds each.

    `values` gives the values to try by the path that they change; seeds count up from the spec's
    own. Each run has a folder below `out`, and one whose model is there is not run again. `told`
    is given each outcome as it comes. Raises SpecError before any run where a combination is no
    spec, and for a spec without valid rows. A folder with a run of another spec or other rows is
    an error in the outcome, unless `overwrite` says to replace it.
    """
    path, out = Path(path), Path(out)
    changes = grid(values)
    seeded = [each | seed for each in changes for seed in _seeds(path, kinds, each, seeds)]
    specs = {name_of(each): load_spec(path, kinds, each) for each in seeded}
    if len(specs) < len(seeded):
        raise SpecError("a sweep has a combination of values twice")
    outcomes = []
    one = partial(_swept, base=path.parent, cache=cache, overwrite=overwrite)
    work = partial(_guarded, one, dict(kinds))
    with closing(parallel_map(work, _trials(path, specs, out), workers)) as coming:
        for outcome in coming:
            told(outcome)
            outcomes.append(outcome)
    every = range(0, len(outcomes), len(outcomes) // len(changes))
    grouped = [tuple(outcomes[k : k + every.step]) for k in every]
    return [_combined(*each, out) for each in zip(changes, grouped, strict=True)]


def _combined(changes: Mapping[str, Any], outcomes: tuple[Outcome, ...], out: Path) -> Combination:
    return Combination(changes, outcomes, tuple(out / each.name for each in outcomes))


def _seeds(
    path: Path, kinds: Mapping[str, type], changes: Mapping[str, Any], count: int
) -> list[dict[str, int]]:
    first = load_spec(path, kinds, changes).train.seed
    if count < 1:
        raise SpecError(f"a sweep needs one seed or more, and is asked for {count}")
    if count > 1 and "train.seed" in changes:
        raise SpecError("a sweep over train.seed has its seeds; leave out their number")
    return [{"train.seed": first + k} for k in range(count)]


def name_of(changes: Mapping[str, Any]) -> str:
    """Name a combination of changes: also a folder's name, so that a text is made harmless.

    >>> name_of({"train.optimizer.lr": 0.01, "train.seed": 1})
    'train.optimizer.lr=0.01,train.seed=1'
    """
    text = ",".join(f"{name}={value}" for name, value in changes.items())
    plain = re.sub(r"[^\w.,=+-]", "_", text)[:120]
    # What is cut or replaced may be all that two combinations differ in.
    mark = hashlib.sha256(text.encode()).hexdigest()[:8]
    return text if text == plain else f"{plain}-{mark}"


def _trials(path: Path, specs: Mapping[str, Spec], out: Path) -> Iterator[Trial]:
    rows_of = cached(lambda table, streamed: (stream if streamed else read)(table))
    for name, spec in specs.items():
        if not spec.data.table:
            raise SpecError(f"{path}: data.table is missing")
        rows: Any = rows_of(path.parent / spec.data.table, spec.data.stream)
        cut = parts(spec, clean(spec, rows)[0], path.parent)
        if not len(cut.valid):
            raise SpecError(f"{path}: a sweep chooses by valid loss and needs a valid part")
        yield Trial(name, spec, cut, out / name)


def _swept(
    trial: Trial,
    kinds: Mapping[str, type],
    base: Path,
    cache: str | Path | None,
    overwrite: bool,
) -> Outcome:
    out = Path(trial.out or ".")
    model = out / "model.safetensors"
    if model.is_file():
        predict = load(model, kinds)
        if _is_of(predict, trial):
            return Outcome(trial.name, scores_of(predict, trial.parts))
        if not overwrite:
            cure = "choose another --out, or replace it with --force (overwrite=True in Python)"
            raise FileError(f"{out}: holds a run of another spec or other rows; {cure}")
    # A run that was stopped begins anew.
    return evolve(_ran(trial, kinds, base, cache, overwrite or is_run(out)), run=None)


def _is_of(predict: Predictor | Ensemble, trial: Trial) -> bool:
    rows = fingerprint(trial.spec, trial.parts.train)
    return predict.plan.spec == trial.spec and predict.plan.facts["rows"] == rows
