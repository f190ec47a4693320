"""A contest: our training and a peer's, in processes that take turns."""

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

from benchmarks.harness import Result, alternate, median_and_quartiles
from benchmarks.peers.workloads import DESCRIPTIONS, FitStats
from mip.errors import MipError

ROOT = Path(__file__).parents[2]
LOGS = ROOT / "build" / "peers"

EXPERT_VARIANTS = {"EXPERT": "eager", "COMPILED": "compiled"}
"""An expert's dictionaries in a contenders.py, and their labels in results."""

TRIALS = 3
"""The number of fits from which the faster variant of a contender is chosen."""

Worker = Callable[[], tuple[float, FitStats]]
"""Requests a fit from a process; returns its seconds and its statistics."""


@frozen
class Contest:
    """Our training of a workload against a peer's.

    Each trains as in the peer's introductory tutorial or, with `expert`, as an expert would. An
    expert may compile: eager and compiled variants of both are tried, and the faster one of each
    counts.
    """

    peer: str
    workload: str
    rounds: int = 7
    threads: int = 1
    expert: bool = False

    @property
    def name(self) -> str:
        """The name of the peer's package, the workload and, for experts, "expert"."""
        return f"{self.peer.replace('_', '-')}-{self.workload}{'-expert' * self.expert}"

    @property
    def work(self) -> str:
        """A description of the workload."""
        return DESCRIPTIONS[self.workload]

    @property
    def aim(self) -> float:
        """The ratio that we want to reach."""
        return 1.2 if self.expert else 1.0

    @property
    def variants(self) -> tuple[str, ...]:
        """The dictionaries in a contenders.py from which each contender is taken."""
        return tuple(EXPERT_VARIANTS) if self.expert else ("TUTORIAL",)


def run_contest(contest: Contest, python: Path) -> Result:
    """Measure how many times as fast we train as the peer, which `python` can import.

    Raises MipError if the contenders do not do the same work.
    """
    with ExitStack() as stack:
        ours, theirs = (
            {
                variant: stack.enter_context(worker(executable, contender, variant, contest))
                for variant in contest.variants
            }
            for executable, contender in (
                (Path(sys.executable), "ours"),
                (python, contest.peer),
            )
        )
        first, *others = [fit()[1] for fit in (*ours.values(), *theirs.values())]  # warms up
        for stats in others:
            _check_same_work(contest, first, stats)
        our_variant, their_variant = _faster_variant(ours), _faster_variant(theirs)
        timers = (lambda: ours[our_variant]()[0]), (lambda: theirs[their_variant]()[0])
        ratio, low, high = median_and_quartiles(alternate(*timers, contest.rounds))
    work, baseline = contest.work, contest.peer
    if contest.expert:
        work = f"{contest.workload}, {EXPERT_VARIANTS[our_variant]}"
        baseline = f"{contest.peer.replace('_', '-')}, {EXPERT_VARIANTS[their_variant]}"
    return Result(
        name=contest.name,
        work=work,
        baseline=baseline,
        ratio=ratio,
        low=low,
        high=high,
        aim=contest.aim,
    )


def _check_same_work(contest: Contest, ours: FitStats, other: FitStats) -> None:
    # One peer shares the embedding of unseen categories between all columns.
    same_size = isclose(ours.parameters, other.parameters, rel_tol=0.01)
    if ours.steps != other.steps or not same_size:
        raise MipError(f"{contest.name}: not the same work: expected {ours}, got {other}")


def _faster_variant(workers: Mapping[str, Worker]) -> str:
    if len(workers) == 1:
        return next(iter(workers))
    seconds = {variant: median(fit()[0] for _ in range(TRIALS)) for variant, fit in workers.items()}
    return min(seconds, key=seconds.__getitem__)


@contextmanager
def worker(python: Path, contender: str, variant: str, contest: Contest) -> Iterator[Worker]:
    """Start a worker process, and end it on exit.

    Raises MipError with the end of its log if the process fails.
    """
    command = [python, "-m", "benchmarks.peers.worker", contender, variant]
    command += [contest.workload, contest.threads]
    log = LOGS / f"{contest.name}-{contender}-{variant.lower()}.log"
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
        yield lambda: _request_fit(process, log)


def _request_fit(process: subprocess.Popen, log: Path) -> tuple[float, FitStats]:
    with suppress(BrokenPipeError):
        process.stdin.write(b"fit\n")
    line = process.stdout.readline()
    if not line:
        process.wait()  # its traceback may be written after its standard output is closed
        raise MipError(f"{log}: the worker failed: {log.read_text()[-1000:]}")
    response = json.loads(line)
    return response["seconds"], FitStats(response["steps"], response["parameters"])
