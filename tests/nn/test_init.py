"""What begins anew does so by its rule, and nothing else changes by a bit."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from attrs import evolve, frozen
from conftest import HEADS, NUMBERS, bits, spec_of
from torch import nn

import mip
from mip.errors import MipError, SpecError
from mip.nn import INITIALIZERS, InitRule, SmallResNet, reinit
from mip.nn.init import lsuv, parameter_paths

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


@pytest.mark.parametrize("initializer", STDS)
def test_the_standard_deviation_of_a_layer_is_that_of_theory(initializer):
    options, expected = STDS[initializer]
    after = reinit(layer(), [InitRule("0.weight", initializer, options)], seed=3)["0.weight"]
    assert float(after.std()) == pytest.approx(expected, rel=0.05)
    assert abs(float(after.mean())) < 0.05 * expected + 1e-3


@pytest.mark.parametrize(
    ("initializer", "options", "expected"),
    [
        ("ones", {}, torch.ones(4, 4)),
        ("zeros", {}, torch.zeros(4, 4)),
        ("eye", {}, torch.eye(4)),
        ("constant", {"val": 0.3}, torch.full((4, 4), 0.3)),
    ],
)
def test_a_fixed_initializer_gives_its_values(initializer, options, expected):
    assert torch.equal(
        reinit({"a": torch.randn(4, 4)}, [InitRule("a", initializer, options)])["a"], expected
    )


def test_dirac_lets_channels_through():
    kernel = reinit({"a": torch.zeros(3, 3, 3, 3)}, [InitRule("a", "dirac")])["a"]
    photo = torch.rand(1, 3, 8, 8)
    assert torch.equal(torch.conv2d(photo, kernel, padding=1), photo)


def test_every_name_is_tested_and_is_one_of_torch():
    assert set(INITIALIZERS) == {*STDS, "ones", "zeros", "eye", "constant", "dirac"}
    assert all(INITIALIZERS[name] is getattr(nn.init, f"{name}_") for name in INITIALIZERS)


def test_only_matching_parameters_change():
    params = layer()
    before, random = bits(params), torch.get_rng_state()
    after = reinit(params, [InitRule("*.weight", "normal")])
    assert after["0.bias"] is params["0.bias"]
    assert after["2.bias"] is params["2.bias"]
    assert not torch.equal(after["0.weight"], params["0.weight"])
    assert list(after) == list(params)
    assert bits(params) == before
    assert torch.equal(torch.get_rng_state(), random)


def test_draws_are_a_function_of_seed_and_path():
    params = layer()
    one, two = (reinit(params, [InitRule("*.weight", "normal")], seed=7) for _ in range(2))
    alone = reinit(params, [InitRule("2.weight", "normal")], seed=7)
    assert bits(one) == bits(two)
    assert torch.equal(alone["2.weight"], one["2.weight"])
    other = reinit(params, [InitRule("*.weight", "normal")], seed=8)
    assert not torch.equal(other["0.weight"], one["0.weight"])


def test_the_last_matching_rule_wins():
    rules = [
        InitRule("*", "ones"),
        InitRule("*.bias", "zeros"),
        InitRule(("2.weight",), "constant", {"val": 3}),
    ]
    after = reinit(layer(), rules)
    assert {path: float(param.max()) for path, param in after.items()} == {
        "0.weight": 1.0,
        "0.bias": 0.0,
        "2.weight": 3.0,
        "2.bias": 0.0,
    }


def test_a_rule_may_match_by_class_of_module():
    net = SmallResNet(4)
    params = {name: param.detach() for name, param in net.named_parameters()}
    norms = parameter_paths(net, nn.BatchNorm2d, "weight")
    after = reinit(params, [InitRule(norms, "zeros")])
    assert len(norms) == 7
    assert all(not after[path].any() for path in norms)
    assert all(after[path] is params[path] for path in params if path not in norms)


def test_a_custom_function_is_an_initializer():
    def halves(tensor, share=0.5):
        tensor.fill_(share)

    rules = [
        InitRule("0.*", halves),
        InitRule("2.*", halves, {"share": 0.25}),
        InitRule("2.bias", nn.init.ones_),
    ]
    after = reinit(layer(), rules)
    assert [float(param.max()) for param in after.values()] == [0.5, 0.5, 0.25, 1.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_is_kept(dtype):
    after = reinit({"a": torch.zeros(8, 8, dtype=dtype)}, [InitRule("a", "orthogonal")])["a"]
    assert after.dtype == dtype
    assert float((after.double() @ after.double().T - torch.eye(8)).abs().max()) < 0.05


def test_a_redrawn_state_trains(table):
    plan = mip.adapt(spec_of(), table)
    net, one = mip.build(plan), mip.sgd(0.1)
    state = mip.init(net, one)
    zeroed = evolve(state, params=reinit(state.params, [InitRule("head.*", "zeros")]))
    assert mip.train_step(net, plan.loss, one)(zeroed, plan.encode(table))[0].step == 1
    changed = {path for path in state.params if zeroed.params[path] is not state.params[path]}
    assert changed == {path for path in state.params if path.startswith("head.")}


ERRORS = {
    ("a", "xavier_nromal", ()): (
        "init: 'xavier_nromal' is not an initializer; did you mean 'xavier_normal'? (known: "
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
def test_an_error_has_the_place_and_the_nearest_name(rule, error):
    where, initializer, options = rule
    with pytest.raises(SpecError) as caught:
        reinit(
            {"a": torch.zeros(2, 3), "head.b": torch.zeros(3)},
            [InitRule(where, initializer, dict(options))],
        )
    assert str(caught.value).startswith(error)


# From a spec.

WIDE = f"""
[branch.wide]
kind = "fuse"
layers = [{M}, {N}]
[branch.wide.branch.sizes]
kind = "continuous"
columns = ["area", "rooms"]
[branch.photos]
kind = "image"
columns = ["front"]
size = 8
base_channels = 32
missing = "learn"
"""


def init_of(match: str, initializer: str, **options: object) -> str:
    text = ", ".join(f"{name} = {value!r}" for name, value in options.items())
    return f"[[init]]\nmatch = '{match}'\ninitializer = '{initializer}'\noptions = {{ {text} }}\n"


def built(table, *rules: str, branches: str = WIDE, seed: int = 0, **options: object):
    spec = mip.parse(branches + HEADS["regression"] + "".join(rules), **options)
    net = mip.build(mip.adapt(spec, table), seed)
    return {path: param.detach() for path, param in net.named_parameters()}


def between(params) -> torch.Tensor:
    """The layer with N outputs and M inputs."""
    return next(param for param in params.values() if param.shape == (N, M))


@pytest.mark.parametrize("initializer", STDS)
def test_a_layer_is_initialized_by_the_rule_of_the_spec(initializer, table):
    options, expected = STDS[initializer]
    weight = between(built(table, init_of("wide.layers.*.weight", initializer, **options)))
    assert float(weight.std()) == pytest.approx(expected, rel=0.05)


def test_exact_initializers_give_their_values_in_a_spec(table):
    def of(initializer, **options):
        return built(table, init_of("wide.layers.*.weight", initializer, **options))

    assert torch.equal(between(of("eye")), torch.eye(N, M))
    assert (between(of("constant", val=0.3)) == 0.3).all()
    weight = between(of("orthogonal"))
    torch.testing.assert_close(weight @ weight.T, torch.eye(N), atol=1e-5, rtol=0)
    zeros = (between(of("sparse", sparsity=0.75)) == 0).sum(dim=0)
    assert zeros.unique().tolist() == [0.75 * N]
    kernels = built(table, init_of("photos.backbone.*.first.weight", "dirac"))
    square = [kernel for path, kernel in kernels.items() if path.endswith("first.weight")]
    assert square
    for kernel in square:
        photo = torch.rand(1, kernel.shape[1], 5, 5)
        through = torch.conv2d(photo, kernel, padding=1)
        assert torch.equal(through[:, : photo.shape[1]], photo)


def test_other_parameters_start_as_without_rules(table):
    plain = built(table, seed=3)
    after = built(table, init_of("wide.*.weight", "normal", std=0.1), seed=3)
    changed = {path for path in plain if not torch.equal(plain[path], after[path])}
    matched = {path for path in plain if path.startswith("body.branch.wide.")}
    assert changed == {path for path in matched if path.endswith(".weight")} < matched
    assert bits(after) == bits(built(table, init_of("wide.*.weight", "normal", std=0.1), seed=3))
    other = built(table, init_of("wide.*.weight", "normal", std=0.1), seed=4)
    assert not torch.equal(between(other), between(after))


def test_a_rule_in_a_spec_is_the_rule_in_python(table):
    rule = InitRule("body.branch.wide.*.weight", "xavier_normal", {"gain": 0.5})
    by_hand = reinit(built(table, seed=3), [rule], seed=3)
    by_spec = built(table, init_of("wide.*.weight", "xavier_normal", gain=0.5), seed=3)
    assert bits(by_hand) == bits(by_spec)


def test_the_last_rule_of_a_spec_wins(table):
    # The first alone could not fill the biases, which have no fans.
    rules = init_of("wide.layers.*", "xavier_normal"), init_of("*.bias", "zeros")
    params = built(table, *rules)
    assert all(not param.any() for path, param in params.items() if path.endswith(".bias"))
    assert between(params).any()


@frozen
class Fixed:
    """A kind whose weights are fixed."""

    kind = "fixed"
    columns: tuple[str, ...] = ("area",)

    def adapt(self, rows):
        return {}

    def encode(self, facts, rows):
        return torch.zeros(len(rows), 2)

    def module(self, facts):
        return nn.Linear(2, 2)

    def pretrain(self, module):
        for param in module.parameters():
            nn.init.constant_(param, 7.0)


def test_a_rule_overrides_a_pretrained_weight(table):
    kinds = {**mip.KINDS, "fixed": Fixed}
    spec = NUMBERS + '[branch.fixed]\nkind = "fixed"\n' + HEADS["regression"]
    for rules, expected in ("", 7.0), (init_of("fixed.weight", "constant", val=3), 3.0):
        net = mip.build(mip.adapt(mip.parse(spec + rules, kinds), table))
        assert net.body.branch["fixed"].weight.unique().tolist() == [expected]
        assert net.body.branch["fixed"].bias.unique().tolist() == [7.0]


def test_a_frozen_parameter_is_initialized_by_its_rule_too(table):
    freeze = 'freeze = "all"\n'
    params = built(table, init_of("photos.backbone.*", "ones"), branches=WIDE + freeze)
    backbone = [param for path, param in params.items() if ".backbone." in path]
    assert all((param == 1).all() and not param.requires_grad for param in backbone)


def test_a_module_without_pretraining_follows_no_rule(table):
    spec = mip.parse(WIDE + HEADS["regression"] + init_of("*", "ones"))
    plan = mip.adapt(spec, table)
    assert not (between(dict(mip.build(plan, pretrain=False).named_parameters())) == 1).any()


SPEC_ERRORS = {
    init_of("wied.layers.1.weight", "ones"): (
        "init[0]: 'wied.layers.1.weight' matches no parameter; did you mean "
        "'wide.layers.2.weight'? (known: wide.layers.2.weight, "
    ),
    init_of("*", "zeros") + init_of("head.*", "xavier_uniform"): (
        "init[1]: xavier_uniform cannot fill head.0.bias of shape [5]: Fan in and fan out can not"
    ),
    init_of("*.weight", "normal", std=-1.0): "init[0]: normal cannot fill ",
}


@pytest.mark.parametrize(("rules", "error"), SPEC_ERRORS.items(), ids=["match", "shape", "value"])
def test_an_error_carries_the_path_of_the_spec(rules, error, table):
    with pytest.raises(SpecError) as caught:
        built(table, rules)
    assert str(caught.value).startswith(error)


def test_a_run_with_rules_resumes_to_the_same_bytes(table, tmp_path):
    text = NUMBERS + HEADS["regression"] + init_of("head.*.weight", "orthogonal")
    spec = mip.parse(text + "[train]\nepochs = 2\nbatch_size = 4\ncheckpoint_every = 1\n")
    parts = mip.model.Parts(table, table.take([]), table.take([]))
    stop = lambda event: mip.Stop("now") if event.step == 4 else None  # noqa: E731
    mip.run(spec, parts, out=tmp_path / "whole")
    mip.run(spec, parts, out=tmp_path / "cut", make_hooks=lambda _: [stop])
    mip.run(spec, parts, out=tmp_path / "cut", resume=True)
    for name in ("model.safetensors", "checkpoints/last.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert mip.load(tmp_path / "cut" / "model.safetensors").plan.spec.init == spec.init


# LSUV.


def stds(net, params, inputs):
    """The deviation of every linear and convolution layer's output, by path."""
    stds_by_path = {}
    copied = {path: layer for path, layer in net.named_modules() if "weight" in layer._parameters}
    layers = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)
    handles = [
        layer.register_forward_hook(
            lambda _, __, out, path=path: stds_by_path.update({path: out.std()})
        )
        for path, layer in copied.items()
        if isinstance(layer, layers)
    ]
    with torch.no_grad():
        torch.func.functional_call(net.eval(), params, (inputs,))
    for handle in handles:
        handle.remove()
    return {path: float(std) for path, std in stds_by_path.items()}


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
    stds_by_path = stds(net, params, inputs)
    assert stds_by_path
    assert all(abs(std - 1) <= 0.1 for std in stds_by_path.values()), stds_by_path


def test_lsuv_changes_only_weights_and_is_a_function_of_the_seed():
    net, inputs = NETS["residual"]()
    one, two, other = (lsuv(net, inputs, seed) for seed in (0, 0, 1))
    assert bits(one) == bits(two)
    assert bits(one) != bits(other)
    own = dict(net.named_parameters())
    convs = parameter_paths(net, nn.Conv2d, "weight")
    assert set(one) == set(own)
    assert all(torch.equal(one[path], own[path]) for path in own if path not in convs)


def test_lsuv_skips_frozen_layers_of_a_mixed_model(table):
    plan = mip.adapt(spec_of(), table)
    net = mip.build(plan)
    net.body.branch["photos"].requires_grad_(False)
    batch, state = plan.encode(table), mip.init(net, mip.sgd(0.1))
    params = lsuv(net, batch.inputs)
    assert set(params) == set(state.params)
    assert abs(stds(net, params | state.buffers, batch.inputs)["head.0"] - 1) <= 0.1


def test_lsuv_names_a_layer_with_constant_output():
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU())
    with pytest.raises(
        MipError, match=r"^lsuv: the output of 0 has variance 0, and cannot have 1$"
    ):
        lsuv(net, torch.zeros(3, 4))
