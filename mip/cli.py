"""The command line: thin verbs over the library, one line for every mistake."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain, pairwise
from json import dumps
from pathlib import Path
from threading import current_thread, main_thread
from typing import Annotated, Any

import typer

from mip.errors import DataError, FileError, MipError, SpecError, hint, one_line
from mip.fit import Hook
from mip.folder import check_folder, files_of_run, files_read, is_run
from mip.graft import donors, graft
from mip.hooks import best, console, plots, progress, tensorboard
from mip.image import listed
from mip.lock import LOCK, locked
from mip.output import check_output, write
from mip.plan import Plan
from mip.prepare import Parts, clean, fingerprint, oddities, parts, told
from mip.read import files_of, read, takes_in
from mip.run import Job, crossval, job, no_hooks, run
from mip.shards import Shards, stream
from mip.spec import Spec, load_spec
from mip.split import with_folds
from mip.table import Rows, Table
from mip.training import rate_of

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Train models on table columns and images together.",
)

SpecFile = Annotated[Path, typer.Argument(metavar="SPEC", help="A spec file (TOML).")]
ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="A model.safetensors file.")]
TableFile = Annotated[
    Path,
    typer.Argument(
        metavar="TABLE",
        help="A .csv, .tsv, .jsonl or .parquet file, a quoted pattern of such, a folder of "
        ".parquet files, or a folder of class folders.",
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change the spec, as train.epochs=3."),
]
Cache = Annotated[Path | None, typer.Option("--cache", metavar="DIR", help="Keep photos decoded.")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the metrics too.")]
Force = Annotated[
    bool,
    typer.Option("--force", help="Replace files that are there already; never one that is read."),
]
Views = Annotated[
    int, typer.Option("--views", metavar="N", help="Average over N augmented views of each row.")
]


def say(what: Any = "") -> None:
    """Print text or a table of text to standard output, as wide as it is; what its encoding lacks
    is escaped.
    """
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=isinstance(what, str))
    if not isinstance(what, str):
        # In a narrow terminal a table had better break its lines than cut its names.
        room = console.options.update(max_width=WIDEST)
        console.width = max(console.width, console.measure(what, options=room).maximum)
    with console.capture() as shown:
        console.print(what, markup=False)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    emit(shown.get().encode(encoding, "backslashreplace").decode(encoding))


WIDEST = 500
"""Letters of the widest table that is printed whole."""


def emit(text: str) -> None:
    """Write to standard output. Where its reader has gone, the work goes on without it.

    Raises FileError where it cannot be written.
    """
    if sys.stdout is None:
        raise FileError("standard output: is closed")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except UnicodeEncodeError as error:
        letter = error.object[error.start]
        cure = "set PYTHONIOENCODING=utf-8, or write to a file with --out"
        raise FileError(f"standard output: {error.encoding} has no {letter!r}; {cure}") from error
    except OSError as error:
        _discard_output()
        if not isinstance(error, BrokenPipeError):
            why = error.strerror
            raise FileError(f"standard output: cannot be written ({why})") from error


def _discard_output() -> None:
    # What is left in the buffer would be tried again, and fail again, when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def note(text: str) -> None:
    """Print a line to standard error, where there is one."""
    with suppress(OSError):
        sys.stderr.write(f"mip: {one_line(text)}\n")


def changes(texts: Sequence[str] | None) -> dict[str, Any]:
    """Read `--set` texts: the value is TOML if it can be, text otherwise; paths of files are
    taken from the current folder.

    >>> changes(["train.epochs=3", "branch.photos.backbone=resnet18"])
    {'train.epochs': 3, 'branch.photos.backbone': 'resnet18'}
    """
    pairs = {}
    for text in texts or ():
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise SpecError(f"--set {text}: write it as PATH=VALUE")
        is_file = name in {"data.table", "data.split.folds"} or name.startswith("graft.")
        pairs[name] = str(Path(value).absolute()) if is_file else _value(value)
    return pairs


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def opened(
    path: Path,
    texts: Sequence[str] | None,
    outputs: Sequence[Path | None] = (),
    force: bool = False,
    inputs: Sequence[Path | None] = (),
) -> tuple[Spec, Table | Shards]:
    """Read a spec and its table, and leave out the rows that cannot be used.

    Raises FileError before any work where one of the `outputs` must not be written; `inputs` are
    the files that the command reads besides.
    """
    spec = load_spec(path, changes=changes(texts))
    if not spec.data.table:
        raise SpecError(f"{path}: data.table is missing (or give --set data.table=PATH)")
    files = [path, *files_read(spec, path.parent), *inputs]
    check_outputs(outputs, force, files, path.parent / spec.data.table)
    try:
        rows = rows_of(path.parent / spec.data.table, spec.data.stream)
        check_photos(outputs, rows)
        table, report = clean(spec, rows)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error
    say(f"{table.name}: {report}")
    return spec, table


def check_outputs(
    outputs: Sequence[Path | None],
    force: bool,
    inputs: Sequence[Path | None] = (),
    table: Path | None = None,
) -> None:
    """Raise FileError where an output must not be written (`check_output`), is named twice, or
    would be read as a shard of the table from then on.
    """
    files = [path for path in inputs if path]
    if table:
        with suppress(MipError, OSError, ValueError):  # who reads the table says what is wrong
            files += files_of(table)
    seen = list[str]()
    for path in filter(None, outputs):
        check_output(path, force, files)
        if os.path.realpath(path) in seen:
            raise FileError(f"{path}: is the name of two outputs; choose another for one of them")
        check_place(path, table)
        seen.append(os.path.realpath(path))


def check_place(path: Path, table: Path | None) -> None:
    """Raise FileError for an output that would be read as a part of the table from then on."""
    if table and takes_in(table, path):
        raise FileError(f"{path}: would be read as a part of {table}; choose another folder")


def check_photos(outputs: Sequence[Path | None], table: Rows) -> None:
    """Raise FileError for an output that a cell of the table names: a photo is an input too."""
    for path in [path for path in outputs if path and path.exists()]:
        for chunk in table.chunks():
            cells = chain.from_iterable(map(chunk.cells, chunk.columns))
            names = [name for cell in cells for name in listed(cell) if isinstance(name, str)]
            near = [name for name in names if name.endswith(path.name)]
            check_output(path, True, [Path(chunk.root or ".", name) for name in near])


def files_beside(model: Path) -> list[Path]:
    """List a model's file and, where it lies in a run's folder, the other files of the run."""
    return [model, *(files_of_run(model.parent) if is_run(model.parent) else [])]


def table_of(spec: Path, texts: Sequence[str] | None) -> Path | None:
    """Find the table of a spec, where it names one."""
    table = load_spec(spec, changes=changes(texts)).data.table
    return spec.parent / table if table else None


def rows_of(path: Path, streamed: bool) -> Table | Shards:
    """Open a table as a spec says: read into memory, or left in its files."""
    return stream(path) if streamed else read(path)


def split_of(spec: Spec, table: Any, path: Path) -> Parts:
    """Split the rows as the spec says; its files lie relative to the spec's folder."""
    cut = parts(spec, table, path.parent)
    say("  ".join(f"{name} {len(rows)}" for name, rows in zip(Parts._fields, cut, strict=True)))
    return cut


@app.command()
def new(
    table: TableFile,
    target: Annotated[str, typer.Option(metavar="COLUMN", help="The column to predict.")],
    out: Annotated[Path | None, typer.Option(metavar="SPEC", help="Default: TABLE's name.")] = None,
    force: Force = False,
) -> None:
    """Write a commented spec inferred from a table."""
    from mip.new import draft

    out = out or _beside(table)
    check_outputs([out], force, table=table)
    rows = read(table)
    check_photos([out], rows)
    text = draft(rows, target, _relative(table, out.parent))
    write(out, text.encode(), overwrite=force)
    say(f"wrote {out}; next: mip check {out}")


def _beside(table: Path) -> Path:
    full = table.absolute()
    stem = full.name if table.is_dir() else full.stem
    plain = re.sub(r"[*?\[\]]", "", stem).strip("-_. ") or "table"
    return (table if table.name else full).with_name(f"{plain}.toml")


def _relative(path: Path, folder: Path) -> str:
    full, base = path.absolute(), folder.absolute()
    return full.relative_to(base).as_posix() if full.is_relative_to(base) else full.as_posix()


@app.command()
def check(spec: SpecFile, set_: Changes = None) -> None:
    """Hold a spec against its data before any training."""
    read_spec, table = opened(spec, set_)
    cut = split_of(read_spec, table, spec)
    laid = job(read_spec, cut, given=donors(read_spec, spec.parent))
    for chunk in cut.test.chunks():
        laid.plan.encode(chunk)
    for text, rows in oddities(read_spec, table).items():
        say(told(text, rows))
    say(f"{spec} is fine: {laid.steps} steps of up to {read_spec.train.batch} rows")


@app.command()
def show(
    spec: SpecFile,
    set_: Changes = None,
    layers: Annotated[bool, typer.Option("--layers", help="Every layer of the parts too.")] = False,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Draw the tree as SVG.")
    ] = None,
    force: Force = False,
) -> None:
    """Show the tree of a model: shapes, parameters, multiply-adds and memory for one row."""
    from mip.diagram import diagram
    from mip.net import build
    from mip.plan import adapt
    from mip.report import census
    from mip.report import parts as tree
    from mip.summary import measure, summary, types

    read_spec, table = opened(spec, set_, [svg], force)
    learned = adapt(read_spec, split_of(read_spec, table, spec).train)
    plan = graft(learned, donors(read_spec, spec.parent))
    net = build(plan, pretrain=False)
    if svg:
        write(svg, diagram(summary(plan, net)).encode(), overwrite=force)
    say(tree(str(spec), summary(plan, net, layers)))
    say("layers: " + census(types(measure(net, plan.example()))))
    if svg:
        say(f"drew {svg}")


@app.command(name="schema")
def schema_(
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Default: print it.")] = None,
    force: Force = False,
) -> None:
    """Give the JSON Schema of specs, for editors."""
    from mip.schema import schema

    text = dumps(schema(), indent=2, ensure_ascii=False, allow_nan=False)
    if out is None:
        emit(f"{text}\n")
    else:
        write(out, f"{text}\n".encode(), overwrite=force)
        say(f"wrote {out}")


@app.command()
def lr(
    spec: SpecFile,
    out: Annotated[Path | None, typer.Option(metavar="PNG", help="Draw the curve.")] = None,
    set_: Changes = None,
    steps: Annotated[int, typer.Option(min=3, help="How many rates to try.")] = 100,
    cache: Cache = None,
    force: Force = False,
) -> None:
    """Find a learning rate: train a little with rates that rise, and keep nothing."""
    from mip.report import plot_rates
    from mip.run import rate_curve

    read_spec, table = opened(spec, set_, [out], force)
    cut = split_of(read_spec, table, spec)
    curve = rate_curve(read_spec, cut, steps, base=spec.parent, cache=cache)
    if out:
        plot_rates(out, curve, overwrite=force)
        say(f"drew {out}")
    say(f"the smoothed loss is least at {curve.least:.2g}; a tenth of that is well before it rises")
    say(f"try: mip fit {spec} --set train.optimizer.lr={curve.suggestion:.2g}")


@app.command()
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
    with _stopping(lambda: AGAIN if _written(last) == before else going_on()), locked(out):
        check_folder(out, resume, force, [spec])
        check_place(out, table_of(spec, set_))
        read_spec, table = opened(spec, set_)
        cut = split_of(read_spec, table, spec)
        told = partial(_told, out=out, resume=resume, board=board)
        training = partial(run, hooks=told, base=spec.parent, cache=cache)
        ended = training(read_spec, cut, out, resume=resume, overwrite=force)
        _reported(ended, cut, out)


@app.command()
def replay(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    step: Annotated[int, typer.Argument(metavar="STEP", help="Counted from 1.")],
    set_: Changes = None,
    cache: Cache = None,
) -> None:
    """Take one step of a past run again, and hold it against the run's history."""
    from mip.replay import replay

    read_spec, table = opened(folder / "spec.toml", set_)
    cut = split_of(read_spec, table, folder / "spec.toml")
    again = replay(read_spec, cut, folder, step, cache=cache)
    origin = f"{again.file.name}, after step {again.start}" if again.file else "the spec"
    say(f"{folder}: step {step}, in epoch {again.epoch + 1}, from {origin}")
    say(f"rows {', '.join(map(str, again.rows))}")
    say(_numbers(again.now))
    if not again.then:
        say("the history does not have this step")
    elif again.differences:
        say(f"not equal: the history has {_numbers(again.differences)}")
    else:
        say(f"equal to the history, bit for bit: {', '.join(again.then)}")


def _numbers(named: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.9g}" for name, value in named.items())


def _told(laid: Job, out: Path, resume: bool, board: Path | None) -> tuple[Hook, ...]:
    epochs, at = laid.plan.spec.train.epochs, laid.start.state.step
    if resume:
        epoch = min(at * epochs // laid.steps + 1, epochs)
        told = f"goes on after step {at} of {laid.steps}, in epoch {epoch} of {epochs}"
        say(f"{out}: {told}; same spec, same rows, the checkpoint's checksum holds")
    watching = (console(say, epochs=epochs), *_drawn(laid, out))
    curves = (tensorboard(board),) if board else ()
    return (*_quiet(out.name)(laid), *watching, *curves)


def _drawn(laid: Job, out: Path) -> tuple[Hook, ...]:
    try:
        rate = rate_of(laid.plan.spec.train, laid.steps)
        return (plots(out / "history.png", rate, overwrite=True),)
    except FileError as error:
        note(str(error))
        return ()


def _written(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0


def _go_on(spec: Path, out: Path, texts: Sequence[str]) -> str:
    words = ["mip", "fit", str(spec), "--out", str(out)]
    given = [word for text in texts for word in ("--set", text)]
    return f"go on with: {shlex.join([*words, *given, '--resume'])}"


def _reported(ended: Any, cut: Parts, out: Path) -> None:
    from mip.predict import evaluate
    from mip.report import scores, write_json

    found: dict[str, Mapping[str, float]] = {}
    try:
        for name, rows in zip(Parts._fields, cut, strict=True):
            found |= {name: evaluate(ended.predict, rows)} if len(rows) else {}
    except MipError as error:
        raise type(error)(
            f"the model is saved in {out}, and could not be scored: {error}"
        ) from error
    finally:
        write_json(out / "metrics.json", found, overwrite=True)
    say(scores(f"{out} after {ended.seconds:.0f} s", found))
    if ended.plan.spec.train.keep == "best":
        say(f"kept: epoch {best(ended.history.epochs, 'valid/loss') + 1}, with the best valid loss")
    wrote = sorted(path.name for path in out.iterdir() if path.name != LOCK)
    say(f"wrote {', '.join(wrote)} in {out}")


@app.command()
def evaluate(
    model: ModelFile,
    table: TableFile,
    part: Annotated[
        str, typer.Option("--split", help="train, valid, test, each, or all rows.")
    ] = "all",
    json: Json = None,
    views: Views = 0,
    force: Force = False,
) -> None:
    """Score a model on the rows of a table that have a target."""
    from mip.predict import evaluate
    from mip.report import scores, write_json

    check_outputs([json], force, files_beside(model), table)
    predict = _loaded(model, views)
    rows = _rows_for(predict.plan, table)
    check_photos([json], rows)
    chosen = _chosen(predict.plans, rows, part)
    _say_remarks(predict, rows)
    found = {name: evaluate(predict, each) for name, each in chosen.items() if len(each)}
    if not found:
        raise DataError(f"{table}: there are no rows in the part '{part}'")
    if json:
        write_json(json, found if part == "each" else found[part], overwrite=force)
    report = clean(predict.plan.spec, rows)[1]
    if report.lost:
        note(f"{table.name}: {report}")
    say(scores(f"{model.name} on {table.name}", found))


@app.command()
def baseline(
    spec: SpecFile,
    set_: Changes = None,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="MODEL", help="A model of the same rows.")
    ] = None,
    json: Json = None,
    force: Force = False,
) -> None:
    """Score simple models on the rows of a spec, beside a trained one."""
    from mip.baseline import baselines, left_out, network
    from mip.plan import adapt
    from mip.predict import load
    from mip.report import comparison, write_json

    read_spec, table = opened(spec, set_, [json], force, [model])
    if isinstance(table, Shards):
        raise SpecError(f"{spec}: baseline needs all rows in memory: --set data.stream=false")
    cut = split_of(read_spec, table, spec)
    plan = adapt(read_spec, cut.train)
    trained = {"network": network(load(model), plan, cut)} if model else {}
    found = {**baselines(plan, cut), **trained}
    if json:
        write_json(json, found, overwrite=force)
    if left_out(plan):
        say(f"left out, for the network alone: {', '.join(left_out(plan))}")
    say(comparison(spec.name, found))


def _rows_for(plan: Plan, path: Path) -> Table | Shards:
    # A model of shards is split and read as they are; other formats are read whole.
    is_parquet = path.is_dir() or path.suffix.lower() == ".parquet"
    return rows_of(path, plan.spec.data.stream and is_parquet)


def _chosen(plans: Sequence[Plan], rows: Any, part: str) -> dict[str, Any]:
    if part == "all":
        return {"all": rows}
    if part != "each" and part not in Parts._fields:
        raise MipError(f"--split {part} is not a part{hint(part, [*Parts._fields, 'all', 'each'])}")
    cuts = [_cut_anew(plan, rows) for plan in plans]
    for cut in cuts[1:]:
        if any(cut[name].digest() != each.digest() for name, each in cuts[0].items()):
            raise DataError(
                f"{rows.name}: the models were trained on other parts of it, so that some have "
                "seen what is held out from others; leave out --split"
            )
    return cuts[0] if part == "each" else {part: cuts[0][part]}


def _cut_anew(plan: Plan, rows: Any) -> dict[str, Any]:
    cut = parts(plan.spec, clean(plan.spec, rows)[0])._asdict()
    if fingerprint(plan.spec, cut["train"]) != plan.facts["rows"]:
        raise DataError(
            f"{rows.name}: not the table that this model was trained on, so its split would mix "
            "in rows that the model has seen; leave out --split"
        )
    return cut


def _loaded(model: Path, views: int) -> Any:
    from mip.predict import load, tta

    if views < 0:
        raise MipError(f"--views {views}: give a number of views, or 0 for none")
    return tta(load(model), views) if views else load(model)


def _say_remarks(predict: Any, rows: Rows) -> None:
    from mip.predict import remarks

    lines = [line for plan in predict.plans for line in remarks(plan, rows)]
    for line in dict.fromkeys(lines):
        note(line)


@app.command()
def predict(
    model: ModelFile,
    table: TableFile,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A .csv or .parquet file.")
    ] = None,
    views: Views = 0,
    force: Force = False,
) -> None:
    """Predict every row of a table, to a file or to standard output."""
    from mip.report import write_table

    if out and out.suffix.lower() not in {".csv", ".parquet"}:
        raise FileError(f"{out}: predictions are written to a .csv or .parquet file")
    check_outputs([out], force, files_beside(model), table)
    read_model = _loaded(model, views)
    rows = _rows_for(read_model.plan, table)
    frame = read_model(rows).rename_axis("row")
    bad = frame["error"].dropna() if "error" in frame else frame.iloc[:0, 0]
    _say_remarks(read_model, rows.without(bad.index) if len(bad) else rows)
    if len(bad):
        note(f"{len(bad)} of {len(frame)} rows have no prediction: {bad.iloc[0]}")
    if out is None:
        emit(frame.to_csv())
    else:
        write_table(out, frame, overwrite=force)
        say(f"wrote {len(frame)} predictions to {out}")


@app.command()
def sweep(
    spec: SpecFile,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=A,B", help="Values to try, as train.batch=16,32."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each combination.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Runs at once, on the CPU.")] = 1,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: sweeps/NAME.")] = None,
    cache: Cache = None,
    force: Force = False,
) -> None:
    """Train every combination of values with several seeds, and compare."""
    from mip.many import best, sweep
    from mip.report import sweep_frame, sweep_grid, sweep_json, write_json, write_table

    out = out or Path("sweeps") / spec.stem
    as_json, as_csv = out / "sweep.json", out / "sweep.csv"
    check_outputs([as_json, as_csv], force, [spec], table_of(spec, None))
    training = partial(sweep, seeds=seeds, workers=workers, overwrite=force, cache=cache)
    with _stopping(lambda: f"the runs that have ended are kept in {out}: the same command goes on"):
        done = training(spec, choices(set_), out, told=_told_of)
    write_json(as_json, sweep_json(done, best(done)), overwrite=force)
    write_table(as_csv, sweep_frame(done, best(done)), overwrite=force)
    say(sweep_grid(f"{spec.name}, seeds {seeds}", done, best(done)))
    say(f"wrote sweep.csv, sweep.json in {out}")
    failed = [each.error for one in done for each in one.outcomes if each.error]
    if failed:
        raise MipError(f"{len(failed)} of {len(done) * seeds} runs failed; the others are kept")


def _told_of(outcome: Any) -> None:
    if outcome.error:
        note(f"error: {outcome.error}")
    else:
        say(f"{outcome.name}: valid loss {outcome.scores['valid']['loss']:.4g}")


def choices(texts: Sequence[str] | None) -> dict[str, list[Any]]:
    """Read `--set` texts of a sweep: values divided by commas, TOML if they can be, else texts.

    >>> choices(["train.optimizer.lr=1e-3,1e-2", "head.layers=[8],[8, 8]"])
    {'train.optimizer.lr': [0.001, 0.01], 'head.layers': [[8], [8, 8]]}
    >>> choices(["branch.photos.backbone=small,resnet18"])
    {'branch.photos.backbone': ['small', 'resnet18']}
    """
    found: dict[str, list[Any]] = {}
    for name, text in zip(changes(texts), texts or (), strict=True):
        value = text.partition("=")[2]
        listed = _value(f"[{value}]")
        words = [changes([f"{name}={word}"])[name] for word in value.split(",")]
        found[name] = listed if isinstance(listed, list) and listed else words
    return found


@app.command(name="ensemble")
def ensemble_(
    models: Annotated[
        list[Path], typer.Argument(metavar="RUN_OR_MODEL...", help="Run folders or model files.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file of the ensemble.")],
    force: Force = False,
) -> None:
    """Put several models of the same head into one file, which predicts their mean."""
    from mip.many import ensemble, save
    from mip.predict import load

    paths = [path / "model.safetensors" if path.is_dir() else path for path in models]
    check_outputs([out], force, [file for path in paths for file in files_beside(path)])
    made = ensemble([load(path) for path in paths])
    save(out, made, overwrite=force)
    say(f"wrote {out}: the mean of {len(made.members)} models")


@app.command(name="crossval")
def crossval_(
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
    """Train on all folds but one, predict it, for each fold."""
    from mip.report import averages, spread, write_json, write_table

    read_spec, table = opened(spec, set_, [out, json], force, [folds])
    if isinstance(table, Shards):
        raise SpecError(f"{spec}: crossval needs all rows in memory: --set data.stream=false")
    rows = with_folds(table, read(folds), column)
    # Bars of several processes would write over each other.
    quiet, base = _quiet(spec.stem) if workers == 1 else no_hooks, spec.parent
    done = crossval(read_spec, rows, column, quiet, cache=cache, base=base, workers=workers)
    errors = {fold: str(error) for fold, error in done.errors.items()}
    by_fold = dict(zip(done.folds, done.scores, strict=True))
    try:
        if out:
            write_table(out, done.predictions.rename_axis("row"), overwrite=force)
        if json:
            write_json(json, {**averages(done.scores), "errors": errors}, overwrite=force)
    finally:
        say(spread(f"{spec.name}, {column}, {done.seconds:.0f} s", by_fold))
    if errors:
        whole = len(errors) + len(by_fold)
        raise MipError(f"{len(errors)} of {whole} folds failed; the scores are those of the others")


def _quiet(label: str) -> Callable[[Job], tuple[Hook, ...]]:
    return lambda laid: (progress(laid.steps, label),) if sys.stderr.isatty() else ()


@app.command()
def cache(
    folder: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: the user's.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove what is there.")] = False,
) -> None:
    """Show the decoded photos that are kept on disk, or remove them."""
    from mip.cache import caches, default_folder
    from mip.cache import clear as remove
    from mip.report import stored

    where = folder or default_folder()
    if clear:
        say(f"{where}: {remove(where):,} bytes removed")
    else:
        say(stored(f"{where}", caches(where)))


@app.command(name="demo-data")
def demo_data(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to draw.")],
    rows: Annotated[int, typer.Option(min=1, help="How many houses.")] = 800,
    force: Force = False,
) -> None:
    """Draw the demo's houses: a table with two pictures a row."""
    from mip.demo import draw

    draw(folder, rows, overwrite=force)
    say(f"drew {rows} houses in {folder}")


@app.command()
def demo(
    specs: Annotated[Path, typer.Argument(metavar="SPECS", help="A folder of specs.")],
    force: Force = False,
) -> None:
    """Draw the demo's houses, fit its specs, compare."""
    from mip.demo import compare, draw, table

    found = sorted(specs.glob("*.toml"))
    if not found:
        raise FileError(f"{specs}: there is no {'spec' if specs.is_dir() else 'folder'} here")
    folder = _shortest((specs / load_spec(found[0]).data.table).resolve().parent)
    if not (folder / "houses.csv").is_file():
        draw(folder)
    rows = compare(found, folder / "runs", _quiet("demo"), overwrite=force)
    say(table(rows))
    for row in rows:
        say(f"{row.files[0].parent}: {', '.join(path.name for path in row.files)}")
    say(f"{folder / 'runs' / 'losses.png'}: the losses of all")


def _shortest(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


class Stopped(BaseException):
    """A signal that ends the command: its number, and what is kept and how to go on."""


AGAIN = "nothing is kept: the same command starts again"
"""What is said of a command that leaves nothing to go on from."""


@contextmanager
def _stopping(kept: Callable[[], str]) -> Iterator[None]:
    try:
        yield
    except Stopped as stop:
        raise Stopped(stop.args[0], kept()) from None


@contextmanager
def _signals() -> Iterator[None]:
    """Raise Stopped at Ctrl-C, at SIGTERM, and when the terminal is closed."""

    def stop(number: int, frame: object) -> None:
        raise Stopped(number, AGAIN)

    is_main = current_thread() is main_thread()  # no other can ask for signals
    numbers = [getattr(signal, name) for name in SIGNALS if is_main and hasattr(signal, name)]
    # What is ignored stays so, as nohup wants it.
    heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 2, and so is a file that
    cannot be read or written. A signal is one line and 128 + its number.
    """
    told: list[str] = []
    warnings.showwarning = lambda message, *_, **__: _warned(told, str(message))
    try:
        with _signals():
            _check_words(sys.argv[1:])
            app()
    except MipError as error:
        note(f"error: {error}")
        sys.exit(2)
    except OSError as error:
        if error.errno is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        note(f"error: {where}{error.strerror}")
        sys.exit(2)
    except Stopped as stop:
        number, kept = stop.args
        note(f"stopped; {kept}")
        sys.exit(128 + number)
    finally:
        if len(told) > WARNINGS:
            note(f"warning: … and {len(told) - WARNINGS} more")
        _drop_unwritten()


def _check_words(words: Sequence[str]) -> None:
    # A path that is empty would be taken for the current folder.
    for before, word in pairwise(["mip", *words]):
        if not word or re.fullmatch(r"--[\w-]+=", word):
            raise MipError(f"the value after '{word.rstrip('=') or before}' is empty")


def _drop_unwritten() -> None:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        _discard_output()


WARNINGS = 10
"""A thousand broken photos give so many lines, and one with the count of the others."""


def _warned(told: list[str], text: str) -> None:
    if text not in told:
        told.append(text)
        if len(told) <= WARNINGS:
            note(f"warning: {text}")


if __name__ == "__main__":
    main()
