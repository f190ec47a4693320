"""Verbs to start with: new, check, schema and the demo."""

from __future__ import annotations

import re
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

import mip
from mip.cli.inputs import check_outputs, check_photos, opened, split_of
from mip.cli.options import Changes, Force, SpecFile, TableFile
from mip.cli.terminal import bar_of, emit, say
from mip.errors import FileError
from mip.output import write


def new(
    table: TableFile,
    target: Annotated[str, typer.Option(metavar="COLUMN", help="The column to predict.")],
    out: Annotated[Path | None, typer.Option(metavar="SPEC", help="Default: TABLE's name.")] = None,
    force: Force = False,
) -> None:
    """Write a commented spec inferred from a table."""
    out = out or _beside(table)
    check_outputs([out], force, table=table)
    rows = mip.read(table)
    check_photos([out], rows)
    text = mip.spec.draft(rows, target, _relative(table, out.parent))
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


def check(spec: SpecFile, set_: Changes = None) -> None:
    """Check a spec against its data without training."""
    read_spec, table = opened(spec, set_)
    cut = split_of(read_spec, table, spec)
    context = mip.Context(base=spec.parent, device="cpu")
    job = mip.runs.prepare_job(read_spec, cut, context)
    for chunk in cut.test.chunks():
        job.plan.encode(chunk)
    for text, rows in mip.model.oddities(read_spec, table).items():
        say(mip.model.summarize_rows(text, rows))
    say(f"{spec} is fine: {job.steps} steps of up to {read_spec.train.batch_size} rows")


def schema(
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Default: print it.")] = None,
    force: Force = False,
) -> None:
    """Print the JSON Schema of specs, for editors."""
    text = dumps(mip.spec.schema(), indent=2, ensure_ascii=False, allow_nan=False)
    if out is None:
        emit(f"{text}\n")
    else:
        write(out, f"{text}\n".encode(), overwrite=force)
        say(f"wrote {out}")


def demo_data(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to draw.")],
    rows: Annotated[int, typer.Option(min=1, help="How many houses.")] = 800,
    force: Force = False,
) -> None:
    """Draw the demo's houses: a table with two photos a row."""
    mip.demo.draw(folder, rows, overwrite=force)
    say(f"drew {rows} houses in {folder}")


def demo(
    specs: Annotated[Path, typer.Argument(metavar="SPECS", help="A folder of specs.")],
    force: Force = False,
) -> None:
    """Draw the demo's houses, fit its specs, compare."""
    found = sorted(specs.glob("*.toml"))
    if not found:
        raise FileError(f"{specs}: there is no {'spec' if specs.is_dir() else 'folder'} here")
    folder = _shortest((specs / mip.load_spec(found[0]).data.table).resolve().parent)
    if not (folder / "houses.csv").is_file():
        mip.demo.draw(folder)
    rows = mip.demo.compare(found, folder / "runs", bar_of("demo"), overwrite=force)
    say(mip.demo.results_table(rows))
    for row in rows:
        say(f"{row.files[0].parent}: {', '.join(path.name for path in row.files)}")
    say(f"{folder / 'runs' / 'losses.png'}: the losses of all")


def _shortest(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
