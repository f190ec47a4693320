"""Checkpoints: how fast one is written, and how much of that time training has to wait."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any

import torch
from attrs import evolve
from safetensors.torch import save_file
from torch import Tensor, nn

import mip
from benchmarks.harness import Benchmark, Contender, Limit, temporary_folder, time_calls
from mip.files import save_checkpoint
from mip.train import Event, History, State, Step
from mip.tree import leaves


def _make_state() -> State:
    # 25 million parameters and twice as many moments of Adam: 302 MB.
    net = nn.Sequential(*[nn.Linear(1024, 1024) for _ in range(24)])
    return mip.init(net, mip.adamw(1e-3))


def _raw_write(state: State, path: Path) -> Contender:
    tensors = dict(leaves({"params": state.params, "optimizer": state.optimizer}))

    def write() -> None:
        save_file(tensors, path)
        with path.open("rb") as file:
            os.fsync(file.fileno())

    return write


def _pair() -> tuple[Contender, Contender]:
    state, folder = _make_state(), temporary_folder("mip-checkpoint-")
    file = folder / "ours.safetensors"
    ours = partial(save_checkpoint, file, state, History(), overwrite=True)
    return ours, _raw_write(state, folder / "raw.safetensors")


def _blocked_percentage() -> Callable[[], float]:
    state, folder = _make_state(), temporary_folder("mip-checkpoint-")
    write = _raw_write(state, folder / "raw.safetensors")

    def slow_step(state: State, batch: Tensor) -> tuple[State, dict[str, Any]]:
        sleep(2)  # longer than a write, so that no checkpoint waits for the one before
        return evolve(state, step=state.step + 1), {"loss": torch.zeros(())}

    def measure() -> float:
        save, blocked = mip.checkpoint(folder, every=1, overwrite=True), []

        def timed_save(event: Event) -> None:
            seconds = time_calls(lambda: save(event))
            if event.name == "after_batch":
                blocked.append(seconds)

        mip.fit(Step(slow_step), [torch.zeros(1)] * 2, state, steps=2, hooks=[timed_save])
        return 100 * blocked[1] / time_calls(write)

    return measure


WRITE = Benchmark(
    name="checkpoint-25m",
    work="save_checkpoint of 25 million parameters and Adam's moments: 302 MB, with a checksum",
    baseline="safetensors.torch.save_file of the same tensors, and fsync",
    aim=0.8,
    pair=_pair,
    rounds=15,
    seconds=0.0,
)

BLOCKED = Limit(
    name="checkpoint-blocked",
    work="how long a fit is blocked by its second checkpoint of the same state, in percent of the "
    "time of save_file and fsync",
    unit="%",
    aim=10.0,
    set_up=_blocked_percentage,
    rounds=5,
)

ALL = (WRITE, BLOCKED)
