"""Fusions join branches by their methods; modality dropout copes with missing inputs."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from attrs import evolve, frozen
from conftest import BRANCHES, HEADS, NUMBERS, bits, set_up
from torch import nn

import mip
from mip.branches import (
    Boolean,
    Categorical,
    Continuous,
    Datetime,
    Fuse,
    Fusion,
    Image,
    Stub,
    Tabular,
    Text,
    Vector,
)
from mip.branches.fuse import Attention, FusionNet, ModalityDropout
from mip.branches.protocol import absent
from mip.heads import Regression
from mip.optim import AdamW
from mip.spec import Spec, Train
from mip.train import compiled

WAYS = ["concat", "gated", "attention", "bilinear"]
BOTH = {"a": Continuous(["a"], "none"), "b": Continuous(["b"], "none")}
SIGNS = {
    "a": [1.0, 1.0, -1.0, -1.0] * 4,
    "b": [1.0, -1.0, 1.0, -1.0] * 4,
    "c": [3.0, 1.0, 2.0, 5.0] * 4,
}


def built(kind, rows):
    torch.manual_seed(0)
    facts = kind.adapt(rows)
    module = kind.module(facts)
    with torch.no_grad():
        module.eval()(kind.encode(facts, rows))
    return module.train(), kind.encode(facts, rows)


def loss_of_product(fusion):
    rows = mip.from_columns(SIGNS)
    module, inputs = built(Fuse(BOTH, Fusion(method=fusion)), rows)
    net = nn.Sequential(module, nn.Linear(module(inputs).shape[1], 1))
    target = inputs["a"] * inputs["b"]
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(150):
        loss = (net(inputs) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


@pytest.mark.parametrize("fusion", WAYS[1:])
def test_a_fusion_learns_a_product_of_two_branches(fusion):
    assert loss_of_product(fusion) < 0.05


def test_a_linear_layer_after_concat_cannot_learn_a_product():
    assert loss_of_product("concat") > 0.95


def test_methods_give_different_outputs():
    rows = mip.from_columns(SIGNS)
    outs = [built(Fuse(BOTH, Fusion(method=way, layers=[3])), rows) for way in WAYS]
    values = [module(inputs) for module, inputs in outs]
    pairs = [(i, j) for i in range(4) for j in range(i)]
    assert not any(torch.allclose(values[i], values[j]) for i, j in pairs)


def test_concat_keeps_its_parameters_and_outputs():
    rows = mip.from_columns(SIGNS)
    module, inputs = built(Fuse(BOTH, Fusion([3, 2], 0.2)), rows)
    layers = ["layers.0.weight", "layers.0.bias", "layers.3.weight", "layers.3.bias"]
    assert list(module.state_dict()) == ["branch.a.value", "branch.b.value", *layers]
    torch.manual_seed(0)
    plain = mip.nn.LazyMLP([3, 2], 0.2)
    with torch.no_grad():
        plain.eval()(torch.zeros(1, 2))
    assert bits(plain.state_dict()) == bits(module.layers.state_dict())
    joined = torch.cat([inputs["a"], inputs["b"]], dim=1)
    assert torch.equal(module.eval()(inputs), plain(joined))


# Two branches of 2 and 5 numbers, projected to 6: the projections have 3 * 6 + 6 * 6 = 54.
COUNTS = {
    "concat": (Fusion(), 0),
    "concat and modality dropout": (Fusion(modality_dropout=0.1), 7),
    "gated": (Fusion(method="gated", embedding_dim=6), 54 + 8 * 12),
    "bilinear": (Fusion(method="bilinear", embedding_dim=6), 54),
    # CLS and the last norm 18; a layer: attention 4 * 42, forward 84 + 78, two norms 24.
    "attention": (
        Fusion(method="attention", embedding_dim=6, depth=3, num_heads=2),
        54 + 18 + 3 * (168 + 162 + 24),
    ),
}


@pytest.mark.parametrize(("fusion", "count"), COUNTS.values(), ids=COUNTS)
def test_the_parameters_of_a_fusion_are_counted(fusion, count):
    module, _ = built(Fuse({"a": Stub(2), "b": Stub(5)}, fusion), mip.from_columns(SIGNS))
    assert sum(each.numel() for each in module.parameters()) == count


def test_attention_does_not_depend_on_the_order_of_branches():
    vectors = {name: torch.randn(5, k + 2) for k, name in enumerate("abc")}
    one, two = Attention("abc", 8, 2, 4), Attention("cab", 8, 2, 4)
    assert one(vectors).shape == two(vectors).shape
    two.load_state_dict(one.state_dict())
    torch.testing.assert_close(one(vectors), two(vectors))


def test_attention_layers_start_with_different_weights():
    first, second = Attention("ab", 8, 2, 4).tokens.blocks
    assert not torch.equal(first.linear1.weight, second.linear1.weight)


def test_the_fusion_of_a_spec_is_that_of_the_root(table):
    text = '[fusion]\nmethod = "attention"\nembedding_dim = 8\ndepth = 1\nnum_heads = 2\n'
    text += "layers = [5]\nmodality_dropout = 0.1\n"
    spec = mip.parse(text + NUMBERS + HEADS["regression"])
    assert spec.fusion == Fusion(
        [5], method="attention", embedding_dim=8, depth=1, num_heads=2, modality_dropout=0.1
    )
    assert spec.root.fusion == spec.fusion
    assert mip.parse(mip.dump(spec)) == spec
    net = mip.build(mip.adapt(spec, table))
    assert isinstance(net.body.fusion, Attention)
    assert net.body(mip.adapt(spec, table).example(3)).shape == (3, 5)


def test_a_spec_without_a_fusion_concatenates():
    spec = mip.parse(NUMBERS + HEADS["regression"])
    assert spec.root == Fuse(spec.branch)
    assert evolve(spec, fusion=Fusion()) == spec


# Modality dropout.


BLANK = {
    "area": ["", "7", ""],
    "sold": [None, "2024-02-29", None],
    "garden": ["", "yes", ""],
    "town": ["", "Ulm", "new"],
    "note": ["", "two words", "…"],
    "place": [None, [1.0, 2.0], None],
    "photo": [None, np.zeros((8, 8, 3), np.uint8), []],
}
ABLE = {
    "continuous": Continuous(["area"]),
    "datetime": Datetime(["sold"]),
    "boolean": Boolean(["garden"]),
    "categorical": Categorical(["town"]),
    "text": Text(["note"]),
    "vector": Vector(["place"]),
    "image": Image(["photo"], size=8, base_channels=2, missing="learn"),
    "tabular": Tabular(["area"], ["town"]),
    "fuse": Fuse({"a": Continuous(["area"]), "b": Fuse({"c": Categorical(["town"])})}),
}


@pytest.mark.parametrize("kind", ABLE.values(), ids=ABLE)
def test_a_kind_marks_the_rows_without_inputs(kind):
    rows = mip.from_columns(BLANK)
    inputs = kind.encode(kind.adapt(rows.take([1])), rows)
    assert absent(kind, inputs).tolist() == [True, False, True]
    assert absent(kind, kind.encode(kind.adapt(rows.take([1])), rows.take([]))).tolist() == []


def test_a_fusion_with_one_input_is_not_absent():
    rows = mip.from_columns({**BLANK, "area": ["3", "", ""]})
    kind = ABLE["fuse"]
    inputs = kind.encode(kind.adapt(rows.take([0, 1])), rows)
    assert absent(kind, inputs).tolist() == [False, False, True]


@frozen
class Raw:
    """Numbers of any type, unchanged: 0 and NaN are values like any other."""

    columns: tuple[str, ...]
    dtype: str = "int64"

    def adapt(self, rows):
        return {}

    def encode(self, facts, rows):
        numbers = [torch.from_numpy(rows.numbers(column)) for column in self.columns]
        return torch.stack(numbers, dim=1).to(getattr(torch, self.dtype))

    def module(self, facts):
        return Plus()


@frozen
class RawWithAbsent(Raw):
    """The same, with -1 for a missing number."""

    def absent(self, inputs):
        return (inputs == -1).all(dim=1)


class Plus(nn.Module):
    """One more, and 9 for NaN."""

    def forward(self, inputs):
        return inputs.float().nan_to_num(8.0) + 1


def output(kind, rows, depth):
    """The output of a fusion with modality dropout for rows of a kind, whose placeholder is 100."""
    tree = Fuse({"raw": kind}, Fusion(modality_dropout=0.5))
    for _ in range(depth):
        tree = Fuse({"in": tree})
    module, inputs = built(tree, rows)
    for path, param in module.named_parameters():
        if path.endswith("vector"):
            nn.init.constant_(param, 100.0)
    return module.eval()(inputs).flatten().tolist()


@pytest.mark.parametrize("depth", [0, 2])
def test_a_custom_kind_without_the_verb_is_never_absent(depth):
    rows = mip.from_columns({"a": [0, -1, 5]})
    assert output(Raw(("a",)), rows, depth) == [1, 0, 6]
    assert output(RawWithAbsent(("a",)), rows, depth) == [1, 100, 6]
    assert output(Raw(("a",), "int32"), rows, depth) == [1, 0, 6]
    rows = mip.from_columns({"a": [0, np.nan, 5]})
    assert output(Raw(("a",), "float32"), rows, depth) == [1, 9, 6]


def test_a_fusion_of_custom_kinds_asks_these():
    rows = mip.from_columns({"a": [0, 0], "b": [1.0, np.nan]})
    kind = Fuse({"raw": Raw(("a",)), "b": Continuous(["b"])})
    inputs = kind.encode(kind.adapt(rows), rows)
    assert absent(kind, inputs).tolist() == [False, False]
    kind = Fuse({"raw": RawWithAbsent(("a",)), "b": Continuous(["b"])})
    inputs = {**inputs, "raw": torch.tensor([[-1], [-1]])}
    assert absent(kind, inputs).tolist() == [False, True]


@pytest.mark.slow
def test_a_compiled_step_marks_absent_rows_too():
    rows = mip.from_columns({"a": [0, 0, 3, 4], "b": [1.0, np.nan, 2.0, 3.0], "y": [1, 2, 3, 4]})
    parts = {"raw": RawWithAbsent(("a",)), "fuse": Fuse({"b": Continuous(["b"])})}
    plan = mip.adapt(Spec(parts, Regression("y"), fusion=Fusion(modality_dropout=0.5)), rows)
    net, one, batch = mip.build(plan), mip.sgd(0.1), plan.encode(rows)
    way = partial(compiled, backend="aot_eager")
    step = mip.train_step(net, plan.loss, one, gradient_engine=way)
    assert step(mip.init(net, one), batch)[1]["loss"].isfinite()


def never_absent(names):
    return dict.fromkeys(names, lambda inputs: inputs)


def test_training_hides_at_random_and_never_all():
    hide = ModalityDropout(never_absent("abc"), 0.4)
    torch.manual_seed(0)
    hidden = hide.draw(torch.zeros(3, 20_000, dtype=torch.bool))
    assert not hidden.all(dim=0).any()
    # All three would be hidden with 0.4 ** 3; then one of them is spared.
    assert hidden.float().mean(dim=1).tolist() == pytest.approx([0.4 - 0.064 / 3] * 3, abs=0.01)


def test_an_absent_branch_is_hidden_and_not_the_one_that_is_spared():
    hide = ModalityDropout(never_absent("abc"), 0.999)
    gone = torch.tensor([[True, False, False]] * 500).T
    hidden = hide.draw(gone)
    assert hidden[0].all()
    assert (hidden[1] ^ hidden[2]).float().mean() > 0.95
    assert not (hidden[1] & hidden[2]).any()


def test_a_row_without_any_inputs_gets_all_placeholders():
    hide = ModalityDropout(never_absent("ab"), 0.5)
    nothing = torch.ones(2, 3, dtype=torch.bool)
    assert hide.draw(nothing).all()
    assert hide.eval().draw(nothing).all()


def test_prediction_hides_only_absent_branches():
    hide = ModalityDropout(never_absent("ab"), 0.9).eval()
    gone = torch.tensor([[True, False], [False, False]])
    assert torch.equal(hide.draw(gone), gone)


def test_the_learned_vector_replaces_an_absent_branch():
    rows = mip.from_columns({"a": [1.0, np.nan, 2.0], "b": ["x", "y", None], "c": [1, 2, 3]})
    kind = Fuse(
        {"a": Continuous(["a", "c"]), "b": Categorical(["b"], 3)}, Fusion(modality_dropout=0.5)
    )
    module, _ = built(kind, rows)
    torch.nn.init.normal_(module.hide.stand["b"].vector)
    facts = kind.adapt(rows)
    out = module.eval()(kind.encode(facts, rows))
    assert torch.equal(out[2, -3:], module.hide.stand["b"].vector)
    assert torch.equal(out[0, -3:], module.branch["b"](kind.encode(facts, rows)["b"])[0])


def test_without_modality_dropout_there_are_no_placeholders():
    module, _ = built(Fuse(BOTH), mip.from_columns(SIGNS))
    assert isinstance(module, FusionNet)
    assert module.hide is None


def test_a_step_with_modality_dropout_is_pure(table):
    text = (
        '[fusion]\nmethod = "gated"\nembedding_dim = 8\nmodality_dropout = 0.5\n'
        + BRANCHES
        + HEADS["regression"]
    )
    job = set_up(mip.parse(text), table)
    batch = next(job.batches.iter_from(0))
    (one, first), (two, second) = job.step(job.state, batch), job.step(job.state, batch)
    assert bits(one) == bits(two)
    assert float(first["loss"]) == float(second["loss"])
    other, _ = job.step(evolve(job.state, seed=1), batch)
    assert bits(other.params) != bits(one.params)


def photos(places, bright):
    pixels = [np.full((8, 8, 3), 200 * value + 20, dtype=np.uint8) for value in bright]
    return [pixels[place] for place in places]


def test_a_row_without_its_photo_is_predicted_from_the_rest(tmp_path):
    rng = np.random.default_rng(0)
    size, bright = rng.uniform(-1, 1, 96), rng.integers(0, 2, 96)
    columns = {"size": size, "photo": photos(range(96), bright), "price": 2 * size + bright}
    branches = {
        "photo": Image(["photo"], size=8, base_channels=4, missing="learn"),
        "size": Continuous(["size"]),
    }
    spec = Spec(branches, Regression("price"), train=Train(30, 16, AdamW(2e-2), workers=0))
    spec = evolve(spec, fusion=Fusion(modality_dropout=0.3))
    rows = mip.from_columns(columns)
    parts = mip.model.Parts(rows, rows.take([]), rows.take([]))
    predict = mip.run(spec, parts, out=tmp_path, context=mip.Context(device="cpu")).predict
    whole = predict(rows)["value"].to_numpy()
    assert np.abs(whole - columns["price"]).mean() < 0.15
    bare = mip.from_columns({**columns, "photo": [None] * 96})
    blind = predict(bare)["value"].to_numpy()
    assert np.abs(blind - (2 * size + bright.mean())).mean() < 0.25
    sizeless = mip.from_columns({**columns, "size": [np.nan] * 96})
    predicted = predict(sizeless)["value"].to_numpy()
    assert np.abs(predicted - (2 * size.mean() + bright)).mean() < 0.25
