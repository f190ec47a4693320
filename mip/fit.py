"""Fitting: a fold of the step over a pipe, told event by event."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from enum import Enum
from functools import wraps
from itertools import islice
from typing import Any, Self, TypeVar

import torch
from attrs import define, evolve, field, frozen
from torch import Tensor

from mip.errors import DataError, MipError
from mip.step import Metrics, State, Step, copy
from mip.tree import size

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
    def begun(self) -> Tensor:
        """Say which steps belong to no finished epoch: bool [steps]."""
        last = self.epochs[-1]["step"] if self.epochs else 0
        return self.steps["step"] > last if self.steps else torch.zeros(0, dtype=torch.bool)


@define
class _Live:
    # The one thing in a fit that changes; events look at it and go stale when it moves on.
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
        done = int((~history.begun).sum())
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
    _live: _Live | None = field(default=None, repr=False, eq=False)
    _serial: int = field(default=0, repr=False, eq=False)

    def _now(self) -> _Live:
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


Loop = Generator[Event, list[Reply], None]


def fit(
    step: Step | Callable[[State, Any], tuple[State, Metrics]],
    pipe: Iterable[Any],
    state: State,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    hooks: Sequence[Hook] = (),
    history: History | None = None,
) -> State:
    """Fold a step over a pipe: the state after so many more epochs, or steps.

    Equal to the plain fold of `step`, bit for bit on the CPU; the state given is not touched.
    An epoch begun by the state is finished first and counts as one. `pipe` is a Pipe, which
    resumes at any step, or any iterable of batches, which starts anew each epoch. Hooks are
    called in the order given, at each of EVENTS; a hook that raises ends the fit with its name
    in a note.

    >>> import mip
    >>> from toolz import pipe
    >>> net = torch.nn.Linear(2, 1); one = mip.sgd(0.1)
    >>> step = mip.train_step(net, torch.nn.functional.mse_loss, one)
    >>> batches = pipe((torch.ones(8, 2), torch.ones(8, 1)), mip.batch(4))
    >>> fit(step, batches, mip.init(net, one), epochs=3).step
    6
    """
    live = _Live.of(state, history or History(), watched=bool(hooks))
    loop = _events(_form(step), pipe, live, _limit(pipe, state, epochs, steps))
    try:
        event = next(loop)
        while True:
            event = _answered(loop, event, hooks, live)
    except StopIteration:
        return live.state


def _answered(loop: Loop, event: Event, hooks: Sequence[Hook], live: _Live) -> Event:
    replies: list[Reply] = []
    for hook in hooks:
        try:
            reply = hook(event)
            if isinstance(reply, Mapping):
                reply = {name: _number(name, value) for name, value in reply.items()}
        except BaseException as error:
            name = getattr(hook, "__qualname__", repr(hook)).split(".")[0]
            error.add_note(f"in the hook {name} at {event.name}, step {event.step}")
            return loop.throw(error)
        if isinstance(reply, Mapping):
            event = evolve(event, metrics={**event.metrics, **reply})
            if event.name in ROW_EVENTS:
                live.epochs[-1] = event.metrics
        elif reply is not None:
            replies.append(reply)
    return loop.send(replies)


def _number(name: str, value: Any) -> float:
    # As Python's own: what a hook measured goes into histories, logs and checkpoints.
    try:
        return value if isinstance(value, (int, float)) else float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise MipError(f"'{name}' is a {type(value).__name__}; a number is needed") from error


def scan(
    step: Step | Callable[[State, Any], tuple[State, Metrics]],
    pipe: Iterable[Any],
    state: State,
    *,
    epochs: int | None = None,
    steps: int | None = None,
) -> Iterator[Event]:
    """Give an event after every step: the fold of `fit`, in your own hands.

    Without `epochs` or `steps` it goes on for ever. `event.state` is to be read before the next
    event is asked for.
    """
    live = _Live.of(state, History(), watched=True)
    loop = _events(_form(step), pipe, live, _limit(pipe, state, epochs, steps, endless=True))
    event = next(loop)
    while True:
        if event.name == "after_batch":
            yield event
        try:
            event = loop.send([])
        except StopIteration:
            return


def _form(step: Any) -> Callable[..., Any]:
    # A pure function without another form is its own: the state is a copy already.
    return getattr(step, "donate", step)


@frozen
class _Limit:
    epochs: float
    steps: float


def _limit(
    pipe: Any, state: State, epochs: int | None, steps: int | None, endless: bool = False
) -> _Limit:
    if epochs is None and steps is None and not endless:
        raise MipError("fit: say how far, with epochs= or steps=")
    if isinstance(pipe, Tensor) or not hasattr(pipe, "__iter__"):
        cure = "a DataLoader makes batches of a Dataset, pipe(rows, mip.batch(32)) of rows"
        raise MipError(f"fit: {type(pipe).__name__} is no iterable of batches: {cure}")
    if hasattr(pipe, "at") and not len(pipe):
        raise DataError("fit: the pipe gives no batches")
    most = float("inf")
    return _Limit(most if epochs is None else epochs, most if steps is None else state.step + steps)


def _events(step: Callable[..., Any], pipe: Any, live: _Live, limit: _Limit) -> Loop:
    try:
        yield from _emit(live, "before_fit")
        yield from _epochs(step, pipe, live, limit)
        if isinstance(live.control, Stop):
            yield from _emit(live, "after_cancel_fit", reason=live.control.reason)
    except GeneratorExit:
        raise
    except BaseException as error:
        yield from _failed(live, error)
    yield from _emit(live, "after_fit")


def _failed(live: _Live, error: BaseException) -> Loop:
    for name in ("on_error", "after_fit"):
        try:
            yield from _emit(live, name, error=error)
        except Exception as other:  # what fails because of the error must not hide it
            error.add_note(f"then {type(other).__name__}: {other}")
    raise error


def _epochs(step: Callable[..., Any], pipe: Any, live: _Live, limit: _Limit) -> Loop:
    done = 0
    if _unclosed(pipe, live):
        yield from _close_epoch(pipe, live)
        done += 1
    with ExitStack() as open_streams:
        stream = _stream(pipe, live, open_streams)
        while done < limit.epochs and live.state.step < limit.steps and not live.control:
            began = live.state.step
            yield from _emit(live, "before_epoch")
            if live.control is None:
                yield from _batches(step, pipe, stream, live, limit)
                _some(began, live)
            if isinstance(live.control, Skip):
                yield from _emit(live, "after_cancel_epoch")
                _skip_epoch(pipe, live, began)
                stream = _stream(pipe, live, open_streams)
            if live.state.step > began and _at_boundary(pipe, live):
                yield from _close_epoch(pipe, live)
                done += 1


def _unclosed(pipe: Any, live: _Live) -> bool:
    # A checkpoint after an epoch's last batch, from which the epoch's row is still to come.
    whole = hasattr(pipe, "at") and _at_boundary(pipe, live)
    return whole and len(live.begun.get("step", ())) > 0 and live.control is None


def _stream(pipe: Any, live: _Live, open_streams: ExitStack) -> Iterator[Any] | None:
    open_streams.close()  # the threads of the one before end here
    stream: Any = pipe.at(live.state.step) if hasattr(pipe, "at") else None
    if hasattr(stream, "close"):
        open_streams.callback(stream.close)  # not left to a traceback that somebody keeps
    return stream


def _some(began: int, live: _Live) -> None:
    if live.state.step == began and not live.control:
        raise DataError("fit: the pipe gave no batches; it must be iterable again for each epoch")


def _skip_epoch(pipe: Any, live: _Live, began: int) -> None:
    live.control = None
    if hasattr(pipe, "at"):
        live.state = evolve(live.state, step=(began // len(pipe) + 1) * len(pipe))


def _batches(
    step: Callable[..., Any], pipe: Any, stream: Iterator[Any] | None, live: _Live, limit: _Limit
) -> Loop:
    source = (
        iter(pipe) if stream is None else islice(stream, len(pipe) - live.state.step % len(pipe))
    )
    for batch in source:
        yield from _emit(live, "before_batch", batch=batch)
        if live.control is Skip.BATCH:
            live.control, live.state = None, evolve(live.state, step=live.state.step + 1)
            yield from _emit(live, "after_cancel_batch", batch=batch)
        elif live.control is None:
            live.state, metrics = _counted(step, live.state, batch)
            if live.watched:
                _note(live, metrics, batch)
            yield from _emit(live, "after_batch", metrics=metrics, batch=batch)
        if live.control or live.state.step >= limit.steps:
            return


def _counted(step: Callable[..., Any], state: State, batch: Any) -> tuple[State, Metrics]:
    after, metrics = step(state, batch)
    if after.step != state.step + 1:
        raise MipError(f"the step gave a state of step {after.step}, behind {state.step}: add 1")
    return after, metrics


def _note(live: _Live, metrics: Metrics, batch: Any) -> None:
    for name, value in {**metrics, "rows": size(batch), "step": live.state.step}.items():
        live.steps.setdefault(name, []).append(value)


def _at_boundary(pipe: Any, live: _Live) -> bool:
    return not hasattr(pipe, "at") or live.state.step % len(pipe) == 0


def _close_epoch(pipe: Any, live: _Live) -> Loop:
    epoch = len(live.epochs)
    live.past.append(live.epoch)
    live.begun, live.steps = {}, {}
    live.epochs.append({"epoch": epoch, "step": live.state.step, **_means(live.past[-1])})
    for name in ROW_EVENTS:
        if live.control is not Skip.VALIDATION or name == "after_epoch":
            yield from _emit(live, name, epoch=epoch, metrics=live.epochs[-1])
    live.control = None if live.control is Skip.VALIDATION else live.control


def _means(steps: Mapping[str, Tensor]) -> dict[str, float]:
    rows = steps.get("rows", torch.zeros(0)).double()
    # A step that was skipped has no loss to speak of; how many were is said where some were.
    taken = steps.get("skipped", torch.zeros(len(rows))) != 1
    share = {} if taken.all() else {"skipped": float((~taken).double().mean())}
    measured = {name: values[taken] for name, values in steps.items() if name not in COUNTS}
    return {name: _mean(values, rows[taken]) for name, values in measured.items()} | share


def _mean(values: Tensor, rows: Tensor) -> float:
    return float((values.double() * rows).sum() / rows.sum())


COUNTS = frozenset({"rows", "skipped", "step"})
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


def _emit(live: _Live, name: str, **told: Any) -> Loop | tuple[()]:
    # A fit that nobody watches pays for no events: they cost 3% of a small net's step.
    return _told(live, name, **told) if live.watched else ()


def _skips(name: str) -> tuple[Skip, ...]:
    if name == "before_batch":
        return (Skip.BATCH, Skip.EPOCH)
    if name == "before_validate":
        return (Skip.VALIDATION,)
    return (Skip.EPOCH,) if name in {"before_epoch", "after_batch"} else ()


def _told(live: _Live, name: str, epoch: int | None = None, **told: Any) -> Loop:
    live.serial += 1
    now = len(live.epochs) if epoch is None else epoch
    event = Event(name, now, live.state.step, live=live, serial=live.serial, **told)
    for reply in (yield event):
        if isinstance(reply, State):
            live.state = evolve(copy(reply), step=live.state.step)
        elif isinstance(reply, Stop) or reply in _skips(name):
            live.control = live.control or reply
        else:
            cure = "; call it, as in hooks=[mip.progress()]" if callable(reply) else ""
            raise MipError(f"a hook answered {reply!r} to {name}, which means nothing there{cure}")
    live.serial += 1
