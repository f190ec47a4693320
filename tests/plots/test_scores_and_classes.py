"""Scores are never read as what they may not be: logits, probabilities, other classes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import mip
from mip import plots
from mip.errors import DataError

POINTS = np.array([[-1.0, 0.0], [1.0, 0.0], [-0.5, 1.0], [0.5, -1.0]])
SIDE = [0, 1, 0, 1]
PIXELS = np.zeros((3, 4, 4), np.uint8)
LOGITS = torch.tensor([[3.0, 1.0], [-1.0, 2.0], [0.5, 0.0]])


def areas(*arguments, **options):
    axes = plots.decision_boundary(*arguments, size=9, **options).axes[0]
    return axes.collections[0].get_array().reshape(-1).tolist()


def test_a_net_that_ends_in_sigmoid_has_the_boundary_of_its_logits():
    for bias in (0.0, 0.5):  # with 0.5 the logits are from 0 to 1
        linear = nn.Linear(2, 1)
        with torch.no_grad():
            linear.weight[:], linear.bias[:] = torch.tensor([[0.4, 0.0]]), bias
        logits = areas(linear, POINTS, SIDE)
        assert areas(nn.Sequential(linear, nn.Sigmoid()), POINTS, SIDE) == logits
        assert set(logits) == ({1} if bias else {0, 1})


def test_numbers_from_0_to_1_need_a_threshold():
    def chance(x):
        return 1 / (1 + np.exp(-x[:, 0]))

    with pytest.raises(DataError, match=r"threshold=0\.5 for probabilities, threshold=0 for"):
        areas(chance, POINTS, SIDE)
    assert areas(chance, POINTS, SIDE, threshold=0.5) == areas(lambda x: x[:, 0], POINTS, SIDE)


def test_numbers_from_0_to_1_need_from_logits():
    chances = np.array([0.1, 0.6, 0.4, 0.9])
    with pytest.raises(DataError, match=r"from_logits=False if they are probabilities"):
        plots.confusion_matrix(chances, SIDE)
    fig = plots.confusion_matrix(chances, SIDE, from_logits=False)
    assert fig.get_suptitle().startswith("accuracy 100.0%")
    assert plots.confusion_matrix(chances, SIDE, from_logits=True)
    for clear in (chances > 0.5, [0.0, 1.0, 0.0, 1.0], [0.6, 0.7, 0.9, 1.0], 10 * chances - 5):
        plots.confusion_matrix(clear, SIDE)


def test_scores_of_another_number_of_classes_are_refused_everywhere():
    counted_from_1 = [1, 2, 3]
    with pytest.raises(DataError, match=r"of 3 classes, but there are 4.*count classes from 0"):
        plots.decision_boundary(nn.Linear(2, 3), POINTS[:3], counted_from_1)
    with pytest.raises(DataError, match=r"of 3 classes, but there are 4.*count classes from 0"):
        plots.confusion_matrix(np.eye(3), counted_from_1)
    with pytest.raises(DataError, match=r"of 2 classes, but there are 4"):
        plots.confusion_matrix(np.array([-1.0, 2.0, 3.0]), counted_from_1)
    with pytest.raises(DataError, match=r"of 2 classes, but there are 3"):
        plots.images(PIXELS, [0, 1, 2], predicted=LOGITS, classes=["a", "b", "c"])
    assert set(areas(nn.Linear(2, 3), POINTS, SIDE)) <= {0, 1, 2}  # nobody has seen the third


def titles(fig):
    return [axes.get_title() for axes in fig.axes]


def test_images_take_predictions_as_a_confusion_matrix_does():
    frame = pd.DataFrame({"label": ["a", "b", "a"], "p_a": 0.7, "p_b": 0.3})
    expected = ["a\n→ a", "a\n→ b", "b\n→ a"]
    for predicted in (LOGITS, LOGITS.numpy(), frame, [0, 1, 0], torch.tensor([[0], [1], [0]])):
        fig = plots.images(PIXELS, [0, 0, 1], predicted=predicted, classes=["a", "b"])
        assert titles(fig) == expected
    assert titles(plots.images(PIXELS, [0, 0, 1], predicted=LOGITS)) == [
        "0\n→ 0",
        "0\n→ 1",
        "1\n→ 0",
    ]
    with pytest.raises(DataError, match=r"0\.7 is none of the 2 classes"):
        plots.images(PIXELS, predicted=[0.7, 0.2, 0.1], classes=["a", "b"])


def test_the_true_class_is_drawn_wherever_it_ranks():
    chances = {"cat": 0.5, "dog": 0.3, "owl": 0.15, "fox": 0.05}
    fig = plots.top_classes(PIXELS[0], chances, k=2, target="fox")
    assert [label.get_text() for label in fig.axes[1].get_yticklabels()] == ["cat", "dog", "fox"]
    by_number = plots.top_classes(
        PIXELS[0], [0.5, 0.3, 0.15, 0.05], k=2, target=3, classes=list(chances)
    )
    for figure in (fig, by_number):
        colours = [bar.get_facecolor() for bar in figure.axes[1].patches]
        assert colours[0] == colours[1] != colours[2]
    assert len(plots.top_classes(PIXELS[0], chances, k=2, target="dog").axes[1].patches) == 2
    with pytest.raises(DataError, match=r"'cow' is none of the 4 classes"):
        plots.top_classes(PIXELS[0], chances, target="cow")


def test_a_frame_of_one_column_is_that_column():
    frame = pd.DataFrame({"bmi": [0.0, 1.0]})
    fig = plots.fitted_line(nn.Linear(1, 1), frame, pd.DataFrame({"risk": [1.0, 2.0]}))
    assert (fig.axes[0].get_xlabel(), fig.axes[0].get_ylabel()) == ("bmi", "risk")
    assert fig.axes[0].collections[0].get_offsets().tolist() == [[0.0, 1.0], [1.0, 2.0]]


def test_predictions_of_another_kind_name_the_plot_that_draws_them():
    classes = pd.DataFrame({"label": ["a", "b"], "p_a": 0.5, "p_b": 0.5})
    with pytest.raises(DataError, match=r"no column 'value', but label.*confusion_matrix"):
        plots.predictions(classes, [0.0, 1.0])
    numbers = pd.DataFrame({"value": [0.5, 1.0], "q0.1": 0.0})
    with pytest.raises(DataError, match=r"no column 'label', but value.*plots\.predictions"):
        plots.confusion_matrix(numbers, ["a", "b"])


def test_a_run_is_drawn_as_its_model_is(tmp_path):
    rows = pd.DataFrame({"x": POINTS[:, 0], "y": POINTS[:, 1], "side": ["l", "r"] * 2})
    spec = mip.parse(
        'branch.p = { kind = "continuous", columns = ["x", "y"] }\n'
        'head = { kind = "binary", column = "side" }\n'
        "train = { epochs = 1 }\n"
    )
    run = mip.run(spec, (rows,), out=tmp_path / "run", context=mip.Context(device="cpu"))
    expected = areas(run.predict, rows[["x", "y"]], rows["side"])
    for model in (run, tmp_path / "run", str(tmp_path / "run" / "model.safetensors")):
        assert areas(model, rows[["x", "y"]], rows["side"]) == expected
    assert titles(plots.weights(run)) == titles(plots.weights(run.state))
