"""Measure our training against that of other libraries, each in an environment of its own.

    python -m benchmarks.peers [NAME ...] [--json FILE] [--loops FILE --page PAGE]

FILE keeps the results: a name that is given is measured anew, and without names those that FILE
lacks are. Environments are made in build/peers, from the network, and removed at the end.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any

from attrs import asdict

from benchmarks.harness import Result
from benchmarks.peers.contest import ROOT, Contest, held
from benchmarks.peers.environment import made
from benchmarks.peers.page import page
from benchmarks.tell import RATIOS, chosen_of, listed, told
from mip.errors import MipError
from mip.output import write

CONTESTS = (
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


def measured(contest: Contest) -> Result:
    """Make the peer's environment and hold the contest."""
    return held(contest, made(contest.peer, ROOT / "build" / "peers" / contest.peer))


def main(
    arguments: Sequence[str] | None = None,
    contests: Sequence[Contest] = CONTESTS,
    measure: Callable[[Contest], Result] = measured,
) -> int:
    """Run the command line; gives the exit code: 0, or 2 for a mistake or a peer that fails."""
    asked = _parsed(arguments)
    try:
        chosen = chosen_of(asked.names, contests)
        print(listed(chosen)) if asked.list else _run(asked, chosen, measure)
    except MipError as error:
        print(f"benchmarks.peers: {error}", file=sys.stderr)
        return 2
    finally:
        if not (asked.keep or asked.list):
            for each in contests:
                rmtree(ROOT / "build" / "peers" / each.peer, ignore_errors=True)
    return 0


def _parsed(arguments: Sequence[str] | None) -> Namespace:
    given = {"description": __doc__, "formatter_class": RawDescriptionHelpFormatter}
    parser = ArgumentParser("python -m benchmarks.peers", **given)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to run")
    parser.add_argument("--list", action="store_true", help="list the names and run nothing")
    parser.add_argument("--keep", action="store_true", help="leave the environments")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the results here")
    parser.add_argument("--loops", type=Path, metavar="FILE", help="what `benchmarks` has found")
    parser.add_argument("--page", type=Path, metavar="PAGE", help="write the page about both")
    return parser.parse_args(arguments)


def _run(asked: Namespace, chosen: Sequence[Contest], measure: Callable[[Contest], Result]) -> None:
    known = {each["name"]: each for each in _read(asked.json)}
    left = [each for each in chosen if asked.names or each.name not in known]
    for found in told("ratio", RATIOS.replace("anchor", "peer"), left, measure):
        known[found.name] = asdict(found)
        if asked.json:
            write(
                asked.json,
                (json.dumps([*known.values()], indent=2) + "\n").encode(),
                overwrite=True,
            )
    if asked.page:
        write(asked.page, page(_read(asked.loops), [*known.values()]).encode(), overwrite=True)


def _read(file: Path | None) -> list[dict[str, Any]]:
    return json.loads(file.read_text()) if file and file.is_file() else []


if __name__ == "__main__":
    sys.exit(main())
