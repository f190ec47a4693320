"""What a fit writes down, what can be switched on or off, and what is refused before it begins."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from toolz import pipe
from torch import nn
from torch.nn.functional import cross_entropy, l1_loss, mse_loss

import mip
from mip.errors import MipError
from mip.hooks import console, reduce_lr_on_plateau, timing
from mip.optim import constant, cosine, inject_lr_factor, multi_step, sequential

DRAWS = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
X, NOISE = DRAWS[:, :3], DRAWS[:, 3]
Y = X.sum(1) + 0.1 * NOISE
BATCHES = pipe((X, Y), mip.batch(8))
MAE = {"mae": l1_loss}


def net_of(*layers):
    torch.manual_seed(0)
    return nn.Sequential(*layers) if layers else nn.Sequential(nn.Linear(3, 1))


def trained(
    net=None, hooks=(), optimizer=None, batches=BATCHES, loss=mse_loss, epochs=3, **options
):
    step = mip.train_step(net or net_of(), loss, optimizer or mip.sgd(0.05), **options)
    return mip.fit(step, batches, step.init(), epochs=epochs, hooks=hooks)


# Rates.


def test_W42_schedules_one_after_another_by_their_shares():
    up, down = partial(cosine, 0.4, end=2.0), partial(cosine, 2.0, end=0.4)
    _, history = trained(optimizer=mip.sgd(sequential([(0.5, up), (0.5, down)])), epochs=10)
    expected = [0.4, 0.5528, 0.9528, 1.4472, 1.8472, 2.0, 1.8472, 1.4472, 0.9528, 0.5528]
    assert history.steps["lr"][[3 * k for k in range(10)]].tolist() == pytest.approx(
        expected, abs=1e-4
    )
    three = sequential([(0.2, up), (0.7, lambda steps: constant(2.0)), (0.1, down)], steps=10)
    assert [three(step) for step in (0, 2, 8, 9)] == pytest.approx([0.4, 2, 2, 2])


def test_C08_the_rate_falls_by_epochs_or_when_the_loss_has_come_to_rest():
    _, history = trained(optimizer=mip.sgd(multi_step(0.1, [2 * 3])))
    assert [row["lr"] for row in history.epochs] == pytest.approx([0.1, 0.1, 0.01])
    optimizer = inject_lr_factor(lambda factor: mip.sgd(0.1 * factor))
    hooks = [reduce_lr_on_plateau("loss", factor=0.1, patience=2)]
    _, history = trained(hooks=hooks, optimizer=optimizer, epochs=60)
    rates, losses = ([row[name] for row in history.epochs] for name in ("lr", "loss"))
    fall = next(k for k, lr in enumerate(rates) if lr < 0.1)
    assert rates[fall] == pytest.approx(0.01)
    assert min(losses[fall - 3 : fall]) > min(losses[: fall - 3]) * (1 - 1e-4)


# Records.


def test_W44_one_row_for_every_step():
    net = net_of()
    _, history = trained(net, [mip.validate(net, BATCHES, loss=mse_loss)])
    steps = pd.DataFrame(history.steps)
    assert len(steps) == 9
    assert {"step", "loss", "lr"} <= {*steps}
    assert [row["loss"] for row in history.epochs] == pytest.approx(
        steps["loss"].to_numpy().reshape(3, 3).mean(1)
    )
    assert all("valid/loss" in row for row in history.epochs)


@pytest.mark.parametrize("epochs", [10, 1000])
def test_P08_about_ten_lines_and_the_last(epochs):
    lines = []
    trained(hooks=[console(lines.append)], batches=[(X, Y)], epochs=epochs, metrics=MAE)
    assert lines[0].split()[:3] == ["epoch", "loss", "mae"]
    assert 10 <= len(lines) - 1 <= 11
    assert lines[-1].split()[0] == str(epochs)


def test_T09_nothing_is_said_unless_a_hook_says_it(tmp_path, capfd):
    trained()
    assert capfd.readouterr() == ("", "")
    assert not [*tmp_path.iterdir()]
    hooks = [mip.log(tmp_path / "epochs.jsonl"), mip.log(tmp_path / "steps.csv", steps=True)]
    lines_so_far = []

    def count(event):
        if event.name == "before_epoch":
            time.sleep(0.11)  # shorter epochs share a write
        if event.name == "after_epoch":
            lines_so_far.append((tmp_path / "epochs.jsonl").read_text().count("\n"))

    _, history = trained(hooks=[*hooks, count], metrics=MAE)
    assert lines_so_far == [1, 2, 3]
    lines = (tmp_path / "epochs.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [dict(row) for row in history.epochs]
    assert {"loss", "mae"} <= {*pd.read_csv(tmp_path / "steps.csv")}
    trained(hooks=[console()])
    assert capfd.readouterr().out.count("\n") == 4


def test_T11_every_checkpoint_or_the_best(tmp_path):
    net = net_of(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    step = mip.train_step(net, mse_loss, mip.sgd(0.3))
    hooks = [
        mip.validate(net, BATCHES, loss=mse_loss),
        mip.checkpoint(tmp_path / "all", metric="valid/loss", keep_last=-1),
        mip.checkpoint(tmp_path / "best", metric="valid/loss"),
    ]
    _, history = mip.fit(step, BATCHES, step.init(), epochs=6, hooks=hooks)
    losses = [row["valid/loss"] for row in history.epochs]
    each = {f"epoch-{epoch:04}": loss for epoch, loss in enumerate(losses)}
    ends = {"best": min(losses), "last": losses[-1]}
    for folder, expected in (("all", each | ends), ("best", ends)):
        for path in (tmp_path / folder).glob("*"):
            saved = mip.load_checkpoint(path, step.init())
            scores = mip.evaluate(mip.module(net, saved.state), BATCHES, loss=mse_loss)
            assert scores["loss"] == expected.pop(path.stem)
        assert not expected


def test_T12_what_cannot_be_done_is_refused_before_the_first_step(tmp_path):
    net, taken = net_of(), []
    for hook, text in [
        (lambda: mip.checkpoint(tmp_path, metric="valid/loss"), "will have no 'valid/loss'"),
        (
            lambda: mip.checkpoint(tmp_path, metric="loss", mode="least"),
            "'min' or 'max', not 'least'",
        ),
        (lambda: mip.checkpoint(tmp_path, keep_last="all"), "'keep_last' must be .* not 'all'"),
        (lambda: mip.checkpoint(tmp_path, every=0), "'every' must be .* not 0"),
        (lambda: mip.checkpoint(tmp_path, "loss"), "a str and no Plan: metric='loss'"),
        (lambda: mip.validate(net, BATCHES), "a module needs loss= or metrics="),
        (lambda: mip.validate(net, BATCHES, metrics={}), "a module needs loss= or metrics="),
        (lambda: mip.validate(net, BATCHES, metrics=["mae", "acuracy"]), "did you mean 'accuracy'"),
        (lambda: mip.validate(net, (X, Y), loss=mse_loss), r"tuple is not an iterable of batches"),
        (lambda: mip.validate(net, X, loss=mse_loss), "not an iterable of batches"),
        (lambda: mip.validate(nn.Linear(9, 1), BATCHES, loss=mse_loss), "to another module"),
    ]:
        with pytest.raises((MipError, ValueError), match=text):
            trained(net, [hook()], map_loss=lambda loss: taken.append(1) or loss)
    assert not taken


def test_T20_seconds_of_every_epoch_and_of_the_run():
    _, history = trained(hooks=[timing()])
    assert all(row["seconds"] > 0 and row["rows_per_second"] > 0 for row in history.epochs)
    rows = mip.from_columns({"x": [1.0, 2.0, 3.0], "y": [1.0, 2.0, 3.0]})
    spec = mip.parse("""
        branch.x = { kind = "continuous", columns = ["x"] }
        head = { kind = "regression", column = "y" }
        train.epochs = 1
    """)
    assert mip.run(spec, mip.model.Parts(rows, rows.take([]), rows.take([]))).seconds > 0


# Shapes and precisions.


class TwoInTwoOut(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.size, self.kind = nn.Linear(5, 8), nn.Linear(8, 1), nn.Linear(8, 2)

    def forward(self, inputs):
        hidden = torch.relu(self.body(torch.cat(inputs, dim=1)))
        return self.size(hidden).squeeze(1), self.kind(hidden)


def test_T22_several_inputs_and_outputs_each_with_metrics():
    net = TwoInTwoOut()
    batches = pipe(((X, X[:, :2]), (Y, (Y > 0).long())), mip.batch(8))
    loss = lambda p, y: mse_loss(p[0], y[0]) + cross_entropy(p[1], y[1])  # noqa: E731
    metrics = {
        "size/mae": lambda p, y: l1_loss(p[0], y[0]),
        "kind/accuracy": lambda p, y: (p[1].argmax(1) == y[1]).float().mean(),
    }
    hooks = [mip.validate(net, batches, loss=loss, metrics=metrics)]
    _, history = trained(net, hooks, mip.adam(0.05), batches, loss, 20)
    assert history.epochs[-1]["valid/loss"] < 0.5 * history.epochs[0]["valid/loss"]
    assert {"valid/size/mae", "valid/kind/accuracy"} <= {*history.epochs[-1]}
    sizes, kinds = mip.predict(net, batches)
    assert (sizes.shape, kinds.shape) == ((24,), (24, 2))
    with pytest.raises(
        MipError, match=r"predictions \(float32 \[8\], float32 \[8, 2\]\) and targets"
    ):
        trained(net, batches=batches)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_T23_half_precision_ends_near_single_precision(precision):
    optimizer = mip.adam(0.05)
    half = trained(optimizer=optimizer, epochs=40, precision=precision)
    full = trained(optimizer=optimizer, epochs=40)
    losses = [each.history.epochs[-1]["loss"] for each in (half, full)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_T25_a_hook_can_feed_any_tracker():
    written = []

    def tracker(event):
        if event.name == "after_epoch":
            written.extend((name, value, event.step) for name, value in event.metrics.items())

    trained(hooks=[tracker])
    assert [step for name, _, step in written if name == "loss"] == [3, 6, 9]


def test_T31_labels_are_encoded_and_decoded():
    rows = mip.from_columns({"town": ["Ulm", "Bonn", "Ulm", "Kiel"], "kind": ["b", "a", "b", "c"]})
    spec = mip.parse("""
        branch.town = { kind = "categorical", columns = ["town"], encoding = "one_hot" }
        head = { kind = "multiclass", column = "kind" }
    """)
    plan = mip.adapt(spec, rows)
    net = mip.build(plan)
    towns = net.body.branch["town"](plan.encode(rows).inputs["town"])
    assert towns.argmax(1).tolist() == [3, 1, 3, 2]  # 0 is for towns never seen
    assert towns.sum(1).tolist() == [1, 1, 1, 1]
    step = mip.train_step(net, plan.loss, mip.adam(0.5))
    state, _ = mip.fit(step, [plan.encode(rows)], step.init(), epochs=50)
    predicted = mip.predictor(plan, state)(rows)
    assert predicted["label"].tolist() == ["b", "a", "b", "c"]


# Notebooks.

NOTEBOOKS = [*(Path(__file__).parents[2] / "notebooks").glob("*.ipynb")]
SMALLER = {"n_rows=400": "n_rows=40", "epochs = 15": "epochs = 1"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_W53_notebooks_import_the_library_and_run_from_top_to_bottom(path, tmp_path, monkeypatch):
    plt = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("agg")
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    names = {}
    for cell in cells:
        source = "".join(cell["source"])
        for old, new in SMALLER.items():
            source = source.replace(old, new)
        exec(source, names)
    plt.close("all")
    assert names["mip"] is mip
