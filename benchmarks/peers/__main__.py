"""Compare our training with that of other libraries, each in its own environment.

    python -m benchmarks.peers [NAME ...] [--json FILE] [--loops FILE --page PAGE]

For each peer and workload there are two contests: one as in the peer's introductory tutorial, and
one as an expert would use it (NAME-expert). Results are kept in FILE. The given names are measured
again; without names, only those that FILE does not have yet are. Environments are created in
build/peers, which downloads packages, and removed at the end.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any

from attrs import asdict, evolve

from benchmarks.harness import Result
from benchmarks.peers.contest import ROOT, Contest, run_contest
from benchmarks.peers.environment import make_environment
from benchmarks.peers.page import page
from benchmarks.report import format_list, measure_all, select
from mip.errors import MipError
from mip.output import write

TUTORIALS = (
    Contest("fastai", "mlp"),
    Contest("lightning", "mlp"),
    Contest("skorch", "mlp"),
    Contest("keras", "mlp"),
    Contest("fastai", "table"),
    Contest("lightning", "table"),
    Contest("pytorch_widedeep", "table"),
    Contest("pytorch_frame", "table"),
    Contest("fastai", "mixed", rounds=5),
    Contest("pytorch_widedeep", "mixed", rounds=5),
)
CONTESTS = (*TUTORIALS, *(evolve(contest, expert=True) for contest in TUTORIALS))


def measure_contest(contest: Contest) -> Result:
    """Make the peer's environment and run the contest."""
    folder = ROOT / "build" / "peers" / contest.peer
    return run_contest(contest, make_environment(contest.peer, folder))


def main(
    arguments: Sequence[str] | None = None,
    contests: Sequence[Contest] = CONTESTS,
    measure: Callable[[Contest], Result] = measure_contest,
) -> int:
    """Run the command line and return its exit code: 0, or 2 for an error."""
    options = _parse(arguments)
    try:
        selected = select(options.names, contests)
        if options.list:
            print(format_list(selected))
        else:
            _run(options, selected, measure)
    except MipError as error:
        print(f"benchmarks.peers: {error}", file=sys.stderr)
        return 2
    finally:
        if not (options.keep or options.list):
            for contest in contests:
                rmtree(ROOT / "build" / "peers" / contest.peer, ignore_errors=True)
    return 0


def _parse(arguments: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(
        "python -m benchmarks.peers",
        description=__doc__,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to run")
    parser.add_argument("--list", action="store_true", help="list the names and run nothing")
    parser.add_argument("--keep", action="store_true", help="do not remove the environments")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the results in FILE")
    parser.add_argument("--loops", type=Path, metavar="FILE", help="results of `benchmarks`")
    parser.add_argument("--page", type=Path, metavar="PAGE", help="write both results to PAGE")
    return parser.parse_args(arguments)


def _run(
    options: Namespace, selected: Sequence[Contest], measure: Callable[[Contest], Result]
) -> None:
    results = {result["name"]: result for result in _read(options.json)}
    remaining = [contest for contest in selected if options.names or contest.name not in results]
    title = "times as fast as the peer"
    for result in measure_all(remaining, measure, title=title, column="ratio"):
        results[result.name] = asdict(result)
        if options.json:
            text = json.dumps([*results.values()], indent=2) + "\n"
            write(options.json, text.encode(), overwrite=True)
    if options.page:
        tutorials, experts = (
            [results[c.name] for c in CONTESTS if c.name in results and c.expert == expert]
            for expert in (False, True)
        )
        text = page(_read(options.loops), tutorials, experts)
        write(options.page, text.encode(), overwrite=True)


def _read(file: Path | None) -> list[dict[str, Any]]:
    return json.loads(file.read_text()) if file and file.is_file() else []


if __name__ == "__main__":
    sys.exit(main())
