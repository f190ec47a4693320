"""Training an MLP: the step and the fit around it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stderr
from functools import partial
from io import StringIO

import torch
from attrs import evolve
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import mip
from benchmarks import by_hand
from benchmarks.harness import Benchmark, Contender, temporary_folder
from mip.train import State, Step, eager

BATCH_SIZE, STEPS, LR, N_VALID = 64, 200, 1e-3, 1024

DIGITS = """
branch.place = { kind = "continuous", columns = ["place"] }
head = { kind = "multiclass", column = "label" }
"""


def build_mlp() -> nn.Module:
    """Build the network that all of these benchmarks train."""
    torch.manual_seed(0)
    first, second, third = nn.Linear(784, 100), nn.Linear(100, 100), nn.Linear(100, 100)
    last = nn.Linear(100, 10)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third, nn.ReLU(), last)


def random_digits(n_rows: int = BATCH_SIZE * STEPS) -> tuple[Tensor, Tensor]:
    """Draw inputs float32 [n_rows, 784] and labels int64 [n_rows]."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n_rows, 784, generator=generator)
    return inputs, torch.randint(0, 10, (n_rows,), generator=generator)


def make_step(gradient_engine: Callable = eager) -> tuple[Step, State]:
    """Return our training step with Adam, and its initial state."""
    net, optimizer = build_mlp(), mip.adam(LR)
    step = mip.train_step(net, cross_entropy, optimizer, gradient_engine=gradient_engine)
    return step, mip.init(net, optimizer)


def make_fit(columns: tuple[Tensor, Tensor], gradient_engine: Callable = eager) -> Contender:
    """Return a fit of one epoch."""
    step, state = make_step(gradient_engine)
    batches = mip.batch(BATCH_SIZE)(mip.sample(shuffle=True)(columns))
    return lambda: mip.fit(step, batches, state, epochs=1)


def _pair(make_optimizer: by_hand.MakeOptimizer) -> tuple[Contender, Contender]:
    columns = random_digits()
    loop = by_hand.make_loop(build_mlp(), make_optimizer, cross_entropy, columns, BATCH_SIZE)
    return make_fit(columns), loop


def _hooked_fit(columns: tuple[Tensor, Tensor], valid: tuple[Tensor, Tensor]) -> Contender:
    step, state = make_step()
    batches = mip.batch(BATCH_SIZE)(mip.sample(shuffle=True)(columns))
    digits = mip.from_columns({"place": list(range(10)), "label": list(range(10))})
    plan, folder = mip.adapt(mip.parse(DIGITS), digits), temporary_folder("watched-")
    validate = mip.validate(plan, mip.batch(256)(valid), net=build_mlp())
    log = mip.log(folder / "history.jsonl", overwrite=True)

    def fit() -> State:
        hooks = [mip.progress(2 * len(batches)), validate, log]
        with redirect_stderr(StringIO()):  # the bar would print empty lines
            return mip.fit(step, batches, state, epochs=2, hooks=hooks)

    return fit


def _hooked_pair() -> tuple[Contender, Contender]:
    columns, (inputs, labels) = random_digits(), random_digits(N_VALID)

    @torch.no_grad()
    def validate(net: nn.Module) -> tuple[float, float]:
        net.eval()
        logits = torch.cat([net(part) for part in inputs.split(256)])
        net.train()
        accuracy = (logits.argmax(dim=1) == labels).double().mean()
        return float(cross_entropy(logits, labels)), float(accuracy)

    loop = by_hand.make_loop(
        build_mlp(),
        by_hand.FUSED_ADAM,
        cross_entropy,
        columns,
        BATCH_SIZE,
        epochs=2,
        after_epoch=validate,
    )
    return _hooked_fit(columns, (inputs, labels)), loop


def _pure_pair() -> tuple[Contender, Contender]:
    (step, state), batch = make_step(), random_digits(BATCH_SIZE)

    def repeat(variant: Callable) -> Contender:
        def run() -> None:
            current, _ = step(state, batch)  # a copy of the state: `donate` overwrites it
            for _ in range(50):
                current, _ = variant(current, batch)

        return run

    return repeat(step), repeat(step.donate)


MLP = Benchmark(
    name="train-mlp",
    work="fit an MLP 784-100-100-100-10: batch size 64, 200 steps, fused Adam, rows in memory",
    baseline="the same loop by hand: index_select, backward, torch.optim.Adam(fused=True)",
    aim=1.0,
    pair=partial(_pair, by_hand.FUSED_ADAM),
)

MLP_2_THREADS = evolve(MLP, name="train-mlp-2-threads", work=f"{MLP.work}, 2 threads", threads=2)

DEFAULT = evolve(
    MLP,
    name="train-mlp-default",
    baseline="the same loop by hand, torch.optim.Adam with its defaults (not fused)",
    aim=1.3,
    pair=partial(_pair, by_hand.DEFAULT_ADAM),
)

WATCHED = Benchmark(
    name="train-mlp-watched",
    work="the same fit for two epochs with a progress bar (not displayed), a history file and "
    "mip.validate on 1,024 rows after each epoch",
    baseline="the same loop by hand, fused, with loss and accuracy on these rows after each epoch",
    aim=0.95,
    pair=_hooked_pair,
    rounds=21,
)

PURE = Benchmark(
    name="train-pure",
    work="pure steps of the same MLP: step(state, batch)",
    baseline="the same steps in place: step.donate(state, batch)",
    aim=0.85,
    pair=_pure_pair,
)

ALL = (MLP, MLP_2_THREADS, DEFAULT, WATCHED, PURE)
