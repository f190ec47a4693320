"""Networks over columns read them as the kinds of single columns do, and learn."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest
import torch
from attrs import evolve
from torch import nn

import mip
from mip.branches import Categorical, Continuous, FtTransformer, Mlp, ResnetMlp, TabM, Tabular
from mip.branches.protocol import absent
from mip.branches.tabm import Ensemble
from mip.errors import SpecError
from mip.heads import Regression
from mip.nn import MLP
from mip.spec import Spec
from mip.tree import leaves

NETWORKS = [Mlp(), ResnetMlp(), FtTransformer(), TabM()]
KINDS = [partial(Tabular, network=network) for network in NETWORKS]
every = pytest.mark.parametrize("kind", KINDS, ids=[type(each).__name__ for each in NETWORKS])

ROWS = mip.from_columns(
    {
        "area": ["70", "95.5", "", "1e39", "40", "3"],
        "rooms": [3.0, 2.0, 5.0, 1.0, 4.0, 2.0],
        "town": ["Ulm", "Bonn", "", "Ulm", "Köln", "Ulm"],
        "price": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    }
)


@every
def test_columns_are_read_as_the_kinds_of_single_columns_do(kind):
    kind = kind(["area", "rooms"], ["town"], scale="quantile")
    numbers, words = Continuous(["area", "rooms"], "quantile"), Categorical(["town"])
    facts = {"numbers": numbers.adapt(ROWS), "words": words.adapt(ROWS)}
    assert kind.adapt(ROWS) == facts
    inputs = dict(leaves(kind.encode(facts, ROWS)))
    torch.testing.assert_close(
        inputs["numbers"], numbers.encode(facts["numbers"], ROWS), equal_nan=True
    )
    assert torch.equal(inputs["words"], words.encode(facts["words"], ROWS))


@every
def test_columns_are_checked_and_named(kind):
    assert kind(["area"], ["town"]).columns == ("area", "town")
    spec = Spec({"all": kind(["aera"], ["town"])}, Regression("price"))
    expected = "branch.all.columns: 'aera' is not a column of table; did you mean 'area'?"
    with pytest.raises(SpecError, match=re.escape(expected)):
        mip.adapt(spec, ROWS)
    with pytest.raises(SpecError, match=r"^branch\.all\.columns: 'price' is the target$"):
        mip.adapt(evolve(spec, branch={"all": kind(["price"])}), ROWS)


@every
def test_no_columns_are_refused(kind):
    with pytest.raises(ValueError, match="'continuous' or 'categorical' must name a column"):
        kind()


@every
def test_a_single_name_is_not_a_list(kind):
    with pytest.raises(ValueError, match="must be a list of names, not 'area'"):
        kind("area")


@pytest.mark.parametrize("options", [{"scale": "lgo"}, {"embedding": "plr"}, {"unseen_rate": 1.0}])
def test_options_are_checked_with_any_columns(options):
    for columns in (["x"], []), ([], ["x"]):
        with pytest.raises(ValueError, match=f"'{next(iter(options))}' must be"):
            Tabular(*columns, **options)


@every
def test_unseen_categories_and_oddities_are_reported(kind):
    facts = kind(["area"], ["town"]).adapt(ROWS)
    fresh = mip.from_columns({"area": ["1"], "town": ["Rom"]})
    assert list(kind(["area"], ["town"]).unseen(facts, fresh)) == [("town", ["Rom"])]
    assert list(kind(["area"]).unseen(facts, fresh)) == []
    odd = [(3, "'area' infinite or beyond float32, treated as missing")]
    assert list(kind(["area"], ["town"]).conversions(ROWS)) == odd
    assert list(kind([], ["town"]).conversions(ROWS)) == []


@every
def test_a_row_without_its_table_is_absent(kind):
    kind = kind(["area"], ["town"])
    inputs = kind.encode(kind.adapt(ROWS), ROWS)
    assert absent(kind, inputs).tolist() == [False, False, True, False, False, False]


def signs():
    """A price that is no sum of functions of the columns."""
    rng = np.random.default_rng(0)
    size, town = rng.choice([-1.0, 1.0], 64), rng.choice(["Bonn", "Ulm"], 64)
    price = size * np.where(town == "Ulm", 1.0, -1.0)
    return mip.from_columns({"size": size, "town": town}), torch.tensor(price, dtype=torch.float32)


@every
def test_it_learns_a_product_of_two_columns(kind):
    torch.manual_seed(0)
    rows, price = signs()
    kind = kind(["size"], ["town"], unseen_rate=0.0)
    facts = kind.adapt(rows)
    net = nn.Sequential(kind.module(facts), nn.LazyLinear(1))
    inputs = kind.encode(facts, rows)
    net(inputs)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(150):
        loss = (net(inputs).squeeze(1) - price).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05


def count(kind, rows=ROWS):
    return sum(each.numel() for each in kind.module(kind.adapt(rows)).parameters())


def test_the_sizes_7_10_5_1_are_three_linear_layers_and_two_relu():
    rows = mip.from_columns({f"x{k}": [1.0, 2.0] for k in range(7)})
    kind = Tabular([f"x{k}" for k in range(7)], network=Mlp([10, 5, 1]))
    module = kind.module(kind.adapt(rows))
    layers = [type(each) for each in module.modules() if isinstance(each, (nn.Linear, nn.ReLU))]
    assert layers == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert count(kind, rows) == (7 * 10 + 10) + (10 * 5 + 5) + (5 * 1 + 1)
    assert module(torch_inputs(kind, rows)).shape == (2, 1)


def torch_inputs(kind, rows):
    return kind.encode(kind.adapt(rows), rows)


BOTH = ("area", "rooms"), ("town",)
# area, rooms and area's flag are 3 numbers, town a vector of 3: 6, and 1 + 12 parameters.
GOLDEN = {
    "mlp": (Tabular(*BOTH, Mlp([8, 4])), 13 + (6 * 8 + 8) + (8 * 4 + 4)),
    "mlp with batch norm": (Tabular(*BOTH, Mlp([8, 4], batch_norm="before")), 13 + 56 + 16 + 36),
    # A block: batch norm 8, 4 to 8 40, 8 to 4 36; behind the last a batch norm.
    "resnet_mlp": (Tabular(*BOTH, ResnetMlp(4, 3)), 13 + 28 + 3 * 84 + 8),
    # Members have 6 + 8 + 8 and 8 + 4 + 4 numbers of their own.
    "tabm": (Tabular(*BOTH, TabM([8, 4], 5)), 13 + 48 + 32 + 5 * (22 + 16)),
    # Tokens: fill 1, two columns and a flag, a table of 4; CLS and norm 12; a layer 80 + 76 + 16.
    "ft_transformer": (
        Tabular(*BOTH, FtTransformer(4, 2, 2)),
        1 + 5 * 4 + 4 * 4 + 12 + 2 * (80 + 76 + 16),
    ),
}


@pytest.mark.parametrize(("kind", "expected"), GOLDEN.values(), ids=GOLDEN)
def test_the_parameters_of_a_network_are_counted(kind, expected):
    assert count(kind) == expected


def test_members_with_equal_inputs_are_one_network():
    torch.manual_seed(0)
    ensemble, x = Ensemble([3, 5, 4], members=4, dropout=0.0), torch.randn(7, 3)
    nn.init.ones_(ensemble.layers[0].before)
    expected = x
    for layer in ensemble.layers:
        expected = (layer.shared(expected) + layer.bias[0]).relu()
    torch.testing.assert_close(ensemble(x), expected)


def test_members_start_with_different_views_of_the_input():
    torch.manual_seed(0)
    first, second = Ensemble([8, 5, 4], members=4, dropout=0.0).layers
    assert first.before.abs().eq(1).all()
    assert len(first.before.unique(dim=0)) == 4
    assert second.before.eq(1).all()


def test_dropout_comes_after_relu():
    assert [type(layer).__name__ for layer in MLP([3, 4, 2], "relu", "before", 0.5)] == [
        *("Linear", "BatchNorm1d", "ReLU", "Dropout", "Linear")
    ]


def test_a_transformer_has_a_token_for_each_column():
    kind = Tabular(*BOTH, FtTransformer(embedding_dim=4, num_heads=2))
    tokenizer = kind.module(kind.adapt(ROWS))[0]
    tokens = tokenizer(torch_inputs(kind, ROWS))
    assert tokens.shape == (6, 3, 4)
    scaled = tokenizer.branch["numbers"]
    assert torch.equal(tokens[2, 0], scaled.bias[0] + scaled.missing[0])
