"""A contest: our training against a peer's, in processes that take turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from math import isclose
from pathlib import Path
from statistics import median

from attrs import frozen

from benchmarks.harness import Result, middle, turns
from benchmarks.peers.workloads import TEXTS, Done
from mip.errors import MipError

ROOT = Path(__file__).parents[2]
LOGS = ROOT / "build" / "peers"

FORMS = {"EXPERT": "eager", "COMPILED": "compiled"}
"""An expert's dictionaries in a contenders.py, and what they are called in results."""

TRIALS = 3
"""The number of fits that decide which form of a contender counts."""

Worker = Callable[[], tuple[float, Done]]
"""Asks a process for one fit; returns its seconds, and what it has done."""


@frozen
class Contest:
    """Our training of a workload against a peer's.

    Each trains as in the peer's first tutorial, or with `expert` as its expert would. Experts may
    compile or not: both forms of both contenders are tried, and the faster of each counts.
    """

    peer: str
    workload: str
    rounds: int = 7
    threads: int = 1
    expert: bool = False

    @property
    def name(self) -> str:
        """The name of the peer's package, the workload, and "expert" if it is that."""
        return f"{self.peer.replace('_', '-')}-{self.workload}{'-expert' * self.expert}"

    @property
    def work(self) -> str:
        """What is trained."""
        return TEXTS[self.workload]

    @property
    def aim(self) -> float:
        """The ratio that we want to reach."""
        return 1.2 if self.expert else 1.0

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms in which each contender trains."""
        return tuple(FORMS) if self.expert else ("WORKLOADS",)


def run_contest(contest: Contest, python: Path) -> Result:
    """Measure how many times as fast as the peer, which `python` can import, we train.

    Raises MipError if not all have done the same work.
    """
    with ExitStack() as stack:
        ours, theirs = (
            {
                form: stack.enter_context(worker(python, contender, form, contest))
                for form in contest.forms
            }
            for python, contender in ((Path(sys.executable), "ours"), (python, contest.peer))
        )
        first, *others = [run()[1] for run in (*ours.values(), *theirs.values())]  # warms up
        for done in others:
            _check(contest, first, done)
        ours_form, their_form = _faster(ours), _faster(theirs)
        clocks = (lambda: ours[ours_form]()[0]), (lambda: theirs[their_form]()[0])
        ratios = list(turns(*clocks, contest.rounds))
    work, anchor = contest.work, contest.peer
    if contest.expert:
        work = f"{contest.workload}, {FORMS[ours_form]}"
        anchor = f"{contest.peer.replace('_', '-')}, {FORMS[their_form]}"
    return Result(contest.name, work, anchor, *middle(ratios), contest.aim)


def _check(contest: Contest, ours: Done, other: Done) -> None:
    # One of them shares the row of unseen words between all columns.
    same = isclose(ours.parameters, other.parameters, rel_tol=0.01)
    if ours.steps != other.steps or not same:
        raise MipError(f"{contest.name}: not the same work: {ours} here, {other} there")


def _faster(workers: Mapping[str, Worker]) -> str:
    if len(workers) == 1:
        return next(iter(workers))
    seconds = {form: median(run()[0] for _ in range(TRIALS)) for form, run in workers.items()}
    return min(seconds, key=seconds.__getitem__)


@contextmanager
def worker(python: Path, peer: str, form: str, contest: Contest) -> Iterator[Worker]:
    """Start a worker, and end it. Raises MipError with the end of its log if it fails."""
    command = [python, "-m", "benchmarks.peers.worker", peer, form]
    command += [contest.workload, contest.threads]
    log = LOGS / f"{contest.name}-{peer}-{form.lower()}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "OMP_NUM_THREADS": str(contest.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [*map(str, command)],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=0,
        ) as process,
    ):
        yield lambda: _request(process, log)


def _request(process: subprocess.Popen, log: Path) -> tuple[float, Done]:
    with suppress(BrokenPipeError):
        process.stdin.write(b"run\n")
    line = process.stdout.readline()
    if not line:
        process.wait()  # it may write its last words after its answers have ended
        raise MipError(f"{log}: the worker has ended: {log.read_text()[-1000:]}")
    answer = json.loads(line)
    return answer["seconds"], Done(answer["steps"], answer["parameters"])
