"""Fitting: a fold of the step over a pipe, event by event."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor

from mip.errors import DataError, MipError
from mip.train.events import ROW_EVENTS, STEP_INFO, Event, History, Hook, Live, Reply, Skip, Stop
from mip.train.step import Metrics, State, Step, copy
from mip.tree import count_rows

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
    live = Live.of(state, history or History(), watched=bool(hooks))
    loop = _events(_form(step), pipe, live, _limit(pipe, state, epochs, steps))
    try:
        event = next(loop)
        while True:
            event = _answered(loop, event, hooks, live)
    except StopIteration:
        return live.state


def _answered(loop: Loop, event: Event, hooks: Sequence[Hook], live: Live) -> Event:
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
    live = Live.of(state, History(), watched=True)
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
    if hasattr(pipe, "iter_from") and not len(pipe):
        raise DataError("fit: the pipe gives no batches")
    most = float("inf")
    return _Limit(most if epochs is None else epochs, most if steps is None else state.step + steps)


def _events(step: Callable[..., Any], pipe: Any, live: Live, limit: _Limit) -> Loop:
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


def _failed(live: Live, error: BaseException) -> Loop:
    for name in ("on_error", "after_fit"):
        try:
            yield from _emit(live, name, error=error)
        except Exception as other:  # what fails because of the error must not hide it
            error.add_note(f"then {type(other).__name__}: {other}")
    raise error


def _epochs(step: Callable[..., Any], pipe: Any, live: Live, limit: _Limit) -> Loop:
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


def _unclosed(pipe: Any, live: Live) -> bool:
    # A checkpoint after an epoch's last batch, from which the epoch's row is still to come.
    whole = hasattr(pipe, "iter_from") and _at_boundary(pipe, live)
    return whole and len(live.begun.get("step", ())) > 0 and live.control is None


def _stream(pipe: Any, live: Live, open_streams: ExitStack) -> Iterator[Any] | None:
    open_streams.close()  # the threads of the one before end here
    stream: Any = pipe.iter_from(live.state.step) if hasattr(pipe, "iter_from") else None
    if hasattr(stream, "close"):
        open_streams.callback(stream.close)  # not left to a traceback that somebody keeps
    return stream


def _some(began: int, live: Live) -> None:
    if live.state.step == began and not live.control:
        raise DataError("fit: the pipe gave no batches; it must be iterable again for each epoch")


def _skip_epoch(pipe: Any, live: Live, began: int) -> None:
    live.control = None
    if hasattr(pipe, "iter_from"):
        live.state = evolve(live.state, step=(began // len(pipe) + 1) * len(pipe))


def _batches(
    step: Callable[..., Any], pipe: Any, stream: Iterator[Any] | None, live: Live, limit: _Limit
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


def _note(live: Live, metrics: Metrics, batch: Any) -> None:
    for name, value in {**metrics, "rows": count_rows(batch), "step": live.state.step}.items():
        live.steps.setdefault(name, []).append(value)


def _at_boundary(pipe: Any, live: Live) -> bool:
    return not hasattr(pipe, "iter_from") or live.state.step % len(pipe) == 0


def _close_epoch(pipe: Any, live: Live) -> Loop:
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
    measured = {name: values[taken] for name, values in steps.items() if name not in STEP_INFO}
    return {name: _mean(values, rows[taken]) for name, values in measured.items()} | share


def _mean(values: Tensor, rows: Tensor) -> float:
    return float((values.double() * rows).sum() / rows.sum())


def _emit(live: Live, name: str, **told: Any) -> Loop | tuple[()]:
    # A fit that nobody watches pays for no events: they cost 3% of a small net's step.
    return _told(live, name, **told) if live.watched else ()


def _skips(name: str) -> tuple[Skip, ...]:
    if name == "before_batch":
        return (Skip.BATCH, Skip.EPOCH)
    if name == "before_validate":
        return (Skip.VALIDATION,)
    return (Skip.EPOCH,) if name in {"before_epoch", "after_batch"} else ()


def _told(live: Live, name: str, epoch: int | None = None, **told: Any) -> Loop:
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
