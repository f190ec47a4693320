"""The folder of a run: which files in it belong to the run, and when a run may start there."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from mip.branches import files_of
from mip.data import table_files
from mip.errors import FileError, MipError
from mip.files.checkpoints import list_checkpoints
from mip.files.format import peek
from mip.output import check_output, write
from mip.spec import Spec, dump

_SPEC, _LAST, _MODEL = "spec.toml", "checkpoints/last.safetensors", "model.safetensors"
_FILES = (_SPEC, "history.jsonl", "history.png", "metrics.json", "out_of_fold.csv", _MODEL)


MARK = "# The spec of this run, written by mip.\n"
"""The first line of a run's spec, by which a folder is recognized as a run's."""


def last_checkpoint(out: Path) -> Path:
    """Return the checkpoint from which a run is resumed. Raises FileError if there is none."""
    path = out / _LAST
    if not path.is_file():
        raise FileError(f"{out}: nothing to resume, there is no {_LAST}; begin without resume")
    return path


def run_files(out: Path) -> list[Path]:
    """List the files of a folder that a run would write or remove."""
    named = [out / name for name in _FILES if (out / name).exists()]
    return [*named, *list_checkpoints(out / "checkpoints")]


def input_files(spec: Spec, base: Path) -> list[Path]:
    """List the files that a run of a spec reads: tables, folds, models to start from, and
    pretrained weights.
    """
    named = spec.data.split.folds, *spec.warm_start.values(), *files_of(spec.root)
    paths = [base / path for path in named if path]
    with suppress(MipError, OSError, ValueError):  # whoever reads the table reports what is wrong
        paths += table_files(base / spec.data.table) if spec.data.table else []
    return paths


def is_run(out: Path) -> bool:
    """Return whether a folder holds a run, finished or not: its spec has mip's mark, or its last
    checkpoint is a file of mip's.
    """
    with suppress(OSError):
        if (out / _SPEC).read_bytes().startswith(MARK.encode()):
            return True
    return bool(peek(out / _LAST))


def check_run_folder(
    out: Path, resume: bool = False, overwrite: bool = False, inputs: Iterable[Path] = ()
) -> None:
    """Raise FileError unless a run may start, or resume, in a folder.

    A new run must not find files of the names that it writes, unless `overwrite` allows to replace
    them, and never one of the `inputs`. The remains of a run that was stopped before its first
    checkpoint may be replaced. Raises MipError for `resume` with `overwrite`.
    """
    if resume and overwrite:
        raise MipError(f"{out}: resume continues a run and overwrite replaces it; choose one")
    if resume:
        last_checkpoint(out)
        return
    started = is_run(out)
    if started and not overwrite and any((out / name).exists() for name in (_LAST, _MODEL)):
        raise FileError(
            f"{out}: holds a run already; use --resume, --force or another --out "
            "(resume=True, overwrite=True in Python)"
        )
    for path in run_files(out):
        check_output(path, overwrite or started, inputs)


def clear_run(out: Path) -> None:
    """Remove the files of an earlier run, which would be mistaken for those of the next."""
    for path in run_files(out):
        path.unlink()


def write_spec(out: Path, spec: Spec) -> None:
    """Write a run's spec into its folder, unless the file there has the same content: it may have
    comments.
    """
    text = dump(spec)
    with suppress(OSError, ValueError):
        if tomllib.loads((out / _SPEC).read_text(encoding="utf-8")) == tomllib.loads(text):
            return
    write(out / _SPEC, (MARK + text).encode(), overwrite=True)
