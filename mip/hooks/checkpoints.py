"""Checkpoints, written while training continues.

A thread writes them from a copy of the state. Training waits only for the copy, which is made into
the memory of the one before, because that is faster than new memory. There is one write at a time,
in order: the next checkpoint, an error and the end of the fit wait for it. The cost is the memory
of one copy of the state, and for a state on a GPU of another on the host while it is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

from attrs import define

from mip.files import list_checkpoints, peek, save_checkpoint
from mip.metrics import Mode, best_epoch, check_metric
from mip.model import Plan
from mip.output import check_output
from mip.train import Event, History, Hook, Reply, State, stateful


def checkpoint(
    folder: str | Path,
    plan: Plan | None = None,
    metric: str | None = None,
    mode: Mode | None = None,
    every: int | None = None,
    extra: Mapping[str, Any] | None = None,
    keep_last: int = 0,
    *,
    overwrite: bool = False,
) -> Hook:
    """Write `last.safetensors` into a folder after every epoch and every `every` steps, and with
    `metric` also `best.safetensors` after the best epoch. Files are replaced whole.

    `keep_last` keeps the checkpoints of the last n epochs as files of their own,
    `epoch-0007.safetensors`; -1 keeps those of all.

    A thread writes while the fit continues. The next checkpoint, an error and the end of the fit
    wait for it; what it raises, such as FileError for a full disk, ends the fit at the next event.
    One copy of the state is held in memory until the fit ends; its memory is reused.

    Raises FileError before the first step if the folder holds checkpoints, unless `overwrite` is
    set or the last of them is of the step that the fit continues from.
    """

    def hook(writing: _Writing, event: Event) -> Reply:
        if event.name == "before_fit":
            _check_folder(event, Path(folder), overwrite)
        is_due, is_end = _is_due(event, every), event.name in {"on_error", "after_fit"}
        if writing.task and (is_due or is_end or writing.task.done()):
            wait([writing.task])  # if Ctrl-C interrupts this, the end of the fit waits again
            task, writing.task = writing.task, None
            task.result()
        if is_due:
            writing.copy, history = event.copy(writing.copy), event.history
            names = _names(event, history, metric, mode, keep_last)
            save = partial(
                save_checkpoint, state=writing.copy, history=history, plan=plan, extra=extra
            )
            writer = ThreadPoolExecutor(1)
            try:
                writing.task = writer.submit(_write, Path(folder), names, save, keep_last)
            finally:  # the thread ends with its task, even if Ctrl-C interrupts its start
                writer.shutdown(wait=False)
        if is_end:
            writing.copy = None
        return None

    return stateful(_Writing, hook)


@define
class _Writing:
    task: Future[None] | None = None
    copy: State | None = None  # the state being written; its memory is reused for the next


def _check_folder(event: Event, folder: Path, overwrite: bool) -> None:
    last = peek(folder / "last.safetensors")
    continues = event.step > 0 and last.get("step") == event.step
    for path in list_checkpoints(folder):
        check_output(path, overwrite or continues)


def _is_due(event: Event, every: int | None) -> bool:
    if event.name == "after_batch":
        return every is not None and event.step % every == 0
    return event.name == "after_epoch"


def _names(
    event: Event, history: History, metric: str | None, mode: Mode | None, keep_last: int
) -> list[str]:
    names = []
    if event.name == "after_epoch":
        epochs = history.epochs
        if metric:
            check_metric(epochs, metric, mode)
            if best_epoch(epochs, metric, mode) == len(epochs) - 1:
                names.append("best")
        if keep_last:
            names.append(f"epoch-{event.epoch:04}")
    # The last one last, so that a run that is killed before it writes the others again.
    return [*names, "last"]


def _write(folder: Path, names: list[str], save: partial[None], keep_last: int) -> None:
    for name in names:
        save(folder / f"{name}.safetensors", overwrite=True)
        for old in sorted(folder.glob("epoch-*.safetensors"))[: -keep_last if keep_last > 0 else 0]:
            old.unlink()
