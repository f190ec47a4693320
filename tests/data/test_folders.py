"""Folders: what a path holds is decided once, and no row of test is trained on unawares."""

from __future__ import annotations

import re

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import mip
from mip.data import includes_file, table_files
from mip.errors import DataError, MipWarning
from mip.prediction import find_photos

FRAME = pd.DataFrame({"x": [1, 2, 3], "y": ["a", "b", "a"]})

WRITE = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    ".parquet": lambda frame, path: frame.to_parquet(path),
    ".xlsx": lambda frame, path: frame.to_excel(path, index=False),
}

# The parts of the rows of files by their names, in the order in which they are read.
PARTS = {
    ("train-00000-of-00001", "test-00000-of-00001"): ["test", "train"],
    ("Train", "validation", "TEST"): ["test", "train", "valid"],
    ("houses_train_1", "houses_train_2", "houses_dev"): ["valid", "train", "train"],
}


def written(folder, *names, frame=FRAME):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".png"):
            Image.new("RGB", (4, 4)).save(folder / name)
        else:
            WRITE[(folder / name).suffix](frame, folder / name)
    return folder


@pytest.mark.parametrize("suffix", WRITE)
@pytest.mark.parametrize("names", PARTS)
def test_the_names_of_files_say_the_parts(names, suffix, tmp_path):
    written(tmp_path, *(f"{name}{suffix}" for name in names))
    want = [part for part in PARTS[names] for _ in range(3)]
    for path in (tmp_path, tmp_path / f"*{suffix}"):
        table = mip.read(path)
        assert table.columns == ["x", "y", "part"]
        assert sorted(table.texts("part")) == sorted(want)
        assert table.numbers("x").tolist() == [1, 2, 3] * len(names)
    assert len(mip.split(tmp_path, column="part")[0]) == want.count("train")


@pytest.mark.parametrize(
    "names",
    [
        ("train-0.parquet", "valid-0.parquet", "valid-1.parquet"),
        ("data/train-0.parquet", "data/valid-0.parquet", "data/valid-1.parquet"),
        ("train/0.parquet", "valid/0.parquet", "valid/1.parquet"),
    ],
)
def test_parts_are_streamed_as_they_are_read(names, tmp_path):
    written(tmp_path, *names)
    shards, table = mip.stream(tmp_path), mip.read(tmp_path)
    assert shards.columns == table.columns == ["x", "y", "part"]
    assert shards.take(range(9)).digest() == table.digest()
    assert next(shards.chunks(["part"])).texts("part").tolist() == ["train"] * 3
    assert [len(part) for part in mip.split(shards, column="part")] == [3, 6, 0]
    before = shards.digest()
    new = names[1].replace("valid", "train").replace("0.", "2.")
    (tmp_path / names[1]).rename(tmp_path / new)
    moved = mip.stream(tmp_path)
    assert sorted(moved.take(range(9)).texts("part")) == ["train"] * 6 + ["valid"] * 3
    assert [name for name, digest in moved.digest().items() if digest != before[name]] == ["part"]


def test_names_that_say_no_part_or_one_alone_add_no_column(tmp_path):
    for k, names in enumerate(
        [("a", "b"), ("train-0", "train-1"), ("test-0", "valid-0"), ("train",)]
    ):
        folder = written(tmp_path / str(k), *(f"{name}.parquet" for name in names))
        assert mip.read(folder).columns == mip.stream(folder).columns == ["x", "y"]


def test_a_file_beside_those_of_the_parts_is_named(tmp_path):
    written(tmp_path, "train.csv", "test.csv", "sample_submission.csv")
    want = (
        "'sample_submission.csv' is beside the files of the parts (test.csv, train.csv): name it "
        f"after a part, move it away, or give one file, such as {tmp_path}/train.csv"
    )
    with pytest.raises(DataError, match=f"^{re.escape(f'{tmp_path}: {want}')}$"):
        mip.read(tmp_path)
    assert len(mip.read(tmp_path / "train.csv")) == 3


def test_a_column_part_must_say_what_the_names_of_the_files_say(tmp_path):
    written(tmp_path, "train.csv", "val.csv")
    written(tmp_path, "val.csv", frame=FRAME.assign(part="Validation"))
    written(tmp_path, "train.csv", frame=FRAME.assign(part="train"))
    assert mip.read(tmp_path).texts("part").tolist() == ["train"] * 3 + ["valid"] * 3
    written(tmp_path, "train.csv", frame=FRAME.assign(part=["wheel", "train", "axle"]))
    with pytest.raises(DataError, match=r"train\.csv: is of the part train, but its column 'part'"):
        mip.read(tmp_path)


@pytest.mark.parametrize("suffix", WRITE)
def test_what_the_files_of_test_lack_is_blank_in_their_rows(suffix, tmp_path):
    long = FRAME.assign(id=2**60 + FRAME.x)
    written(tmp_path, f"train{suffix}", frame=long.astype({"id": "str"} if ".x" in suffix else {}))
    written(tmp_path, f"test{suffix}", frame=FRAME[["x"]])
    with pytest.warns(
        MipWarning, match=f"^{tmp_path.name}: the files of test lack id, y, blank in"
    ):
        table = mip.read(tmp_path)
    assert table.columns == ["x", "y", "id", "part"]
    assert table.texts("y").tolist() == ["", "", "", "a", "b", "a"]
    assert table.texts("id").tolist() == ["", "", "", *map(str, long.id)]
    if suffix == ".parquet":
        with pytest.warns(MipWarning, match="the files of test lack id, y"):
            assert mip.stream(tmp_path).take(range(6)).digest() == table.digest()


def test_a_target_of_nothing_in_test_is_blank_too(tmp_path):
    written(tmp_path, "train.parquet")
    pq.write_table(pa.table({"x": [1], "y": pa.nulls(1)}), tmp_path / "test.parquet")
    for rows in (mip.read(tmp_path), mip.stream(tmp_path).take(range(4))):
        assert rows.texts("y").tolist() == ["", "a", "b", "a"]


def test_another_column_in_test_is_named_with_its_folder(tmp_path):
    rows = pd.DataFrame({"file_name": ["1.png"], "label": ["a"]})
    written(tmp_path, "train/metadata.csv", frame=rows)
    written(tmp_path, "test/metadata.csv", frame=rows.set_axis(["file_name", "Label"], axis=1))
    want = "train/metadata.csv does not match test/metadata.csv: train/metadata.csv lacks Label"
    with pytest.raises(DataError, match=re.escape(f"{want} and test/metadata.csv lacks label")):
        mip.read(tmp_path)


def test_images_of_a_part_without_metadata_are_not_forgotten_silently(tmp_path):
    written(tmp_path, "train/1.png", "test/1.png", "test/2.png", "more/1.png")
    rows = pd.DataFrame({"file_name": ["1.png", None], "label": ["a", "b"]})
    written(tmp_path, "train/metadata.csv", frame=rows)
    with pytest.warns(MipWarning, match="the 2 images in test are left out: there is no metadata"):
        table = mip.read(tmp_path)
    assert (table.columns, table.cells("file_name")) == (
        ["file_name", "label"],
        ["train/1.png", None],
    )


def test_metadata_of_several_images_a_row_has_them_all_in_its_folder(tmp_path):
    rows = pd.DataFrame({"left_file_name": ["1.png"], "right_file_name": ["2.png"]})
    for part in ("train", "test"):
        written(tmp_path, f"{part}/metadata.jsonl", frame=rows)
    assert mip.read(tmp_path)[1]["right_file_name"] == "train/2.png"


def test_metadata_in_folders_of_parts_is_not_streamed(tmp_path):
    rows = pd.DataFrame({"file_name": ["1.png"], "label": ["a"]})
    written(tmp_path, "train/metadata.parquet", "test/metadata.parquet", frame=rows)
    with pytest.raises(DataError, match="metadata in folders of parts cannot be streamed"):
        mip.stream(tmp_path)
    assert len(mip.stream(tmp_path / "train")) == 1


def test_photos_to_predict_are_those_of_a_folder_without_a_table(tmp_path):
    for folder, name in {
        "beside": "metadata.jsonl",
        "parts": "test/metadata.csv",
        "shards": "data/0.parquet",
    }.items():
        written(tmp_path / folder, "1.png")
        written(tmp_path / folder, name, frame=pd.DataFrame({"file_name": ["1.png"]}))
        assert find_photos(tmp_path / folder) == []
        assert len(mip.read(tmp_path / folder)) == 1
    images = written(tmp_path / "classes", "cat/1.png", "dog/2.png", "notes.csv")
    assert [name for name, _ in find_photos(images)] == ["cat/1.png", "dog/2.png"]
    (images / "3.psd").touch()
    with pytest.warns(MipWarning, match=r"2 images; files that are not read: 1 \.psd$"):
        assert len(find_photos(images)) == len(mip.read(images))


def test_a_folder_of_tables_that_are_not_one_names_them(tmp_path):
    written(tmp_path, "a.csv", "more/b.parquet")
    want = f"holds neither .parquet files nor images; give one of its tables: {tmp_path}/a.csv, "
    with pytest.raises(DataError, match=re.escape(f"{want}{tmp_path}/more/b.parquet")):
        mip.read(tmp_path)


@pytest.mark.parametrize(
    ("names", "inside", "outside"),
    [
        (["train.csv", "test.csv"], ["x.csv"], ["x.json", "x/y.csv"]),
        (["data/0.parquet"], ["data/1.parquet", "1.parquet"], ["data/1.csv", "x/1.parquet"]),
        (["train/metadata.csv"], ["metadata.csv", "train/metadata.csv"], ["train/x.csv", "x.png"]),
        (["cat/1.png"], ["cat/2.png", "run"], ["x.csv"]),
    ],
)
def test_a_table_includes_what_it_would_read(names, inside, outside, tmp_path):
    written(tmp_path, *names)
    assert bool(table_files(tmp_path)) == (names != ["cat/1.png"])
    assert all(includes_file(tmp_path, tmp_path / name) for name in inside)
    assert not any(includes_file(tmp_path, tmp_path / name) for name in outside)


@pytest.mark.filterwarnings("always::mip.errors.MipWarning")
def test_every_verb_takes_a_folder_of_images_with_metadata(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [f"{k}.png" for k in range(8)]
    rows = pd.DataFrame({"file_name": names, "size": range(8), "label": [*"abababab"]})
    for part, columns in {"train": rows.columns, "test": rows.columns[:2]}.items():
        folder = written(tmp_path / "pets" / part, *names)
        rows[columns].to_csv(folder / "metadata.csv", sep=";", index=False)
    code, out, err = run("new", "pets")
    assert (code, "label: 8 rows have no target, and will be left out" in out) == (0, True)
    assert "pets: read with sep = ';'" in out
    assert "pets: the files of test lack label, blank in their rows" in err
    assert run("check", "pets.toml")[0] == 0
    assert run("fit", "pets.toml", "--set", "train.epochs=0")[0] == 0
    code, out, _ = run("predict", "runs/pets", "pets/test")
    assert (code, out.count("\n"), out[:10]) == (0, 9, "row,label,")
    assert run("evaluate", "runs/pets", "pets/train")[0] == 0


def test_a_target_is_asked_for_where_images_have_no_label(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "pets", "1.png", "2.png", "labels.csv")
    code, _, err = run("new", "pets")
    want = "say which column to predict: --target COLUMN (known: image); or give a table that is"
    assert (code, err) == (2, f"mip: error: pets: {want} beside the images: pets/labels.csv\n")


def test_two_tables_beside_the_same_images_are_named(tmp_path):
    folder = written(tmp_path / "pets" / "train", "1.png", "2.png")
    rows = pd.DataFrame({"file_name": ["1.png", "2.png"], "size": [1, 2]})
    rows.to_csv(folder / "metadata.csv", index=False)
    assert len(mip.read(tmp_path / "pets")) == 2
    rows.to_json(folder / "metadata.jsonl", orient="records", lines=True)
    want = "train/metadata.csv and train/metadata.jsonl are beside the same images: remove one"
    with pytest.raises(DataError, match=want):
        mip.read(tmp_path / "pets")


@pytest.mark.parametrize(("ours", "other"), [("image", "file_name"), ("file_name", "image")])
def test_photos_of_folders_with_and_without_metadata_are_the_same(tmp_path, ours, other):
    folder = written(tmp_path / "pets", "1.png", "2.png")
    spec = mip.parse(f"""
        branch.photo = {{ kind = "image", columns = ["{ours}"], size = 8, base_channels = 2 }}
        head = {{ kind = "binary", column = "label" }}
    """)
    rows = pd.DataFrame({ours: ["1.png", "2.png"], "label": ["a", "b"]})
    plan = mip.adapt(spec, mip.from_frame(rows, folder))
    predict = mip.predictor(plan, mip.init(mip.build(plan), mip.sgd(0.1)))
    named = mip.from_frame(rows.rename(columns={ours: other}), folder)
    pd.testing.assert_frame_equal(predict(named), predict(mip.from_frame(rows, folder)))
    assert mip.evaluate(predict, named) == mip.evaluate(predict, mip.from_frame(rows, folder))
    with pytest.raises(DataError, match=f"no column '{ours}'"):
        predict(mip.from_frame(rows.rename(columns={ours: "photo"}), folder))
