"""A plan learns from training rows alone, and encodes every row by itself, whatever it holds."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import HEADS, NUMBERS, ROWS, bits, frame_of, spec_of
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import mip
from mip.branches import Categorical, Continuous, Image
from mip.errors import DataError, SpecError
from mip.model import plan_from_dict, plan_nodes, plan_to_dict

# Cells as the world has them.

odd = st.sampled_from([0.0, -0.0, np.nan, np.inf, -np.inf, 1e39, -1e39, 1e308, 5e-324, 1e-40, -3.5])
numbers = st.one_of(odd, st.floats(width=64), st.integers(-(2**53), 2**53).map(float))
number_texts = st.sampled_from(["", "NA", "1e39", "-inf", "nan", " 7 ", "1e-400", "?"])
words = st.one_of(st.sampled_from(["Bonn", "Köln", "Ulm", "", "Rom"]), st.text(max_size=4))
photos = st.sampled_from(
    [
        "",
        "photos/0.png",
        "photos/1.jpg",
        "photos/gone.png",
        "../x.png",
        "/etc/passwd",
        "a\0b",
        "x" * 300,
    ]
)
ways = st.sampled_from(["standard", "log", "none"])


@st.composite
def frames(draw, least=0):
    """Frames of the small table's columns with anything in them."""
    rows = draw(st.integers(least, 6))
    column = lambda cells: draw(st.lists(cells, min_size=rows, max_size=rows))  # noqa: E731
    numeric = draw(st.booleans())
    return pd.DataFrame(
        {
            "area": pd.Series(
                column(numbers if numeric else number_texts), dtype=None if numeric else object
            ),
            "rooms": pd.Series(column(numbers), dtype="float64"),
            "town": pd.Series(column(words), dtype=object),
            "front": pd.Series(column(photos), dtype=object),
            "back": pd.Series(column(photos), dtype=object),
            "price": pd.Series(column(st.floats(1, 1e6)), dtype="float64"),
            "sold": pd.Series(column(st.sampled_from(["yes", "no", ""])), dtype=object),
            "style": pd.Series(
                column(st.sampled_from(["flat", "house", "loft", ""])), dtype=object
            ),
        }
    )


@pytest.fixture(scope="module")
def plan(table):
    return mip.adapt(spec_of(), table)


# No leak.


@given(
    rows=st.integers(8, 30),
    seed=st.integers(0, 3),
    head=st.sampled_from(list(HEADS)),
    data=st.data(),
)
def test_a_plan_does_not_change_with_rows_that_do_not_train(rows, seed, head, data):
    frame = frame_of(rows)
    train, *others = mip.split(mip.from_frame(frame), (0.5, 0.25, 0.25), seed)
    outside = sorted(sum((part.row_ids.tolist() for part in others), []))  # noqa: RUF017
    changed = frame.copy()
    changed.loc[outside, "rooms"] = data.draw(st.integers(-(10**6), 10**6))
    changed.loc[outside, "area"] = data.draw(st.sampled_from(["", "1e30", "-7"]))
    changed.loc[outside, ["town", "sold", "style"]] = data.draw(words)
    changed.loc[outside, "price"] = data.draw(st.floats(1, 1e9))
    again = mip.split(mip.from_frame(changed), (0.5, 0.25, 0.25), seed)[0]
    spec = spec_of(head, NUMBERS)
    assert mip.adapt(spec, train) == mip.adapt(spec, again)


def test_a_plan_of_known_digests_is_the_plan_without_them(table):
    assert mip.adapt(spec_of(), table, table.digest()) == mip.adapt(spec_of(), table)


def test_a_plan_does_change_with_rows_that_train():
    spec, frame = spec_of("regression", NUMBERS), frame_of(10)
    plan = mip.adapt(spec, mip.from_frame(frame))
    for column, value in {"rooms": 99, "town": "Rom", "price": 1e9}.items():
        changed = frame.copy()
        changed.loc[3, column] = value
        assert mip.adapt(spec, mip.from_frame(changed)) != plan


# Total and row by row.


@pytest.mark.filterwarnings("ignore:.*it counts as missing")
@given(frame=frames(), picks=st.lists(st.integers(0, 5), max_size=8))
def test_encoding_is_total_and_row_by_row(frame, picks, folder, plan):
    table = mip.from_frame(frame, root=folder)
    index = [k for k in picks if k < len(frame)]
    whole, taken = plan.encode(table), plan.encode(table.take(index))
    assert len(whole.row) == len(frame)
    chosen = mip.tree.take(whole, torch.tensor(index, dtype=torch.int64))
    assert bits(chosen) == bits(taken)


@given(frame=frames(least=1), way=ways, other=frames())
def test_adapting_is_total(frame, way, other, folder):
    text = NUMBERS.replace("columns =", f'scale = "{way}"\ncolumns =', 1)
    plan = mip.adapt(spec_of("multiclass", text), with_classes(frame, folder))
    encoded = plan.encode(mip.from_frame(other.drop(columns="style"), root=folder))
    assert encoded.inputs["sizes"].dtype == torch.float32
    assert not encoded.inputs["sizes"].isinf().any()


def test_numbers_that_hardly_differ_in_training_may_be_anything_later():
    near = [2.225e-309, 0.0] * 5
    plan = mip.adapt(spec_of("regression", NUMBERS), mip.from_frame(frame_of(10).assign(area=near)))
    encoded = plan.encode(mip.from_frame(frame_of(10)))
    assert encoded.inputs["sizes"][:, 0].isnan().all()


def with_classes(frame, folder):
    """Training needs two classes, whatever else stands in the rows."""
    twice = pd.concat([frame.assign(style="flat"), frame.assign(style="loft")])
    return mip.from_frame(twice, root=folder)


@pytest.mark.filterwarnings("ignore:.*it counts as missing")
@given(frame=frames(least=1))
def test_encoded_rows_have_finite_outputs(frame, folder, plan):
    net = built(plan)
    batch = plan.encode(mip.from_frame(frame, root=folder))
    with torch.no_grad():
        assert net(batch.inputs).shape == (len(frame),)
        ordinary = [k for k, cell in enumerate(frame["rooms"]) if not abs(cell) > 1e6]
        sane = pd.to_numeric(frame["area"], errors="coerce").abs().fillna(0) < 1e6
        keep = [k for k in ordinary if sane.iloc[k]]
        assert net(batch.inputs)[keep].isfinite().all()


@cache
def _built(text):
    plan = plan_from_dict(json.loads(text))
    return mip.build(plan).eval()


def built(plan):
    return _built(json.dumps(plan_to_dict(plan)))


def test_encoding_gives_the_shapes_and_dtypes_that_are_documented(plan, table):
    batch = plan.encode(table)
    assert batch.inputs["photos"]["pixels"].shape == (ROWS, 2, 3, 8, 8)
    assert batch.inputs["photos"]["pixels"].dtype == torch.uint8
    assert batch.inputs["photos"]["present"].dtype == torch.int8
    assert batch.inputs["place"].dtype == torch.int64
    assert batch.inputs["rooms"]["sizes"].dtype == torch.float32
    assert batch.target.shape == (ROWS,)
    assert batch.row.tolist() == list(range(ROWS))


def test_an_empty_table_is_encoded(plan, table):
    batch = plan.encode(table.take([]))
    assert batch.inputs["photos"]["pixels"].shape == (0, 2, 3, 8, 8)
    assert batch.target.shape == (0,)


def test_rows_without_a_target_column_have_no_target(plan, table):
    rows = mip.from_frame(table.frame.drop(columns="price"), table.root)
    assert plan.encode(rows).target is None


def test_numbers_are_standardised_by_the_training_rows(plan, table):
    area = table.numbers("area")
    known = area[~np.isnan(area)]
    facts = plan.facts["branch"]["rooms"]["sizes"]
    assert facts["mean"][0] == pytest.approx(known.mean())
    assert facts["std"][0] == pytest.approx(known.std())
    assert facts["missing"] == [int(np.isnan(area).sum()), 0]
    expected = (area - known.mean()) / known.std()
    actual = plan.encode(table).inputs["rooms"]["sizes"][:, 0].numpy()
    np.testing.assert_allclose(actual, expected.astype("float32"), rtol=1e-6)


def test_a_constant_column_is_zero():
    frame = frame_of(6).assign(rooms=0.1)
    plan = mip.adapt(spec_of("regression", NUMBERS), mip.from_frame(frame))
    encoded = plan.encode(mip.from_frame(frame)).inputs["sizes"][:, 1]
    assert encoded.abs().max() < 1e-6


@pytest.mark.parametrize("price", [0.1, 1e6, 3.0])
def test_a_constant_target_is_zero_and_decodes_to_itself(price):
    frame = frame_of(7).assign(price=price)
    plan = mip.adapt(spec_of("regression", NUMBERS), mip.from_frame(frame))
    target = plan.encode(mip.from_frame(frame)).target
    assert target.abs().max() < 1e-6
    assert plan.decode(target)["value"] == pytest.approx([price] * 7)


def test_categories_are_places_in_a_sorted_vocabulary(plan, table):
    assert plan.facts["branch"]["place"] == {"words": [["Bonn", "Köln", "Ulm"]]}
    fresh = mip.from_frame(table.frame.assign(town="Rom"), table.root)
    assert plan.encode(fresh).inputs["place"].unique().tolist() == [0]


@pytest.mark.parametrize(("share", "learned"), [(0.5, True), (0.0, False)])
def test_training_shows_some_cells_as_unseen_so_that_their_bucket_learns(share, learned, table):
    place = Categorical(["town"], unseen_rate=share)
    plan = mip.adapt(mip.spec.Spec({"place": place}, spec_of().head), table)
    net, one = mip.build(plan), mip.sgd(0.1)
    step, batch = mip.train_step(net, plan.loss, one), plan.encode(table)
    state, path = mip.init(net, one), "body.branch.place.tables.0.weight"
    before = state.params[path][0].clone()
    for _ in range(3):
        state, _ = step(state, batch)
    assert (not torch.equal(state.params[path][0], before)) == learned


def test_a_missing_photo_is_blank_and_flagged_and_never_another_rows(plan, table):
    inputs = plan.encode(table).inputs["photos"]
    gone = table.texts("back") == ""
    assert (inputs["present"][:, 1] == 0).numpy().tolist() == gone.tolist()
    assert inputs["pixels"][:, 1][torch.from_numpy(gone)].abs().sum() == 0
    assert inputs["present"][:, 0].all()


def test_classes_in_the_target_are_checked_with_the_rows(table):
    plan = mip.adapt(spec_of("multiclass", NUMBERS), table)
    strange = table.frame.copy()
    strange.loc[[4, 5], "style"] = "loftt"
    expected = "row 4, column 'style': 'loftt' is not a class of the training rows (2 rows: 4, 5); "
    with pytest.raises(DataError) as caught:
        plan.encode(mip.from_frame(strange, table.root))
    assert expected + "did you mean 'loft'? (known: flat, house, loft)" in str(caught.value)


# A value of JSON.


def test_a_plan_goes_through_json(table, head):
    plan = mip.adapt(spec_of(head), table)
    again = plan_from_dict(json.loads(json.dumps(plan_to_dict(plan))))
    assert again == plan
    assert bits(again.encode(table)) == bits(plan.encode(table))
    assert bits(mip.build(again).state_dict()) == bits(mip.build(plan).state_dict())


def test_facts_that_are_no_json_are_refused(table):
    class Strange(Continuous):
        def adapt(self, rows):
            return {"values": {1, 2}}

    spec = mip.spec.Spec({"a": Strange(["rooms"])}, spec_of().head)
    with pytest.raises(SpecError, match=r"^adapt must return JSON: "):
        mip.adapt(spec, table)


# Errors before the first step.


def test_a_plan_needs_training_rows(table):
    with pytest.raises(DataError, match=r"^houses\.csv: there are no training rows$"):
        mip.adapt(spec_of(), table.take([]))


@pytest.mark.parametrize(
    ("head", "column", "values", "error"),
    [
        ("binary", "sold", ["yes"] * 4, "column 'sold' has 1 values (yes); binary needs 2"),
        (
            "binary",
            "sold",
            list("abca"),
            "column 'sold' has 3 values (a, b, c); binary needs 2",
        ),
        ("multiclass", "style", ["flat"] * 4, "column 'style' has fewer than 2 classes"),
        ("regression", "price", [None] * 4, "column 'price' has no training target"),
    ],
)
def test_a_target_that_cannot_be_learned_is_refused(head, column, values, error):
    frame = frame_of(4).assign(**{column: values})
    with pytest.raises(DataError) as caught:
        mip.adapt(spec_of(head, NUMBERS), mip.from_frame(frame))
    assert str(caught.value) == f"table: {error}"


def test_a_logarithm_needs_positive_targets():
    spec = mip.parse(NUMBERS + '[head]\nkind = "regression"\ncolumn = "price"\nscale = "log"\n')
    frame = frame_of(4).assign(price=[1.0, 2.0, 0.0, 3.0])
    with pytest.raises(DataError, match=r"^table row 2, column 'price': 0 has no logarithm"):
        mip.adapt(spec, mip.from_frame(frame))


def test_one_row_is_enough(folder):
    table = mip.read(folder / "houses.csv").take([0])
    plan = mip.adapt(spec_of(), table)
    assert mip.build(plan)(plan.encode(table).inputs).shape == (1,)


# The module of a plan.


def test_a_module_is_a_function_of_the_seed(plan):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two = (bits(mip.build(plan, seed=3).state_dict()) for _ in range(2))
    assert one == two != bits(mip.build(plan, seed=4).state_dict())
    assert torch.equal(torch.get_rng_state(), before)


def test_layers_of_a_head_are_linear_with_relu_between():
    text = '[branch.a]\nkind = "continuous"\ncolumns = ["a", "b", "c", "d", "e", "f", "g"]\n'
    text += '[head]\nkind = "regression"\ncolumn = "y"\nlayers = [10, 5]\n'
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(16, 8)), columns=[*"abcdefgy"])
    plan = mip.adapt(mip.parse(text), mip.from_frame(frame))
    net = mip.build(plan)
    layers = [layer for layer in net.modules() if isinstance(layer, (nn.Linear, nn.ReLU))]
    shapes = [(x.in_features, x.out_features) for x in layers if isinstance(x, nn.Linear)]
    assert shapes == [(7, 10), (10, 5), (5, 1)]
    assert [type(layer).__name__ for layer in layers] == [
        "Linear",
        "ReLU",
        "Linear",
        "ReLU",
        "Linear",
    ]
    assert net.head(net.body(plan.encode(mip.from_frame(frame)).inputs)).shape == (16,)
    assert sum(node.parameters for node in plan_nodes(plan, net)[-1:]) == 141


def test_a_summary_lists_the_parts_with_their_shapes(plan):
    nodes = {node.path: node for node in plan_nodes(plan, mip.build(plan))}
    assert list(nodes) == [
        "branch.photos",
        "branch.place",
        "branch.rooms.sizes",
        "branch.rooms",
        "branch",
        "head",
    ]
    assert nodes["branch.rooms"].shape == ("n", 6)
    assert nodes["head"].shape == ("n",)
    assert all(node.parameters > 0 for path, node in nodes.items())


def test_every_input_reaches_the_prediction(plan, table):
    net = mip.build(plan).eval()
    inputs = plan.encode(table).inputs
    base = net(inputs)
    changed = {
        "photos": {**inputs["photos"], "pixels": 255 - inputs["photos"]["pixels"]},
        "place": 3 - inputs["place"],
        "rooms": {"sizes": inputs["rooms"]["sizes"] + 1},
    }
    for name, value in changed.items():
        assert not torch.equal(net({**inputs, name: value}), base)


@pytest.mark.parametrize(
    ("pool", "width"), [("mean", 8), ("max", 8), ("concat", 16), ("attention", 8)]
)
def test_photos_are_pooled_to_one_vector(table, pool, width):
    kind = Image(["front", "back"], size=8, base_channels=2, pool=pool, missing="learn")
    plan = mip.adapt(mip.spec.Spec({"photos": kind}, spec_of().head), table)
    assert mip.build(plan).body(plan.encode(table).inputs).shape == (ROWS, width)


def test_a_column_in_which_no_photo_can_be_had_is_worth_a_warning():
    text = '[branch.a]\nkind = "image"\ncolumns = ["brand"]\nmissing = "learn"\n'
    spec = mip.parse(text + '[head]\nkind = "regression"\ncolumn = "y"\n')
    rows = mip.from_columns({"brand": ["Ford", "Fiat", "Opel"], "y": [1.0, 2.0, 3.0]})
    with pytest.warns(mip.errors.MipWarning, match="image file missing in 'brand' in every row$"):
        mip.clean(spec, rows)


# What a model may cost.

WIDE = """
branch.a.kind = "fuse"
branch.a.layers = BRANCH
branch.a.branch.sizes = { kind = "continuous", columns = ["area"] }
head = { kind = "regression", column = "price", layers = HEAD }
"""


@pytest.mark.parametrize(("branch", "head"), [([256] * 9, []), ([], [256] * 9)])
def test_layers_are_bounded_together(table, branch, head, monkeypatch):
    spec = mip.parse(WIDE.replace("BRANCH", str(branch)).replace("HEAD", str(head)))
    plan = mip.adapt(spec, table)
    mip.build(plan)
    monkeypatch.setattr(mip.model.net, "MAX_BYTES", 1 << 20)
    with pytest.raises(SpecError) as caught:
        mip.build(plan)
    text = "the model is too large: a tensor of 256 × 256 makes it more than 1 MiB"
    assert str(caught.value) == f"{text}; choose smaller layers"


def test_a_layer_that_is_too_large_is_refused_before_it_gets_memory(table):
    spec = mip.parse(WIDE.replace("BRANCH", "[]").replace("HEAD", "[65536, 65536]"))
    with pytest.raises(SpecError, match="a tensor of 65536 × 65536 makes it more than 8,192 MiB"):
        mip.build(mip.adapt(spec, table))


# Rows that are in parts already.


@pytest.mark.parametrize("words", [["train", "test"], ["Training", "val", "testing"]])
def test_parts_are_not_split_at_random_by_accident(words, tmp_path):
    text = NUMBERS + HEADS["regression"]
    frame = frame_of(12).assign(part=np.resize(words, 12))
    frame.to_parquet(tmp_path / "t.parquet")
    for rows in (mip.from_frame(frame), mip.stream(tmp_path / "t.parquet")):
        with pytest.raises(SpecError, match=r'write split = \{ column = "part" \} in \[data\]'):
            mip.parts(mip.parse(text), rows)
        by_column = mip.parse(text + '[data]\nsplit = { column = "part" }\n')
        assert len(mip.parts(by_column, rows).test) == 12 // len(words)
        at_random = mip.parse(text + "[data]\nsplit = { seed = 1 }\n")
        assert sum(map(len, mip.parts(at_random, rows))) == 12


@pytest.mark.parametrize("words", [["train"], ["wheel", "train"]])
def test_a_column_of_other_words_is_no_split(words):
    frame = frame_of(12).assign(part=np.resize(words, 12))
    cut = mip.parts(mip.parse(NUMBERS + HEADS["regression"]), mip.from_frame(frame))
    assert [*map(len, cut)] == [8, 2, 2]
