"""What a terminal shows of a fit: a bar, a table."""

from __future__ import annotations

import io
import math
import shutil
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from attrs import define, field

from mip.hooks.stopping import Count
from mip.plots import in_notebook, in_place
from mip.train import Event, Hook, Reply, format_metric, stateful
from mip.tree import count_rows


def progress(total: int | None = None, label: str = "fit") -> Hook:
    """Show a bar with the step, the first number that the step gives (its loss) and the time left:
    on standard error while the fit lasts, in a notebook below the cell, where it stays as it ended.

    `total` is the number of steps it ends at.
    """

    def hook(bar: _Bar, event: Event) -> Reply:
        if event.name == "before_fit":
            bar.start()
        elif event.name == "after_batch":
            name, value = next(iter(event.metrics.items()))
            bar.last = (event.step, name, value)
            # Reading a number waits for the device, so it is read ten times a second at most.
            if time.monotonic() - bar.drawn > 0.1:
                bar.draw()
        elif event.name == "on_error":
            bar.last = None  # a number of what has failed may not be there to be read
        elif event.name == "after_fit":
            bar.draw()
            bar.stop()
        return None

    return stateful(partial(_bar, total, label), hook)


@define
class _Bar:
    start: Callable[[], None]
    stop: Callable[[], None]
    show: Callable[[int, str, Any], None]
    last: tuple[int, str, Any] | None = None
    drawn: float = -math.inf

    def draw(self) -> None:
        self.drawn = time.monotonic()
        if self.last is not None:
            self.show(*self.last)


def _bar(total: int | None, label: str) -> _Bar:
    from rich import progress as rich
    from rich.console import Console

    parts = ("{task.description}", rich.BarColumn(), rich.MofNCompleteColumn())
    left = rich.TimeRemainingColumn(elapsed_when_finished=True)
    below = in_place() if in_notebook() else None
    text = Console(file=io.StringIO(), width=100, force_jupyter=False, force_terminal=False)
    target = text if below else Console(stderr=True)
    bar = rich.Progress(*parts, left, console=target, transient=True, disable=bool(below))
    task = bar.add_task(label, total=total)

    def show(step: int, name: str, value: Any) -> None:
        bar.update(task, completed=step, description=f"{label} {name} {float(value):.4g}")
        if below:
            with text.capture() as line:
                text.print(bar.get_renderable())
            below({"text/plain": line.get().rstrip()})

    return _Bar(bar.start, bar.stop, show)


def console(say: Callable[[str], None] = print, lines: int = 10, epochs: int | None = None) -> Hook:
    """Print a table with a line for the first epoch, about `lines` others of a run of `epochs`, and
    the last; without `epochs`, for all. The columns are those of the epoch's row that fit into the
    terminal, and its seconds, validation included unless `timing` has measured them.

    The header stands again above a line with other columns.
    """

    def hook(table: _Table, event: Event) -> Reply:
        if event.name == "before_epoch":
            table.began = time.monotonic()
        elif event.name == "after_epoch":
            every = max(1, (epochs or 0) // lines)
            if (event.epoch + 1) % every == 0 or event.epoch + 1 in {1, epochs}:
                seconds = time.monotonic() - table.began
                header, line = _lines({"seconds": seconds, **event.metrics})
                if header != table.header:
                    say(header)
                table.header = header
                say(line)
        elif event.name == "after_cancel_fit":
            say(f"stopped: {event.reason}")
        return None

    return stateful(_Table, hook)


@define
class _Table:
    began: float = field(factory=time.monotonic)
    header: str = ""


def _lines(row: Mapping[str, float]) -> tuple[str, str]:
    # As many metrics as there is room for stand between epoch and seconds; the log has them all.
    names = [name for name in row if name not in {"epoch", "step", "seconds"}]
    widths = {name: max(len(name), 9) for name in names}
    ends = accumulate(width + 2 for width in widths.values())
    room = shutil.get_terminal_size().columns - len("epoch  seconds")
    shown = names[: sum(end <= room for end in ends)]
    header = "".join(f"  {name:>{widths[name]}}" for name in shown)
    values = "".join(f"  {format_metric(name, row[name]):>{widths[name]}}" for name in shown)
    return f"epoch{header}  seconds", f"{row['epoch'] + 1:>5}{values}  {row['seconds']:>7.2f}"


def timing() -> Hook:
    """Add `seconds` and `rows_per_second` of its batches to each epoch's row, validation left out.

    A GPU's work is waited for at the end of the batches. The rows of a run that was resumed in
    an epoch count from there.
    """

    def hook(count: Count, event: Event) -> Reply:
        if event.name == "before_epoch":
            count.began, count.rows = time.monotonic(), 0
        elif event.name == "after_batch":
            count.rows += count_rows(event.batch)
        elif event.name == "before_validate":
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds = time.monotonic() - count.began
            return {"seconds": seconds, "rows_per_second": count.rows / max(seconds, 1e-9)}
        return None

    return stateful(Count, hook)
