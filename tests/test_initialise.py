"""What begins anew does so by its rule, and nothing else changes by a bit."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from attrs import evolve
from conftest import bits, spec_of
from torch import nn

import mip
from mip.branches.backbone import SmallResNet
from mip.errors import MipError, SpecError
from mip.initialise import INITIALISERS, Rule, lsuv, paths, reinit

N, M = 300, 400
"""Outputs and inputs of the layer whose deviation is measured."""

STDS = {
    "normal": ({"std": 0.02}, 0.02),
    "uniform": ({"a": -1.0, "b": 1.0}, 2 / math.sqrt(12)),
    "kaiming_normal": ({"nonlinearity": "relu"}, math.sqrt(2 / M)),
    "kaiming_uniform": ({"nonlinearity": "relu", "mode": "fan_out"}, math.sqrt(2 / N)),
    "xavier_normal": ({}, math.sqrt(2 / (N + M))),
    "xavier_uniform": ({"gain": 2.0}, 2 * math.sqrt(2 / (N + M))),
    "orthogonal": ({}, 1 / math.sqrt(M)),
    "trunc_normal": ({"std": 0.5, "a": -5.0, "b": 5.0}, 0.5),
    "sparse": ({"sparsity": 0.75, "std": 2.0}, 2 * math.sqrt(0.25)),
}


def layer() -> dict[str, torch.Tensor]:
    net = nn.Sequential(nn.Linear(M, N), nn.ReLU(), nn.Linear(N, 4))
    return {name: param.detach() for name, param in net.named_parameters()}


@pytest.mark.parametrize("how", STDS)
def test_the_deviation_of_a_layer_is_that_of_theory(how):
    options, want = STDS[how]
    after = reinit(layer(), [Rule("0.weight", how, options)], seed=3)["0.weight"]
    assert float(after.std()) == pytest.approx(want, rel=0.05)
    assert abs(float(after.mean())) < 0.05 * want + 1e-3


@pytest.mark.parametrize(
    ("how", "options", "want"),
    [
        ("ones", {}, torch.ones(4, 4)),
        ("zeros", {}, torch.zeros(4, 4)),
        ("eye", {}, torch.eye(4)),
        ("constant", {"val": 0.3}, torch.full((4, 4), 0.3)),
    ],
)
def test_a_fixed_initialiser_gives_its_values(how, options, want):
    assert torch.equal(reinit({"a": torch.randn(4, 4)}, [Rule("a", how, options)])["a"], want)


def test_dirac_lets_channels_through():
    kernel = reinit({"a": torch.zeros(3, 3, 3, 3)}, [Rule("a", "dirac")])["a"]
    photo = torch.rand(1, 3, 8, 8)
    assert torch.equal(torch.conv2d(photo, kernel, padding=1), photo)


def test_every_name_is_tested_and_is_torchs_own():
    assert set(INITIALISERS) == {*STDS, "ones", "zeros", "eye", "constant", "dirac"}
    assert all(INITIALISERS[name] is getattr(nn.init, f"{name}_") for name in INITIALISERS)


def test_only_what_matches_changes():
    params = layer()
    before, random = bits(params), torch.get_rng_state()
    after = reinit(params, [Rule("*.weight", "normal")])
    assert after["0.bias"] is params["0.bias"]
    assert after["2.bias"] is params["2.bias"]
    assert not torch.equal(after["0.weight"], params["0.weight"])
    assert list(after) == list(params)
    assert bits(params) == before
    assert torch.equal(torch.get_rng_state(), random)


def test_draws_are_a_function_of_seed_and_path():
    params = layer()
    one, two = (reinit(params, [Rule("*.weight", "normal")], seed=7) for _ in range(2))
    alone = reinit(params, [Rule("2.weight", "normal")], seed=7)
    assert bits(one) == bits(two)
    assert torch.equal(alone["2.weight"], one["2.weight"])
    other = reinit(params, [Rule("*.weight", "normal")], seed=8)
    assert not torch.equal(other["0.weight"], one["0.weight"])


def test_the_last_rule_that_matches_counts():
    rules = [
        Rule("*", "ones"),
        Rule("*.bias", "zeros"),
        Rule(("2.weight",), "constant", {"val": 3}),
    ]
    after = reinit(layer(), rules)
    assert {path: float(param.max()) for path, param in after.items()} == {
        "0.weight": 1.0,
        "0.bias": 0.0,
        "2.weight": 3.0,
        "2.bias": 0.0,
    }


def test_a_rule_goes_by_the_type_of_a_module():
    net = SmallResNet(4)
    params = {name: param.detach() for name, param in net.named_parameters()}
    norms = paths(net, nn.BatchNorm2d, "weight")
    after = reinit(params, [Rule(norms, "zeros")])
    assert len(norms) == 7
    assert all(not after[path].any() for path in norms)
    assert all(after[path] is params[path] for path in params if path not in norms)


def test_a_function_of_ones_own_is_an_initialiser():
    def halves(tensor, share=0.5):
        tensor.fill_(share)

    rules = [
        Rule("0.*", halves),
        Rule("2.*", halves, {"share": 0.25}),
        Rule("2.bias", nn.init.ones_),
    ]
    after = reinit(layer(), rules)
    assert [float(param.max()) for param in after.values()] == [0.5, 0.5, 0.25, 1.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_precision_stays_as_it_is(dtype):
    after = reinit({"a": torch.zeros(8, 8, dtype=dtype)}, [Rule("a", "orthogonal")])["a"]
    assert after.dtype == dtype
    assert float((after.double() @ after.double().T - torch.eye(8)).abs().max()) < 0.05


def test_a_state_begins_anew_and_trains(table):
    plan = mip.adapt(spec_of(), table)
    net, one = mip.build(plan), mip.sgd(0.1)
    state = mip.init(net, one)
    zeroed = evolve(state, params=reinit(state.params, [Rule("head.*", "zeros")]))
    assert mip.train_step(net, plan.loss, one)(zeroed, plan.encode(table))[0].step == 1
    changed = {path for path in state.params if zeroed.params[path] is not state.params[path]}
    assert changed == {path for path in state.params if path.startswith("head.")}


ERRORS = {
    ("a", "xavier_nromal", ()): (
        "init: 'xavier_nromal' is not an initialiser; did you mean 'xavier_normal'? (known: "
    ),
    ("hed.*", "ones", ()): (
        "init: 'hed.*' matches no parameter; did you mean 'head.b'? (known: a, head.b)"
    ),
    ("head.b", "xavier_normal", ()): (
        "init: xavier_normal cannot fill head.b of shape [3]: Fan in and fan out can not be"
    ),
    ("a", "normal", (("sdt", 1.0),)): (
        "init: 'sdt' is not an option of normal; did you mean 'std'? (known: mean, std)"
    ),
    ("a", "constant", ()): "init: constant cannot fill a of shape [2, 3]: constant_() missing 1",
    ("a", "normal", (("std", -1.0),)): "init: normal cannot fill a of shape [2, 3]: normal expects",
}


@pytest.mark.parametrize(("rule", "error"), ERRORS.items(), ids=[*map(str, range(len(ERRORS)))])
def test_an_error_says_what_where_and_the_nearest(rule, error):
    where, how, options = rule
    with pytest.raises(SpecError) as caught:
        reinit(
            {"a": torch.zeros(2, 3), "head.b": torch.zeros(3)}, [Rule(where, how, dict(options))]
        )
    assert str(caught.value).startswith(error)


# LSUV.


def stds(net, params, inputs):
    """The deviation of every linear and convolution layer's output, by path."""
    found = {}
    copied = {path: layer for path, layer in net.named_modules() if "weight" in layer._parameters}
    layers = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)
    handles = [
        layer.register_forward_hook(lambda _, __, out, path=path: found.update({path: out.std()}))
        for path, layer in copied.items()
        if isinstance(layer, layers)
    ]
    with torch.no_grad():
        torch.func.functional_call(net.eval(), params, (inputs,))
    for handle in handles:
        handle.remove()
    return {path: float(std) for path, std in found.items()}


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


NETS = {
    "mlp": lambda: (
        nn.Sequential(*[m for _ in range(20) for m in (nn.Linear(64, 64), nn.Tanh())]),
        noise(128, 64),
    ),
    "residual": lambda: (SmallResNet(8), 5 * noise(16, 3, 32, 32) + 1),
    "transposed": lambda: (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 4, 3)),
        noise(8, 3, 9, 9),
    ),
    "resnet18": lambda: (torchvision.models.resnet18(), noise(8, 3, 64, 64)),
}


@pytest.mark.parametrize("name", NETS)
def test_lsuv_brings_every_layer_to_unit_deviation(name):
    net, inputs = NETS[name]()
    before, random = bits(net.state_dict()), torch.get_rng_state()
    params = lsuv(net, inputs)
    assert bits(net.state_dict()) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert net.training
    found = stds(net, params, inputs)
    assert found
    assert all(abs(std - 1) <= 0.1 for std in found.values()), found


def test_lsuv_changes_weights_alone_and_is_a_function_of_the_seed():
    net, inputs = NETS["residual"]()
    one, two, other = (lsuv(net, inputs, seed) for seed in (0, 0, 1))
    assert bits(one) == bits(two)
    assert bits(one) != bits(other)
    own = dict(net.named_parameters())
    convs = paths(net, nn.Conv2d, "weight")
    assert set(one) == set(own)
    assert all(torch.equal(one[path], own[path]) for path in own if path not in convs)


def test_lsuv_leaves_frozen_layers_and_begins_a_mixed_model(table):
    plan = mip.adapt(spec_of(), table)
    net = mip.build(plan)
    net.body.branch["photos"].requires_grad_(False)
    batch, state = plan.encode(table), mip.init(net, mip.sgd(0.1))
    params = lsuv(net, batch.inputs)
    assert set(params) == set(state.params)
    assert abs(stds(net, params | state.buffers, batch.inputs)["head.0"] - 1) <= 0.1


def test_lsuv_names_a_layer_that_says_nothing():
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU())
    with pytest.raises(
        MipError, match=r"^lsuv: the output of 0 has variance 0, and cannot have 1$"
    ):
        lsuv(net, torch.zeros(3, 4))
