"""Every optional verb of a custom kind is called, at any depth of the tree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attrs import field, frozen
from conftest import fold
from torch import nn

import mip
from mip.branches import Categorical, Continuous, Tabular
from mip.branches.protocol import Problem
from mip.errors import DataError, MipWarning
from mip.model import conversions, filled_rows
from mip.prediction import prediction_warnings
from mip.runs.feeding import train_pipe

VERBS = ("absent", "augment", "cache", "conversions", "pretrain", "problems", "unseen")
CALLS = []


@frozen
class Mass:
    """Numbers above 0, with all the optional verbs."""

    kind = "mass"
    column: str
    missing: str = "drop"

    def adapt(self, rows):
        return {"most": float(np.nanmax(rows.numbers(self.column)))}

    def encode(self, facts, rows):
        bad = np.flatnonzero(~(rows.numbers(self.column) > 0)).tolist()
        if bad and self.missing in ("drop", "error"):
            raise DataError(f"{rows.cell_name(bad[0], self.column)}: no mass")
        return torch.from_numpy(rows.numbers(self.column)).float().unsqueeze(1)

    def module(self, facts):
        return nn.Linear(1, 2)

    def problems(self, rows):
        for place in np.flatnonzero(~(rows.numbers(self.column) > 0)).tolist():
            yield place, self.column, f"{rows.numbers(self.column)[place]:g} is no mass"

    def conversions(self, rows):
        for place in np.flatnonzero(rows.numbers(self.column) > 100).tolist():
            yield place, f"'{self.column}' is heavy"

    def unseen(self, facts, rows):
        yield self.column, [str(x) for x in rows.texts(self.column) if float(x) > facts["most"]]

    def augment(self, inputs, key, rows):
        return inputs + 1000

    def pretrain(self, module):
        nn.init.constant_(module.weight, 7.0)

    def cache(self, facts, rows, folder):
        CALLS.append(folder)
        return self.encode(facts, rows)


@frozen
class Summed:
    """A problem with a summary for reports; no policy."""

    kind = "summed"
    column: str

    def adapt(self, rows):
        return {}

    def encode(self, facts, rows):
        return torch.from_numpy(rows.numbers(self.column)).float().unsqueeze(1)

    def module(self, facts):
        return nn.Identity()

    def problems(self, rows):
        for place in np.flatnonzero(rows.numbers(self.column) > 100).tolist():
            yield Problem(place, self.column, "a reason that is long", "long")


@frozen
class Both:
    """A custom fusion, which screens rows itself."""

    kind = "both"
    branch: dict = field(converter=dict)
    columns: tuple = ()
    missing: str = "drop"

    def adapt(self, rows):
        return {name: each.adapt(rows) for name, each in self.branch.items()}

    def encode(self, facts, rows):
        return {name: each.encode(facts[name], rows) for name, each in self.branch.items()}

    def module(self, facts):
        return mip.branches.Fuse(self.branch).module(facts)

    def problems(self, rows):
        yield 0, "mass", "the first"

    def augment(self, inputs, key, rows):
        return {name: leaf - 500 for name, leaf in inputs.items()}


KINDS = {**mip.KINDS, "mass": Mass, "summed": Summed, "both": Both}
DEPTHS = {
    "alone": ("", "branch.own"),
    "in a fusion": ('[branch.a]\nkind = "fuse"\n', "branch.a.branch.own"),
    "in a fusion of fusions": (
        '[branch.a]\nkind = "fuse"\n[branch.a.branch.b]\nkind = "fuse"\n',
        "branch.a.branch.b.branch.own",
    ),
}
OTHER = '[branch.t]\nkind = "tabular"\ncontinuous = ["mass"]\ncategorical = ["town"]\n'
HEAD = '[head]\nkind = "regression"\ncolumn = "price"\n[train]\noptimizer.kind = "sgd"\n'


@pytest.fixture(params=DEPTHS.values(), ids=DEPTHS)
def depth(request):
    return request.param


def spec(depth, kind="mass", missing="drop"):
    policy = f'missing = "{missing}"\n' if missing else ""
    own = f'[{depth[1]}]\nkind = "{kind}"\ncolumn = "mass"\n{policy}'
    return mip.parse(depth[0] + own + OTHER + HEAD, KINDS)


def masses(*values):
    n = len(values)
    cells = {"mass": list(values), "town": ["a", "b"] * (n // 2) + ["a"] * (n % 2)}
    return mip.from_columns({**cells, "price": list(range(n))})


GOOD = masses(*range(1, 25))


def test_a_row_with_a_problem_is_dropped_and_reported(depth):
    used, report = mip.clean(spec(depth), masses(*range(1, 13), -3, *range(14, 25)))
    assert report.dropped == {"-3 is no mass in 'mass'": [12]}
    assert used.row_ids.tolist() == [*range(12), *range(13, 24)]


def test_a_row_with_a_problem_is_an_error(depth):
    where = depth[1].replace(".", r"\.")
    cure = rf'\(leave the row out, or train with {where}\.missing = "drop" or "learn"\)$'
    with pytest.raises(DataError, match=r"row 1, column 'mass': 0 is no mass " + cure):
        mip.clean(spec(depth, missing="error"), masses(1, 0, 3))


@pytest.mark.parametrize("missing", ["learn", "keep"])
def test_a_row_with_a_problem_is_kept_and_reported_also_at_prediction(missing, depth):
    own, rows = spec(depth, missing=missing), masses(*range(1, 13), -3)
    used, report = mip.clean(own, rows)
    assert (len(used), report.filled) == (13, {"-3 is no mass in 'mass'": [12]})
    assert filled_rows(own, rows) == report.filled
    assert prediction_warnings(mip.adapt(own, GOOD), rows)[-1].endswith(
        "-3 is no mass in 'mass': 1 row (12)"
    )


def test_a_row_with_a_problem_has_no_prediction(depth):
    plan = mip.adapt(spec(depth), GOOD)
    state = mip.init(mip.build(plan), mip.sgd(0.1))
    errors = mip.predictor(plan, state)(masses(1, -3, 2))["error"]
    assert errors.isna().tolist() == [True, False, True]
    assert errors[1].endswith("row 1, column 'mass': no mass")


def test_without_a_policy_a_problem_is_an_error(depth):
    cure = r"\(leave the row out\)$"
    with pytest.raises(DataError, match=r"row 2, column 'mass': a reason that is long " + cure):
        mip.clean(spec(depth, "summed", missing=None), masses(1, 2, 101))


def test_dropping_many_rows_warns(depth):
    with pytest.warns(MipWarning, match="4 rows, 2 used; dropped, -1 is no mass"):
        assert len(mip.clean(spec(depth), masses(-1, 2, -1, 4))[0]) == 2


def test_oddities_are_reported(depth):
    assert conversions(spec(depth), masses(1, 500, 2)) == {"'mass' is heavy": [1]}


def test_unseen_categories_are_reported(depth):
    plan = mip.adapt(spec(depth), GOOD)
    assert "unseen categories in 'mass', '30': 1 row (1)" in "".join(
        prediction_warnings(plan, masses("5", "30"))
    )


def test_inputs_are_augmented_only_in_training(depth):
    own = spec(depth)
    batch = next(iter(train_pipe(mip.adapt(own, GOOD), GOOD)))
    plain = mip.adapt(own, GOOD).encode(GOOD)
    values = [inner(batch.inputs), inner(plain.inputs)]
    assert [float(value.min()) for value in values] == [1001.0, 1.0]


def inner(inputs):
    while not isinstance(inputs, torch.Tensor):
        inputs = inputs["own"] if "own" in inputs else inputs["a" if "a" in inputs else "b"]
    return inputs


def test_modules_start_from_pretrained_weights(depth):
    params = dict(mip.build(mip.adapt(spec(depth), GOOD)).named_parameters())
    (weight,) = [param for name, param in params.items() if name.endswith("own.weight")]
    assert (weight == 7).all()


def test_encoded_rows_are_cached_on_disk(depth, tmp_path):
    CALLS.clear()
    plan = mip.adapt(spec(depth), GOOD)
    assert torch.equal(inner(plan.cache(GOOD, tmp_path).inputs), inner(plan.encode(GOOD).inputs))
    assert [tmp_path] == CALLS


def test_verbs_of_a_custom_fusion_are_called_like_those_of_its_branches():
    tree = mip.from_columns({"mass": [1.0, 2.0, -3.0] + [4.0] * 30, "price": range(33)})
    root = Both({"own": Mass("mass")}, ("mass",))
    own = mip.spec.Spec({"x": root}, mip.KINDS["regression"]("price"))
    _, report = mip.clean(own, tree)
    assert report.dropped == {"-3 is no mass in 'mass'": [2], "the first in 'mass'": [0]}
    rows = tree.take([1, *range(3, 33)])
    batch = next(iter(train_pipe(mip.adapt(own, rows), rows)))
    assert float(batch.inputs["x"]["own"].max()) == -496.0


def test_tabular_has_the_verbs_of_the_kinds_of_its_columns():
    for kind in (Continuous, Categorical):
        assert {verb for verb in VERBS if hasattr(kind, verb)} <= set(dir(Tabular))


def test_it_trains(depth):
    plan = mip.adapt(spec(depth), GOOD)
    net, one = mip.build(plan), mip.sgd(1e-6)
    step = mip.train_step(net, plan.loss, one)
    assert fold(step, train_pipe(plan, GOOD), mip.init(net, one), 2).step == 2
