"""The convolutional nets: their options one by one, and what they have in common."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mip.nn import ConvStack, SmallResNet, pool_map


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def types(net, *kinds):
    return [type(layer).__name__ for layer in net if not kinds or isinstance(layer, kinds)]


def sizes(net, size=32):
    x, seen = torch.zeros(2, 3, size, size), []
    for layer in net:
        x = layer(x)
        if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)):
            seen.append(x.shape[-1])
    return seen


@pytest.mark.parametrize("size", [32, 33, 31])
def test_a_stride_of_two_halves_the_image_and_of_one_keeps_it(size):
    half = (size + 1) // 2
    assert sizes(ConvStack([4, 5]), size) == [half, (half + 1) // 2]
    assert sizes(ConvStack([4, 5], stride=1), size) == [size, size]


def test_only_the_first_convolution_of_a_stage_has_the_stride():
    convolutions = [layer for layer in ConvStack([4, 5], depth=3) if isinstance(layer, nn.Conv2d)]
    assert [layer.stride[0] for layer in convolutions] == [2, 1, 1, 2, 1, 1]
    pairs = [(layer.in_channels, layer.out_channels) for layer in convolutions]
    assert pairs == [(3, 4), (4, 4), (4, 4), (4, 5), (5, 5), (5, 5)]


def test_max_pools_are_between_stages():
    net = ConvStack([4, 5, 6], stride=1, max_pool=True)
    assert types(net, nn.Conv2d, nn.MaxPool2d) == ["Conv2d", "MaxPool2d"] * 2 + ["Conv2d"]
    assert sizes(net) == [32, 16, 16, 8, 8]


@pytest.mark.parametrize(
    ("batch_norm", "order", "bias"),
    [
        ("none", ["Conv2d", "SiLU"], True),
        ("before", ["Conv2d", "BatchNorm2d", "SiLU"], False),
        ("after", ["Conv2d", "SiLU", "BatchNorm2d"], True),
    ],
)
def test_a_batch_norm_is_before_or_after_the_activation(batch_norm, order, bias):
    net = ConvStack([4], activation="silu", batch_norm=batch_norm, global_pool="none")
    assert types(net) == order
    assert (net[0].bias is not None) == bias


def test_separable_convolutions_look_at_each_channel_and_then_mix_them():
    net = ConvStack([4, 6], separable=True, global_pool="none")
    depthwise, pointwise = net[3], net[4]
    assert (depthwise.groups, depthwise.kernel_size, depthwise.bias) == (4, (3, 3), None)
    assert (pointwise.groups, pointwise.kernel_size) == (1, (1, 1))
    assert sum(p.numel() for p in (*depthwise.parameters(), *pointwise.parameters())) == (
        4 * 9 + 4 * 6 + 6
    )
    x = torch.randn(1, 4, 8, 8)
    other = x.clone()
    other[:, 1] += 1
    changed = (depthwise(x) != depthwise(other)).flatten(2).any(2)
    assert changed.tolist() == [[False, True, False, False]]


@pytest.mark.parametrize("net", [lambda p: ConvStack([4, 8], global_pool=p), None])
def test_pools_are_those_of_the_map(net):
    net = net or (lambda p: SmallResNet(2, p))
    built = {}
    for pool in ("none", "avg", "max"):
        torch.manual_seed(0)
        built[pool] = net(pool).eval()
    x = torch.randn(2, 3, 16, 16)
    feature_map = built["none"](x)
    assert feature_map.dim() == 4
    torch.testing.assert_close(built["avg"](x), feature_map.mean((2, 3)))
    torch.testing.assert_close(built["max"](x), feature_map.amax((2, 3)))


def test_a_vector_needs_no_pool():
    vector = torch.randn(2, 5)
    assert all(pool_map(vector, pool) is vector for pool in ("avg", "max", "none"))


def test_a_residual_net_of_eighths():
    net = SmallResNet(4, "none")
    assert net(torch.zeros(2, 3, 64, 64)).shape == (2, 16, 8, 8)
    assert SmallResNet(4)(torch.zeros(2, 3, 40, 24)).shape == (2, 16)


@pytest.mark.parametrize("options", [{}, {"separable": True, "batch_norm": "after"}])
def test_every_parameter_of_a_stack_has_a_gradient(options):
    net = ConvStack([4, 5], depth=2, **options)
    net(torch.randn(4, 3, 16, 16)).square().sum().backward()
    assert all(param.grad.abs().sum() > 0 for param in net.parameters())
