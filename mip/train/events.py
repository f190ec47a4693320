"""Events: what hooks see of a fit, and what they may reply."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import wraps
from typing import Any, Self, TypeVar

import torch
from attrs import define, field, frozen
from torch import Tensor

from mip.errors import MipError
from mip.train.step import State, copy

M = TypeVar("M")


EVENTS = (
    "before_fit",
    "before_epoch",
    "before_batch",
    "after_batch",
    "after_cancel_batch",
    "after_cancel_epoch",
    "before_validate",
    "validate",
    "after_validate",
    "after_epoch",
    "after_cancel_fit",
    "on_error",
    "after_fit",
)
"""The events of a fit, in the order in which they can occur. Hooks that score an epoch do so at
`validate`.
"""


ROW_EVENTS = ("before_validate", "validate", "after_validate", "after_epoch")
"""The events at which numbers that a hook returns are added to the epoch's row of the history."""


STEP_INFO = frozenset({"rows", "skipped", "step"})
"""What the history has for every step besides the step's own measurements."""


@frozen
class Stop:
    """A hook's reply that ends the fit; `reason` is reported."""

    reason: str


class Skip(Enum):
    """A hook's reply that skips this batch (to before_batch), the rest of the epoch (to
    before_epoch, before_batch or after_batch), or its validation (to before_validate).
    """

    BATCH = "batch"
    EPOCH = "epoch"
    VALIDATION = "validation"


@frozen
class History:
    """The measurements of a run: a row for each finished epoch, and one for each step.

    `steps` holds a tensor [steps] for each of the step's metrics, for `step`, the number of steps
    taken by then, and for `rows`, the number of rows in its batch.
    """

    epochs: tuple[Mapping[str, float], ...] = ()
    steps: Mapping[str, Tensor] = field(factory=dict)

    @property
    def unfinished(self) -> Tensor:
        """Return a mask of the steps that belong to no finished epoch: bool [steps]."""
        last = self.epochs[-1]["step"] if self.epochs else 0
        return self.steps["step"] > last if self.steps else torch.zeros(0, dtype=torch.bool)


@define
class Progress:
    """How far a fit has come: its only mutable value. Events read it, and expire when it moves on.

    The history is kept in three parts, because the metrics of the current epoch stay on their
    device until somebody reads them.
    """

    state: State
    hooks: Sequence[Hook]
    keeps_steps: bool  # whether steps are recorded for the history
    epochs: list[Mapping[str, float]]
    past: list[Mapping[str, Tensor]]  # the steps of each finished epoch
    resumed: Mapping[str, Tensor]  # the steps of the current epoch that came before this fit
    steps: dict[str, list[Any]]  # and those since
    control: Stop | Skip | None = None
    memory: dict[Hook, Any] = field(factory=dict)  # of the hooks made by `stateful`
    serial: int = 0  # of the current event

    @classmethod
    def start(
        cls, state: State, hooks: Sequence[Hook], history: History, keeps_steps: bool
    ) -> Self:
        """Start from a state, copied, and the history before it."""
        done = int((~history.unfinished).sum())
        past = {name: values[:done] for name, values in history.steps.items()}
        resumed = {name: values[done:] for name, values in history.steps.items()}
        return cls(copy(state), hooks, keeps_steps, list(history.epochs), [past], resumed, {})

    def epoch_steps(self) -> dict[str, Tensor]:
        """Return the steps of the current epoch, a tensor for each metric."""
        # After a resume, earlier values come from a file and later ones from a device.
        since = {
            name: torch.stack([torch.as_tensor(value).cpu() for value in values])
            for name, values in self.steps.items()
        }
        return _concat_steps([self.resumed, since])


@frozen
class Event:
    """A moment of a fit.

    `epoch` counts from 0; `step` is the number of steps taken so far; `metrics` holds the step's
    metrics (after_batch) or the epoch's row (the events after its batches); `reason` is why a hook
    stopped the fit; `error` is the exception that ended it (on_error, after_fit). `state` and
    `history` are copies and have to be read while the event is handled; later they raise MipError.
    """

    name: str
    epoch: int
    step: int
    metrics: Mapping[str, Any] = field(factory=dict)
    batch: Any = None
    reason: str | None = None
    error: BaseException | None = None
    _progress: Progress | None = field(default=None, repr=False, eq=False)
    _serial: int = field(default=0, repr=False, eq=False)

    def _current(self) -> Progress:
        if self._progress is None or self._progress.serial != self._serial:
            raise MipError(
                f"the {self.name} event of step {self.step} is over: its state and history must be "
                "read before the next event"
            )
        return self._progress

    @property
    def state(self) -> State:
        """A copy of the state at this moment, which later steps do not change."""
        return self.copy()

    def copy(self, into: State | None = None) -> State:
        """Copy the state at this moment; if an earlier copy is given, into the memory of that one,
        which is overwritten. This saves the time of allocating new memory.
        """
        return copy(self._current().state, into)

    @property
    def history(self) -> History:
        """All measurements so far, including this epoch's row at after_epoch."""
        progress = self._current()
        steps = _concat_steps([*progress.past, progress.epoch_steps()])
        return History(tuple(progress.epochs), steps)


Reply = Stop | Skip | State | Mapping[str, float] | None
"""What a hook may return: a way to end or skip something, a state to go on from, numbers for the
epoch's row, or nothing.
"""


Hook = Callable[[Event], Reply]
"""A plain function of one event."""


def stateful(init: Callable[[], M], update: Callable[[M, Event], Reply]) -> Hook:
    """Make a hook with a memory: `init()` makes it, anew for each fit, and `update(memory, event)`
    replies to an event and may write into the memory.

    The memory belongs to the fit, so the same hook can be used in any number of fits, one after
    another or at once, and no fit sees what happened in another one, not even after an error.

    >>> import torch; from attrs import evolve; from mip.train import State, fit
    >>> def third(seen, event):
    ...     if event.name == "after_batch":
    ...         seen.append(event.step)
    ...     return Stop("three batches") if len(seen) == 3 else None
    >>> step = lambda state, batch: (evolve(state, step=state.step + 1), {"loss": 0.0})
    >>> start, hooks = State({}, {}, ()), [stateful(list, third)]
    >>> [fit(step, [torch.ones(1)], start, epochs=9, hooks=hooks).step for _ in range(2)]
    [3, 3]
    """

    @wraps(update)
    def hook(event: Event) -> Reply:
        memory = {} if event._progress is None else event._progress.memory
        if hook not in memory:
            memory[hook] = init()
        return update(memory[hook], event)

    return hook


def _concat_steps(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    # A metric that a part lacks is NaN there: a run may be resumed with another `measure`.
    parts = [part for part in parts if part]
    missing = [torch.full((len(part["step"]),), torch.nan) for part in parts]
    return {
        name: torch.cat([part.get(name, nan) for part, nan in zip(parts, missing, strict=True)])
        for name in dict.fromkeys(name for part in parts for name in part)
    }
