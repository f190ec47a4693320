"""Run benchmarks: `python -m benchmarks [--list] [NAME ...] [--json FILE]`."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from attrs import asdict

from benchmarks import (
    checkpoint,
    engines,
    fingerprint,
    large_table,
    mixed,
    overhead,
    parallel,
    photos,
    pipe,
    pipe_limits,
    start,
    stream,
    table,
    train,
)
from benchmarks.harness import Benchmark, Limit, measure_limit, measure_ratio
from benchmarks.report import format_list, measure_all, select
from mip.errors import MipError
from mip.output import write

MODULES = (
    pipe,
    photos,
    stream,
    train,
    table,
    mixed,
    engines,
    parallel,
    checkpoint,
    pipe_limits,
    overhead,
    fingerprint,
    start,
    large_table,
)
BENCHMARKS = tuple(benchmark for module in MODULES for benchmark in module.ALL)


def main(
    arguments: Sequence[str] | None = None, benchmarks: Sequence[Benchmark | Limit] = BENCHMARKS
) -> int:
    """Run the command line and return its exit code: 0, or 2 for an unknown name."""
    options = _parse(arguments)
    try:
        selected = select(options.names, benchmarks)
    except MipError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    if options.list:
        print(format_list(selected))
    else:
        _run(selected, options.json)
    return 0


def _parse(arguments: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to run; default: all")
    parser.add_argument("--list", action="store_true", help="list the names and run nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE")
    return parser.parse_args(arguments)


def _run(selected: Sequence[Benchmark | Limit], file: Path | None) -> None:
    ratios = [benchmark for benchmark in selected if isinstance(benchmark, Benchmark)]
    limits = [benchmark for benchmark in selected if isinstance(benchmark, Limit)]
    results = [
        *measure_all(ratios, measure_ratio, title="times as fast as the baseline", column="ratio"),
        *measure_all(limits, measure_limit, title="costs, at most the aim", column="value"),
    ]
    if file:
        text = json.dumps([asdict(result) for result in results], indent=2) + "\n"
        write(file, text.encode(), overwrite=True)


if __name__ == "__main__":
    sys.exit(main())
