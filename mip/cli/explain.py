"""Verbs that explain a model: explain, embed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import mip
from mip.cli.inputs import (
    Rows,
    check_outputs,
    load_model,
    model_files,
    open_table_for,
    select_parts,
)
from mip.cli.options import Device, Force, ModelFile, TableFile
from mip.cli.terminal import echo
from mip.cli.use import row_ids
from mip.errors import DataError, FileError, MipError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def explain(
    model: ModelFile,
    table: TableFile,
    split: Annotated[
        str, typer.Option("--split", help="The rows to explain: train, valid, test, or all.")
    ] = "all",
    row: Annotated[
        str | None, typer.Option("--row", metavar="LABEL", help="Also say why this row is so.")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="COLUMN", help="Also change this column, all else equal."),
    ] = None,
    rows: Annotated[
        int, typer.Option("--rows", metavar="N", min=2, help="Of more rows, draw N.")
    ] = 500,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Write tables and figures to FOLDER."),
    ] = None,
    device: Device = None,
    force: Force = False,
) -> None:
    """Show what a model's predictions rest on, and how much."""
    tables = ["importance", "branches", "rows", *(f"dependence-{name}" for name in columns or ())]
    tables += [f"row-{row}"] if row is not None else []
    drawn = [name for name in tables if name not in {"branches", "rows"}]
    names = [*(f"{name}.csv" for name in tables), *(f"{name}.png" for name in drawn)]
    files = [out / name for name in names] if out else []
    check_outputs(files, force, model_files(model), table)
    predict = load_model(model, 0, device)
    table_rows = open_table_for(predict.plan, table)
    one = None if row is None else _find_row(table_rows, row)
    part = _select_part(predict, table_rows, split)
    halves = mip.explain.halve(predict, mip.explain.draw_rows(part, rows, "explain"))
    frames = {
        "importance": mip.explain.importance(predict, halves),
        "branches": mip.explain.branches(predict, halves),
        "rows": mip.explain.shapley_rows(predict, halves),
    }
    echo(mip.runs.importance_table(f"{model.name} on {len(halves)} rows", frames["importance"]))
    echo(mip.runs.branches_table("branches", frames["branches"]))
    if one is not None:
        frames[f"row-{row}"] = mip.explain.shapley_columns(predict, one, halves, draws=64)
        echo(mip.runs.effects_table(f"row {row}", frames[f"row-{row}"]))
    for name in columns or ():
        frames[f"dependence-{name}"] = mip.explain.dependence(predict, halves, name)
    for file in files:
        frame = frames[file.stem]
        if file.suffix == ".csv":
            mip.runs.write_table(file, frame.set_index(frame.columns[0]), overwrite=force)
        else:
            mip.plots.save_figure(_figure(file.stem, frame), file, overwrite=force)
    if out:
        echo(f"wrote {len(files)} files to {out}")


def _select_part(
    predict: mip.prediction.Predictor | mip.prediction.Ensemble, rows: Rows, split: str
) -> mip.Table:
    parts = select_parts(predict.plans, rows, split)
    if len(parts) > 1:
        raise MipError(f"--split {split}: one part is explained at a time")
    [part] = parts.values()
    if not len(part):
        raise DataError(f"{rows.name}: there are no rows in the part '{split}'")
    return _in_memory(part)


def _in_memory(rows: Rows) -> mip.Table:
    if not isinstance(rows, mip.Table):
        raise DataError(f"{rows.name}: streamed rows are not explained; give a part of them")
    return rows


def _find_row(rows: Rows, label: str) -> mip.Table:
    table = _in_memory(rows)
    labels = [str(each) for each in table.index]
    if label not in labels:
        raise DataError(f"--row {label}: {table.name} has no such row, but {labels[0]}, …")
    return table.take([labels.index(label)])


def _figure(name: str, frame: pd.DataFrame) -> Figure:
    if name == "importance":
        return mip.plots.importance(frame)
    if "effect" in frame:
        return mip.plots.effects(frame, frame["row"].iloc[0])
    return mip.plots.dependence(frame)


def embed(
    model: ModelFile,
    table: TableFile,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="A .csv or .parquet file.")],
    id_: Annotated[
        str | None, typer.Option("--id", metavar="COLUMN", help="Name the rows by a column.")
    ] = None,
    device: Device = None,
    force: Force = False,
) -> None:
    """Write the vectors that a model makes of each row."""
    if out.suffix.lower() not in {".csv", ".parquet"}:
        raise FileError(f"{out}: vectors are written to a .csv or .parquet file")
    check_outputs([out], force, model_files(model), table)
    predict = load_model(model, 0, device)
    rows = open_table_for(predict.plan, table)
    vectors = mip.explain.embed(predict, rows).rename_axis("row")
    if id_ is not None:
        ids = dict(zip(range(len(rows)), row_ids(rows, id_), strict=True))
        vectors = vectors.rename(index=ids).rename_axis(id_)
    mip.runs.write_table(out, vectors, overwrite=force)
    left_out = len(rows) - len(vectors)
    echo(f"wrote {len(vectors)} rows of {vectors.shape[1]} numbers to {out}")
    if left_out:
        echo(f"{left_out} rows cannot be predicted and are left out")
