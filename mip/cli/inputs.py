"""What a verb reads, and a check of what it may write."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import mip
from mip.cli.terminal import note, say
from mip.errors import DataError, FileError, MipError, SpecError, hint
from mip.output import check_output


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
        is_file = name in {"data.table", "data.split.folds"} or name.startswith("warm_start.")
        pairs[name] = str(Path(value).absolute()) if is_file else value_of(value)
    return pairs


def value_of(text: str) -> Any:
    """Read a value: TOML if it can be, text otherwise."""
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
) -> tuple[mip.spec.Spec, mip.Table | mip.data.Shards]:
    """Read a spec and its table, and leave out the rows that cannot be used.

    Raises FileError before any work where one of the `outputs` must not be written; `inputs` are
    the files that the command reads besides.
    """
    spec = mip.load_spec(path, changes=changes(texts))
    if not spec.data.table:
        raise SpecError(f"{path}: data.table is missing (or give --set data.table=PATH)")
    files = [path, *mip.files.input_files(spec, path.parent), *inputs]
    check_outputs(outputs, force, files, path.parent / spec.data.table)
    try:
        rows = rows_of(path.parent / spec.data.table, spec.data.stream)
        check_photos(outputs, rows)
        table, report = mip.clean(spec, rows)
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
            files += mip.data.table_files(table)
    seen = list[str]()
    for path in filter(None, outputs):
        check_output(path, force, files)
        if os.path.realpath(path) in seen:
            raise FileError(f"{path}: is the name of two outputs; choose another for one of them")
        check_place(path, table)
        seen.append(os.path.realpath(path))


def check_place(path: Path, table: Path | None) -> None:
    """Raise FileError for an output that would be read as a part of the table from then on."""
    if table and mip.data.includes_file(table, path):
        raise FileError(f"{path}: would be read as a part of {table}; choose another folder")


def check_photos(outputs: Sequence[Path | None], table: mip.data.Rows) -> None:
    """Raise FileError for an output that a cell of the table names: a photo is an input too."""
    for path in [path for path in outputs if path and path.exists()]:
        for chunk in table.chunks():
            cells = chain.from_iterable(map(chunk.cells, chunk.columns))
            names = [
                name for cell in cells for name in mip.data.as_photos(cell) if isinstance(name, str)
            ]
            near = [name for name in names if name.endswith(path.name)]
            check_output(path, True, [Path(chunk.root or ".", name) for name in near])


def files_beside(model: Path) -> list[Path]:
    """List a model's file and, where it lies in a run's folder, the other files of the run."""
    return [
        model,
        *(mip.files.run_files(model.parent) if mip.files.is_run(model.parent) else []),
    ]


def table_of(spec: Path, texts: Sequence[str] | None) -> Path | None:
    """Find the table of a spec, where it names one."""
    table = mip.load_spec(spec, changes=changes(texts)).data.table
    return spec.parent / table if table else None


def rows_of(path: Path, streamed: bool) -> mip.Table | mip.data.Shards:
    """Open a table as a spec says: read into memory, or left in its files."""
    return mip.stream(path) if streamed else mip.read(path)


def split_of(spec: mip.spec.Spec, table: Any, path: Path) -> mip.model.Parts:
    """Split the rows as the spec says; its files lie relative to the spec's folder."""
    cut = mip.parts(spec, table, path.parent)
    say(
        "  ".join(
            f"{name} {len(rows)}" for name, rows in zip(mip.model.Parts._fields, cut, strict=True)
        )
    )
    return cut


def rows_for(plan: mip.model.Plan, path: Path) -> mip.Table | mip.data.Shards:
    """Open a table for a model: streamed if its spec says so."""
    # A model of shards is split and read as they are; other formats are read whole.
    is_parquet = path.is_dir() or path.suffix.lower() == ".parquet"
    return rows_of(path, plan.spec.data.stream and is_parquet)


def chosen_parts(plans: Sequence[mip.model.Plan], rows: Any, part: str) -> dict[str, Any]:
    """Select the rows of `--split`, by part."""
    if part == "all":
        return {"all": rows}
    if part != "each" and part not in mip.model.Parts._fields:
        raise MipError(
            f"--split {part} is not a part{hint(part, [*mip.model.Parts._fields, 'all', 'each'])}"
        )
    cuts = [_cut_anew(plan, rows) for plan in plans]
    for cut in cuts[1:]:
        if any(cut[name].digest() != each.digest() for name, each in cuts[0].items()):
            raise DataError(
                f"{rows.name}: the models were trained on other parts of it, so that some have "
                "seen what is held out from others; leave out --split"
            )
    return cuts[0] if part == "each" else {part: cuts[0][part]}


def _cut_anew(plan: mip.model.Plan, rows: Any) -> dict[str, Any]:
    cut = mip.parts(plan.spec, mip.clean(plan.spec, rows)[0])._asdict()
    if mip.model.fingerprint(plan.spec, cut["train"]) != plan.facts["rows"]:
        raise DataError(
            f"{rows.name}: not the table that this model was trained on, so its split would mix "
            "in rows that the model has seen; leave out --split"
        )
    return cut


def loaded(model: Path, views: int) -> Any:
    """Load a model, with augmented views averaged if asked."""
    if views < 0:
        raise MipError(f"--views {views}: give a number of views, or 0 for none")
    return mip.predict.tta(mip.load(model), views) if views else mip.load(model)


def say_remarks(predict: Any, rows: mip.data.Rows) -> None:
    """Print what is odd about rows to predict, each remark once."""
    lines = [line for plan in predict.plans for line in mip.predict.prediction_warnings(plan, rows)]
    for line in dict.fromkeys(lines):
        note(line)


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
        values = value_of(f"[{value}]")
        words = [changes([f"{name}={word}"])[name] for word in value.split(",")]
        found[name] = values if isinstance(values, list) and values else words
    return found
