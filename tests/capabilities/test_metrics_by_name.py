"""The usual metrics by name: on all rows, over uneven batches, in training and validation."""

from __future__ import annotations

import json
import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import torchmetrics
import torchmetrics.functional as tm
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk
from toolz import pipe
from torch import nn
from torch.nn.functional import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    mse_loss,
)

import mip
from mip.errors import DataError, MipError
from mip.metrics import NAMED, confusion_matrix, direction, from_torchmetrics

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=5)
SEEDS = st.integers(0, 10**6)
UNDEFINED = {"zero_division": np.nan}

NUMBERS = {
    "mae": sk.mean_absolute_error,
    "mape": sk.mean_absolute_percentage_error,
    "mean_pred": lambda y, p: p.mean(),
    "median_ape": lambda y, p: torch.tensor(np.abs(p - y) / np.abs(y)).median(),
    "mse": sk.mean_squared_error,
    "msle": sk.mean_squared_log_error,
    "percent_close": lambda y, p: (np.abs(p - y) <= 0.1 * np.abs(y)).mean(),
    "r2": sk.r2_score,
    "rmse": sk.root_mean_squared_error,
}
"""(targets, predictions), float64 [n]."""
TWO_CLASSES = {
    "accuracy": lambda y, z: sk.accuracy_score(y, z > 0),
    "auc": sk.roc_auc_score,
    "average_precision": sk.average_precision_score,
    "brier": lambda y, z: sk.brier_score_loss(y, sigmoid(z)),
    "ece": lambda y, z: tm.calibration_error(*as_tensors(sigmoid(z), y), "binary"),
    "f1": lambda y, z: sk.f1_score(y, z > 0, **UNDEFINED),
    "log_loss": lambda y, z: sk.log_loss(y, sigmoid(z), labels=[0, 1]),
    "precision": lambda y, z: sk.precision_score(y, z > 0, **UNDEFINED),
    "recall": lambda y, z: sk.recall_score(y, z > 0, **UNDEFINED),
}
"""(targets int64 [n], logits float64 [n])."""
FOUR_CLASSES = {
    "accuracy": lambda y, z: sk.accuracy_score(y, z.argmax(1)),
    "auc": lambda y, z: sk.roc_auc_score(y, softmax(z), multi_class="ovr"),
    "average_precision": lambda y, z: sk.average_precision_score(np.eye(4)[y], softmax(z)),
    "brier": lambda y, z: ((softmax(z) - np.eye(4)[y]) ** 2).sum(1).mean(),
    "ece": lambda y, z: tm.calibration_error(
        *as_tensors(softmax(z), y), "multiclass", num_classes=4
    ),
    "f1": lambda y, z: sk.f1_score(y, z.argmax(1), average="macro", zero_division=0),
    "log_loss": lambda y, z: sk.log_loss(y, softmax(z), labels=range(4)),
    "precision": lambda y, z: sk.precision_score(y, z.argmax(1), average="macro", zero_division=0),
    "recall": lambda y, z: sk.recall_score(y, z.argmax(1), average="macro", zero_division=0),
    "top1": lambda y, z: sk.accuracy_score(y, z.argmax(1)),
    "top2": lambda y, z: sk.top_k_accuracy_score(y, z, k=2, labels=range(4)),
    "top3": lambda y, z: sk.top_k_accuracy_score(y, z, k=3, labels=range(4)),
}
"""(targets int64 [n], logits float64 [n, 4])."""


def sigmoid(logits):
    return torch.tensor(logits).sigmoid().numpy()


def softmax(logits):
    return torch.tensor(logits).softmax(dim=1).numpy()


def as_tensors(*arrays):
    return [torch.tensor(array) for array in arrays]


def numbers(seed, n):
    draws = np.random.default_rng(seed)
    return draws.uniform(0.5, 9, n), draws.uniform(0.5, 9, n)


def classes(seed, n, k=4):
    """Targets of k classes, all of them present if there are so many rows, and logits."""
    draws = np.random.default_rng(seed)
    y = draws.permutation(np.concatenate([np.arange(k), draws.integers(0, k, n)])[:n])
    return y, draws.normal(size=(n, k) if k > 2 else n) * 3


def in_batches(predictions, targets, sizes):
    """Batches of a net that returns its inputs."""
    cuts = np.cumsum(sizes)[:-1]
    parts = (np.split(predictions, cuts), np.split(targets, cuts))
    return [tuple(as_tensors(*pair)) for pair in zip(*parts, strict=True)]


def agree(expected, predictions, targets, sizes):
    """Metrics by name over batches and their functions on all rows are what is expected."""
    folded = mip.evaluate(nn.Identity(), in_batches(predictions, targets, sizes), [*expected])
    for name, function in expected.items():
        whole = mip.metrics.metrics_by_name([name])[name](*as_tensors(predictions, targets))
        close = partial(pytest.approx, rel=1e-6, abs=1e-6, nan_ok=True)
        assert folded[name] == close(whole), name
        assert whole == close(float(function(targets, predictions))), name


@given(SEEDS, SIZES)
def test_W39_numbers_over_uneven_batches_are_scored_as_all_rows_and_as_scikit_learn(seed, sizes):
    targets, predictions = numbers(seed, sum(sizes))
    expected = NUMBERS if sum(sizes) > 1 else {n: f for n, f in NUMBERS.items() if n != "r2"}
    agree(expected, predictions, targets, sizes)


@given(SEEDS, SIZES)
def test_W39_two_classes_over_uneven_batches_are_scored_as_all_rows_and_as_scikit_learn(
    seed, sizes
):
    targets, logits = classes(seed, sum(sizes), 2)
    apart = len({*targets}) == 2
    expected = {n: f for n, f in TWO_CLASSES.items() if apart or n not in NEED_CLASSES}
    agree(expected, logits, targets, sizes)
    agree(expected, logits[:, None], targets[:, None], sizes)


@given(SEEDS, SIZES)
def test_W39_four_classes_over_uneven_batches_are_scored_as_all_rows_and_as_scikit_learn(
    seed, sizes
):
    targets, logits = classes(seed, sum(sizes))
    apart = len({*targets}) == 4
    expected = {n: f for n, f in FOUR_CLASSES.items() if apart or n not in NEED_CLASSES}
    agree(expected, logits, targets, sizes)


NEED_CLASSES = {"auc", "average_precision"}


def test_every_named_metric_is_held_to_another_library():
    assert {*NUMBERS, *TWO_CLASSES, *FOUR_CLASSES} - {"top1", "top2", "top3"} == (
        NAMED.keys() - {"top_k_accuracy"}
    )


# In training and in validation.

X = torch.randn(22, 3, generator=torch.Generator().manual_seed(0))
Y = X.sum(1) + 0.1 * X[:, 0] ** 2
NAMES = ["accuracy", "auc", "ece", "f1", "log_loss", "precision", "recall"]


def validated(batches, outputs, loss, names, epochs=2, lr=0.05):
    """A net, its history, with the metrics of training and of `valid/`, by name."""
    torch.manual_seed(0)
    net = nn.Linear(3, outputs)
    step = mip.train_step(net, loss, mip.sgd(lr), metrics=names)
    hooks = [mip.validate(net, batches, loss=loss, metrics=names)]
    return net, mip.fit(step, batches, step.init(), epochs=epochs, hooks=hooks).history


@pytest.mark.parametrize(
    ("names", "outputs", "loss", "targets"),
    [
        (["mse", "rmse", "r2", "mape", "median_ape", "mean_pred"], 1, mse_loss, Y),
        ([*NAMES, "top2", "brier"], 3, cross_entropy, (2 * Y).long().clamp(-1, 1) + 1),
        (
            NAMES,
            1,
            binary_cross_entropy_with_logits,
            (Y > 0).float(),
        ),
    ],
)
def test_W39_an_epoch_of_uneven_batches_has_the_metrics_of_all_rows(names, outputs, loss, targets):
    uneven = pipe((X, targets), mip.batch(5))
    net, history = validated(uneven, outputs, loss, names, lr=0.0)
    whole = mip.evaluate(net, pipe((X, targets), mip.batch(len(X))), names)
    for row in history.epochs:
        for name in names:
            assert row[name] == pytest.approx(whole[name], rel=1e-6)
            assert row[f"valid/{name}"] == pytest.approx(whole[name], rel=1e-6)


def test_W40_percent_close_msle_and_mean_pred():
    predictions, targets = torch.tensor([109.0, 80.0, 50.0]), torch.tensor([100.0, 100.0, 50.0])
    batches = [(predictions[:1], targets[:1]), (predictions[1:], targets[1:])]
    names = ["percent_close", "msle", "mean_pred"]
    scores = mip.evaluate(nn.Identity(), batches, names)
    assert scores["percent_close"] == pytest.approx(2 / 3)
    assert scores["mean_pred"] == pytest.approx(239 / 3)
    expected = sk.mean_squared_log_error(targets, predictions)
    assert scores["msle"] == pytest.approx(expected, rel=1e-6)
    wide = partial(mip.metrics.percent_close, tol=0.2)
    assert mip.evaluate(nn.Identity(), batches, {"close": wide}) == {"close": 1.0}
    batches[1][0][0] = -1.0
    assert math.isnan(mip.evaluate(nn.Identity(), batches, ["msle"])["msle"])


@given(SEEDS)
def test_T05_accuracies_of_the_first_k_rise_with_k_and_are_counted_by_hand(seed):
    targets, logits = classes(seed, 9, 7)
    batches = in_batches(logits.round(), targets, [4, 5])  # with ties, which count
    scores = mip.evaluate(nn.Identity(), batches, ["top1", "top2", "top5", "top7"])
    assert scores["top1"] <= scores["top2"] <= scores["top5"] <= scores["top7"] == 1
    for k in (1, 2, 5):
        rows = zip(logits.round(), targets, strict=True)
        hits = [sum(row > row[target]) < k for row, target in rows]
        assert scores[f"top{k}"] == pytest.approx(np.mean(hits))


@given(SEEDS, SIZES)
def test_T06_errors_over_uneven_batches_are_those_of_numpy(seed, sizes):
    def confidence(logits, targets):
        return logits.softmax(dim=1).topk(2).values.sum(1).mean()

    targets, predictions = numbers(seed, sum(sizes))
    scores = mip.evaluate(
        nn.Identity(), in_batches(predictions, targets, sizes), ["mse", "mae", "rmse"]
    )
    errors = predictions - targets
    expected = {"mse": (errors**2).mean(), "mae": abs(errors).mean()}
    assert scores == pytest.approx({**expected, "rmse": expected["mse"] ** 0.5})
    labels, logits = classes(seed, sum(sizes))
    scores = mip.evaluate(
        nn.Identity(), in_batches(logits, labels, sizes), {"confidence": confidence}
    )
    assert scores["confidence"] == pytest.approx(np.sort(softmax(logits))[:, -2:].sum(1).mean())


@pytest.mark.parametrize("kind", ["MeanSquaredError", "R2Score", "PearsonCorrCoef"])
def test_T07_a_metric_of_torchmetrics_is_a_fold(kind):
    metric = getattr(torchmetrics, kind)()
    fold = from_torchmetrics(metric)
    batches = [*pipe((X[:, 0], Y), mip.batch(5))]
    so_far = [fold.init()]
    for batch in batches:
        so_far.append(fold.update(so_far[-1], *batch))
    again = fold.update(so_far[1], *batches[1])  # no accumulator has changed
    assert float(fold.compute(again)) == float(fold.compute(so_far[2]))
    assert metric.update_count == 0
    expected = float(getattr(torchmetrics, kind)()(X[:, 0], Y))
    assert float(fold.compute(so_far[-1])) == pytest.approx(expected, rel=1e-5)
    uneven = pipe((X, Y), mip.batch(5))
    _, history = validated(uneven, 1, mse_loss, {"own": fold}, lr=0.0)
    for row in history.epochs:
        assert row["own"] == pytest.approx(row["valid/own"]) == history.epochs[0]["own"]
    with pytest.raises(MipError, match=rf"from_torchmetrics\({kind}\(…\)\)"):
        mip.evaluate(nn.Identity(), batches, {"own": metric})


def test_P19_the_r2_of_the_best_model():
    batches = pipe((X, Y), mip.batch(8))
    torch.manual_seed(0)
    net = nn.Linear(3, 1)
    step = mip.train_step(net, mse_loss, mip.sgd(0.4))
    hooks = [
        mip.validate(net, batches, metrics=["r2"]),
        mip.hooks.restore_best("valid/r2"),
    ]
    state, history = mip.fit(step, batches, step.init(), epochs=9, hooks=hooks)
    best = max(row["valid/r2"] for row in history.epochs)
    predictions = mip.predict(mip.module(net, state), batches)
    assert mip.metrics.r2(predictions, Y) == pytest.approx(best, rel=1e-6)
    assert best == pytest.approx(sk.r2_score(Y, predictions[:, 0]), rel=1e-6)


@given(SEEDS)
def test_P25_the_confusion_matrix_with_labels(seed):
    targets, logits = classes(seed, 30)
    matrix = confusion_matrix(*as_tensors(logits, targets))
    assert matrix.tolist() == sk.confusion_matrix(targets, logits.argmax(1)).tolist()
    labels = ["a", "b", "c", "d"]
    frame = pd.DataFrame(matrix, index=labels, columns=labels)
    pair = as_tensors(logits, targets)
    assert np.trace(frame) / frame.to_numpy().sum() == pytest.approx(mip.metrics.accuracy(*pair))
    predicted = torch.tensor(logits.argmax(1))
    assert confusion_matrix(predicted, targets, num_classes=5)[:4, :4].equal(matrix)


def test_P27_and_T19_the_accuracy_of_train_and_valid_rows_is_data():
    batches = pipe((X, (Y > 0).long()), mip.batch(5))
    _, history = validated(batches, 2, cross_entropy, ["accuracy"], epochs=3)
    frame = pd.DataFrame(history.epochs)
    assert frame[["loss", "valid/loss", "accuracy", "valid/accuracy"]].notna().all(axis=None)
    columns = json.loads(json.dumps(frame.to_dict(orient="list")))
    assert columns["accuracy"] == [row["accuracy"] for row in history.epochs]
    assert "epoch,step,loss" in frame.to_csv(index=False)
    assert len(history.steps["accuracy"]) == 3 * len(batches)  # a mean over rows, at every step


def test_T02_sets_with_names_of_their_own():
    torch.manual_seed(0)
    net, batches = nn.Linear(3, 1), pipe((X, Y), mip.batch(5))
    step = mip.train_step(net, mse_loss, mip.sgd(0.01), metrics=["mae"])
    hooks = [
        mip.validate(net, batches, "valid", metrics=["rmse"]),
        mip.validate(net, batches, "test", metrics=["r2", "mape"]),
    ]
    row = mip.fit(step, batches, step.init(), epochs=1, hooks=hooks).history.epochs[-1]
    assert [name for name in row if name not in ("epoch", "step", "loss", "lr")] == [
        "mae",
        "valid/rmse",
        "test/r2",
        "test/mape",
    ]


# What is taken, and what is refused.


def test_a_mistyped_average_is_an_error_before_the_first_step():
    batches, own = [], {"f1": partial(mip.metrics.f1, average="marco")}
    for make in (
        lambda: mip.validate(nn.Linear(3, 2), batches, metrics=own),
        lambda: mip.train_step(nn.Linear(3, 2), cross_entropy, mip.sgd(0.1), metrics=own),
    ):
        with pytest.raises(MipError, match="did you mean 'macro'"):
            make()
    with pytest.raises(MipError, match="average='binary' is of 2 classes, not of 3"):
        mip.metrics.f1(torch.eye(3), torch.arange(3), average="binary")


def test_options_hold_over_batches_too():
    targets, logits = classes(0, 21)
    batches = in_batches(logits, targets, [4, 9, 8])
    averages = {
        average: partial(mip.metrics.f1, average=average) for average in ("micro", "weighted")
    }
    scores = mip.evaluate(nn.Identity(), batches, averages)
    for average in averages:
        expected = sk.f1_score(targets, logits.argmax(1), average=average)
        assert scores[average] == pytest.approx(expected)
    bins = partial(mip.metrics.ece, n_bins=4)
    expected = tm.calibration_error(
        *as_tensors(softmax(logits), targets), "multiclass", num_classes=4, n_bins=4
    )
    assert mip.evaluate(nn.Identity(), batches, {"ece": bins})["ece"] == pytest.approx(
        float(expected)
    )


def test_logits_probabilities_and_classes_are_scored_the_same():
    for k in (2, 4):
        targets, logits = classes(1, 40, k)
        chances = sigmoid(logits) if k == 2 else softmax(logits)
        predicted = torch.tensor(logits > 0 if k == 2 else logits.argmax(1))
        for name in ("accuracy", "auc", "brier", "ece", "f1", "log_loss", "precision", "recall"):
            function = NAMED[name].function
            expected = function(logits, targets)
            assert function(chances, targets, from_logits=False) == pytest.approx(expected)
            if name in ("accuracy", "f1", "precision", "recall"):
                assert function(predicted, targets) == pytest.approx(expected)
    assert mip.metrics.log_loss([0.0, 1.0], [1, 1], from_logits=False) == pytest.approx(
        sk.log_loss([1, 1], [0.0, 1.0], labels=[0, 1])
    )


@pytest.mark.parametrize(
    ("predictions", "targets", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 2), r"predictions \[3, 2\] and targets \[3, 2\]"),
        (torch.zeros(3, 2).long(), torch.zeros(3), r"predictions \[3, 2\]"),
        (torch.zeros(3), torch.zeros(4), r"predictions \[3\] and targets \[4\]"),
        (torch.zeros(3), torch.tensor([0, 1, 2]), "from 0 to 1: 2 in row 2"),
        (torch.zeros(2, 3), torch.tensor([0, -1]), "from 0 to 2: -1 in row 1"),
        (torch.zeros(2), torch.tensor([0.0, 0.5]), "from 0 to 1: 0.5 in row 1"),
        (torch.zeros(2), ["yes", "no"], "not values of <U3"),
    ],
)
def test_what_is_not_classes_is_refused(predictions, targets, message):
    with pytest.raises(DataError, match=message):
        mip.metrics.accuracy(predictions, targets)


def test_what_is_no_probability_is_refused():
    accuracy = partial(mip.metrics.accuracy, from_logits=False)
    with pytest.raises(DataError, match=r"must be probabilities: 1\.5 in row 1"):
        accuracy(torch.tensor([0.5, 1.5]), torch.tensor([0, 1]))
    with pytest.raises(DataError, match=r"with the sum 1: 0\.5 in row 0"):
        accuracy(torch.tensor([[0.25, 0.25]]), torch.tensor([0]))


def test_numbers_of_other_shapes_are_refused_and_never_broadcast():
    assert mip.metrics.mse(torch.ones(3, 1), torch.zeros(3)) == 1
    for shape in ((3, 2), (1, 3), (4,)):
        with pytest.raises(DataError, match="not numbers of one shape"):
            mip.metrics.mse(torch.ones(shape), torch.ones(3, 1))


def test_predictions_of_nan_are_never_the_best():
    targets = torch.tensor([0, 1, 0])
    for logits in (torch.full((3,), torch.nan), torch.full((3, 2), torch.nan)):
        for name in ("accuracy", "auc", "brier", "f1", "log_loss"):
            assert not NAMED[name].function(logits, targets) > 0, name
    assert mip.metrics.top_k_accuracy(torch.full((3, 2), torch.nan), targets, k=1) == 0


def test_a_net_or_a_loss_of_probabilities_is_named_before_the_first_step():
    net = nn.Sequential(nn.Linear(3, 1), nn.Sigmoid())
    valid = pipe((X, (Y > 0).float()), mip.batch(5))
    for make in (
        lambda: mip.validate(net, valid, metrics=["f1"]),
        lambda: mip.evaluate(net, valid, ["f1"]),
        lambda: mip.train_step(net, mse_loss, mip.sgd(0.1), metrics=["f1"]),
    ):
        with pytest.raises(MipError, match=r"'f1' takes logits, and the net ends with Sigmoid"):
            make()
    with pytest.raises(MipError, match="binary_cross_entropy_with_logits"):
        mip.train_step(nn.Linear(3, 1), binary_cross_entropy, mip.sgd(0.1), metrics=["accuracy"])
    own = {"f1": partial(mip.metrics.f1, from_logits=False)}
    chances = net(X).detach()
    assert mip.evaluate(net, valid, own)["f1"] == pytest.approx(
        sk.f1_score(Y > 0, chances > 0.5), nan_ok=True
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["acuracy"], "no metric 'acuracy'; did you mean 'accuracy'"),
        (["auroc"], "did you mean 'auc'"),
        (["top0"], "no metric 'top0'"),
        ("accuracy", r"a list of names, \[\"accuracy\"\]"),
        ([mip.metrics.mae], "or a dict of functions"),
    ],
)
def test_a_mistyped_name_is_an_error_before_the_first_step(names, message):
    net, batches = nn.Linear(3, 1), pipe((X, Y), mip.batch(5))
    for make in (
        lambda: mip.validate(net, batches, metrics=names),
        lambda: mip.evaluate(net, batches, names),
        lambda: mip.train_step(net, mse_loss, mip.sgd(0.1), metrics=names),
    ):
        with pytest.raises(MipError, match=message):
            make()


def test_a_name_has_a_direction_that_hooks_know():
    assert {name for name in NAMED if direction(f"valid/{name}") == "max"} == {
        "accuracy",
        "auc",
        "average_precision",
        "f1",
        "percent_close",
        "precision",
        "r2",
        "recall",
        "top_k_accuracy",
    }
    assert (direction("valid/top3"), direction("valid/toploss")) == ("max", "min")
    net, batches = nn.Linear(3, 1), pipe((X, Y), mip.batch(8))
    step = mip.train_step(net, mse_loss, mip.sgd(0.1))
    for name in ("rmse", "r2"):
        hooks = [
            mip.validate(net, batches, metrics=[name]),
            mip.early_stop(f"valid/{name}", patience=1),
        ]
        history = mip.fit(step, batches, step.init(), epochs=4, hooks=hooks).history
        assert len(history.epochs) == 4  # it improves in every epoch


SPEC = """
branch.size = {{ kind = "continuous", columns = ["area"] }}
head = {{ {head} }}
"""


@pytest.mark.parametrize(
    ("head", "names"),
    [
        ('kind = "regression", column = "price", scale = "log"', ["mse", "msle", "rmse"]),
        ('kind = "quantile", column = "price"', ["rmse", "mape"]),
        ('kind = "count", column = "price"', ["r2", "mae"]),
        ('kind = "binary", column = "sold"', ["f1", "brier", "accuracy"]),
        ('kind = "multiclass", column = "style"', ["f1", "ece", "top2", "log_loss"]),
    ],
)
def test_the_names_score_models_of_specs_in_the_targets_unit(head, names):
    area = np.arange(50, 90)
    rows = mip.from_columns(
        {
            "area": area,
            "price": 3 * area,
            "sold": np.where(area % 3 > 0, "yes", "no"),
            "style": np.array(["flat", "house", "loft"])[area % 3],
        }
    )
    plan = mip.adapt(mip.parse(SPEC.format(head=head)), rows)
    net, encoded = mip.build(plan), pipe(plan.encode(rows), mip.batch(16))
    step = mip.train_step(net, plan.loss, mip.adam(0.05))
    hooks = [
        mip.validate(plan, [plan.encode(rows)], metrics=names),
        mip.early_stop(f"valid/{names[0]}", patience=9),
    ]
    state, history = mip.fit(step, encoded, step.init(), epochs=2, hooks=hooks)
    predict = mip.predictor(plan, state)
    frame, scores = predict(rows), mip.evaluate(predict, rows, names)
    assert {*names} < {*scores}
    for name in names:
        assert history.epochs[-1][f"valid/{name}"] == pytest.approx(scores[name], rel=1e-5)
    own = mip.evaluate(predict, rows)
    assert {name: scores[name] for name in own} == own  # the head's definitions stay
    if "value" in frame:
        for name in names:
            expected = NAMED[name].function(frame["value"], rows.numbers("price"))
            assert scores[name] == pytest.approx(expected, rel=1e-5)
    else:
        truth = rows.frame[plan.spec.head.column]
        average = "macro" if plan.spec.head.kind == "multiclass" else "binary"
        labels = {"pos_label": "yes"} if average == "binary" else {}
        expected = sk.f1_score(truth, frame["label"], average=average, **labels, zero_division=0)
        assert scores["f1"] == pytest.approx(expected)


def test_a_head_without_metrics_by_name_says_so_before_the_first_step():
    rows = mip.from_columns({"area": range(9), "stars": [1, 2, 3] * 3})
    spec = mip.parse(SPEC.format(head='kind = "ordinal", column = "stars"'))
    with pytest.raises(MipError, match=r"head\.kind = 'ordinal' has no metrics by name"):
        mip.validate(mip.adapt(spec, rows), [], metrics=["f1"])


@pytest.mark.parametrize(
    ("name", "meant"),
    [("r2_score", "r2"), ("f1_score", "f1"), ("roc_auc_score", "auc"), ("AUC", "auc"),
     ("error_rate", "accuracy"), ("recall_score", "recall"), ("Precision", "precision")],
)  # fmt: skip
def test_the_names_of_others_are_recognized(name, meant):
    with pytest.raises(MipError, match=f"did you mean '{meant}'"):
        mip.metrics.metrics_by_name([name])
