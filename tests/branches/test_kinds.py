"""The battery: laws that every kind of branch obeys, whatever it reads."""

from __future__ import annotations

import json
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pytest
import torch
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

import mip
from mip.branches import (
    Boolean,
    Categorical,
    Continuous,
    Datetime,
    FtTransformer,
    Fuse,
    Fusion,
    Image,
    Mlp,
    ResnetMlp,
    Stub,
    TabM,
    Tabular,
    Text,
    Vector,
)
from mip.branches.categorical import Embeddings
from mip.branches.continuous import Piecewise
from mip.errors import DataError
from mip.tree import leaves, map_tree

PIXELS = [np.full((9, 9, 3), 20 * k, dtype=np.uint8) for k in range(12)]

COLUMNS = {
    "area": ["70", "95.5", "", "1e39", "-inf", "nan", "40", "1e30", "-7", "0", "3", "70"],
    "rooms": [3.0, np.nan, 2.0, 2.0, 5.0, 1.0, 4.0, 2.0, 2.0, 3.0, 1.0, 2.0],
    "empty": [""] * 12,
    "same": ["5"] * 12,
    "town": ["Ulm", "Bonn", "", "Ulm", "NA", "Köln", "Ulm", "Bonn", "?", "Ulm", "x", "Ulm"],
    "zip": [85255, 36372, 85255, 1, 2, 3, 85255, 36372, 4, 5, 6, 85255],
    "garden": ["yes", "No", "", "TRUE", "0", "1", "n", "f", "on", "off", "NA", "y"],
    "sold": [
        "2024-02-29",
        "",
        "1969-07-20T20:17",
        "2024-01-01 12:00:00+02:00",
        *["2020-05-05"] * 8,
    ],
    "note": ["Two rooms, bright", "", "Ünïcode wörds", "a", "…", "1 2 3", *["the same words"] * 6],
    "embedding": [[1.0, 2.0], "[3, 4]", None, "5;6", np.array([7.0, np.nan]), (0, 1), *["8 9"] * 6],
    "photo": [PIXELS[0], None, *PIXELS[2:]],
    "photos": [[PIXELS[0], PIXELS[1]], [], *[[each] for each in PIXELS[2:]]],
    "price": np.arange(1.0, 13.0),
}

NUMBERS = ["area", "rooms", "empty", "same"]
WORDS = ["town", "zip"]
MIXED = {
    "numbers": Continuous(["area", "rooms"]),
    "photo": Image(["photo"], size=8, base_channels=2, missing="learn"),
    "town": Categorical(["town"]),
}
KINDS = {
    "boolean": Boolean(["garden"]),
    "categorical": Categorical(["town", "zip"]),
    "categorical hash": Categorical(["town", "zip"], encoding="hash", buckets=5),
    "categorical one-hot": Categorical(["town", "zip"], encoding="one_hot", min_count=2),
    "continuous": Continuous(NUMBERS),
    "continuous linear": Continuous(NUMBERS, embedding="linear", embedding_dim=3),
    "continuous log": Continuous(NUMBERS, scale="log"),
    "continuous none": Continuous(["rooms", "same"], scale="none"),
    "continuous periodic": Continuous(NUMBERS, embedding="periodic", embedding_dim=3),
    "continuous piecewise": Continuous(NUMBERS, embedding="piecewise", embedding_dim=3, bins=4),
    "continuous quantile": Continuous(NUMBERS, scale="quantile"),
    "continuous quantile piecewise": Continuous(NUMBERS, "quantile", "piecewise"),
    "datetime": Datetime(["sold"]),
    "ft_transformer": Tabular(NUMBERS, WORDS, FtTransformer(embedding_dim=8, num_heads=2)),
    "ft_transformer of numbers": Tabular(NUMBERS, [], FtTransformer(6, 1, 3, 0.2), "quantile"),
    "ft_transformer of words": Tabular(
        [], WORDS, FtTransformer(embedding_dim=4, depth=1, num_heads=1)
    ),
    "fuse attention": Fuse(
        MIXED, Fusion([3], method="attention", embedding_dim=6, depth=1, num_heads=2)
    ),
    "fuse bilinear": Fuse(MIXED, Fusion(method="bilinear", embedding_dim=5)),
    "fuse gated": Fuse(MIXED, Fusion(method="gated", embedding_dim=5, dropout=0.1, layers=[4])),
    "fuse with drop": Fuse(MIXED, Fusion(modality_dropout=0.5)),
    "fuse attention with drop": Fuse(
        {"a": Fuse(MIXED, Fusion(modality_dropout=0.3))},
        Fusion(method="attention", modality_dropout=0.2),
    ),
    "fuse gated with drop": Fuse(MIXED, Fusion(method="gated", modality_dropout=0.3)),
    "fuse bilinear with drop": Fuse(MIXED, Fusion(method="bilinear", modality_dropout=0.3)),
    "fuse": Fuse({"b": Continuous(["rooms"]), "a": Fuse({"t": Text(["note"])})}, Fusion([5])),
    "image": Image(["photo"], size=8, base_channels=2, missing="learn"),
    "image of lists": Image(
        ["photo", "photos"], size=8, base_channels=2, pool="max", missing="learn"
    ),
    "mlp": Tabular(NUMBERS, WORDS, Mlp([6, 5])),
    "mlp of numbers": Tabular(NUMBERS, [], Mlp([6, 5, 4], "silu", "after", 0.2), "log", "periodic"),
    "mlp of words": Tabular([], WORDS, Mlp([3]), unseen_rate=0.5),
    "resnet_mlp": Tabular(NUMBERS, WORDS, ResnetMlp(hidden=6)),
    "resnet_mlp of numbers": Tabular(NUMBERS, [], ResnetMlp(6, 1, 0.2), "quantile", "piecewise"),
    "resnet_mlp of words": Tabular([], WORDS, ResnetMlp(hidden=3, depth=3)),
    "stub": Stub(5),
    "tabm": Tabular(NUMBERS, WORDS, TabM([6, 5], members=3)),
    "tabm of numbers": Tabular(NUMBERS, [], TabM([6], 2, 0.2), "log", "linear"),
    "tabm of words": Tabular([], WORDS, TabM([4, 4, 4], members=1)),
    "text": Text(["note"], char_ngrams=3, buckets=50, embedding_dim=4, max_length=9),
    "vector": Vector(["embedding"]),
    "vector as it is": Vector(["embedding"], "none"),
}
if find_spec("timm"):  # an extra
    KINDS["image by timm"] = Image(
        ["photo"], size=8, backbone="timm/mobilenetv3_small_050", missing="learn"
    )


TABLE = mip.from_columns(COLUMNS)


def rows_of(places=range(12)) -> mip.Table:
    return TABLE.take(list(places))


def built(kind, facts):
    torch.manual_seed(0)
    module = kind.module(facts)
    module.eval()(kind.encode(facts, rows_of()))  # lazy layers find their widths
    return module


def same(a, b) -> bool:
    pairs = zip(leaves(a), leaves(b), strict=True)
    return all(torch.equal(x.nan_to_num(7), y.nan_to_num(7)) for (_, x), (_, y) in pairs)


every = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def test_the_battery_has_every_kind_of_branch():
    named = {type(kind) for kind in KINDS.values()}
    assert named == {kind for kind in mip.KINDS.values() if hasattr(kind, "module")}


@every
def test_facts_are_json(kind):
    facts = kind.adapt(rows_of())
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


@every
@given(st.lists(st.integers(0, 11), max_size=14))
def test_encoding_treats_each_row_by_itself(kind, places):
    facts = kind.adapt(TABLE)
    taken = map_tree(
        lambda leaf: leaf[torch.tensor(places, dtype=torch.int64)], kind.encode(facts, TABLE)
    )
    assert same(taken, kind.encode(facts, TABLE.take(places)))


@every
def test_facts_are_those_of_the_rows_given_alone(kind):
    first, second = rows_of(range(8)), mip.from_columns(COLUMNS)
    assert kind.adapt(first) == kind.adapt(second.take(range(8)))


@every
def test_the_unseen_is_encoded_and_runs(kind):
    facts = kind.adapt(rows_of(range(6)))
    module = kind.module(facts).eval()
    with torch.no_grad():
        assert all(
            leaf.isfinite().all() for _, leaf in leaves(module(kind.encode(facts, rows_of())))
        )


@every
def test_no_rows_are_no_vectors(kind):
    facts = kind.adapt(rows_of())
    width = built(kind, facts)(kind.encode(facts, rows_of())).shape[1]
    none = built(kind, facts)(kind.encode(facts, rows_of([])))
    assert none.shape == (0, width)


@every
def test_a_gradient_reaches_every_parameter(kind):
    facts = kind.adapt(rows_of())
    module = built(kind, facts).train()
    out = module(kind.encode(facts, rows_of()))
    assert out.dtype == torch.float32
    weights = torch.linspace(0.5, 1.5, out.numel()).view_as(out)
    parameters = dict(module.named_parameters())
    grads = (
        torch.autograd.grad(
            (out * weights).square().sum(), list(parameters.values()), allow_unused=True
        )
        if parameters
        else ()
    )
    assert [name for name, grad in zip(parameters, grads, strict=True) if grad is None] == []


@every
def test_a_kind_round_trips_through_a_spec(kind):
    spec = mip.spec.Spec({"one": kind}, mip.KINDS["regression"]("price"))
    assert mip.parse(mip.dump(spec)) == spec


@every
def test_a_model_of_it_predicts_from_its_file_as_in_memory(kind, tmp_path):
    spec = mip.spec.Spec({"one": kind}, mip.KINDS["regression"]("price"))
    spec = evolve(spec, train=evolve(spec.train, epochs=1, batch_size=5))
    rows = rows_of()
    parts = mip.model.Parts(rows, rows.take([]), rows.take([]))
    ended = mip.run(spec, parts, out=tmp_path, context=mip.Context(device="cpu"))
    loaded = mip.load(tmp_path / "model.safetensors")
    assert loaded.plan == ended.plan
    assert loaded(rows).equals(ended.predict(rows))


WRONG = {
    "boolean": (Boolean(["town"]), "table row 0, column 'town': 'Ulm' is neither yes nor no"),
    "datetime": (
        Datetime(["town"]),
        "table row 0, column 'town': 'Ulm' is not an ISO date (2024-12-31), and "
        "[data.columns.town] names no date_format",
    ),
    "continuous": (Continuous(["town"]), "table row 0, column 'town': 'Ulm' is not a number"),
    "vector of words": (
        Vector(["town"]),
        "table row 0, column 'town': 'Ulm' is not a list of numbers",
    ),
    "no vector": (Vector(["empty"]), "table: column 'empty' has no vector"),
    "image as text": (
        Text(["photo"]),
        "table row 0, column 'photo': an image (ndarray) is not text",
    ),
}


@pytest.mark.parametrize(("kind", "text"), WRONG.values(), ids=WRONG)
def test_cells_of_a_wrong_kind_are_named(kind, text):
    with pytest.raises(DataError) as caught:
        kind.encode(kind.adapt(rows_of()), rows_of())
    assert str(caught.value) == text


def test_vectors_have_one_length_in_all_rows():
    rows = mip.from_columns({"v": [[1.0, 2.0], [1.0, 2.0, 3.0]]})
    with pytest.raises(DataError, match="row 1, column 'v': a vector of 3 numbers, not 2"):
        Vector(["v"]).adapt(rows)


def test_small_embedding_tables_are_joined_to_the_same_bits():
    torch.manual_seed(0)
    both = Embeddings([4, 7, 3], [5, 5, 5], unseen_rate=0.0)
    alone = Embeddings([4, 7, 3], [5, 5, 5], unseen_rate=0.0)
    alone.load_state_dict(both.state_dict())
    alone.joined = False
    codes = torch.stack([torch.randint(size, (64,)) for size in (4, 7, 3)], dim=1)
    assert both.joined
    assert not Embeddings([4, 7], [5, 6], 0.0).joined
    one, other = both(codes), alone(codes)
    assert one.equal(other)
    weigh = torch.randn_like(one)
    actual = torch.autograd.grad(one, list(both.parameters()), weigh)
    expected = torch.autograd.grad(other, list(alone.parameters()), weigh)
    assert all(a.equal(b) for a, b in zip(actual, expected, strict=True))


def test_looked_up_bins_are_the_shares_of_all_bins_times_their_weights():
    edges = [[-2.0, -1.0, 0.5, 3.0], [1.0, 2.0], [4.0], []]
    torch.manual_seed(0)
    bins, weight = Piecewise(edges), torch.randn(4, 3, 2, requires_grad=True)
    x = (4 * torch.randn(40, 4)).requires_grad_()
    through = torch.zeros(40, 4, 3)
    for column, ends in enumerate(edges):
        for k, (begin, end) in enumerate(pairwise(ends)):
            share = (x[:, column] - begin) / (end - begin)
            least, most = None if k == 0 else 0, None if end == ends[-1] else 1
            through[:, column, k] = share if least is most is None else share.clamp(least, most)
    looked_up, product = bins(x, weight), torch.einsum("nci,cio->nco", through, weight)
    torch.testing.assert_close(looked_up, product)
    weigh = torch.randn_like(product)
    slopes = (torch.autograd.grad(y, [x, weight], weigh) for y in (looked_up, product))
    torch.testing.assert_close(*slopes)
