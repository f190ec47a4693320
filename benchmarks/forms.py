"""The other forms of a step: compiled, and of many models at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from os import environ
from tempfile import TemporaryDirectory

import torch
from attrs import evolve
from torch import nn
from torch.nn.functional import mse_loss

import mip
from benchmarks import by_hand, mixed, train
from benchmarks.harness import Benchmark, Contender, Limit
from mip.optim import stack_optimizers
from mip.train import compiled, stack, vmapped

MODELS, BATCH, STEPS = 16, 16, 50


def _mlps() -> tuple[Contender, Contender]:
    drawn = train.rows()
    anchor = by_hand.loop(
        train.mlp(), by_hand.FUSED, torch.nn.functional.cross_entropy, drawn, train.BATCH
    )
    return train.fitted(drawn, compiled), anchor


def _small(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    first, second, last = nn.Linear(20, 64), nn.Linear(64, 64), nn.Linear(64, 1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last, nn.Flatten(0))


def _stacks() -> tuple[Contender, Contender]:
    nets, optimizers = [_small(k) for k in range(MODELS)], [mip.adam()] * MODELS
    states = [mip.init(net, one) for net, one in zip(nets, optimizers, strict=True)]
    alone = [mip.train_step(net, mse_loss, one) for net, one in zip(nets, optimizers, strict=True)]
    together = mip.train_step(
        nets[0], mse_loss, stack_optimizers(optimizers), gradient_engine=vmapped
    )
    draws = torch.Generator().manual_seed(0)
    inputs = torch.randn(BATCH * STEPS, 20, generator=draws)
    batches, start = mip.batch(BATCH)((inputs, inputs.sum(1))), stack(states)
    each = list(zip(alone, states, strict=True))
    return (
        lambda: mip.fit(together, batches, start, epochs=1),
        lambda: [mip.fit(step, batches, state, epochs=1) for step, state in each],
    )


MLP = Benchmark(
    name="train-mlp-compiled",
    work="the fit of the MLP 784-100-100-100-10, batch 64, by a compiled step, compiled before",
    anchor="the loop by hand, not compiled, torch.optim.Adam(fused=True)",
    aim=1.2,
    pair=_mlps,
)

MIXED = evolve(
    mixed.MIXED,
    name="train-mixed-compiled",
    work="the fit of train-mixed with compile = true in its spec, compiled before",
    anchor="the loop by hand, not compiled, torch.optim.AdamW(fused=True)",
    aim=1.2,
    pair=partial(mixed.pair, compiled=True),
)

STACKED = Benchmark(
    name="train-stacked",
    work=f"{MODELS} MLPs 20-64-64-1 as one stack, batch {BATCH}, {STEPS} steps, fused Adam each",
    anchor="the same fits one after another",
    aim=1.4,
    pair=_stacks,
)


FIRST = """
import sys
from time import perf_counter
from benchmarks import {module}
from mip.train import compiled
work = {work}
start = perf_counter()
work()
print(perf_counter() - start)
"""


def _compiling(module: str, work: str) -> Callable[[], float]:
    script = FIRST.format(module=module, work=work)

    def measured() -> float:
        with TemporaryDirectory(prefix="mip-compile-") as folder:  # a cache with nothing in it
            known = {**environ, "TORCHINDUCTOR_CACHE_DIR": folder}
            command = [sys.executable, "-c", script]
            run = subprocess.run(command, env=known, check=True, capture_output=True, text=True)
        return float(run.stdout)

    return measured


COMPILE = Limit(
    name="compile-mlp",
    work="the first fit of train-mlp-compiled in a fresh process, nothing cached: it compiles",
    unit="s",
    aim=60,
    lay=lambda: _compiling("train", "train.fitted(train.rows(), compiled)"),
    rounds=2,
)

COMPILE_MIXED = evolve(
    COMPILE,
    name="compile-mixed",
    work="the first fit of train-mixed-compiled in a fresh process, nothing cached: it compiles",
    aim=120,
    lay=lambda: _compiling("mixed", "mixed.fitted(compiled=True)"),
)

ALL = (MLP, MIXED, STACKED, COMPILE, COMPILE_MIXED)
