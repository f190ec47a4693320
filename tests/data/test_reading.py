"""Reading: every source gives the same table, and a source that is none says so."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import re
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import frame_of, within
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset

import mip
from mip.data import IMAGE_SUFFIXES, from_arrow, from_columns, from_dataset, is_image, read_idx
from mip.data.formats.image_folder import read_image_folder
from mip.errors import DataError, MipWarning
from mip.images import decoding

FILES = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    "parquet": lambda frame, path: frame.to_parquet(path),
}


def refused(want, call, *arguments, **named):
    with pytest.raises(DataError, match=f"^{re.escape(want)}$"):
        call(*arguments, **named)


def written(tmp_path, text, name="houses.csv"):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# Files.


@pytest.mark.parametrize("kind", FILES)
def test_every_format_reads_the_same(kind, tmp_path):
    path = tmp_path / f"houses.{kind}"
    FILES[kind](frame_of(), path)
    table, expected = mip.read(path), mip.from_frame(frame_of())
    assert table.columns == expected.columns
    assert table.name == f"houses.{kind}"
    assert table.root == tmp_path
    for column in ("town", "front", "back", "sold"):
        assert table.texts(column).tolist() == expected.texts(column).tolist()
    for column in ("area", "rooms", "price"):
        np.testing.assert_array_equal(table.numbers(column), expected.numbers(column))


@pytest.mark.parametrize("kind", FILES)
def test_every_format_has_the_same_fingerprint(kind, tmp_path):
    path = tmp_path / f"houses.{kind}"
    FILES[kind](frame_of(), path)
    assert mip.read(path).digest() == mip.from_frame(frame_of()).digest()


def test_text_cells_stay_what_they_are(tmp_path):
    table = mip.read(written(tmp_path, 'code,word\n00123,NA\n1e3,null\n"a,b"," c\nd"\n'))
    assert table.texts("code").tolist() == ["00123", "1e3", "a,b"]
    assert table.texts("word").tolist() == ["NA", "null", "c\nd"]


def test_a_mark_of_byte_order_is_no_part_of_the_first_name(tmp_path):
    assert mip.read(written(tmp_path, b"\xef\xbb\xbfarea,town\n1,Ulm\n")).columns == [
        "area",
        "town",
    ]


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("houses.csv", "", "houses.csv: not a readable CSV table: the file is empty"),
        ("houses.csv", "area,town\n", "houses.csv: the table has no rows"),
        (
            "houses.csv",
            "area,town,area\n1,Ulm,2\n",
            "houses.csv: not a readable CSV table: duplicate column 'area' in the header; "
            "rename one of them",
        ),
        (
            "houses.csv",
            "area,town\n1,Ulm\n2\n",
            "houses.csv: not a readable CSV table: row 1 has 1 cell, but the header has 2",
        ),
        (
            "houses.csv",
            "area,town\n1,Ulm,3\n2,Bonn\n",
            "houses.csv: not a readable CSV table: row 0 has 3 cells, but the header has 2",
        ),
        (
            "houses.tsv",
            "area\ttown\n1\tUlm\n2\tBonn\t3\n",
            "houses.tsv: not a readable CSV table: row 1 has 3 cells, but the header has 2",
        ),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, name, text, error):
    with pytest.raises(DataError, match=f"^{re.escape(error)}$"):
        mip.read(written(tmp_path, text, name))


@pytest.mark.parametrize("data", [b"area\n\xff\xfe\n", b'area\n"1\n', b"\x00\x01\x02,\x00\n\x00\n"])
def test_bytes_that_are_no_table_are_refused(tmp_path, data):
    with pytest.raises(DataError, match=r"^houses\.csv: not a readable CSV table: "):
        mip.read(written(tmp_path, data))


def test_a_parquet_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"^houses\.parquet: not a readable Parquet table: "):
        mip.read(written(tmp_path, "area\n1\n", "houses.parquet"))


def test_a_parquet_file_with_text_that_is_none_is_refused(tmp_path):
    offsets = pa.array([0, 2], pa.int32()).buffers()[1]
    text = pa.StringArray.from_buffers(1, offsets, pa.py_buffer(b"\xff\xfe"))
    pq.write_table(pa.table({"x": text}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"^x\.parquet: not a readable Parquet table: .*UTF"):
        mip.read(tmp_path / "x.parquet")


def test_a_missing_table_names_the_nearest(tmp_path):
    written(tmp_path, "a\n1\n", "houses.csv"), written(tmp_path, "a\n1\n", "folds.csv")
    want = "house.csv: there is no such table; did you mean 'houses.csv'? (known: folds.csv, houses"
    with pytest.raises(DataError, match=re.escape(want)):
        mip.read(tmp_path / "house.csv")


def test_a_missing_folder_has_no_nearest(tmp_path):
    with pytest.raises(DataError, match=r"houses\.csv: there is no such table$"):
        mip.read(tmp_path / "nowhere" / "houses.csv")


def test_another_ending_is_refused():
    want = "houses.cvs: '.cvs' is not the suffix of a table; did you mean '.csv'? (known: .csv, "
    with pytest.raises(DataError, match=f"^{re.escape(want)}"):
        mip.read("houses.cvs")


@given(st.lists(st.lists(st.text(max_size=4), min_size=2, max_size=2), min_size=1, max_size=5))
def test_a_csv_gives_back_every_text_that_was_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("any") / "any.csv"
    frame = pd.DataFrame(rows, columns=["a", "b"])
    frame.to_csv(path, index=False, quoting=1, lineterminator="\n")
    cells = mip.read(path).frame
    assert cells.to_numpy().tolist() == rows


def outcome(path, form):
    try:
        table = mip.read(path, form)
    except DataError as error:
        return str(error)
    return table.columns, table.frame.to_numpy().tolist(), *map(str, table.frame.dtypes)


@given(
    text=st.text("ab, ;\t\r\n\0\x1c\u00e9\u2028\ufeff", max_size=40).map("a,b\n1,2\n".__add__),
    sep=st.sampled_from(["", ";", "\t"]),
    names=st.sampled_from([(), ("x", "y")]),
)
def test_arrow_divides_a_file_without_quotes_as_python_does(tmp_path_factory, text, sep, names):
    path, form = tmp_path_factory.mktemp("any") / "any.csv", mip.data.CsvFormat(sep, names=names)
    path.write_bytes(text.replace(",", sep or ",").encode())
    by_arrow = outcome(path, form)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)
        assert outcome(path, form) == by_arrow


def test_a_csv_of_several_chunks_is_one_table(tmp_path, monkeypatch):
    monkeypatch.setattr("mip.data.formats.csv_files.CHUNK_ROWS", 4)
    path = written(tmp_path, '"x"\n' + "\n".join(map(str, range(11))))
    assert mip.read(path).numbers("x").tolist() == list(range(11))
    refused(
        "houses.csv: not a readable CSV table: row 9 has 2 cells, but the header has 1",
        mip.read,
        written(tmp_path, '"x"\n' + "1\n" * 9 + "1,2\n"),
    )


# JSON lines.


def test_json_cells_keep_their_types(tmp_path):
    lines = ['{"a": 1, "photos": ["x.png", "y.png"]}', "", '{"b": true, "a": "007"}', '{"a": 1.5}']
    table = mip.read(written(tmp_path, "\n".join(lines), "rows.ndjson"))
    assert table.columns == ["a", "photos", "b"]
    assert table.cells("a") == [1, "007", 1.5]
    assert table.cells("photos") == [["x.png", "y.png"], None, None]
    assert table.cells("b") == [None, True, None]


json_values = st.recursive(
    st.integers() | st.text("ab", min_size=1), lambda each: st.lists(each, max_size=2), max_leaves=3
)
json_objects = st.recursive(
    st.dictionaries(st.sampled_from("abc"), json_values, min_size=1),
    lambda each: st.dictionaries(st.sampled_from("abc"), each | json_values, min_size=1),
    max_leaves=6,
)


@given(rows=st.lists(json_objects, min_size=1, max_size=4))
def test_objects_in_json_are_columns_as_in_pandas(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("json") / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    table, flat = mip.read(path), pd.json_normalize(rows)
    assert {*table.columns} == {*flat.columns}
    for column in table.columns:
        want = [None if isinstance(x, float) else x for x in flat[column].astype(object)]
        assert table.cells(column) == want or flat[column].dtype == float


def test_photos_in_json_are_cells_and_null_objects_are_missing(tmp_path):
    rows = [
        {"photo": {"src": "a.jpg", "alt": "front"}, "hf": {"bytes": None, "path": "a"}},
        {"photos": [{"src": "a.jpg"}], "size": {"w": 3}},
        {"size": None},
    ]
    table = mip.read(written(tmp_path, "\n".join(map(json.dumps, rows)), "rows.jsonl"))
    assert table.columns == ["photo", "hf", "photos", "size.w"]
    assert table[0]["photo"] == rows[0]["photo"]
    assert table[0]["hf"] == rows[0]["hf"]
    assert table[1]["photos"] == rows[1]["photos"]
    assert table.cells("size.w") == [None, 3, None]


def test_a_line_end_within_a_json_text_is_no_line_end(tmp_path):
    path = written(tmp_path, '{"a": "one\u2028two\x85"}\r\n{"a": "three"}', "rows.jsonl")
    assert mip.read(path).cells("a") == ["one\u2028two\x85", "three"]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"{", " line 3: not JSON: Expecting property name enclosed in double quotes: line"),
        (b"[1, 2]", " line 3: not an object: [1, 2]"),
        (b'"x"', ' line 3: not an object: "x"'),
        (
            b'{"a": 1, "a": 2}',
            " line 3: not JSON: duplicate column 'a' in one object; rename one of them",
        ),
        (b'{"a": "\xff"}', " line 3: not JSON: 'utf-8' codec can't decode"),
        (b'{"a": ' + b"[" * 100_000, " line 3: not JSON: "),
        (b'{"a": {"b": 1}, "a.b": 2}', " line 3: duplicate column 'a.b' in one object; rename"),
        (b'{"\\ud800": 1}', ": not a readable table: 'utf-8' codec can't encode"),
    ],
)
def test_a_line_that_is_no_object_is_named(tmp_path, line, error):
    path = written(tmp_path, b'{"a": 1}\n\n' + line + b"\n", "rows.jsonl")
    with pytest.raises(DataError, match=f"^rows.jsonl{re.escape(error)}"):
        mip.read(path)


def test_a_whole_number_past_float64_is_missing(tmp_path):
    path = written(tmp_path, '{"a": 1' + "0" * 400 + '}\n{"a": 2}\n', "rows.jsonl")
    np.testing.assert_array_equal(mip.read(path).numbers("a"), [np.nan, 2])


# Shards.


def shards(folder, kind, sizes=(3, 4, 4)):
    folder.mkdir(exist_ok=True)
    cuts = np.cumsum([0, *sizes])
    for k in range(len(sizes)):
        FILES[kind](frame_of()[cuts[k] : cuts[k + 1]], folder / f"part-{k}.{kind}")
    return folder


@pytest.mark.parametrize("kind", FILES)
def test_shards_are_one_table(kind, tmp_path):
    folder = shards(tmp_path / "data", kind)
    (folder / "other.txt").write_text("")
    table = mip.read(folder / f"part-*.{kind}")
    assert table.digest() == mip.from_frame(frame_of()).digest()
    assert table.row_ids.tolist() == list(range(11))
    assert (table.name, table.root) == (f"part-*.{kind}", folder)


def test_a_folder_of_parquet_shards_is_a_table(tmp_path):
    folder = shards(tmp_path / "data", "parquet")
    for name in ("_SUCCESS", ".hidden.parquet", "_metadata.parquet", "notes.txt"):
        (folder / name).write_bytes(b"")
    table = mip.read(folder)
    assert table.digest() == mip.from_frame(frame_of()).digest()
    assert (table.name, table.root) == ("data", folder)


def test_a_shard_of_another_type_is_named(tmp_path):
    folder = shards(tmp_path / "data", "parquet")
    frame_of().astype({"rooms": str}).to_parquet(folder / "part-1.parquet")
    want = "part-1.parquet does not match part-0.parquet: column 'rooms' is large_string, not int64"
    refused(f"data: {want}", mip.read, folder)


def test_a_shard_of_other_columns_is_named(tmp_path):
    written(tmp_path, "a,b\n1,2\n", "0.csv"), written(tmp_path, "c,a\n1,2\n", "1.csv")
    refused(
        "*.csv: 1.csv does not match 0.csv: 1.csv lacks b and 0.csv lacks c",
        mip.read,
        tmp_path / "*.csv",
    )


@pytest.mark.parametrize("categories", [[], [0], [1]])
def test_shards_may_differ_in_the_order_of_columns_and_the_type_of_numbers(categories, tmp_path):
    kinds = [{"b": "category"} if k in categories else {} for k in range(2)]
    first = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}).astype(kinds[0])
    other = pd.DataFrame({"b": ["z", None], "a": [1.5, None]}).astype(kinds[1])
    first.to_parquet(tmp_path / "0.parquet"), other.to_parquet(tmp_path / "1.parquet")
    (tmp_path / "csv").mkdir()
    written(tmp_path / "csv", "a,b\n1,x\n2,y\n", "0.csv")
    written(tmp_path / "csv", "b,a\nz,1.5\n,\n", "1.csv")
    for table in (mip.read(tmp_path), mip.read(tmp_path / "csv" / "*.csv")):
        assert table.columns == ["a", "b"]
        assert table.texts("b").tolist() == ["x", "y", "z", ""]
        np.testing.assert_equal(table.numbers("a"), [1, 2, 1.5, np.nan])
    shards = mip.stream(tmp_path)
    assert shards.columns == ["a", "b"]
    assert [*shards.take([3, 0, 2]).texts("a")] == ["", "1", "1.5"]
    assert [[*chunk.texts("b")] for chunk in shards.chunks(["b"])] == [["x", "y"], ["z", ""]]


def test_a_broken_shard_is_named(tmp_path):
    folder = shards(tmp_path / "data", "parquet")
    data = (folder / "part-2.parquet").read_bytes()
    (folder / "part-2.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"^part-2\.parquet: not a readable Parquet table: "):
        mip.read(folder)


def test_a_shard_without_rows_adds_none(tmp_path):
    written(tmp_path, "a\n1\n", "0.csv"), written(tmp_path, "a\n", "1.csv")
    assert mip.read(tmp_path / "?.csv").numbers("a").tolist() == [1]


def test_a_file_whose_name_has_a_wildcard_is_that_file(tmp_path):
    written(tmp_path, "a\n1\n", "x[1].csv"), written(tmp_path, "a\n2\n", "x1.csv")
    assert mip.read(tmp_path / "x[1].csv").numbers("a").tolist() == [1]


def test_marks_and_hidden_files_are_read_when_asked_for(tmp_path):
    for name in ("a.csv", "_a.csv", ".a.csv"):
        written(tmp_path, f"x\n{len(name)}\n", name)
    n_rows = {name: len(mip.read(tmp_path / name)) for name in ("*.csv", "_*.csv", ".*.csv")}
    assert n_rows == {"*.csv": 1, "_*.csv": 1, ".*.csv": 1}


def test_a_file_that_may_not_be_opened_is_named(tmp_path, monkeypatch):
    path = written(tmp_path, '{"a": 1}', "a.jsonl")

    def denied(*_):
        raise PermissionError("Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    refused(f"{path}: cannot be read: Permission denied", mip.read, path)


def test_a_pattern_without_a_match_names_the_nearest(tmp_path):
    written(tmp_path, "a\n1\n", "part-0.csv")
    want = "there is no such table; did you mean 'part-0.csv'? (known: part-0.csv)"
    refused(f"{tmp_path}/prt-*.csv: {want}", mip.read, tmp_path / "prt-*.csv")
    with pytest.raises(DataError, match="'' is not the suffix of a table"):
        mip.read(tmp_path / "part-*")


# Folders of images.


def drawn(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(folder / name)
    return folder


def test_a_class_folder_says_the_label(tmp_path):
    drawn(tmp_path, "dog/b.png", "dog/deep/a.JPG", "cat/1.webp", ".hidden/x.png", "cat/.y.png")
    (tmp_path / "dog" / "notes.txt").write_text("")
    (tmp_path / "houses.toml").write_text("")
    (tmp_path / "empty").mkdir()
    table = mip.read(tmp_path)
    assert table.cells("image") == ["cat/1.webp", "dog/b.png", "dog/deep/a.JPG"]
    assert table.cells("label") == ["cat", "dog", "dog"]
    assert table.root == tmp_path
    assert table.digest() == read_image_folder(tmp_path).digest()


def test_an_image_beside_class_folders_has_no_label(tmp_path):
    table = mip.read(drawn(tmp_path, "cat/1.png", "stray.png"))
    assert table.cells("image") == ["cat/1.png", "stray.png"]
    assert table.cells("label") == ["cat", None]


def test_loose_images_are_a_column_of_photos(tmp_path):
    drawn(tmp_path, "b.png", "a.JPG", ".hidden.png")
    (tmp_path / "notes.txt").write_text("")
    table = mip.read(tmp_path)
    assert (table.columns, table.cells("image")) == (["image"], ["a.JPG", "b.png"])


def test_folders_named_after_parts_are_the_parts(tmp_path):
    drawn(tmp_path, "Training/cat/1.png", "val/dog/new/1.png", "TEST/1.png")
    table = mip.read(tmp_path)
    assert table.cells("image") == ["TEST/1.png", "Training/cat/1.png", "val/dog/new/1.png"]
    assert table.cells("label") == [None, "cat", "dog"]
    assert table.cells("part") == ["test", "train", "valid"]
    assert [part.cells("label") for part in mip.split(table, column="part")] == [
        ["cat"],
        ["dog"],
        [None],
    ]
    drawn(tmp_path, "stray.png")
    refused(f"{tmp_path}: stray.png is in none of the folders of the parts", mip.read, tmp_path)


def test_parts_may_have_no_classes(tmp_path):
    assert mip.read(drawn(tmp_path, "train/1.png", "test/1.png")).columns == ["image", "part"]


def test_a_class_may_be_called_train(tmp_path):
    table = mip.read(drawn(tmp_path, "train/1.png", "bus/1.png"))
    assert (table.columns, table.cells("label")) == (["image", "label"], ["bus", "train"])


def test_a_folder_beside_those_of_the_parts_is_refused(tmp_path):
    drawn(tmp_path, "train/cat/1.png", "test/cat/1.png", "__MACOSX/train/cat/1.png")
    assert mip.read(tmp_path).cells("part") == ["test", "train"]
    drawn(tmp_path, "Train2/cat/1.png")
    beside = "'Train2' is beside the folders of the parts (test, train): move it into one of them"
    refused(f"{tmp_path}: {beside}, or away", mip.read, tmp_path)


def test_what_may_be_a_photo_and_is_not_read_is_named(tmp_path):
    drawn(tmp_path / "a", "cat/1.png")
    drawn(tmp_path / "b", "dog/1.png")
    for name in ("cat/2.xyz", "cat/3.XYZ", "cat/4", "cat/.5.xyz", "cat/notes.txt"):
        (tmp_path / "a" / name).touch()
    (tmp_path / "a" / "dog").symlink_to(tmp_path / "b" / "dog")
    text = "1 image; files that are not read: 2 .xyz, 1 no suffix; links to folders are not"
    with pytest.warns(MipWarning, match=f"{re.escape(text)} followed: dog$"):
        assert len(mip.read(tmp_path / "a")) == 1
    (tmp_path / "a/cat/1.png").unlink()
    with pytest.raises(DataError, match=r"nor images; files that are not read: 2 \.xyz"):
        mip.read(tmp_path / "a")


def test_classes_that_are_a_folder_deeper_are_found(tmp_path):
    drawn(tmp_path, "images/cat/1.png", "images/dog/1.png")
    text = f"2 images; all are in 'images': if its folders are the classes, read {tmp_path}/images"
    with pytest.warns(MipWarning, match=f"{re.escape(text)}$"):
        assert mip.read(tmp_path).texts("label").tolist() == ["images", "images"]
    assert mip.read(tmp_path / "images").texts("label").tolist() == ["cat", "dog"]
    drawn(tmp_path, "more/1.png")
    assert len(mip.read(tmp_path)) == 3


def test_two_class_folders_of_one_text_are_refused(tmp_path):
    drawn(tmp_path, "train/1/a.png", "test/1/a.png", "test/2/a.png")
    assert mip.read(tmp_path).texts("label").tolist() == ["1", "2", "1"]
    drawn(tmp_path, "test/1.0/a.png")
    want = "the class folders '1' and '1.0' would be one class, '1': rename one of them"
    refused(f"{tmp_path}: {want}", mip.read, tmp_path)


def test_images_are_labeled_with_their_paths(tmp_path):
    table = mip.read(drawn(tmp_path, "cat/1.png", "dog/1.png"))
    assert table.index.tolist() == table.cells("image") == ["cat/1.png", "dog/1.png"]
    assert table.row_ids.tolist() == [0, 1]


def test_a_folder_without_a_table_is_refused(tmp_path):
    (tmp_path / "cat").mkdir()
    want = f"{tmp_path}: holds neither .parquet files nor images"
    refused(want, mip.read, tmp_path)
    refused(f"{tmp_path}/dog: there is no such folder", read_image_folder, tmp_path / "dog")
    want = "there is no such table; did you mean 'cat'? (known: cat)"
    refused(f"{tmp_path}/cta: {want}", mip.read, tmp_path / "cta")


def test_the_endings_of_images_are_those_of_the_decoders():
    known = {".heic": "HEIF", ".heif": "HEIF", **Image.registered_extensions()}
    assert {known[ending] for ending in IMAGE_SUFFIXES} == set(decoding.FORMATS)


# idx files.


def idx(path, array, code=8):
    head = bytes([0, 0, code, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    data = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.fixture(params=["", ".gz"])
def digits(tmp_path, request):
    pixels = np.arange(5 * 3 * 4).reshape(5, 3, 4)
    images = idx(tmp_path / f"images-ubyte{request.param}", pixels)
    return images, idx(tmp_path / f"labels-ubyte{request.param}", np.array([3, 1, 4, 1, 5]))


def test_idx_files_are_images_and_labels(digits):
    table = read_idx(*digits)
    cells = table.cells("image")
    assert table.columns == ["image", "label"]
    assert (cells[1].dtype, cells[1].shape, cells[4].tolist()[2][3]) == (np.uint8, (3, 4), 59)
    assert table.numbers("label").tolist() == [3, 1, 4, 1, 5]
    assert all(cell.base is cells[0].base for cell in cells)
    assert torch.from_numpy(cells[1]).sum() == sum(range(12, 24))


def test_an_idx_file_that_is_cut_or_foreign_is_named(digits):
    images, labels = digits
    want = f"{labels.name}: not an idx3-ubyte file (magic number 00000801)"
    refused(want, read_idx, labels, labels)
    want = f"{images.name}: 5 images, but {labels.name} has 4 labels"
    refused(want, read_idx, images, idx(labels, np.arange(4)))
    refused(
        f"{labels.name}: not an idx1-ubyte file (magic number 00000901)",
        read_idx,
        images,
        idx(labels, np.arange(5), code=9),
    )


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\0\0\x08\x01\0\0\0\x05abcd", "damaged idx file: 4 bytes of data, expected 5"),
        (b"\0\0\x08\x01\0\0\0\x05abcdef", "damaged idx file: 6 bytes of data, expected 5"),
        (b"\0\0\x08\x01\0\0", "not an idx1-ubyte file (magic number 00000801)"),
        (b"", "not an idx1-ubyte file (magic number none)"),
        (b"\x89PNG\r\n", "not an idx1-ubyte file (magic number 89504e47)"),
    ],
)
def test_labels_of_the_wrong_length_are_named(digits, data, error):
    images, labels = digits
    labels.write_bytes(data)
    refused(f"{labels.name}: {error}", read_idx, images, labels)


@pytest.mark.parametrize("cut", [3, 15, -9, -1])
def test_a_cut_gzip_file_is_named(tmp_path, cut):
    labels = idx(tmp_path / "labels.gz", np.arange(200))
    labels.write_bytes(labels.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"^labels\.gz: damaged gzip file: "):
        read_idx(labels, labels)


def test_a_gzip_file_of_noise_is_named(tmp_path):
    labels = idx(tmp_path / "labels.gz", np.arange(200))
    labels.write_bytes(labels.read_bytes()[:10] + b"\xff" * 40)
    want = "labels.gz: damaged gzip file: Error -3 while decompressing data: invalid block type"
    refused(want, read_idx, labels, labels)


def test_a_missing_idx_file_names_the_nearest(digits):
    images, labels = digits
    wrong = labels.with_name(labels.name.replace("labels", "label"))
    want = f"{wrong}: there is no such idx file; did you mean '{labels.name}'? "
    with pytest.raises(DataError, match=f"^{re.escape(want)}"):
        read_idx(images, wrong)


MNIST = Path(os.environ.get("MIP_MNIST", "mnist"))


@pytest.mark.skipif(not MNIST.is_dir(), reason="MIP_MNIST names no folder with MNIST's files")
def test_the_files_of_mnist_are_read():
    table = read_idx(MNIST / "t10k-images-idx3-ubyte.gz", MNIST / "t10k-labels-idx1-ubyte.gz")
    assert len(table) == 10_000
    assert table.cells("image")[0].shape == (28, 28)
    assert np.bincount(table.numbers("label").astype(int))[:3].tolist() == [980, 1135, 1032]


# What is in memory.


def test_arrow_is_its_frame():
    arrow = pa.Table.from_pandas(frame_of())
    assert from_arrow(arrow).digest() == mip.from_frame(frame_of()).digest()


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.string())])
def test_lists_of_arrow_are_lists(kind, tmp_path):
    cells = [["a.png", "b.png"], [], None]
    arrow = pa.table({"x": pa.array(cells, kind), "y": [b"GIF89a", None, b""]})
    pq.write_table(arrow, tmp_path / "x.parquet")
    for table in (from_arrow(arrow), mip.read(tmp_path / "x.parquet")):
        assert table.cells("x") == cells
        assert table.cells("y") == [b"GIF89a", None, b""]


def test_arrow_that_pandas_cannot_hold_is_refused():
    twice = pa.table([pa.array([[1]]), pa.array([[2]])], names=["x", "x"])
    with pytest.raises(DataError, match=r"^table: an Arrow table that pandas cannot hold: "):
        from_arrow(twice)


PHOTO = Image.new("L", (4, 4), 7)
COLUMNS = {
    "list": ["a", "b", "c"],
    "range": range(3),
    "array": np.arange(3),
    "arrow": pa.array(["a", None, "c"]),
    "tensor": torch.arange(3),
    "series": pd.Series([1, 2, 3], index=[5, 6, 7]),
    "images": np.zeros((3, 4, 4), dtype=np.uint8),
    "pixels": torch.zeros(3, 1, 4, 4),
    "pillow": [PHOTO, PHOTO, None],
    "bytes": [b"GIF89a", b"", None],
    "lists": [["a.png"], [], None],
    "arrays": [np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((2, 2))],
    "tensors": (torch.zeros(2), torch.zeros(3), torch.tensor(1)),
}


def same(a, b):
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(a, np.asarray(b))
    return a is b or bool(a == b)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_keeps_its_cells(name):
    values = getattr(COLUMNS[name], "tolist", lambda: list(COLUMNS[name]))()
    cells = from_columns({name: COLUMNS[name]}).cells(name)
    assert len(cells) == 3
    assert all(same(one, other) for one, other in zip(cells, values, strict=True))


def test_images_in_memory_are_not_copied():
    pixels = np.zeros((3, 4, 4), dtype=np.uint8)
    for source in (pixels, torch.from_numpy(pixels)):
        assert all(
            np.shares_memory(cell, pixels) for cell in from_columns({"x": source}).cells("x")
        )


def test_columns_of_unequal_lengths_are_refused():
    refused(
        "pairs: column 'label' has 2 cells, but column 'image' has 3",
        from_columns,
        {"image": np.zeros((3, 4, 4)), "label": [0, 1]},
        name="pairs",
    )


class Rows(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        return self.items[row]


def test_datasets_of_dicts_and_tuples_are_tables():
    dicts = Rows([{"photo": PHOTO, "y": 1}, {"photo": PHOTO, "y": 2, "more": 3}])
    assert from_dataset(dicts).columns == ["photo", "y"]
    assert from_dataset(dicts, ["y"]).numbers("y").tolist() == [1, 2]
    pairs = TensorDataset(torch.zeros(2, 4, 4), torch.tensor([1, 2]))
    table = from_dataset(pairs, ["photo", "y"])
    assert table.numbers("y").tolist() == [1, 2]
    assert table.cells("photo")[0].shape == (4, 4)


class Stream(IterableDataset):
    def __len__(self):
        return 1

    def __iter__(self):
        yield {}


@pytest.mark.parametrize(
    ("dataset", "columns", "error"),
    [
        (Rows([{"a": 1}, {"b": 1}]), None, " row 1: the item has no 'a' (known: b)"),
        (Rows([(1, 2), (1,)]), ["a", "b"], " row 1: 1 parts, but there are 2 columns"),
        (Rows([(1, 2)]), ["a"], " row 0: 2 parts, but there are 1 columns"),
        (Rows([PHOTO]), ["a"], " row 0: Image is neither a dict nor a tuple"),
        (Stream(), ["a"], ": Stream is not a map-style dataset (with len() and [])"),
    ],
)
def test_items_that_make_no_row_are_named(dataset, columns, error):
    refused(f"table{error}", from_dataset, dataset, columns)


# Whatever the bytes are.


def mutant(data: bytes, draw: random.Random) -> bytes:
    """Change, insert, drop or copy some bytes; marks that mean something to a reader are likely."""
    cells = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 5, 20])):
        begin, size = draw.randrange(len(cells) + 1), draw.choice([0, 1, 1, 2, 40])
        piece = bytes(draw.choice(b'",\n\r{}[]\\\0:\xff\t0') for _ in range(size))
        noise = draw.choice([b"", piece, draw.randbytes(size), bytes(cells[:size])])
        cells[begin : begin + draw.choice([0, size, size])] = noise
    return bytes(cells[: draw.randrange(1, len(cells) + 1)] if draw.random() < 0.1 else cells)


def sound(kind: str) -> bytes:
    file = io.BytesIO()
    FILES[kind](frame_of().assign(odd=['a "b", c\nd', "", *"ünïcode--"]), file)
    return file.getvalue()


def usable(table: mip.Table) -> None:
    """Hold every way to look at a table to its promises."""
    assert table.digest().keys() == set(table.columns)
    for column in table.columns:
        assert len(table.cells(column)) == len(table) > 0
        with suppress(DataError):
            assert len(table.numbers(column)) == len(table)


def counted(path: Path) -> list[int]:
    """The cells of each line of a CSV, the header's first, by a lenient reader."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        return [len(cells) for cells in csv.reader(file) if cells]


def survive(kind: str, path: Path, count: int) -> int:
    """Read mutants; each is a table that can be used, or a named DataError. Count the tables."""
    draw, data, tables = random.Random(kind), sound(kind), 0
    for _ in range(count):
        path.write_bytes(mutant(data, draw))
        try:
            table = mip.read(path)
        except DataError as error:
            assert str(error).startswith(path.name)  # noqa: PT017
            continue
        usable(table)
        tables += 1
        if kind == "csv":
            assert counted(path) == [len(table.columns)] * (1 + len(table))
    return tables


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("count", [150, pytest.param(1000, marks=pytest.mark.slow)])
def test_every_file_is_a_table_or_a_named_error(kind, count, tmp_path):
    tables = within(120, lambda: survive(kind, tmp_path / f"mutant.{kind}", count))
    assert count / 20 < tables < count / 2


def test_a_list_that_parquet_made_an_array_of_is_the_same_list():
    cells = [np.array(["a.png", "b.png"], dtype=object), ["a.png", "b.png"]]
    a, b = (mip.from_frame(pd.DataFrame({"x": [cell]})) for cell in cells)
    assert a.digest() == b.digest()
    assert not is_image(cells[0])
