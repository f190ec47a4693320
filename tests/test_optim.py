"""Optimizers and schedules agree with torch's own, and leave what they are given as it was."""

from __future__ import annotations

import pytest
import torch
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

import mip
from mip import optim
from mip.optim import Optimizer, constant
from mip.tree import clone, leaves

OURS_AND_TORCHS = [
    (mip.adam(1e-2), Adam, {"lr": 1e-2}),
    (mip.adam(1e-2, weight_decay=0.1), Adam, {"lr": 1e-2, "weight_decay": 0.1}),
    (
        mip.adam(1e-2, betas=(0.8, 0.9), eps=1e-4),
        Adam,
        {"lr": 1e-2, "betas": (0.8, 0.9), "eps": 1e-4},
    ),
    (mip.adamw(1e-2), AdamW, {"lr": 1e-2}),
    (mip.adamw(1e-2, weight_decay=0.3), AdamW, {"lr": 1e-2, "weight_decay": 0.3}),
    (mip.sgd(0.1), SGD, {"lr": 0.1}),
    (mip.sgd(0.1, weight_decay=0.1), SGD, {"lr": 0.1, "weight_decay": 0.1}),
    (mip.sgd(0.1, momentum=0.9), SGD, {"lr": 0.1, "momentum": 0.9}),
    (
        mip.sgd(0.1, momentum=0.9, nesterov=True),
        SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    ),
]
NAMES = [
    f"{each.__name__}-{'-'.join(map(str, given.values()))}" for _, each, given in OURS_AND_TORCHS
]
battery = pytest.mark.parametrize(("ours", "kind", "given"), OURS_AND_TORCHS, ids=NAMES)


def start() -> dict[str, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(*shape, generator=draws) for name, shape in (("w", (4, 3)), ("b", (4,)))
    }


def gradients(step: int) -> dict[str, torch.Tensor]:
    draws = torch.Generator().manual_seed(step)
    return {name: torch.randn(value.shape, generator=draws) for name, value in start().items()}


def folded(optimizer: Optimizer, steps: int) -> dict[str, torch.Tensor]:
    params, state = start(), optimizer.init(start())
    for step in range(steps):
        _, state, params = optimizer.update(gradients(step), state, params, step)
    return params


@battery
def test_thirty_steps_equal_torchs(ours, kind, given):
    params = {name: torch.nn.Parameter(value) for name, value in start().items()}
    torchs = kind(params.values(), fused=True, **given)
    for step in range(30):
        for name, grad in gradients(step).items():
            params[name].grad = grad
        torchs.step()
    mine = folded(ours, 30)
    assert all(torch.equal(mine[name], params[name].detach()) for name in mine)


@battery
def test_update_leaves_what_it_is_given(ours, kind, given):
    grads, params = gradients(0), start()
    state = ours.init(params)
    before = clone((grads, state, params))
    ours.update(grads, state, params, 0)
    for (_, was), (_, now) in zip(leaves(before), leaves((grads, state, params)), strict=True):
        assert torch.equal(was, now)


@battery
def test_update_in_place_equals_update_on_copies(ours, kind, given):
    params, state = start(), ours.init(start())
    for step in range(5):
        _, state, params = ours.update_(gradients(step), state, params, step)
    mine = folded(ours, 5)
    assert all(torch.equal(mine[name], params[name]) for name in mine)


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clipping_equals_torchs(limit):
    params = {name: torch.nn.Parameter(value) for name, value in start().items()}
    for name, grad in gradients(0).items():
        params[name].grad = grad.clone()
    torch.nn.utils.clip_grad_norm_(params.values(), limit)
    clipped, _, _ = mip.clip_norm(limit).update(gradients(0), (), start(), 0)
    assert all(torch.equal(clipped[name], params[name].grad) for name in clipped)


def test_one_step_of_sgd_is_the_formula():
    _, _, params = mip.sgd(0.1).update(gradients(0), {}, start(), 0)
    assert torch.allclose(params["w"], start()["w"] - 0.1 * gradients(0)["w"])


@pytest.mark.parametrize("steps", [2, 3, 11, 100])
@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
def test_one_cycle_equals_torchs(steps, share):
    rates = torchs_rates(lambda o: OneCycleLR(o, 1.0, total_steps=steps, pct_start=share), steps)
    ours = mip.one_cycle(1.0, steps, share)
    assert [ours(step) for step in range(steps)] == pytest.approx(rates, abs=1e-12)


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_cosine_equals_torchs(steps):
    rates = torchs_rates(lambda o: CosineAnnealingLR(o, steps, eta_min=0.1), steps)
    ours = mip.cosine(1.0, steps, end=0.1)
    assert [ours(step) for step in range(steps)] == pytest.approx(rates, abs=1e-9)


def torchs_rates(make, steps: int) -> list[float]:
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, rates = make(optimizer), []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < steps - 1:
            schedule.step()
    return rates


def test_warmup_rises_in_a_line_to_the_peak():
    rate = mip.cosine(1.0, steps=10, warmup=4)
    assert [rate(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_a_schedule_sets_the_rate_of_each_step():
    rates = [0.1, 0.2, 0.0]
    optimizer = mip.sgd(lambda step: rates[step])
    params, grads = {"w": torch.zeros(1)}, {"w": torch.ones(1)}
    for step in range(3):
        _, _, params = optimizer.update(grads, {}, params, step)
    assert params["w"].item() == pytest.approx(-0.3)
    assert constant(0.5)(7) == 0.5


def test_a_chain_runs_its_links_in_order():
    def scaled(grads, state, params, step):
        return {name: grad * 10 for name, grad in grads.items()}, state, params

    ten = Optimizer(init=lambda params: (), update_=scaled)
    params, grads = {"w": torch.zeros(1)}, {"w": torch.ones(1)}
    before = mip.chain(ten, mip.clip_norm(1.0), mip.sgd(1.0))
    after = mip.chain(mip.clip_norm(1.0), ten, mip.sgd(1.0))
    moved = [
        each.update(grads, each.init(params), params, 0)[2]["w"].item() for each in (before, after)
    ]
    assert moved == pytest.approx([-1.0, -10.0], rel=1e-4)


@battery
def test_names_count_and_not_their_order(ours, kind, given):
    # A dict may come back from a file or a function in another order.
    params, state, turned = start(), ours.init(start()), lambda tree: dict(reversed(tree.items()))
    for step in range(3):
        _, state, params = ours.update(turned(gradients(step)), state, params, step)
        params = turned(params)
    want = folded(ours, 3)
    assert all(torch.equal(params[name], want[name]) for name in want)


def test_clipping_leaves_gradients_of_nothing():
    zeros = {"w": torch.zeros(3)}
    clipped, _, _ = mip.clip_norm(1.0).update(zeros, (), zeros, 0)
    assert clipped["w"].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("kind", "want"),
    [
        (optim.Constant(), [2.0] * 5),
        (optim.Cosine(), [2.0, 2 * 0.853553, 1.0, 2 * 0.146447, 0.0]),
        (optim.Cosine(warmup=0.5), [2 / 3, 4 / 3, 2.0, 1.0, 0.0]),
        (optim.OneCycle(warmup=0.5), [0.08, 2.0, 1.0, 0.0, 0.0]),
    ],
)
def test_a_schedule_of_a_spec_spans_the_run(kind, want):
    rate = kind.schedule(2.0, 4)
    assert [rate(step) for step in range(5)] == pytest.approx(want, abs=1e-4)
