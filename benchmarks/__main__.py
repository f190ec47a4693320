"""Run benchmarks: `python -m benchmarks [--list] [NAME ...] [--json FILE]`."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from attrs import asdict

from benchmarks import imports, photos, pipe, train
from benchmarks.harness import Benchmark, Result, measure
from mip.errors import MipError, hint

BENCHMARKS = (*pipe.ALL, *photos.ALL, *train.ALL, *imports.ALL)


def main(
    arguments: Sequence[str] | None = None, benchmarks: Sequence[Benchmark] = BENCHMARKS
) -> int:
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


def _chosen(names: Sequence[str], benchmarks: Sequence[Benchmark]) -> Sequence[Benchmark]:
    known = {each.name: each for each in benchmarks}
    for name in names:
        if name not in known:
            raise MipError(f"'{name}' is not a benchmark{hint(name, known)}")
    return [known[name] for name in names] or benchmarks


def _run(chosen: Sequence[Benchmark], file: Path | None) -> None:
    print("times as fast as the anchor: the median of the rounds and its quartiles")
    print(f"{'name':22}{'ratio':>8}{'low':>8}{'high':>8}{'aim':>8}")
    results = []
    for benchmark in chosen:
        results.append(measure(benchmark))
        print(_row(results[-1]), flush=True)
    if file:
        file.write_text(json.dumps([asdict(each) for each in results], indent=2) + "\n")


def _row(result: Result) -> str:
    numbers = (result.ratio, result.low, result.high, result.aim)
    return f"{result.name:22}" + "".join(f"{number:8.3f}" for number in numbers)


if __name__ == "__main__":
    sys.exit(main())
