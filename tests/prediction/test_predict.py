"""Prediction is one function of rows, in their order, whatever the other rows hold."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from attrs import evolve
from conftest import NUMBERS, PHOTO, ROWS, draw_photos, exactly, frame_of, nearly, set_up, spec_of
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import mip
from mip.errors import DataError, MipError, MipWarning, SpecError
from mip.heads import Binary
from mip.model import Plan
from mip.prediction import ensemble, prediction_warnings, tta

COLUMNS = {
    "regression": ["value"],
    "binary": ["label", "p_no", "p_yes"],
    "multiclass": ["label", "p_flat", "p_house", "p_loft"],
}


@pytest.fixture(scope="module")
def predict(table, head):
    setup = set_up(spec_of(head), table)
    state = mip.fit(setup.step, setup.batches, setup.state, steps=6)
    return mip.predictor(setup.plan, state)


@pytest.fixture(scope="module")
def whole(predict, table):
    """What the predictor says of the table."""
    return predict(table)


@pytest.fixture(scope="module")
def numbers(table):
    """A predictor of table columns alone."""
    setup = set_up(spec_of("regression", NUMBERS), table)
    return mip.predictor(setup.plan, mip.fit(setup.step, setup.batches, setup.state, steps=6))


def test_a_prediction_has_a_row_each_and_the_columns_of_its_head(predict, table, head):
    frame = predict(table)
    assert list(frame.columns) == COLUMNS[head]
    assert frame.index.tolist() == list(range(len(table)))


def test_rows_come_in_the_order_given(predict, table):
    order = [5, 2, 9, 0]
    frame = predict(table.take(order))
    assert frame.index.tolist() == order
    nearly(frame, predict(table).loc[order])


@given(
    rows=st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=2 * ROWS),
    batch=st.integers(1, 2 * ROWS),
)
def test_a_prediction_is_its_rows_in_any_order_number_and_batches(
    rows, batch, predict, table, whole
):
    nearly(evolve(predict, batch_size=batch)(table.take(rows)), whole.loc[rows])


@given(
    position=st.integers(0, ROWS - 1),
    others=st.lists(st.integers(0, ROWS - 1), min_size=ROWS, max_size=ROWS),
)
def test_a_row_keeps_its_bits_whatever_is_in_the_others(position, others, predict, table, whole):
    others[position] = position
    exactly(predict(table.take(others)).iloc[[position]], whole.iloc[[position]])


def test_batches_that_are_encoded_together_keep_their_bits(predict, table, monkeypatch):
    predict = evolve(predict, batch_size=3)
    together, score = predict(table), mip.evaluate(predict, table)
    monkeypatch.setattr("mip.prediction.predictors.ENCODED_BYTES", 0)
    assert predict.rows_at_once == 3
    exactly(predict(table), together)
    assert mip.evaluate(predict, table) == score


def test_a_row_may_come_twice(numbers, table):
    frame = numbers(table.take([3, 3, 1]))
    assert frame.index.tolist() == [3, 3, 1]
    nearly(frame, numbers(table).loc[[3, 3, 1]])


def test_a_table_a_frame_and_a_file_predict_the_same(predict, table, folder):
    expected = predict(table)
    exactly(predict(folder / "houses.csv"), expected)
    exactly(predict(str(folder / "houses.csv")), expected)
    exactly(predict(mip.from_frame(table.frame, folder)), expected)


def test_a_frame_of_numbers_predicts_as_its_file(numbers, table):
    frame = frame_of()
    exactly(numbers(frame), numbers(table))


def test_the_target_is_not_needed_and_not_read(predict, table, head):
    column = {"regression": "price", "binary": "sold", "multiclass": "style"}[head]
    without = mip.from_frame(table.frame.drop(columns=column), table.root)
    strange = mip.from_frame(table.frame.assign(**{column: "nonsense"}), table.root)
    exactly(predict(without), predict(table))
    exactly(predict(strange), predict(table))


def test_predicting_changes_nothing(predict, table):
    before = torch.get_rng_state(), table.frame.copy()
    exactly(predict(table), predict(table))
    assert torch.equal(torch.get_rng_state(), before[0])
    pd.testing.assert_frame_equal(table.frame, before[1])


def test_probabilities_add_up_and_the_label_is_the_likeliest(predict, table, head):
    frame = predict(table)
    chances = frame.filter(like="p_")
    assert chances.empty == (head == "regression")
    if head == "regression":
        return
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    assert frame["label"].tolist() == chances.idxmax(axis=1).str.removeprefix("p_").tolist()


def test_a_value_is_in_the_unit_of_the_target(table):
    spec = mip.parse(
        NUMBERS
        + '[head]\nkind = "regression"\ncolumn = "price"\nscale = "log"\n'
        + '[train]\nepochs = 60\nbatch_size = 4\noptimizer = { kind = "adamw", lr = 0.03 }\n'
    )
    parts = mip.model.Parts(table, table.take([]), table.take([]))
    value = mip.run(spec, parts).predict(table)["value"]
    assert np.corrcoef(value, table.numbers("price"))[0, 1] > 0.9
    assert 0.5 < (value / table.numbers("price")).median() < 2


# Faults.


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    """A folder of photos with a broken one, and a predictor for them."""
    folder = tmp_path_factory.mktemp("shots")
    draw_photos(folder)
    (folder / "photos" / "cut.jpg").write_bytes((folder / "photos" / "1.jpg").read_bytes()[:200])
    table = mip.from_frame(frame_of(), folder, "shots.csv")
    setup = set_up(spec_of("regression", PHOTO + NUMBERS), table)
    return mip.predictor(setup.plan, setup.state), table


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("photos/cut.jpg", "photos/cut.jpg is truncated"),
        ("photos/gone.png", "photos/gone.png is missing"),
        ("../secret.png", "../secret.png leaves the table's folder"),
        ("", "no image is named"),
    ],
)
def test_one_bad_photo_costs_one_row(cell, reason, shots):
    predict, table = shots
    broken = mip.from_frame(table.frame.copy(), table.root, "shots.csv")
    broken.frame.loc[4, "front"] = cell
    others = [k for k in range(len(table)) if k != 4]
    frame = predict(broken)
    assert frame.index.tolist() == list(range(len(table)))
    assert np.isnan(frame["value"][4])
    assert frame["error"][4] == f"shots.csv row 4, column 'front': {reason}"
    assert frame["error"][others].isna().all()
    exactly(frame.loc[others, ["value"]], predict(table).loc[others])
    nearly(frame.loc[others, ["value"]], predict(table.take(others)))


def test_without_a_bad_row_there_is_no_column_of_errors(shots):
    predict, table = shots
    assert list(predict(table).columns) == ["value"]


@pytest.mark.parametrize("positions", [[3], [3, 4], range(11)])
def test_a_bad_row_is_the_same_alone_and_in_any_company(positions, shots):
    predict, table = shots
    broken = mip.from_frame(table.frame.assign(front="photos/gone.png"), table.root, "shots.csv")
    frame = predict(broken.take(positions))
    reason = "shots.csv row {}, column 'front': photos/gone.png is missing"
    assert frame["error"].tolist() == [reason.format(row) for row in positions]
    assert frame["value"].isna().all()


def test_the_first_bad_row_raises_if_asked_to(shots):
    predict, table = shots
    broken = mip.from_frame(table.frame.copy(), table.root, "shots.csv")
    broken.frame.loc[[4, 7], "front"] = "photos/gone.png"
    two = ensemble([predict, predict])
    for model in (predict, evolve(predict, batch_size=3), two):
        for function in (model, partial(mip.predict, model)):
            with pytest.raises(DataError, match=r"^shots\.csv row 4, column 'front'"):
                function(broken, errors="raise")
    exactly(predict(table, errors="raise"), predict(table))


def test_errors_is_one_of_two_words(numbers):
    for model in (numbers, ensemble([numbers, numbers])):
        with pytest.raises(MipError, match=r"^errors must be 'coerce' or 'raise', not 'ignore'$"):
            model(frame_of(), errors="ignore")
    with pytest.raises(MipError, match="a plain module reads no cells"):
        mip.predict(nn.Linear(1, 1), [torch.ones(2, 1)], errors="raise")


@pytest.mark.parametrize("bad", [[0], [63], [17], [2, 3, 40], range(1, 64), range(64)])
def test_bad_rows_are_found_in_few_halves_of_a_batch(bad, numbers, monkeypatch):
    frame = pd.concat([frame_of()] * 6, ignore_index=True).iloc[:64].astype({"rooms": object})
    whole, sizes = numbers(frame), []
    encode = Plan.encode
    monkeypatch.setattr(Plan, "encode", lambda plan, t: (sizes.append(len(t)), encode(plan, t))[1])
    frame.loc[list(bad), "rooms"] = "many"
    predictions = numbers(frame)
    assert predictions.index[predictions["error"].notna()].tolist() == list(bad)
    good = [row for row in range(64) if row not in set(bad)]
    exactly(predictions.loc[good, ["value"]], whole.loc[good])
    assert len(sizes) <= 1 + 2 * 6 * len(bad)
    assert sum(sizes) <= 64 * 7


def test_a_photo_that_may_be_missing_is_predicted(predict, table):
    blank = mip.from_frame(table.frame.assign(front="", back="photos/gone.png"), table.root)
    with pytest.warns(MipWarning, match=r"11 photos are not found \(table row 0, column 'back'"):
        frame = predict(blank)
    assert "error" not in frame
    assert frame.filter(regex="value|p_").notna().all().all()


def test_a_missing_column_names_the_nearest(numbers):
    frame = frame_of().rename(columns={"town": "twon"})
    with pytest.raises(DataError) as caught:
        numbers(frame[["area", "twon", "rooms"]])
    assert str(caught.value) == (
        "table: there is no column 'town'; did you mean 'twon'? (known: area, rooms, twon); the "
        "model reads columns 'area', 'rooms', 'town'"
    )


def test_a_word_among_numbers_costs_its_row(numbers, table):
    frame = frame_of().astype({"rooms": object})
    frame.loc[2, "rooms"] = "many"
    predictions = numbers(frame)
    assert predictions["error"][2] == "table row 2, column 'rooms': 'many' is not a number"
    others = [k for k in range(len(table)) if k != 2]
    exactly(predictions.loc[others, ["value"]], numbers(table).loc[others])
    nearly(predictions.loc[others, ["value"]], numbers(table.take(others)))


def test_a_column_that_has_turned_to_words_is_an_error_in_every_row(numbers):
    frame = numbers(frame_of().assign(rooms="many"))
    assert frame["error"].str.endswith("column 'rooms': 'many' is not a number").all()


def test_numbers_as_words_are_numbers(numbers):
    exactly(numbers(frame_of().astype(str)), numbers(frame_of()))


def test_odd_numbers_are_predicted(numbers):
    odd = frame_of(6).assign(rooms=[np.nan, np.inf, -np.inf, 1e39, 1e308, 3])
    values = numbers(odd)["value"]
    assert np.isfinite(values).all()
    assert values[1:5].nunique() <= 4


def test_unseen_categories_are_predicted_and_reported(numbers):
    frame = frame_of(6).assign(town=["Rom", "Bonn", "Wien", "Rom", "", "Ulm"])
    assert np.isfinite(numbers(frame)["value"]).all()
    assert prediction_warnings(numbers.plan, mip.from_frame(frame)) == [
        "table: unseen categories in 'town', 'Rom', 'Wien': 3 rows (0, 2, 3)"
    ]
    assert prediction_warnings(numbers.plan, mip.from_frame(frame_of())) == []


def test_unseen_categories_are_predicted_alike(numbers):
    same = frame_of(1)
    values = [numbers(same.assign(town=town))["value"][0] for town in ("Rom", "Wien", "")]
    assert len(set(values)) == 1


def test_an_empty_table_has_no_predictions(predict, table, head):
    frame = predict(table.take([]))
    assert len(frame) == 0
    assert list(frame.columns) == COLUMNS[head]


def test_many_rows_are_predicted_in_parts(numbers):
    frame = frame_of(600)
    whole = numbers(frame)
    assert len(whole) == 600
    nearly(numbers(frame.iloc[[599]]), whole[599:])


# Scores, against the formulas.


def test_the_scores_of_a_regression_are_the_formulas(table):
    setup = set_up(spec_of("regression", NUMBERS), table)
    predict = mip.predictor(setup.plan, setup.state)
    guess, truth = predict(table)["value"].to_numpy(), table.numbers("price")
    off = guess - truth
    std = truth.std()
    expected = {
        "loss": np.mean((off / std) ** 2),
        "mae": np.abs(off).mean(),
        "rmse": np.sqrt((off**2).mean()),
        "mape": np.mean(np.abs(off) / truth),
        "r2": 1 - (off**2).sum() / ((truth - truth.mean()) ** 2).sum(),
    }
    scores = mip.evaluate(predict, table)
    # The target goes through float32, which has seven digits.
    assert {name: scores[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    apes = np.sort(np.abs(off) / truth)
    assert scores["median_ape"] == pytest.approx(apes[(len(apes) - 1) // 2], rel=1e-4)


def pairs_ranked(score: np.ndarray, positive: np.ndarray) -> float:
    """The area under the curve: how often a positive row stands above a negative one."""
    over = score[positive][:, None] - score[~positive][None, :]
    return float(((over > 0) + 0.5 * (over == 0)).mean())


def test_the_scores_of_two_classes_are_the_formulas(table):
    setup = set_up(spec_of("binary", NUMBERS), table)
    predict = mip.predictor(setup.plan, setup.state)
    frame, truth = predict(table), table.texts("sold") == "yes"
    chance = frame["p_yes"].to_numpy()
    log_loss = -np.log(np.where(truth, chance, 1 - chance)).mean()
    expected = {
        "loss": log_loss,
        "accuracy": ((chance > 0.5) == truth).mean(),
        "auc": pairs_ranked(chance, truth),
    }
    assert mip.evaluate(predict, table) == pytest.approx(expected, rel=1e-5)


def test_large_logits_are_ranked_apart():
    head, facts = Binary("sold"), {"classes": ["no", "yes"]}
    logits, target = torch.tensor([40.0, 60.0, 80.0, 100.0]), torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert head.metrics(facts, logits, target)["auc"] == 1.0
    assert head.metrics(facts, -logits, target)["auc"] == 0.0
    assert head.metrics(facts, torch.ones(4), target)["auc"] == 0.5


def test_the_scores_of_many_classes_are_the_formulas(table):
    setup = set_up(spec_of("multiclass", NUMBERS), table)
    predict = mip.predictor(setup.plan, setup.state)
    frame = predict(table)
    chances = frame[["p_flat", "p_house", "p_loft"]].to_numpy()
    truth = np.array([["flat", "house", "loft"].index(word) for word in table.texts("style")])
    of_truth = chances[np.arange(len(truth)), truth]
    rank = (chances > of_truth[:, None]).sum(axis=1)
    log_loss = -np.log(of_truth).mean()
    expected = {
        "loss": log_loss,
        "accuracy": (chances.argmax(axis=1) == truth).mean(),
        "top2": (rank < 2).mean(),
        "auc": np.mean([pairs_ranked(chances[:, k], truth == k) for k in range(3)]),
    }
    assert mip.evaluate(predict, table) == pytest.approx(expected, rel=1e-5)


def test_chances_are_the_softmax_of_the_logits(table):
    setup = set_up(spec_of("multiclass", NUMBERS), table)
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    decoded = setup.plan.decode(logits)
    chances = np.stack([decoded[f"p_{word}"] for word in ("flat", "house", "loft")], axis=1)
    powers = np.exp(logits.double().numpy())
    np.testing.assert_allclose(chances, powers / powers.sum(axis=1, keepdims=True))


def test_scores_do_not_depend_on_the_batches(predict, table):
    whole, parts = mip.evaluate(predict, table), mip.evaluate(evolve(predict, batch_size=3), table)
    assert parts == pytest.approx(whole, rel=1e-5)


def test_one_class_alone_has_no_area(table):
    setup = set_up(spec_of("binary", NUMBERS), table)
    only = table.take(np.flatnonzero(table.texts("sold") == "yes"))
    scores = mip.evaluate(mip.predictor(setup.plan, setup.state), only)
    assert np.isnan(scores["auc"])
    assert np.isfinite(scores["loss"])


def test_rows_without_a_target_are_left_out_of_the_scores(numbers):
    frame = frame_of(20)
    expected = mip.evaluate(numbers, frame.drop(index=[3]))
    frame.loc[3, "price"] = np.nan
    assert mip.evaluate(numbers, frame) == pytest.approx(expected, rel=1e-6)


def test_scores_need_the_target(numbers):
    with pytest.raises(SpecError, match=r"^head\.column = 'price' is not a column of table"):
        mip.evaluate(numbers, frame_of().drop(columns="price"))


def test_a_class_unknown_to_the_model_is_named(table):
    setup = set_up(spec_of("multiclass", NUMBERS), table)
    frame = frame_of().assign(style="castle")
    with pytest.raises(DataError, match="row 0, column 'style': 'castle' is not a class of the"):
        mip.evaluate(mip.predictor(setup.plan, setup.state), frame)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_a_prediction_and_a_target_never_broadcast(loss, table):
    spec = mip.parse(NUMBERS + f'[head]\nkind = "regression"\ncolumn = "price"\nloss = "{loss}"\n')
    criterion = mip.adapt(spec, table).loss
    with pytest.raises(
        DataError, match=r"shape \(4, 1\) and a target of shape \(4,\) would broadcast$"
    ):
        criterion(torch.zeros(4, 1), torch.zeros(4))
    assert criterion(torch.zeros(4), torch.zeros(4)).shape == ()


# Augmentation at test time.


def test_views_average_the_logits_of_augmented_rows(predict, table):
    batch, views = predict.plan.encode(table), tta(predict, n=3).augmentations
    expected = torch.stack([predict.forward(each) for each in (batch, *(v(batch) for v in views))])
    assert torch.equal(tta(predict, n=3).forward(batch), expected.mean(dim=0))
    assert not torch.equal(expected.mean(dim=0), predict.forward(batch))


def test_views_depend_on_the_seed_and_not_on_the_batch(predict, table):
    first, other = (tta(predict, 2, seed)(table).select_dtypes("number") for seed in (0, 1))
    nearly(evolve(tta(predict, 2), batch_size=3)(table).select_dtypes("number"), first)
    assert not first.equals(other)


def test_views_are_one_or_more(predict):
    with pytest.raises(ValueError, match="'n' must be >= 1: 0"):
        tta(predict, n=0)


def test_views_that_would_change_nothing_are_refused(numbers, table):
    still = mip.adapt(spec_of("regression", PHOTO), table)
    photos = mip.predictor(still, mip.init(mip.build(still), mip.adamw(1e-3)))
    for predict in (numbers, photos):
        with pytest.raises(SpecError) as caught:
            tta(predict)
        assert str(caught.value) == (
            "test-time augmentation needs a model whose spec has an augmentation, and this one has "
            "none"
        )


@pytest.mark.parametrize(
    "augmentation", ["flip = true", "crop = 0.9", "hue = 0.1", 'auto = "rand"']
)
def test_any_augmentation_makes_views(table, augmentation):
    spec = spec_of("regression", PHOTO + f"augmentation = {{ {augmentation} }}\n")
    plan = mip.adapt(spec, table)
    predict = mip.predictor(plan, mip.init(mip.build(plan), mip.adamw(1e-3)))
    assert len(tta(predict, 3).augmentations) == 3


def test_a_model_and_rows_in_the_other_order_are_one_error():
    with pytest.raises(mip.MipError) as caught:
        mip.predict([torch.ones(2, 1)], torch.nn.Linear(1, 1))
    assert str(caught.value) == "predict: the model comes first, predict(model, rows), not list"
