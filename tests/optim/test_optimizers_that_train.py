"""Optimizers that would train nothing, or something else than they say, are refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import mip
from mip import optim
from mip.optim import accumulate, clip_norm, clip_value, ema, partition, swa

ADAM = mip.adamw(1e-2)
NET = nn.Linear(1, 1)


@pytest.mark.parametrize(
    "make", [lambda o: mip.train_step(NET, mse_loss, o), lambda o: mip.init(NET, o)]
)
@pytest.mark.parametrize(
    ("optimizer", "changes"),
    [
        (mip.chain(clip_norm(1.0), ema(0.9)), "averages"),
        (mip.chain(mip.chain(clip_norm(1.0)), swa()), "averages"),
        (mip.chain(clip_norm(1.0), clip_value(1.0)), "gradients"),
        (ema(0.99), "averages"),
        (clip_norm(1.0), "gradients"),
    ],
)
def test_what_changes_no_parameters_is_no_optimizer(make, optimizer, changes):
    with pytest.raises(mip.MipError, match=f"trains nothing, it changes {changes}: chain an optim"):
        make(optimizer)


@pytest.mark.parametrize("clip", [clip_norm(1e-9), clip_value(1e-9)])
def test_clipping_after_the_optimizer_is_refused(clip):
    with pytest.raises(mip.MipError, match=r"chain\(clip_norm\(1.0\), adamw\(1e-3\)\)"):
        mip.chain(ADAM, clip)
    with pytest.raises(mip.MipError, match="gradients are clipped before"):
        mip.chain(ADAM, clip, ema())
    mip.chain(clip, ADAM)
    mip.chain(ADAM, clip, mip.sgd(0.1))  # clipped for the second


@pytest.mark.parametrize("average", [ema(), swa()])
def test_averages_before_the_optimizer_are_refused(average):
    with pytest.raises(mip.MipError, match=r"chain\(adamw\(1e-3\), ema\(\)\)"):
        mip.chain(average, ADAM)
    assert mip.chain(clip_norm(1.0), ADAM, average).changes == "parameters"


def test_links_of_ones_own_may_stand_anywhere():
    noisy = optim.Optimizer(lambda params: (), lambda g, s, p, step: (g, s, p))
    for links in ([noisy, ADAM], [noisy, clip_norm(1.0), ADAM], [ADAM, noisy, ema()]):
        assert mip.chain(*links).changes == "parameters"
    assert mip.chain(clip_norm(1.0), accumulate(ADAM, 2)).changes == "parameters"


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: mip.adamw(-1e-2), "lr must be 0 or more, not -0.01"),
        (lambda: mip.adamw(float("nan")), "lr must be 0 or more, not nan"),
        (lambda: mip.adamw(1e-2, weight_decay=-1), "weight_decay must be 0 or more"),
        (lambda: mip.sgd(1e-2, momentum=5), "momentum must be from 0 to below 1, not 5"),
        (lambda: mip.sgd(1e-2, momentum=-0.1), "momentum must be from 0 to below 1"),
        (lambda: optim.rmsprop(-1.0), "lr must be 0 or more"),
        (lambda: mip.adam(1e-2, 0.9), r"betas must be two, such as \(0.9, 0.999\), not 0.9"),
        (lambda: mip.adamw(1e-2, (0.9,)), "betas must be two"),
        (lambda: mip.adamw(1e-2, (0.9, 1.0)), "beta2 must be from 0 to below 1, not 1.0"),
        *[
            (lambda make=make: make(1e-2, 0.9), "betas must be two")
            for make in (optim.lamb, optim.lion, optim.nadam, optim.radam, optim.schedule_free)
        ],
        (lambda: ema(1.5), "decay must be from 0 to below 1"),
    ],
)
def test_hyper_parameters_have_limits(make, error):
    with pytest.raises(mip.MipError, match=error):
        make()


def test_a_learning_rate_of_zero_and_schedules_are_taken():
    for optimizer in (mip.adamw(0), mip.sgd(0.0), mip.adamw(lambda step: -1.0)):
        assert optimizer.changes == "parameters"


@pytest.mark.parametrize("milestones", [[0.5, 0.75], [30, 60.5], [-1]])
def test_fractions_are_no_milestones(milestones):
    with pytest.raises(mip.MipError, match="milestones are numbers of steps, not "):
        optim.multi_step(1e-2, milestones)
    with pytest.raises(mip.MipError, match=r"round\(0.5 \* epochs \* len\(batches\)\)"):
        optim.multi_step(1e-2, [0.5])


def test_the_average_of_a_short_run_is_near_the_trained_weights():
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    rows, net = [(x, x.sum(1, keepdim=True))] * 4, nn.Linear(4, 1)
    step = mip.train_step(net, mse_loss, mip.chain(mip.adamw(5e-2), ema()))
    mip.fit(step, rows, step.init(), epochs=20)
    assert mip.evaluate(net, rows, loss=mse_loss)["loss"] < 0.1


def test_a_decay_that_is_a_number_is_warmed_up_and_a_schedule_is_not():
    def means(decay, steps=60):
        link = ema(decay)
        state = link.init({"w": torch.zeros(1)})
        for step in range(steps):
            _, state, _ = link.update({}, state, {"w": torch.full((1,), float(step))}, step)
        return float(state.mean["w"])

    assert means(0.5) == means(lambda step: min(0.5, (1 + step) / (10 + step)))
    assert means(optim.constant(0.999)) < 2 < means(0.999)


def test_a_label_without_an_optimizer_is_named_with_the_parameter():
    optimizer = partition({"body": ADAM, "head": ADAM}, lambda path: "heads")
    with pytest.raises(mip.MipError, match=r"'weight' has the label 'heads', .* mean 'head'"):
        mip.init(NET, optimizer)
