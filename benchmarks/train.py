"""Training: the step and the fit around it."""

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
from benchmarks.harness import Benchmark, Contender, scratch
from mip.train import State, Step, eager

BATCH, STEPS, RATE, CHECKED = 64, 200, 1e-3, 1024

DIGITS = """
branch.place = { kind = "continuous", columns = ["place"] }
head = { kind = "multiclass", column = "label" }
"""


def mlp() -> nn.Module:
    """Build the net of all of these."""
    torch.manual_seed(0)
    first, second, third = nn.Linear(784, 100), nn.Linear(100, 100), nn.Linear(100, 100)
    last = nn.Linear(100, 10)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third, nn.ReLU(), last)


def rows(count: int = BATCH * STEPS) -> tuple[Tensor, Tensor]:
    """Draw inputs float32 [count, 784] and labels int64 [count]."""
    draws = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, 784, generator=draws)
    return inputs, torch.randint(0, 10, (count,), generator=draws)


def ours(backward: Callable = eager) -> tuple[Step, State]:
    """Give the step and the state of ours, with Adam."""
    net, optimizer = mlp(), mip.adam(RATE)
    step = mip.train_step(net, cross_entropy, optimizer, gradient_engine=backward)
    return step, mip.init(net, optimizer)


def fitted(drawn: tuple[Tensor, Tensor], backward: Callable = eager) -> Contender:
    """Give a fit of one epoch."""
    (step, state), batches = ours(backward), mip.batch(BATCH)(mip.sample(shuffle=True)(drawn))
    return lambda: mip.fit(step, batches, state, epochs=1)


def _watched(drawn: tuple[Tensor, Tensor], checked: tuple[Tensor, Tensor]) -> Contender:
    (step, state), batches = ours(), mip.batch(BATCH)(mip.sample(shuffle=True)(drawn))
    digits = mip.from_columns({"place": list(range(10)), "label": list(range(10))})
    plan, folder = mip.adapt(mip.parse(DIGITS), digits), scratch("watched-")
    score = mip.validate(plan, mip.batch(256)(checked), net=mlp())
    keep = mip.log(folder / "history.jsonl", overwrite=True)

    def run() -> State:
        watching = [mip.progress(2 * len(batches)), score, keep]
        with redirect_stderr(StringIO()):  # the bar would leave empty lines
            return mip.fit(step, batches, state, epochs=2, hooks=watching)

    return run


@torch.no_grad()
def _checked(net: nn.Module, inputs: Tensor, labels: Tensor) -> tuple[float, float]:
    net.eval()
    logits = torch.cat([net(part) for part in inputs.split(256)])
    net.train()
    right = (logits.argmax(dim=1) == labels).double().mean()
    return float(cross_entropy(logits, labels)), float(right)


def _plain(optimizers: by_hand.Optimizers = by_hand.FUSED) -> tuple[Contender, Contender]:
    drawn = rows()
    return fitted(drawn), by_hand.loop(mlp(), optimizers, cross_entropy, drawn, BATCH)


def _both_watched() -> tuple[Contender, Contender]:
    drawn, checked = rows(), rows(CHECKED)
    close = lambda net: _checked(net, *checked)  # noqa: E731
    anchor = by_hand.loop(mlp(), by_hand.FUSED, cross_entropy, drawn, BATCH, 2, close)
    return _watched(drawn, checked), anchor


def _forms() -> tuple[Contender, Contender]:
    (step, state), batch = ours(), rows(BATCH)

    def folded(form: Callable) -> Contender:
        def run() -> None:
            now, _ = step(state, batch)  # a state of our own, which the other form may write into
            for _ in range(50):
                now, _ = form(now, batch)

        return run

    return folded(step), folded(step.donate)


MLP = Benchmark(
    name="train-mlp",
    work="fit of an MLP 784-100-100-100-10, batch 64, 200 steps, fused Adam, rows in memory",
    anchor="the same loop by hand: index_select, backward, torch.optim.Adam(fused=True)",
    aim=1.0,
    pair=_plain,
)

MLP_2_THREADS = evolve(MLP, name="train-mlp-2-threads", work=f"{MLP.work}, 2 threads", threads=2)

DEFAULT = evolve(
    MLP,
    name="train-mlp-default",
    anchor="the same loop by hand with torch.optim.Adam as it is by default, not fused",
    aim=1.3,
    pair=partial(_plain, by_hand.DEFAULT),
)

WATCHED = Benchmark(
    name="train-mlp-watched",
    work="the same fit, two epochs, with a progress bar (not drawn), a log of the history and "
    "mip.validate on 1,024 rows after each",
    anchor="the same loop by hand, fused, with loss and accuracy of these rows after each epoch",
    aim=0.95,
    pair=_both_watched,
    rounds=21,
)

PURE = Benchmark(
    name="train-pure",
    work="pure steps of the same MLP: step(state, batch)",
    anchor="the same steps in place: step.donate(state, batch)",
    aim=0.85,
    pair=_forms,
)

ALL = (MLP, MLP_2_THREADS, DEFAULT, WATCHED, PURE)
