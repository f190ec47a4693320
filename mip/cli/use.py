"""Verbs that use a model: predict, evaluate, ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import mip
from mip.cli.inputs import (
    check_no_photo,
    check_outputs,
    load_model,
    model_files,
    open_rows,
    open_table_for,
    print_remarks,
    print_seen,
    select_parts,
)
from mip.cli.options import Device, Force, Json, ModelFile, TableFile, Tta
from mip.cli.terminal import echo, note, write_stdout
from mip.errors import DataError, FileError, MipError

if TYPE_CHECKING:
    import pandas as pd

SOME_ROWS_FAILED = 3
"""The exit code of `predict` if it has written predictions, but not for every row."""


def evaluate(
    model: ModelFile,
    table: TableFile,
    split: Annotated[
        str, typer.Option("--split", help="train, valid, test, each, or all rows.")
    ] = "all",
    json: Json = None,
    tta: Tta = 0,
    device: Device = None,
    force: Force = False,
) -> None:
    """Score a model on a table that has its targets."""
    check_outputs([json], force, model_files(model), table)
    predict = load_model(model, tta, device)
    rows = open_table_for(predict.plan, table)
    check_no_photo([json], rows, predict.plan.spec.data.columns)
    parts = select_parts(predict.plans, rows, split)
    print_remarks(predict.plans, rows)
    scores = {name: mip.evaluate(predict, part) for name, part in parts.items() if len(part)}
    if not scores:
        raise DataError(f"{table}: there are no rows in the part '{split}'")
    if split == "all":
        print_seen(predict.plans, rows)
    if json:
        mip.runs.write_json(json, scores if split == "each" else scores[split], overwrite=force)
    report = mip.clean(predict.plan.spec, rows)[1]
    if report.n_dropped:
        note(f"{table.name}: {report}")
    echo(mip.runs.scores_table(f"{model.name} on {table.name}", scores))


def predict(
    model: ModelFile,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="TABLE_OR_PHOTOS...",
            help="A table, as for evaluate; or photos; or a folder of photos.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A .csv or .parquet file.")
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(metavar="K", min=1, help="The K most probable classes and their chances."),
    ] = None,
    id_: Annotated[
        str | None,
        typer.Option(
            "--id", metavar="COLUMN", help="Name the rows by a column of the table, not by numbers."
        ),
    ] = None,
    tta: Tta = 0,
    device: Device = None,
    force: Force = False,
) -> None:
    """Predict every row of a table, or photos. Exit code 3: some rows have no prediction."""
    if out and out.suffix.lower() not in {".csv", ".parquet"}:
        raise FileError(f"{out}: predictions are written to a .csv or .parquet file")
    check_outputs([out], force, [*model_files(model), *paths], paths[0])
    predictor = load_model(model, tta, device)
    rows = open_rows(predictor.plans, paths)
    ids = row_ids(rows, id_) if id_ else None
    predictions = predictor(rows, top=top).rename_axis("row")
    errors = predictions.get("error")
    failed: list[int] = [] if errors is None else errors.notna().to_numpy().nonzero()[0].tolist()
    print_remarks(predictor.plans, rows.without(failed) if failed else rows)
    if errors is not None:
        reason = errors.iloc[failed[0]]
        where = f", looked for in {rows.root.resolve()}" if _is_lost(reason) and rows.root else ""
        note(f"{len(failed)} of {len(predictions)} rows have no prediction: {reason}{where}")
    if ids is not None:
        predictions = with_ids(predictions, ids)
    if out is None:
        write_stdout(predictions.to_csv())
    else:
        mip.runs.write_table(out, predictions, overwrite=force)
        echo(f"wrote {len(predictions) - len(failed)} predictions to {out}")
    if failed:
        raise typer.Exit(SOME_ROWS_FAILED)


def _is_lost(reason: str) -> bool:
    """Whether the reason why a row has no prediction is a photo that is not there."""
    return reason.endswith(" is missing")


def row_ids(rows: mip.Table | mip.data.Shards, column: str) -> pd.Index:
    """Return a column of a table as an index of that name; its cells stay as they are."""
    import pandas as pd

    cells = [chunk[column] for chunk in rows.chunks([column])]
    return pd.Index(pd.concat(cells), name=column)


def with_ids(predictions: pd.DataFrame, ids: pd.Index) -> pd.DataFrame:
    """Name predictions by ids. Raises DataError if a column of theirs has the name of the ids."""
    if ids.name in predictions.columns:
        raise DataError(f"--id {ids.name}: the predictions have a column of this name")
    return predictions.set_axis(ids)


def calibrate(
    model: ModelFile,
    table: TableFile,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file of the calibrated model.")],
    split: Annotated[
        str, typer.Option("--split", help="The rows to learn from: valid, test, or all.")
    ] = "all",
    coverage: Annotated[
        float, typer.Option(metavar="SHARE", help="The share of rows whose truth is within.")
    ] = 0.9,
    device: Device = None,
    force: Force = False,
) -> None:
    """Add intervals, or sets of classes, that hold the truth."""
    check_outputs([out], force, model_files(model), table)
    models = mip.files.load_models(model)
    if len(models) > 1:
        raise MipError(f"{model}: an ensemble cannot be calibrated, a single model can")
    [(plan, state)] = models
    parts = select_parts([plan], open_table_for(plan, table), split)
    if len(parts) > 1 or split == "train":
        raise MipError(f"--split {split}: calibrate on rows that the model was not trained on")
    [rows] = parts.values()
    predict = mip.predictor(plan, state, device or "cpu")
    made = mip.prediction.calibrate(predict, rows, coverage)
    mip.save(out, made.plan, state, overwrite=force)
    text = f"bounds that hold the truth of {coverage:.0%} of new rows, learned from {len(rows)}"
    echo(f"wrote {out}: {text}")


def ensemble(
    models: Annotated[
        list[Path], typer.Argument(metavar="RUN_OR_MODEL...", help="Run folders or model files.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file of the ensemble.")],
    force: Force = False,
) -> None:
    """Combine models into one file that predicts their mean."""
    paths = [mip.files.model_file(path) for path in models]
    check_outputs([out], force, [file for path in paths for file in model_files(path)])
    made = mip.prediction.ensemble([mip.load(path) for path in paths])
    mip.prediction.save_ensemble(out, made, overwrite=force)
    echo(f"wrote {out}: the mean of {len(made.members)} models")
