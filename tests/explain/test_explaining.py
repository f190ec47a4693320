"""What predictions rest on: halves of a model, importance, Shapley values, blanks, dependence."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from attrs import evolve
from conftest import BRANCHES, NUMBERS, set_up, spec_of
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import mip
from mip.branches import blank
from mip.errors import MipError, SpecError
from mip.explain import (
    ablation,
    branches,
    dependence,
    embed,
    halve,
    importance,
    shapley_columns,
    shapley_rows,
    shapley_scores,
    shapley_values,
    similar_rows,
)
from mip.explain.vectors import with_columns
from mip.prediction import ensemble
from mip.tree import leaves

RESIDUAL = f"{BRANCHES}\n[fusion]\nresidual = ['photos']\n"
HIDING = f"{BRANCHES}\n[fusion]\nmodality_dropout = 0.5\n"


def close(actual, expected):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=1e-4, atol=1e-5)


def model_of(table, head="regression", tree=BRANCHES):
    setup = set_up(spec_of(head, tree), table)
    return mip.predictor(setup.plan, mip.fit(setup.step, setup.batches, setup.state, steps=4))


@pytest.fixture(scope="module")
def model(table):
    return model_of(table)


@pytest.fixture(scope="module")
def linear(table):
    """A model without layers between its branches and its head, which ignores the place."""
    tree = NUMBERS.replace("[branch.place]", "[branch.place]\nembedding_dim = 3")
    predict = model_of(table, tree=tree)
    [first] = [layer for layer in predict.net.head.modules() if isinstance(layer, nn.Linear)][:1]
    with torch.no_grad():
        first.weight[:, :3] = 0  # branches are in the order of their names
    return predict


@pytest.mark.parametrize("tree", [BRANCHES, RESIDUAL, HIDING])
def test_two_halves_are_the_whole(tree, table):
    predict = model_of(table, tree=tree)
    with torch.no_grad():
        for name, residual in getattr(predict.net.residual, "branch", {}).items():
            residual.linear.weight.normal_()
            assert name == "photos"
    halves = halve(predict, table)
    assert np.array_equal(halves.predict()["value"], predict(halves.table)["value"])
    assert halves.score(halves.predict()) == pytest.approx(mip.evaluate(predict, table), rel=1e-4)
    assert {*halves.branches} == {"photos", "place", "rooms"}
    assert halves.columns["rooms"] == ["area", "rooms"]


def test_a_blank_branch_is_one_of_missing_cells(model, table):
    plan = model.plan
    nothing = table.frame.assign(**dict.fromkeys(["front", "back", "town", "area", "rooms"]))
    rows = mip.from_frame(nothing[:2].drop(columns="price"))
    pairs = zip(
        leaves(plan.encode(rows).inputs),
        leaves(blank(plan.spec.root, plan.facts["branch"], 2)),
        strict=True,
    )
    for (path, cells), (_, made) in pairs:
        if path != "photos/pixels":  # which mean nothing where there is no photo
            assert torch.equal(cells.nan_to_num(-9.0), made.nan_to_num(-9.0)), path


@pytest.mark.parametrize("scale", ["prediction", "logit"])
@pytest.mark.parametrize("function", [shapley_rows, shapley_columns])
def test_effects_add_up_to_the_prediction(function, scale, model, table):
    found = function(model, table, table.take([0, 3]), scale=scale)
    sums = found.groupby("row")["effect"].sum() + found.groupby("row")["base"].first()
    close(sums, found.groupby("row")["prediction"].first())
    if scale == "prediction":
        close(found.groupby("row")["prediction"].first(), model(table)["value"])


def test_effects_on_scores_add_up(model, table):
    found = shapley_scores(model, table)
    sums = found.groupby("metric")["effect"].sum() + found.groupby("metric")["base"].first()
    close(sums, found.groupby("metric")["score"].first())
    assert found.groupby("metric")["score"].first().to_dict() == pytest.approx(
        mip.evaluate(model, table), rel=1e-4
    )


def test_what_the_head_does_not_read_has_no_effect(linear, table):
    measured = importance(linear, table, repeats=3)
    assert (measured[measured["name"].isin(["place", "town"])]["importance"].abs() < 1e-6).all()
    assert (measured[measured["name"] == "sizes"]["importance"].abs() > 1e-6).any()
    effects = shapley_rows(linear, table, scale="logit")
    assert (effects[effects["branch"] == "place"]["effect"].abs() < 1e-6).all()
    changed = dependence(linear, table, "town")
    assert (changed.groupby("row")["prediction"].nunique() == 1).all()


@given(values=st.lists(st.floats(-9, 9), min_size=11, max_size=11), seed=st.integers(0, 9))
def test_players_who_do_not_meet_get_what_they_bring(values, seed):
    names = [f"b{k}" for k in range(len(values))]
    worth = dict(zip(names, values, strict=True))
    found = shapley_values(names, _Sums(worth), seed)
    assert {k: float(v) for k, v in found.items()} == pytest.approx(worth, abs=1e-9)


class _Sums(dict):
    """The value of any coalition: the sum of what its members bring."""

    def __missing__(self, coalition):
        return np.array(sum(dict.__getitem__(self, name) for name in coalition))

    def values(self):
        return [np.zeros(())]


def test_a_group_of_a_branchs_columns_is_the_branch(model, table):
    found = importance(model, table, groups={"both": ["area", "rooms"]}, repeats=2)
    by_name = {
        name: rows["importance"].to_numpy() for name, rows in found.groupby(["kind", "name"])
    }
    close(by_name["group", "both"], by_name["branch", "rooms"])
    assert ("column", "area") not in by_name


def test_branches_are_scored_without_and_alone(model, table):
    found = ablation(model, table)
    assert {*found["branch"]} == {"photos", "place", "rooms"}
    assert len(found) == 3 * len(mip.evaluate(model, table))
    assert {"effect", "base", "without", "alone"} <= {*branches(model, table)}


def test_a_row_with_its_own_cell_is_predicted_as_it_is(model, table):
    town = dependence(model, table, "town")
    towns = table.frame["town"]
    same = town[[towns[row] == cell for row, cell in zip(town["row"], town["town"], strict=True)]]
    close(same.set_index("row")["prediction"], model(table)["value"].loc[same["row"]])
    both = dependence(model, table, ["town", "area"], points=2, max_rows=3)
    assert len(both) == 2 * 2 * 3
    assert "" not in {*both["area"]}


def test_a_row_is_most_like_itself(model, table):
    found = similar_rows(model, table, table, k=2)
    assert found[found["rank"] == 1]["distance"].max() < 1e-3
    assert len(found) == 2 * len(table)


def test_vectors_are_those_that_the_head_reads(model, table):
    found = embed(model, table.select(["front", "back", "town", "area", "rooms"]))
    assert found.index.tolist() == table.index.tolist()
    joined = torch.tensor(found.filter(like="joined_").to_numpy())
    with torch.no_grad():
        logits = model.net.head(joined)
    close(model.plan.decode(logits)["value"], model(table)["value"])


@pytest.mark.parametrize("head", ["binary", "joint"])
def test_classes_and_several_heads_are_explained(head, table):
    predict = model_of(table, head, NUMBERS)
    effects = shapley_rows(predict, table)
    assert {*effects["output"]} == {*predict(table).select_dtypes("float").columns}
    assert len(importance(predict, table, repeats=2))


def test_an_ensemble_is_explained_as_one(table):
    both = ensemble([model_of(table, tree=NUMBERS), model_of(table)])
    found = shapley_rows(both, table).groupby("row")
    close(found["effect"].sum() + found["base"].first(), both(table)["value"])
    assert any(name.startswith("photos.1_") for name in embed(both, table))
    with pytest.raises(MipError, match='the models of an ensemble have no common scale "logit"'):
        shapley_rows(both, table, scale="logit")


MISTAKES = {
    "the model must have branches: Linear has none": lambda m, t: importance(nn.Linear(1, 1), t),
    "groups: 'size' has 'aera'; did you mean 'area'": (
        lambda m, t: importance(m, t, groups={"size": ["aera"]})
    ),
    "'repeats' must be 2 or more: 1": lambda m, t: importance(m, t, repeats=1),
    "the model does not read 'arae'; did you mean 'area'": lambda m, t: dependence(m, t, "arae"),
    "'front' holds photos, which have no order": lambda m, t: dependence(m, t, "front"),
    "k must be from 1 to the number of rows, 11: 12": lambda m, t: similar_rows(m, t, t, 12),
    "there are no background rows": lambda m, t: shapley_rows(m, t, t.take([])),
    "the model reads columns 'area', 'back'": lambda m, t: importance(
        m, t.select(["area", "price"])
    ),
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_named(text, model, table):
    with pytest.raises((MipError, SpecError), match=re.escape(text)):
        MISTAKES[text](model, table)


@pytest.mark.parametrize("tree", [BRANCHES, HIDING])
def test_columns_of_photos_are_exchanged_as_cells_are(tree, table):
    halves = halve(model_of(table, tree=tree), table)
    other = halves.take(np.arange(len(halves))[::-1])
    found = with_columns(halves, other, ["back", "area"])
    cells = {name: other.table.frame[name].array for name in ("back", "area")}
    rows = evolve(halves.table, frame=halves.table.frame.assign(**cells))
    for name, vector in halve(halves.model, rows).vectors[0].items():
        close(found[0][name], vector)
    assert any("photos" in kept for kept in halves.photos)
