"""What both command lines share: the selection of benchmarks by name, and tables of results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from benchmarks.harness import LimitResult, Result
from mip.errors import MipError, hint


class Listed(Protocol):
    """A benchmark, a limit or a contest: it has a name and a description of its work."""

    @property
    def name(self) -> str:
        """Its name, which begins with its area, for instance `start-help`."""

    @property
    def work(self) -> str:
        """A description of its work."""


Item = TypeVar("Item", bound=Listed)


def select(names: Sequence[str], benchmarks: Sequence[Item]) -> Sequence[Item]:
    """Return the benchmarks with these names, or all of them if there are no names.

    The name of an area selects the whole area: `start` means all of `start-…`. Raises MipError for
    an unknown name.
    """
    by_name = {benchmark.name: [benchmark] for benchmark in benchmarks}
    by_area: dict[str, list[Item]] = {}
    for benchmark in benchmarks:
        by_area.setdefault(benchmark.name.split("-")[0], []).append(benchmark)
    groups = by_area | by_name
    for name in names:
        if name not in groups:
            raise MipError(f"'{name}' is not a benchmark{hint(name, by_name)}")
    return [benchmark for name in names for benchmark in groups[name]] or benchmarks


def format_list(benchmarks: Sequence[Listed]) -> str:
    """Write a line with the name and the work of each benchmark."""
    return "\n".join(f"{benchmark.name:30}{benchmark.work}" for benchmark in benchmarks)


def measure_all(
    benchmarks: Sequence[Item],
    measure: Callable[[Item], Result | LimitResult],
    *,
    title: str,
    column: str,
) -> Iterator[Result | LimitResult]:
    """Measure benchmarks one after another, print a table row as soon as each is done, and yield
    its result.
    """
    if benchmarks:
        print(f"{title}: median of the rounds and quartiles")
        print(f"{'name':30}{column:>8}{'low':>10}{'high':>10}{'aim':>10}")
    for benchmark in benchmarks:
        result = measure(benchmark)
        value, unit = (
            (result.ratio, "") if isinstance(result, Result) else (result.value, result.unit)
        )
        row = f"{result.name:30}{value:8.3f}{result.low:10.3f}{result.high:10.3f}{result.aim:10.3f}"
        print(f"{row} {unit}".rstrip(), flush=True)
        yield result
