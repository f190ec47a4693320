"""The unit of a number changes nothing: neither what is learned, nor how it is scored."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import mip
from mip.heads import Count, Joint, Quantile, Regression, predictions_to_logits, scores
from mip.metrics import auc, in_target_unit, percent_close, root_mean_square, stable_mean
from mip.model import Parts
from mip.prediction import baselines

ROWS = 24
UNITS = st.floats(-30, 30).map(lambda power: 10**power)
ABSOLUTE = {"mae", "rmse", "pinball", "poisson_deviance"}
"""The metrics in the target's unit; all others have none."""

HEADS = {
    "standard": Regression("y"),
    "huber": Regression("y", loss="huber"),
    "log": Regression("y", "log", "mae"),
    "quantile": Quantile("y"),
    "quantile log": Quantile("y", [0.2, 0.9], "log"),
    "joint": Joint({"one": Regression("y"), "two": Quantile("y")}),
}
NUMBERS = np.random.default_rng(5).normal(20, 6, ROWS).clip(1)
GUESSES = NUMBERS + np.random.default_rng(6).normal(0, 3, ROWS).clip(1 - NUMBERS)


def columns_of(guess):
    """What heads of numbers decode to, each quantile a little above the one before."""
    levels = (0.1, 0.2, 0.5, 0.9)
    columns = {
        "value": guess,
        **{f"q{level}": guess * (1 + level) for level in levels},
    }
    return columns | {
        f"{name}.{column}": columns[column] for name in ("one", "two") for column in columns
    }


def scored(head, target, guess, facts=None):
    rows = mip.from_columns({"y": target})
    facts = facts or head.adapt(rows)
    logits = mip.tree.map_tree(
        torch.Tensor.float, predictions_to_logits(head, facts, columns_of(guess))
    )
    return scores(head, facts, logits, head.encode(facts, rows))


def in_units(scores, unit):
    """The metrics if the target had been measured in another unit."""
    names = {name: name.split("/")[-1].split(".")[-1] for name in scores}
    return {name: scores[name] * (unit if names[name] in ABSOLUTE else 1) for name in scores}


near = partial(pytest.approx, rel=1e-4, nan_ok=True)


def alike(scores, want):
    """Equal to rounding in float32: metrics of one unit of size are compared by it alone."""
    assert scores.keys() == want.keys()
    for name, value in want.items():
        assert scores[name] == near(value, abs=0), name


@pytest.mark.parametrize("name", HEADS)
@given(unit=UNITS, zero=st.booleans())
def test_scores_do_not_depend_on_the_unit(name, unit, zero):
    numbers = NUMBERS - (NUMBERS[3] if zero and "log" not in name else 0)
    guesses = GUESSES - (NUMBERS - numbers)
    expected = scored(HEADS[name], numbers, guesses)
    alike(scored(HEADS[name], unit * numbers, unit * guesses), in_units(expected, unit))


@given(factor=st.integers(0, 25).map(lambda power: 10.0**power))
def test_scores_of_counts_grow_with_the_counts(factor):
    counts, head = NUMBERS.round(), Count("y")
    expected, actual = (scored(head, k * counts, k * GUESSES) for k in (1.0, factor))
    del expected["loss"], actual["loss"]  # a likelihood of counts, which have a unit
    alike(actual, in_units(expected, factor))


@pytest.mark.parametrize("head", [Regression("y", "none"), Quantile("y", scale="none")])
@given(unit=UNITS)
def test_scores_of_a_target_that_is_not_scaled_do_not_depend_on_its_unit(head, unit):
    expected, actual = (scored(head, k * NUMBERS, k * GUESSES) for k in (1.0, unit))
    del expected["loss"], actual["loss"]  # in the target's unit, as asked
    alike(actual, in_units(expected, unit))


@given(unit=UNITS)
def test_the_share_of_close_guesses_does_not_depend_on_the_unit(unit):
    metric = in_target_unit(lambda logits: {"value": unit * logits.double().numpy()}, percent_close)
    truth = torch.tensor([100.0, 100.0, 0.0, 0.0])
    assert metric(torch.tensor([109.0, 89.0, 0.0, 1.0]), truth) == 0.5


def spec_of(head, **train):
    branch = mip.branches.Continuous(["x"])
    return mip.spec.Spec({"x": branch}, head, train=mip.spec.Train(seed=3, batch_size=8, **train))


def cut_of(unit=1.0, measured=1.0, rows=ROWS):
    """Rows whose target is in a unit and whose input is measured in another."""
    x = np.random.default_rng(7).normal(size=ROWS)
    table = mip.from_columns({"x": measured * (x - 3), "y": unit * (NUMBERS + 3 * x).clip(1)})
    return Parts(table.take(range(14)), table.take(range(14, 19)), table.take(range(19, ROWS)))


SCALES = {"standard": Regression("y"), "log": Regression("y", "log"), "quantile": Quantile("y")}


@pytest.mark.parametrize("name", SCALES)
@settings(max_examples=4)
@given(unit=UNITS, measured=UNITS)
@example(unit=1e-9, measured=1e-27)
def test_a_model_of_another_unit_is_the_same_model(name, unit, measured):
    spec = spec_of(SCALES[name], epochs=3)
    plain, scaled_run = (
        mip.run(spec, cut_of(*units), context=mip.Context(device="cpu"))
        for units in [(), (unit, measured)]
    )
    test, same = cut_of().test, cut_of(unit, measured).test
    expected, actual = plain.predict(test), scaled_run.predict(same)
    np.testing.assert_allclose(actual, unit * expected, rtol=1e-4)
    alike(mip.evaluate(scaled_run.predict, same), in_units(mip.evaluate(plain.predict, test), unit))
    for row, before in zip(scaled_run.history.epochs, plain.history.epochs, strict=True):
        assert "valid/mae" in row
        alike(row, in_units(before, unit))


@pytest.mark.parametrize("scale", ["standard", "quantile"])
@pytest.mark.parametrize("embedding", ["none", "piecewise", "periodic"])
@given(unit=UNITS, moved=st.floats(-1e6, 1e6))
def test_an_input_of_another_unit_is_the_same_input(scale, embedding, unit, moved):
    kind = mip.branches.Continuous(["x"], scale, embedding, bins=4)
    numbers = NUMBERS + moved
    encoded = []
    for k in (1.0, unit):
        rows = mip.from_columns({"x": k * numbers})
        facts = kind.adapt(rows)
        encoded.append(kind.encode(facts, rows))
        kind.module(facts)
    torch.testing.assert_close(*encoded, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("value", [7.0, -0.1])
@given(unit=UNITS)
def test_numbers_that_are_all_equal_have_no_unit_either(value, unit):
    cells = [unit * value] * 3 + [unit * value * 1.5]
    rows, plain = mip.from_columns({"x": cells}), Regression("x")
    facts = plain.adapt(rows.take([0, 1, 2]))
    assert plain.encode(facts, rows).tolist() == near(
        [0, 0, 0, math.copysign(0.5, value)], abs=1e-6
    )
    assert plain.decode(facts, torch.ones(1))["value"][0] == near(
        unit * value + abs(unit * value), abs=1e-12 * unit
    )


@given(unit=UNITS)
def test_logarithms_that_are_all_equal_have_the_deviation_one(unit):
    head = Regression("x", "log")
    assert head.adapt(mip.from_columns({"x": [7 * unit] * 3}))["std"] == 1.0


@settings(max_examples=3)
@given(unit=UNITS)
@example(unit=1e-9)
def test_baselines_do_not_depend_on_the_unit(unit):
    pytest.importorskip("sklearn")
    spec = spec_of(Regression("y"), epochs=1)
    expected, actual = (
        baselines(mip.adapt(spec, cut.train), cut, trees=3) for cut in (cut_of(), cut_of(unit))
    )
    for model, parts in expected.items():
        for part in parts:
            # The mean's r2 of the rows that it is the mean of is 0, to rounding.
            actual[model][part]["r2"] += 1
            parts[part]["r2"] += 1
            assert actual[model][part] == near(in_units(parts[part], unit), abs=1e-6 * unit)


# What is not defined.


def test_r2_is_sklearns_and_that_of_the_mean_is_zero():
    sklearn = pytest.importorskip("sklearn.metrics")
    scores = scored(Regression("y"), 1e-9 * NUMBERS, 1e-9 * GUESSES)
    assert scores["r2"] == pytest.approx(sklearn.r2_score(NUMBERS, GUESSES), rel=1e-6)
    mape = sklearn.mean_absolute_percentage_error(NUMBERS, GUESSES)
    assert scores["mape"] == pytest.approx(mape, rel=1e-6)
    assert scores["mae"] == pytest.approx(1e-9 * np.abs(NUMBERS - GUESSES).mean(), rel=1e-6)
    mean = scored(Regression("y"), 1e-9 * NUMBERS, np.full(ROWS, 1e-9 * NUMBERS.mean()))
    assert mean["r2"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-30, -3e30])
@pytest.mark.parametrize("rows", [1, 3])
def test_r2_of_equal_targets_or_of_one_row_is_not_defined(value, rows):
    scores = scored(
        Regression("y"), np.full(rows, value), np.full(rows, 2.0), {"mean": 1, "std": 3}
    )
    assert math.isnan(scores["r2"])
    assert math.isfinite(scores["mae"])


def test_mape_beside_a_target_of_zero_is_not_defined_and_the_median_may_be():
    guess = np.array([1.0, 1.1, 2.4, 9.0])
    scores = scored(Regression("y"), [0.0, 1.0, 2.0, 4.0], guess)
    assert math.isnan(scores["mape"])
    assert scores["median_ape"] == pytest.approx(0.2, rel=1e-5)
    scores = scored(Regression("y"), [0.0, 0.0, 0.0, 4.0], guess)
    assert math.isnan(scores["median_ape"])
    # Whether a target is 0 is seen through the rounding of what is learned.
    many = np.random.default_rng(0).normal(40, 9, 99)
    many[7] = 0
    assert math.isnan(scored(Regression("y"), many, many + 1)["mape"])


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=9), st.floats(-150, 150))
def test_means_of_sizes_and_squares_neither_over_nor_underflow(numbers, power):
    values, unit = torch.tensor(numbers, dtype=torch.float64), 10.0 ** (2 * power)
    for actual, expected in (
        (stable_mean((unit * values).abs()), values.abs().mean()),
        (root_mean_square(unit * values), values.square().mean().sqrt()),
    ):
        assert actual == pytest.approx(unit * float(expected), rel=1e-9, abs=1e-300)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=12))
def test_the_area_is_the_share_of_pairs_in_order(pairs):
    score, truth = torch.tensor(pairs).T
    apart = score[truth == 1][:, None] - score[truth == 0]
    want = (apart > 0).double() + 0.5 * (apart == 0)
    assert auc(score, truth) == pytest.approx(float(want.mean()), nan_ok=True)
