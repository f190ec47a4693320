"""What verbs read, and checks of what they may write."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, combinations
from pathlib import Path
from typing import Any, TypeAlias

import mip
from mip.cli.terminal import echo, note
from mip.errors import DataError, FileError, MipError, SpecError, hint
from mip.output import check_output

Rows: TypeAlias = "mip.Table | mip.data.Shards"


def parse_changes(texts: Sequence[str] | None) -> dict[str, Any]:
    """Read the values of `--set`: TOML if possible, otherwise text. Paths of files are relative to
    the current folder.

    >>> parse_changes(["train.epochs=3", "branch.photos.backbone=resnet18"])
    {'train.epochs': 3, 'branch.photos.backbone': 'resnet18'}
    """
    changes = {}
    for text in texts or ():
        path, sign, value = text.partition("=")
        if not sign or not path:
            raise SpecError(f"--set {text}: write it as PATH=VALUE")
        is_file = _is_file(path, value)
        changes[path] = str(Path(value).absolute()) if is_file else mip.spec.parse_value(value)
    return changes


def _is_file(path: str, value: str) -> bool:
    if path.endswith(".pretrained"):
        return mip.nn.is_weights_file(value)
    return path in {"data.table", "data.split.folds"} or path.startswith("warm_start.")


def parse_choices(texts: Sequence[str] | None) -> dict[str, list[Any]]:
    """Read the values of a sweep's `--set`, separated by commas: TOML if possible, otherwise texts.

    >>> parse_choices(["train.optimizer.lr=1e-3,1e-2", "head.layers=[8],[8, 8]"])
    {'train.optimizer.lr': [0.001, 0.01], 'head.layers': [[8], [8, 8]]}
    >>> parse_choices(["branch.photos.backbone=small,resnet18"])
    {'branch.photos.backbone': ['small', 'resnet18']}
    """
    choices: dict[str, list[Any]] = {}
    for path, text in zip(parse_changes(texts), texts or (), strict=True):
        value = text.partition("=")[2]
        values = mip.spec.parse_value(f"[{value}]")
        if not isinstance(values, list) or not values:
            values = [parse_changes([f"{path}={word}"])[path] for word in value.split(",")]
        choices[path] = values
    return choices


def open_spec(
    path: Path,
    changes: Sequence[str] | None,
    outputs: Sequence[Path | None] = (),
    force: bool = False,
    inputs: Sequence[Path | None] = (),
) -> tuple[mip.spec.Spec, Rows]:
    """Read a spec and its table, without the rows that cannot be used, and print how many it has.

    Raises FileError before any work for one of the `outputs` that must not be written; `inputs` are
    other files that the verb reads.
    """
    spec = mip.load_spec(path, changes=parse_changes(changes))
    if not spec.data.table:
        raise SpecError(f"{path}: data.table is missing (or give --set data.table=PATH)")
    table_path = path.parent / spec.data.table
    files = [path, *mip.files.input_files(spec, path.parent), *inputs]
    check_outputs(outputs, force, files, table_path)
    try:
        rows = _open_table(table_path, spec, spec.data.stream)
        check_no_photo(outputs, rows, spec.data.columns)
        table, report = mip.clean(spec, rows)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error
    except DataError as error:
        if any(table_path.parent.glob(table_path.name)):
            raise
        raise DataError(f"{error}; --set data.table=PATH says where it is") from error
    echo(f"{table.name}: {report}")
    return spec, table


def table_path(spec: Path, changes: Sequence[str] | None) -> Path | None:
    """Return the path of a spec's table, if it names one."""
    table = mip.load_spec(spec, changes=parse_changes(changes)).data.table
    return spec.parent / table if table else None


def split_rows(spec: mip.spec.Spec, table: Any, path: Path) -> mip.model.Parts:
    """Split rows as the spec at `path` says, and print how many each part has."""
    parts = mip.parts(spec, table, path.parent)
    echo("  ".join(f"{name} {len(rows)}" for name, rows in parts._asdict().items()))
    return parts


def load_model(
    path: Path, tta: int, device: str | None
) -> mip.prediction.Predictor | mip.prediction.Ensemble:
    """Load a model, with test-time augmentation if `tta` is not 0."""
    if tta < 0:
        raise MipError(f"--tta {tta}: give a number of views, or 0 for none")
    model = mip.load(path, device=device or "cpu")
    return mip.prediction.tta(model, tta) if tta else model


def open_table_for(plan: mip.model.Plan, path: Path) -> Rows:
    """Open a table for a model: streamed if its spec says so."""
    # A model of shards splits and reads them as they are; other formats are read whole.
    files = mip.data.table_files(path) if plan.spec.data.stream else []
    is_parquet = {file.suffix.lower() for file in files} == {".parquet"}
    return mip.model.table_of(plan.spec, _open_table(path, plan.spec, is_parquet))


def open_rows(plans: Sequence[mip.model.Plan], paths: Sequence[Path]) -> Rows:
    """Open what is to be predicted: a table as `open_table_for` does, or photos."""
    given = paths[0] if len(paths) == 1 else list(paths)
    if mip.prediction.find_photos(given):
        return mip.prediction.rows_to_predict(given, plans)
    return open_table_for(plans[0], paths[0])


def _open_table(path: Path, spec: mip.spec.Spec, streamed: bool) -> Rows:
    return mip.stream(path) if streamed else mip.read(path, spec.data.format)


def select_parts(plans: Sequence[mip.model.Plan], table: Rows, part: str) -> dict[str, Rows]:
    """Return the rows that `--split` asks for, by part."""
    names = mip.model.Parts._fields
    if part == "all":
        return {"all": table}
    if part != "each" and part not in names:
        raise MipError(f"--split {part} is not a part{hint(part, [*names, 'all', 'each'])}")
    first, *others = [_same_parts(plan, table) for plan in plans]
    for other in others:
        if any(other[name].digest() != rows.digest() for name, rows in first.items()):
            raise DataError(
                f"{table.name}: the models were trained on different parts of it, so that some "
                "have seen what is held out from others; leave out --split"
            )
    return first if part == "each" else {part: first[part]}


def _same_parts(plan: mip.model.Plan, table: Any) -> dict[str, Rows]:
    parts = mip.parts(plan.spec, mip.clean(plan.spec, table)[0])
    if mip.model.fingerprint(plan.spec, parts.train) != plan.facts["rows"]:
        raise DataError(
            f"{table.name}: not the table that this model was trained on, so that its split would "
            "mix in rows that the model has seen; without --split all rows are scored, these too"
        )
    return parts._asdict()


def print_seen(plans: Sequence[mip.model.Plan], table: Rows) -> None:
    """Print how many of all the rows have trained the models, if it is their table."""
    with suppress(MipError):
        seen = max(len(_same_parts(plan, table)["train"]) for plan in plans)
        note(
            f"{table.name}: the model was trained on {seen} of these {len(table)} rows; "
            "--split test scores those that were held out"
        )


def print_remarks(plans: Sequence[mip.model.Plan], rows: Rows) -> None:
    """Print what is unusual about rows to predict, each remark once."""
    remarks = chain.from_iterable(mip.prediction.prediction_warnings(plan, rows) for plan in plans)
    for remark in dict.fromkeys(remarks):
        note(remark)


# What may be written.


def check_outputs(
    outputs: Sequence[Path | None],
    force: bool,
    inputs: Sequence[Path | None] = (),
    table: Path | None = None,
) -> None:
    """Raise FileError for an output that must not be written (`check_output`), that is named twice,
    or that would become a part of the table.
    """
    files = [path for path in inputs if path]
    if table:
        with suppress(MipError, OSError, ValueError):  # reported when the table is read
            files += mip.data.table_files(table)
    seen = list[str]()
    for path in filter(None, outputs):
        check_output(path, force, files)
        if os.path.realpath(path) in seen:
            raise FileError(f"{path}: is the name of two outputs; choose another for one of them")
        check_outside_table(path, table)
        seen.append(os.path.realpath(path))


def check_outside_table(path: Path, table: Path | None) -> None:
    """Raise FileError for an output that would be read as a part of the table from then on."""
    if table and mip.data.includes_file(table, path):
        raise FileError(f"{path}: would be read as a part of {table}; choose another folder")


def check_no_photo(
    outputs: Sequence[Path | None], table: Rows, formats: Mapping[str, mip.data.ColumnFormat]
) -> None:
    """Raise FileError for an output that a cell of the table names: a photo is an input too."""
    for path in [path for path in outputs if path and path.exists()]:
        for photo in _photos_named_like(path, table.with_formats(formats)):
            with suppress(DataError):  # it names no file
                check_output(path, True, [mip.images.find_photo(photo)])


def check_holds_no_photo(folder: Path, spec: mip.spec.Spec, table: Rows) -> None:
    """Raise FileError for a folder in which photos of the table lie, unless it is that of a run."""
    is_ours = mip.files.is_run(folder)
    files = {os.path.realpath(path) for path in ([] if is_ours else folder.glob("*.*"))}
    columns = mip.model.image_columns(spec)
    for chunk in table.chunks(columns) if files else ():
        cells = chain.from_iterable(mip.images.photos_of(chunk, column) for column in columns)
        for photo in chain.from_iterable(cells):
            with suppress(DataError):  # it names no file
                is_name = isinstance(photo, mip.data.PhotoName)
                if is_name and str(mip.images.find_photo(photo)) in files:
                    text = f"has photos of the table, such as {photo}; choose another folder"
                    raise FileError(f"{folder}: {text}")


def _photos_named_like(path: Path, table: Rows) -> Iterator[mip.data.PhotoName]:
    """Yield the photos of cells that have the name of a file or a part of it."""
    import pandas as pd

    stem = path.stem.casefold()
    substrings = {stem[start:end] for start, end in combinations(range(len(stem) + 1), 2)}
    for chunk in table.chunks():
        for column in chunk.columns:
            cells = chunk[column].reset_index(drop=True)
            if not mip.data.holds_text(cells):
                cells = pd.Series(map(_name_in, chunk.cells(column)), dtype="str")
            names = cells.drop_duplicates().str.casefold()
            longer = names[names.str.contains(stem, regex=False, na=False)]
            words = longer[pd.to_numeric(longer, errors="coerce").isna()]
            rows = names.index[names.isin(substrings)].union(words.index)
            for photo in chain.from_iterable(chunk.take(rows.to_numpy()).photos(column)):
                if isinstance(photo, mip.data.PhotoName):
                    yield photo


def _name_in(cell: object) -> str:
    is_name = isinstance(cell, (str, int, float, list, os.PathLike))
    return mip.data.as_text(cell) if is_name else ""


def model_files(model: Path) -> list[Path]:
    """List a model's file and, if it is in a run's folder, the other files of the run."""
    folder = model.parent
    return [
        mip.files.model_file(model),
        *(mip.files.run_files(folder) if mip.files.is_run(folder) else []),
    ]
