"""Checkpoints, written while training continues.

A thread writes them from a copy of the state. Training waits only for the copy, which is made into
the memory of the one before, because that is faster than new memory. There is one write at a time,
in order. Where epochs are shorter than a write takes, `last.safetensors` is not written after every
one of them: writing takes a tenth of the time at most, and the newest epoch is always written at
the end. The cost is the memory of two copies of the state at most, and for a state on a GPU of
others on the host while they are written.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

from attrs import define

from mip.errors import MipError
from mip.files import list_checkpoints, peek, save_checkpoint
from mip.metrics import BestEpoch, Mode, check_metric, check_mode
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
    `epoch-0007.safetensors` for the epoch that the history counts as 7; -1 keeps those of all.

    A thread writes while the fit continues. Epochs that are shorter than ten times a write share
    one: then `last.safetensors` is that of the newest epoch at the time, and when the fit ends, of
    its last one. What `every`, `metric` and `keep_last` ask for is always written. What the thread
    raises, such as FileError for a full disk, ends the fit at the next event.

    Raises FileError before the first step if the folder holds checkpoints, unless `overwrite` is
    set or the last of them is of the step that the fit continues from; ValueError and MipError for
    options that make no sense.
    """
    check_mode(mode)
    _check_options(plan, every, keep_last)
    folder = Path(folder)
    save = partial(_write, folder, keep_last, plan=plan, extra=extra)

    def hook(writer: _Writer, event: Event) -> Reply:
        if event.name == "before_fit":
            _check_folder(event, folder, overwrite)
        is_end = event.name in {"on_error", "after_fit"}
        if writer.task and (is_end or writer.task.done()):
            writer.finish()
        if _is_due(event, every):
            names = _names(event, writer.best, keep_last)
            if not set(writer.waiting_names) <= set(names):
                writer.write()  # what waits is not replaced by what comes now
            writer.add(event, names, save)
            if event.name == "after_batch" or writer.is_due():
                writer.write()
        if is_end:
            writer.write()
            writer.finish()
            writer.free()
        return None

    def make_writer() -> _Writer:
        return _Writer(BestEpoch(metric, mode) if metric else None)

    return stateful(make_writer, hook, reads=[metric] if metric else (), adds=())


@define
class _Writer:
    """What is being written, and what waits to be: each a copy of the state with its history."""

    best: BestEpoch | None
    task: Future[float] | None = None
    written: State | None = None  # the copy that the task writes; its memory is reused
    waiting: State | None = None
    waiting_names: Sequence[str] = ()
    waiting_task: Callable[[], float] | None = None
    due: float = -math.inf  # when the next epoch is worth writing

    def add(self, event: Event, names: Sequence[str], save: Callable[..., float]) -> None:
        """Copy the state, to be written under some names in the place of what waits so far."""
        if self.waiting is None and self.task is None:
            self.waiting, self.written = self.written, None
        self.waiting = event.copy(self.waiting)
        self.waiting_task = partial(save, names, self.waiting, event.snapshot())
        self.waiting_names = names

    def write(self) -> None:
        """Start to write what waits, when the write before it has ended."""
        if self.waiting_task is None:
            return
        self.finish()
        pool = ThreadPoolExecutor(1)
        try:
            self.task = pool.submit(self.waiting_task)
        finally:  # the thread ends with its task, even if Ctrl-C interrupts its start
            pool.shutdown(wait=False)
        self.waiting, self.written = self.written, self.waiting
        self.waiting_task, self.waiting_names = None, ()

    def is_due(self) -> bool:
        """Return whether nothing is being written, and the write before it is long enough ago."""
        return self.task is None and time.monotonic() >= self.due

    def finish(self) -> None:
        """Wait for the write, and raise what it has raised."""
        if self.task is None:
            return
        wait([self.task])  # if Ctrl-C interrupts this, the end of the fit waits again
        task, self.task = self.task, None
        self.due = time.monotonic() + 9 * task.result()

    def free(self) -> None:
        """Let go of the copies."""
        self.written = self.waiting = None


def _check_options(plan: Any, every: Any, keep_last: Any) -> None:
    if not isinstance(plan, Plan | None):
        cure = f"metric={plan!r}" if isinstance(plan, str) else "leave it out for a module"
        raise MipError(f"checkpoint: the plan is a {type(plan).__name__} and no Plan: {cure}")
    if every is not None and every < 1:
        raise ValueError(f"'every' must be 1 or more, not {every}")
    if not isinstance(keep_last, int) or keep_last < -1:
        raise ValueError(f"'keep_last' must be -1 (all) or a number of epochs, not {keep_last!r}")


def _check_folder(event: Event, folder: Path, overwrite: bool) -> None:
    last = peek(folder / "last.safetensors")
    continues = event.step > 0 and last.get("step") == event.step
    for path in list_checkpoints(folder):
        check_output(path, overwrite or continues)


def _is_due(event: Event, every: int | None) -> bool:
    if event.name == "after_batch":
        return every is not None and event.step % every == 0
    return event.name == "after_epoch"


def _names(event: Event, best: BestEpoch | None, keep_last: int) -> list[str]:
    names = []
    if event.name == "after_epoch":
        if best:
            check_metric(event.epochs, best.metric)
            if best.update(event.epochs) == len(event.epochs) - 1:
                names.append("best")
        if keep_last:
            names.append(f"epoch-{event.epoch:04}")
    # The last one last, so that a run that is killed before it writes the others again.
    return [*names, "last"]


def _write(
    folder: Path,
    keep_last: int,
    names: Sequence[str],
    state: State,
    make_history: Callable[[], History],
    plan: Plan | None,
    extra: Mapping[str, Any] | None,
) -> float:
    """Write a checkpoint under some names, and return how many seconds that took."""
    began, history = time.monotonic(), make_history()
    for name in names:
        path = folder / f"{name}.safetensors"
        save_checkpoint(path, state, history=history, plan=plan, extra=extra, overwrite=True)
        for old in sorted(folder.glob("epoch-*.safetensors"))[: -keep_last if keep_last > 0 else 0]:
            old.unlink()
    return time.monotonic() - began
