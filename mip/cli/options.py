"""Arguments and options that several verbs share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

import mip

SpecFile = Annotated[Path, typer.Argument(metavar="SPEC", help="A spec file (TOML).")]


def model_file(path: Path | None) -> Path | None:
    """Return the file of a model, which may be given as its run folder."""
    return mip.files.model_file(path) if path else path


ModelFile = Annotated[
    Path,
    typer.Argument(metavar="MODEL", help="A model file, or a run folder.", callback=model_file),
]


TableFile = Annotated[
    Path,
    typer.Argument(
        metavar="TABLE",
        help="A .csv, .tsv, .jsonl, .parquet or .xlsx file, a quoted glob pattern of such files, "
        "a folder of .parquet files, or a folder of images.",
    ),
]


Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Change a field of the spec, e.g. train.epochs=3."
    ),
]


Cache = Annotated[
    Path | None,
    typer.Option("--cache", metavar="DIR", help="Cache decoded photos and their features in DIR."),
]


def _check_device(name: str | None) -> str | None:
    # Here it is checked before any work, by every verb.
    if name is not None:
        mip.devices.find_device(name)
    return name


Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Where the network computes: cpu, cuda, mps or auto (the GPU, if any).",
        callback=_check_device,
    ),
]


def _stay_offline(asked: bool) -> bool:
    if asked:  # workers inherit it, and the libraries read it when they are imported
        os.environ[mip.nn.OFFLINE] = "1"
    return asked


Offline = Annotated[
    bool,
    typer.Option("--offline", help="Do not download pretrained weights.", callback=_stay_offline),
]


Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Also write the metrics as JSON.")
]


Force = Annotated[
    bool, typer.Option("--force", help="Replace existing files, but never one that is read.")
]


Tta = Annotated[
    int, typer.Option("--tta", metavar="N", help="Average over N augmented views of each row.")
]
