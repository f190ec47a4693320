"""The folder of a run: which files in it are the run's, and when a run may begin there."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from mip.data import table_files
from mip.errors import FileError, MipError
from mip.files.checkpoints import list_checkpoints
from mip.files.format import peek
from mip.output import check_output, write
from mip.spec import Spec, dump

SPEC = "spec.toml"


FILES = (SPEC, "history.jsonl", "history.png", "metrics.json", "model.safetensors")
"""The files that a run writes into its folder, besides its checkpoints."""


KEPT = ("checkpoints/last.safetensors", "model.safetensors")
"""What of a run is worth going on with."""


MARK = "# The spec of this run, written by mip.\n"
"""The first line of a run's spec: by it a folder is known as a run's."""


def last_checkpoint(out: Path) -> Path:
    """Find the checkpoint from which a run goes on. Raises FileError where there is none."""
    path = out / "checkpoints" / "last.safetensors"
    if not path.is_file():
        raise FileError(
            f"{out}: nothing to resume, there is no checkpoints/last.safetensors; "
            "begin without resume"
        )
    return path


def files_of_run(out: Path) -> list[Path]:
    """List the files of a folder that a run would write or remove."""
    named = [out / name for name in FILES if (out / name).exists()]
    return [*named, *list_checkpoints(out / "checkpoints")]


def files_read(spec: Spec, base: Path) -> list[Path]:
    """List the files that a run of a spec reads: its table, folds, and warm-start models."""
    found = [base / path for path in (spec.data.split.folds, *spec.warm_start.values()) if path]
    with suppress(MipError, OSError, ValueError):  # who reads the table says what is wrong with it
        found += table_files(base / spec.data.table) if spec.data.table else []
    return found


def is_run(out: Path) -> bool:
    """Whether a folder holds a run, finished or not: its spec bears our mark, or its last
    checkpoint is one of ours.
    """
    with suppress(OSError):
        if (out / SPEC).read_bytes().startswith(MARK.encode()):
            return True
    return bool(peek(out / "checkpoints" / "last.safetensors"))


def check_folder(
    out: Path, resume: bool = False, overwrite: bool = False, inputs: Iterable[Path] = ()
) -> None:
    """Raise FileError where a run must not begin, or go on, in a folder.

    A new run needs a folder without files of the names that it writes, or `overwrite`, which
    replaces them, but none of the `inputs`. What a run left that was stopped before its first
    checkpoint is in nobody's way. Raises MipError for `resume` with `overwrite`.
    """
    if resume and overwrite:
        raise MipError(f"{out}: resume goes on with a run and overwrite replaces it; choose one")
    if resume:
        last_checkpoint(out)
        return
    begun = is_run(out)
    if begun and not overwrite and any((out / name).exists() for name in KEPT):
        raise FileError(
            f"{out}: holds a run already; use --resume, --force or another --out "
            "(resume=True, overwrite=True in Python)"
        )
    for path in files_of_run(out):
        check_output(path, overwrite or begun, inputs)


def clear(out: Path) -> None:
    """Remove the files of an earlier run: left there, they would pass for those of the next."""
    for path in files_of_run(out):
        path.unlink()


def write_spec(out: Path, spec: Spec) -> None:
    """Write a run's spec into its folder; a file that says the same already keeps its comments."""
    text = dump(spec)
    with suppress(OSError, ValueError):
        if tomllib.loads((out / SPEC).read_text(encoding="utf-8")) == tomllib.loads(text):
            return
    write(out / SPEC, (MARK + text).encode(), overwrite=True)
