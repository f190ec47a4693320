"""A whole run from a spec: the path in one function, as the command line walks it."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from attrs import evolve, field, frozen
from toolz import identity, pipe

from mip.branch import having
from mip.branches.fuse import Fuse
from mip.cache import default_folder
from mip.errors import DataError, FileError, MipError, MipWarning, SpecError
from mip.finder import Curve, find_rate
from mip.fit import History, Hook, fit
from mip.folder import check_folder, clear, files_read, last_checkpoint, write_spec
from mip.graft import Donors, donors, graft, grow
from mip.head import targets
from mip.hooks import best, checkpoint, log, validate
from mip.lock import locked
from mip.mix import can_mix, cutmix, either, has_photos, mixup
from mip.net import Net, build, spoken
from mip.optim import Optimizer, Params, Schedule
from mip.pipe import Pipe, augment, batch, collect, prefetch, sample, to, transform
from mip.plan import Plan, adapt
from mip.predict import Predictor, evaluate, predictor
from mip.prepare import Parts, columns_of, target_columns
from mip.shards import Shards
from mip.spec import KINDS, Spec, from_dict, to_dict
from mip.split import split
from mip.step import Metrics, State, Step, averaged, init, nothing, settled, train_step
from mip.store import Checkpoint, load_checkpoint, load_model, read_file, save, sound
from mip.table import Table
from mip.training import by_group, check, check_batch_norm, clipped, optimizer_of, step_of, watching
from mip.tree import leaves
from mip.workers import mapped

if TYPE_CHECKING:
    import pandas as pd

MEMORY = 2 << 30
"""Encoded rows of up to so many bytes are kept in memory; more are read anew each epoch."""


PIECE = 1 << 20
"""Rows are encoded at once up to so many bytes, and 64 rows at least."""


@frozen
class Job:
    """All that a run needs before its first step; `start` is where it begins, or goes on, and
    `metric` what chooses the best epoch, where there are valid rows.
    """

    plan: Plan
    step: Step
    batches: Pipe
    start: Checkpoint
    hooks: tuple[Hook, ...]
    steps: int
    metric: str | None = None


def job(
    spec: Spec,
    parts: Parts,
    device: str = "cpu",
    kinds: Mapping[str, type] = KINDS,
    cache: str | Path | None = None,
    given: Donors = MappingProxyType({}),
    measure: Callable[[Params, Params], Metrics] = nothing,
) -> Job:
    """Adapt, encode and build: from a spec and its rows to a step, a pipe and a state.

    `given` are the models that branches are grafted from, which `mip.graft.donors` reads;
    `measure` is that of `train_step`.
    """
    plan, net = _grown(spec, parts, given, kinds, device)
    _check_targets(plan, parts)
    batches = train_pipe(plan, parts.train, device, cache)
    steps = spec.train.epochs * len(batches)
    check(spec.train, net, steps)
    optimizer = optimizer_of(spec.train, steps)
    start = Checkpoint(
        init(net, optimizer, spec.train.seed), History(), _origin(spec, parts, kinds)
    )
    hooks = (
        *_validation(plan, parts, device, cache),
        *watching(spec.train, bool(len(parts.valid))),
    )
    metric = "valid/loss" if len(parts.valid) else None
    return Job(plan, step_of(plan, net, optimizer, measure), batches, start, hooks, steps, metric)


def _grown(
    spec: Spec, parts: Parts, given: Donors, kinds: Mapping[str, type], device: str
) -> tuple[Plan, Net]:
    plan = graft(adapt(spec, parts.train), given, kinds)
    net = grow(plan, given, spec.train.seed).to(device)
    check_batch_norm(plan, net, len(parts.train))
    return plan, net


def _check_targets(plan: Plan, parts: Parts) -> None:
    # Now and not after the training: a class that train lacks cannot be scored.
    for held in (parts.valid, parts.test):
        for chunk in held.chunks(target_columns(plan.spec)):
            plan.spec.head.encode(plan.facts["head"], chunk)


def rate_curve(
    spec: Spec,
    parts: Parts,
    steps: int = 100,
    device: str = "cpu",
    kinds: Mapping[str, type] = KINDS,
    cache: str | Path | None = None,
    base: str | Path = ".",
) -> Curve:
    """Try learning rates on a spec's model and training rows; see `find_rate`. Nothing is kept.

    A group of parameters is trained with its multiple of the rate that is tried, and from the
    epoch on at which it starts.
    """
    plan, net = _grown(spec, parts, donors(spec, base, kinds), kinds, device)
    batches = train_pipe(plan, parts.train, device, cache)
    check(spec.train, net, spec.train.epochs * len(batches))

    def optimizer(rate: Schedule) -> Optimizer:
        rates = lambda multiple: lambda step: multiple * rate(step)  # noqa: E731
        return clipped(spec.train, by_group(spec.train, rates, len(batches)))

    state = init(net, optimizer(lambda step: 0.0), spec.train.seed)
    train = lambda rate: train_step(net, plan.loss, optimizer(rate))  # noqa: E731
    return find_rate(train, batches, state, steps=steps)


@frozen
class Run:
    """What a run ends with: a plan, the state that became the model, and the history."""

    plan: Plan
    state: State
    history: History
    seconds: float
    device: str = "cpu"

    @property
    def predict(self) -> Predictor:
        """The trained model as a function."""
        return predictor(self.plan, self.state, self.device)


def no_hooks(job: Job) -> tuple[Hook, ...]:
    """Ask for no hooks: the default. Unlike a lambda, it can be sent to a worker process."""
    return ()


def run(
    spec: Spec,
    parts: Parts,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    hooks: Callable[[Job], Sequence[Hook]] = no_hooks,
    kinds: Mapping[str, type] = KINDS,
    device: str | None = None,
    base: str | Path = ".",
    cache: str | Path | None = None,
) -> Run:
    """Adapt, build, fit and save, as the spec's `[train]` says.

    The folder `out` gets `spec.toml`, `checkpoints/`, `history.jsonl` and `model.safetensors`.
    With `resume` it goes on from `checkpoints/last.safetensors`, and refuses if the spec or the
    rows have changed since; grafted branches are in that file, and the models that they came from
    are not read again. `hooks` are made when the job is laid out. `base` is the folder that the
    spec's paths are relative to; those of the `spec.toml` written are relative to `out`. Decoded
    photos are kept in the folder `cache`, or where the rows do not fit into memory in that of the
    user.

    Raises FileError for a folder that holds a run already, or other files of the names that a run
    writes; `overwrite` replaces them. The folder is locked meanwhile: FileError names the process
    that trains into it already.
    """
    if out is None:
        with TemporaryDirectory() as folder:
            again = partial(run, spec, parts, folder, hooks=hooks, kinds=kinds)
            return again(device=device, base=base, cache=cache)
    began, out = time.monotonic(), Path(out)
    device = device or device_here()
    with locked(out):
        check_folder(out, resume, overwrite, files_read(spec, Path(base)))
        given = own(spec, last_checkpoint(out), kinds) if resume else donors(spec, base, kinds)
        laid = job(spec, parts, device, kinds, cache, given)
        if resume:
            laid = evolve(laid, start=resumed(out, laid.start, kinds))
            _check_best(out, laid)
        told = hooks(laid)
        if not resume:
            clear(out)
        write_spec(out, _moved(spec, Path(base), out), kinds)
        last, kept = _trained(laid, out, told, kinds)
        save(out / "model.safetensors", laid.plan, kept.state, kinds, overwrite=True)
    return Run(laid.plan, kept.state, last.history, time.monotonic() - began, device)


def device_here() -> str:
    """Name the device that a run takes by itself: the GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _check_best(out: Path, laid: Job) -> None:
    # Now and not after the training: where no epoch to come is better, that file is the model.
    at = best(laid.start.history.epochs, "valid/loss")
    if at < 0 or laid.plan.spec.train.keep != "best":
        return
    path = out / "checkpoints" / "best.safetensors"
    try:
        read_file(path)
    except FileError as error:
        same = path.with_name(f"epoch-{at:04}.safetensors")
        whole = same in [each for _, each in sound(path.parent)]
        cure = f"{same.name} is the same: copy it over {path.name}" if whole else "start anew"
        raise FileError(f"{error}; {cure}") from error


def _trained(
    laid: Job, out: Path, hooks: Sequence[Hook], kinds: Mapping[str, type]
) -> tuple[Checkpoint, Checkpoint]:
    _fold(laid, out, hooks, kinds)
    last = _read(out, "last", laid.start) if laid.steps else laid.start
    kept = _read(out, "best", last) if laid.plan.spec.train.keep == "best" else last
    kept = evolve(kept, state=_settled(laid, kept.state))
    check_numbers(kept.state, out)
    return last, kept


def _settled(laid: Job, state: State) -> State:
    if averaged(state) is state:
        return state
    device = next((param.device for param in state.params.values()), None)
    net = build(laid.plan, pretrain=False).to(device)
    return settled(net, state, islice(laid.batches.at(0), len(laid.batches)))


def check_numbers(state: State, out: str | Path) -> None:
    """Raise DataError naming a parameter that is not finite: such a state is no model."""
    for path, param in state.params.items():
        if not param.isfinite().all():
            told = f"{spoken(path)} is not finite (try a smaller train.optimizer.lr)"
            raise DataError(f"{out}: no model is saved: {told}")


def _moved(spec: Spec, base: Path, out: Path) -> Spec:
    def path(name: str) -> str:
        return Path(os.path.relpath(base / name, out)).as_posix()

    table, folds = spec.data.table, spec.data.split.folds
    cut = evolve(spec.data.split, folds=folds and path(folds))
    data = evolve(spec.data, table=table and path(table), split=cut)
    return evolve(spec, data=data, graft={name: path(file) for name, file in spec.graft.items()})


def _fold(laid: Job, out: Path, hooks: Sequence[Hook], kinds: Mapping[str, type]) -> None:
    at, how = laid.start, laid.plan.spec.train
    left = laid.steps - at.state.step
    if left <= 0 and not at.history.begun.any():
        return
    asked = (laid.metric, "min", how.checkpoint_every, at.extra, kinds)
    folder, kept = out / "checkpoints", how.checkpoint_keep
    keep = checkpoint(folder, laid.plan, *asked, kept, overwrite=True)
    # What guards a step comes before what keeps it; the checkpoint waits for what it writes before
    # another hook can fail.
    told = [*laid.hooks, keep, log(out / "history.jsonl", overwrite=True), *hooks]
    fit(laid.step, laid.batches, at.state, steps=left, hooks=told, history=at.history)


def _read(out: Path, name: str, otherwise: Checkpoint) -> Checkpoint:
    path = out / "checkpoints" / f"{name}.safetensors"
    return load_checkpoint(path, otherwise.state) if path.exists() else otherwise


def _validation(plan: Plan, parts: Parts, device: str, cache: str | Path | None) -> list[Hook]:
    if not len(parts.valid):
        return []
    net = build(plan, pretrain=False).to(device)
    return [validate(plan, rows_pipe(plan, parts.valid, 256, device, cache), net=net)]


def train_pipe(
    plan: Plan, table: Table | Shards, device: str = "cpu", cache: str | Path | None = None
) -> Pipe:
    """Lay the pipe that trains: shuffled, augmented, mixed, encoded once if it fits in memory.

    Raises SpecError for cutmix where no branch has photos.
    """
    how = plan.spec.train
    rows = _encoded_rows(plan, table, how.batch, cache)
    # Batch norm has no variance over one row; a last batch of one is left to another epoch.
    tail = len(table) < how.batch or len(table) % how.batch != 1
    shuffled = evolve(sample(shuffle=True, seed=how.seed)(rows), tail=tail)
    return pipe(shuffled, *_augmenting(plan), *_mixing(plan), *_moving(device))


def _augmenting(plan: Plan) -> list[Callable[[Pipe], Pipe]]:
    # A stage that changes nothing takes several times as long as gathering a small batch.
    asked = having(plan.spec.root, "augment")
    able = any(not isinstance(branch, Fuse) for _, branch in asked)  # which asks those it holds
    return [augment(plan.augment, plan.spec.train.seed)] if able else []


def _moving(device: str) -> list[Callable[[Pipe], Pipe]]:
    # Rows are encoded on the CPU.
    return [] if torch.device(device).type == "cpu" else [to(device)]


def _mixing(plan: Plan) -> list[Callable[[Pipe], Pipe]]:
    how, classes = plan.spec.train, plan.spec.head.outputs(plan.facts["head"])
    if how.cutmix and not has_photos(plan.example()):
        raise SpecError(
            f"train.cutmix = {how.cutmix:g} pastes photos, and no branch reads any; "
            "train.mixup mixes numbers"
        )
    if how.mixup and not can_mix(plan.example()):
        raise SpecError(
            f"train.mixup = {how.mixup:g} mixes photos and numbers, and no branch reads any: "
            "only the targets would be mixed"
        )
    asked = ((mixup, how.mixup), (cutmix, how.cutmix))
    ways = [way(alpha, classes) for way, alpha in asked if alpha]
    return [augment(either(*ways), how.seed)] if ways else []


def rows_pipe(
    plan: Plan,
    table: Table | Shards,
    rows: int,
    device: str = "cpu",
    cache: str | Path | None = None,
) -> Pipe:
    """Lay a pipe over encoded rows in their order: in memory if they fit, otherwise with their
    photos kept on disk. With a folder `cache` photos are kept there in either case. Shards are
    encoded as they are read.
    """
    return pipe(_encoded_rows(plan, table, rows, cache), *_moving(device))


def _encoded_rows(plan: Plan, table: Table | Shards, rows: int, cache: str | Path | None) -> Pipe:
    workers = plan.spec.train.workers
    if isinstance(table, Shards):
        return pipe(_encoded(plan, table), batch(rows))
    fits, some = len(table) * _row_bytes(plan) <= MEMORY, batch(max(64, PIECE // _row_bytes(plan)))
    if fits and not cache:
        encoded = pipe(table, some, transform(plan.encode, workers))
    else:
        kept = plan.keep(table, cache or default_folder())
        encoded = pipe(kept, some, transform(identity, workers))
    if fits:
        return pipe(collect(encoded), batch(rows))
    return pipe(evolve(encoded, rows=rows), prefetch(2))


def _encoded(plan: Plan, shards: Shards) -> Pipe:
    read = shards.select(columns_of(plan.spec))
    if shards.window * _row_bytes(plan) <= MEMORY // 16:
        return Pipe(read.map(plan.encode))
    # A window of photos would not fit, so that its rows wait as cells.
    return pipe(read, transform(plan.encode, plan.spec.train.workers), prefetch(2))


def _row_bytes(plan: Plan) -> int:
    return sum(leaf.numel() * leaf.element_size() for _, leaf in leaves(plan.example()))


def _origin(spec: Spec, parts: Parts, kinds: Mapping[str, type]) -> dict[str, Any]:
    rows = {f"{name} rows": part.digest() for name, part in zip(parts._fields, parts, strict=True)}
    return {"spec": to_dict(spec, kinds), **rows}


def resumed(out: Path, start: Checkpoint, kinds: Mapping[str, type] = KINDS) -> Checkpoint:
    """Read the last checkpoint of a run folder and check that it belongs to this run.

    Raises FileError when there is none, or it is damaged, naming the newest other one that is
    whole; SpecError naming the first thing that has changed.
    """
    return verified(last_checkpoint(out), start, kinds)


def verified(path: Path, start: Checkpoint, kinds: Mapping[str, type] = KINDS) -> Checkpoint:
    """Read a checkpoint of the run that begins at `start`; raises as `resumed` does."""
    # What the run came from is compared first: other rows or layers give other tensors too.
    _check_same(path, _before(path, kinds), start.extra)
    return load_checkpoint(path, start.state)


def own(spec: Spec, path: Path, kinds: Mapping[str, type] = KINDS) -> Donors:
    """Read the models to graft from a checkpoint of the run: it has what was once taken."""
    if not spec.graft:
        return {}
    before = _before(path, kinds).get("spec", {})
    _check_same(path, {"spec": before}, {"spec": to_dict(spec, kinds)})
    return dict.fromkeys(spec.graft, load_model(path, kinds))


def _before(path: Path, kinds: Mapping[str, type]) -> dict[str, Any]:
    try:
        extra = read_file(path)[1].get("extra", {})
    except FileError as error:
        raise FileError(f"{error}{_offer(path)}") from error
    if "spec" not in extra:
        return extra
    try:
        # A field that has been added since has its default in an older file.
        return {**extra, "spec": to_dict(from_dict(extra["spec"], kinds), kinds)}
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error


def _offer(damaged: Path) -> str:
    # Said and not done: going back costs epochs, and a disk that damages files wants a look.
    others = [(step, path) for step, path in sound(damaged.parent) if path != damaged]
    if not others:
        return ""
    step, newest = others[-1]
    return (
        f"; the newest whole one is {newest.name}, after step {step}: "
        f"copy it over {damaged.name} to go on from there"
    )


def _check_same(path: Path, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    one, other = _flat(before), _flat(after)
    for name, _ in sorted(one.items() ^ other.items()):
        was, now = (origin.get(name, "nothing") for origin in (one, other))
        raise SpecError(
            f"{path}: not the same run: {name} was {was:.60} and is {now:.60}; start anew"
        )


def _flat(tree: Any, path: str = "") -> dict[str, str]:
    """Flatten nested values to texts by dotted path; where files lie does not matter."""
    if isinstance(tree, (list, tuple)) and any(isinstance(child, Mapping) for child in tree):
        tree = {str(k): child for k, child in enumerate(tree)}
    if isinstance(tree, Mapping):
        pairs = [_flat(child, f"{path}.{name}" if path else name) for name, child in tree.items()]
        return {name: text for pair in pairs for name, text in pair.items()}
    skipped = {"spec.data.table", "spec.data.split.folds", "spec.train.workers"}
    if path in skipped:
        return {}
    return {path: "a model" if path.startswith("spec.graft.") else str(tree)}


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

    Where the spec chooses by valid loss (`keep = "best"` or `patience`), 15% of each training
    part is set aside for it. A model that a branch is grafted from should not have seen the rows
    either, which nothing here can know. `base` is the folder that the spec's paths are relative to.
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
    predictions = joined.set_axis(table.labels[np.sort(places)])
    return CrossValidation(predictions, scores, time.monotonic() - began, tuple(done), errors)


Fold = tuple["pd.DataFrame", dict[str, float]]
"""What one fold gives: its predictions and its scores."""


def _outcomes(
    attempted: Callable[[str], Fold | MipError], folds: Sequence[str], workers: int
) -> Iterator[tuple[str, Fold | MipError]]:
    left = list(folds)
    try:
        for outcome in mapped(attempted, folds, workers):
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
    choosing = spec.train.keep == "best" or spec.train.patience
    shares = (0.85, 0.15) if choosing else (1.0, 0.0)
    train, valid = split(rest, shares, spec.train.seed, spec.data.split.stratify)
    ended = training(Parts(train, valid, test))
    named = ((path.split(".")[2::2], head.column) for path, head in targets(spec.head))
    truth = {".".join(["target", *names]): test[column].array for names, column in named}
    return ended.predict(test).assign(fold=fold, **truth), evaluate(ended.predict, test)
