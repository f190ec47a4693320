"""The training loop: a fold of the step over batches, with events for hooks."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import islice
from numbers import Real
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor

from mip.errors import DataError, MipError, add_note, list_first
from mip.optim import REPORTED
from mip.train.arguments import check_batches, check_step
from mip.train.events import (
    ROW_EVENTS,
    Event,
    Hook,
    Progress,
    Reply,
    check_hooks,
    check_names,
    hook_label,
)
from mip.train.failures import StepError
from mip.train.history import STEP_INFO, Fitted, History, with_history
from mip.train.replies import NewBatch, Skip, Stop
from mip.train.state import State, check_frozen, check_state, copy, is_stacked, load_state
from mip.train.step import Metrics, Step, StepFunction
from mip.tree import count_rows


def fit(
    step: StepFunction,
    pipe: Iterable[Any],
    state: State,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    hooks: Sequence[Hook] = (),
    history: History | None = None,
) -> Fitted:
    """Fold a step over a pipe and return the state after `epochs` more epochs, or `steps` more
    steps, whichever comes first, with the history of the run: `state, history = fit(…)`; its
    `stop_reason` says why a hook has ended it earlier, if one has.

    Equal to the plain fold of `step`, bit for bit on the CPU; the given state is not changed. The
    module of a step that `train_step` made holds the last state afterwards, and what it held before
    is lost: `step.init()` makes a state of the weights that it has. After an exception or Ctrl-C,
    too, the module holds what was learned, if a step was taken; an interrupt in the middle of an
    optimizer's update can leave a part of that step in it.
    An epoch that the state is in the middle of is finished first and counts as one. `pipe` is a
    Pipe, which can resume at any step, or any iterable of batches, which starts over each epoch.
    Schedules without `steps` span the run: from step 0 to the last step of this fit.
    Hooks are called in their order at each of EVENTS; an exception in a hook ends the fit, with
    the hook's name in a note. Raises MipError before the first step for a hook that reads a metric
    which nobody measures, for a state that trains other parameters than require a gradient in the
    module, and for a generator of batches that several epochs would need.

    >>> import mip
    >>> from toolz import pipe
    >>> net = torch.nn.Linear(2, 1)
    >>> step = mip.train_step(net, torch.nn.functional.mse_loss, mip.sgd(mip.one_cycle(0.1)))
    >>> batches = pipe((torch.ones(8, 2), torch.ones(8, 1)), mip.batch(4))
    >>> state, history = fit(step, batches, step.init(), epochs=3)
    >>> state.step, len(history.epochs), torch.equal(net.weight, state.params["weight"])
    (6, 3, True)
    """
    if epochs is None and steps is None:
        raise MipError("fit() needs epochs= or steps=")
    check_step(step)
    check_state(state)
    check_hooks(hooks)
    net = getattr(step, "net", None)
    if net is not None:
        check_frozen(net, state)
    reuse_freed_memory()
    progress = Progress.start(state, hooks, history or History())
    taken = _run(step, pipe, progress, epochs, steps)
    try:
        deque(taken, maxlen=0)  # a loop variable would hold on to the batch before
    except BaseException as error:
        last = progress.state
        if last.step > state.step and net is not None and not is_stacked(net, last):
            with suppress(MipError):  # a hook may have put in the state of another module
                load_state(net, last)
                add_note(error, f"the net holds what it learned up to step {last.step}")
        raise
    if net is not None and not is_stacked(net, progress.state):
        load_state(net, progress.state)
    stop_reason = progress.control.reason if isinstance(progress.control, Stop) else None
    return with_history(progress.state, progress.history, stop_reason)


def reuse_freed_memory() -> None:
    """Let the C library keep up to 64 MiB of memory that a step frees for the step after it.

    glibc gives free memory at the end of the heap back to the system, and takes it anew page by
    page: a sixth to a quarter of the time of a net of a table. Its bound is twice the largest block
    freed so far, of 32 MiB at most (`mallopt(3)`), so that freeing one raises it. The block is
    never written to, and takes no memory. Other libraries do nothing of the kind.
    """
    torch.empty((32 << 20) - (64 << 10), dtype=torch.uint8)


def scan(
    step: StepFunction,
    pipe: Iterable[Any],
    state: State,
    *,
    epochs: int | None = None,
    steps: int | None = None,
) -> Iterator[Event]:
    """Yield an `after_batch` event after every step: `fit` as an iterator, for loops of your own.

    **Without `epochs` or `steps` it never ends.** Read `event.state` before the next event.
    """
    check_step(step)
    check_state(state)
    progress = Progress.start(state, (), History())
    for metrics, batch in _run(step, pipe, progress, epochs, steps):
        progress.serial += 1
        yield _event(progress, "after_batch", metrics=metrics, batch=batch)
        progress.serial += 1


@frozen
class Stream:
    """A source of batches. With a `length`, the number of batches in an epoch, `iter_from(step)`
    starts at any step and goes on into later epochs; without one it yields a single epoch.
    """

    length: int | None
    iter_from: Callable[[int], Iterator[Any]]
    batches: Any  # what the stream was made of

    @classmethod
    def of(cls, pipe: Any) -> Stream:
        """Make a stream of a Pipe, or of any iterable of batches."""
        check_batches(pipe, "fit")
        if not hasattr(pipe, "iter_from"):
            return cls(None, lambda step: iter(pipe), pipe)
        if getattr(pipe, "batch_size", 1) is None:
            raise DataError("fit: the pipe has no batch size: add mip.batch(32)")
        if not len(pipe):
            raise DataError("fit: the pipe has no batches")
        return cls(len(pipe), pipe.iter_from, pipe)

    def last_step(self, step: int, epochs: float) -> int | None:
        """Return the step at which a fit of so many epochs ends; None if it is not known."""
        if epochs == math.inf:
            return None
        if self.length is not None:
            return (step // self.length + int(epochs)) * self.length
        with suppress(TypeError):  # a generator, or a DataLoader of a stream
            return step + int(epochs) * len(self.batches)
        return None

    def rows_at(self, step: int, batch: Any) -> str:
        """Name the rows of the batch of a step, as far as they are known."""
        rows = getattr(batch, "row", None)
        if rows is None and hasattr(self.batches, "rows_at"):
            # Shards do not know, and a sampler may fail: the error that is explained comes first.
            with suppress(Exception):
                rows = self.batches.rows_at(step)
        return "" if rows is None else f", rows {list_first(rows.tolist())}"

    def epoch_end(self, step: int) -> int | None:
        """Return the step at which the epoch of a step ends; None if only the source knows."""
        return None if self.length is None else (step // self.length + 1) * self.length

    def is_boundary(self, step: int) -> bool:
        """Return whether an epoch may end at a step."""
        return self.length is None or step % self.length == 0


Taken = Iterator[tuple[Metrics, Any]]
"""The metrics and the batch of each step."""


def _run(
    step: StepFunction, pipe: Any, progress: Progress, epochs: int | None, steps: int | None
) -> Taken:
    stream, start = Stream.of(pipe), progress.state.step
    _check_length(stream, epochs, steps)
    max_epochs = math.inf if epochs is None else epochs
    max_step = math.inf if steps is None else start + steps
    last = min(max_step, stream.last_step(start, max_epochs) or math.inf)
    if last < math.inf:
        progress.state = evolve(progress.state, total_steps=int(last))
    progress.total_epochs = None if epochs is None else len(progress.epochs) + epochs
    # The state is a copy, so a step may write into it; a plain function never does.
    step = step if isinstance(step, Step) else Step(step)
    if step.metric_names is not None:
        with suppress(LookupError, TypeError):  # the state of another optimizer: the step says so
            check_names(progress.hooks, [*step.metric_names, *step.rates(progress.state)])
    try:
        _emit(progress, "before_fit")
        yield from _epochs(step, stream, progress, max_epochs, max_step)
        if isinstance(progress.control, Stop):
            _emit(progress, "after_cancel_fit", reason=progress.control.reason)
    except BaseException as error:
        for name in ("on_error", "after_fit"):
            try:
                _emit(progress, name, error=error)
            except Exception as other:  # what fails because of the error must not hide it
                if (type(other), str(other)) != (type(error), str(error)):
                    add_note(error, f"then {type(other).__name__}: {other}")
        raise
    _emit(progress, "after_fit")


def _check_length(stream: Stream, epochs: Any, steps: Any) -> None:
    for name, value in (("epochs", epochs), ("steps", steps)):
        is_number = value is None or isinstance(value, Real)
        if not is_number or (value is not None and not (value >= 0 and value % 1 == 0)):
            raise MipError(f"fit: {name} must be a whole number, 0 or more: {value!r}")
    kind = type(stream.batches)  # a generator, map, zip, …: other iterators may start again
    runs_dry = kind.__module__ in ("builtins", "itertools") and hasattr(kind, "__next__")
    if epochs is not None and epochs > 1 and steps is None and runs_dry:
        raise MipError(
            f"fit: a {kind.__name__} yields its batches once, and {epochs} epochs need them again: "
            "pass a list, a loader, or rows with mip.batch(32)"
        )


def _epochs(
    step: Step, stream: Stream, progress: Progress, max_epochs: float, max_step: float
) -> Taken:
    done, batches = 0, None
    # A checkpoint made after an epoch's last batch does not have the epoch's row yet.
    rowless = len(progress.resumed.get("step", ())) > 0 and stream.length is not None
    if rowless and stream.is_boundary(progress.state.step) and progress.control is None:
        _close_epoch(progress, step)
        done += 1
    with ExitStack() as opened:
        while done < max_epochs and progress.state.step < max_step and not progress.control:
            first = progress.state.step
            end = stream.epoch_end(first)
            _emit(progress, "before_epoch")
            if progress.control is None:
                if batches is None:
                    batches = _open(stream, first, opened)
                if step.streaming and stream.is_boundary(first):
                    progress.state = evolve(progress.state, metrics={})
                epoch = islice(batches, end and end - first)
                yield from _batches(step, stream, epoch, progress, max_step)
                if progress.state.step == first and progress.control is None:
                    cure = "it must be iterable again for every epoch"
                    raise DataError(f"fit: the pipe yielded no batches; {cure}")
            skipped = isinstance(progress.control, Skip)
            if skipped:
                progress.control = None
                _emit(progress, "after_cancel_epoch")
                progress.state = evolve(progress.state, step=end or progress.state.step)
            if skipped or stream.length is None:
                batches = None  # the next epoch's start at another step, or with a new iterator
            if skipped or (first < progress.state.step and stream.is_boundary(progress.state.step)):
                _close_epoch(progress, step)
                done += 1


def _open(stream: Stream, step: int, opened: ExitStack) -> Iterator[Any]:
    opened.close()  # ends the threads of the batches before
    batches = stream.iter_from(step)
    if stream.length is not None and hasattr(batches, "close"):
        opened.callback(batches.close)  # not left to a traceback that somebody keeps
    return batches


def _batches(
    step: Step, stream: Stream, batches: Iterator[Any], progress: Progress, max_step: float
) -> Taken:
    for batch in batches:
        _emit(progress, "before_batch", batch=batch)
        if progress.batch is not None:
            batch, progress.batch = progress.batch.batch, None
        if progress.control is Skip.BATCH:
            progress.control = None
            progress.state = evolve(progress.state, step=progress.state.step + 1)
            _emit(progress, "after_cancel_batch", batch=batch)
        elif progress.control is None:
            metrics = _take_step(step, stream, batch, progress)
            _emit(progress, "after_batch", metrics=metrics, batch=batch)
            yield metrics, batch
        if progress.control or progress.state.step >= max_step:
            return


def _take_step(step: Step, stream: Stream, batch: Any, progress: Progress) -> Metrics:
    before = progress.state
    try:
        progress.state, metrics = step.donate(before, batch)
    except StepError as error:
        rows = stream.rows_at(before.step, batch)
        raise StepError(error.step, error.why, rows) from error.__cause__
    rates = step.rates(before)
    if progress.state.step != before.step + 1:
        raise MipError(
            f"a step must return state.step + 1: expected {before.step + 1}, got "
            f"{progress.state.step}"
        )
    _check_metrics(progress, metrics, before.step + 1)
    measured = {**metrics, **rates}
    progress.steps.append({**measured, "rows": count_rows(batch), "step": before.step + 1})
    return measured


def _check_metrics(progress: Progress, metrics: Metrics, step: int) -> None:
    if metrics.keys() == progress.metric_names:  # as nearly always
        return
    names, known = metrics.keys() - {"skipped"}, progress.metric_names
    if metrics.get("skipped", 0) == 1:  # such a step measures what it got to
        fits = not known or names <= known
    else:
        fits = not known or names == known
        progress.metric_names = known or frozenset(names)
    if not fits:
        here, before = (", ".join(sorted(each)) for each in (names, known))
        raise MipError(
            f"a step must measure the same metrics every time: {here} in step {step}, {before} "
            "before it"
        )


def _close_epoch(progress: Progress, step: Step) -> None:
    steps = progress.close_epoch()
    row = {"epoch": len(progress.epochs), "step": progress.state.step, **_means(steps)}
    for name, metric in step.streaming.items():
        if name in progress.state.metrics:
            row[name] = _as_number(name, metric.compute(progress.state.metrics[name]))
    progress.epochs.append(row)
    _emit(progress, "before_validate")
    if progress.control is Skip.VALIDATION:
        progress.control = None
    else:
        _emit(progress, "validate")
        _emit(progress, "after_validate")
    _emit(progress, "after_epoch")


def _means(steps: Mapping[str, Tensor]) -> dict[str, float]:
    # Means over rows. Skipped steps count only in `skipped`, their share of the epoch's steps.
    rows = steps.get("rows", torch.zeros(0)).double()
    taken = steps.get("skipped", torch.zeros(len(rows))) != 1
    weights = rows[taken]
    means = {
        name: float(values[-1])
        if name.split(".")[0] in REPORTED  # a rate of the epoch is that of its last step
        else float((values[taken].double() * weights).sum() / weights.sum())
        for name, values in steps.items()
        if name not in STEP_INFO
    }
    return means if taken.all() else {**means, "skipped": float((~taken).double().mean())}


def _emit(
    progress: Progress,
    name: str,
    *,
    metrics: Metrics | None = None,
    batch: Any = None,
    reason: str | None = None,
    error: BaseException | None = None,
) -> None:
    # A fit without hooks makes no events: they cost 3% of a small net's step.
    if not progress.hooks:
        return
    progress.serial += 1
    event = _event(progress, name, metrics, batch, reason, error)
    replies: list[Stop | Skip | State | NewBatch] = []
    for hook in progress.hooks:
        try:
            reply = _checked(hook(event), name)
        except BaseException as raised:
            add_note(raised, f"in the hook {hook_label(hook)} at {name}, step {event.step}")
            raise
        if isinstance(reply, Mapping):
            event = evolve(event, metrics={**event.metrics, **reply})
            if name in ROW_EVENTS:
                progress.epochs[-1] = event.metrics
            elif name == "after_batch":
                progress.steps[-1].update(reply)
        elif reply is not None:
            replies.append(reply)
    for reply in replies:
        _apply(reply, progress)
    progress.serial += 1


def _apply(reply: Stop | Skip | State | NewBatch, progress: Progress) -> None:
    if isinstance(reply, State):
        step, total = progress.state.step, progress.state.total_steps
        progress.state = evolve(copy(reply), step=step, total_steps=total)
    elif isinstance(reply, NewBatch):
        progress.batch = reply
    else:
        progress.control = progress.control or reply


def _event(
    progress: Progress,
    name: str,
    metrics: Mapping[str, Any] | None = None,
    batch: Any = None,
    reason: str | None = None,
    error: BaseException | None = None,
) -> Event:
    closing = name in ROW_EVENTS
    return Event(
        name=name,
        epoch=len(progress.epochs) - closing,
        step=progress.state.step,
        metrics=progress.epochs[-1] if closing else metrics or {},
        batch=batch,
        reason=reason,
        error=error,
        progress=progress,
        serial=progress.serial,
    )


_SKIPS = {
    "before_epoch": (Skip.EPOCH,),
    "before_batch": (Skip.BATCH, Skip.EPOCH),
    "after_batch": (Skip.EPOCH,),
    "before_validate": (Skip.VALIDATION,),
}


def _checked(reply: Any, event: str) -> Reply:
    if reply is None:  # nearly always, so it is asked first
        return None
    if isinstance(reply, Mapping):
        return {name: _as_number(name, value) for name, value in reply.items()}
    skips = _SKIPS.get(event, ())
    if isinstance(reply, (Stop, State)) or reply in skips:
        return reply
    may_replace = event == "before_batch"
    if may_replace and isinstance(reply, NewBatch):
        return reply
    expected = ", ".join(["None", "Stop", *map(str, skips), *["NewBatch"] * may_replace])
    cure = "; call it, as in hooks=[mip.progress()]" if callable(reply) else ""
    raise MipError(
        f"hook returned {reply!r} from {event}; expected {expected}, a State or a mapping of "
        f"numbers{cure}"
    )


def _as_number(name: str, value: Any) -> float:
    # A Python number: measurements of hooks go into histories, logs and checkpoints.
    try:
        return value if isinstance(value, (int, float)) else float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise MipError(f"'{name}' must be a number, not {type(value).__name__}") from error
