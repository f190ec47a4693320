"""Other gradient engines: compiled steps, and steps that train many models at once."""

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
from torch.nn.functional import cross_entropy, mse_loss

import mip
from benchmarks import by_hand, mixed, train
from benchmarks.harness import Benchmark, Contender, Limit
from mip.optim import stack_optimizers
from mip.train import compiled, stack, vmapped

N_MODELS, BATCH_SIZE, STEPS = 16, 16, 50


def _compiled_pair() -> tuple[Contender, Contender]:
    columns = train.random_digits()
    loop = by_hand.make_loop(
        train.build_mlp(), by_hand.FUSED_ADAM, cross_entropy, columns, train.BATCH_SIZE
    )
    return train.make_fit(columns, compiled), loop


def _small_mlp(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    first, second, last = nn.Linear(20, 64), nn.Linear(64, 64), nn.Linear(64, 1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last, nn.Flatten(0))


def _stacked_pair() -> tuple[Contender, Contender]:
    nets, optimizers = [_small_mlp(seed) for seed in range(N_MODELS)], [mip.adam()] * N_MODELS
    states = [mip.init(net, adam) for net, adam in zip(nets, optimizers, strict=True)]
    steps = [
        mip.train_step(net, mse_loss, adam) for net, adam in zip(nets, optimizers, strict=True)
    ]
    stacked_step = mip.train_step(
        nets[0], mse_loss, stack_optimizers(optimizers), gradient_engine=vmapped
    )
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(BATCH_SIZE * STEPS, 20, generator=generator)
    batches, stacked_state = mip.batch(BATCH_SIZE)((inputs, inputs.sum(1))), stack(states)
    separate = list(zip(steps, states, strict=True))
    return (
        lambda: mip.fit(stacked_step, batches, stacked_state, epochs=1),
        lambda: [mip.fit(step, batches, state, epochs=1) for step, state in separate],
    )


MLP = Benchmark(
    name="train-mlp-compiled",
    work="fit the MLP 784-100-100-100-10, batch size 64, with a step that is already compiled",
    baseline="the hand-written loop, not compiled, torch.optim.Adam(fused=True)",
    aim=1.2,
    pair=_compiled_pair,
)

MIXED = evolve(
    mixed.MIXED,
    name="train-mixed-compiled",
    work="the fit of train-mixed with compile = true in its spec, already compiled",
    baseline="the hand-written loop, not compiled, torch.optim.AdamW(fused=True)",
    aim=1.2,
    pair=partial(mixed.make_pair, compiled=True),
)

STACKED = Benchmark(
    name="train-stacked",
    work=f"fit {N_MODELS} MLPs 20-64-64-1 as one stack: batch size {BATCH_SIZE}, {STEPS} steps, "
    "a fused Adam for each",
    baseline="the same fits one after another",
    aim=1.4,
    pair=_stacked_pair,
)


SCRIPT = """
import sys
from time import perf_counter
from benchmarks import {module}
from mip.train import compiled
work = {work}
start = perf_counter()
work()
print(perf_counter() - start)
"""


def _time_compilation(module: str, work: str) -> Callable[[], float]:
    command = [sys.executable, "-c", SCRIPT.format(module=module, work=work)]

    def measure() -> float:
        with TemporaryDirectory(prefix="mip-compile-") as cache:
            env = {**environ, "TORCHINDUCTOR_CACHE_DIR": cache}
            done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
        return float(done.stdout)

    return measure


COMPILE = Limit(
    name="compile-mlp",
    work="the first fit of train-mlp-compiled in a new process with an empty cache, which compiles",
    unit="s",
    aim=60,
    set_up=partial(_time_compilation, "train", "train.make_fit(train.random_digits(), compiled)"),
    rounds=2,
)

COMPILE_MIXED = evolve(
    COMPILE,
    name="compile-mixed",
    work="the first fit of train-mixed-compiled in a new process with an empty cache, which "
    "compiles",
    aim=120,
    set_up=partial(_time_compilation, "mixed", "mixed.make_fit(compiled=True)"),
)

ALL = (MLP, MIXED, STACKED, COMPILE, COMPILE_MIXED)
