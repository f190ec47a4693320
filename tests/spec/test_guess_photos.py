"""Which columns `mip new` takes for photos: each photo of each row is read, or a line says so."""

from __future__ import annotations

import json
import shutil
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import mip
from mip.data import from_columns
from mip.images import photos_of
from mip.spec import make_draft

N = 12


def save(path, level=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 9), (level, 0, 0)).save(path)


def drafted(columns, folder):
    """The spec that a table gets, its rows as it reads them, and the lines that are printed."""
    rows = from_columns({**columns, "y": np.arange(N) % 5 + 0.5}, folder, "t.csv")
    made = make_draft(rows, "y", "t.csv")
    spec = mip.parse(made.text)
    return spec, rows.with_formats(spec.data.columns), made.notes


def image_columns(spec):
    images = [branch for _, branch in mip.branches.leaf_branches(spec.root)]
    return [name for branch in images if branch.kind == "image" for name in branch.columns]


def found_files(rows, column):
    """The files of each row, relative to the table's folder."""
    found = [[*map(mip.images.find_photo, row)] for row in photos_of(rows, column)]
    return [[path.relative_to(rows.root).as_posix() for path in row] for row in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the images img/0.jpg to img/11.jpg."""
    folder = tmp_path_factory.mktemp("photos")
    for k in range(N):
        save(folder / f"img/{k}.jpg")
    return folder


NOTATIONS = {
    "newline": "\n".join,
    "newline of Windows": "\r\n".join,
    "semicolon": "; ".join,
    "bar": "|".join,
    "comma": ", ".join,
    "blanks": "  ".join,
    "tab": "\t".join,
    "json": json.dumps,
    "python": repr,
    "numpy": lambda names: str(np.array(names)),
    "postgres": lambda names: "{" + ",".join(names) + "}",
    "quoted": lambda names: ",".join(f'"{name}"' for name in names),
}


@given(
    rows=st.lists(
        st.lists(st.integers(0, N - 1), min_size=1, max_size=3, unique=True),
        min_size=N,
        max_size=N,
    ),
    how=st.lists(st.sampled_from(list(NOTATIONS)), min_size=1, max_size=N).map(
        lambda x: (x * N)[:N]
    ),
    place=st.sampled_from(["img/", "", "https://a.org/x/", "C:\\x\\"]),
)
def test_every_photo_of_a_cell_is_read_in_whatever_notation(rows, how, place, folder):
    rows[0] = [3, 4]  # one cell at least has several
    written = [[f"{place}{k}.jpg" for k in each] for each in rows]
    cells = [NOTATIONS[name](names) for name, names in zip(how, written, strict=True)]
    _, table, _ = drafted({"photo": cells}, folder)
    assert found_files(table, "photo") == [[f"img/{k}.jpg" for k in each] for each in rows]


@pytest.mark.parametrize("place", ["img/{}", "/home/ann/{}", "C:\\x\\{}", "https://a.org/{}?w=2"])
def test_a_cell_whose_photos_cannot_be_divided_is_counted(place, folder):
    cells = [place.format(f"{k}.jpg") for k in range(N)]
    cells[5] += f" & {cells[6]}"
    spec, table, notes = drafted({"photo": cells}, folder)
    assert f"1 of {N} photos are missing or broken" in notes
    [problem] = spec.branch["photos"].problems(table)
    assert problem.row == 5
    assert problem.reason.endswith("names several photos: its column's sep says what divides them")


@pytest.mark.parametrize("write", [json.dumps, lambda objects: objects])
def test_of_objects_the_value_is_read_that_names_an_image(write, folder):
    cells = [
        write([{"alt": "front.jpg", "src": f"img/{k}.jpg"}, {"alt": "none"}][: 1 + k % 2])
        for k in range(N)
    ]
    spec, table, _ = drafted({"photo": cells}, folder)
    assert spec.data.columns["photo"].key == "src"
    assert [str(row[0]) for row in table.photos("photo")] == [f"img/{k}.jpg" for k in range(N)]


def test_objects_without_a_key_are_refused_with_the_cure(folder):
    [[photo]] = from_columns({"photo": ['[{"src": "img/1.jpg"}]']}, folder).photos("photo")
    with pytest.raises(mip.errors.DataError, match="is an object: its column's key names the"):
        mip.images.find_photo(photo)


# Which columns are those of photos.


def test_small_numbers_that_photos_have_as_names_are_numbers(folder):
    numbers = {"rooms": [k % 6 for k in range(N)], "floor": [k % 9 for k in range(N)]}
    spec, _, _ = drafted({**numbers, "id": range(N)}, folder)
    assert image_columns(spec) == ["id"]
    spec, _, notes = drafted({**numbers, "photos": [k % 3 for k in range(N)]}, folder)
    assert image_columns(spec) == []
    assert any(note.startswith(f"{N} images, such as 'img/0.jpg', are named by") for note in notes)


def test_further_photos_of_a_row_are_said(folder, tmp_path):
    for k in range(N):
        shutil.copy(folder / f"img/{k}.jpg", tmp_path)
        shutil.copy(folder / f"img/{k}.jpg", tmp_path / (f"{k}_2.jpg" if k % 2 else f"x{k}.jpg"))
    _, _, notes = drafted({"id": range(N)}, tmp_path)
    want = f"{N // 2} images are named by no column, such as '1"
    assert any(note.startswith(want) and "_2.jpg' beside '1" in note for note in notes)


@pytest.mark.parametrize("name", ["Bild", "foto", "image", "Hauptfoto", "写真"])
def test_a_column_named_like_photos_wins_over_a_number_of_the_row(name, folder):
    spec, _, _ = drafted({"id": range(N), name: range(N)}, folder)
    assert image_columns(spec) == [name]


def test_the_same_photos_are_read_once(folder):
    columns = {
        "file": [f"img/{k}.jpg" for k in range(N)],
        "url": [f"https://a.org/img/{k}.jpg" for k in range(N)],
        "next": [f"img/{(k + 1) % N}.jpg" for k in range(N)],
    }
    spec, _, notes = drafted(columns, folder)
    assert image_columns(spec) == ["file", "next"]
    assert "left out: url (same photos: those of 'file')" in notes


def test_images_that_a_column_names_are_not_listed(folder):
    _, _, notes = drafted({"photo": [f"img/{k}.jpg" for k in range(N)]}, folder)
    assert not any("named by no column" in note for note in notes)


# Several files for a row.

FILES = {
    "img/{}/*": lambda name, k, i: f"img/{name}/{i}.jpg",
    "{}/left/*": lambda name, k, i: f"{name}/left/{i}.jpg",
    "scans/{}_*.*": lambda name, k, i: f"scans/{name}_{i}.{'png' if k % 2 else 'jpg'}",
    "*-{}.png": lambda name, k, i: f"{'ab'[i]}-{name}.png",
    "scans/{}/front.png": lambda name, k, i: f"scans/{name}/front.png",
    "img/IMG_{}.jpg": lambda name, k, i: f"img/IMG_{name}.jpg",
    "batch*/{}_*.png": lambda name, k, i: f"batch{k % 3}/{name}_{i}.png",
}


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize("prefix", ["P", ""])
def test_a_name_in_the_paths_of_several_images_means_all_of_them(path, prefix, tmp_path):
    ids = [f"{prefix}{10 + k}" for k in range(N)]
    files = [
        sorted({FILES[path](name, k, i) for i in range(1 + k % 2)}) for k, name in enumerate(ids)
    ]
    for file in {file for row in files for file in row}:
        save(tmp_path / file)
    spec, table, _ = drafted({"id": ids, "beds": [k % 3 for k in range(N)]}, tmp_path)
    assert spec.data.columns["id"].path == path
    assert found_files(table, "id") == files


def test_a_photo_that_is_given_by_its_path_needs_no_rule(folder):
    spec, table, _ = drafted({"id": range(N)}, folder)
    plan = mip.adapt(spec, table)
    predict = mip.predictor(plan, mip.init(mip.build(plan), mip.adamw(1e-3)))
    assert predict(folder / "img/3.jpg").value.tolist() == predict(table[3:4]).value.tolist()


# What else a first spec says of photos.


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_written_otherwise(forms, tmp_path):
    names = [f"é{k}.png" for k in range(N)]
    written, stored = ([unicodedata.normalize(form, name) for name in names] for form in forms)
    for name in stored:
        save(tmp_path / "img" / name)
    _, table, notes = drafted({"photo": written}, tmp_path)
    assert "with accents written otherwise (path = " in notes[0]
    assert found_files(table, "photo") == [[f"img/{name}"] for name in stored]


def test_a_row_without_target_and_photo_is_left_out(folder):
    photos = [*(f"img/{k}.jpg" for k in range(9)), ""]
    rows = from_columns({"photo": photos, "y": [*"ababababa", ""]}, folder)
    spec = mip.parse(make_draft(rows, "y", "t.csv").text)
    kept, report = mip.clean(spec, rows)
    assert len(kept) == 9
    assert report.dropped == {"target 'y' missing": [9]}
    assert not report.filled


def draw_scans(folder, dtype, high):
    """Draw photos whose greys are 1, 2, 3 and a part of `high`; return their names."""
    for k in range(N):
        pixels = np.full((9, 9), 1 + k % 3, dtype=dtype)
        pixels[4] = high * (k + 1) // N
        Image.fromarray(pixels).save(folder / f"{k}.tif")
    return [f"{k}.tif" for k in range(N)]


@pytest.mark.parametrize(
    ("dtype", "high", "expected"),
    [
        ("uint16", 449, (0, 511)),
        ("uint16", 60000, None),
        ("int32", 4000, (0, 4095)),
        ("float32", 255, (0, 255)),
        ("uint8", 255, None),
    ],
)
def test_greys_that_use_a_part_of_their_range_are_scaled(dtype, high, expected, tmp_path):
    spec, table, notes = drafted({"scan": draw_scans(tmp_path, dtype, high)}, tmp_path)
    assert spec.branch["photos"].value_range == expected
    said = [note.rpartition(" = ")[2] for note in notes if "value_range" in note]
    assert said == ([f"{[*expected]})"] if expected else [])
    pixels = mip.adapt(spec, table).encode(table).inputs["photos"]["pixels"]
    assert pixels[-1].max() > 190


def test_photos_that_are_nearly_black_are_a_warning(tmp_path):
    scans = draw_scans(tmp_path, "uint16", 449)
    rows = from_columns({"scan": scans, "y": range(N)}, tmp_path, "t.csv")
    text = r"column 'scan': greys of 16 bits that end at 449 are .*; value_range = \[0, 511\] makes"
    with pytest.warns(mip.errors.MipWarning, match=text):
        mip.branches.Image(["scan"]).adapt(rows)
    mip.branches.Image(["scan"], value_range=[0, 511]).adapt(rows)


@pytest.mark.parametrize("value_range", [[0], [5, 5], [0, float("inf")], [1, 2, 3]])
def test_a_range_is_two_numbers(value_range):
    with pytest.raises(mip.errors.FieldError, match="must be two numbers, low and high"):
        mip.branches.Image(["scan"], value_range=value_range)
