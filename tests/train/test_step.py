"""The step is pure, and its in-place form is the same step."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attrs import evolve
from conftest import bits, fold, set_up, spec_of
from torch import nn

import mip
from mip.errors import MipError, MipWarning
from mip.train import eval_step, update_bn, with_averaged_params
from mip.train.step import copy

# Several nets here have a layer that nothing uses.
pytestmark = pytest.mark.filterwarnings("ignore:the net has 2 parameters that the loss does not")


class Tied(nn.Module):
    """One weight in two places, as in an autoencoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(3, 3), nn.Linear(3, 3)
        self.decode.weight = self.encode.weight

    def forward(self, x):
        return self.decode(self.encode(x).tanh()).sum(1)


class Unused(nn.Module):
    """A parameter that no output depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare = nn.Linear(3, 1), nn.Linear(3, 1)

    def forward(self, x):
        return self.used(x).squeeze(1)


class Recurrent(nn.Module):
    """An LSTM, which keeps a list of its weights beside the parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x):
        return self.out(self.lstm(x.unsqueeze(1))[0][:, -1]).squeeze(1)


def plain():
    return nn.Sequential(
        nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0)
    )


def noisy():
    return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1), nn.Flatten(0))


class Turned(nn.Module):
    """A weight whose gradient lies in memory the other way about."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3))

    def forward(self, x):
        return (x[:, :, None] * self.weight.t()).sum((1, 2))


NETS = {
    "plain": plain,
    "noisy": noisy,
    "tied": Tied,
    "unused": Unused,
    "recurrent": Recurrent,
    "turned": Turned,
}


@pytest.fixture(params=list(NETS))
def net(request):
    torch.manual_seed(0)
    return NETS[request.param]()


def data(rows=12, seed=3):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 3, generator=rng)
    return x, x.sum(1) + 0.1 * torch.randn(rows, generator=rng)


def random_states():
    """The states of all global random generators."""
    return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()


def clipped_adamw():
    return mip.chain(mip.clip_norm(0.5), mip.adamw(1e-2))


def test_a_step_twice_gives_the_same_bits_and_touches_nothing(table):
    setup = set_up(spec_of(), table)
    batch = next(setup.batches.iter_from(0))
    before = bits(setup.state), bits(batch), bits(setup.net.state_dict()), random_states()
    first, metrics = setup.step(setup.state, batch)
    second, again = setup.step(setup.state, batch)
    assert bits(first) == bits(second)
    assert bits(metrics) == bits(again)
    assert bits(first) != bits(setup.state)
    assert (bits(setup.state), bits(batch), bits(setup.net.state_dict()), random_states()) == before


def test_a_step_of_any_module_touches_nothing(net):
    opt = clipped_adamw()
    step, state, batch = mip.train_step(net, F.mse_loss, opt), mip.init(net, opt), data()
    before = bits(state), bits(batch), bits(net.state_dict()), random_states()
    assert bits(step(state, batch)[0]) == bits(step(state, batch)[0])
    assert (bits(state), bits(batch), bits(net.state_dict()), random_states()) == before


def test_the_module_keeps_its_own_tensors(net):
    opt = mip.sgd(0.1)
    owned = {name: id(tensor) for name, tensor in net.state_dict(keep_vars=True).items()}
    mip.train_step(net, F.mse_loss, opt)(mip.init(net, opt), data())
    assert {name: id(tensor) for name, tensor in net.state_dict(keep_vars=True).items()} == owned


def test_a_loss_that_raises_leaves_module_and_random_state_as_they_were():
    def loss(logits, target):
        raise ZeroDivisionError

    net, opt = noisy(), mip.sgd(0.1)
    before = bits(net.state_dict()), random_states()
    with pytest.raises(ZeroDivisionError):
        mip.train_step(net, loss, opt)(mip.init(net, opt), data())
    assert (bits(net.state_dict()), random_states()) == before


def test_dropout_depends_on_seed_and_step():
    net, opt = noisy(), mip.sgd(0.1)
    step, state, batch = mip.train_step(net, F.mse_loss, opt), mip.init(net, opt), data()
    losses = [
        float(step(evolve(state, seed=seed, step=at), batch)[1]["loss"])
        for seed, at in [(0, 0), (1, 0), (0, 1)]
    ]
    assert len(set(losses)) == 3


def test_the_step_does_not_depend_on_the_global_random_state():
    net, opt = noisy(), mip.sgd(0.1)
    step, state, batch = mip.train_step(net, F.mse_loss, opt), mip.init(net, opt), data()
    torch.manual_seed(1)
    first, _ = step(state, batch)
    torch.manual_seed(2)
    assert bits(first) == bits(step(state, batch)[0])


def test_in_place_equals_pure_over_twenty_steps(table):
    setup = set_up(spec_of(), table)
    pure = donated = setup.state
    donated = copy(donated)
    stream = setup.batches.iter_from(0)
    for _ in range(20):
        batch = next(stream)
        pure, metrics = setup.step(pure, batch)
        donated, again = setup.step.donate(donated, batch)
        assert bits(metrics) == bits(again)
    assert bits(pure) == bits(donated)


def test_in_place_equals_pure_for_any_module(net):
    opt = clipped_adamw()
    step = mip.train_step(net, F.mse_loss, opt)
    pure, donated = mip.init(net, opt), mip.init(net, opt)
    for k in range(20):
        pure, donated = step(pure, data(seed=k))[0], step.donate(donated, data(seed=k))[0]
    assert bits(pure) == bits(donated)


def test_fit_equals_the_plain_fold_and_leaves_the_given_state_alone(table):
    setup = set_up(spec_of(), table)
    before = bits(setup.state)
    ended = mip.fit(setup.step, setup.batches, setup.state, steps=20)
    assert bits(setup.state) == before
    assert bits(ended) == bits(fold(setup.step, setup.batches, setup.state, 20))


def test_init_copies_the_module():
    net, opt = plain(), mip.sgd(0.1)
    state = mip.init(net, opt)
    before = bits(state)
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.add_(1)
    assert bits(state) == before


def by_hand(net, make, steps):
    """The loop that every tutorial writes."""
    optimizer = make(net.parameters())
    for k in range(steps):
        x, y = data(seed=k)
        optimizer.zero_grad()
        F.mse_loss(net(x), y).backward()
        optimizer.step()
    return dict(net.named_parameters()) | dict(net.named_buffers())


@pytest.mark.parametrize("name", ["plain", "tied", "unused", "recurrent", "turned"])
def test_steps_equal_the_loop_written_by_hand(name):
    torch.manual_seed(0)
    net = NETS[name]()
    opt = mip.adamw(1e-2)
    step, state = mip.train_step(net, F.mse_loss, opt), mip.init(net, opt)
    for k in range(10):
        state, _ = step(state, data(seed=k))
    expected = by_hand(net, lambda ps: torch.optim.AdamW(ps, 1e-2, fused=True), 10)
    after = state.params | state.buffers
    assert after.keys() == expected.keys()
    # Weight decay moves an unused parameter here; torch leaves one without a gradient alone.
    used = [path for path in expected if not path.startswith("spare")]
    for path in used:
        torch.testing.assert_close(after[path], expected[path].detach(), rtol=1e-6, atol=1e-7)


def test_tied_weights_are_one_parameter():
    net = Tied()
    assert sorted(mip.init(net, mip.sgd()).params) == [
        "decode.bias",
        "encode.bias",
        "encode.weight",
    ]


def test_an_unused_parameter_has_no_gradient_and_stays():
    net, opt = Unused(), mip.sgd(0.1)
    state = mip.init(net, opt)
    after, _ = mip.train_step(net, F.mse_loss, opt)(state, data())
    assert bits(after.params["spare.weight"]) == bits(state.params["spare.weight"])
    assert bits(after.params["used.weight"]) != bits(state.params["used.weight"])


def test_a_frozen_parameter_stays():
    net = Unused()
    net.used.weight.requires_grad_(False)
    before = bits(dict(net.named_parameters()))
    after, _ = stepped(net, data())
    assert bits(after.params | after.buffers)["used.weight"] == before["used.weight"]
    assert bits(after.params)["used.bias"] != before["used.bias"]


@pytest.mark.slow
def test_a_recurrent_net_learns():
    torch.manual_seed(0)
    net, opt = Recurrent(), mip.adam(0.02)
    step, state = mip.train_step(net, F.mse_loss, opt), mip.init(net, opt)
    losses = []
    for _ in range(60):
        state, metrics = step(state, data())
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.1 * losses[0]


def test_any_module_takes_pairs_and_dicts():
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(3, 1)

        def forward(self, inputs):
            return self.line(inputs["x"]).squeeze(1)

    x, y = data()
    net, opt = Named(), mip.sgd(0.1)
    step = mip.train_step(net, F.mse_loss, opt)
    after, metrics = step(mip.init(net, opt), ({"x": x}, y))
    assert after.step == 1
    assert float(metrics["loss"]) == pytest.approx(F.mse_loss(net({"x": x}), y).item())


def test_batch_norm_statistics_are_part_of_the_state():
    net, opt = plain(), mip.sgd(0.1)
    state = mip.init(net, opt)
    after, _ = mip.train_step(net, F.mse_loss, opt)(state, data())
    assert int(after.buffers["1.num_batches_tracked"]) == 1
    assert int(net.get_buffer("1.num_batches_tracked")) == 0


def stepped(net, batch, rate=0.1, **events) -> tuple:
    opt = mip.sgd(rate)
    return mip.train_step(net, F.mse_loss, opt, **events)(mip.init(net, opt), batch)


def test_events_come_once_each_in_their_order():
    seen = []

    def note(name):
        def event(value):
            seen.append(name)
            return value

        return event

    names = ["map_logits", "map_loss", "map_grads", "map_params"]
    stepped(Unused(), data(), **{name: note(name) for name in names})
    assert seen == names


def test_after_pred_changes_the_logits():
    net, (x, y) = Unused(), data()
    _, metrics = stepped(net, (x, y), map_logits=lambda logits: 2 * logits)
    assert float(metrics["loss"]) == pytest.approx(F.mse_loss(2 * net(x), y).item())


def test_after_loss_changes_the_loss_and_its_gradients():
    torch.manual_seed(0)
    net = Unused()
    doubled, metrics = stepped(net, data(), map_loss=lambda loss: 2 * loss)
    plainly, base = stepped(net, data(), rate=0.2)
    torch.testing.assert_close(doubled.params, plainly.params)
    assert float(metrics["loss"]) == pytest.approx(2 * float(base["loss"]))


@pytest.mark.parametrize("power", [1, 2])
def test_a_penalty_of_the_weights_is_a_term_of_the_loss(power):
    # While a step runs, the module's parameters are those of the state.
    net, rate, share = Tied(), 0.1, 0.03
    begin = {path: param.detach().clone() for path, param in net.named_parameters()}

    def penalised(loss):
        return loss + share * sum(param.abs().pow(power).sum() for param in net.parameters())

    after, metrics = stepped(net, data(), rate, map_loss=penalised)
    plainly, base = stepped(net, data(), rate)
    added = share * sum(float(param.abs().pow(power).sum()) for param in begin.values())
    assert float(metrics["loss"]) == pytest.approx(float(base["loss"]) + added)
    for path, param in begin.items():
        slope = share * power * param.abs().pow(power - 1) * param.sign()
        torch.testing.assert_close(after.params[path], plainly.params[path] - rate * slope)


def test_a_squared_penalty_is_the_decay_of_plain_descent():
    net = Unused()
    penalised, _ = stepped(
        net,
        data(),
        map_loss=lambda loss: loss + 0.05 * sum(p.square().sum() for p in net.parameters()),
    )
    opt = mip.sgd(0.1, weight_decay=0.1)
    decayed, _ = mip.train_step(net, F.mse_loss, opt)(mip.init(net, opt), data())
    torch.testing.assert_close(penalised.params, decayed.params)


def test_a_penalty_of_what_cannot_be_is_a_term_of_the_loss():
    net, (x, y), opt = Unused(), data(), mip.sgd(0.1)

    def loss(logits, target):
        return F.mse_loss(logits, target) + 2.0 * (-logits).relu().mean()

    _, metrics = mip.train_step(net, loss, opt)(mip.init(net, opt), (x, y))
    guess = net(x).detach()
    assert (guess < 0).any()
    below = -guess[guess < 0].sum() / len(x)
    assert float(metrics["loss"]) == pytest.approx(float(F.mse_loss(guess, y) + 2 * below))


def test_after_backward_sees_gradients_by_path_and_may_change_them():
    seen = {}

    def hold(grads):
        seen.update(grads)
        return {path: torch.zeros_like(grad) for path, grad in grads.items()}

    net = Unused()
    before = bits(dict(net.named_parameters()))
    after, _ = stepped(net, data(), map_grads=hold)
    shapes = {path: param.shape for path, param in net.named_parameters()}
    assert {path: grad.shape for path, grad in seen.items()} == shapes
    assert float(seen["used.weight"].abs().sum()) > 0
    assert bits(after.params) == before


def test_gradients_may_come_back_in_any_order():
    net = Tied()
    turned, _ = stepped(net, data(), map_grads=lambda grads: dict(reversed(grads.items())))
    straight, _ = stepped(net, data())
    assert bits(turned.params) == bits(straight.params)


def test_after_step_changes_the_parameters():
    after, _ = stepped(
        Unused(),
        data(),
        map_params=lambda params: {
            path: param.clamp(-0.125, 0.125) for path, param in params.items()
        },
    )
    assert all(float(param.abs().max()) <= 0.125 for param in after.params.values())


def test_gradients_accumulate_over_parts_of_a_batch():
    # A loss is a mean over rows: the mean of equal parts' gradients is that of the whole.
    net, (x, y) = Unused(), data()
    kept = []

    def keep(grads):
        kept.append(grads)
        return grads

    stepped(net, (x, y), map_grads=keep)
    for part in range(3):
        stepped(net, (x[4 * part : 4 * part + 4], y[4 * part : 4 * part + 4]), map_grads=keep)
    whole, *parts = kept
    for path in whole:
        mean = torch.stack([part[path] for part in parts]).mean(0)
        torch.testing.assert_close(mean, whole[path], rtol=1e-5, atol=1e-6)


def test_the_loss_stays_a_tensor_without_gradient():
    _, metrics = stepped(Unused(), data())
    assert metrics["loss"].shape == ()
    assert not metrics["loss"].requires_grad


def test_evaluation_is_pure_and_in_evaluation_mode():
    torch.manual_seed(0)
    net = nn.Sequential(plain()[:-1], nn.Dropout(0.9), nn.Flatten(0))
    state, (x, _) = mip.init(net, mip.sgd()), data()
    before = bits(state), bits(net.state_dict()), random_states()
    logits = eval_step(net)(state, x)
    assert bits(logits) == bits(eval_step(net)(state, x))
    assert not logits.requires_grad
    assert (bits(state), bits(net.state_dict()), random_states()) == before


def test_evaluation_reads_the_state_and_not_the_module():
    net, (x, _) = Unused(), data()
    state = mip.init(net, mip.sgd())
    zero = evolve(state, params={path: torch.zeros_like(p) for path, p in state.params.items()})
    assert eval_step(net)(zero, x).tolist() == [0.0] * len(x)


def test_statistics_of_batch_norms_are_measured_anew_for_averages():
    torch.manual_seed(0)
    net, opt = plain(), mip.chain(mip.sgd(0.5), mip.optim.swa())
    step, state = mip.train_step(net, F.mse_loss, opt), mip.init(net, opt)
    batches = [data(seed=k) for k in range(8)]
    state = mip.fit(step, batches, state, epochs=3)
    before = bits(state), bits(net.state_dict()), random_states()
    after = update_bn(net, state, batches)
    assert (bits(state), bits(net.state_dict()), random_states()) == before
    first = with_averaged_params(state).params
    rows = torch.cat([F.linear(x, first["0.weight"], first["0.bias"]) for x, _ in batches])
    torch.testing.assert_close(after.buffers["1.running_mean"], rows.mean(0))
    assert not torch.allclose(state.buffers["1.running_mean"], rows.mean(0), atol=1e-3)
    assert bits(after.params) == bits(state.params)


def test_a_state_without_averages_is_settled():
    net, opt = plain(), mip.sgd(0.5)
    state = mip.init(net, opt)
    assert update_bn(net, state, [data()]) is state


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, step, pipe: mip.fit(net, pipe, step.init(), epochs=1), "the step is a net"),
        (lambda net, step, pipe: mip.fit(step, step.init(), pipe, epochs=1), "not list: step.init"),
        (lambda net, step, pipe: mip.fit(step, pipe, step.init, epochs=1), "the function init"),
        (lambda net, step, pipe: mip.fit(step, pipe, net, epochs=1), "not Linear: step.init"),
        (lambda net, step, pipe: next(mip.scan(step, pipe, net)), "not Linear: step.init"),
        (lambda net, step, pipe: mip.module(step.init(), net), "must be an nn.Module, not State"),
        (lambda net, step, pipe: mip.init(mip.sgd(0.1), net), "must be an nn.Module, not Optim"),
        (lambda net, step, pipe: mip.init(net, torch.optim.SGD), r"or mip\.sgd\(1e-3\)"),
        (lambda net, step, pipe: mip.load_checkpoint("a", net), "not Linear: step.init"),
        (
            lambda net, step, pipe: mip.fit(step, pipe, step.init(), epochs=1.5),
            "epochs must be a whole number, 0 or more: 1.5",
        ),
    ],
)
def test_arguments_in_another_order_are_named(call, message):
    net = nn.Linear(2, 1)
    step = mip.train_step(net, nn.functional.mse_loss, mip.sgd(0.1))
    with pytest.raises(MipError, match=message):
        call(net, step, [(torch.ones(3, 2), torch.ones(3))])


def test_what_is_no_state_is_said_by_the_evaluation_step():
    net = nn.Linear(1, 1)
    with pytest.raises(MipError, match="the state must be a State, not Linear"):
        mip.train.eval_step(net)(net, torch.ones(1, 1))


class Detour(nn.Module):
    """A net of which one layer is never used."""

    def __init__(self):
        super().__init__()
        self.used, self.unused, self.frozen = (nn.Linear(1, 1) for _ in range(3))
        self.frozen.requires_grad_(False)

    def forward(self, x):
        return self.used(x)


@pytest.mark.parametrize("rule", [mip.train.standard_gradient, mip.train.sharpness_aware(0.1)])
def test_parameters_that_the_loss_does_not_depend_on_are_named_once(rule):
    net, batches = Detour(), [(torch.ones(2, 1), torch.ones(2, 1))] * 3
    step = mip.train_step(net, F.mse_loss, mip.sgd(0.1), gradient_rule=rule)
    with pytest.warns(MipWarning) as warned:
        state, _ = mip.fit(step, batches, step.init(), epochs=2)
    assert [str(each.message) for each in warned] == [
        "the net has 2 parameters that the loss does not depend on: 'unused.weight', 'unused.bias'"
    ]
    assert state.params["unused.weight"].equal(step.init().params["unused.weight"])
    mip.fit(step, batches, state, epochs=1)  # goes on in silence
