"""Optimizers agree with torch's own, and leave what they are given as it was."""

from __future__ import annotations

import inspect
import pickle
from functools import partial
from pathlib import Path

import attrs
import pytest
import torch
import torch.nn.functional as F
from attrs import Factory, frozen
from conftest import HEADS, NUMBERS, bits
from torch import nn

import mip
from mip import optim
from mip.errors import MipError
from mip.files import load_checkpoint, save_checkpoint
from mip.optim import Optimizer, OptimizerSpec, constant, cosine, is_matrix
from mip.spec.kinds import plays
from mip.train import History, eval_step, sharpness_aware, with_averaged_params
from mip.tree import clone

LAYERS = {"weight": (4, 3), "bias": (4,), "deep.weight": (2, 3, 2, 2), "wide.weight": (2, 6)}
FLAT = {"weight": (4, 3), "wide.weight": (2, 6)}
NADAM = {"momentum_decay": 0.01, "decoupled_weight_decay": True}


@frozen
class Case:
    """An optimizer, and the class of torch that it should equal."""

    ours: Optimizer
    kind: type | None = None
    options: dict = Factory(dict)
    shapes: dict = LAYERS

    def theirs(self, params):
        return self.kind(params, **self.options)


T = torch.optim
# If ours calls torch's fused kernel theirs does too: torch's implementations of an optimizer differ
# in the last bit on some CPUs.
CASES = {
    "adafactor": Case(optim.adafactor(0.05), T.Adafactor, {"lr": 0.05}),
    "adafactor more": Case(
        optim.adafactor(0.05, -0.5, (1e-4, 1e-2), 1.5, 0.1),
        T.Adafactor,
        {"lr": 0.05, "beta2_decay": -0.5, "eps": (1e-4, 1e-2), "d": 1.5, "weight_decay": 0.1},
    ),
    "adagrad": Case(optim.adagrad(0.1), T.Adagrad, {"lr": 0.1, "fused": True}),
    "adagrad more": Case(
        optim.adagrad(0.1, 0.5, 1e-4, 0.1),
        T.Adagrad,
        {
            "lr": 0.1,
            "initial_accumulator_value": 0.5,
            "eps": 1e-4,
            "weight_decay": 0.1,
            "fused": True,
        },
    ),
    "adam": Case(mip.adam(1e-2), T.Adam, {"lr": 1e-2, "fused": True}),
    "adam decay": Case(
        mip.adam(1e-2, weight_decay=0.1),
        T.Adam,
        {"lr": 1e-2, "weight_decay": 0.1, "fused": True},
    ),
    "adam betas": Case(
        mip.adam(1e-2, betas=(0.8, 0.9), eps=1e-4),
        T.Adam,
        {"lr": 1e-2, "betas": (0.8, 0.9), "eps": 1e-4, "fused": True},
    ),
    "adamw": Case(mip.adamw(1e-2), T.AdamW, {"lr": 1e-2, "fused": True}),
    "adamw decay": Case(
        mip.adamw(1e-2, weight_decay=0.3),
        T.AdamW,
        {"lr": 1e-2, "weight_decay": 0.3, "fused": True},
    ),
    "from_torch": Case(
        optim.from_torch(T.Adamax, {"lr": 0.1, "weight_decay": 0.1}),
        T.Adamax,
        {"lr": 0.1, "weight_decay": 0.1},
    ),
    "lamb": Case(optim.lamb(1e-2, weight_decay=0.1)),
    "lion": Case(optim.lion(1e-2, weight_decay=0.1)),
    "muon": Case(optim.muon(0.1), T.Muon, {"lr": 0.1, "adjust_lr_fn": "match_rms_adamw"}, FLAT),
    "muon original": Case(
        optim.muon(0.1, 0.8, False, 0.3, "original"),
        T.Muon,
        {"lr": 0.1, "momentum": 0.8, "nesterov": False, "weight_decay": 0.3},
        FLAT,
    ),
    "muon and others": Case(optim.muon(0.1)),
    "nadam": Case(optim.nadam(0.02), T.NAdam, {"lr": 0.02}),
    "nadam more": Case(
        optim.nadam(0.02, (0.8, 0.9), 1e-4, 0.1, **NADAM),
        T.NAdam,
        {
            "lr": 0.02,
            "betas": (0.8, 0.9),
            "eps": 1e-4,
            "weight_decay": 0.1,
            "momentum_decay": 0.01,
            "decoupled_weight_decay": True,
        },
    ),
    "radam": Case(optim.radam(0.05), T.RAdam, {"lr": 0.05}),
    "radam more": Case(
        optim.radam(0.05, (0.8, 0.9), 1e-4, 0.1, decoupled_weight_decay=True),
        T.RAdam,
        {
            "lr": 0.05,
            "betas": (0.8, 0.9),
            "eps": 1e-4,
            "weight_decay": 0.1,
            "decoupled_weight_decay": True,
        },
    ),
    "rmsprop": Case(optim.rmsprop(0.01), T.RMSprop, {"lr": 0.01}),
    "rmsprop more": Case(
        optim.rmsprop(0.01, 0.9, 1e-4, 0.5, True, 0.1),
        T.RMSprop,
        {
            "lr": 0.01,
            "alpha": 0.9,
            "eps": 1e-4,
            "momentum": 0.5,
            "centered": True,
            "weight_decay": 0.1,
        },
    ),
    "schedule_free": Case(optim.schedule_free(0.05, weight_decay=0.01)),
    "sgd": Case(mip.sgd(0.1), T.SGD, {"lr": 0.1, "fused": True}),
    "sgd decay": Case(
        mip.sgd(0.1, weight_decay=0.1), T.SGD, {"lr": 0.1, "weight_decay": 0.1, "fused": True}
    ),
    "sgd momentum": Case(
        mip.sgd(0.1, momentum=0.9), T.SGD, {"lr": 0.1, "momentum": 0.9, "fused": True}
    ),
    "sgd nesterov": Case(
        mip.sgd(0.1, momentum=0.9, nesterov=True),
        T.SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "fused": True},
    ),
    "accumulate": Case(optim.accumulate(mip.adamw(0.05), 3)),
    "chain": Case(mip.chain(optim.clip_value(0.5), mip.adamw(0.05))),
    "with_decay_mask": Case(optim.with_decay_mask(partial(mip.sgd, 0.1, 0.9, True), 0.1)),
    "ema": Case(mip.chain(mip.adamw(0.05), optim.ema(0.9))),
    "lookahead": Case(optim.lookahead(mip.sgd(0.1, 0.9), 3)),
    "swa": Case(mip.chain(mip.adamw(0.05), optim.swa(4, 2))),
}
"""Every test of the battery runs for every case: a new optimizer is a new line here."""

battery = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
torchs = pytest.mark.parametrize(
    "case",
    [case for case in CASES.values() if case.kind],
    ids=[name for name, case in CASES.items() if case.kind],
)


def initial(shapes=LAYERS):
    draws = torch.Generator().manual_seed(0)
    return {name: torch.randn(*shape, generator=draws) for name, shape in shapes.items()}


def gradients(step, shapes=LAYERS):
    draws = torch.Generator().manual_seed(step + 1)
    return {name: torch.randn(shape, generator=draws) for name, shape in shapes.items()}


def steps_of(optimizer, steps, shapes=LAYERS):
    params = initial(shapes)
    state = optimizer.init(params)
    for step in range(steps):
        _, state, params = optimizer.update(gradients(step, shapes), state, params, step)
    return params


def torch_steps(make, steps, shapes=LAYERS, before=lambda optimizer, step: None):
    params = {name: nn.Parameter(each) for name, each in initial(shapes).items()}
    optimizer = make(params.values())
    for step in range(steps):
        before(optimizer, step)
        for name, grad in gradients(step, shapes).items():
            params[name].grad = grad
        optimizer.step()
    return {name: param.detach() for name, param in params.items()}


@torchs
def test_thirty_steps_equal_torchs(case):
    assert bits(steps_of(case.ours, 30, case.shapes)) == bits(
        torch_steps(case.theirs, 30, case.shapes)
    )


@torchs
def test_from_torch_equals_every_class_of_torch(case):
    converted = optim.from_torch(case.kind, case.options)
    expected = torch_steps(case.theirs, 5, case.shapes)
    assert bits(steps_of(converted, 5, case.shapes)) == bits(expected)


@battery
def test_update_does_not_change_its_arguments(case):
    grads, params = gradients(0, case.shapes), initial(case.shapes)
    state = case.ours.init(params)
    for step in range(4):
        before = bits((grads, state, params))
        _, after, moved = case.ours.update(grads, state, params, step)
        assert bits((grads, state, params)) == before
        state, params = after, moved


@battery
def test_update_in_place_equals_update_on_copies(case):
    params, state = initial(case.shapes), case.ours.init(initial(case.shapes))
    for step in range(7):
        _, state, params = case.ours.update_(gradients(step, case.shapes), state, params, step)
    assert bits(params) == bits(steps_of(case.ours, 7, case.shapes))


@battery
def test_the_order_of_the_names_does_not_matter(case):
    # A dict may come back from a file or a function in another order.
    params, state = initial(case.shapes), case.ours.init(initial(case.shapes))
    reverse = lambda tree: dict(reversed(tree.items()))  # noqa: E731
    for step in range(5):
        grads = reverse(gradients(step, case.shapes))
        _, state, params = case.ours.update(grads, state, params, step)
        params = reverse(params)
    expected = steps_of(case.ours, 5, case.shapes)
    assert all(torch.equal(params[name], expected[name]) for name in expected)


@battery
def test_a_quadratic_falls(case):
    params = initial(case.shapes)
    state, first = case.ours.init(params), sum_of_squares(params)
    for step in range(60):
        _, state, params = case.ours.update(clone(params), state, params, step)
    assert sum_of_squares(params) < 0.8 * first


def sum_of_squares(params):
    return float(sum(param.square().sum() for param in params.values()))


class Two(nn.Module):
    """A matrix and a bias twice, a batch norm and a dropout."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1)
        )

    def forward(self, x):
        return self.net(x).squeeze(1)


def batch(step):
    draws = torch.Generator().manual_seed(step)
    return torch.randn(12, 3, generator=draws), torch.randn(12, generator=draws)


def trainable(optimizer, **given):
    torch.manual_seed(0)
    net = Two()
    return mip.train_step(net, F.mse_loss, optimizer, **given), mip.init(net, optimizer), net


@battery
def test_a_step_is_pure_and_its_donated_form_the_same(case):
    step, state, net = trainable(case.ours)
    pure, mine, before = state, mip.init(net, case.ours), bits(state)
    for k in range(6):
        pure, _ = step(pure, batch(k))
        mine, _ = step.donate(mine, batch(k))
    assert bits(pure) == bits(mine)
    assert bits(state) == before


@battery
def test_training_continues_from_a_checkpoint_to_the_same_bits(case, tmp_path):
    step, state, net = trainable(case.ours)
    fresh = mip.init(net, case.ours)
    for k in range(4):
        state, _ = step(state, batch(k))
    save_checkpoint(tmp_path / "it", state, History())
    read = load_checkpoint(tmp_path / "it", fresh).state
    assert bits(read) == bits(state)
    assert all(isinstance(leaf, torch.Tensor) for leaf in leaves_of(state.optimizer))
    for k in range(4, 8):
        (state, _), (read, _) = step(state, batch(k)), step(read, batch(k))
    assert bits(read) == bits(state)


def leaves_of(tree):
    if isinstance(tree, (dict, tuple)):
        for child in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves_of(child)
    else:
        yield tree


@battery
def test_steps_are_deterministic(case):
    assert bits(steps_of(case.ours, 3, case.shapes)) == bits(steps_of(case.ours, 3, case.shapes))


@battery
def test_an_optimizer_without_parameters_does_nothing(case):
    # A partition may leave one of its optimizers without any.
    _, state, params = case.ours.update({}, case.ours.init({}), {}, 0)
    assert params == {}
    assert bits(state).keys() == bits(case.ours.init({})).keys()


# Against the papers' formulas, for optimizers that torch does not have.


def test_lamb_is_the_papers():
    lr, beta1, beta2, decay, params = 0.1, 0.9, 0.999, 0.01, initial()
    mean, square = clone(params), clone(params)
    for name, param in params.items():
        mean[name], square[name] = torch.zeros_like(param), torch.zeros_like(param)
    for step in range(10):
        for name, grad in gradients(step).items():
            mean[name] = beta1 * mean[name] + (1 - beta1) * grad
            square[name] = beta2 * square[name] + (1 - beta2) * grad**2
            ratio = (mean[name] / (1 - beta1 ** (step + 1))) / (
                (square[name] / (1 - beta2 ** (step + 1))).sqrt() + 1e-6
            )
            move = ratio + decay * params[name]
            params[name] = params[name] - lr * params[name].norm() / move.norm() * move
    torch.testing.assert_close(steps_of(optim.lamb(lr, weight_decay=decay), 10), params)


def test_lamb_moves_what_is_zero():
    params, grads = {"w": torch.zeros(2)}, {"w": torch.ones(2)}
    opt = optim.lamb(0.1)
    assert opt.update(grads, opt.init(params), params, 0)[2]["w"].tolist() == pytest.approx(
        [-0.1] * 2
    )


def test_lion_is_the_papers():
    lr, decay, params = 0.01, 0.1, initial()
    mean = {name: torch.zeros_like(param) for name, param in params.items()}
    for step in range(10):
        for name, grad in gradients(step).items():
            move = torch.sign(0.9 * mean[name] + 0.1 * grad)
            params[name] = params[name] - lr * (move + decay * params[name])
            mean[name] = 0.99 * mean[name] + 0.01 * grad
    torch.testing.assert_close(steps_of(optim.lion(lr, weight_decay=decay), 10), params)


def test_schedule_free_is_the_papers():
    lr, beta1, beta2, decay = linear_then_flat, 0.9, 0.999, 0.01
    point = initial()["bias"]
    base, mean, square, sums = point.clone(), point.clone(), torch.zeros(4), 0.0
    opt = optim.schedule_free(lr, weight_decay=decay)
    params, state = initial(), opt.init(initial())
    for step in range(10):
        _, state, params = opt.update(gradients(step), state, params, step)
        grad, now = gradients(step)["bias"], lr(step)
        square = beta2 * square + (1 - beta2) * grad**2
        root = (square / (1 - beta2 ** (step + 1))).sqrt() + 1e-8
        base = base - now * (grad / root + decay * point)
        sums += now**2
        mean = mean + now**2 / sums * (base - mean)
        point = (1 - beta1) * base + beta1 * mean
    torch.testing.assert_close(params["bias"], point)
    torch.testing.assert_close(state["average"].mean["bias"], mean)


def linear_then_flat(step):
    return 0.05 * min(step + 1, 4) / 4


def test_schedule_free_stays_while_its_learning_rate_is_zero():
    opt, params = optim.schedule_free(0.0), initial()
    _, state, after = opt.update(gradients(0), opt.init(params), params, 0)
    torch.testing.assert_close(after, params)
    torch.testing.assert_close(state["average"].mean, params)


def test_a_missing_gradient_is_an_error():
    opt = optim.lion()
    with pytest.raises(KeyError, match="bias"):
        opt.update({}, opt.init(initial()), {"bias": initial()["bias"]}, 0)


# Transforms.


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clipping_equals_torchs(limit):
    for ours, torchs in (
        (mip.clip_norm, nn.utils.clip_grad_norm_),
        (optim.clip_value, nn.utils.clip_grad_value_),
    ):
        params = {name: nn.Parameter(each) for name, each in initial().items()}
        for name, grad in gradients(0).items():
            params[name].grad = grad.clone()
        torchs(params.values(), limit)
        clipped, _, _ = ours(limit).update(gradients(0), (), initial(), 0)
        assert all(torch.equal(clipped[name], params[name].grad) for name in clipped)


def test_clipping_nothing_is_nothing():
    assert mip.clip_norm(1.0).update({}, (), {}, 0)[0] == {}


def test_clipping_leaves_gradients_of_nothing():
    zeros = {"w": torch.zeros(3)}
    clipped, _, _ = mip.clip_norm(1.0).update(zeros, (), zeros, 0)
    assert clipped["w"].tolist() == [0.0, 0.0, 0.0]


def test_one_step_of_sgd_is_the_formula():
    _, _, params = mip.sgd(0.1).update(gradients(0), {}, initial(), 0)
    assert torch.allclose(params["weight"], initial()["weight"] - 0.1 * gradients(0)["weight"])


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


@pytest.mark.parametrize("make", [mip.adamw, mip.sgd, optim.lamb, optim.muon])
def test_small_batches_accumulate_to_a_large_one(make):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0)).double()
    opt = mip.chain(mip.clip_norm(0.5), make(cosine(0.05, 5)))
    many = optim.accumulate(opt, 4)
    whole, parts = mip.train_step(net, F.mse_loss, opt), mip.train_step(net, F.mse_loss, many)
    large, small = mip.init(net, opt), mip.init(net, many)
    for k in range(5):
        x, y = (each.double() for each in batch(k))
        large, _ = whole(large, (x, y))
        for part in range(4):
            rows = slice(3 * part, 3 * part + 3)
            small, _ = parts(small, (x[rows], y[rows]))
    # Muon works in 16 bits, where the last of 64 bits may turn a rounding.
    near = {"rtol": 1e-2, "atol": 1e-3} if make is optim.muon else {"rtol": 1e-10, "atol": 1e-12}
    torch.testing.assert_close(small.params, large.params, **near)


def test_accumulating_one_is_nothing_more():
    assert bits(steps_of(optim.accumulate(mip.adamw(0.1), 1), 5)) == bits(
        steps_of(mip.adamw(0.1), 5)
    )


def test_lookahead_goes_half_of_the_way():
    params = steps_of(optim.lookahead(mip.sgd(0.1), 5, 0.5), 5)
    far = steps_of(mip.sgd(0.1), 5)
    for name, param in params.items():
        torch.testing.assert_close(param, (initial()[name] + far[name]) / 2)
    assert bits(steps_of(optim.lookahead(mip.sgd(0.1), 5), 4)) == bits(steps_of(mip.sgd(0.1), 4))


@pytest.mark.parametrize("first", [0, 3])
def test_averages_equal_torchs(first):
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    ema = optim.ema(optim.constant(0.9)), get_ema_multi_avg_fn(0.9)
    ways = {"ema": ema, "swa": (optim.swa(first), None)}
    for name, (link, how) in ways.items():
        torchs, state = AveragedModel(net, multi_avg_fn=how), link.init(initial())
        params = dict(clone(dict(net.state_dict())))
        state = link.init(params)
        for step in range(8):
            moved = {path: param + step**2 for path, param in params.items()}
            _, state, _ = link.update({}, state, moved, step)
            if name == "ema" or step >= first:
                changed = nn.Linear(3, 2)
                changed.load_state_dict(moved)
                torchs.update_parameters(changed)
        expected = dict(torchs.module.state_dict())
        torch.testing.assert_close(state.mean, expected)


def test_the_average_of_some_steps_is_their_mean():
    link, seen = optim.swa(start=2, every=3), []
    state = link.init({"w": torch.zeros(1)})
    for step in range(10):
        _, state, _ = link.update({}, state, {"w": torch.ones(1) * step}, step)
        seen.append(float(state.mean["w"]))
    assert seen == pytest.approx([0, 1, 2, 2, 2, 3.5, 3.5, 3.5, 5, 5])


@pytest.mark.parametrize(
    "opt",
    [
        mip.chain(mip.adamw(0.1), optim.ema(0.9)),
        optim.partition(
            {"0": optim.schedule_free(0.1), "3": mip.sgd(0.1), "1": mip.sgd(0.1)},
            lambda path: path[4],
        ),
    ],
    ids=["ema", "some"],
)
def test_a_state_is_evaluated_by_its_averages(opt):
    step, state, net = trainable(opt)
    for k in range(5):
        state, _ = step(state, batch(k))
    mean, before = with_averaged_params(state), bits(state)
    assert bits(mean.params) != bits(state.params)
    assert (bits(mean.buffers), mean.step) == (bits(state.buffers), 5)
    net.load_state_dict(mean.params | mean.buffers, strict=False)
    x = batch(9)[0]
    assert torch.equal(eval_step(Two())(state, x), net.eval()(x))
    mean.params["net.0.weight"].add_(1)
    assert bits(state) == before


def test_without_an_average_a_state_is_itself():
    _, state, _ = trainable(mip.adamw())
    assert with_averaged_params(state) is state


def test_a_run_saves_and_validates_the_averages(table, tmp_path):
    train = (
        '[train]\nepochs = 3\nbatch_size = 4\noptimizer = { kind = "schedule_free", lr = 0.05 }\n'
    )
    spec = mip.parse(NUMBERS + HEADS["regression"] + train + 'schedule = { kind = "constant" }\n')
    run = mip.run(spec, mip.model.Parts(table, table, table), out=tmp_path)
    rows, saved = table, mip.load(tmp_path / "model.safetensors")
    assert run.predict(rows).equals(saved(rows))
    raw = mip.predictor(run.plan, mip.files.load_model(tmp_path / "model.safetensors")[1])
    assert raw(rows).equals(saved(rows))
    assert bits(run.state.params) != bits(with_averaged_params(run.state).params)
    score = mip.evaluate(saved, rows)
    assert score["loss"] == pytest.approx(run.history.epochs[-1]["valid/loss"], rel=1e-5)


def test_sharpness_aware_steps_are_the_papers():
    torch.manual_seed(0)
    net, radius = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0)), 0.1
    opt = mip.sgd(0.1)
    step = mip.train_step(net, F.mse_loss, opt, gradient_rule=sharpness_aware(radius))
    after, metrics = step(mip.init(net, opt), batch(0))
    x, y = batch(0)
    loss = F.mse_loss(net(x), y)
    grads = torch.autograd.grad(loss, list(net.parameters()))
    far = radius / torch.cat([grad.flatten() for grad in grads]).norm()
    before = [param.detach().clone() for param in net.parameters()]
    with torch.no_grad():
        for param, grad in zip(net.parameters(), grads, strict=True):
            param.add_(far * grad)
    grads = torch.autograd.grad(F.mse_loss(net(x), y), list(net.parameters()))
    expected = [param - 0.1 * grad for param, grad in zip(before, grads, strict=True)]
    assert metrics["loss"] == loss.detach()
    torch.testing.assert_close(list(after.params.values()), expected)


def test_sharpness_aware_steps_are_pure_and_count_a_batch_once():
    step, state, net = trainable(mip.adamw(0.1), gradient_rule=sharpness_aware())
    before = bits(state)
    pure, _ = step(state, batch(0))
    assert bits(state) == before
    mine, _ = step.donate(mip.init(net, mip.adamw(0.1)), batch(0))
    assert bits(mine) == bits(pure)
    plain, _ = mip.train_step(net, F.mse_loss, mip.adamw(0.1))(state, batch(0))
    assert bits(pure.buffers) == bits(plain.buffers)
    assert bits(pure.params) != bits(plain.params)


# Masked weight decay.


def test_weights_decay_only_where_they_should():
    opt = optim.with_decay_mask(lambda decay: mip.adamw(0.1, weight_decay=decay), 0.5)
    params = initial()
    nothing = {name: torch.zeros_like(param) for name, param in params.items()}
    after = opt.update(nothing, opt.init(params), params, 0)[2]
    assert torch.equal(after["bias"], params["bias"])
    assert torch.equal(after["weight"], params["weight"] * (1 - 0.1 * 0.5))


WHOLE = """
        branch.rooms = { kind = "continuous", columns = ["area"], embedding = "piecewise" }
        branch.place = { kind = "categorical", columns = ["town"] }
        branch.photos = { kind = "image", columns = ["front"], size = 16, missing = "learn" }
        head = { kind = "regression", column = "price", layers = [4] }
"""


def test_what_decays_of_a_whole_model(table):
    params = dict(mip.build(mip.adapt(mip.parse(WHOLE), table)).named_parameters())
    chosen = {path for path, param in params.items() if is_matrix(path, param.shape)}
    assert {path for path in params if path.startswith("head.")} & chosen
    assert any("photos.backbone" in path for path in chosen)
    assert not any(path.endswith("bias") or params[path].dim() < 2 for path in chosen)
    assert not any("place." in path for path in chosen)
    # A layer for each column of numbers has a matrix for each.
    assert "body.branch.rooms.weight" in chosen


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("backbone.patch_embed.proj.weight", True),
        ("backbone.self_attn.in_proj_weight", True),
        ("branch.stable.layers.0.weight", True),
        ("backbone.pos_embed", False),
        ("words.embedding.weight", False),
        ("words.Embeddings.3.weight", False),
        ("weight", True),
    ],
)
def test_embeddings_are_known_by_their_names(path, expected):
    assert is_matrix(path, torch.Size([3, 4])) == expected


def test_muon_gives_the_rest_to_adamw():
    params = steps_of(optim.muon(0.1), 10)
    rest = steps_of(mip.adamw(0.1, weight_decay=0.1), 10)
    assert torch.equal(params["bias"], rest["bias"])
    assert torch.equal(params["deep.weight"], rest["deep.weight"])
    assert not torch.equal(params["weight"], rest["weight"])
    still = steps_of(optim.muon(0.1, others=mip.sgd(0.0)), 10)
    assert torch.equal(still["bias"], initial()["bias"])


# Hyper-parameters that follow a schedule.


def test_a_schedule_sets_the_rate_of_each_step():
    rates = [0.1, 0.2, 0.0]
    optimizer = mip.sgd(lambda step: rates[step])
    params, grads = {"w": torch.zeros(1)}, {"w": torch.ones(1)}
    for step in range(3):
        _, _, params = optimizer.update(grads, {}, params, step)
    assert params["w"].item() == pytest.approx(-0.3)


HYPERS = {
    "adafactor": (optim.adafactor, {"lr": 0.1, "beta2_decay": -0.5, "weight_decay": 0.1}),
    "adagrad": (optim.adagrad, {"lr": 0.1, "weight_decay": 0.1}),
    "adam": (optim.adam, {"lr": 0.1, "betas": (0.8, 0.9), "weight_decay": 0.1}),
    "adamw": (optim.adamw, {"lr": 0.1, "betas": (0.8, 0.9), "weight_decay": 0.1}),
    "lamb": (optim.lamb, {"lr": 0.1, "betas": (0.8, 0.9), "weight_decay": 0.1}),
    "lion": (optim.lion, {"lr": 0.1, "betas": (0.8, 0.9), "weight_decay": 0.1}),
    "muon": (optim.muon, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    "nadam": (optim.nadam, {"lr": 0.1, "betas": (0.8, 0.9), "momentum_decay": 0.1}),
    "radam": (optim.radam, {"lr": 0.1, "betas": (0.8, 0.9), "weight_decay": 0.1}),
    "rmsprop": (optim.rmsprop, {"lr": 0.1, "alpha": 0.9, "momentum": 0.5}),
    "schedule_free": (optim.schedule_free, {"lr": 0.1, "betas": (0.8, 0.9)}),
    "sgd": (optim.sgd, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
}


@pytest.mark.parametrize("name", HYPERS)
def test_every_hyper_parameter_may_be_a_function_of_the_step(name):
    make, numbers = HYPERS[name]

    def schedule(hyper):
        return tuple(map(constant, hyper)) if isinstance(hyper, tuple) else constant(hyper)

    schedules = {key: schedule(hyper) for key, hyper in numbers.items()}
    assert bits(steps_of(make(**schedules), 4)) == bits(steps_of(make(**numbers), 4))


def test_momentum_and_decay_follow_their_schedules():
    momentum, decay = optim.linear(0.8, 0.95, 10), optim.linear(0.0, 0.5, 10)

    def before(optimizer, step):
        values = {"betas": (momentum(step), 0.999), "weight_decay": decay(step)}
        optimizer.param_groups[0].update(values)

    expected = torch_steps(partial(T.AdamW, lr=0.1, fused=True), 10, before=before)
    ours = mip.adamw(0.1, betas=(momentum, 0.999), weight_decay=decay)
    assert bits(steps_of(ours, 10)) == bits(expected)


# Classes of torch's form.


class Stateful(T.Optimizer):
    """Keeps an int, a bool and a float for each parameter, and counts in its group."""

    def __init__(self, params, lr=0.1, word=None):
        super().__init__(params, {"lr": lr, "seen": 0, "level": 1.0})
        self.word = word

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["seen"], group["level"] = group["seen"] + 1, group["level"] * 0.5
            for param in group["params"]:
                state = self.state[param]
                if self.word:
                    state["word"] = self.word
                state["k"], state["odd"] = state.get("k", 0) + 1, not state.get("odd", False)
                state["sum"], state["none"] = state.get("sum", 0.0) + 0.1, None
                scale = group["lr"] * group["level"] / group["seen"] + state["sum"] * state["k"]
                param.data = param.data - (scale if state["odd"] else 0.1) * param.grad


def test_numbers_of_a_class_in_torchs_form_are_kept():
    expected = torch_steps(Stateful, 6)
    assert bits(steps_of(optim.from_torch(Stateful), 6)) == bits(expected)


def test_a_rate_of_a_class_in_torchs_form_may_follow_a_schedule():
    rate = optim.linear(0.1, 0.0, 6)

    def before(optimizer, step):
        optimizer.param_groups[0]["lr"] = rate(step)

    expected = torch_steps(T.Adamax, 6, before=before)
    assert bits(steps_of(optim.from_torch(T.Adamax, lr=rate), 6)) == bits(expected)


def test_what_a_checkpoint_cannot_hold_is_named():
    with pytest.raises(MipError, match="Stateful keeps 'word' as str: only tensors and numbers"):
        optim.from_torch(Stateful, {"word": "x"}).init(initial())


# Optimizers in a spec.

KINDS = {name: kind for name, kind in mip.KINDS.items() if plays(kind, OptimizerSpec)}
TEXT = NUMBERS + HEADS["regression"]


@pytest.mark.parametrize("decay", ["all", "matrices"])
@pytest.mark.parametrize("name", KINDS)
def test_a_spec_names_every_optimizer(name, decay):
    train = f'[train]\noptimizer = {{ kind = "{name}", lr = 0.01, decay_params = "{decay}" }}\n'
    train += 'schedule = { kind = "constant" }\n'
    spec = mip.parse(TEXT + train)
    assert mip.parse(mip.dump(spec)) == spec
    kind = spec.train.optimizer
    assert type(kind) is KINDS[name]
    assert pickle.loads(pickle.dumps(kind)) == kind
    step, state, _ = trainable(kind.optimizer(constant(kind.lr)))
    for k in range(3):
        state, metrics = step(state, batch(k))
    assert metrics["loss"].isfinite()


@pytest.mark.parametrize("decay", ["all", "matrices"])
@pytest.mark.parametrize("name", KINDS)
def test_a_spec_builds_the_optimizer_of_its_function(name, decay):
    options = {"weight_decay": 0.2, "decay_params": decay}
    # SGD's momentum is 0.9 in a spec, where more than half of those who write one want it.
    momentum = {"momentum": 0.9} if name == "sgd" else {}
    expected = getattr(optim, name)(0.01, **options, **momentum)
    optimizer = KINDS[name](lr=0.5, **options).optimizer(constant(0.01))
    assert bits(steps_of(optimizer, 5)) == bits(steps_of(expected, 5))


MISTAKES = {
    'kind = "adamw", decay_params = "matrix"': (
        "train.optimizer.decay_params = 'matrix' is not allowed; did you mean 'matrices'? "
        "(known: all, matrices)"
    ),
    'kind = "adam", betas = [0.9]': (
        "train.optimizer.betas must be two numbers from 0 to below 1: [0.9]"
    ),
    'kind = "lion", betas = [0.9, 1.0]': (
        "train.optimizer.betas must be two numbers from 0 to below 1: [0.9, 1.0]"
    ),
    'kind = "muon", momentum = 1.0': "train.optimizer.momentum must be < 1: 1.0",
    'kind = "adafactor", beta2_decay = 0.8': "train.optimizer.beta2_decay must be < 0: 0.8",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_in_a_spec_is_named(text):
    with pytest.raises(mip.errors.SpecError) as caught:
        mip.parse(TEXT + f"[train]\noptimizer = {{ {text} }}\n")
    assert str(caught.value) == MISTAKES[text]


ONLY_IN_PYTHON = {"adafactor": {"eps"}, "muon": {"adjust_lr_fn", "others"}}


@pytest.mark.parametrize("name", KINDS)
def test_a_spec_has_the_parameters_and_defaults_of_the_function(name):
    parameters = inspect.signature(getattr(optim, name)).parameters
    defaults = {key: parameter.default for key, parameter in parameters.items()}
    for key in ONLY_IN_PYTHON.get(name, ()):
        del defaults[key]
    if name == "sgd":  # to change either would change what is trained
        assert defaults["momentum"] == 0.0
        defaults["momentum"] = 0.9
    fields = [(field.name, field.default) for field in attrs.fields(KINDS[name])]
    assert fields == list(defaults.items())


def test_the_default_that_differs_is_documented():
    page = (Path(__file__).parents[2] / "docs/training.md").read_text()
    assert "in a spec a momentum of 0.9; in Python it is 0" in page
    assert "a spec's `sgd` has 0.9" in inspect.getdoc(mip.sgd)


def test_nesterov_without_momentum_is_refused_in_python_and_ignored_in_a_spec():
    with pytest.raises(ValueError, match="'nesterov' needs a momentum"):
        mip.sgd(0.1, nesterov=True)
    plain = optim.SGD(momentum=0.0, nesterov=True).optimizer(constant(0.1))
    params, grads = {"w": torch.ones(2)}, {"w": torch.ones(2)}
    after = plain.update(grads, plain.init(params), params, 0)[2]
    assert bits(after) == bits(mip.sgd(0.1).update(grads, {}, params, 0)[2])


def test_every_optimizer_has_a_kind_and_is_compared():
    folder = Path(optim.__file__).parent / "optimizers"
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "from_torch"}
    assert modules <= set(KINDS), "list the optimizer in mip/spec/kinds.py"
    compared = {name.split()[0] for name in CASES}
    assert set(KINDS) - {"schedule_free"} <= compared, "add the optimizer to CASES"


def test_every_optimizer_and_its_class_can_be_imported_from_optim():
    for name, kind in KINDS.items():
        assert getattr(optim, kind.__name__) is kind
        assert callable(getattr(optim, name))


OPTIMIZERS_OF_VERSION_1 = [
    "adafactor",
    "adagrad",
    "adam",
    "adamw",
    "lamb",
    "lion",
    "muon",
    "nadam",
    "radam",
    "rmsprop",
    "schedule_free",
    "sgd",
]
OLD_NAMES = {
    'kind = "adafactor", threshold = 2.0': 'kind = "adafactor", clip_threshold = 2.0',
    'kind = "adagrad", initial = 0.5': 'kind = "adagrad", initial_accumulator_value = 0.5',
    'kind = "nadam", decoupled = true': 'kind = "nadam", decoupled_weight_decay = true',
    'kind = "radam", decoupled = true': 'kind = "radam", decoupled_weight_decay = true',
    **{
        f'kind = "{name}", decay = "matrices"': f'kind = "{name}", decay_params = "matrices"'
        for name in OPTIMIZERS_OF_VERSION_1
    },
}


@pytest.mark.parametrize("old", OLD_NAMES)
def test_a_spec_of_version_1_has_other_names(old):
    train = 'train.schedule.kind = "constant"\ntrain.optimizer = '
    expected = mip.parse(f"{train}{{ {OLD_NAMES[old]} }}\n{TEXT}")
    assert mip.parse(f"version = 1\n{train}{{ {old} }}\n{TEXT}") == expected


class Named(torch.nn.Module):
    """Layers under names that say nothing, or the wrong thing."""

    def __init__(self):
        super().__init__()
        self.tokens = torch.nn.Embedding(5, 3)
        self.table = torch.nn.Linear(3, 3)
        self.norm = torch.nn.LayerNorm([2, 3])
        self.rnn = torch.nn.GRU(3, 3, bidirectional=True)
        self.attention = torch.nn.MultiheadAttention(4, 2)
        self.position = torch.nn.Parameter(torch.zeros(2, 3))


def test_what_decays_goes_by_what_the_modules_are():
    net = Named()
    mask = optim.matrices_of(net)
    chosen = {path for path, param in net.named_parameters() if mask(path, param.shape)}
    rnn = {f"rnn.weight_{kind}_l0{way}" for kind in ("ih", "hh") for way in ("", "_reverse")}
    assert chosen == {"table.weight", "attention.in_proj_weight", "attention.out_proj.weight", *rnn}
    assert all(is_matrix(path, torch.Size([3, 3])) for path in rnn)


def test_names_and_modules_agree_on_a_whole_model(table):
    net = mip.build(mip.adapt(mip.parse(WHOLE), table))
    mask = optim.matrices_of(net)
    for path, param in net.named_parameters():
        assert mask(path, param.shape) == is_matrix(path, param.shape), path
