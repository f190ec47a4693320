"""Run benchmarks: `python -m benchmarks [--list] [NAME ...] [--json FILE]`."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from attrs import asdict

from benchmarks import (
    forms,
    limits,
    many,
    mixed,
    once,
    photos,
    pipe,
    start,
    store,
    stream,
    table,
    train,
)
from benchmarks.harness import Benchmark, Limit, gauge, measure
from benchmarks.tell import LIMITS, RATIOS, chosen_of, listed, told
from mip.errors import MipError
from mip.output import write

Asked = Benchmark | Limit
RUN = (pipe, photos, stream, train, table, mixed, forms, many, store, limits, once, start)
BENCHMARKS = tuple(each for module in RUN for each in module.ALL)


def main(arguments: Sequence[str] | None = None, benchmarks: Sequence[Asked] = BENCHMARKS) -> int:
    """Run the command line; gives the exit code: 0, or 2 for a name that is not known."""
    asked = _parsed(arguments)
    try:
        chosen = chosen_of(asked.names, benchmarks)
    except MipError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    if asked.list:
        print(listed(chosen))
    else:
        _run(chosen, asked.json)
    return 0


def _parsed(arguments: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to run; all without")
    parser.add_argument("--list", action="store_true", help="list the names and run nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    return parser.parse_args(arguments)


def _run(chosen: Sequence[Asked], file: Path | None) -> None:
    ratios = [each for each in chosen if isinstance(each, Benchmark)]
    limits = [each for each in chosen if isinstance(each, Limit)]
    results = [*told("ratio", RATIOS, ratios, measure), *told("value", LIMITS, limits, gauge)]
    if file:
        write(
            file,
            (json.dumps([asdict(each) for each in results], indent=2) + "\n").encode(),
            overwrite=True,
        )


if __name__ == "__main__":
    sys.exit(main())
