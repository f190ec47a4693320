"""Histories as files: a log and a plot."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from attrs import define

from mip.errors import MipError
from mip.optim import Schedule
from mip.output import check_output, write
from mip.plots import curves, figure, in_notebook, in_place, png
from mip.train import Event, History, Hook, Reply, stateful


def record(rows: list[Mapping[str, float]]) -> Hook:
    """Append each epoch's row to a list."""

    def hook(event: Event) -> Reply:
        if event.name == "after_epoch":
            rows.append(event.metrics)
        return None

    return hook


def _check_log(event: Event, path: Path, overwrite: bool, is_log: Callable[[bytes], bool]) -> None:
    # Only a fit that goes on with a history may replace what the fit before it has written.
    if event.history.epochs or event.history.steps:
        with suppress(OSError):
            overwrite = overwrite or is_log(path.read_bytes())
    check_output(path, overwrite)


def log(path: str | Path, steps: bool = False, *, overwrite: bool = False) -> Hook:
    """Keep a file with a row for each epoch, or with `steps` for each step: CSV for `.csv`, else
    JSON lines, where a number that is not finite is null; written whole after each epoch, so never
    torn.

    Because it is written from the history, a resumed run goes on where its checkpoint stood. A fit
    without a history raises FileError, before its first step, where the file exists already,
    unless `overwrite` says to replace it.
    """
    lay_out = _as_csv if Path(path).suffix.lower() == ".csv" else _as_json

    def hook(claims: list[Path], event: Event) -> Reply:
        if event.name == "before_fit":
            _check_log(event, Path(path), overwrite, lambda data: b"step" in data.split(b"\n")[0])
            claims.append(Path(path))
        # A fit that is refused the file, or fails before it is claimed, ends with after_fit too.
        elif claims and event.name in {"after_epoch", "after_fit"}:
            history, ended = event.history, event.name == "after_fit"
            text = lay_out(_steps(history) if steps else history.epochs)
            # The disk is waited for once: a checkpoint has the history, too.
            write(path, text.encode(), overwrite=True, sync=ended)
        return None

    return stateful(list, hook)


def _steps(history: History) -> list[Mapping[str, float]]:
    columns = [values.tolist() for values in history.steps.values()]
    return [dict(zip(history.steps, row, strict=True)) for row in zip(*columns, strict=True)]


def _as_json(rows: Sequence[Mapping[str, float]]) -> str:
    lines = ({name: x if math.isfinite(x) else None for name, x in row.items()} for row in rows)
    return "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)


def _as_csv(rows: Sequence[Mapping[str, float]]) -> str:
    text = io.StringIO()
    names = dict.fromkeys(name for row in rows for name in row)
    table = csv.DictWriter(text, list(names), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def plots(
    path: str | Path | None = None,
    schedule: Schedule | None = None,
    scale: Literal["linear", "log"] = "linear",
    *,
    overwrite: bool = False,
) -> Hook:
    """Draw the curves of the history (`mip.curves`) as PNG into a file, written whole; in a
    notebook also below the cell, where the drawing is replaced as the fit goes on.

    Drawn after the first epoch, at the end, and after others so seldom that it takes a twentieth
    of the time. `schedule` gives the learning rate of a step; `scale` is that of the loss. Needs
    the extra `plot`: raises FileError with the cure without it, and MipError without a path where
    there is no notebook. For a file that exists already and `overwrite` see `log`.
    """
    if path is None and not in_notebook():
        raise MipError("plots: outside of a notebook it needs a file: plots('history.png')")
    figure(path or "plots", 1, 1)  # without matplotlib it fails here, and not after an epoch

    def hook(picture: _Picture, event: Event) -> Reply:
        began = time.monotonic()
        if event.name == "before_fit" and path is not None:
            _check_log(event, Path(path), overwrite, lambda data: data.startswith(b"\x89PNG"))
            picture.path = Path(path)
        if event.name == "after_fit" or (event.name == "after_epoch" and began >= picture.due):
            history = event.history
            if history.steps:
                drawing = png(curves(path or "plots", history, schedule, scale))
                if picture.path is not None:
                    write(picture.path, drawing, overwrite=True)
                if picture.show:
                    picture.show({"image/png": b64encode(drawing).decode()})
            picture.due = time.monotonic() + 20 * (time.monotonic() - began)
        return None

    return stateful(lambda: _Picture(in_place() if in_notebook() else None), hook)


@define
class _Picture:
    show: Callable[[Mapping[str, str]], None] | None
    path: Path | None = None  # once the fit has claimed it
    due: float = -math.inf
