"""Checkpoints: how fast one is written, and for how much of that time training waits."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import torch
from attrs import evolve
from safetensors.torch import save_file
from torch import nn

import mip
from benchmarks.harness import Benchmark, Contender, Limit, scratch
from mip.files import save_checkpoint
from mip.train import Event, History, State, Step
from mip.tree import leaves


def _state() -> State:
    # 25 million parameters, and as many numbers twice for Adam's moments: 302 MB.
    net = nn.Sequential(*[nn.Linear(1024, 1024) for _ in range(24)])
    return mip.init(net, mip.adamw(1e-3))


def _raw(state: State, path: Path) -> Contender:
    tensors = dict(leaves({"params": state.params, "optimizer": state.optimizer}))

    def write() -> None:
        save_file(tensors, path)
        with path.open("rb") as file:
            os.fsync(file.fileno())

    return write


def _pair() -> tuple[Contender, Contender]:
    state, folder = _state(), scratch("mip-checkpoint-")
    file = folder / "ours.safetensors"
    ours = partial(save_checkpoint, file, state, History(), overwrite=True)
    return ours, _raw(state, folder / "raw.safetensors")


def _seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def _waited() -> Callable[[], float]:
    state, folder = _state(), scratch("mip-checkpoint-")
    raw = _raw(state, folder / "raw.safetensors")

    def slow(state: State, batch: Any) -> tuple[State, dict[str, Any]]:
        sleep(2)  # longer than a write takes, so that none is waited for
        return evolve(state, step=state.step + 1), {"loss": torch.zeros(())}

    def measured() -> float:
        keep, told = mip.checkpoint(folder, every=1, overwrite=True), []

        def timed(event: Event) -> None:
            seconds = _seconds(lambda: keep(event))
            told.extend([seconds] if event.name == "after_batch" else [])

        mip.fit(Step(slow), [torch.zeros(1)] * 2, state, steps=2, hooks=[timed])
        return 100 * told[1] / _seconds(raw)

    return measured


WRITE = Benchmark(
    name="checkpoint-25m",
    work="save_checkpoint of 25 million parameters and Adam's moments: 302 MB, with its checksum",
    anchor="safetensors.torch.save_file of the same tensors, and fsync",
    aim=0.8,
    pair=_pair,
    rounds=15,
    seconds=0.0,
)

WAITED = Limit(
    name="checkpoint-blocked",
    work="what a fit waits for its second checkpoint of the same state, of the time of save_file",
    unit="%",
    aim=10.0,
    lay=_waited,
    rounds=5,
)

ALL = (WRITE, WAITED)
