"""Histories from whatever holds one: what `fit` returns, a log, a run folder."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import torch

from mip.errors import FileError, MipError
from mip.output import reason
from mip.train import History, State


class HasHistory(Protocol):
    """What `mip.fit`, `mip.run` and `mip.load_checkpoint` return."""

    @property
    def history(self) -> History: ...


HistorySource: TypeAlias = "History | HasHistory | Sequence[Mapping[str, float]] | str | Path"


def as_history(source: HistorySource) -> History:
    """Return the history of what has one: a History, what `mip.fit`, `mip.run` or
    `mip.load_checkpoint` returns, rows of epochs, the file of the hook `log`, a run folder.

    Raises MipError for anything else, and FileError for a file that is missing or is no history.

    >>> as_history([{"epoch": 0, "step": 4, "loss": 0.5}])
    History(1 epochs, 0 steps; last epoch: loss 0.5)
    """
    source = getattr(source, "history", source)
    if isinstance(source, History):
        return source
    if isinstance(source, (str, Path)):
        return read_history(source)
    rows = source if isinstance(source, Sequence) else [None]
    if all(isinstance(row, Mapping) for row in rows):
        return _from_rows(rows)
    if isinstance(source, State):
        raise MipError("a plain State has no history: draw that of `state, history = mip.fit(…)`")
    known = "a history, what has one, a file of the hook log, or a run folder"
    raise MipError(f"{type(source).__name__} is not {known}")


def read_history(path: str | Path) -> History:
    """Read the file of the hook `log`, CSV or JSON lines, or the history of a run folder.

    A file of epochs has no steps, and one of steps no epochs. Raises FileError for a file that
    is missing or is no history.
    """
    path = Path(path)
    path = path / "history.jsonl" if path.is_dir() else path
    parse = _csv_rows if path.suffix.lower() == ".csv" else _json_rows
    try:
        rows = parse(path.read_text().splitlines())
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({reason(error)})") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise FileError(f"{path}: is not a history that the hook log has written") from error
    if not all("step" in row for row in rows):
        raise FileError(f"{path}: is not a history: a row has no 'step'")
    return _from_rows(rows)


def _json_rows(lines: Iterable[str]) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in lines]
    return [{k: math.nan if v is None else _number(v) for k, v in row.items()} for row in rows]


def _csv_rows(lines: Iterable[str]) -> list[dict[str, float]]:
    return [{k: _number(v) for k, v in row.items() if v} for row in csv.DictReader(lines)]


def _number(value: Any) -> float:
    number = float(value)
    return int(number) if number.is_integer() else number


def _from_rows(rows: Sequence[Any]) -> History:
    if all("epoch" in row for row in rows):
        return History(tuple(rows))
    names = dict.fromkeys(name for row in rows for name in row)
    return History(
        (), {name: torch.tensor([row.get(name, math.nan) for row in rows]) for name in names}
    )
