"""A whole run from a spec, as the command line runs it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import torch
from attrs import evolve, frozen

from mip.errors import DataError, FileError
from mip.files import (
    Checkpoint,
    check_run_folder,
    clear_run,
    input_files,
    intact_checkpoints,
    last_checkpoint,
    load_checkpoint,
    locked,
    read_file,
    save,
    write_spec,
)
from mip.hooks import checkpoint, log, validate
from mip.model import Net, Parts, Plan, adapt, build, spec_path, target_columns
from mip.optim import Optimizer, Params, Schedule
from mip.pipe import Pipe
from mip.predict import Predictor, predictor
from mip.runs.feeding import rows_pipe, train_pipe
from mip.runs.resuming import origin, resumed, sources_of_run
from mip.runs.training import (
    by_group,
    check,
    check_batch_norm,
    clipped,
    optimizer_of,
    step_of,
    watching,
)
from mip.runs.warm_starts import Sources, adopt_facts, build_warm, load_sources
from mip.spec import KINDS, Spec
from mip.train import (
    History,
    Hook,
    LRCurve,
    Metrics,
    State,
    Step,
    best_epoch,
    find_lr,
    fit,
    init,
    no_metrics,
    train_step,
    update_bn,
    with_averaged_params,
)


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
    cache: str | Path | None = None,
    sources: Sources = MappingProxyType({}),
    measure: Callable[[Params, Params], Metrics] = no_metrics,
) -> Job:
    """Adapt, encode and build: from a spec and its rows to a step, a pipe and a state.

    `sources` are the trained models of `[warm_start]`, from `mip.runs.load_sources`;
    `measure` is that of `train_step`.
    """
    plan, net = _built(spec, parts, sources, device)
    _check_targets(plan, parts)
    batches = train_pipe(plan, parts.train, device, cache)
    steps = spec.train.epochs * len(batches)
    check(spec.train, net, steps)
    optimizer = optimizer_of(spec.train, steps)
    start = Checkpoint(init(net, optimizer, spec.train.seed), History(), origin(spec, parts))
    hooks = (
        *_validation(plan, parts, device, cache),
        *watching(spec.train, bool(len(parts.valid))),
    )
    metric = "valid/loss" if len(parts.valid) else None
    return Job(plan, step_of(plan, net, optimizer, measure), batches, start, hooks, steps, metric)


def _built(spec: Spec, parts: Parts, sources: Sources, device: str) -> tuple[Plan, Net]:
    plan = adopt_facts(adapt(spec, parts.train), sources)
    net = build_warm(plan, sources, spec.train.seed).to(device)
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
) -> LRCurve:
    """Try learning rates on a spec's model and training rows; see `find_lr`. Nothing is kept.

    A group of parameters is trained with its multiple of the rate that is tried, and from the
    epoch on at which it starts.
    """
    plan, net = _built(spec, parts, load_sources(spec, base, kinds), device)
    batches = train_pipe(plan, parts.train, device, cache)
    check(spec.train, net, spec.train.epochs * len(batches))

    def optimizer(rate: Schedule) -> Optimizer:
        rates = lambda multiple: lambda step: multiple * rate(step)  # noqa: E731
        return clipped(spec.train, by_group(spec.train, rates, len(batches)))

    state = init(net, optimizer(lambda step: 0.0), spec.train.seed)
    train = lambda rate: train_step(net, plan.loss, optimizer(rate))  # noqa: E731
    return find_lr(train, batches, state, steps=steps)


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
    rows have changed since; that file also holds warm-started branches, so that their source models
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
        check_run_folder(out, resume, overwrite, input_files(spec, Path(base)))
        if resume:
            sources = sources_of_run(spec, last_checkpoint(out), kinds)
        else:
            sources = load_sources(spec, base, kinds)
        laid = job(spec, parts, device, cache, sources)
        if resume:
            laid = evolve(laid, start=resumed(out, laid.start, kinds))
            _check_best(out, laid)
        told = hooks(laid)
        if not resume:
            clear_run(out)
        write_spec(out, _moved(spec, Path(base), out))
        last, kept = _trained(laid, out, told)
        save(out / "model.safetensors", laid.plan, kept.state, overwrite=True)
    return Run(laid.plan, kept.state, last.history, time.monotonic() - began, device)


def device_here() -> str:
    """Name the device that a run takes by itself: the GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _check_best(out: Path, laid: Job) -> None:
    # Now and not after the training: where no epoch to come is better, that file is the model.
    at = best_epoch(laid.start.history.epochs, "valid/loss")
    if at < 0 or not laid.plan.spec.train.restore_best:
        return
    path = out / "checkpoints" / "best.safetensors"
    try:
        read_file(path)
    except FileError as error:
        same = path.with_name(f"epoch-{at:04}.safetensors")
        whole = same in [each for _, each in intact_checkpoints(path.parent)]
        cure = f"{same.name} is the same: copy it over {path.name}" if whole else "start anew"
        raise FileError(f"{error}; {cure}") from error


def _trained(laid: Job, out: Path, hooks: Sequence[Hook]) -> tuple[Checkpoint, Checkpoint]:
    _fold(laid, out, hooks)
    last = _read(out, "last", laid.start) if laid.steps else laid.start
    kept = _read(out, "best", last) if laid.plan.spec.train.restore_best else last
    kept = evolve(kept, state=_with_updated_bn(laid, kept.state))
    check_numbers(kept.state, out)
    return last, kept


def _with_updated_bn(laid: Job, state: State) -> State:
    if with_averaged_params(state) is state:
        return state
    device = next((param.device for param in state.params.values()), None)
    net = build(laid.plan, pretrain=False).to(device)
    return update_bn(net, state, islice(laid.batches.iter_from(0), len(laid.batches)))


def check_numbers(state: State, out: str | Path) -> None:
    """Raise DataError naming a parameter that is not finite: such a state is no model."""
    for path, param in state.params.items():
        if not param.isfinite().all():
            told = f"{spec_path(path)} is not finite (try a smaller train.optimizer.lr)"
            raise DataError(f"{out}: no model is saved: {told}")


def _moved(spec: Spec, base: Path, out: Path) -> Spec:
    def path(name: str) -> str:
        return Path(os.path.relpath(base / name, out)).as_posix()

    table, folds = spec.data.table, spec.data.split.folds
    cut = evolve(spec.data.split, folds=folds and path(folds))
    data = evolve(spec.data, table=table and path(table), split=cut)
    sources = {name: path(file) for name, file in spec.warm_start.items()}
    return evolve(spec, data=data, warm_start=sources)


def _fold(laid: Job, out: Path, hooks: Sequence[Hook]) -> None:
    at, how = laid.start, laid.plan.spec.train
    left = laid.steps - at.state.step
    if left <= 0 and not at.history.unfinished.any():
        return
    asked = (laid.metric, "min", how.checkpoint_every, at.extra)
    folder, kept = out / "checkpoints", how.keep_last
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
