"""Train a job into a run folder, or resume it from there."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attrs import evolve, frozen

from mip.data import AnyRows
from mip.errors import FileError, MipWarning, SpecError, warnings_shown_once
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
from mip.hooks import checkpoint, log
from mip.metrics import best_epoch, format_metric
from mip.model import (
    Parts,
    Plan,
    are_parts,
    as_parts,
    clean,
    parts,
    table_of,
    target_columns,
    with_files,
)
from mip.optim import REPORTED
from mip.prediction import Predictor, predictor
from mip.runs.checks import check_finite, check_frozen_parts
from mip.runs.context import DEFAULT_CONTEXT, Context
from mip.runs.jobs import Job, prepare_job, with_updated_bn
from mip.runs.optimizers import lr_schedule
from mip.runs.residuals import fit_residual
from mip.runs.resuming import epochs_before, load_run_checkpoint, origin, sources_of_run
from mip.spec import Spec, load_spec
from mip.train import History, Hook, State, fit


@frozen(repr=False)
class Run:
    """A finished run: its plan, the state that became the model, and the history.

    It is a model wherever one is expected: `mip.predict(run, rows)`, `mip.evaluate(run, rows)`,
    `mip.plots`. A notebook shows its scores and a table of the epochs.
    """

    plan: Plan
    state: State
    history: History
    seconds: float
    device: str = "cpu"

    @property
    def predict(self) -> Predictor:
        """The trained model as a function of rows."""
        return predictor(self.plan, self.state, self.device)

    @property
    def scores(self) -> dict[str, float]:
        """The measurements of the epoch that became the model: with `restore_best` the best one,
        otherwise the last. Empty without epochs.
        """
        epochs = self.history.epochs
        best = best_epoch(epochs, "valid/loss") if self.plan.spec.train.restore_best else -1
        row = next((row for row in epochs if row["epoch"] == best), epochs[-1]) if epochs else {}
        return {k: value for k, value in row.items() if k.split(".")[0] not in _NO_SCORES}

    def __repr__(self) -> str:
        spec, count = self.plan.spec, len(self.history.epochs)
        heads = ", ".join(f"'{column}'" for column in target_columns(spec))
        scores = ", ".join(f"{k} {format_metric(k, v)}" for k, v in self.scores.items())
        return f"Run({heads}, {count} epochs in {self.seconds:.1f} s; {scores or 'no scores'})"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>{self.history._repr_html_()}"


_NO_SCORES = {"epoch", "step", "seconds", *REPORTED}


def no_hooks(job: Job) -> tuple[Hook, ...]:
    """Return no hooks, the default. Unlike a lambda, this can be sent to a worker process."""
    return ()


def run(
    spec: Spec | str | Path,
    train: AnyRows | Sequence[AnyRows],
    valid: AnyRows | None = None,
    test: AnyRows | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    hooks: Sequence[Hook] = (),
    make_hooks: Callable[[Job], Sequence[Hook]] = no_hooks,
    context: Context = DEFAULT_CONTEXT,
) -> Run:
    """Train a spec, or the file of one, on rows and save the model.

    The rows are tables, or what `mip.data.as_table` makes one of. One table is split as
    `[data] split` says, as by `mip fit`. Parts are taken as they are: `train` with `valid`, `test`
    or both, or a tuple of these, such as `mip.split` and `mip.parts` return; `(train,)` trains on
    all its rows. Rows that lack their target or a photo are treated as the spec says (`clean`).
    Paths in the spec are relative to `context.base`, by default to the folder of the spec's file.

    The folder `out` gets `spec.toml`, whose paths are relative to it, `checkpoints/`,
    `history.jsonl` and `model.safetensors`; without it nothing is kept. `hooks` watch the fit;
    those that need the job are made by `make_hooks`. With `resume` the run continues from
    `checkpoints/last.safetensors`, which also holds warm-started branches, so that their source
    models are not read again; SpecError if the spec or the rows have changed since. It may have
    another `train.epochs`: with more of them a finished run is trained on, with its optimizer's
    state. Schedules span the whole run, the longer one too; a MipWarning says where the learning
    rate goes on if that is not where it was.

    Raises FileError for a folder that already holds a run, or other files with the names that a
    run writes, unless `overwrite` is set, which replaces them. The folder is locked meanwhile: a
    second run gets a FileError that names the process.
    """
    if not isinstance(spec, Spec):
        base = context.base if context.base != Path() else Path(spec).parent
        spec, context = load_spec(spec, context.kinds), evolve(context, base=base)
    if out is None:
        every = partial(_all_hooks, hooks, make_hooks)
        with TemporaryDirectory() as folder:
            return run(spec, train, valid, test, out=folder, make_hooks=every, context=context)
    began, out = time.monotonic(), Path(out)
    with locked(out), warnings_shown_once():
        check_run_folder(out, resume, overwrite, input_files(spec, context.base))
        rows = _usable_parts(spec, train, valid, test, context.base)
        last = last_checkpoint(out) if resume else None
        sources = sources_of_run(spec, last, context) if last else None
        made_of = origin(spec, rows, context.base)
        job = prepare_job(spec, rows, context, sources=sources, origin=made_of)
        if last:
            job = evolve(job, start=load_run_checkpoint(last, job.start, context.kinds))
            check_frozen_parts(job.plan, job.step.net, job.start.state, last)
            _check_length(job, out, epochs_before(last, context.kinds))
            _check_best_checkpoint(job, out)
        hooks = _all_hooks(hooks, make_hooks, job)
        if not resume:
            clear_run(out)
        write_spec(out, relocate(spec, context.base, out))
        _fit(job, out, hooks)
        ended = _checkpoint(out, "last", job.start) if job.steps else job.start
        best = _checkpoint(out, "best", ended) if spec.train.restore_best else ended
        state = with_updated_bn(job, best.state)
        state = fit_residual(job.plan, state, rows.train, sources=sources, context=context)
        check_finite(state, out)
        save(out / "model.safetensors", job.plan, state, overwrite=True)
    seconds = time.monotonic() - began
    return Run(job.plan, state, ended.history, seconds, context.resolved_device())


def _all_hooks(
    hooks: Sequence[Hook], make_hooks: Callable[[Job], Sequence[Hook]], job: Job
) -> Sequence[Hook]:
    return [*hooks, *make_hooks(job)]


def _usable_parts(spec: Spec, train: Any, valid: Any, test: Any, base: Path) -> Parts:
    if valid is None and test is None and not are_parts(train):
        return parts(spec, clean(spec, train)[0], base)
    given = as_parts(train, valid, test, read=partial(table_of, spec))
    return Parts(*(clean(spec, rows)[0] if len(rows) else rows for rows in given))


def _check_length(job: Job, out: Path, before: int) -> None:
    train, step = job.plan.spec.train, job.start.state.step
    if job.steps < step:
        taken = f"{step} steps, and {train.epochs} epochs are {job.steps}"
        raise SpecError(f"{out}: train.epochs = {train.epochs}: the run has taken {taken}")
    was, now = (lr_schedule(train, n * len(job.batches))(step) for n in (before, train.epochs))
    if 0 < step < job.steps and not math.isclose(was, now, rel_tol=1e-6):
        text = "schedules span the run, so that the learning rate goes on at"
        warnings.warn(
            f"{out}: train.epochs was {before} and is {train.epochs}: {text} {now:.3g} instead of "
            f"{was:.3g}",
            MipWarning,
            stacklevel=3,
        )


def _check_best_checkpoint(job: Job, out: Path) -> None:
    # Checked before training: if no later epoch is better, this file becomes the model.
    epoch = best_epoch(job.start.history.epochs, "valid/loss")
    if epoch < 0 or not job.plan.spec.train.restore_best:
        return
    path = out / "checkpoints" / "best.safetensors"
    try:
        read_file(path)
    except FileError as error:
        copy = path.with_name(f"epoch-{epoch:04}.safetensors")
        cure = "start again without resume"
        if copy in [whole for _, whole in intact_checkpoints(path.parent)]:
            cure = f"{copy.name} is the same: copy it over {path.name}"
        raise FileError(f"{error}; {cure}") from error


def relocate(spec: Spec, base: Path, out: Path) -> Spec:
    """Return a spec whose paths, relative to `base`, are relative to the folder `out`."""

    def path(name: str) -> str:
        return Path(os.path.relpath(base / name, out)).as_posix()

    return with_files(spec, path)


def _fit(job: Job, out: Path, hooks: Sequence[Hook]) -> None:
    start, train = job.start, job.plan.spec.train
    steps = job.steps - start.state.step
    if steps <= 0 and not start.history.unfinished.any():
        return
    save_checkpoints = checkpoint(
        out / "checkpoints",
        job.plan,
        metric=job.metric,
        mode="min",
        every=train.checkpoint_every,
        extra=start.extra,
        keep_last=train.keep_last,
        overwrite=True,
    )
    write_history = log(out / "history.jsonl", overwrite=True)
    # Hooks that guard a step come before the checkpoint that would keep it, and the checkpoint
    # before hooks that may fail while it is being written.
    hooks = [*job.hooks, save_checkpoints, write_history, *hooks]
    fit(job.step, job.batches, start.state, steps=steps, hooks=hooks, history=start.history)


def _checkpoint(out: Path, name: str, default: Checkpoint) -> Checkpoint:
    path = out / "checkpoints" / f"{name}.safetensors"
    return load_checkpoint(path, default.state) if path.exists() else default
