"""Checkpoints written while training goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from attrs import define

from mip.files import list_checkpoints, peek, save_checkpoint
from mip.model import Plan
from mip.output import check_output
from mip.train import Event, History, Hook, Reply, State, best_epoch, check_metric, stateful


def checkpoint(
    folder: str | Path,
    plan: Plan | None = None,
    metric: str | None = None,
    mode: str | None = None,
    every: int | None = None,
    extra: Mapping[str, Any] | None = None,
    keep: int = 0,
    *,
    overwrite: bool = False,
) -> Hook:
    """Keep `last.safetensors` in a folder, after every epoch and every `every` steps, and with
    `metric` also `best.safetensors`, that of the best epoch. Files are replaced whole.

    `keep` says how many epochs have a file of their own besides, `epoch-0007.safetensors`: the
    last so many, or -1 for all.

    A thread writes while the fit goes on. The next checkpoint, an error and the fit's end wait for
    it; what it raises, such as FileError for a full disk, ends the fit at the next event. One copy
    of the state is held in memory until the fit ends, and is the next one's memory.

    Raises FileError, before the first step, for a folder that holds checkpoints, unless
    `overwrite` says to replace them, or the last of them is of the very step that the fit goes on
    from.
    """
    about = (plan, extra)

    def hook(file: _File, event: Event) -> Reply:
        if event.name == "before_fit":
            _check_checkpoints(event, Path(folder), overwrite)
        due, ends = _due(event, every), event.name in {"on_error", "after_fit"}
        if file.begun and (due or ends or file.begun.done()):
            wait([file.begun])  # where Ctrl-C comes here, the end of the fit waits again
            begun, file.begun = file.begun, None
            begun.result()
        if due:
            file.copy, history = event.copy(file.copy), event.history
            names = _names(event, history, metric, mode, keep)
            content = (file.copy, history, *about)
            writer = ThreadPoolExecutor(1)
            try:
                file.begun = writer.submit(_write, Path(folder), names, content, keep)
            finally:  # the thread ends with the file, also where Ctrl-C comes while it is started
                writer.shutdown(wait=False)
        if ends:
            file.copy = None
        return None

    return stateful(_File, hook)


@define
class _File:
    begun: Future[None] | None = None  # what is being written
    copy: State | None = None  # of which state; its memory is the next one's


def _check_checkpoints(event: Event, folder: Path, overwrite: bool) -> None:
    last = peek(folder / "last.safetensors")
    goes_on = event.step > 0 and last.get("step") == event.step
    for path in list_checkpoints(folder):
        check_output(path, overwrite or goes_on)


def _due(event: Event, every: int | None) -> bool:
    between = event.name == "after_batch" and event.step % (every or 1) == 0
    return event.name == "after_epoch" or (every is not None and between)


def _names(
    event: Event, history: History, metric: str | None, mode: str | None, keep: int
) -> list[str]:
    epochs, ended = history.epochs, event.name == "after_epoch"
    if ended and metric:
        check_metric(epochs, metric, mode)
    better = ended and metric and best_epoch(epochs, metric, mode) == len(epochs) - 1
    # The last one last, so that a run which is killed before writes the others again.
    asked = {"best": better, f"epoch-{event.epoch:04}": ended and keep, "last": True}
    return [name for name in asked if asked[name]]


def _write(folder: Path, names: Sequence[str], content: Sequence[Any], keep: int) -> None:
    for name in names:
        save_checkpoint(folder / f"{name}.safetensors", *content, overwrite=True)
        for old in sorted(folder.glob("epoch-*.safetensors"))[: -keep if keep > 0 else 0]:
            old.unlink()
