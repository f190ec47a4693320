"""A contender in its own process:
`python -m benchmarks.peers.worker CONTENDER VARIANT WORKLOAD THREADS`.

VARIANT names a dictionary in the contender's contenders.py. The worker sets the workload up, then
answers each line on standard input with a line of JSON: the seconds of a fit, its number of steps
and of parameters. Whatever the library prints goes to standard error.
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

from benchmarks.peers.workloads import PrepareFit


def serve(prepare_fit: PrepareFit, requests: IO[str], responses: IO[str]) -> None:
    """Fit a new model for each line of `requests`."""
    for _ in requests:
        fit = prepare_fit()
        start = perf_counter()
        stats = fit()
        seconds = perf_counter() - start
        responses.write(json.dumps({"seconds": seconds, **asdict(stats)}) + "\n")
        responses.flush()


def main(contender: str, variant: str, workload: str, threads: str) -> None:
    """Serve one variant of a contender's workload."""
    with os.fdopen(os.dup(1), "w") as responses:
        os.dup2(2, 1)
        torch.set_num_threads(int(threads))
        contenders = import_module(f"benchmarks.peers.{contender}.contenders")
        serve(getattr(contenders, variant)[workload](), sys.stdin, responses)


if __name__ == "__main__":
    main(*sys.argv[1:])
