"""Imports: what a fresh interpreter pays."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.harness import Benchmark, Contender


def _importing(name: str) -> Contender:
    command = [sys.executable, "-c", f"import {name}"]
    return lambda: subprocess.run(command, check=True)


MIP = Benchmark(
    name="import-mip",
    work="import mip in a fresh interpreter",
    anchor="import torch in a fresh interpreter",
    aim=0.87,
    pair=lambda: (_importing("mip"), _importing("torch")),
    rounds=9,
)

ALL = (MIP,)
