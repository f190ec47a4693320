"""Verbs to start with: new, check, schema and the demo."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

import mip
from mip.cli.inputs import check_no_photo, check_outputs, open_spec, split_rows
from mip.cli.options import Changes, Device, Force, Offline, SpecFile, TableFile
from mip.cli.terminal import echo, progress_bar, write_stdout
from mip.errors import FieldError, FileError, MipError, hint
from mip.output import write


def new(
    table: TableFile,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="The column to predict, again for another one. Default: label, of images.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="SPEC", help="Default: TABLE's name.")] = None,
    names: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="Columns of a CSV without a header."),
    ] = None,
    sep: Annotated[
        str,
        typer.Option(metavar="CHARACTER", help="What divides cells; tab, whitespace."),
    ] = "",
    encoding: Annotated[str, typer.Option(metavar="NAME", help="Of a CSV, e.g. shift_jis.")] = "",
    skip_rows: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Lines above the table."),
    ] = None,
    day_first: Annotated[
        bool | None,
        typer.Option("--day-first/--month-first", help="What 1/2/2024 begins with."),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="A column to leave out.")
    ] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(metavar="[FILE]", help="A net for photos: DEFAULT, or weights in FILE."),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which net, e.g. resnet18 or small.")
    ] = None,
    force: Force = False,
) -> None:
    """Write a commented spec inferred from a table."""
    out = out or _spec_beside(table)
    check_outputs([out], force, table=table)
    find_net = _net_to_find(pretrained, backbone, out)
    csv = _csv_format(table, names, sep, encoding, skip_rows)
    rows = mip.read(table, csv)
    check_no_photo([out], rows, {})
    if not names:
        mip.data.check_header(rows)
    for remark in mip.data.csv_remarks(csv, table):
        echo(remark)
    targets = target or [_label_of_images(rows, table)]
    path = _path_for_spec(table, out)
    made = mip.spec.make_draft(rows, targets, path, csv, day_first, without or (), find_net)
    if (pretrained or backbone) and not made.photo_columns:
        raise MipError(f"{rows.name}: has no photos, which --pretrained and --backbone are for")
    write(out, made.text.encode(), overwrite=force)
    for note in made.notes:
        echo(note)
    echo(f"wrote {out}; next: mip check {out}")


def _path_for_spec(path: Path, spec: Path) -> str:
    """Return a path as a spec names it: relative to its folder if it is below that."""
    full, folder = path.absolute(), spec.parent.absolute()
    return (full.relative_to(folder) if full.is_relative_to(folder) else full).as_posix()


def _net_to_find(
    pretrained: str | None, backbone: str | None, spec: Path
) -> Callable[[], mip.spec.PretrainedNet | None]:
    """Return what finds the net that the options ask for; without them, cached weights are used."""
    if mip.nn.is_weights_file(pretrained):
        file = Path(str(pretrained))
        return partial(mip.spec.file_net, file, _path_for_spec(file, spec), backbone)
    if pretrained is not None and Path(pretrained).exists():
        endings = ", ".join(mip.nn.WEIGHTS_SUFFIXES)
        raise MipError(f"--pretrained {pretrained}: is no file of weights ({endings})")
    if pretrained is None and backbone is None:
        return mip.spec.cached_net
    if pretrained is None and backbone == "small":
        return mip.spec.no_net
    return partial(mip.spec.library_net, backbone, pretrained or "DEFAULT")


def _csv_format(
    table: Path, names: str | None, sep: str, encoding: str, skip_rows: int | None
) -> mip.data.CsvFormat:
    """Recognise how the first file of a table is written, but for what the options say."""
    files = mip.data.table_files(table)
    separator = {"tab": "\t", "\\t": "\t"}.get(sep, sep)
    columns = names.split(",") if names else ()
    try:
        return mip.data.sniff_csv(
            files[0] if files else table, columns, separator, encoding, skip_rows
        )
    except FieldError as error:
        raise MipError(f"--{error.field.replace('_', '-')} {error.message}") from error


def _spec_beside(table: Path) -> Path:
    full = table.absolute()
    stem = full.name if table.is_dir() else full.stem
    name = re.sub(r"[*?\[\]]", "", stem).strip("-_. ") or "table"
    return (table if table.name else full).with_name(f"{name}.toml")


def _label_of_images(rows: mip.Table, path: Path) -> str:
    """Return the column of the labels of images. Raises MipError for rows without images, or
    without labels, and names the tables that lie beside such images.
    """
    if "label" in rows.columns and {"image", "file_name"} & {*rows.columns}:
        return "label"
    are_images = path.is_dir() and not mip.data.table_files(path)
    files = sorted(path.iterdir()) if are_images else []
    tables = [str(file) for file in files if file.suffix.lower() in mip.data.FORMATS]
    beside = f"; or give a table that is beside the images: {', '.join(tables[:3])}"
    cure = hint("", rows.columns) + (beside if tables else "")
    raise MipError(f"{rows.name}: say which column to predict: --target COLUMN{cure}")


def check(spec: SpecFile, set_: Changes = None, offline: Offline = False) -> None:
    """Check a spec against its data without training."""
    read_spec, table = open_spec(spec, set_)
    parts = split_rows(read_spec, table, spec)
    context = mip.Context(base=spec.parent, device="cpu", use_features=False)
    job = mip.runs.prepare_job(read_spec, parts, context)
    for chunk in parts.test.chunks():
        job.plan.encode(chunk)
    for text, rows in mip.model.conversions(read_spec, table).items():
        echo(mip.model.summarize_rows(text, rows))
    if not read_spec.train.epochs:
        echo(mip.runs.UNTRAINED)
    echo(f"{spec} is fine: {job.steps} steps of up to {read_spec.train.batch_size} rows")


def schema(
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Default: print it.")] = None,
    force: Force = False,
) -> None:
    """Print the JSON Schema of specs, for editors."""
    text = dumps(mip.spec.schema(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if out is None:
        write_stdout(text)
    else:
        write(out, text.encode(), overwrite=force)
        echo(f"wrote {out}")


def demo_data(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write it to.")],
    rows: Annotated[int, typer.Option(min=1, help="How many houses.")] = 800,
    force: Force = False,
) -> None:
    """Generate demo data: houses with two photos each."""
    mip.demo.draw(folder, rows, overwrite=force)
    echo(f"wrote {rows} houses to {folder}")


def demo(
    specs: Annotated[Path, typer.Argument(metavar="SPECS", help="A folder of specs.")],
    device: Device = None,
    force: Force = False,
) -> None:
    """Generate demo data, train the demo's specs, compare them."""
    paths = sorted(specs.glob("*.toml"))
    if not paths:
        raise FileError(f"{specs}: there is no {'spec' if specs.is_dir() else 'folder'} here")
    folder = (specs / mip.load_spec(paths[0]).data.table).resolve().parent
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())
    if not (folder / "houses.csv").is_file():
        mip.demo.draw(folder)
    runs = folder / "runs"
    rows = mip.demo.compare(paths, runs, progress_bar("demo"), overwrite=force, device=device)
    echo(mip.demo.results_table(rows))
    for row in rows:
        echo(f"{row.files[0].parent}: {', '.join(path.name for path in row.files)}")
    echo(f"{runs / 'losses.png'}: the losses of all")
