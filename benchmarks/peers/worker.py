"""A contender in a process of its own:
`python -m benchmarks.peers.worker PEER FORM WORKLOAD THREADS`.

FORM names a dictionary in the peer's contenders.py. The worker prepares the workload, then answers
each line on standard input with a line of JSON: the seconds that a fit took, its steps and its
parameters. What the libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from time import perf_counter
from typing import IO

import torch
from attrs import asdict

from benchmarks.peers.workloads import Fresh


def serve(fresh: Fresh, requests: IO[str], answers: IO[str]) -> None:
    """Fit a new model for each line of `requests`."""
    for _ in requests:
        run = fresh()
        start = perf_counter()
        done = run()
        seconds = perf_counter() - start
        answers.write(json.dumps({"seconds": seconds, **asdict(done)}) + "\n")
        answers.flush()


def main(peer: str, form: str, workload: str, threads: str) -> None:
    """Serve a workload in one of a peer's forms."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        torch.set_num_threads(int(threads))
        contenders = import_module(f"benchmarks.peers.{peer}.contenders")
        serve(getattr(contenders, form)[workload](), sys.stdin, answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
