"""What the command lines share: names that are asked for, and tables of what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.harness import Measured, Result
from mip.errors import MipError, hint

RATIOS = "times as fast as the anchor"
LIMITS = "what it takes, to stay under the aim"


def chosen_of(names: Sequence[str], benchmarks: Sequence[Any]) -> Sequence[Any]:
    """Find benchmarks by name or by area (`start` is all of `start-…`), all without names.

    Raises MipError for a name that is not known.
    """
    known = {each.name: [each] for each in benchmarks}
    areas = {name.split("-")[0] for name in known}
    by_area = {a: [each for each in benchmarks if each.name.startswith(f"{a}-")] for a in areas}
    for name in names:
        if name not in known | by_area:
            raise MipError(f"'{name}' is not a benchmark{hint(name, known)}")
    return [each for name in names for each in (by_area | known)[name]] or benchmarks


def listed(benchmarks: Sequence[Any]) -> str:
    """Give a line for each benchmark: its name and its work."""
    return "\n".join(f"{each.name:30}{each.work}" for each in benchmarks)


def told(
    word: str, about: str, asked: Sequence[Any], answer: Callable[[Any], Result | Measured]
) -> Iterator[Result | Measured]:
    """Print a table as its rows are found, and give them."""
    if asked:
        print(f"{about}: the median of the rounds and its quartiles")
        print(f"{'name':30}{word:>8}{'low':>10}{'high':>10}{'aim':>10}")
    for each in asked:
        found = answer(each)
        print(_row(found), flush=True)
        yield found


def _row(found: Result | Measured) -> str:
    value = found.ratio if isinstance(found, Result) else found.value
    numbers = "".join(f"{number:10.3f}" for number in (found.low, found.high, found.aim))
    return f"{found.name:30}{value:8.3f}{numbers} {getattr(found, 'unit', '')}".rstrip()
