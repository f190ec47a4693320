"""Events: what hooks see of a fit, and what they may reply."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from itertools import islice
from typing import Any, Self, TypeVar

import torch
from attrs import define, field, frozen

from mip.errors import MipError, hint
from mip.train.history import History, Steps, append_steps, concat_steps
from mip.train.replies import NewBatch, Skip, Stop
from mip.train.state import State, copy

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


@define
class Progress:
    """How far a fit has come: its only mutable value. Events read it, and expire when it moves on.

    The history is kept in three parts, because the metrics of the current epoch stay on their
    device until somebody reads them.
    """

    state: State
    hooks: Sequence[Hook]
    epochs: list[Mapping[str, float]]
    past: list[Steps]  # the steps of the finished epochs
    resumed: Steps  # the steps of the current epoch that came before this fit
    steps: list[dict[str, Any]] = field(factory=list)  # and those since
    total_epochs: int | None = None
    control: Stop | Skip | None = None
    batch: Any = None  # the one that a hook has put in the place of another
    memory: dict[Hook, Any] = field(factory=dict)  # of the hooks made by `stateful`
    serial: int = 0  # of the current event
    metric_names: frozenset[str] = frozenset()  # of the steps that are not skipped

    @classmethod
    def start(cls, state: State, hooks: Sequence[Hook], history: History) -> Self:
        """Start from a state, copied, and the history before it."""
        done = int((~history.unfinished).sum())
        past = {name: values[:done] for name, values in history.steps.items()}
        resumed = {name: values[done:] for name, values in history.steps.items()}
        return cls(copy(state), hooks, list(history.epochs), [past] if done else [], resumed)

    def epoch_steps(self) -> Steps:
        """Return the steps of the current epoch, a tensor for each metric."""
        # After a resume, earlier values come from a file and later ones from a device.
        names = dict.fromkeys(name for row in self.steps for name in row)
        since = {
            name: _column([row.get(name, missing) for row in self.steps])
            for name in names
            for missing in (0.0 if name == "skipped" else torch.nan,)
        }
        return concat_steps([self.resumed, since])

    def close_epoch(self) -> Steps:
        """Move the steps of the current epoch to those of finished ones, and return them."""
        steps = self.epoch_steps()
        append_steps(self.past, steps)
        self.resumed, self.steps = {}, []
        return steps

    @property
    def history(self) -> History:
        """All measurements so far."""
        return self.snapshot()()

    def snapshot(self) -> Callable[[], History]:
        """Return a function that makes the history of this moment."""
        count, parts = len(self.epochs), [*self.past, self.epoch_steps()]
        return lambda: History(tuple(islice(self.epochs, count)), concat_steps(parts))


def _column(values: list[Any]) -> torch.Tensor:
    # All at once where the values are of one kind, as nearly always.
    kinds = set(map(type, values))
    if kinds == {torch.Tensor}:
        return torch.stack(values).cpu()
    if kinds in ({int}, {float}):  # a Python float keeps its digits
        return torch.tensor(values, dtype=torch.float64 if float in kinds else torch.int64)
    dtypes = [torch.float64 if isinstance(value, float) else None for value in values]
    pairs = zip(values, dtypes, strict=True)
    return torch.stack([torch.as_tensor(value, dtype=dtype).cpu() for value, dtype in pairs])


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

    def peek(self) -> State:
        """Return the state itself and not a copy, for a hook that only reads it and keeps nothing:
        the next step may write into its tensors.
        """
        return self._current().state

    @property
    def history(self) -> History:
        """All measurements so far, including this epoch's row at after_epoch."""
        return self._current().history

    def snapshot(self) -> Callable[[], History]:
        """Return a function that makes the history of this moment when it is called, also later
        and in another thread.
        """
        return self._current().snapshot()

    @property
    def epochs(self) -> Sequence[Mapping[str, float]]:
        """The rows of the epochs so far, as in `history`, but without a copy: read them only."""
        return self._current().epochs

    @property
    def total_steps(self) -> int | None:
        """The number of steps that the run will have taken at the end of this fit, if known."""
        return self._current().state.total_steps

    @property
    def total_epochs(self) -> int | None:
        """The number of epochs that the run will have at the end of this fit, if known."""
        return self._current().total_epochs


Reply = Stop | Skip | State | NewBatch | Mapping[str, float] | None
"""What a hook may return: a way to end or skip something, a state to go on from, another batch to
train on, numbers for the epoch's or the step's row, or nothing.
"""


Hook = Callable[[Event], Reply]
"""A plain function of one event."""


def stateful(
    init: Callable[[], M],
    update: Callable[[M, Event], Reply],
    *,
    reads: Iterable[str] = (),
    adds: Names | None = None,
) -> Hook:
    """Make a hook with a memory: `init()` makes it, anew for each fit, and `update(memory, event)`
    replies to an event and may write into the memory. For `reads` and `adds` see `with_names`.

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

    return with_names(hook, reads, adds)


Names = Iterable[str] | Callable[[], Iterable[str]]
"""Names, or a function that returns them."""


def with_names(hook: Hook, reads: Iterable[str], adds: Names | None) -> Hook:
    """Say which metrics of the epochs' rows a hook reads, and which it adds (None: unknown), so
    that a fit can find a misspelled name before its first step. Returns the hook.
    """
    hook.__dict__.update(reads=reads, adds=adds)
    return hook


def check_hooks(hooks: Any) -> None:
    """Raise MipError for a hook that is not in a list, and for what is not a hook.

    >>> from mip.hooks import timing
    >>> check_hooks([timing])
    Traceback (most recent call last):
    mip.errors.MipError: timing makes a hook: call it, as in hooks=[timing(…)]
    """
    if not isinstance(hooks, Sequence) or isinstance(hooks, str):
        raise MipError(f"hooks must be a list, hooks=[…], not a {type(hooks).__name__}")
    for hook in hooks:
        if not callable(hook):
            raise MipError(f"a hook must be a function of an event, not a {type(hook).__name__}")
        if getattr(hook, "__annotations__", {}).get("return") in ("Hook", Hook):
            name = hook.__name__
            raise MipError(f"{name} makes a hook: call it, as in hooks=[{name}(…)]")


def check_names(hooks: Sequence[Hook], measured: Iterable[str]) -> None:
    """Raise MipError if a hook reads a metric that neither the step measures nor a hook adds.

    Nothing of this is checked if one of the hooks may add any metric. Raises MipError as well if
    two hooks add the same metric.
    """
    reads = [(hook, name) for hook in hooks for name in getattr(hook, "reads", ())]
    added = [adds for hook in hooks if (adds := getattr(hook, "adds", None)) is not None]
    if not reads and sum(map(callable, added)) < 2:
        return
    names = [name for adds in added for name in dict.fromkeys(adds() if callable(adds) else adds)]
    for name, times in Counter(names).items():
        if times > 1:
            raise MipError(f"{times} hooks add '{name}' to the epochs: give each another name=")
    if len(added) < len(hooks):
        return
    known = {"epoch", "step", *measured, *names}
    for hook, name in reads:
        if name not in known:
            label = hook_label(hook)
            raise MipError(f"{label}: the epochs will have no '{name}'{hint(name, known)}")


def hook_label(hook: Hook) -> str:
    """Return the name of the function that made a hook."""
    return str(getattr(hook, "__qualname__", repr(hook))).split(".")[0]
