"""Verbs that train: lr, fit, sweep, crossval."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

import mip
from mip.cli.inputs import check_outputs, check_place, choices, opened, split_of, table_of
from mip.cli.options import Cache, Changes, Force, Json, SpecFile
from mip.cli.signals import AGAIN, stopping
from mip.cli.terminal import bar_of, note, say
from mip.errors import FileError, MipError, SpecError


def lr(
    spec: SpecFile,
    out: Annotated[Path | None, typer.Option(metavar="PNG", help="Draw the curve.")] = None,
    set_: Changes = None,
    steps: Annotated[int, typer.Option(min=3, help="How many rates to try.")] = 100,
    cache: Cache = None,
    force: Force = False,
) -> None:
    """Run a learning-rate range test; nothing is saved."""
    read_spec, table = opened(spec, set_, [out], force)
    cut = split_of(read_spec, table, spec)
    context = mip.Context(base=spec.parent, cache=cache)
    curve = mip.runs.lr_curve(read_spec, cut, steps, context=context)
    if out:
        mip.plots.plot_rates(out, curve, overwrite=force)
        say(f"drew {out}")
    least = f"{curve.minimum:.2g}"
    say(f"the smoothed loss is least at {least}; a tenth of that is well before it rises")
    say(f"try: mip fit {spec} --set train.optimizer.lr={curve.suggestion:.2g}")


def fit(
    spec: SpecFile,
    out: Annotated[Path | None, typer.Option(metavar="RUN", help="Default: runs/NAME.")] = None,
    set_: Changes = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", "--overwrite", help="Replace an earlier run.")
    ] = False,
    cache: Cache = None,
    board: Annotated[
        Path | None, typer.Option("--tensorboard", metavar="DIR", help="Write for TensorBoard too.")
    ] = None,
) -> None:
    """Train a model into a run folder, or resume one."""
    out = out or Path("runs") / spec.stem
    last = out / "checkpoints" / "last.safetensors"
    before = 0 if resume else _written(last)  # an earlier run's is nothing to go on from
    going_on = partial(_go_on, spec, out, set_ or [])
    with stopping(lambda: AGAIN if _written(last) == before else going_on()), mip.files.locked(out):
        mip.files.check_run_folder(out, resume, force, [spec])
        check_place(out, table_of(spec, set_))
        read_spec, table = opened(spec, set_)
        cut = split_of(read_spec, table, spec)
        ended = mip.run(
            read_spec,
            cut,
            out,
            resume=resume,
            overwrite=force,
            make_hooks=partial(_fit_hooks, out=out, resume=resume, board=board),
            context=mip.Context(base=spec.parent, cache=cache),
        )
        _reported(ended, cut, out)


def _fit_hooks(
    job: mip.runs.Job, out: Path, resume: bool, board: Path | None
) -> tuple[mip.train.Hook, ...]:
    epochs, step = job.plan.spec.train.epochs, job.start.state.step
    if resume:
        epoch = min(step * epochs // job.steps + 1, epochs)
        position = f"after step {step} of {job.steps}, in epoch {epoch} of {epochs}"
        say(f"{out}: resuming {position}; same spec, same rows, the checkpoint is intact")
    console = mip.hooks.console(say, epochs=epochs)
    curves = (mip.hooks.tensorboard(board),) if board else ()
    return (*bar_of(out.name)(job), console, *_drawn(job, out), *curves)


def _drawn(job: mip.runs.Job, out: Path) -> tuple[mip.train.Hook, ...]:
    try:
        rate = mip.runs.lr_schedule(job.plan.spec.train, job.steps)
        return (mip.hooks.plots(out / "history.png", rate, overwrite=True),)
    except FileError as error:
        note(str(error))
        return ()


def _written(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0


def _go_on(spec: Path, out: Path, texts: Sequence[str]) -> str:
    words = ["mip", "fit", str(spec), "--out", str(out)]
    given = [word for text in texts for word in ("--set", text)]
    return f"go on with: {shlex.join([*words, *given, '--resume'])}"


def _reported(ended: Any, cut: mip.model.Parts, out: Path) -> None:
    found: dict[str, Mapping[str, float]] = {}
    try:
        for name, rows in zip(mip.model.Parts._fields, cut, strict=True):
            found |= {name: mip.evaluate(ended.predict, rows)} if len(rows) else {}
    except MipError as error:
        raise type(error)(
            f"the model is saved in {out}, and could not be scored: {error}"
        ) from error
    finally:
        mip.runs.write_json(out / "metrics.json", found, overwrite=True)
    say(mip.runs.scores_table(f"{out} after {ended.seconds:.0f} s", found))
    if ended.plan.spec.train.restore_best:
        epoch = mip.train.best_epoch(ended.history.epochs, "valid/loss") + 1
        say(f"kept: epoch {epoch}, with the best valid loss")
    wrote = sorted(path.name for path in out.iterdir() if path.name != mip.files.LOCK)
    say(f"wrote {', '.join(wrote)} in {out}")


def sweep(
    spec: SpecFile,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=A,B", help="Values to try, as train.batch_size=16,32."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each combination.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Runs at once, on the CPU.")] = 1,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: sweeps/NAME.")] = None,
    cache: Cache = None,
    force: Force = False,
) -> None:
    """Train every combination of values and compare them."""
    out = out or Path("sweeps") / spec.stem
    as_json, as_csv = out / "sweep.json", out / "sweep.csv"
    check_outputs([as_json, as_csv], force, [spec], table_of(spec, None))
    with stopping(lambda: f"the runs that have ended are kept in {out}: the same command goes on"):
        done = mip.runs.sweep(
            spec,
            choices(set_),
            out,
            seeds=seeds,
            workers=workers,
            overwrite=force,
            on_outcome=_say_outcome,
            context=mip.Context(cache=cache),
        )
    best = mip.runs.best_combination(done)
    mip.runs.write_json(as_json, mip.runs.sweep_json(done, best), overwrite=force)
    mip.runs.write_table(as_csv, mip.runs.sweep_frame(done, best), overwrite=force)
    say(mip.runs.sweep_table(f"{spec.name}, seeds {seeds}", done, best))
    say(f"wrote sweep.csv, sweep.json in {out}")
    failed = [each.error for one in done for each in one.outcomes if each.error]
    if failed:
        raise MipError(f"{len(failed)} of {len(done) * seeds} runs failed; the others are kept")


def _say_outcome(outcome: mip.runs.Outcome) -> None:
    if outcome.error:
        note(f"error: {outcome.error}")
    else:
        say(f"{outcome.name}: valid loss {outcome.scores['valid']['loss']:.4g}")


def crossval(
    spec: SpecFile,
    folds: Annotated[Path, typer.Option(metavar="FILE", help="A table with column row and folds.")],
    column: Annotated[str, typer.Option(metavar="NAME", help="The column of folds.")] = "fold",
    set_: Changes = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Predictions, as CSV.")] = None,
    json: Json = None,
    cache: Cache = None,
    workers: Annotated[int, typer.Option(min=1, help="Folds at once.")] = 1,
    force: Force = False,
) -> None:
    """Train on all folds but one and predict it, for each fold."""
    read_spec, table = opened(spec, set_, [out, json], force, [folds])
    if isinstance(table, mip.data.Shards):
        raise SpecError(f"{spec}: crossval needs all rows in memory: --set data.stream=false")
    rows = mip.data.with_folds(table, mip.read(folds), column)
    # Bars of several processes would write over each other.
    make_hooks = bar_of(spec.stem) if workers == 1 else mip.runs.no_hooks
    context = mip.Context(base=spec.parent, cache=cache)
    done = mip.crossval(
        read_spec, rows, column, make_hooks=make_hooks, workers=workers, context=context
    )
    errors = {fold: str(error) for fold, error in done.errors.items()}
    by_fold = dict(zip(done.folds, done.scores, strict=True))
    try:
        if out:
            mip.runs.write_table(out, done.predictions.rename_axis("row"), overwrite=force)
        if json:
            mip.runs.write_json(
                json, {**mip.runs.fold_averages(done.scores), "errors": errors}, overwrite=force
            )
    finally:
        say(mip.runs.folds_table(f"{spec.name}, {column}, {done.seconds:.0f} s", by_fold))
    if errors:
        whole = len(errors) + len(by_fold)
        raise MipError(f"{len(errors)} of {whole} folds failed; the scores are those of the others")
