"""Where rows come from and how they are parted, row by row of the capabilities that the library
sets out to have.

W: a table with photos, its cleaning and parts; P: a CSV, training statistics; T: image folders,
torchvision's datasets, tables of words; C: class names, three parts, workers.
"""

from __future__ import annotations

import json
import struct
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from attrs import evolve
from conftest import draw_photos, frame_of, spec_of
from PIL import Image
from toolz import pipe
from torch.utils.data import Dataset, random_split
from torchvision import datasets
from torchvision.transforms import Compose, Normalize, ToTensor

import mip
from mip.cli import main
from mip.errors import DataError, MipWarning
from mip.spec.values import Data, Split
from mip.tree import leaves

CARS = Path(__file__).parents[1] / "saved" / "cars.csv"
CPU = mip.Context(device="cpu")

NUMBERS = mip.parse("""
branch.size = { kind = "continuous", columns = ["WGT", "ENG"] }
head = { kind = "regression", column = "MPG" }
train = { epochs = 1, batch_size = 64 }
""")

PHOTOS = mip.parse("""
branch.photos = { kind = "image", columns = ["image"], size = 8, base_channels = 2 }
head = { kind = "multiclass", column = "label" }
train = { epochs = 1, batch_size = 8 }
""")


def drawn(folder: Path, *names: str) -> Path:
    """Draw a photo of its own colour under each of these names."""
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (9 * k % 256, 90, 200)).save(folder / name)
    return folder


def command(monkeypatch, *words: str) -> int | str | None:
    """Run the command line; return its exit code."""
    monkeypatch.setattr("sys.argv", ["mip", *words])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # which main sets
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


# A table with photos.


def test_W02_a_row_by_the_roles_of_its_columns(folder):
    table, _ = mip.clean(spec_of(), folder / "houses.csv")
    plan = mip.adapt(spec_of(), table)
    row = plan.encode(table.take([0]))
    assert {*row.inputs} == {"photos", "rooms", "place"}
    assert row.inputs["photos"]["pixels"].shape == (1, 2, 3, 8, 8)
    dtypes = {leaf.dtype for name in ("rooms", "place") for _, leaf in leaves(row.inputs[name])}
    assert dtypes == {torch.float32, torch.int64}
    assert (row.target.dtype, row.target.shape) == (torch.float32, (1,))


def test_W03_rows_without_a_photo_or_a_target_are_dropped_and_reported(tmp_path, recwarn):
    draw_photos(tmp_path)
    frame = frame_of(10)
    spec = mip.parse("""
branch.photos = { kind = "image", columns = ["front"], size = 8, missing = "drop" }
head = { kind = "regression", column = "price", missing = "drop" }
""")
    whole, report = mip.clean(spec, mip.from_frame(frame, tmp_path))
    assert (len(whole), report.n_dropped, len(recwarn)) == (10, 0, 0)
    for k in (2, 5):
        (tmp_path / "photos" / f"{k}.png").unlink()
    frame.loc[7, "price"] = np.nan
    with pytest.warns(MipWarning, match="10 rows, 7 used"):
        kept, report = mip.clean(spec, mip.from_frame(frame, tmp_path))
    assert kept.row_ids.tolist() == [0, 1, 3, 4, 6, 8, 9]
    assert report.dropped == {
        "image file missing in 'front'": [2, 5],
        "target 'price' missing": [7],
    }


def test_W04_some_rows_of_a_table():
    cars = mip.read(CARS)
    assert cars.take([7, 3]).texts("MPG").tolist() == [cars[7]["MPG"], cars[3]["MPG"]]
    batches = pipe(cars, mip.subset([7, 3]), mip.batch(2))
    assert next(iter(batches)).row_ids.tolist() == [7, 3]


def test_W05_stages_are_composed():
    photo = np.random.default_rng(0).integers(0, 256, (1347, 1080, 3), dtype=np.uint8)
    table = mip.from_columns({"image": [photo], "label": ["a"]})
    resize = lambda rows: torch.stack(  # noqa: E731
        [mip.images.decode(None, cell, 255) for cell in rows.cells("image")]
    )
    batches = pipe(table, mip.batch(1), mip.transform(resize), mip.transform(lambda x: x / 255))
    [pixels] = next(iter(batches))
    assert (pixels.shape, pixels.dtype) == ((3, 255, 255), torch.float32)
    assert 0 <= pixels.min() < pixels.max() <= 1


# Parts.


def test_W10_run_takes_train_and_optionally_valid_and_test(tmp_path):
    train, valid, test = parts = mip.split(CARS, (0.7, 0.2, 0.1))
    forms = [((train,),), (train, valid), (train, valid, test), (parts,), (parts[:2],)]
    forms += [((CARS,),), (train.frame, valid.frame), ({**train.frame}, {**valid.frame})]
    runs = [mip.run(NUMBERS, *rows, context=CPU) for rows in forms]
    assert ["valid/loss" in run.history.epochs[0] for run in runs] == [
        *(False, True, True, True, True),
        *(False, True, True),
    ]
    losses = {run.history.epochs[0]["valid/loss"] for run in runs[1:5]}
    assert len(losses) == 1
    assert runs[-1].history.epochs[0]["valid/loss"] in losses
    with pytest.raises(DataError, match=r"a folder to write to is out=…"):
        mip.run(NUMBERS, parts, tmp_path)
    with pytest.raises(DataError, match=r"rows are a DataFrame, .*, not ndarray; name its columns"):
        mip.run(NUMBERS, (np.zeros((3, 2)), np.zeros(3)))


def test_W10_run_drops_what_the_spec_drops():
    frame = mip.read(CARS).frame.head(20)
    frame.loc[3, "MPG"] = ""
    with_hole = mip.run(NUMBERS, (frame,), context=CPU)
    without = mip.run(NUMBERS, (frame.drop(3),), context=CPU)
    assert with_hole.plan.facts["branch"] == without.plan.facts["branch"]


def test_W11_train_and_valid_batches_of_a_seeded_split():
    train, valid = mip.split(CARS, (0.8, 0.2), seed=1)
    again, _ = mip.split(CARS, (0.8, 0.2), seed=1)
    batches = [*pipe(train, mip.batch(32)), *pipe(valid, mip.batch(32))]
    assert (len(train), len(valid)) == (314, 78)
    assert sorted(row for batch in batches for row in batch.row_ids) == [*range(392)]
    assert train.row_ids.tolist() == again.row_ids.tolist()


def test_C03_three_parts_of_exact_sizes():
    parts = mip.split(CARS, (0.7, 0.2, 0.1), seed=0)
    assert [*map(len, parts)] == [274, 79, 39]
    assert sorted(row for part in parts for row in part.row_ids) == [*range(392)]


NAMES = [
    f"{part}/{label}/{k}.png"
    for part, n in (("Train", 6), ("val", 2), ("testing", 3))
    for label in ("cat", "dog")
    for k in range(n)
]


def test_C03_parts_that_are_folders(tmp_path, monkeypatch, capsys):
    pets = drawn(tmp_path / "pets", *NAMES)
    parts = mip.split(pets, column="part")
    assert [*map(len, parts)] == [12, 4, 6]
    assert {*parts[2].texts("label")} == {"cat", "dog"}
    assert mip.read(pets / "val").columns == ["image", "label"]

    spec = evolve(PHOTOS, data=Data(split=Split(column="part")))
    assert [*map(len, mip.parts(spec, pets))] == [12, 4, 6]
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "new", "pets") == 0
    assert command(monkeypatch, "fit", "pets.toml", "--set", "train.epochs=1") == 0
    assert "train 12  valid 4  test 6" in capsys.readouterr().out
    scores = json.loads((tmp_path / "runs" / "pets" / "metrics.json").read_text())
    assert scores.keys() == {"train", "valid", "test"}
    model = "runs/pets/model.safetensors"
    assert command(monkeypatch, "evaluate", model, "pets", "--split", "test") == 0
    assert mip.evaluate(mip.load(model), pets / "testing") == pytest.approx(scores["test"])


def test_C03_the_class_of_no_training_row_is_named(tmp_path, monkeypatch, capsys):
    drawn(tmp_path / "pets", *NAMES, "test/emu/0.png")
    assert command(monkeypatch, "new", str(tmp_path / "pets")) == 2
    assert "column 'label': 'emu' is in no row of the part train" in capsys.readouterr().err


# Images.


def test_C02_labels_have_names(tmp_path):
    table = mip.read(drawn(tmp_path, "cat/1.png", "dog/1.png", "emu/1.png"))
    plan = mip.adapt(PHOTOS, table)
    assert plan.facts["head"]["classes"] == ["cat", "dog", "emu"]
    assert plan.encode(table).target.tolist() == [0, 1, 2]
    decoded = plan.decode(torch.eye(3))
    assert decoded["label"].tolist() == ["cat", "dog", "emu"]


def test_T28_loose_images_are_predicted_with_the_classes_of_the_model(tmp_path):
    classes = drawn(tmp_path / "classes", *(f"{label}/{k}.png" for label in "ba" for k in range(4)))
    loose = drawn(tmp_path / "loose", "10.png", "2.PNG", "deep/er/1.jpg")
    (loose / "notes.txt").write_text("")
    mip.run(PHOTOS, classes, out=tmp_path / "run", context=CPU)
    model = mip.load(tmp_path / "run" / "model.safetensors")
    assert model.plan.facts["head"]["classes"] == ["a", "b"]
    table = mip.read(loose)
    assert table.cells("image") == ["10.png", "2.PNG", "deep/er/1.jpg"]
    predictions = mip.predict(model, loose)
    assert len(predictions) == 3
    assert {*predictions["label"]} <= {"a", "b"}


def test_T28_a_folder_without_images_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match=r"holds neither \.parquet files nor images"):
        mip.read(tmp_path)


# torchvision's datasets, and others.


class Items(Dataset):
    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        return self.items[row]


PHOTO = Image.new("RGB", (4, 4), "red")


def test_T29_a_dataset_of_torchvision_is_rows():
    fake = datasets.FakeData(24, (3, 8, 8), num_classes=3)
    table = mip.from_dataset(fake)
    assert table.columns == ["image", "label"]
    assert [table[5]["label"], table[5]["image"].tobytes()] == [fake[5][1], fake[5][0].tobytes()]
    ended = mip.run(PHOTOS, *mip.split(fake, (0.75, 0.25)), context=CPU)
    assert len(ended.predict(fake)) == 24


def test_T29_photos_as_tensors_are_the_same_photos():
    as_images = datasets.FakeData(3, (3, 8, 8))
    as_tensors = datasets.FakeData(3, (3, 8, 8), transform=ToTensor())
    images, tensors = (mip.from_dataset(each).cells("image") for each in (as_images, as_tensors))
    for image, pixels in zip(images, tensors, strict=True):
        assert np.array_equal(np.asarray(image), pixels)
    normalized = datasets.FakeData(3, (3, 8, 8), transform=Compose([ToTensor(), Normalize(0.5, 1)]))
    with pytest.raises(DataError, match=r"row 0: 'image' has pixels from -0\.5 to 0\.\d+"):
        mip.from_dataset(normalized)


def test_T29_mnist_has_the_names_of_its_classes(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    digits = np.arange(10 * 28 * 28).astype(np.uint8)
    for name in ("train", "t10k"):
        header = struct.pack(">4i", 0x803, 10, 28, 28)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + digits.tobytes())
        labels = struct.pack(">2i", 0x801, 10) + bytes(range(10))
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(labels)
    table = mip.from_dataset(datasets.MNIST(tmp_path))
    assert table.texts("label")[:2].tolist() == ["0 - zero", "1 - one"]
    assert np.array_equal(np.asarray(table[3]["image"]).ravel(), digits[3 * 784 : 4 * 784])
    odd = mip.from_dataset(datasets.MNIST(tmp_path, target_transform=lambda digit: digit % 2))
    assert odd.texts("label")[:2].tolist() == ["0", "1"]


def test_T29_an_image_folder_is_not_decoded(tmp_path):
    drawn(tmp_path, "cat/1.png", "cat/2.png", "dog/1.png")
    whole = datasets.ImageFolder(tmp_path)
    table = mip.from_dataset(whole)
    assert table.digest() == mip.read(tmp_path).digest()
    one, _ = random_split(whole, [1, 2], generator=torch.Generator().manual_seed(0))
    assert mip.from_dataset(one).cells("image") == table.take(one.indices).cells("image")
    inverted = datasets.ImageFolder(tmp_path, transform=lambda image: image.rotate(90))
    assert mip.from_dataset(inverted)[0]["image"].size == (8, 8)


@pytest.mark.parametrize(
    ("item", "columns"),
    [
        ((PHOTO, 3), ["image", "label"]),
        ((PHOTO, PHOTO, 2.5), ["image", "image_2", "number"]),
        ((torch.zeros(4), torch.tensor(1)), ["vector", "label"]),
        ({"photo": PHOTO, "age": 3}, ["photo", "age"]),
    ],
)
def test_T29_columns_are_what_the_first_item_holds(item, columns):
    assert mip.from_dataset(Items(item, item)).columns == columns


@pytest.mark.parametrize(
    ("items", "error"),
    [
        (((PHOTO, 0), ("x", 1)), "row 1: 'image' is a label (str), but in row 0 an image (Image)"),
        (((PHOTO, 0), (PHOTO, {"box": 1})), "row 1: 'label' is a dict, which no cell can hold"),
        (((PHOTO, 0), 7), "row 1: int is neither a dict nor a tuple"),
        (((PHOTO, 0), (PHOTO,)), "row 1: 1 parts, but there are 2 columns"),
        (({"a": 1}, {"b": 1}), "row 1: the item has no 'a' (known: b)"),
    ],
)
def test_T29_an_item_unlike_the_first_is_named(items, error):
    with pytest.raises(DataError) as caught:
        mip.from_dataset(Items(*items))
    assert str(caught.value) == f"table {error}"


def test_T29_an_item_that_cannot_be_read_or_has_no_class_is_named():
    class Broken(Items):
        classes = ("cat", "dog")

        def __getitem__(self, row):
            return (PHOTO, 1 / self.items[row])

    with pytest.raises(DataError, match="row 1: cannot be read: ZeroDivisionError: division by"):
        mip.from_dataset(Broken(1, 0))
    named = Items((PHOTO, 1), (PHOTO, 2))
    named.classes = ("cat", "dog")
    with pytest.raises(DataError, match="row 1: 2 is not the number of one of the 2 classes of It"):
        mip.from_dataset(named)


# Tables of words, and a CSV of numbers.


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_T30_a_vocabulary_is_saved_with_the_model(kind, tmp_path):
    frame = pd.DataFrame({"town": ["Ulm", "Bonn"] * 10, "y": [1.0, 2.0, 3.0, 4.0] * 5})
    path = tmp_path / f"towns.{kind}"
    if kind == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    spec = mip.parse("""
branch.place = { kind = "categorical", columns = ["town"], unseen_rate = 0 }
head = { kind = "regression", column = "y" }
train.epochs = 1
""")
    train, _ = mip.split(path, (0.8, 0.2), seed=0)
    mip.run(spec, train, out=tmp_path / "run", context=CPU)
    plan = mip.load(tmp_path / "run" / "model.safetensors").plan
    codes = plan.encode(mip.from_columns({"town": ["Bonn", "Ulm", "Rome"], "y": [0.0] * 3}))
    assert plan.facts["branch"]["place"]["words"] == [["Bonn", "Ulm"]]
    assert codes.inputs["place"].squeeze(1).tolist() == [1, 2, 0]


def test_P01_a_csv_a_feature_and_a_target():
    cars = mip.read(CARS)
    assert len(cars) == 392
    assert cars.columns == ["MPG", "CYL", "ENG", "WGT"]
    weight, mpg = cars.numbers("WGT"), cars.numbers("MPG")
    assert (weight.shape, mpg[:3].tolist()) == ((392,), [18.0, 15.0, 18.0])


def test_P14_held_out_rows_are_scaled_by_the_training_rows():
    train, valid = mip.split(CARS, (0.8, 0.2), seed=0)
    plan = mip.adapt(NUMBERS, train)
    columns = ["WGT", "ENG"]
    numbers = np.stack([train.numbers(name) for name in columns], axis=1)
    facts = plan.facts["branch"]["size"]
    assert facts["mean"] == pytest.approx(numbers.mean(0))
    assert facts["std"] == pytest.approx(numbers.std(0))
    held_out = np.stack([valid.numbers(name) for name in columns], axis=1)
    expected = (held_out - numbers.mean(0)) / numbers.std(0)
    assert plan.encode(valid).inputs["size"].numpy() == pytest.approx(expected, abs=1e-5)
    saved = json.loads(json.dumps(mip.model.plan_to_dict(plan)))
    assert mip.model.plan_from_dict(saved).facts == plan.facts


def test_C01_workers_change_no_row():
    table = mip.read(CARS)
    batches = pipe(table, mip.sample(shuffle=True, seed=0), mip.batch(50))
    rows = [
        Counter(
            row
            for batch in pipe(batches, mip.transform(lambda part: part, workers=workers))
            for row in batch.row_ids.tolist()
        )
        for workers in (0, 2)
    ]
    assert rows[0] == rows[1] == Counter(range(392))
