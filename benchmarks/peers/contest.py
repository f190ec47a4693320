"""Two workers that take turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import isclose
from pathlib import Path

from attrs import frozen

from benchmarks.harness import Result, middle, turns
from benchmarks.peers.workloads import TEXTS, Done
from mip.errors import MipError

ROOT = Path(__file__).parents[2]
LOGS = ROOT / "build" / "peers"

Worker = Callable[[], tuple[float, Done]]
"""Asks a process for one fit: its seconds, and what it has done."""


@frozen
class Contest:
    """Our training of a workload against a peer's, each in a process of its own."""

    peer: str
    workload: str
    rounds: int = 7
    threads: int = 1

    @property
    def name(self) -> str:
        """The peer as its package is called, and the workload."""
        return f"{self.peer.replace('_', '-')}-{self.workload}"

    @property
    def work(self) -> str:
        """What is trained."""
        return TEXTS[self.workload]


def held(contest: Contest, python: Path) -> Result:
    """Hold a contest: how many times as fast as the peer, whose libraries `python` has.

    Raises MipError where the two have not done the same work.
    """
    with (
        worker(Path(sys.executable), "ours", contest) as ours,
        worker(python, contest.peer, contest) as other,
    ):
        _check(contest, ours()[1], other()[1])  # the first call also warms up
        ratios = list(turns(lambda: ours()[0], lambda: other()[0], contest.rounds))
    return Result(contest.name, contest.work, contest.peer, *middle(ratios), 1.0)


def _check(contest: Contest, ours: Done, other: Done) -> None:
    # One of them shares the row of unseen words between all columns.
    same = isclose(ours.parameters, other.parameters, rel_tol=0.01)
    if ours.steps != other.steps or not same:
        raise MipError(f"{contest.name}: not the same work: {ours} here, {other} there")


@contextmanager
def worker(python: Path, peer: str, contest: Contest) -> Iterator[Worker]:
    """Start a worker, and end it. Raises MipError with the end of its log where it fails."""
    command = [python, "-m", "benchmarks.peers.worker", peer, contest.workload, contest.threads]
    log = LOGS / f"{contest.name}-{peer}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    given = {**os.environ, "OMP_NUM_THREADS": str(contest.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
    with (
        log.open("w") as errors,
        subprocess.Popen([*map(str, command)], cwd=ROOT, env=given, stderr=errors, **pipes) as one,
    ):
        yield lambda: _asked(one, log)


def _asked(process: subprocess.Popen, log: Path) -> tuple[float, Done]:
    with suppress(BrokenPipeError):
        process.stdin.write(b"run\n")
    line = process.stdout.readline()
    if not line:
        process.wait()  # which may write its last words after its answers have ended
        raise MipError(f"{log}: the worker has ended: {log.read_text()[-1000:]}")
    told = json.loads(line)
    return told["seconds"], Done(told["steps"], told["parameters"])
