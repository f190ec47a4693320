"""Two contenders, measured in turns: how many times as fast is ours as the anchor?

A round measures one and then the other, and every second round the other way about, so that
a machine that grows slower or faster meanwhile troubles both alike. A round's ratio is the
anchor's time divided by ours. The result is the median of the rounds' ratios; `low` and `high`
are their quartiles.
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
"""A piece of work without arguments; its answer is not looked at."""

Clock = Callable[[], float]
"""Does a piece of work and gives the seconds that it took."""


@frozen
class Benchmark:
    """A question of speed.

    `pair` lays out the work and gives (ours, anchor). `aim` is the ratio hoped for; it is
    reported and enforces nothing. `threads` is torch's number of threads, `rounds` the number of
    rounds and `seconds` the least time that one measurement of the anchor takes.
    """

    name: str
    work: str
    anchor: str
    aim: float
    pair: Callable[[], tuple[Contender, Contender]]
    threads: int = field(default=1, validator=gt(0))
    rounds: int = field(default=41, validator=ge(2))
    seconds: float = field(default=0.1, validator=ge(0))


@frozen
class Result:
    """How many times as fast as the anchor: the median of the rounds and its quartiles."""

    name: str
    work: str
    anchor: str
    ratio: float
    low: float
    high: float
    aim: float


@frozen
class Limit:
    """A question of size: how many milliseconds or megabytes, and how many at most are hoped for.

    `lay` lays out the work and gives a function that does it once and gives the number. `aim` is
    reported and enforces nothing.
    """

    name: str
    work: str
    unit: str
    aim: float
    lay: Callable[[], Callable[[], float]]
    rounds: int = field(default=9, validator=ge(2))


@frozen
class Measured:
    """A number with its unit: the median of the rounds and its quartiles."""

    name: str
    work: str
    unit: str
    value: float
    low: float
    high: float
    aim: float


def measure(benchmark: Benchmark) -> Result:
    """Run a benchmark, which takes about `2 * rounds * seconds` seconds."""
    with _threads(benchmark.threads):
        ratios = list(_ratios(benchmark))
    about = benchmark.name, benchmark.work, benchmark.anchor
    return Result(*about, *middle(ratios), benchmark.aim)


def middle(numbers: Iterable[float]) -> tuple[float, float, float]:
    """Give the median and the lower and upper quartile.

    >>> middle([1.0, 2.0, 3.0])
    (2.0, 1.0, 3.0)
    """
    low, median, high = (round(each, 4) for each in quantiles(numbers, n=4))
    return median, low, high


def gauge(limit: Limit) -> Measured:
    """Measure a limit on one thread; the first round warms up and is left out."""
    with _threads(1):
        work = limit.lay()
        _, *numbers = (work() for _ in range(1 + limit.rounds))
    return Measured(limit.name, limit.work, limit.unit, *middle(numbers), limit.aim)


def _ratios(benchmark: Benchmark) -> Iterator[float]:
    ours, anchor = benchmark.pair()
    for contender in (ours, anchor):
        contender()  # the first call also warms caches and allocators
    calls = ceil(benchmark.seconds / _timed(anchor, 1)) or 1
    clocks = partial(_timed, ours, calls), partial(_timed, anchor, calls)
    yield from turns(*clocks, benchmark.rounds)


def turns(ours: Clock, anchor: Clock, rounds: int) -> Iterator[float]:
    """Let two contenders take turns, the anchor first, and give each round's ratio."""
    for turn in range(rounds):
        if turn % 2:
            own = ours()
            yield anchor() / own
        else:
            other = anchor()
            yield other / ours()


def _timed(contender: Contender, calls: int) -> float:
    start = perf_counter()
    for _ in range(calls):
        contender()
    return perf_counter() - start


def scratch(prefix: str) -> Path:
    """Make a folder that is removed when the process ends."""
    folder = Path(mkdtemp(prefix=prefix))
    atexit.register(rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
