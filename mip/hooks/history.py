"""Keep the history of a fit: in a list, a file or a picture."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import define, field

from mip.errors import MipError
from mip.optim import Schedule
from mip.output import append, check_output, write
from mip.plots import (
    Scale,
    figure,
    format_of,
    history_by_metric,
    in_notebook,
    render,
    updating_output,
)
from mip.plots import history as draw
from mip.train import Event, History, Hook, Reply, stateful, with_names


def record(rows: list[Mapping[str, float]]) -> Hook:
    """Append each epoch's row to a list."""

    def hook(event: Event) -> Reply:
        if event.name == "after_epoch":
            rows.append(event.metrics)
        return None

    return with_names(hook, reads=(), adds=())


def _check_own_file(
    event: Event, path: Path, overwrite: bool, is_own: Callable[[bytes], bool]
) -> None:
    # Only a fit that continues a history may replace the file that the fit before it has written.
    if event.history.epochs or event.history.steps:
        with suppress(OSError):
            overwrite = overwrite or is_own(path.read_bytes())
    check_output(path, overwrite)


def log(path: str | Path, steps: bool = False, *, overwrite: bool = False) -> Hook:
    """Write a file with a row for each epoch, or with `steps` for each step: CSV if the path ends
    in `.csv`, otherwise JSON lines, in which numbers that are not finite are null. Rows are
    appended after each epoch, or ten times a second if epochs are shorter, and the file is written
    anew at the end.

    It is written from the history, so that the log of a resumed run continues from its checkpoint.
    A fit without a history raises FileError before its first step if the file exists already,
    unless `overwrite` is set.
    """
    path = Path(path)
    is_csv = path.suffix.lower() == ".csv"

    def hook(file: _LogFile, event: Event) -> Reply:
        if event.name == "before_fit":
            _check_own_file(event, path, overwrite, lambda data: b"step" in data.split(b"\n")[0])
            file.claimed = True
        # A fit that is refused the file, or fails before it is claimed, ends with after_fit too.
        if not file.claimed or event.name not in {"after_epoch", "after_fit"}:
            return None
        is_end = event.name == "after_fit"
        if not is_end and time.monotonic() < file.due:
            return None
        rows = _steps(event.history) if steps else event.epochs
        new, names = rows[file.rows :], dict.fromkeys(name for row in rows[-1:] for name in row)
        # We wait for the disk only once, at the end: checkpoints have the history, too.
        if is_end or not file.rows or not file.names or (is_csv and names != file.names):
            text = _csv(rows) if is_csv else _json_lines(rows)
            write(path, text.encode(), overwrite=True, sync=is_end)
            names = dict.fromkeys(name for row in rows for name in row)
        else:
            append(path, (_csv(new, header=False) if is_csv else _json_lines(new)).encode())
        file.rows, file.names, file.due = len(rows), names, time.monotonic() + 0.1
        return None

    return stateful(_LogFile, hook, adds=())


@define
class _LogFile:
    """How much of the history is in the file: its rows, and the names of its columns."""

    claimed: bool = False
    rows: int = 0
    names: dict[str, None] = field(factory=dict)
    due: float = -math.inf  # when to append again


def _steps(history: History) -> list[Mapping[str, float]]:
    columns = [values.tolist() for values in history.steps.values()]
    return [dict(zip(history.steps, row, strict=True)) for row in zip(*columns, strict=True)]


def _json_lines(rows: Sequence[Mapping[str, float]]) -> str:
    lines = ({name: x if math.isfinite(x) else None for name, x in row.items()} for row in rows)
    return "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)


def _csv(rows: Sequence[Mapping[str, float]], header: bool = True) -> str:
    text = io.StringIO()
    names = dict.fromkeys(name for row in rows for name in row)
    table = csv.DictWriter(text, list(names), lineterminator="\n")
    if header:
        table.writeheader()
    table.writerows(rows)
    return text.getvalue()


FIRST_DRAWING = 2.0
"""The seconds after which a fit is drawn for the first time: a shorter one is drawn at its end."""


def plot_history(
    path: str | Path | None = None,
    schedule: Schedule | None = None,
    scale: Scale = "linear",
    *,
    overwrite: bool = False,
) -> Hook:
    """Draw the history (`mip.plots.history`) into a file, in the format of its suffix, and in a
    notebook below the cell, where the drawing is updated as the fit continues.

    It is drawn at the end, and before that after an epoch, once the fit has taken some seconds, as
    often as keeps drawing below 5% of the time. `schedule` is the learning rate by step, for
    histories that do not have it; `scale` is that of the loss. Needs the extra `plot`: raises
    MipError without it, without a path outside of a notebook, and for an unknown suffix. For a file
    that exists already and `overwrite` see `log`.
    """
    if path is None and not in_notebook():
        raise MipError("outside of a notebook plot_history needs a file: plot_history('a.png')")
    suffix = format_of(path) if path is not None else "png"
    empty = render(figure(1, 1), suffix)  # fails here without matplotlib, and not after an epoch

    def hook(picture: _Picture, event: Event) -> Reply:
        if event.name == "before_fit" and path is not None:
            _check_own_file(event, Path(path), overwrite, lambda data: data[:4] == empty[:4])
            picture.path = Path(path)
        with picture.timer.when_due(event) as is_due:
            if is_due:
                drawing = draw(event.history, schedule, scale=scale)
                if picture.path is not None:
                    write(picture.path, render(drawing, suffix), overwrite=True)
                if picture.show:
                    picture.show({"image/png": b64encode(render(drawing)).decode()})
        return None

    make = lambda: _Picture(updating_output() if in_notebook() else None)  # noqa: E731
    return stateful(make, hook, adds=())


@define
class _Timer:
    """Decides when to draw, so that drawing takes a twentieth of the time at most."""

    due: float = math.inf

    @contextmanager
    def when_due(self, event: Event) -> Iterator[bool]:
        began = time.monotonic()
        if event.name == "before_fit":
            self.due = began + FIRST_DRAWING
        is_due = event.name == "after_fit" or (event.name == "after_epoch" and began >= self.due)
        yield is_due and bool(event.history.steps)
        if is_due:
            self.due = time.monotonic() + 20 * (time.monotonic() - began)


@define
class _Picture:
    show: Callable[[Mapping[str, str]], None] | None
    path: Path | None = None  # once the fit has claimed it
    timer: _Timer = field(factory=_Timer)


def plot_metrics(folder: str | Path, scale: Scale = "linear", *, overwrite: bool = False) -> Hook:
    """Draw each metric of the history into a file of its own: `<folder>/<metric>.png`, with a line
    for each part of the rows, replaced as the fit continues.

    The files are written as often as that of `plot_history`. A fit without a history raises
    FileError before its first step if there are PNG files in the folder, unless `overwrite` is set.
    Needs the extra `plot`: raises MipError without it.
    """
    folder = Path(folder)
    figure(1, 1)  # fails here without matplotlib

    def hook(pictures: _Pictures, event: Event) -> Reply:
        if event.name == "before_fit":
            for path in sorted(folder.glob("*.png")):
                _check_own_file(event, path, overwrite, lambda data: data.startswith(b"\x89PNG"))
            pictures.claimed = True
        with pictures.timer.when_due(event) as is_due:
            if is_due and pictures.claimed:
                for metric, drawing in history_by_metric(event.history, scale).items():
                    write(folder / f"{metric}.png", render(drawing), overwrite=True)
        return None

    return stateful(_Pictures, hook, adds=())


@define
class _Pictures:
    claimed: bool = False
    timer: _Timer = field(factory=_Timer)
