"""The plots that somebody who learns expects, row by row of the capabilities.

P: plots of plain nets and their data; T, C, W: histories, files of metrics, layers.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from toolz import pipe
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

import mip
from mip import plots
from mip.explain import histograms, record_activations, to_frame


def trained(x, y, *sizes, loss=mse_loss, epochs=3, hooks=(), lr=0.05, **options):
    torch.manual_seed(0)
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    net = nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())][:-1])
    step = mip.train_step(net, loss, mip.adam(mip.one_cycle(lr)), **options)
    batches = pipe((x, y), mip.sample(shuffle=True, seed=0), mip.batch(10))
    return net, mip.fit(step, batches, step.init(), epochs=epochs, hooks=hooks)


RNG = np.random.default_rng(0)
AREA = RNG.uniform(30, 200, 40)
PRICE = 3 * AREA + 50 + RNG.normal(size=40)
POINTS = RNG.normal(size=(60, 2))
SIDE = (POINTS.sum(axis=1) > 0).astype(int)


def accuracy(logits, target):
    return (logits.argmax(1) == target).float().mean()


def classified(hooks=(), epochs=3):
    options = {"loss": cross_entropy, "metrics": {"accuracy": accuracy}, "epochs": epochs}
    return trained(POINTS, SIDE, 2, 8, 2, hooks=hooks, **options)


def validation(net):
    valid = [(torch.tensor(POINTS).float(), torch.tensor(SIDE))]
    return mip.validate(net, valid, loss=cross_entropy, metrics={"accuracy": accuracy})


def loss_on_grid(x):
    batches = [(torch.tensor(x)[:, None].float(), torch.tensor(PRICE).float())]
    ranges = ((-100.0, 100.0), (-100.0, 100.0))
    fig = plots.loss_surface(nn.Linear(1, 1), batches, mse_loss, ranges=ranges, size=21)
    return np.asarray(fig.axes[0].collections[0].get_array()).reshape(21, 21)


def test_P03_loss_surface_raw_and_standardised():
    raw, standardised = (loss_on_grid(x) for x in (AREA, (AREA - AREA.mean()) / AREA.std()))
    # A valley along the bias, against a bowl: curvatures of weight and bias are equal.
    curvatures = [
        np.diff(losses[10], 2).mean() / np.diff(losses[:, 10], 2).mean()
        for losses in (raw, standardised)
    ]
    assert curvatures[0] > 1000
    np.testing.assert_allclose(curvatures[1], 1, rtol=1e-3)


def test_P12_a_line_of_predictions_over_data():
    x = (AREA - 100) / 50
    net, _ = trained(x[:, None], PRICE, 1, 1, epochs=20)
    fig = plots.fitted_line(net, pd.Series(x, name="area"), pd.Series(PRICE, name="price"))
    [axes] = fig.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("area", "price")
    np.testing.assert_allclose(axes.collections[0].get_offsets(), np.stack([x, PRICE], 1))
    grid, line = axes.lines[0].get_xydata().T
    with torch.no_grad():
        np.testing.assert_allclose(line, net(torch.tensor(grid).float()[:, None])[:, 0], rtol=1e-5)


def test_P12_a_line_of_a_model_of_a_spec_over_its_column():
    spec = mip.parse(
        'branch.size = { kind = "continuous", columns = ["area"] }\n'
        'head = { kind = "regression", column = "price" }\n'
    )
    table = mip.from_columns({"area": AREA, "price": PRICE})
    plan = mip.adapt(spec, table)
    predict = mip.predictor(plan, mip.init(mip.build(plan), mip.sgd(0.1)))
    fig = plots.fitted_line(predict, table["area"], table["price"], size=5)
    grid, line = fig.axes[0].lines[0].get_xydata().T
    np.testing.assert_allclose(line, predict({"area": grid})["value"])


def test_P12_predictions_against_the_truth():
    net, _ = trained(AREA[:, None], PRICE, 1, 1)
    predicted = mip.predict(net, torch.tensor(AREA).float()[:, None])
    [axes] = plots.predictions(predicted, PRICE).axes
    np.testing.assert_allclose(
        axes.collections[0].get_offsets(), np.stack([PRICE, predicted[:, 0]], axis=1)
    )
    start, end = axes.lines[0].get_xydata()
    assert start[0] == start[1] < end[0] == end[1]


def test_P17_a_history_becomes_a_picture(tmp_path):
    net, _ = classified()
    _, fitted = classified([validation(net)])
    fig = plots.history(fitted, metrics=["loss", "accuracy"], path=tmp_path / "history.png")
    assert (tmp_path / "history.png").read_bytes().startswith(b"\x89PNG")
    for axes, metric in zip(fig.axes, ("loss", "accuracy"), strict=True):
        lines = {line.get_label(): line.get_ydata().tolist() for line in axes.get_lines()}
        assert lines["train"] == [row[metric] for row in fitted.history.epochs]
        assert lines["valid"] == [row[f"valid/{metric}"] for row in fitted.history.epochs]


def test_P23_decision_boundary_plot():
    net, _ = classified(epochs=20)
    frame = pd.DataFrame(POINTS, columns=["length", "width"])
    fig = plots.decision_boundary(net, frame, SIDE, classes=["left", "right"])
    axes = fig.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("length", "width")
    area = axes.collections[0]
    answers = np.asarray(area.get_array()).reshape(-1)
    assert len(answers) == 100 * 100
    (low_x, high_x), (low_y, high_y) = axes.get_xlim(), axes.get_ylim()
    xs, ys = np.linspace(low_x, high_x, 100), np.linspace(low_y, high_y, 100)
    grid = torch.tensor(np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2)).float()
    with torch.no_grad():
        assert (net(grid).argmax(1).numpy() == answers).mean() > 0.999


def test_P23_decision_boundary_plot_of_a_model_of_a_spec():
    spec = mip.parse(
        'branch.size = { kind = "continuous", columns = ["length", "width"] }\n'
        'head = { kind = "multiclass", column = "side" }\n'
    )
    names = np.array(["left", "right", "none"])[np.arange(60) % 3]
    table = mip.from_columns({"length": POINTS[:, 0], "width": POINTS[:, 1], "side": names})
    plan = mip.adapt(spec, table)
    predict = mip.predictor(plan, mip.init(mip.build(plan), mip.sgd(0.1)))
    features = table.frame[["length", "width"]]
    axes = plots.decision_boundary(predict, features, table["side"], size=10).axes[0]
    answers = np.asarray(axes.collections[0].get_array()).reshape(-1)
    xs, ys = (np.linspace(*limits, 10) for limits in (axes.get_xlim(), axes.get_ylim()))
    x, y = np.meshgrid(xs, ys)
    labels = predict({"length": x.ravel(), "width": y.ravel()})["label"]
    assert [["left", "none", "right"][k] for k in answers] == labels.tolist()


def test_P25_confusion_matrix_plot_with_names_and_accuracy():
    net, _ = classified(epochs=10)
    logits = mip.predict(net, torch.tensor(POINTS).float())
    fig = plots.confusion_matrix(logits, SIDE, ["left", "right"])
    axes = fig.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["left", "right"]
    counts = np.array([int(text.get_text()) for text in axes.texts]).reshape(2, 2)
    assert counts.sum() == 60
    share = accuracy(logits, torch.tensor(SIDE)).item()
    np.testing.assert_allclose(np.trace(counts) / counts.sum(), share, rtol=1e-6)
    assert fig.get_suptitle().startswith(f"accuracy {share:.1%}")


def test_P29_images_with_labels_and_predictions():
    pixels = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    batch = (pixels, torch.tensor([0, 1, 1, 0, 1]))
    fig = plots.images(
        batch, predicted=[0, 1, 0, 0, 1], chances=[0.9] * 5, classes=["cat", "dog"], columns=3
    )
    texts = [axes.get_title() for axes in fig.axes]
    assert texts[:3] == ["cat\n→ cat 90%", "dog\n→ dog 90%", "dog\n→ cat 90%"]
    colours = [axes.title.get_color() for axes in fig.axes]
    assert colours[0] == colours[1] != colours[2]
    for axes, image in zip(fig.axes, pixels, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), image.permute(1, 2, 0))


def test_P29_images_of_a_table_and_of_encoded_rows(table):
    labels = [axes.get_title() for axes in plots.images(table, "style", column="front").axes]
    assert labels == table.texts("style").tolist()
    spec = mip.parse(
        'branch.photos = { kind = "image", columns = ["front", "back"], size = 8, '
        'missing = "learn" }\n'
        'head = { kind = "multiclass", column = "style" }\n'
    )
    encoded = mip.adapt(spec, table).encode(table)
    drawn = plots.images(encoded, classes=["flat", "house", "loft"]).axes
    assert [axes.get_title() for axes in drawn] == labels
    assert {axes.images[0].get_array().shape for axes in drawn} == {(8, 16, 3)}


def test_C11_chances_beside_an_image(tmp_path):
    from PIL import Image

    Image.new("RGB", (6, 4), "red").save(tmp_path / "a.png")
    logits = torch.tensor([[1.0, 3.0, 2.0, 0.0]])
    chances = logits.softmax(1)
    fig = plots.top_classes(tmp_path / "a.png", chances, k=3, classes=["cat", "dog", "owl", "fox"])
    image, bars = fig.axes
    assert image.images[0].get_array().shape == (4, 6, 3)
    assert [label.get_text() for label in bars.get_yticklabels()] == ["dog", "owl", "cat"]
    widths = [bar.get_width() for bar in bars.patches]
    np.testing.assert_allclose(widths, chances[0].sort(descending=True).values[:3])


def test_T10_a_file_for_each_metric_and_none_when_off(tmp_path, monkeypatch):
    monkeypatch.setattr(mip.hooks.history, "FIRST_DRAWING", 0.0)
    net, _ = classified()
    classified([validation(net)])
    assert not list(tmp_path.rglob("*"))
    seen = []

    def look(event):
        if event.name == "before_epoch":
            seen.append(sorted(path.name for path in tmp_path.glob("plots/*.png")))

    hooks = [validation(net), mip.hooks.plot_metrics(tmp_path / "plots"), look]
    classified(hooks)
    names = sorted(path.name for path in tmp_path.glob("plots/*"))
    assert {"accuracy.png", "loss.png", "lr.png"} <= set(names)
    # They are there after the first epoch, and later ones replace them.
    assert seen[:2] == [[], names]


def test_C10_the_loss_in_a_file(tmp_path):
    _, fitted = classified()
    path = tmp_path / "graphs" / "loss.png"
    plots.history(fitted, metrics=["loss"], path=path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_W44_losses_and_rates_of_every_step_in_a_table_and_a_plot(tmp_path):
    net, _ = classified()
    _, fitted = classified([validation(net)], epochs=2)
    table = pd.DataFrame(fitted.history.steps)
    assert len(table) == fitted.step == 12
    assert {"loss", "lr"} <= set(table.columns)
    fig = plots.history(fitted, path=tmp_path / "steps.png")
    panels = {axes.get_title("left"): axes for axes in fig.axes}
    for metric in ("loss", "lr"):
        lines = {line.get_label(): line.get_ydata() for line in panels[metric].get_lines()}
        np.testing.assert_array_equal(lines["each step"], table[metric])
    assert (tmp_path / "steps.png").exists()


def recorded():
    net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))
    batches = torch.randn(6, 5, 2)
    with record_activations(net, types=nn.ReLU) as records:
        for batch in batches:
            net(batch)
    return records, [net[:2](batch).detach() for batch in batches]


def test_W51_statistics_of_layers_and_their_histogram_as_an_image():
    records, outputs = recorded()
    frame = to_frame(records)
    np.testing.assert_allclose(frame["mean"], [out.mean() for out in outputs], rtol=1e-5)
    np.testing.assert_allclose(frame["std"], [out.std(correction=0) for out in outputs], rtol=1e-5)
    counts = histograms(records)["1"]
    assert counts.shape == (40, 6)
    assert counts.sum(0).tolist() == [int((out <= 10).sum()) for out in outputs]
    [axes] = plots.activation_histograms(records).axes
    np.testing.assert_allclose(axes.images[0].get_array(), counts.float().log1p(), rtol=1e-6)


def test_W52_means_and_deviations_of_layers_over_batches(tmp_path):
    records, outputs = recorded()
    [axes] = plots.activations(records, path=tmp_path / "activations.png").axes
    means = np.array(axes.get_lines()[0].get_ydata(), dtype=float)
    np.testing.assert_allclose(means, [out.mean() for out in outputs], rtol=1e-5)
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose(
        band.max(), max(out.mean() + out.std(correction=0) for out in outputs), rtol=1e-5
    )
    assert (tmp_path / "activations.png").exists()
