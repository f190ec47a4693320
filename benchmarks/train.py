"""Training: the step and the fit around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from timeit import timeit

import torch
from attrs import evolve
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

import mip
from benchmarks.harness import Benchmark, Contender, Limit, scratch
from mip.fit import Hook

BATCH, STEPS, RATE = 64, 200, 1e-3


def _mlp() -> nn.Module:
    torch.manual_seed(0)
    first, second, third = nn.Linear(784, 100), nn.Linear(100, 100), nn.Linear(100, 100)
    last = nn.Linear(100, 10)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third, nn.ReLU(), last)


def _rows() -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    inputs = torch.randn(BATCH * STEPS, 784, generator=draws)
    return inputs, torch.randint(0, 10, (BATCH * STEPS,), generator=draws)


def _fitted(rows: tuple[Tensor, Tensor]) -> Contender:
    net, optimizer = _mlp(), mip.adam(RATE)
    step, state = mip.train_step(net, cross_entropy, optimizer), mip.init(net, optimizer)
    batches = mip.batch(BATCH)(mip.sample(shuffle=True)(rows))
    return lambda: mip.fit(step, batches, state, epochs=1)


def _by_hand(rows: tuple[Tensor, Tensor]) -> Contender:
    (inputs, labels), start = rows, _mlp()

    def run() -> None:
        # Both train anew in each call: weights that converge would change what a step costs.
        net = deepcopy(start)
        optimizer = torch.optim.Adam(net.parameters(), lr=RATE, fused=True)
        order = torch.randperm(len(inputs))
        for begin in range(0, len(inputs), BATCH):
            index = order[begin : begin + BATCH]
            logits = net(inputs.index_select(0, index))
            loss = cross_entropy(logits, labels.index_select(0, index))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


def _mlps() -> tuple[Contender, Contender]:
    rows = _rows()
    return _fitted(rows), _by_hand(rows)


def _forms() -> tuple[Contender, Contender]:
    net, optimizer = _mlp(), mip.adam(RATE)
    step, state = mip.train_step(net, cross_entropy, optimizer), mip.init(net, optimizer)
    rows = tuple(column[:BATCH] for column in _rows())

    def folded(form: Callable) -> Contender:
        def run() -> None:
            now, _ = step(state, rows)  # a state of our own, which the other form may write into
            for _ in range(50):
                now, _ = form(now, rows)

        return run

    return folded(step), folded(step.donate)


MLP = Benchmark(
    name="train-mlp",
    work="fit of an MLP 784-100-100-100-10, batch 64, 200 steps, fused Adam, rows in memory",
    anchor="the same loop by hand: index_select, backward, torch.optim.Adam(fused=True)",
    aim=0.95,
    pair=_mlps,
)

MLP_2_THREADS = evolve(MLP, name="train-mlp-2-threads", work=f"{MLP.work}, 2 threads", threads=2)

PURE = Benchmark(
    name="train-pure",
    work="pure steps of the same MLP: step(state, batch)",
    anchor="the same steps in place: step.donate(state, batch)",
    aim=0.85,
    pair=_forms,
)


def _no_hooks() -> tuple[Hook, ...]:
    return ()


def _beyond(hooks: Callable[[], Sequence[Hook]]) -> Callable[[], float]:
    net, optimizer = nn.Linear(2, 1), mip.adamw(RATE)
    step, state = mip.train_step(net, mse_loss, optimizer), mip.init(net, optimizer)
    rows = torch.ones(64, 2), torch.ones(64, 1)
    batches = mip.batch(4)(mip.sample(shuffle=True)(rows))

    def measured() -> float:
        batch, calls = next(iter(batches)), 20
        alone = timeit(lambda: step(state, batch), number=calls)
        fit = partial(mip.fit, step, batches, state, steps=1)
        return 1000 * (timeit(lambda: fit(hooks=hooks()), number=calls) - alone) / calls

    return measured


def _files() -> Callable[[], float]:
    folder = scratch("mip-fit-")
    log, keep = partial(mip.log, folder / "history.jsonl"), partial(mip.checkpoint, folder)
    return _beyond(lambda: (mip.early_stop("loss", 3), keep(), log()))


FIXED = Limit(
    name="train-fit",
    work="a fit of one step of a net of three numbers, beyond that step",
    unit="ms",
    aim=1.0,
    lay=partial(_beyond, _no_hooks),
)

FIXED_FILES = evolve(
    FIXED,
    name="train-fit-files",
    work=f"{FIXED.work}, with an early stop, a log and a checkpoint",
    aim=3.0,
    lay=_files,
)

ALL = (MLP, MLP_2_THREADS, PURE, FIXED, FIXED_FILES)
