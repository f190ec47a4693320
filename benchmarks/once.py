"""Limits of a fit: the milliseconds that one of a single step takes beyond the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from time import perf_counter

import torch
from torch.nn.functional import mse_loss

import mip
from benchmarks.harness import Limit, scratch
from mip.hooks import console
from mip.train import Hook

FITS = 20


def _seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    for _ in range(FITS):
        work()
    return perf_counter() - start


def _beyond(hooks: Callable[[], Sequence[Hook]]) -> Callable[[], float]:
    net, optimizer, batch = torch.nn.Linear(4, 1), mip.adam(), (torch.ones(8, 4), torch.ones(8, 1))
    step, state = mip.train_step(net, mse_loss, optimizer), mip.init(net, optimizer)
    batches, (own, _) = mip.batch(8)(batch), step(state, batch)

    def measured() -> float:
        fits = _seconds(lambda: mip.fit(step, batches, state, epochs=1, hooks=hooks()))
        return 1000 * (fits - _seconds(lambda: step.donate(own, batch))) / FITS

    return measured


def _hooked() -> Callable[[], float]:
    # What `mip fit` has at a terminal but for checkpoints; the bar finds none here to draw on.
    file = scratch("once-") / "history.jsonl"
    one = _beyond(lambda: [mip.log(file, overwrite=True), mip.progress(1), console(str)])

    def measured() -> float:
        with redirect_stderr(StringIO()):  # the bar would leave empty lines
            return one()

    return measured


ONCE = Limit(
    name="fit-once",
    work="a fit of one step of a tiny net without hooks, beyond the step",
    unit="ms",
    aim=1.0,
    lay=partial(_beyond, tuple),
)

HOOKED = Limit(
    name="fit-once-hooked",
    work="the same with the hooks of `mip fit` without a valid part and without checkpoints: the "
    "history's file, which waits for the disk, a bar, a line an epoch",
    unit="ms",
    aim=3.0,
    lay=_hooked,
)

ALL = (ONCE, HOOKED)
