"""Predictions as people ask for them, and devices: each test is named after what it shows."""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from attrs import evolve
from conftest import NUMBERS, PHOTO, bits, nearly, spec_of
from PIL import Image
from toolz import pipe
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, TensorDataset

import mip
from mip.errors import MipError, MipWarning
from mip.nn import time_forward
from mip.prediction import ensemble

NO_GPU = not torch.accelerator.is_available()

CLASSES = ["flat", "house", "loft"]


def untrained(table, branches, head="multiclass", seed=0):
    plan = mip.adapt(spec_of(head, branches), table)
    return mip.predictor(plan, mip.init(mip.build(plan, seed=seed), mip.sgd(0.1)))


@pytest.fixture(scope="module")
def numbers(table):
    """A model that reads table columns alone."""
    return untrained(table, NUMBERS)


@pytest.fixture(scope="module")
def photos(table):
    """A model that reads a photo alone."""
    return untrained(table, PHOTO)


@pytest.fixture(scope="module")
def mixed(table):
    """A model that reads a photo and numbers."""
    return untrained(table, PHOTO + NUMBERS)


@pytest.fixture(scope="module")
def loose(folder, tmp_path_factory):
    """A folder of photos without classes, one of them in a folder inside."""
    loose = tmp_path_factory.mktemp("loose")
    (loose / "more").mkdir()
    for k, name in enumerate(["0.png", "1.png", "2.png", "more/3.png"]):
        shutil.copy(folder / "photos" / f"{k}.png", loose / name)
    for name in ("notes.txt", ".hidden.png"):
        (loose / name).write_text("no photo")
    return loose


def error_of(function, *args, **options):
    with pytest.raises(MipError) as caught:
        function(*args, **options)
    return str(caught.value)


# What is predicted.


def test_C11_a_photo_several_and_a_folder_are_predicted_by_their_paths(photos, table, loose):
    expected = photos(table.take(range(4)))
    paths = [str(loose / f"{k}.png") for k in range(3)]
    nearly(photos(paths[1]), expected.iloc[[1]].set_axis(paths[1:2]))
    nearly(photos([*map(Path, paths)]), expected.iloc[:3].set_axis(paths))
    nearly(mip.predict(photos, (paths[0], paths[0])), expected.iloc[[0, 0]].set_axis(paths[:1] * 2))
    nearly(photos(loose), expected.set_axis(["0.png", "1.png", "2.png", "more/3.png"]))
    members = ensemble([photos, untrained(table, PHOTO, seed=1)])
    nearly(members(loose).reset_index(drop=True), members(table.take(range(4))))


def test_C11_paths_are_relative_to_the_current_folder(photos, loose, monkeypatch):
    monkeypatch.chdir(loose / "more")
    expected = photos([loose / "more/3.png", loose / "0.png"])
    nearly(photos(["3.png", "../0.png"]), expected.set_axis(["3.png", "../0.png"]))


def test_C11_one_row_is_a_dict_and_several_are_a_list(mixed, table, folder):
    rows = [{**table[k], "front": folder / table[k]["front"]} for k in range(3)]
    expected = mixed(table.take(range(3)))
    nearly(mixed(rows), expected)
    nearly(mixed(rows[0]), expected.iloc[[0]])
    pixels = np.asarray(Image.open(rows[1]["front"]))
    nearly(mixed({**rows[1], "front": pixels}), expected.iloc[[1]].set_axis([0]))


def test_C11_a_row_keeps_to_the_current_folder_unless_it_names_a_path(mixed, table, monkeypatch):
    monkeypatch.chdir(table.root)
    nearly(mixed(table[0]), mixed(table.take([0])))
    nearly(mixed({**table[0], "front": str(table.root / "photos/0.png")}), mixed(table.take([0])))
    monkeypatch.chdir(table.root / "photos")
    row = {**table[0], "front": str(table.root / "photos/../photos.png")}
    text = error_of(mixed, row, errors="raise")
    assert mixed(row)["error"].tolist() == [text]
    assert text.endswith("leaves the table's folder")


def test_C11_a_row_of_a_table_is_predicted_as_in_the_table(mixed, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = mixed(table.take(range(3)))
    nearly(mixed(table[0]), expected.iloc[[0]])
    nearly(mixed([table[k] for k in range(3)]), expected)
    nearly(mixed(table[0:3]), expected)
    both = mip.data.from_columns({"front": [["photos/0.png", "../x.png"], "gone.png"]}, table.root)
    assert both[0] == {"front": [table.root.resolve() / "photos/0.png", "../x.png"]}
    assert both[1] == {"front": "gone.png"}


def test_C11_a_path_that_is_no_file_is_named(mixed, table, tmp_path):
    gone = tmp_path / "gone.png"
    rows = [table[0], {**table[1], "front": gone}]
    want = f"table row 1, column 'front': there is no file {gone}"
    assert error_of(mixed, rows) == error_of(mixed, [rows[0], {**rows[1], "front": [gone]}]) == want


def test_C11_photos_that_are_not_found_are_named(table, tmp_path, monkeypatch):
    learn = untrained(table, PHOTO + 'missing = "learn"\n' + NUMBERS)
    monkeypatch.chdir(tmp_path)
    lost = f"table row 0, column 'front': photos/0.png is missing from {tmp_path.resolve()}"
    for rows in (table.frame[:1], {**table[0], "front": "photos/0.png"}):
        with pytest.warns(MipWarning) as caught:
            learn(rows)
        text = f"table: 1 photo is not found ({lost}), and learned vectors replace"
        assert str(caught[0].message).startswith(text)
    nearly(learn(mip.from_frame(table.frame[:1], table.root)), learn(table.take([0])))
    with pytest.warns(MipWarning, match="3 photos are not found"):
        learn(mip.from_frame(table.frame[:3]))
    learn(table.frame[:1].assign(front=None))  # none is named


def test_C11_pixels_in_a_dict_are_one_row(photos, mixed, table):
    pixels = np.asarray(Image.open(table[1]["front"]))
    grey = np.zeros((4, 5, 6), dtype=np.uint8)
    for one in (pixels, torch.tensor(pixels), grey[0]):
        assert len(photos({"front": one})) == len(mixed({**table[1], "front": one})) == 1
    nearly(photos({"front": pixels}), photos(table.take([1])).set_axis([0]))
    assert len(photos({"front": grey})) == 4
    assert len(photos({"front": [pixels, grey[0]]})) == 2


def test_C11_images_need_no_column(photos, mixed, numbers, table):
    expected = photos(table.take([1, 2])).reset_index(drop=True)
    images = [Image.open(table[k]["front"]) for k in (1, 2)]
    files = [table[k]["front"].read_bytes() for k in (1, 2)]
    for rows in (images, files, [*map(np.asarray, images)], tuple(images)):
        nearly(photos(rows), expected)
        nearly(photos(rows[0]), expected.iloc[[0]])
    assert error_of(mixed, images[0]).startswith("table: there are no columns 'area', 'rooms'")
    assert "not ndarray; name its columns" in error_of(numbers, np.zeros((3, 3)))


def test_C11_a_file_is_scored_as_its_model(photos, table, tmp_path):
    mip.save(tmp_path / "m.safetensors", photos.plan, mip.init(photos.net, mip.sgd(0.1)))
    expected = mip.evaluate(photos, table)
    assert mip.evaluate(tmp_path / "m.safetensors", table) == pytest.approx(expected, nan_ok=True)


def test_C11_what_a_model_cannot_predict_is_one_line(mixed, photos, numbers, table, loose):
    photo = str(loose / "0.png")
    reads = "the model reads columns 'area', 'front', 'rooms', 'town'"
    assert error_of(mixed, photo) == (
        f"photos: there are no columns 'area', 'rooms', 'town' (known: front); {reads}"
    )
    assert error_of(mixed, {"aera": 80, "rooms": 1, "front": Path(photo)}) == (
        "table: there are no columns 'area', 'town'; did you mean 'aera'? (known: aera, front, "
        f"rooms); {reads}"
    )
    assert error_of(numbers, photo) == (
        "photos: the model reads no photos, but columns 'area', 'rooms', 'town'"
    )
    row = {"area": [80, 90], "rooms": 1, "town": "Ulm", "front": Path(photo)}
    text = "table row 0, column 'area': '[80, 90]' is not a number"
    assert error_of(mixed, row, errors="raise") == text
    assert mixed(row)["error"].tolist() == [text]
    two = untrained(table, PHOTO.replace('["front"]', '["front", "back"]'))
    assert error_of(two, photo) == (
        "the model reads photos from several columns: give a row as {'back': PATH, 'front': PATH}"
    )
    gone = loose / "more" / "3.jpg"
    assert error_of(photos, gone) == (
        f"{gone}: there is no such photo; did you mean '3.png'? (known: 3.png)"
    )
    assert error_of(photos, [photo, loose / "notes.txt"]).startswith(
        f"{loose / 'notes.txt'}: a list of paths is one of photos (.avif, "
    )


@pytest.mark.parametrize("rows", [{"a": 1}, [{"a": 1}], "photo.jpg", ["photo.jpg"]])
def test_C11_a_plain_net_says_that_it_takes_batches(rows):
    text = "a module reads no columns, but batches of tensors: pipe(rows, mip.batch(256))"
    assert error_of(mip.predict, nn.Linear(1, 1), rows).endswith(text)


def test_T15_a_plain_net_says_which_layer_cannot_take_the_rows():
    net = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    expected = (
        "layer '0', a Linear with a weight float32 [2, 3] cannot take an input float32 [5, 4]"
    )
    assert error_of(mip.predict, net, torch.ones(5, 4)).startswith(expected)
    batches = [(torch.ones(5, 4), torch.ones(5, 2))]
    assert error_of(mip.evaluate, net, batches, loss=mse_loss).startswith(expected)


# The most probable classes.


@pytest.mark.parametrize("k", [1, 2, 3, 9])
def test_C11_and_P24_the_most_probable_classes_with_their_chances(k, photos, loose):
    whole, top = photos(loose), mip.predict(photos, loose, top=k)
    n = min(k, 3)
    assert [*top] == [name for rank in range(1, n + 1) for name in (f"label_{rank}", f"p_{rank}")]
    assert top.index.equals(whole.index)
    for (_, row), (_, all_of_row) in zip(top.iterrows(), whole.iterrows(), strict=True):
        chances = sorted((all_of_row[f"p_{word}"] for word in CLASSES), reverse=True)
        assert [row[f"p_{rank + 1}"] for rank in range(n)] == chances[:n]
        assert [all_of_row[f"p_{row[f'label_{rank + 1}']}"] for rank in range(n)] == chances[:n]
    assert top["label_1"].tolist() == whole["label"].tolist()


def test_C11_heads_with_and_without_classes(table, numbers):
    two = untrained(table, NUMBERS, "binary")(table, top=5)
    assert [*two] == ["label_1", "p_1", "label_2", "p_2"]
    np.testing.assert_allclose(two["p_1"] + two["p_2"], 1)
    joint = untrained(table, NUMBERS, "joint")(table, top=1)
    assert [*joint] == ["price.value", "style.label_1", "style.p_1"]
    pair = ensemble([numbers, untrained(table, NUMBERS, seed=1)])
    assert pair(table, top=1)["label_1"].tolist() == pair(table)["label"].tolist()
    regression = untrained(table, NUMBERS, "regression")
    assert error_of(regression, table, top=3) == (
        "top 3: a model with head.kind = 'regression' has no classes"
    )
    assert error_of(numbers, table, top=0) == "top must be 1 or more: 0"
    assert "torch.topk" in error_of(mip.predict, nn.Linear(1, 1), torch.ones(1, 1), top=1)


def test_C11_a_row_without_prediction_has_no_classes(photos, loose, tmp_path):
    (tmp_path / "broken.png").write_bytes((loose / "0.png").read_bytes()[:60])
    top = photos([loose / "1.png", tmp_path / "broken.png"], top=2)
    assert [*top] == ["label_1", "p_1", "label_2", "p_2", "error"]
    assert top.iloc[1, :4].isna().all()
    assert "broken.png" in top["error"].iloc[1]
    assert top.iloc[0, :4].notna().all()


# Scores and predictions of rows.


def test_P24_probabilities_and_labels(numbers, table):
    frame = numbers(table)
    chances = frame[[f"p_{word}" for word in CLASSES]].to_numpy()
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    assert frame["label"].tolist() == [CLASSES[k] for k in chances.argmax(axis=1)]


def test_P23_a_grid_is_predicted_as_a_table(numbers):
    area, rooms = np.meshgrid(np.linspace(30, 200, 100), np.linspace(1, 6, 100))
    grid = {"area": area.ravel(), "rooms": rooms.ravel(), "town": ["Ulm"] * area.size}
    surface = numbers(grid)["p_loft"].to_numpy().reshape(area.shape)
    assert np.isfinite(surface).all()
    corner = numbers({"area": area[-1, 3], "rooms": rooms[-1, 3], "town": "Ulm"})["p_loft"]
    assert surface[-1, 3] == pytest.approx(corner[0], rel=1e-4)


def test_T14_evaluation_is_a_dict_and_changes_nothing(numbers, table):
    before = bits(numbers.net.state_dict())
    scores = mip.evaluate(numbers, table, {"errors": lambda p, y: (p.argmax(1) != y).sum()})
    assert {"loss", "accuracy", "errors"} <= {*scores}
    assert all(isinstance(score, float) for score in scores.values())
    assert bits(numbers.net.state_dict()) == before


def test_T15_rows_one_by_one_and_in_batches(numbers, table):
    one_by_one = pd.concat([numbers(row) for row in table.frame.to_dict("records")])
    nearly(one_by_one.set_axis(table.index), numbers(table))
    nearly(evolve(numbers, batch_size=3)(table), numbers(table))
    net, x, y = nn.Linear(3, 2), torch.randn(7, 3), torch.zeros(7)
    for batches in (x, pipe(x, mip.batch(2)), DataLoader(TensorDataset(x, y), batch_size=3)):
        torch.testing.assert_close(mip.predict(net, batches), net(x).detach())


def test_C09_the_weights_of_every_epoch_are_kept_and_one_is_chosen(tmp_path):
    x, y = torch.randn(20, 3), torch.arange(20) % 2
    net = nn.Linear(3, 2)
    batches = pipe((x, y), mip.batch(5))
    step = mip.train_step(net, cross_entropy, mip.sgd(0.1))
    hooks = [mip.checkpoint(tmp_path, keep_last=-1)]
    state, _ = mip.fit(step, batches, step.init(), epochs=3, hooks=hooks)
    kept = [mip.load_checkpoint(file, step.init()) for file in sorted(tmp_path.glob("epoch-*"))]
    assert [each.state.step for each in kept] == [4, 8, 12]
    assert bits(kept[-1].state) == bits(state)
    losses = [mip.evaluate(mip.module(net, k.state), batches, loss=cross_entropy) for k in kept]
    assert losses[2]["loss"] < losses[0]["loss"]


def test_C12_a_classifier_of_photos_from_folders_to_names(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(24):
        name, colour = ("sea", (20, 60, 200)) if k % 2 else ("sun", (230, 190, 30))
        path = tmp_path / "views" / name / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.clip(rng.normal(colour, 20, (8, 8, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    table = mip.read(tmp_path / "views")
    spec = mip.parse("""
        branch.photo = { kind = "image", columns = ["image"], size = 8, base_channels = 4 }
        head = { kind = "multiclass", column = "label" }
        [train]
        epochs = 12
        batch_size = 8
        optimizer = { kind = "adamw", lr = 0.03 }
        schedule = { kind = "one_cycle" }
    """)
    ended = mip.run(spec, table, out=tmp_path / "run")
    assert mip.evaluate(ended.predict, table)["accuracy"] == 1
    top = mip.predict(tmp_path / "run/model.safetensors", tmp_path / "views/sea/3.png", top=2)
    assert top[["label_1", "label_2"]].values.tolist() == [["sea", "sun"]]
    assert top["p_1"].iloc[0] > 0.5 > top["p_2"].iloc[0]


# Devices.


@pytest.mark.parametrize("name", ["cpu", "auto"])
def test_W22_P30_and_T21_the_same_lines_on_every_device(name):
    device = mip.devices.find_device(name)
    x = torch.randn(8, 2)
    batches = pipe((x, x.sum(1)), mip.batch(4), mip.to(name))
    net = nn.Linear(2, 1).to(device)
    step = mip.train_step(net, mse_loss, mip.sgd(0.1))
    state, history = mip.fit(step, batches, step.init(), epochs=2)
    assert state.params["weight"].device.type == torch.device(device).type
    assert isinstance(history.epochs[-1]["loss"], float)
    assert mip.predict(net, batches).device.type == "cpu"
    assert mip.predict(net, x, device=name).device.type == "cpu"
    assert isinstance(mip.evaluate(net, batches, loss=mse_loss, device=name)["loss"], float)


def test_P30_a_fit_keeps_neither_batches_nor_graphs():
    x = torch.randn(8, 2)
    net, batches = nn.Linear(2, 1), pipe((x, x.sum(1)), mip.batch(4))
    step = mip.train_step(net, mse_loss, mip.sgd(0.01))
    seen = []

    def note(event):
        if event.name == "after_batch":
            seen.append(weakref.ref(event.batch[0]))

    _, history = mip.fit(step, batches, step.init(), epochs=5, hooks=[note])
    assert len(seen) == 10
    assert not any(batch() is not None for batch in seen)
    assert not any(values.requires_grad for values in history.steps.values())


def test_W35_a_stage_moves_every_tensor_of_a_batch():
    rows = ({"a": torch.ones(4), "b": torch.ones(4, 2)}, torch.ones(4))
    for inputs, target in pipe(rows, mip.batch(2), mip.to("meta")):
        assert {inputs["a"].device, inputs["b"].device, target.device} == {torch.device("meta")}


def test_T21_a_model_computes_where_it_is_told(numbers, table, tmp_path):
    moved = numbers.to("meta")
    assert {param.device.type for param in moved.net.parameters()} == {"meta"}
    assert {param.device.type for param in numbers.net.parameters()} == {"cpu"}
    assert moved.device == "meta"
    pair = ensemble([numbers, numbers])
    assert {member.device for member in pair.to("meta").members} == {"meta"}
    mip.save(tmp_path / "m.safetensors", numbers.plan, mip.init(numbers.net, mip.sgd(0.1)))
    for model in (numbers, pair, tmp_path / "m.safetensors"):
        nearly(mip.predict(model, table, device="auto"), numbers(table))
    at_auto = mip.evaluate(numbers, table, device="auto")
    assert at_auto == pytest.approx(mip.evaluate(numbers, table), rel=1e-4)


@pytest.mark.skipif(not NO_GPU, reason="this machine has an accelerator")
@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "gpu"])
def test_P30_and_T21_a_device_that_is_not_there_is_one_error(name, numbers, table):
    net, x = nn.Linear(1, 1), torch.ones(2, 1)
    for take in (
        lambda: mip.devices.find_device(name),
        lambda: mip.Context(device=name),
        lambda: mip.to(name),
        lambda: numbers.to(name),
        lambda: mip.predict(numbers, table, device=name),
        lambda: mip.predict(net, x, device=name),
        lambda: mip.evaluate(numbers, table, device=name),
        lambda: time_forward(net, x, device=name),
    ):
        text = f"there is no device '{name}' here; this machine has cpu (or say auto)"
        assert error_of(take) == text
    assert mip.devices.find_device("auto") == "cpu"


def test_W22_and_P30_the_time_of_a_pass():
    small, large = (nn.Sequential(*[nn.Linear(n, n) for _ in range(4)]) for n in (4, 600))
    times = [time_forward(net, torch.ones(64, n)) for net, n in ((small, 4), (large, 600))]
    assert times[0].seconds < times[1].seconds
    assert times[1].seconds < time_forward(large, torch.ones(64, 600), backward=True).seconds
    assert str(times[0]).endswith(f"{64 / times[0].seconds:,.0f} rows/s")
    assert " ms (" in str(times[0])
    assert " for 64 rows on cpu" in str(times[0])


def test_W22_timing_changes_nothing():
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    before, random = bits(net.state_dict()), torch.get_rng_state()
    timing = time_forward(net, (torch.ones(5, 3), torch.ones(5)), backward=True, repeats=2)
    assert (timing.rows, timing.repeats) == (5, 2)
    assert bits(net.state_dict()) == before
    assert all(param.grad is None for param in net.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert "no parameters" in error_of(time_forward, nn.ReLU(), torch.ones(1), backward=True)
    assert "2 repeats" in error_of(time_forward, net, torch.ones(2, 3), repeats=1)
