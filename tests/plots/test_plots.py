"""What every plot has in common, and what each draws: exactly the data that it was given."""

from __future__ import annotations

import inspect
import json
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from linear import line, scored
from matplotlib.figure import Figure
from PIL import Image
from toolz import pipe
from torch import nn
from torch.nn.functional import mse_loss

import mip
from mip import plots
from mip.errors import DataError, FileError, MipError
from mip.explain import record_activations
from mip.train import History, LRCurve

ROWS = (
    {"epoch": 0, "step": 2, "loss": 2.0, "valid/loss": 3.0, "valid/mae": 0.5},
    {"epoch": 1, "step": 4, "loss": 1.0, "valid/loss": 2.0, "valid/mae": 0.4},
)


def recorded():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    with record_activations(net) as records:
        net(torch.ones(4, 2))
    return records


SQUARES = np.zeros((3, 4, 4), np.uint8)

BATCHES = [(torch.tensor([[0.0], [1.0]]), torch.tensor([0.0, 2.0]))]

DEPENDENCE = pd.DataFrame(
    {"area": [50, 50, 90, 90], "row": [0, 1, 0, 1], "output": "value", "prediction": [1, 2, 3, 5.0]}
)
EFFECTS = pd.DataFrame(
    {"row": 7, "output": "value", "branch": ["facts", "photos"], "effect": [2.0, -1.0]}
).assign(base=3.0, prediction=4.0)
IMPORTANCE = pd.DataFrame(
    {"kind": "column", "name": ["area", "age"], "metric": "loss", "score": 1.0}
).assign(importance=[2.0, 0.1], low=[1.5, -0.1], high=[2.5, 0.3])
PLOTS = {
    "activation_histograms": lambda **k: plots.activation_histograms(recorded(), **k),
    "activations": lambda **k: plots.activations(recorded(), **k),
    "confusion_matrix": lambda **k: plots.confusion_matrix([0, 1], [0, 0], **k),
    "decision_boundary": lambda **k: plots.decision_boundary(
        nn.Linear(2, 3), np.eye(2), [0, 2], size=5, **k
    ),
    "dependence": lambda **k: plots.dependence(DEPENDENCE, **k),
    "effects": lambda **k: plots.effects(EFFECTS, 7, **k),
    "fitted_line": lambda **k: plots.fitted_line(nn.Linear(1, 1), [0.0, 1.0], [0.0, 1.0], **k),
    "history": lambda **k: plots.history(ROWS, **k),
    "images": lambda **k: plots.images(SQUARES, **k),
    "importance": lambda **k: plots.importance(IMPORTANCE, **k),
    "loss_surface": lambda **k: plots.loss_surface(nn.Linear(1, 1), BATCHES, mse_loss, size=3, **k),
    "lr_range": lambda **k: plots.lr_range(LRCurve((0.1, 1.0), (2.0, 1.0)), **k),
    "predictions": lambda **k: plots.predictions([1.0, 2.0], [1.0, 3.0], **k),
    "top_classes": lambda **k: plots.top_classes(SQUARES[0], {"cat": 0.5, "dog": 0.25}, **k),
    "weights": lambda **k: plots.weights(nn.Linear(2, 2), **k),
}


def test_every_plot_is_tried_and_has_the_same_last_arguments():
    functions = [getattr(plots, name) for name in plots.__all__ if name[0].islower()]
    drawing = [f for f in functions if "title" in inspect.signature(f).parameters]
    assert sorted(f.__name__ for f in drawing) == sorted(PLOTS)
    for function in drawing:
        last = [*inspect.signature(function).parameters.values()][-3:]
        assert [each.name for each in last] == ["title", "path", "overwrite"]
        assert all(each.kind is inspect.Parameter.KEYWORD_ONLY for each in last)


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_a_figure_and_a_file_only_with_a_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fig = PLOTS[name](title="a title")
    assert isinstance(fig, Figure)
    assert "a title" in fig.get_suptitle()
    assert not list(tmp_path.iterdir())
    path = tmp_path / "a.png"
    path.write_bytes(b"mine")
    with pytest.raises(FileError, match=r"a\.png: exists already"):
        PLOTS[name](path=path)
    assert path.read_bytes() == b"mine"
    PLOTS[name](path=path, overwrite=True)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [each.name for each in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("name", PLOTS)
def test_an_unknown_suffix_is_an_error_and_leaves_no_file(name, tmp_path):
    for path in ("a.pgn", "a"):
        with pytest.raises(MipError, match=r"a figure is not written as '(pgn)?'.*jpg, pdf, png"):
            PLOTS[name](path=tmp_path / path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", PLOTS)
def test_without_matplotlib_a_plot_says_what_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "mip.plots.canvas", None)
    with pytest.raises(MipError, match=r"pip install 'mixed-input-pipelines\[plot\]'"):
        PLOTS[name]()


def test_metrics_import_no_torchmetrics_plots_no_matplotlib_and_drawing_no_pyplot():
    code = """
import sys, mip
mip.metrics.auc
assert "torchmetrics" not in sys.modules
from mip.plots import classes, features, histories, layers, losses, pictures
assert not any(name.startswith("matplotlib") for name in sys.modules)
mip.plots.history([{"epoch": 0, "step": 1, "loss": 1.0}])
assert "matplotlib.figure" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("suffix", "begin"),
    [("svg", b"<?xml"), ("PDF", b"%PDF"), ("jpeg", b"\xff\xd8\xff"), ("webp", b"RIFF")],
)
def test_the_suffix_is_the_format(suffix, begin, tmp_path):
    plots.history(ROWS, path=tmp_path / f"a.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes().startswith(begin)


def test_a_notebook_shows_a_figure_as_a_picture_and_it_can_be_pickled():
    formatters = pytest.importorskip("IPython.core.formatters")
    fig = plots.history(ROWS)
    shown, _ = formatters.DisplayFormatter().format(fig)
    assert shown["image/png"]
    again = pickle.loads(pickle.dumps(fig))
    assert len(again.axes) == len(fig.axes)


# Histories.


def xy(axes):
    """The lines of a panel by label."""
    return {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}


def test_the_same_history_is_drawn_from_whatever_holds_it(tmp_path):
    step, batches, state = line()
    hooks = [
        scored([2.0, 1.0]),
        mip.log(tmp_path / "run" / "history.jsonl"),
        mip.log(tmp_path / "a.csv"),
        mip.checkpoint(tmp_path / "checkpoints"),
    ]
    fitted = mip.fit(step, batches, state, epochs=2, hooks=hooks)
    saved = mip.load_checkpoint(tmp_path / "checkpoints" / "last.safetensors", state)
    epochs = list(fitted.history.epochs)
    expected = [xy(axes) for axes in plots.history(epochs).axes]
    assert len(expected) > 1
    files = [tmp_path / "run", tmp_path / "run" / "history.jsonl", str(tmp_path / "a.csv")]
    for source in [History(fitted.history.epochs), *files]:
        assert [xy(axes) for axes in plots.history(source).axes] == expected
    for source in (fitted, fitted.history, saved):
        drawn = [xy(axes) for axes in plots.history(source).axes]
        assert [{k: v for k, v in d.items() if k != "each step"} for d in drawn] == expected


def test_a_log_of_steps_is_drawn_over_steps(tmp_path):
    step, batches, state = line()
    hooks = [mip.log(tmp_path / "a.jsonl", steps=True)]
    losses = mip.fit(step, batches, state, epochs=2, hooks=hooks).history.steps["loss"]
    fig = plots.history(tmp_path / "a.jsonl")
    assert fig.get_supxlabel() == "step"
    drawn = np.array(xy(fig.axes[0])["each step"])
    assert drawn[:, 0].tolist() == list(range(1, 9))
    np.testing.assert_allclose(drawn[:, 1], losses, rtol=1e-6)


def test_several_runs_have_a_line_each_and_a_legend_of_runs_and_parts():
    shorter = ({"epoch": 0, "step": 2, "loss": 4.0},)
    fig = plots.history({"a": ROWS, "b": shorter}, metrics=["loss"], scale="log")
    [axes] = fig.axes
    assert axes.get_yscale() == "log"
    lines = xy(axes)
    assert lines["a, train"] == [[1, 2], [2, 1]]
    assert lines["a, valid"] == [[1, 3], [2, 2]]
    assert lines["b, train"] == [[1, 4]]
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["a", "b", "train", "valid"]


def test_missing_values_leave_gaps_and_lone_values_are_points():
    values = [1.0, float("nan"), 2.0, None, 3.0, 4.0]
    text = "".join(
        json.dumps({"epoch": k, "step": k + 1, "loss": None if v is None or v != v else v}) + "\n"
        for k, v in enumerate(values)
    )
    rows = [json.loads(each) for each in text.splitlines()]
    rows = [{k: np.nan if v is None else v for k, v in row.items()} for row in rows]
    [axes] = plots.history(rows).axes
    solid, points = axes.get_lines()
    np.testing.assert_array_equal(solid.get_ydata(), [1, np.nan, 2, np.nan, 3, 4])
    assert points.get_xydata().tolist() == [[1, 1], [3, 2]]


def test_a_metric_that_no_history_has_is_an_error():
    with pytest.raises(MipError, match=r"no history has the metric 'los'; did you mean 'loss'\?"):
        plots.history(ROWS, metrics=["los"])
    with pytest.raises(MipError, match="has no metrics"):
        plots.history(History())


def test_what_is_no_history_is_an_error(tmp_path):
    (tmp_path / "a.jsonl").write_text("[1]\n")
    (tmp_path / "b.csv").write_text("area,price\n1,2\n")
    (tmp_path / "c.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("a.jsonl", "b.csv", "c.csv", "d.csv"):
        with pytest.raises(FileError, match=rf"{name[0]}\.\w+: (is not a history|cannot be read)"):
            plots.history(tmp_path / name)
    with pytest.raises(FileError, match=r"history\.jsonl: cannot be read"):
        plots.history(tmp_path)
    with pytest.raises(MipError, match="int is not a history"):
        plots.history(3)
    with pytest.raises(MipError, match="a plain State has no history"):
        plots.history(line()[2])


def test_each_metric_has_a_file(tmp_path):
    step, batches, state = line()
    hooks = [scored([2.0, 1.0]), mip.hooks.plot_metrics(tmp_path / "plots")]
    fitted = mip.fit(step, batches, state, epochs=2, hooks=hooks)
    names = {path.stem for path in (tmp_path / "plots").iterdir()}
    assert names == set(plots.history_by_metric(fitted))
    assert {"loss", "lr"} <= names


# Losses.


def test_a_loss_surface_is_the_loss_at_every_point_and_changes_nothing():
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.Linear(2, 1))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x, y = torch.randn(7, 2), torch.randn(7)
    batches = pipe((x, y), mip.batch(3))
    fig = plots.loss_surface(
        net,
        batches,
        mse_loss,
        (("0.weight", (0, 1)), "2.bias"),
        ranges=((-1, 1), (-2, 0)),
        size=3,
    )
    drawn = fig.axes[0].collections[0].get_array().reshape(3, 3)
    assert net.training
    for name, value in net.state_dict().items():
        assert value.equal(before[name])
    net.eval()
    for row, bias in enumerate((-2, -1, 0)):
        for column, weight in enumerate((-1, 0, 1)):
            with torch.no_grad():
                net[0].weight[0, 1], net[2].bias[0] = weight, bias
                expected = mse_loss(net(x).squeeze(1), y).item()
            assert drawn[row, column] == pytest.approx(expected, rel=1e-5)


def test_the_path_of_a_fit_is_drawn_over_the_surface():
    net = nn.Linear(1, 1)
    step = mip.train_step(net, mse_loss, mip.sgd(0.1))
    points, states = [], []

    def follow(event):
        if event.name in {"before_fit", "after_epoch"}:
            points.append((event.state.params["weight"].item(), event.state.params["bias"].item()))
            states.append(event.state)

    fitted = mip.fit(step, BATCHES, step.init(), epochs=3, hooks=[follow])
    fig = plots.loss_surface(net, BATCHES, mse_loss, steps=[*states[:-1], fitted], size=3)
    again = plots.loss_surface(net, BATCHES, mse_loss, steps=points, size=3)
    path, start, present = fig.axes[0].get_lines()
    assert start.get_xydata().tolist() == [list(points[0])]
    assert path.get_xydata().tolist() == [list(point) for point in points]
    assert again.axes[0].get_lines()[0].get_xydata().tolist() == path.get_xydata().tolist()
    assert len({*points}) == 4
    assert present.get_xydata().tolist() == [[net.weight.item(), net.bias.item()]]
    (low, high), (left, right) = fig.axes[0].get_ylim(), fig.axes[0].get_xlim()
    assert all(left <= x <= right and low <= y <= high for x, y in points)


def test_a_loss_surface_needs_no_names_of_the_only_two_numbers():
    at = {"ranges": ((-1, 1), (-2, 2)), "size": 3}
    bare, nested = nn.Linear(1, 1), nn.Sequential(nn.Linear(1, 1))
    for net, names in ((bare, ["weight", "bias"]), (nested, ["0.weight", "0.bias"])):
        axes = plots.loss_surface(net, BATCHES, mse_loss, **at).axes[0]
        assert [axes.get_xlabel(), axes.get_ylabel()] == names
    larger = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1))
    with pytest.raises(
        MipError, match=r"parameters=\(\('0.weight', \(0, 0\)\), \('0.weight', \(1, 0\)\)\)"
    ):
        plots.loss_surface(larger, BATCHES, mse_loss)
    with pytest.raises(MipError, match=r"steps are states, such as a hook collects, not a History"):
        plots.loss_surface(bare, BATCHES, mse_loss, steps=History())


def test_a_loss_surface_of_a_function_needs_ranges():
    function = lambda a, b, x: a * x[:, 0] + b  # noqa: E731
    fig = plots.loss_surface(function, BATCHES, mse_loss, ranges=((0, 2), (0, 1)), size=2)
    drawn = fig.axes[0].collections[0].get_array().reshape(2, 2)
    np.testing.assert_allclose(drawn, [[2, 0], [1, 1]])
    with pytest.raises(MipError, match="of a function needs ranges="):
        plots.loss_surface(function, BATCHES, mse_loss)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (("wieght", "bias"), r"no parameter 'wieght'; did you mean 'weight'\?"),
        (("weight", "bias"), r"'weight' has the shape \[1, 2\]: .* \('weight', \(0, 0\)\)"),
        ((("weight", (0, 2)), "bias"), r"shape \[1, 2\] has no number at \(0, 2\)"),
        ((("weight", 0), "bias"), r"shape \[1, 2\] has no number at \(0,\)"),
    ],
)
def test_a_parameter_that_cannot_be_varied_is_an_error(parameters, message):
    with pytest.raises(MipError, match=message):
        plots.loss_surface(nn.Linear(2, 1), BATCHES, mse_loss, parameters)


def test_a_loss_that_is_not_finite_anywhere_is_an_error():
    nan = lambda p, y: (p * torch.nan).mean()  # noqa: E731
    with pytest.raises(MipError, match="not finite anywhere"):
        plots.loss_surface(nn.Linear(1, 1), BATCHES, nan, size=2)
    half = lambda p, y: p.mean().log()  # noqa: E731
    assert plots.loss_surface(nn.Linear(1, 1), BATCHES, half, size=5, ranges=((-1, 1), (-1, 1)))


# Predictions.


def test_rows_without_a_number_are_left_out():
    fig = plots.predictions([1.0, 2.0, 3.0, np.nan], [1.5, 2.0, 2.5, 9.0])
    assert fig.get_suptitle() == "R² 0, RMSE 0.4082 (3 rows)"
    assert plots.predictions([1.0], [2.0], title="one").get_suptitle() == "one: RMSE 1 (1 rows)"
    fig = plots.predictions(pd.DataFrame({"value": [1.0, np.nan, 3.0]}), [1.5, 2.0, np.nan])
    assert fig.axes[0].collections[0].get_offsets().tolist() == [[1.5, 1.0]]
    with pytest.raises(DataError, match="2 predictions for 3 targets"):
        plots.predictions([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(DataError, match="no row has a prediction and a target"):
        plots.predictions([np.nan], [1.0])
    with pytest.raises(DataError, match=r"not the shape \[2, 2\]"):
        plots.predictions(np.ones((2, 2)), [1.0, 2.0])


def test_a_boundary_agrees_with_the_model_in_every_form():
    points = np.array([[-1.0, -1.0], [1.0, 1.0], [1.0, -1.0]])
    torch.manual_seed(0)
    net, column = nn.Linear(2, 2), nn.Linear(2, 1)
    with torch.no_grad():
        column.weight[:] = net.weight[1:] - net.weight[:1]
        column.bias[:] = net.bias[1:] - net.bias[:1]
    classes = ["no", "yes"]
    array = lambda x: net(torch.tensor(x).float()).detach().numpy()  # noqa: E731
    names = lambda x: np.array(classes)[array(x).argmax(1)]  # noqa: E731
    target = ["no", "yes", "no"]
    drawn = [
        plots.decision_boundary(model, points, target, classes=classes, size=9).axes[0]
        for model in (net, column, array, names)
    ]
    areas = [axes.collections[0].get_array().tolist() for axes in drawn]
    assert areas[0] == areas[1] == areas[2] == areas[3]
    assert {0, 1} == set(np.ravel(areas[0]).tolist())
    scattered = {each.get_label(): each.get_offsets().tolist() for each in drawn[0].collections}
    assert scattered["no"] == points[[0, 2]].tolist()
    assert scattered["yes"] == points[[1]].tolist()


def test_what_has_no_boundary_is_an_error():
    for features in (np.ones((3, 3)), np.ones(3)):
        with pytest.raises(DataError, match=r"two features \[n, 2\]"):
            plots.decision_boundary(nn.Linear(2, 1), features, [0, 1, 1])
    with pytest.raises(DataError, match="'owl' is none of the 2 classes: cat, dog"):
        plots.decision_boundary(nn.Linear(2, 2), np.eye(2), ["cat", "owl"], classes=["cat", "dog"])
    with pytest.raises(MipError, match="a net, a predictor, its file or a function, not int"):
        plots.decision_boundary(3, np.eye(2), [0, 1])


# Classes.


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_the_numbers_of_a_confusion_matrix_add_up(pairs):
    guess, truth = map(list, zip(*pairs, strict=True))
    fig = plots.confusion_matrix(guess, truth, [f"class {k}" for k in range(5)])
    counts = np.array([int(text.get_text()) for text in fig.axes[0].texts]).reshape(5, 5)
    assert counts.sum() == len(pairs)
    right = sum(a == b for a, b in pairs)
    assert np.trace(counts) == right
    assert f"({right} of {len(pairs)} rows)" in fig.get_suptitle()
    assert counts.sum(axis=1).tolist() == [truth.count(k) for k in range(5)]
    assert counts.sum(axis=0).tolist() == [guess.count(k) for k in range(5)]


def test_predictions_of_a_class_may_be_logits_names_or_a_frame():
    truth = ["cat", "dog", "dog"]
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0]])
    frame = pd.DataFrame({"label": ["cat", "dog", "cat"], "p_cat": 0.5, "p_dog": 0.5})
    for predicted in (logits, frame, ["cat", "dog", "cat"]):
        fig = plots.confusion_matrix(predicted, truth, ["cat", "dog"])
        assert [text.get_text() for text in fig.axes[0].texts] == ["1", "0", "1", "1"]
    fig = plots.confusion_matrix(logits, truth, ["cat", "dog"], normalize=True)
    assert [text.get_text() for text in fig.axes[0].texts] == ["100", "0", "50", "50"]
    with pytest.raises(DataError, match="2 predictions for 3 targets"):
        plots.confusion_matrix(["cat", "dog"], truth)


@pytest.mark.parametrize(
    "predicted",
    [[0, 10, 2], torch.tensor([[0], [10], [2]]), ["0", "10", "2"], np.eye(11)[[0, 10, 2]]],
)
@pytest.mark.parametrize("target", [[0, 10, 10], [0.0, 10.0, 10.0]])
def test_numbers_are_classes_in_their_order(predicted, target):
    fig = plots.confusion_matrix(predicted, target)
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == [str(k) for k in range(11)]
    counts = np.array([int(text.get_text()) for text in fig.axes[0].texts]).reshape(11, 11)
    assert {(row, column) for row, column in np.argwhere(counts).tolist()} == {
        (0, 0), (10, 10), (10, 2),
    }  # fmt: skip


def test_one_logit_or_probability_is_of_the_second_class():
    for floats, from_logits in ((np.array([-1.0, 0.2, 3.0]), True), ([0.1, 0.6, 0.9], False)):
        for target in ([0, 0, 1], torch.tensor([0.0, 0.0, 1.0]), ["cat", "cat", "dog"]):
            fig = plots.confusion_matrix(floats, target, from_logits=from_logits)
            assert [text.get_text() for text in fig.axes[0].texts] == ["1", "1", "0", "1"]


def test_predicted_numbers_count_the_names_of_the_target():
    fig = plots.confusion_matrix(np.eye(2)[[0, 1, 1]], ["cat", "dog", "cat"])
    assert [text.get_text() for text in fig.axes[0].texts] == ["1", "1", "0", "1"]
    with pytest.raises(DataError, match="2 is none of the 2 classes: cat, dog; give classes="):
        plots.confusion_matrix([0, 2, 1], ["cat", "dog", "cat"])
    with pytest.raises(DataError, match="predictions of 3 classes, but there are 2"):
        plots.confusion_matrix(np.eye(3), ["cat", "dog", "cat"])


def test_many_classes_have_colours_and_labels_but_no_numbers():
    target = list(range(60))
    [axes, _] = plots.confusion_matrix(target, target).axes
    assert not axes.texts
    assert len(axes.get_xticklabels()) == 60
    np.testing.assert_array_equal(axes.images[0].get_array(), np.eye(60))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(1, 9))
def test_bars_are_the_largest_chances_in_order(chances, k):
    fig = plots.top_classes(SQUARES[0], chances, k)
    widths = [bar.get_width() for bar in fig.axes[1].patches]
    assert widths == sorted(chances, reverse=True)[:k]
    names = [int(label.get_text()) for label in fig.axes[1].get_yticklabels()]
    assert [chances[name] for name in names] == widths


def test_chances_of_one_row_only():
    with pytest.raises(DataError, match="of one row are drawn, not of 2"):
        plots.top_classes(SQUARES[0], pd.DataFrame({"p_a": [1.0, 0.0]}))
    with pytest.raises(DataError, match=r"shape \[2\] for 3 classes"):
        plots.top_classes(SQUARES[0], [0.5, 0.5], classes=["a", "b", "c"])


def test_layers_have_their_types_and_what_their_bins_leave_out():
    net = nn.Sequential(nn.Identity(), nn.ReLU())
    with record_activations(net) as records:
        net(torch.tensor([[-1.0, 1.0, -2.0, 3.0]]))
    titles = [axes.get_title("left") for axes in plots.activation_histograms(records).axes]
    assert titles == ["0  Identity\n50% outside", "1  ReLU"]
    titles = [axes.get_title("left") for axes in plots.activations(records).axes]
    assert titles == ["0  Identity", "1  ReLU"]


# Images.


def shown(fig):
    return [np.asarray(axes.images[0].get_array()) for axes in fig.axes]


def test_images_of_every_form_are_the_same_pixels(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 6, 8, 3), dtype=np.uint8)
    pictures = [Image.fromarray(each) for each in pixels]
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    table = mip.from_columns(
        {"photo": [path.name for path in paths], "label": ["a", "b", "c"]}, root=tmp_path
    )
    chw = torch.tensor(pixels).permute(0, 3, 1, 2)
    sources = [
        plots.images(pixels),
        plots.images(chw),
        plots.images(list(chw)),
        plots.images(pictures),
        plots.images(paths),
        plots.images([path.read_bytes() for path in paths]),
        plots.images(table, column="photo"),
        plots.images(pipe((chw, torch.arange(3)), mip.batch(3))),
        plots.images([(picture, 0) for picture in pictures]),
    ]
    for fig in sources:
        np.testing.assert_array_equal(np.stack(shown(fig)), pixels)


def test_standardised_images_are_drawn_over_their_range():
    [pixels] = shown(plots.images(torch.tensor([[[-2.0, 0.0], [1.0, 2.0]]])))
    np.testing.assert_allclose(pixels, [[0, 0.5], [0.75, 1]])
    [pixels] = shown(plots.images(torch.tensor([[[0.25, 0.5], [0.5, 0.25]]])))
    np.testing.assert_allclose(pixels, [[0.25, 0.5], [0.5, 0.25]])


def test_what_cannot_be_drawn_as_images_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    table = mip.from_columns({"photo": ["a.png"]}, root=tmp_path)
    with pytest.raises(MipError, match="need column=: one of photo"):
        plots.images(table)
    with pytest.raises(DataError, match=r"a\.png: cannot be drawn"):
        plots.images(table, column="photo")
    with pytest.raises(DataError, match="there are no images"):
        plots.images([])
    with pytest.raises(MipError, match="labels='kind' is a column, and the images are not in a"):
        plots.images(SQUARES, "kind")
    with pytest.raises(DataError, match="1 chances for 3 images"):
        plots.images(SQUARES, predicted=[0, 1, 2], chances=[0.5])
    with pytest.raises(DataError, match="1 labels for 3 images"):
        plots.images(SQUARES, ["a"])
    with pytest.raises(DataError, match="2 is none of the 2 classes"):
        plots.images(SQUARES, [0, 1, 2], classes=["a", "b"])
    with pytest.raises(DataError, match=r"not \[5\]"):
        plots.images(np.ones((2, 5)))


# Layers.


def test_a_histogram_of_weights_counts_every_number():
    net = nn.Sequential(nn.Linear(30, 20), nn.Linear(20, 2))
    state = mip.init(net, mip.sgd(0.1))
    for model in (net, state, state.params):
        fig = plots.weights(model)
        panels = [axes for axes in fig.axes if axes.get_visible()]
        counts = [sum(bar.get_height() for bar in axes.patches) for axes in panels]
        assert counts == [600, 20, 40, 2]
    [axes] = plots.weights({"a": torch.tensor([1.0, torch.nan, torch.inf])}).axes
    assert axes.get_title("left") == "a\n1 ± 0, 2 not finite"
    assert sum(bar.get_height() for bar in axes.patches) == 1
    plots.render(plots.weights({"a": torch.tensor([torch.nan])}))
    with pytest.raises(MipError, match="no parameters"):
        plots.weights(nn.ReLU())
