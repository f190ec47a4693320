"""Gradients taken in other ways are the same gradients; a step that fails leaves no trace."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from attrs import evolve
from conftest import bits, set_up, spec_of
from torch import nn

import mip
import mip.hooks
from mip.errors import MipWarning
from mip.hooks import nan_guard
from mip.nn import SmallResNet
from mip.optim import adamw, chain, clip_norm, sgd, stack_optimizers
from mip.train import Float16, compiled, eager, stack, unstack, vmapped
from mip.train.gradient import functional
from mip.train.precision import all_finite, halve_loss_scale, loss_scale, with_loss_scale
from mip.tree import leaves, map_tree

TRACED = partial(compiled, backend="aot_eager")
"""The compiled form without the code generator, which takes seconds."""


def normed():
    torch.manual_seed(0)
    # Without a bias, whose gradient in front of a batch norm is rounding alone.
    return nn.Sequential(
        nn.Linear(3, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0)
    )


def tied():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    net[2].weight = net[0].weight
    return nn.Sequential(net, nn.Linear(3, 1), nn.Flatten(0))


def frozen():
    net = normed()
    net[0].requires_grad_(False)
    return net


NETS = {"normed": normed, "tied": tied, "frozen": frozen}


def data(rows=12, seed=3):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 3, generator=rng)
    return x, x.sum(1) + 0.1 * torch.randn(rows, generator=rng)


def optimizer():
    return chain(clip_norm(0.5), adamw(1e-2))


def stepped(net, count=5, opt=None, precision="float32", **options):
    opt = opt or optimizer()
    step = mip.train_step(net, F.mse_loss, opt, precision=precision, **options)
    state = mip.init(net, opt, precision=precision)
    for k in range(count):
        state, metrics = step.donate(state, data(seed=k))
    return state, metrics


def near(a, b):
    (state, metrics), (other, other_metrics) = a, b
    torch.testing.assert_close(metrics, other_metrics)
    torch.testing.assert_close((state.params, state.buffers), (other.params, other.buffers))


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
@pytest.mark.parametrize("backward", [functional, TRACED], ids=["functional", "compiled"])
def test_another_way_of_taking_gradients_takes_the_same_steps(make, backward):
    near(stepped(make()), stepped(make(), gradient_engine=backward))


@pytest.mark.parametrize("backward", [functional, TRACED], ids=["functional", "compiled"])
def test_another_way_of_taking_gradients_is_as_pure(backward):
    net, opt = (
        nn.Sequential(normed()[:3], nn.Dropout(0.5), nn.Linear(8, 1), nn.Flatten(0)),
        sgd(0.1),
    )
    step, state, batch = (
        mip.train_step(net, F.mse_loss, opt, gradient_engine=backward),
        None,
        data(),
    )
    state = mip.init(net, opt)
    before = bits(state), bits(batch), bits(net.state_dict()), torch.get_rng_state().tolist()
    first, second = step(state, batch), step(state, batch)
    assert bits(first) == bits(second)
    after = bits(state), bits(batch), bits(net.state_dict()), torch.get_rng_state().tolist()
    assert after == before


@pytest.mark.slow
def test_the_net_of_a_spec_can_be_compiled(table):
    setup = set_up(spec_of(), table)
    opt = optimizer()
    batch = next(setup.batches.iter_from(0))
    plain, graph = (
        mip.train_step(setup.net, setup.plan.loss, opt, gradient_engine=how)
        for how in (functional, TRACED)
    )
    near(graph(setup.state, batch), plain(setup.state, batch))


@pytest.mark.slow
def test_the_code_that_is_generated_takes_the_same_steps():
    near(stepped(tied()), stepped(tied(), gradient_engine=compiled))


@pytest.mark.slow
def test_many_steps_can_be_compiled_in_one_process():
    for width in range(1, 11):
        net = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 1), nn.Flatten(0))
        stepped(net, 1, gradient_engine=partial(compiled, backend="eager"))


def test_what_cannot_be_compiled_is_named():
    def loss(logits, target):
        return F.mse_loss(logits, target) if float(logits.sum()) > 0 else F.l1_loss(logits, target)

    net, opt = normed(), sgd(0.1)
    step = mip.train_step(net, loss, opt, gradient_engine=TRACED)
    with pytest.raises(mip.MipError, match="the step cannot be compiled: "):
        step(mip.init(net, opt), data())


def test_a_warning_of_the_compiler_is_shown_and_ends_no_step():
    def backend(graph, inputs):
        warnings.warn("slower on this Python", RuntimeWarning, stacklevel=1)
        return graph.forward

    net = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("error")
        stepped(net, 1, gradient_engine=partial(compiled, backend=backend))
        with pytest.raises(UserWarning, match="mine"):
            warnings.warn("mine", UserWarning, stacklevel=1)
    assert "slower on this Python" in [str(warning.message) for warning in shown]


# Mixed precision.


def score(net, state):
    inputs, target = data(200)
    return float(F.mse_loss(mip.train.eval_step(net)(state, inputs), target))


@pytest.mark.parametrize("precision", ["bfloat16", "float16", Float16(init_scale=2.0**8)])
@pytest.mark.parametrize("skip_nonfinite", [False, True])
def test_mixed_precision_ends_near_float32(precision, skip_nonfinite):
    exact, _ = stepped(normed(), 20)
    options = {"precision": precision, "skip_nonfinite": skip_nonfinite}
    mixed, metrics = stepped(normed(), 24 if precision == "float16" else 20, **options)
    assert {param.dtype for param in mixed.params.values()} == {torch.float32}
    assert metrics["loss"].dtype == torch.float32
    assert bits(mixed.params) != bits(exact.params)
    assert score(normed(), mixed) == pytest.approx(score(normed(), exact), rel=0.05)
    assert score(normed(), exact) < 0.8 * score(normed(), mip.init(normed(), optimizer()))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_state_of_another_precision_is_refused_before_a_step(precision):
    net, batch, opt = normed(), data(), optimizer()
    plain = mip.train_step(net, F.mse_loss, opt, precision=precision)
    scaled = mip.train_step(net, F.mse_loss, opt, precision="float16")
    start, scaled_start = (mip.init(net, opt, precision=name) for name in (precision, "float16"))
    with pytest.raises(mip.MipError, match="has a loss scale, which only float16 needs: pass the"):
        mip.fit(plain, [batch], scaled_start, epochs=1)
    with pytest.raises(mip.MipError, match="has no loss scale, which float16 needs: pass the same"):
        mip.fit(scaled, [batch], start, epochs=1)
    assert plain(start, batch)[1]["loss"].isfinite()
    assert scaled(scaled_start, batch)[1]["loss"].isfinite()


@pytest.mark.parametrize("make", [mip.init, partial(mip.train_step, loss=F.mse_loss)])
def test_an_unknown_precision_is_refused(make):
    with pytest.raises(ValueError, match="'precision' must be one of float32, bfloat16, float16"):
        make(normed(), optimizer=sgd(0.1), precision="float8")


def test_the_loss_scale_is_saved_where_it_always_was():
    state = mip.init(normed(), sgd(0.1), precision="float16").optimizer
    assert {path for path, _ in leaves(state)} >= {"scale/0", "scale/1"}
    assert bits(state["inner"]) == bits(mip.init(normed(), sgd(0.1)).optimizer)


def test_float16_skips_what_is_not_finite_unasked():
    net, opt, precision = normed(), optimizer(), Float16(init_scale=8.0)
    step = mip.train_step(net, F.mse_loss, opt, precision=precision)
    state = mip.init(net, opt, precision=precision)
    after, metrics = step(state, broken("loss"))
    assert metrics["skipped"] == 1
    assert bits(after.params) == bits(state.params)
    assert float(loss_scale(after.optimizer)) == 4.0


def test_loss_and_gradients_are_reported_without_their_scale():
    seen = []
    look = lambda grads: seen.append(grads) or grads  # noqa: E731
    state, metrics = stepped(tied(), 1, sgd(0.1), Float16(init_scale=1024.0), map_grads=look)
    plain, expected = stepped(tied(), 1, sgd(0.1))
    torch.testing.assert_close(metrics["loss"], expected["loss"], rtol=0.01, atol=0.01)
    torch.testing.assert_close(state.params, plain.params, rtol=0.01, atol=0.01)
    assert float(metrics["loss_scale"]) == 1024.0
    assert max(float(grad.abs().max()) for grad in seen[0].values()) < 10


def test_the_loss_scale_changes_as_torchs_does():
    # The gradient is finite up to a scale of 2**7 and overflows float16 above it.
    net, grads = nn.Linear(1, 1, bias=False), torch.tensor([[500.0]], dtype=torch.float16)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**9, growth_interval=3)
    torchs = torch.optim.SGD(net.parameters(), lr=0.0)
    opt = with_loss_scale(sgd(0.0), Float16(init_scale=2.0**9, growth_interval=3))
    state, params = opt.init({"w": torch.zeros(1, 1)}), {"w": torch.zeros(1, 1)}
    for step in range(20):
        assert float(loss_scale(state)) == scaler.get_scale()
        scaled = (grads * scaler.get_scale()).float()
        net.weight.grad = scaled.clone()
        scaler.scale(torch.zeros(1))  # it must have been used
        scaler.step(torchs)
        scaler.update()
        if all_finite(torch.zeros(()), {"w": scaled}):
            _, state, params = opt.update(params, state, params, step)
        else:
            state = halve_loss_scale(state)


# Many models at once.

RATES = [1e-2, 3e-2, 1e-3]


def several(make):
    """Models of their own beginnings, and their optimizers."""
    nets, optimizers = [], [chain(clip_norm(0.5), adamw(rate)) for rate in RATES]
    for k in range(len(RATES)):
        net = make()
        torch.manual_seed(k)
        for module in net.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        nets.append(net)
    return nets, optimizers


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
def test_models_that_are_stacked_take_the_steps_that_each_takes_alone(make):
    nets, optimizers = several(make)
    states = [mip.init(net, opt) for net, opt in zip(nets, optimizers, strict=True)]
    step = mip.train_step(
        nets[0], F.mse_loss, stack_optimizers(optimizers), gradient_engine=vmapped
    )
    batches = [data(seed=k) for k in range(5)]
    rows = []
    ended = mip.fit(step, batches, stack(states), epochs=2, hooks=[mip.hooks.record(rows)])
    for k, (state, stacked) in enumerate(zip(states, unstack(ended), strict=True)):
        alone = mip.train_step(nets[k], F.mse_loss, optimizers[k])
        kept = []
        expected = mip.fit(alone, batches, state, epochs=2, hooks=[mip.hooks.record(kept)])
        torch.testing.assert_close(
            (stacked.params, stacked.buffers), (expected.params, expected.buffers)
        )
        assert rows[1][f"loss.{k}"] == pytest.approx(kept[1]["loss"], rel=1e-4)
    assert rows[1]["loss"] == pytest.approx(sum(rows[1][f"loss.{k}"] for k in range(3)) / 3)


def test_image_nets_are_stacked_too():
    torch.manual_seed(0)
    nets = [SmallResNet(2).to(memory_format=torch.channels_last) for _ in range(2)]
    states = [mip.init(net, sgd()) for net in nets]
    inputs = torch.randn(6, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    objective = lambda forward, batch: (forward(batch).square().mean(), ())  # noqa: E731
    both = stack(states)
    stacked = vmapped(nets[0], objective)(both.params, both.buffers, inputs, None)
    for k, (net, state) in enumerate(zip(nets, states, strict=True)):
        expected = eager(net, objective)(state.params, state.buffers, inputs, None)
        torch.testing.assert_close(map_tree(lambda leaf, k=k: leaf[k], stacked), expected)


def test_a_stacked_step_is_pure_and_each_model_draws_its_own_dropout():
    net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1), nn.Flatten(0))
    optimizers = [sgd(0.1), sgd(0.1)]
    both = stack([mip.init(net, opt) for opt in optimizers])
    step = mip.train_step(net, F.mse_loss, stack_optimizers(optimizers), gradient_engine=vmapped)
    before = bits(both)
    first, metrics = step(both, data())
    assert bits(first) == bits(step(both, data())[0])
    assert bits(both) == before
    assert float(metrics["loss.0"]) != float(metrics["loss.1"])


# The guard.


def broken(kind):
    x, target = data()
    if kind == "loss":
        return x, target.index_fill(0, torch.tensor([4]), float("nan"))
    return x.index_fill(0, torch.tensor([4]), float("nan")), target


@pytest.mark.parametrize("kind", ["loss", "inputs"])
def test_a_guarded_step_that_fails_leaves_the_state_as_it_was(kind):
    net, opt = normed(), optimizer()
    step = mip.train_step(net, F.mse_loss, opt, skip_nonfinite=True)
    state, metrics = step(mip.init(net, opt), data())
    assert float(metrics["skipped"]) == 0.0
    after, metrics = step(state, broken(kind))
    assert float(metrics["skipped"]) == 1.0
    assert bits(evolve(after, step=state.step)) == bits(state)
    assert after.step == state.step + 1


def test_an_infinite_gradient_under_a_finite_loss_is_caught():
    net, opt = nn.Sequential(nn.Linear(3, 1, bias=False), nn.Flatten(0)), sgd(0.1)
    root = lambda logits, target: (logits - logits.detach()).abs().sqrt().mean()  # noqa: E731
    state = mip.init(net, opt)
    free, metrics = mip.train_step(net, root, opt)(state, data())
    assert metrics["loss"].isfinite()
    assert not free.params["0.weight"].isfinite().all()
    held, metrics = mip.train_step(net, root, opt, skip_nonfinite=True)(state, data())
    assert metrics["loss"].isfinite()
    assert bits(held.params) == bits(state.params)


def test_a_guard_that_is_not_needed_changes_nothing():
    assert bits(stepped(normed())[0]) == bits(stepped(normed(), skip_nonfinite=True)[0])


def test_a_loss_scale_that_is_warming_up_does_not_stop_a_fit():
    net, opt, precision, reasons = normed(), optimizer(), Float16(init_scale=2.0**30), []
    step = mip.train_step(net, F.mse_loss, opt, precision=precision)
    start = mip.init(net, opt, precision=precision)
    hooks = [nan_guard(), lambda event: reasons.append(event.reason)]
    ended = mip.fit(step, [data()], start, epochs=30, hooks=hooks)
    assert set(reasons) == {None}
    assert 1 < float(loss_scale(ended.optimizer)) < 2.0**30


def test_a_guarded_step_that_is_not_finite_stops_a_fit_and_says_why():
    net, opt, reasons = nn.Sequential(nn.Linear(3, 1, bias=False), nn.Flatten(0)), sgd(0.1), []
    root = lambda logits, target: (logits - logits.detach()).abs().sqrt().mean()  # noqa: E731
    step = mip.train_step(net, root, opt, skip_nonfinite=True)
    hooks = [nan_guard(), lambda event: reasons.append(event.reason)]
    with pytest.warns(MipWarning, match=r"a gradient is not finite at step 1$"):
        mip.fit(step, [data()], mip.init(net, opt), epochs=3, hooks=hooks)
    assert "a gradient is not finite at step 1" in reasons


def test_skipped_steps_are_not_in_the_mean_loss_of_an_epoch():
    net, opt = normed(), optimizer()
    step = mip.train_step(net, F.mse_loss, opt, skip_nonfinite=True)
    rows = []
    batches = [data(seed=1), broken("loss"), data(seed=2)]
    mip.fit(step, batches, mip.init(net, opt), epochs=1, hooks=[mip.hooks.record(rows)])
    assert rows[0]["skipped"] == pytest.approx(1 / 3)
    assert torch.isfinite(torch.tensor(rows[0]["loss"]))
