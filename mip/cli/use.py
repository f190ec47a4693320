"""Verbs that use a model: predict, evaluate, ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import mip
from mip.cli.inputs import (
    check_outputs,
    check_photos,
    chosen_parts,
    files_beside,
    loaded,
    rows_for,
    say_remarks,
)
from mip.cli.options import Force, Json, ModelFile, TableFile, Views
from mip.cli.terminal import emit, note, say
from mip.errors import DataError, FileError


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
    """Score a model on the rows of a table with a target."""
    check_outputs([json], force, files_beside(model), table)
    predict = loaded(model, views)
    rows = rows_for(predict.plan, table)
    check_photos([json], rows)
    chosen = chosen_parts(predict.plans, rows, part)
    say_remarks(predict, rows)
    found = {name: mip.evaluate(predict, each) for name, each in chosen.items() if len(each)}
    if not found:
        raise DataError(f"{table}: there are no rows in the part '{part}'")
    if json:
        mip.runs.write_json(json, found if part == "each" else found[part], overwrite=force)
    report = mip.clean(predict.plan.spec, rows)[1]
    if report.n_dropped:
        note(f"{table.name}: {report}")
    say(mip.runs.scores_table(f"{model.name} on {table.name}", found))


def predict(
    model: ModelFile,
    table: TableFile,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A .csv or .parquet file.")
    ] = None,
    views: Views = 0,
    force: Force = False,
) -> None:
    """Predict every row of a table."""
    if out and out.suffix.lower() not in {".csv", ".parquet"}:
        raise FileError(f"{out}: predictions are written to a .csv or .parquet file")
    check_outputs([out], force, files_beside(model), table)
    read_model = loaded(model, views)
    rows = rows_for(read_model.plan, table)
    frame = read_model(rows).rename_axis("row")
    bad = frame["error"].dropna() if "error" in frame else frame.iloc[:0, 0]
    say_remarks(read_model, rows.without(bad.index) if len(bad) else rows)
    if len(bad):
        note(f"{len(bad)} of {len(frame)} rows have no prediction: {bad.iloc[0]}")
    if out is None:
        emit(frame.to_csv())
    else:
        mip.runs.write_table(out, frame, overwrite=force)
        say(f"wrote {len(frame)} predictions to {out}")


def ensemble(
    models: Annotated[
        list[Path], typer.Argument(metavar="RUN_OR_MODEL...", help="Run folders or model files.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file of the ensemble.")],
    force: Force = False,
) -> None:
    """Combine models into one file that predicts their mean."""
    paths = [path / "model.safetensors" if path.is_dir() else path for path in models]
    check_outputs([out], force, [file for path in paths for file in files_beside(path)])
    made = mip.predict.ensemble([mip.load(path) for path in paths])
    mip.predict.save_ensemble(out, made, overwrite=force)
    say(f"wrote {out}: the mean of {len(made.members)} models")
