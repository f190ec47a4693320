"""Verbs that train: lr, fit, sweep, tune, crossval."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

import mip
from mip.cli.inputs import (
    check_holds_no_photo,
    check_outputs,
    check_outside_table,
    open_spec,
    parse_changes,
    parse_choices,
    split_rows,
    table_path,
)
from mip.cli.options import Cache, Changes, Device, Force, Json, Offline, SpecFile
from mip.cli.signals import NOTHING_KEPT, on_stop
from mip.cli.terminal import echo, note, progress_bar, show_features, show_residual
from mip.errors import DataError, MipError, SpecError, hint


def lr(
    spec: SpecFile,
    out: Annotated[Path | None, typer.Option(metavar="PNG", help="Draw the curve.")] = None,
    set_: Changes = None,
    steps: Annotated[int, typer.Option(min=3, help="How many rates to try.")] = 100,
    cache: Cache = None,
    device: Device = None,
    offline: Offline = False,
    force: Force = False,
) -> None:
    """Run a learning-rate range test; nothing is saved."""
    read_spec, table = open_spec(spec, set_, [out], force)
    if out:
        mip.plots.format_of(out)
    parts = split_rows(read_spec, table, spec)
    context = mip.Context(base=spec.parent, cache=cache, device=device, on_features=show_features)
    curve = mip.runs.lr_range_test(read_spec, parts, steps, context=context)
    if out:
        mip.plots.lr_range(curve, path=out, overwrite=force)
        echo(f"drew {out}")
    minimum = f"{curve.minimum:.2g}"
    echo(f"the smoothed loss is lowest at {minimum}; a tenth of that is a safe choice")
    sets = [text for text in set_ or () if text.partition("=")[0] != "train.optimizer.lr"]
    sets.append(f"train.optimizer.lr={curve.suggestion:.2g}")
    try:
        mip.load_spec(spec, changes=parse_changes(sets))
    except SpecError:  # a rate needs an optimizer, which a spec may leave out
        sets.insert(-1, f"train.optimizer.kind={read_spec.train.optimizer.kind}")
    echo(f"try: {_fit_command(spec, sets, device)}")


def _fit_command(
    spec: Path, sets: Sequence[str] | None, device: str | None, resumed: Path | None = None
) -> str:
    """Return the command that trains a spec with these changes, or resumes its run."""
    out = ["--out", str(resumed)] if resumed else []
    changes = [word for text in sets or () for word in ("--set", text)]
    on = ["--device", device] if device else []
    resume = ["--resume"] if resumed else []
    return shlex.join(["mip", "fit", str(spec), *out, *changes, *on, *resume])


def fit(
    spec: Annotated[
        Path, typer.Argument(metavar="SPEC", help="A spec file (TOML), or a run folder.")
    ],
    out: Annotated[Path | None, typer.Option(metavar="RUN", help="Default: runs/NAME.")] = None,
    set_: Changes = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the last checkpoint.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier run.")] = False,
    folds: Annotated[
        Path | None,
        typer.Option(
            metavar="K|FILE", help="A model for each fold, joined to one that predicts their mean."
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Folds at once. Default: one.")] = None,
    cache: Cache = None,
    device: Device = None,
    offline: Offline = False,
    board: Annotated[
        Path | None,
        typer.Option("--tensorboard", metavar="DIR", help="Write TensorBoard logs too."),
    ] = None,
) -> None:
    """Train a model into a run folder, or resume one."""
    if mip.files.is_run(spec):
        out, spec = out or spec, spec / "spec.toml"
    out = out or Path("runs") / spec.stem
    if workers and not folds:
        raise MipError("--workers shares out --folds; those that load rows are train.workers")
    table = table_path(spec, set_)
    last = out / "checkpoints" / "last.safetensors"
    # A new run cannot continue from the checkpoint of an earlier one.
    before = 0 if resume else _modified(last)

    def what_is_kept() -> str:
        if _modified(last) == before:
            return NOTHING_KEPT
        return f"resume with: {_fit_command(spec, set_, device, resumed=out)}"

    with on_stop(what_is_kept), mip.files.locked(out):
        mip.files.check_run_folder(out, resume, force, [spec])
        check_outside_table(out, table)
        read_spec, rows = open_spec(spec, set_)
        check_holds_no_photo(out, read_spec, rows)
        parts = split_rows(read_spec, rows, spec)
        context = mip.Context(
            base=spec.parent,
            cache=cache,
            device=device,
            on_features=show_features,
            on_residual=show_residual,
        )
        if folds:
            if resume or board:
                raise MipError("--folds excludes --resume and --tensorboard: its runs are not kept")
            _fit_folds(read_spec, rows, parts, folds, out, workers or 1, force, context)
            return
        with mip.runs.sharing_features(context) as sharing:
            ended = mip.run(
                read_spec,
                parts,
                out=out,
                resume=resume,
                overwrite=force,
                make_hooks=partial(_fit_hooks, out=out, resume=resume, board=board),
                context=sharing,
            )
            _report(ended, parts, out, sharing)


def _fit_folds(
    spec: mip.spec.Spec,
    rows: mip.Table | mip.data.Shards,
    parts: mip.model.Parts,
    folds: Path,
    out: Path,
    workers: int,
    force: bool,
    context: mip.Context,
) -> None:
    """Train a model for each fold of the rows of train and valid, and score their mean on test."""
    if isinstance(rows, mip.data.Shards):
        raise SpecError(f"{rows.name}: folds need all rows in memory: --set data.stream=false")
    learned = mip.model.outside_test(rows, parts)
    file = _read_folds(folds, spec, learned)
    column, *others = _fold_columns(file)
    if others:
        raise MipError(f"{folds}: has {len(others) + 1} columns of folds, and one model needs one")
    bagged = mip.runs.run_folds(
        spec,
        mip.data.with_folds(learned, file, column),
        column,
        out=out,
        overwrite=force,
        workers=workers,
        make_hooks=progress_bar(out.name) if workers == 1 else mip.runs.no_hooks,
        context=context,
    )
    done, n_folds = bagged.folds, len(bagged.folds.folds)
    by_part: dict[str, Mapping[str, Any]] = {"out_of_fold": mip.runs.fold_averages(done.scores)}
    title = f"{out} after {done.seconds:.0f} s, out of fold"
    echo(mip.runs.folds_table(title, dict(zip(done.folds, done.scores, strict=True))))
    if len(parts.test):
        by_part["test"] = mip.evaluate(bagged.predict, parts.test)
        echo(mip.runs.scores_table(f"the mean of {n_folds} models", {"test": by_part["test"]}))
    mip.runs.write_json(out / "metrics.json", by_part, overwrite=True)
    echo(f"wrote metrics.json, model.safetensors, out_of_fold.csv, spec.toml in {out}")


def _modified(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0


def _fit_hooks(
    job: mip.runs.Job, out: Path, resume: bool, board: Path | None
) -> tuple[mip.train.Hook, ...]:
    train, step = job.plan.spec.train, job.start.state.step
    if resume:
        epoch = min(step * train.epochs // job.steps + 1, train.epochs)
        position = f"after step {step} of {job.steps}, in epoch {epoch} of {train.epochs}"
        if step == job.steps and not job.start.history.unfinished.any():
            more = f"to train on: --resume --set train.epochs={2 * train.epochs}"
            echo(f"{out}: finished {position}; {more}")
        else:
            echo(f"{out}: resuming {position}; same spec, same rows, the checkpoint is intact")
    if not train.epochs:
        echo(mip.runs.UNTRAINED)
    hooks = [*progress_bar(out.name)(job), mip.hooks.console(echo, epochs=train.epochs)]
    lr = mip.runs.lr_schedule(train, job.steps)
    try:
        hooks.append(mip.hooks.plot_history(out / "history.png", lr, overwrite=True))
    except MipError as error:  # without matplotlib
        note(str(error))
    if board:
        hooks.append(mip.hooks.tensorboard(board))
    return tuple(hooks)


def _report(ended: mip.runs.Run, parts: mip.model.Parts, out: Path, context: mip.Context) -> None:
    scores: dict[str, Mapping[str, float]] = {}
    try:
        for name, rows in parts._asdict().items():
            if len(rows):
                predict = mip.runs.scoring_predictor(ended.predict, rows, context)
                scores[name] = mip.evaluate(predict, rows)
    except MipError as error:
        why = f"the model is saved in {out}, but could not be scored: {error}"
        raise type(error)(why) from error
    finally:
        mip.runs.write_json(out / "metrics.json", scores, overwrite=True)
    echo(mip.runs.scores_table(f"{out} after {ended.seconds:.0f} s", scores))
    if ended.plan.spec.train.restore_best:
        epoch = mip.metrics.best_epoch(ended.history.epochs, "valid/loss") + 1
        echo(f"restored: epoch {epoch}, with the best valid loss")
    written = {path.relative_to(out).parts[0] for path in mip.files.run_files(out)}
    echo(f"wrote {', '.join(sorted(written))} in {out}")


def sweep(
    spec: SpecFile,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="PATH=A,B", help="Values to try, e.g. train.batch_size=16,32."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each combination.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Runs at once, on the CPU.")] = 1,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: sweeps/NAME.")] = None,
    cache: Cache = None,
    device: Device = None,
    offline: Offline = False,
    force: Force = False,
) -> None:
    """Train every combination of values and compare them."""
    out = out or Path("sweeps") / spec.stem
    as_json, as_csv = out / "sweep.json", out / "sweep.csv"
    check_outputs([as_json, as_csv], force, [spec], table_path(spec, None))
    with on_stop(lambda: f"finished runs are kept in {out}: the same command continues"):
        combinations = mip.runs.sweep(
            spec,
            parse_choices(set_),
            out,
            seeds=seeds,
            workers=workers,
            overwrite=force,
            on_outcome=_print_outcome,
            context=mip.Context(cache=cache, device=device, on_features=_features_shown(workers)),
        )
    mip.runs.write_json(as_json, mip.runs.sweep_json(combinations), overwrite=force)
    mip.runs.write_table(as_csv, mip.runs.sweep_frame(combinations), overwrite=force)
    echo(mip.runs.sweep_table(f"{spec.name}, seeds {seeds}", combinations))
    echo(f"wrote sweep.csv, sweep.json in {out}")
    outcomes = [outcome for combination in combinations for outcome in combination.outcomes]
    failed = [outcome.name for outcome in outcomes if outcome.error]
    if failed:
        n_failed = f"{len(failed)} of {len(outcomes)} runs failed"
        raise MipError(f"{n_failed}: {'; '.join(failed)}; the others are kept")


def _features_shown(workers: int) -> Callable[[int, int], object]:
    return show_features if workers == 1 else mip.runs.do_nothing


def _print_outcome(outcome: mip.runs.Outcome) -> None:
    if outcome.error:
        note(f"error: {outcome.error}")
    else:
        echo(f"{outcome.name}: valid loss {outcome.scores['valid']['loss']:.4g}")


def tune(
    spec: SpecFile,
    space: Annotated[
        list[str] | None,
        typer.Option(
            "--space", metavar="PATH=VALUES", help="e.g. train.optimizer.lr=1e-4..1e-2, or =16,32."
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=2, help="How many, that of the spec included.")] = 40,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Begin no trial after so many minutes.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(metavar="K", min=2, help="Judge by K folds instead of valid.")
    ] = None,
    metric: Annotated[str, typer.Option(help="What to improve.")] = "loss",
    workers: Annotated[int, typer.Option(min=1, help="Trials at once, on the CPU.")] = 1,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: tuned/NAME.")] = None,
    cache: Cache = None,
    device: Device = None,
    offline: Offline = False,
    force: Force = False,
) -> None:
    """Search for better options of a spec, never looking at test."""
    out = out or Path("tuned") / spec.stem
    pairs = [text.partition("=") for text in space or ()]
    if bad := next((name for name, sign, values in pairs if not (name and sign and values)), None):
        raise MipError(f"--space {bad}: write it as PATH=VALUES")

    def print_trial(trial: mip.runs.Tried) -> None:
        changes = ", ".join(f"{name}={value}" for name, value in trial.changes.items())
        what = changes or "the spec as it is"
        if trial.error:
            note(f"trial {trial.number}: error: {trial.error} ({what})")
            return
        value = mip.metrics.format_metric(metric, trial.score)
        echo(f"trial {trial.number}: {metric} {value}: {what}")

    with on_stop(lambda: f"trials are kept in {out}: the same command continues"):
        tuned = mip.runs.tune(
            spec,
            out,
            {name: values for name, _, values in pairs},
            trials=trials,
            minutes=math.inf if minutes is None else minutes,
            k=folds or 0,
            metric=metric,
            workers=workers,
            overwrite=force,
            on_trial=print_trial,
            context=mip.Context(cache=cache, device=device),
        )
    best, n_trials = tuned.best, len(tuned.trials)
    value = mip.metrics.format_metric(metric, best.score)
    by = f"{folds} folds" if folds else "valid"
    caution = "where the best of many looks better than it is"
    echo(f"best of {n_trials}: trial {best.number}, {metric} {value} on {by}, {caution}")
    if tuned.test:
        echo(mip.runs.scores_table(f"{spec.name}: test, which no trial has seen", tuned.test))
    echo(f"wrote best.toml, best, trials.json in {out}; next: mip fit {out / 'best.toml'}")


def crossval(
    spec: SpecFile,
    folds: Annotated[
        Path,
        typer.Option(
            metavar="K|FILE", help="So many folds, or a table with a row column and folds."
        ),
    ],
    column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The column of folds. Default: fold, or all fold_0 …."),
    ] = None,
    set_: Changes = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Predictions, as CSV.")] = None,
    json: Json = None,
    cache: Cache = None,
    device: Device = None,
    offline: Offline = False,
    workers: Annotated[int, typer.Option(min=1, help="Folds at once.")] = 1,
    force: Force = False,
) -> None:
    """Train on all folds but one and predict it, for each fold."""
    read_spec, table = open_spec(spec, set_, [out, json], force, [folds])
    if isinstance(table, mip.data.Shards):
        raise SpecError(f"{spec}: crossval needs all rows in memory: --set data.stream=false")
    file = _read_folds(folds, read_spec, table)
    columns = [column] if column else _fold_columns(file)
    context = mip.Context(
        base=spec.parent, cache=cache, device=device, on_features=_features_shown(workers)
    )
    with mip.runs.sharing_features(context) as sharing:
        repeats = {
            name: mip.crossval(
                read_spec,
                mip.data.with_folds(table, file, name),
                name,
                # Bars of several processes would overwrite each other.
                make_hooks=progress_bar(spec.stem) if workers == 1 else mip.runs.no_hooks,
                workers=workers,
                context=sharing,
            )
            for name in columns
        }
    done = mip.runs.join_repeats(repeats)
    errors = {fold: str(error) for fold, error in done.errors.items()}
    scores = dict(zip(done.folds, done.scores, strict=True))
    try:
        if out:
            mip.runs.write_table(out, done.predictions.rename_axis("row"), overwrite=force)
        if json:
            summary = {**mip.runs.fold_averages(done.scores), "errors": errors}
            mip.runs.write_json(json, summary, overwrite=force)
    finally:
        title = f"{spec.name}, {', '.join(columns)}, {done.seconds:.0f} s"
        echo(mip.runs.folds_table(title, scores))
    if errors:
        total = len(errors) + len(scores)
        raise MipError(f"{len(errors)} of {total} folds failed; the scores are those of the others")


def _read_folds(folds: Path, spec: mip.spec.Spec, table: mip.Table) -> mip.Table:
    """Read a file of folds, or make as many as a number says, grouped as the spec splits."""
    if folds.exists() or not str(folds).isdigit():
        return mip.read(folds)
    made = mip.model.deal_folds(spec, table, int(str(folds)))
    return mip.from_columns({"row": made.index.tolist(), "fold": made.texts("fold_0").tolist()})


def _fold_columns(folds: mip.Table) -> list[str]:
    """Return the column `fold`, or those that `mip.folds` makes, one for each repeat."""
    names = [name for name in folds.columns if re.fullmatch(r"fold_\d+", name)]
    names = ["fold"] if "fold" in folds.columns else names
    if not names:
        known = hint("", [name for name in folds.columns if name != "row"])
        raise DataError(f"{folds.name}: say which column has the folds: --column{known}")
    return names
