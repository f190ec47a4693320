"""Limits of a fit: the milliseconds that a fit of a single step takes beyond the step itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from functools import partial
from io import StringIO

import torch
from torch.nn.functional import mse_loss

import mip
from benchmarks.harness import Limit, temporary_folder, time_calls
from mip.hooks import console
from mip.train import Hook

FITS = 20


EPOCHS = 10_000


def _fit_overhead(make_hooks: Callable[[], Sequence[Hook]]) -> Callable[[], float]:
    net, optimizer, batch = torch.nn.Linear(4, 1), mip.adam(), (torch.ones(8, 4), torch.ones(8, 1))
    step, state = mip.train_step(net, mse_loss, optimizer), mip.init(net, optimizer)
    batches, (donated, _) = mip.batch(8)(batch), step(state, batch)

    def measure() -> float:
        fits = time_calls(lambda: mip.fit(step, batches, state, epochs=1, hooks=make_hooks()), FITS)
        return 1000 * (fits - time_calls(lambda: step.donate(donated, batch), FITS)) / FITS

    return measure


def _hooked_fit_overhead() -> Callable[[], float]:
    # The hooks of `mip fit` in a terminal, except checkpoints; here the bar has no terminal.
    file = temporary_folder("overhead-") / "history.jsonl"
    measure = _fit_overhead(lambda: [mip.log(file, overwrite=True), mip.progress(1), console(str)])

    def measure_quietly() -> float:
        with redirect_stderr(StringIO()):  # the bar would print empty lines
            return measure()

    return measure_quietly


def _long_history() -> Callable[[], float]:
    torch.manual_seed(0)
    net, rows = torch.nn.Linear(4, 1), (torch.randn(64, 4), torch.randn(64, 1))
    step, batches = mip.train_step(net, mse_loss, mip.adamw(1e-3)), mip.batch(64)(rows)
    start, folder = step.init(), temporary_folder("history-")
    fit = partial(mip.fit, step, batches, start, epochs=EPOCHS)

    def hooks() -> list[Hook]:
        return [
            mip.validate(net, batches, loss=mse_loss),
            mip.log(folder / "history.jsonl", overwrite=True),
            mip.early_stop("valid/loss", patience=EPOCHS),
            mip.checkpoint(folder / "checkpoints", overwrite=True),
        ]

    return lambda: time_calls(lambda: fit(hooks=hooks()), 1) / time_calls(fit, 1)


ONCE = Limit(
    name="fit-once",
    work="a fit of a tiny net for one step without hooks, minus the step",
    unit="ms",
    aim=1.0,
    set_up=partial(_fit_overhead, tuple),
)

HOOKED = Limit(
    name="fit-once-hooked",
    work="the same with the hooks of `mip fit` except validation and checkpoints: a history file, "
    "synced to disk, a progress bar and a line per epoch",
    unit="ms",
    aim=3.0,
    set_up=_hooked_fit_overhead,
)

HISTORY = Limit(
    name="fit-long",
    work="10,000 epochs of a step each with validation, a history file, early stopping and a "
    "checkpoint after every epoch, as a multiple of the same without hooks",
    unit="times",
    aim=2.0,
    set_up=_long_history,
    rounds=3,
)

ALL = (ONCE, HOOKED, HISTORY)
