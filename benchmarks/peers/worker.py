"""A contender in a process of its own: `python -m benchmarks.peers.worker PEER WORKLOAD THREADS`.

It lays its work out, then answers each line on standard input with one of JSON: the seconds that
a fit has taken, its steps and its parameters. What the libraries print goes to standard error.
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


def serve(fresh: Fresh, asked: IO[str], answers: IO[str]) -> None:
    """Do the work once for each line that is asked."""
    for _ in asked:
        run = fresh()
        start = perf_counter()
        done = run()
        seconds = perf_counter() - start
        answers.write(json.dumps({"seconds": seconds, **asdict(done)}) + "\n")
        answers.flush()


def main(peer: str, workload: str, threads: str) -> None:
    """Serve a peer's workload."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        torch.set_num_threads(int(threads))
        contenders = import_module(f"benchmarks.peers.{peer}.contenders")
        serve(contenders.WORKLOADS[workload](), sys.stdin, answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
