"""Lines, forests and nets on small real tables: the numbers that notebooks report of them."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from toolz import pipe
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce_with_logits
from torch.nn.functional import l1_loss, mse_loss

import mip
from mip.model import Parts
from mip.prediction import baselines, score_by_part
from mip.runs import sweep, sweep_frame

SAVED = Path(__file__).parents[1] / "saved"
CARS, WINE = mip.read(SAVED / "cars.csv"), mip.read(SAVED / "wine.csv")
MPG = CARS.numbers("MPG")


def standardised(rows, *columns):
    x = np.stack([rows.numbers(column) for column in columns], axis=1)
    return (x - x.mean(0)) / x.std(0)


def line(slope, intercept):
    net = nn.Linear(1, 1)
    net.load_state_dict({"weight": torch.tensor([[slope]]), "bias": torch.tensor([intercept])})
    return net


def descended(net, x, optimizer, epochs, y=MPG, loss=mse_loss):
    """Fit a net to all rows at once; its scores on them."""
    batches = pipe((x, y), mip.batch(len(x)))
    step = mip.train_step(net, loss, optimizer)
    mip.fit(step, batches, step.init(), epochs=epochs)
    return mip.evaluate(net, batches, {"mae": l1_loss, "r2": mip.metrics.r2}, loss=loss)


# The cars.


def test_P02_the_best_of_a_grid_of_lines():
    batches = pipe((CARS.numbers("WGT")[:, None], MPG), mip.batch(392))
    grid = product(np.linspace(-0.005, -0.01, 5), np.linspace(42, 47, 5))
    loss = {mb: mip.evaluate(line(*mb), batches, loss=mse_loss)["loss"] for mb in grid}
    best = min(loss, key=loss.get)
    assert best == pytest.approx((-0.0075, 45.75))
    assert loss[best] == pytest.approx(18.6930, abs=1e-3)


def test_P05_ten_steps_on_standardised_numbers_do_what_a_hundred_on_raw_ones_do_not():
    raw, scaled = CARS.numbers("WGT")[:, None], standardised(CARS, "WGT")
    slow = descended(line(-0.05, 35.0), raw, mip.sgd(392e-10), epochs=100)
    fast = descended(line(-0.05, 35.0), scaled, mip.sgd(0.3), epochs=10)
    assert (slow["loss"], slow["mae"]) == pytest.approx((28.1222, 4.0267), abs=1e-3)
    assert (fast["loss"], fast["mae"]) == pytest.approx((18.677, 3.28), abs=2e-3)


def test_P06_ten_epochs_of_full_batch_descent():
    x = standardised(CARS, "WGT") * (391 / 392) ** 0.5  # divided by the deviation with n - 1
    scores = descended(line(-0.05, 0.0), x, mip.sgd(0.3), epochs=10)
    assert scores["loss"] == pytest.approx(18.677, abs=1e-3)


def test_P07_adam_reaches_least_squares():
    scores = descended(line(-0.05, 0.0), standardised(CARS, "WGT"), mip.adam(1.0), epochs=200)
    assert scores == pytest.approx({"loss": 18.676616, "mae": 3.2787, "r2": 0.69263}, abs=1e-3)


@pytest.mark.parametrize(("column", "mse"), [("WGT", 18.676616), ("ENG", 21.3745)])
def test_P11_another_column_by_its_name(column, mse):
    net = line(0.0, 0.0)
    scores = descended(net, standardised(CARS, column), mip.sgd(0.3), epochs=30)
    assert scores["loss"] == pytest.approx(mse, abs=1e-4)
    assert net.bias.item() == pytest.approx(23.4459, abs=1e-4)


# The patients.

NUMBERS = ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]
PATIENTS = f"""
branch.x = {{ kind = "continuous", columns = {NUMBERS} }}
head = {{ kind = "regression", column = "target", layers = [150] }}
data.table = "{SAVED / "diabetes.csv"}"
train = {{ epochs = 100, batch_size = 353, optimizer = {{ kind = "adam", lr = 0.02 }} }}
""".replace("'", '"')


def patients():
    rows, order = mip.read(SAVED / "diabetes.csv"), np.random.RandomState(1).permutation(442)
    return Parts(rows.take(order[89:]), rows.take(order[:89]), rows.take([]))


def test_P15_a_forest_beside_the_net():
    pytest.importorskip("sklearn")
    parts = patients()
    run = mip.run(mip.parse(PATIENTS, changes={"train.restore_best": True}), parts)
    simple = baselines(run.plan, parts, trees=100)
    net = score_by_part(run.predict, run.plan, parts)
    mean, forest = (simple[name] for name in ("mean", "random forest"))
    assert [mean[part]["rmse"] ** 2 for part in ("train", "valid")] == pytest.approx(
        [6073.71, 5367.10], abs=1e-2
    )
    assert forest["train"]["rmse"] ** 2 == pytest.approx(443.77, rel=0.1)
    assert forest["valid"]["rmse"] ** 2 == pytest.approx(3745.30, rel=0.1)
    assert forest["valid"]["r2"] == pytest.approx(0.2972, abs=0.06)
    assert net["valid"]["r2"] > 0.38


def test_P20_a_table_of_weight_decays(tmp_path):
    path, decays = tmp_path / "patients.toml", [0.0, 0.1, 10.0]
    path.write_text(PATIENTS)
    table = sweep_frame(sweep(path, {"train.optimizer.weight_decay": decays}, tmp_path / "runs"))
    assert table["train.optimizer.weight_decay"].tolist() == decays
    assert table["valid/loss"].idxmin() == table["best"].idxmax() == 1
    assert table["valid/r2"][2] == pytest.approx(0, abs=0.05)  # nothing but the mean is left


# Two classes.

CULTIVAR = """
branch.x = { kind = "continuous", columns = ["proline", "alcohol"] }
head = { kind = "binary", column = "cultivar" }
[train]
epochs = 500
batch_size = 130
optimizer = { kind = "adam", lr = 0.3 }
"""


def test_P22_two_wines_are_told_apart_by_a_line_and_by_hidden_neurons():
    parts = Parts(WINE, WINE.take([]), WINE.take([]))
    run = mip.run(mip.parse(CULTIVAR), parts)
    predicted, truth = run.predict(WINE), WINE.numbers("cultivar")
    chance = predicted["p_1"].to_numpy(float)
    assert ((chance > 0.5) == (predicted["label"].astype(int) == 1)).all()
    loss = -np.log(np.where(truth == 1, chance, 1 - chance)).mean()
    assert loss == pytest.approx(0.0761, abs=5e-4)
    assert ((chance > 0.5) == truth).sum() == pytest.approx(125, abs=1)
    hidden = mip.run(mip.parse(CULTIVAR, changes={"head.layers": [10]}), parts)
    assert mip.evaluate(hidden.predict, WINE)["loss"] < 0.06


def test_P26_a_forest_of_classes():
    pytest.importorskip("sklearn")
    spec = mip.parse(CULTIVAR)
    parts = mip.parts(spec, WINE)
    scores = baselines(mip.adapt(spec, parts.train), parts, trees=100)
    assert [*scores] == ["most frequent class", "logistic regression", "random forest"]
    assert scores["random forest"]["train"]["accuracy"] == 1
    assert scores["random forest"]["test"]["accuracy"] > 0.9
    assert scores["most frequent class"]["test"]["accuracy"] < 0.7


def test_P28_more_neurons_fit_better():
    x = np.random.default_rng(0).uniform(-2, 2, size=(200, 2))
    inside = ((x**2).sum(1) < 1.5).astype(float)

    def loss_with(neurons):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, neurons), nn.ReLU(), nn.Linear(neurons, 1))
        return descended(net, x, mip.adam(0.05), 200, inside, bce_with_logits)["loss"]

    assert loss_with(50) < 0.5 * loss_with(2)
