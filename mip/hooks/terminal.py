"""Show a fit in a terminal or a notebook: a bar, a table, and how fast it is."""

from __future__ import annotations

import io
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from attrs import define, field

from mip.errors import MipError
from mip.metrics import format_metric
from mip.optim import REPORTED
from mip.plots import in_notebook, updating_output
from mip.train import Event, Hook, Reply, stateful
from mip.tree import count_rows


def progress(total: int | None = None, label: str = "fit") -> Hook:
    """Show a progress bar with the step, its first metric (the loss) and the time left: on standard
    error, if that is a terminal, while the fit lasts; or in a notebook below the cell, where it
    stays.

    `total` is the number of steps at the end of the fit; by default the fit says it, if it knows.
    """

    def hook(bar: _Bar, event: Event) -> Reply:
        if event.name == "before_fit":
            bar.start(total or event.total_steps)
        elif event.name == "after_batch":
            name, value = next(iter(event.metrics.items()))
            bar.last = (event.step, name, value)
            # Reading a number waits for the device, so it is read at most ten times a second.
            if time.monotonic() - bar.drawn > 0.1:
                bar.draw()
        elif event.name == "on_error":
            bar.last = None  # the metrics of a step that failed may not be readable
        elif event.name == "after_fit":
            bar.draw()
            bar.stop()
        return None

    return stateful(partial(_bar, label), hook, adds=())


@define
class _Bar:
    start: Callable[[int | None], None]
    stop: Callable[[], None]
    show: Callable[[int, str, Any], None]
    last: tuple[int, str, Any] | None = None
    drawn: float = -math.inf

    def draw(self) -> None:
        self.drawn = time.monotonic()
        if self.last is not None:
            self.show(*self.last)


def _bar(label: str) -> _Bar:
    from rich import progress as rich
    from rich.console import Console

    show_below = updating_output() if in_notebook() else None
    text = Console(file=io.StringIO(), width=100, force_jupyter=False, force_terminal=False)
    terminal = Console(stderr=True)
    bar = rich.Progress(
        "{task.description}",
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeRemainingColumn(elapsed_when_finished=True),
        console=text if show_below else terminal,
        transient=True,
        # Into a file there is nothing to update, and rich would leave an empty line.
        disable=bool(show_below) or not terminal.is_interactive,
    )
    task = bar.add_task(label, total=None)

    def start(total: int | None) -> None:
        bar.update(task, total=total)
        bar.start()

    def show(step: int, name: str, value: Any) -> None:
        bar.update(task, completed=step, description=f"{label} {name} {float(value):.4g}")
        if show_below:
            with text.capture() as line:
                text.print(bar.get_renderable())
            show_below({"text/plain": line.get().rstrip()})

    return _Bar(start, bar.stop, show)


def console(
    show: Callable[[str], None] = print, lines: int = 10, epochs: int | None = None
) -> Hook:
    """Print a table with a line for the first and the last epoch of a run of `epochs` (by default
    as many as the fit has), and about `lines` in between. Its columns are the metrics of the
    epoch's row that fit into the terminal, and its seconds, which include validation unless
    `timing` has measured them.

    The header is printed again when a metric comes up for the first time, and when the terminal's
    width changes the columns; a metric that an epoch does not have is blank. A fit that ends before
    its last epoch has the line of the last one that it finished. Raises MipError if `show` is no
    function.
    """
    if not callable(show):
        raise MipError(f"console: show must be a function of a line, such as print, not {show!r}")

    def hook(table: _Table, event: Event) -> Reply:
        if event.name == "before_epoch":
            table.began = time.monotonic()
        elif event.name == "after_epoch":
            total = epochs or event.total_epochs
            every = max(1, (total or 0) // lines)
            table.waiting = {"seconds": time.monotonic() - table.began, **event.metrics}
            if (event.epoch + 1) % every == 0 or event.epoch + 1 in {1, total}:
                table.print(show)
        elif event.name in {"after_cancel_fit", "after_fit"}:
            table.print(show)
            if event.name == "after_cancel_fit":
                show(f"stopped: {event.reason}")
        return None

    return stateful(_Table, hook, adds=())


@define
class _Table:
    began: float = field(factory=time.monotonic)
    header: str = ""
    names: list[str] = field(factory=list)
    waiting: Mapping[str, float] | None = None

    def print(self, show: Callable[[str], None]) -> None:
        """Print the row that waits, if one does, below its header."""
        if self.waiting is None:
            return
        self.names = list(dict.fromkeys([*self.names, *self.waiting]))
        header, line = _lines(self.names, self.waiting)
        if header != self.header:
            show(header)
        show(line)
        self.header, self.waiting = header, None


def _lines(names: Sequence[str], row: Mapping[str, float]) -> tuple[str, str]:
    # As many metrics as there is room for between epoch and seconds; the log has them all.
    names = [name for name in names if name not in {"epoch", "step", "seconds"}]
    names.sort(key=lambda name: name.split(".")[0] in REPORTED)  # rates of the optimizer come last
    widths = {name: max(len(name), 9) for name in names}
    ends = accumulate(width + 2 for width in widths.values())
    room = shutil.get_terminal_size().columns - len("epoch  seconds")
    shown = names[: sum(end <= room for end in ends)]
    header = "".join(f"  {name:>{widths[name]}}" for name in shown)
    texts = {name: _text(name, row[name]) if name in row else "" for name in shown}
    values = "".join(f"  {texts[name]:>{widths[name]}}" for name in shown)
    return f"epoch{header}  seconds", f"{row['epoch'] + 1:>5}{values}  {row['seconds']:>7.2f}"


def _text(name: str, value: float) -> str:
    # A loss that is not a number shows that training has failed; a metric may be undefined.
    is_loss = name.split("/")[-1].split(".")[-1] == "loss"
    return "nan" if is_loss and math.isnan(value) else format_metric(name, value)


def timing() -> Hook:
    """Add `seconds` and `rows_per_second` to each epoch's row, counting training batches only.

    Waits for a GPU to finish at the end of the batches. In a resumed epoch only
    the rows since then count.
    """

    def hook(timer: _Timer, event: Event) -> Reply:
        if event.name == "before_epoch":
            timer.began, timer.rows = time.monotonic(), 0
        elif event.name == "after_batch":
            timer.rows += count_rows(event.batch)
        elif event.name == "before_validate":
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds = time.monotonic() - timer.began
            return {"seconds": seconds, "rows_per_second": timer.rows / max(seconds, 1e-9)}
        return None

    return stateful(_Timer, hook, adds=("seconds", "rows_per_second"))


@define
class _Timer:
    """When the epoch began, and its rows since."""

    began: float = field(factory=time.monotonic)
    rows: int = 0
