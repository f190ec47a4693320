"""Run benchmarks: `python -m benchmarks [--list] [NAME ...] [--json FILE]`."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from attrs import asdict

from benchmarks import imports, limits, many, photos, pipe, store, stream, train
from benchmarks.harness import Benchmark, Limit, Measured, Result, gauge, measure
from mip.errors import MipError, hint

Asked = Benchmark | Limit
RATIOS = "times as fast as the anchor"
LIMITS = "what it takes, to stay under the aim"
RUN = (pipe, photos, stream, train, many, store, imports, limits)
BENCHMARKS = tuple(each for module in RUN for each in module.ALL)


def main(arguments: Sequence[str] | None = None, benchmarks: Sequence[Asked] = BENCHMARKS) -> int:
    """Run the command line; gives the exit code: 0, or 2 for a name that is not known."""
    asked = _parsed(arguments)
    try:
        chosen = _chosen(asked.names, benchmarks)
    except MipError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    if asked.list:
        print("\n".join(f"{each.name:22}{each.work}" for each in chosen))
    else:
        _run(chosen, asked.json)
    return 0


def _parsed(arguments: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to run; all without")
    parser.add_argument("--list", action="store_true", help="list the names and run nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    return parser.parse_args(arguments)


def _chosen(names: Sequence[str], benchmarks: Sequence[Asked]) -> Sequence[Asked]:
    known = {each.name: each for each in benchmarks}
    for name in names:
        if name not in known:
            raise MipError(f"'{name}' is not a benchmark{hint(name, known)}")
    return [known[name] for name in names] or benchmarks


def _run(chosen: Sequence[Asked], file: Path | None) -> None:
    ratios = [each for each in chosen if isinstance(each, Benchmark)]
    limits = [each for each in chosen if isinstance(each, Limit)]
    results = [*_told("ratio", RATIOS, ratios, measure), *_told("value", LIMITS, limits, gauge)]
    if file:
        file.write_text(json.dumps([asdict(each) for each in results], indent=2) + "\n")


def _told(
    word: str, about: str, asked: Sequence[Any], answer: Callable[[Any], Result | Measured]
) -> Iterator[Result | Measured]:
    if asked:
        print(f"{about}: the median of the rounds and its quartiles")
        print(f"{'name':22}{word:>10}{'low':>10}{'high':>10}{'aim':>10}")
    for each in asked:
        found = answer(each)
        print(_row(found), flush=True)
        yield found


def _row(found: Result | Measured) -> str:
    middle = found.ratio if isinstance(found, Result) else found.value
    numbers = "".join(f"{number:10.3f}" for number in (middle, found.low, found.high, found.aim))
    return f"{found.name:22}{numbers} {getattr(found, 'unit', '')}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
