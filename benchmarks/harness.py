"""Measure ratios and limits. A ratio says how many times as fast as a baseline we are.

Each round times both contenders once. Every second round reverses their order, so that a machine
that becomes slower or faster in the meantime affects both alike. A round's ratio is the baseline's
time divided by ours. The result is the median of the rounds' ratios; `low` and `high` are their
quartiles.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from math import ceil
from pathlib import Path
from shutil import rmtree
from statistics import quantiles
from tempfile import mkdtemp
from time import perf_counter

import torch
from attrs import field, frozen
from attrs.validators import ge, gt

Contender = Callable[[], object]
"""A piece of work without arguments; its return value is ignored."""

Timer = Callable[[], float]
"""Does a piece of work and returns the seconds it took."""


@frozen
class Benchmark:
    """A piece of work that is compared with a baseline.

    `pair` prepares both contenders and returns (ours, baseline). `aim` is the ratio that we want to
    reach; it is reported but not enforced. `threads` is torch's number of threads, `rounds` the
    number of rounds and `seconds` the minimum duration of one measurement of the baseline.
    """

    name: str
    work: str
    baseline: str
    aim: float
    pair: Callable[[], tuple[Contender, Contender]]
    threads: int = field(default=1, validator=gt(0))
    rounds: int = field(default=41, validator=ge(2))
    seconds: float = field(default=0.1, validator=ge(0))


@frozen
class Result:
    """How many times as fast as the baseline: the median of the rounds and its quartiles."""

    name: str
    work: str
    baseline: str
    ratio: float
    low: float
    high: float
    aim: float


@frozen
class Limit:
    """A cost, such as milliseconds or megabytes, that should stay below `aim`.

    `set_up` prepares the work and returns a function that does it once and returns its cost. `aim`
    is reported but not enforced.
    """

    name: str
    work: str
    unit: str
    aim: float
    set_up: Callable[[], Callable[[], float]]
    rounds: int = field(default=9, validator=ge(2))


@frozen
class LimitResult:
    """A cost in `unit`: the median of the rounds and its quartiles."""

    name: str
    work: str
    unit: str
    value: float
    low: float
    high: float
    aim: float


def measure_ratio(benchmark: Benchmark) -> Result:
    """Run a benchmark, which takes about `2 * rounds * seconds` seconds."""
    with _torch_threads(benchmark.threads):
        ours, baseline = benchmark.pair()
        for contender in (ours, baseline):
            contender()  # the first call also warms up caches and allocators
        calls = ceil(benchmark.seconds / time_calls(baseline)) or 1
        timers = partial(time_calls, ours, calls), partial(time_calls, baseline, calls)
        median, low, high = median_and_quartiles(alternate(*timers, benchmark.rounds))
    return Result(
        name=benchmark.name,
        work=benchmark.work,
        baseline=benchmark.baseline,
        ratio=median,
        low=low,
        high=high,
        aim=benchmark.aim,
    )


def measure_limit(limit: Limit) -> LimitResult:
    """Measure a limit on one thread; the first round is a warm-up and does not count."""
    with _torch_threads(1):
        measure_once = limit.set_up()
        _, *values = (measure_once() for _ in range(1 + limit.rounds))
    median, low, high = median_and_quartiles(values)
    return LimitResult(
        name=limit.name,
        work=limit.work,
        unit=limit.unit,
        value=median,
        low=low,
        high=high,
        aim=limit.aim,
    )


def alternate(ours: Timer, baseline: Timer, rounds: int) -> Iterator[float]:
    """Let two contenders take turns, starting with the baseline, and yield each round's ratio."""
    for index in range(rounds):
        if index % 2:
            our_seconds = ours()
            yield baseline() / our_seconds
        else:
            baseline_seconds = baseline()
            yield baseline_seconds / ours()


def time_calls(contender: Contender, calls: int = 1) -> float:
    """Return the seconds that `calls` calls take."""
    start = perf_counter()
    for _ in range(calls):
        contender()
    return perf_counter() - start


def median_and_quartiles(values: Iterable[float]) -> tuple[float, float, float]:
    """Return the median, the lower and the upper quartile, rounded to four digits.

    >>> median_and_quartiles([1.0, 2.0, 3.0])
    (2.0, 1.0, 3.0)
    """
    low, median, high = (round(quartile, 4) for quartile in quantiles(values, n=4))
    return median, low, high


def temporary_folder(prefix: str) -> Path:
    """Create a folder that is removed when the process exits."""
    folder = Path(mkdtemp(prefix=prefix))
    atexit.register(rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
