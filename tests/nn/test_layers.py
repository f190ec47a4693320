"""The layers that branches and heads are built from."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mip.errors import FieldError, SpecError
from mip.nn import ACTIVATIONS, MLP, FillMissing, Function, LazyMLP, TokenTransformer, Tower

NAN = float("nan")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def types(net):
    return [type(layer).__name__ for layer in net]


FUNCTIONS = {
    "elu": F.elu,
    "gelu": F.gelu,
    "hard_swish": F.hardswish,
    "leaky_relu": F.leaky_relu,
    "mish": F.mish,
    "none": lambda x: x,
    "relu": F.relu,
    "selu": F.selu,
    "sigmoid": torch.sigmoid,
    "silu": lambda x: x * torch.sigmoid(x),
    "softplus": F.softplus,
    "tanh": torch.tanh,
}


@pytest.mark.parametrize("name", sorted({*ACTIVATIONS, *FUNCTIONS}))
def test_an_activation_is_torchs_of_that_name(name):
    x = torch.linspace(-4, 4, 17)
    torch.testing.assert_close(ACTIVATIONS[name]()(x), FUNCTIONS[name](x))


@pytest.mark.parametrize(
    ("options", "hidden"),
    [
        ({}, ["ReLU"]),
        ({"batch_norm": "before"}, ["BatchNorm1d", "ReLU"]),
        ({"batch_norm": "after", "dropout": 0.5}, ["ReLU", "BatchNorm1d", "Dropout"]),
        ({"activation": "tanh", "dropout": 0.5}, ["Tanh", "Dropout"]),
    ],
)
def test_what_follows_a_hidden_layer(options, hidden):
    assert types(MLP([3, 4, 1], **options)) == ["Linear", *hidden, "Linear"]
    tower = Tower(3, (4,), outputs=1, **{"dropout": 0.0, **options})
    assert types(tower) == ["Linear", *hidden, "Linear"]


def test_dropout_is_of_training_alone():
    net = MLP([3, 64, 1], dropout=0.5)
    x = torch.randn(8, 3)
    assert not net(x).equal(net(x))
    assert net.eval()(x).equal(net(x))


def test_batch_norm_uses_its_batch_in_training_and_its_statistics_in_evaluation():
    net = MLP([3, 4, 1], batch_norm="before")
    x = torch.randn(64, 3) * 5 + 2
    normed = net[1](net[0](x))
    torch.testing.assert_close(normed.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(normed.var(0, correction=0), torch.ones(4), atol=1e-3, rtol=0)
    alone = net.eval()(x[:1])
    torch.testing.assert_close(alone, net(x)[:1])


def test_linear_layers_alone_are_a_line():
    net = MLP([3, 5, 1], "none")
    x, y = torch.randn(2, 8, 3)
    torch.testing.assert_close(net(x) + net(y), net(x + y) + net(torch.zeros(8, 3)))


def test_a_tower_gives_as_many_logits_as_outputs_or_a_number():
    assert Tower(7, (5,), 0.0, 3)(torch.zeros(2, 7)).shape == (2, 3)
    assert Tower(7, (), 0.0, None)(torch.zeros(2, 7)).shape == (2,)
    assert Tower(7, (), 0.0, 1)(torch.zeros(2, 7)).shape == (2, 1)


def test_lazy_layers_flatten_before_a_linear_one_and_not_before_a_function():
    seen = []

    def look(x):
        seen.append(x.shape)
        return x.mean((2, 3))

    assert LazyMLP((Function("look", look), 6))(torch.zeros(2, 3, 4, 4)).shape == (2, 6)
    assert seen == [(2, 3, 4, 4)]
    net = LazyMLP((6,))
    assert net(torch.zeros(2, 3, 4, 4)).shape == (2, 6)
    assert net[0].in_features == 48


@pytest.mark.parametrize(
    ("function", "actual"), [(torch.sum, r"\[\]"), (lambda x: x[:1], r"\[1, 3\]"), (len, "int")]
)
def test_a_function_that_returns_no_rows_is_named_with_both_shapes(function, actual):
    net = LazyMLP((Function("f", function), 4))
    message = rf"layers\[0\] = 'f' must return \[2, …\] for \[2, 3\], not {actual}"
    with pytest.raises(SpecError, match=message):
        net(torch.zeros(2, 3))


def test_a_function_is_one():
    with pytest.raises(FieldError, match="cannot be called: 3"):
        Function("f", 3)


def test_missing_numbers_are_filled_and_flagged_where_they_were_missing_in_training():
    layer = FillMissing([True, False, True])
    with torch.no_grad():
        layer.value.copy_(torch.tensor([5.0, 7.0]))
    x = torch.tensor([[NAN, NAN, NAN], [1.0, 2.0, 3.0]])
    assert layer(x).tolist() == [[5, 0, 7, 1, 1], [1, 2, 3, 0, 0]]
    assert FillMissing([False] * 3)(x).tolist() == [[0, 0, 0], [1, 2, 3]]
    assert "index" not in layer.state_dict()


def test_a_transformer_does_not_care_for_the_order_of_tokens_and_starts_its_layers_differently():
    torch.manual_seed(0)
    net = TokenTransformer(8, depth=2, num_heads=2).eval()
    tokens = torch.randn(3, 5, 8)
    torch.testing.assert_close(net(tokens), net(tokens.flip(1)))
    first, second = (block.linear1.weight for block in net.blocks)
    assert not first.equal(second)
    assert net(tokens * 1e30).isfinite().all()
