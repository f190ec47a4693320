"""Several models as one: the mean of what they decode, in one file, for every head."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from attrs import evolve, frozen
from conftest import BRANCHES, HEADS, NUMBERS, draw_photos, exactly, frame_of

import mip
from mip.errors import FileError, SpecError
from mip.files import load_model, read_file, save_models
from mip.files.format import pack
from mip.heads import Regression
from mip.prediction import Ensemble, prediction_warnings, tta

TRAIN = "[train]\nepochs = 2\nbatch_size = 4\nworkers = 0\n"
ALL = HEADS | {
    "quantile": '[head]\nkind = "quantile"\ncolumn = "price"\nscale = "log"\n',
    "count": '[head]\nkind = "count"\ncolumn = "visits"\n',
    "ordinal": '[head]\nkind = "ordinal"\ncolumn = "style"\n',
    "multilabel": '[head]\nkind = "multilabel"\ncolumn = "style"\n',
}


@pytest.fixture(scope="module")
def table(folder):
    """The small table with more columns to predict."""
    frame = mip.read(folder / "houses.csv").frame
    more = {"visits": np.arange(len(frame)) % 4, "rent": np.arange(len(frame)) / 7}
    return mip.from_frame(frame.assign(**more), folder, "houses.csv")


def trained(table, head, seed=0, branches=NUMBERS, rows=None):
    """A model of a head; other `rows` give other facts."""
    text = branches + ALL.get(head, head) + TRAIN
    spec = mip.parse(text, changes={"train.seed": seed})
    train = table if rows is None else table.take(rows)
    parts = mip.model.Parts(train, table.take([]), table.take([]))
    return mip.run(spec, parts, context=mip.Context(device="cpu")).predict


@pytest.fixture(scope="module", params=ALL)
def kind(request):
    """The name of every kind of head in turn."""
    return request.param


@pytest.fixture(scope="module")
def models(table, kind):
    """Models of other seeds, other rows and other branches."""
    return [
        trained(table, kind),
        trained(table, kind, 1, rows=range(9)),
        trained(table, kind, 2, branches=BRANCHES),
    ]


@pytest.fixture(scope="module")
def pair(table):
    """Two models of a number."""
    return [trained(table, "regression", seed) for seed in (0, 1)]


def test_an_ensemble_predicts_the_mean_of_numbers_and_probabilities(models, table):
    frames = [model(table) for model in models]
    predictions = mip.prediction.ensemble(models)(table)
    assert list(predictions) == list(frames[0])
    for name in predictions.select_dtypes("number"):
        expected = np.mean([frame[name] for frame in frames], axis=0)
        np.testing.assert_array_equal(predictions[name], expected)


def test_labels_are_those_of_the_mean(models, table, kind):
    predictions = mip.prediction.ensemble(models)(table)
    if kind in {"binary", "multiclass"}:
        likely = predictions.filter(like="p_").idxmax(axis=1).str.removeprefix("p_")
        assert predictions["label"].tolist() == likely.tolist()
    if kind == "multilabel":
        chances = predictions.filter(like="p_")
        words = [";".join(row.index[row > 0.5]).replace("p_", "") for _, row in chances.iterrows()]
        assert predictions["label"].tolist() == words
    if kind == "ordinal":
        above = 1 - predictions.filter(like="p_").cumsum(axis=1).to_numpy()
        classes = np.array(["flat", "house", "loft"])
        assert predictions["label"].tolist() == classes[(above > 0.5).sum(axis=1)].tolist()


def test_a_file_holds_the_ensemble_to_the_bit(models, table, tmp_path):
    ensembled = mip.prediction.ensemble(models)
    mip.prediction.save_ensemble(tmp_path / "a.safetensors", ensembled)
    mip.prediction.save_ensemble(tmp_path / "b.safetensors", mip.load(tmp_path / "a.safetensors"))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    read = mip.load(tmp_path / "a.safetensors")
    assert isinstance(read, Ensemble)
    exactly(read(table), ensembled(table))
    assert mip.evaluate(read, table) == mip.evaluate(ensembled, table)


def test_an_ensemble_of_equals_scores_as_one_of_them(models, table, kind):
    alone = mip.evaluate(models[0], table)
    scores = mip.evaluate(mip.prediction.ensemble([models[0]] * 2), table)
    assert scores.keys() == alone.keys()
    # Quantiles that cross are sorted when they are decoded, which can only lower their loss.
    for name in alone.keys() - ({"loss"} if kind == "quantile" else set()):
        assert scores[name] == pytest.approx(alone[name], rel=1e-4, abs=1e-6, nan_ok=True)


def test_scores_are_those_of_the_averaged_prediction(pair, table):
    ensembled = mip.prediction.ensemble(pair)
    error = ensembled(table)["value"] - table.numbers("price")
    scores = mip.evaluate(ensembled, table)
    assert scores["mae"] == pytest.approx(error.abs().mean(), rel=1e-5)
    metrics = {"own": lambda logits, target: len(target)}
    assert mip.evaluate(ensembled, table, metrics)["own"] == len(table)
    losses = [mip.evaluate(model, table)["loss"] for model in pair]
    assert scores["loss"] <= np.mean(losses)


def test_metrics_of_probabilities_are_those_of_their_mean(table):
    ensembled = mip.prediction.ensemble([trained(table, "multiclass", seed) for seed in range(3)])
    predictions, truth = ensembled(table), table.texts("style")
    chance = [predictions.loc[row, f"p_{word}"] for row, word in enumerate(truth)]
    scores = mip.evaluate(ensembled, table)
    assert scores["loss"] == pytest.approx(-np.log(chance).mean(), rel=1e-5)
    assert scores["accuracy"] == (predictions["label"] == truth).mean()


def test_ensembles_may_be_put_together(pair, table):
    ensembled = mip.prediction.ensemble([mip.prediction.ensemble(pair), pair[0]])
    assert ensembled.members == (*pair, pair[0])


def test_no_rows_give_no_predictions(models, table):
    assert len(mip.prediction.ensemble(models)(table.take([]))) == 0


def test_a_row_that_one_model_cannot_predict_has_no_prediction(tmp_path, pair):
    draw_photos(tmp_path)
    table = mip.from_frame(frame_of(), tmp_path, "shots.csv")
    photo = '[branch.photo]\nkind = "image"\ncolumns = ["front"]\nsize = 8\nbase_channels = 2\n'
    ensembled = mip.prediction.ensemble(
        [pair[0], trained(table, "regression", branches=photo + NUMBERS)]
    )
    whole = ensembled(table)
    (tmp_path / "photos" / "4.png").unlink()
    predictions = ensembled(table)
    assert predictions["error"].dropna().to_dict() == {
        4: "shots.csv row 4, column 'front': photos/4.png is missing"
    }
    exactly(predictions.drop(columns="error").drop(index=4), whole.drop(index=4))
    assert predictions["value"].isna().sum() == 1


def test_remarks_are_given_for_each_plan(pair, table):
    assert mip.prediction.ensemble(pair).plans == tuple(model.plan for model in pair)
    assert all(
        prediction_warnings(plan, table) == [] for plan in mip.prediction.ensemble(pair).plans
    )


# What cannot be averaged.

JOINT = """
[head]
kind = "joint"
[head.head.price]
kind = "regression"
column = "price"
[head.head.style]
kind = "regression"
column = "rent"
"""
REGRESSION = '[head]\nkind = "regression"\ncolumn = "price"\n'


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        ("regression", "binary", "head.kind is regression in model 1 and binary in model 2"),
        ("regression", REGRESSION.replace("price", "rent"), "head.column is price in model 1 and "
         "rent in model 2"),
        ("regression", f'{REGRESSION}scale = "log"\n', "head.scale is standard in model 1 and log "
         "in model 2"),
        ("quantile", ALL["quantile"] + "quantiles = [0.5]\n", "head.quantiles is [0.1, 0.5, 0.9] "
         "in model 1 and [0.5] in model 2"),
        ("joint", JOINT, "head.head.style.kind is multiclass in model 1 and regression in model 2"),
    ],
)  # fmt: skip
def test_other_heads_are_named(one, other, difference, table):
    models = [trained(table, one), trained(table, other)]
    with pytest.raises(SpecError) as caught:
        mip.prediction.ensemble(models)
    assert str(caught.value) == f"models with different heads cannot be averaged: {difference}"


def test_other_classes_are_named(table):
    some = [k for k in range(len(table)) if table.texts("style")[k] != "loft"]
    models = [trained(table, "multiclass"), trained(table, "multiclass", rows=some)]
    with pytest.raises(SpecError) as caught:
        mip.prediction.ensemble(models)
    assert str(caught.value) == (
        "models with different heads cannot be averaged: head.classes is "
        "['flat', 'house', 'loft'] in model 1 and ['flat', 'house'] in model 2"
    )


def test_towers_may_differ(table, pair):
    other = trained(table, f"{REGRESSION}layers = [3]\ndropout = 0.5\nmembers = 2\n")
    assert len(mip.prediction.ensemble([*pair, other])(table)) == len(table)


@pytest.mark.parametrize("count", [0, 1])
def test_an_ensemble_has_two_models_at_least(count, pair):
    with pytest.raises(SpecError) as caught:
        mip.prediction.ensemble(pair[:count])
    assert str(caught.value) == f"an ensemble needs at least two models, got {count}"


def test_there_are_no_views_of_an_ensemble(table, pair):
    seen = tta(trained(table, "regression", branches=BRANCHES), 2)
    with pytest.raises(SpecError) as caught:
        mip.prediction.ensemble([seen, *pair])
    assert str(caught.value) == "an ensemble averages models without test-time augmentation"
    with pytest.raises(SpecError) as caught:
        tta(mip.prediction.ensemble(pair), 2)
    assert str(caught.value) == "an ensemble predicts without test-time augmentation"


def test_a_head_without_the_way_back_is_named(pair, table):
    @frozen
    class Plain:
        kind = "plain"
        column: str = "price"

        def __getattr__(self, name):
            if name == "logits":
                raise AttributeError(name)
            return getattr(Regression("price"), name)

    plans = [evolve(model.plan, spec=evolve(model.plan.spec, head=Plain())) for model in pair]
    changed = [evolve(model, plan=plan) for model, plan in zip(pair, plans, strict=True)]
    with pytest.raises(SpecError) as caught:
        mip.prediction.ensemble(changed)(table)
    assert str(caught.value) == (
        "models with the head Plain cannot be averaged: it has no verb 'logits'"
    )


def test_an_ensemble_is_not_taken_for_a_model(pair, tmp_path):
    path = tmp_path / "both.safetensors"
    mip.prediction.save_ensemble(path, mip.prediction.ensemble(pair))
    with pytest.raises(FileError) as caught:
        load_model(path)
    assert str(caught.value) == f"{path}: an ensemble of 2 models, where one is needed"


@pytest.mark.parametrize("models", [[], {}, "x", 3, [{}, {}], [None]])
def test_a_file_whose_models_cannot_be_read(models, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(pack({}, {"models": models}))
    with pytest.raises(FileError, match=r"cannot be read$"):
        mip.load(path)


def test_a_file_whose_heads_differ_is_refused(pair, table, tmp_path):
    other = trained(table, "binary")
    models = []
    for k, model in enumerate((pair[0], other)):
        mip.save(
            tmp_path / f"{k}", model.plan, mip.train.State(dict(model.net.state_dict()), {}, ())
        )
        models.append(load_model(tmp_path / f"{k}"))
    save_models(tmp_path / "both", models)
    with pytest.raises(
        FileError, match=r"both: no model can be built from its plan \(models with different"
    ):
        mip.load(tmp_path / "both")


def test_nothing_else_is_in_the_file(pair, tmp_path):
    mip.prediction.save_ensemble(tmp_path / "a.safetensors", mip.prediction.ensemble(pair))
    tensors, meta = read_file(tmp_path / "a.safetensors")
    assert meta.keys() == {"format", "models", "sha256"}
    assert {name.split("/")[0] for name in tensors} == {"0", "1"}


# On the command line.


def test_the_command_line_makes_and_uses_an_ensemble(table, folder, tmp_path, run):
    spec = mip.parse(NUMBERS + ALL["binary"] + TRAIN)
    parts = mip.parts(spec, table)
    for seed in (0, 1):
        seeded = evolve(spec, train=evolve(spec.train, seed=seed))
        mip.run(seeded, parts, out=tmp_path / f"{seed}", context=mip.Context(device="cpu"))
    out, csv = tmp_path / "both.safetensors", tmp_path / "predictions.csv"
    done = run("ensemble", tmp_path / "0", tmp_path / "1/model.safetensors", "--out", out)
    assert done[:2] == (0, f"wrote {out}: the mean of 2 models\n")
    assert run("predict", out, folder / "houses.csv", "--out", csv)[0] == 0
    expected = mip.load(out)(table)
    pd.testing.assert_frame_equal(pd.read_csv(csv, index_col="row"), expected.rename_axis("row"))
    code, scored, _ = run("evaluate", out, folder / "houses.csv", "--split", "test")
    assert code == 0
    assert "accuracy" in scored
    refused = run("predict", out, folder / "houses.csv", "--tta", 2)
    assert refused[2] == "mip: error: an ensemble predicts without test-time augmentation\n"


def test_parts_that_models_do_not_share_are_not_scored(table, folder, tmp_path, run):
    for seed in (0, 1):
        change = {"data.split": {"fractions": [0.5, 0.25, 0.25], "seed": seed}}
        spec = mip.parse(NUMBERS + ALL["regression"] + TRAIN, changes=change)
        mip.run(
            spec,
            mip.parts(spec, table),
            out=tmp_path / f"{seed}",
            context=mip.Context(device="cpu"),
        )
    models = [mip.load(tmp_path / f"{seed}" / "model.safetensors") for seed in (0, 1)]
    mip.prediction.save_ensemble(tmp_path / "both.safetensors", mip.prediction.ensemble(models))
    done = run("evaluate", tmp_path / "both.safetensors", folder / "houses.csv", "--split=test")
    assert done[2] == (
        "mip: error: houses.csv: the models were trained on different parts of it, so that some "
        "have seen what is held out from others; leave out --split\n"
    )
