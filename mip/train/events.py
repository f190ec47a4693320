"""Events: what a hook is told of a fit, and what it can answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import wraps
from typing import Any, Self, TypeVar

import torch
from attrs import define, field, frozen
from torch import Tensor

from mip.errors import MipError
from mip.train.step import Metrics, State, copy

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
"""The points of the loop, in the order in which they can come. Hooks that measure an epoch answer
`validate` with numbers for its row.
"""


ROW_EVENTS = ("before_validate", "validate", "after_validate", "after_epoch")
"""The events about an epoch's row, to which numbers that a hook answers are added."""


@frozen
class Stop:
    """A hook's answer: end the fit here, for a reason."""

    reason: str


class Skip(Enum):
    """A hook's answer: leave out this batch (to before_batch), the rest of the epoch, or its
    validation (to before_validate).
    """

    BATCH = "batch"
    EPOCH = "epoch"
    VALIDATION = "validation"


@frozen
class History:
    """What has been measured: a row for each finished epoch, and one for each step.

    `steps` holds a tensor [steps] for each of the step's metrics, for `step`, the count of steps
    after it, and for `rows`, the number of rows of its batch.
    """

    epochs: tuple[Mapping[str, float], ...] = ()
    steps: Mapping[str, Tensor] = field(factory=dict)

    @property
    def unfinished(self) -> Tensor:
        """Say which steps belong to no finished epoch: bool [steps]."""
        last = self.epochs[-1]["step"] if self.epochs else 0
        return self.steps["step"] > last if self.steps else torch.zeros(0, dtype=torch.bool)


@define
class Live:
    """The one thing in a fit that changes; events read it, and go stale when it moves on."""

    state: State
    epochs: list[Mapping[str, float]]
    past: list[Mapping[str, Tensor]]  # the steps of each finished epoch
    begun: Mapping[str, Tensor]  # those of the epoch begun before this fit
    steps: dict[str, list[Any]]  # and those since
    watched: bool
    serial: int = 0
    control: Stop | Skip | None = None
    memory: dict[Hook, Any] = field(factory=dict)  # of the hooks that `stateful` makes

    @classmethod
    def of(cls, state: State, history: History, watched: bool) -> Self:
        done = int((~history.unfinished).sum())
        now = {name: values[done:] for name, values in history.steps.items()}
        past = {name: values[:done] for name, values in history.steps.items()}
        return cls(copy(state), list(history.epochs), [past], now, {}, watched)

    @property
    def epoch(self) -> dict[str, Tensor]:
        """The steps of the epoch begun, a tensor for each metric."""
        now = {name: _column(values) for name, values in self.steps.items()}
        return _joined([self.begun, now])


@frozen
class Event:
    """A moment of a fit.

    `epoch` counts from 0; `step` counts the steps taken so far; `metrics` holds the step's
    metrics (after_batch) or the epoch's row (the events that follow its batches); `reason` says
    why a fit was stopped; `error` is what ended it (on_error, after_fit). `state` and `history`
    are copies, to be read while the event is handled; later they raise MipError.
    """

    name: str
    epoch: int
    step: int
    metrics: Metrics = field(factory=dict)
    batch: Any = None
    reason: str | None = None
    error: BaseException | None = None
    _live: Live | None = field(default=None, repr=False, eq=False)
    _serial: int = field(default=0, repr=False, eq=False)

    def _now(self) -> Live:
        if self._live is None or self._live.serial != self._serial:
            raise MipError(
                f"the {self.name} event of step {self.step} is over: read it in the hook"
            )
        return self._live

    @property
    def state(self) -> State:
        """The state at this moment, copied: what comes later does not change it."""
        return self.copy()

    def copy(self, into: State | None = None) -> State:
        """Copy the state at this moment; into the tensors of an earlier copy, where one is given,
        which is lost and spares the time of new memory.
        """
        return copy(self._now().state, into)

    @property
    def history(self) -> History:
        """All that was measured so far, this epoch's row included in after_epoch."""
        live = self._now()
        return History(tuple(live.epochs), _joined([*live.past, live.epoch]))


Reply = Stop | Skip | State | Mapping[str, float] | None
"""What a hook may answer: a control value, a new state, numbers for the epoch's row, nothing."""


Hook = Callable[[Event], Reply]
"""A plain function of one event."""


def stateful(
    init: Callable[[], M], update: Callable[[M, Event], Reply]
) -> Callable[[Event], Reply]:
    """Make a hook that remembers something during a fit: `init()` makes its memory, anew for each
    fit, and `update(memory, event)` answers an event and may write into the memory.

    The fit holds the memory, so the same hook can be given to any number of fits, one after
    another or at once, and no fit sees what happened in another, even one that failed.

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
        memory = {} if event._live is None else event._live.memory
        if hook not in memory:
            memory[hook] = init()
        return update(memory[hook], event)

    return hook


STEP_INFO = frozenset({"rows", "skipped", "step"})
"""What the history says of a step besides what it measured."""


def _joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    # What one part did not measure is NaN there: a run may be resumed with another measure.
    known = [part for part in parts if part]
    names = dict.fromkeys(name for part in known for name in part)
    nothing = [torch.full((len(part["step"]),), torch.nan) for part in known]
    return {
        name: torch.cat([part.get(name, nan) for part, nan in zip(known, nothing, strict=True)])
        for name in names
    }


def _column(values: list[Any]) -> Tensor:
    # After a resume, earlier values come from a file and later ones from a device.
    return torch.stack([torch.as_tensor(value).cpu() for value in values])
