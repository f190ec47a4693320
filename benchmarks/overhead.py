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

ALL = (ONCE, HOOKED)
