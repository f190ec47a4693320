"""Tables: what a cell means, how rows are taken and cleaned."""

from __future__ import annotations

import copy
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import NUMBERS, draw_photos, frame_of, spec_of
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import mip
from mip.data import ColumnFormat
from mip.errors import DataError, MipWarning
from mip.model.cleaning import DROP_WARNING


def of(**columns):
    return mip.from_frame(pd.DataFrame(columns))


# Rows.


def test_rows_keep_their_number_in_the_file():
    table = of(x=range(10)).take([7, 2, 5])
    assert table.row_ids.tolist() == [7, 2, 5]
    assert table.take([2, 0]).row_ids.tolist() == [5, 7]


def test_taking_and_numbering_leave_the_table_alone():
    table = of(x=range(4))
    table.take([0, 1]).row_ids[:] = 9
    table.take([1])
    assert table.row_ids.tolist() == [0, 1, 2, 3]


def test_a_missing_column_names_the_nearest():
    expected = "table: there is no column 'aera'; did you mean 'area'? (known: area, town)"
    with pytest.raises(DataError, match=re.escape(expected)):
        of(area=[1], town=["Ulm"]).numbers("aera")


def test_a_frame_with_a_column_twice_is_refused():
    frame = pd.DataFrame([[1, 2]], columns=["area", "area"])
    with pytest.raises(DataError, match=r"^table: duplicate column 'area'$"):
        mip.from_frame(frame)


# Cells.


def test_blanks_are_missing_numbers_in_every_spelling():
    blanks = ["", " ", "NA", "n/a", "NaN", "null", "None", "?", "-", "<NA>", None, float("nan")]
    assert np.isnan(of(x=blanks).numbers("x")).all()


def test_numbers_past_float32_are_missing():
    texts = of(x=["1e38", "1e39", "-1e39", "inf", "-inf", "1e400"]).numbers("x")
    assert texts.tolist()[0] == 1e38
    assert np.isnan(texts[1:]).all()
    assert np.isnan(of(x=[np.inf, 1e300]).numbers("x")).all()


@pytest.mark.parametrize("values", [[1, 2], [1.0, 2.0], ["1", " 2 "], ["1.0", "2e0"], [True, "2"]])
def test_numbers_read_the_same_from_every_dtype(values):
    assert of(x=values).numbers("x").tolist() == [1.0, 2.0]


def test_a_nullable_column_is_read():
    table = of(x=pd.array([1, None], dtype="Int64"))
    np.testing.assert_array_equal(table.numbers("x"), [1.0, np.nan])
    assert table.texts("x").tolist() == ["1", ""]


@pytest.mark.parametrize("word", ["big", "1,000", "1_000", "0x10", "12 m"])
def test_a_word_among_numbers_is_named_with_row_and_column(word):
    table = of(x=["1", "2", word]).take([2, 0])
    expected = f"table row 2, column 'x': {word!r} is not a number"
    with pytest.raises(DataError, match=f"^{re.escape(expected)}$"):
        table.numbers("x")


def test_a_date_is_not_a_number():
    with pytest.raises(
        DataError, match=r"row 0, column 'x': '2020-01-01 00:00:00' is not a number"
    ):
        of(x=pd.to_datetime(["2020-01-01"])).numbers("x")


def test_a_category_is_the_same_word_from_every_dtype():
    columns = [["3", "x"], [3, "x"], [3.0, "x"], [" 3 ", "x "], ["3.0", "x"], ["3.00", "x"]]
    assert {tuple(of(a=column).texts("a")) for column in columns} == {("3", "x")}


@given(st.lists(st.sampled_from(["oak", "elm", "yew", "?", "", "7", 7.0, None])))
def test_merged_words_read_as_if_they_were_written_so(cells):
    form = ColumnFormat(na_values=["?"], merge={"other": ["yew", "7"], "elm": ["elm"]})
    read = of(a=pd.Series(cells, dtype=object)).with_formats({"a": form})
    words = {"yew": "other", "7": "other", 7.0: "other", "?": ""}
    meant = of(a=pd.Series([words.get(cell, cell) for cell in cells], dtype=object))
    assert read.texts("a").tolist() == meant.texts("a").tolist()
    assert mip.data.value_counts(read, "a") == mip.data.value_counts(meant, "a")


def test_leading_zeros_and_fractions_stay():
    assert of(a=["007", "1.50", "-0"]).texts("a").tolist() == ["007", "1.50", "-0"]


@given(st.lists(st.one_of(st.integers(-(10**15), 10**15), st.none()), min_size=1))
def test_whole_numbers_have_one_spelling(values):
    spellings = [values, [None if v is None else float(v) for v in values]]
    spellings.append([None if v is None else str(v) for v in values])
    read = {tuple(of(a=pd.Series(cells, dtype=object)).texts("a")) for cells in spellings}
    assert len(read) == 1


@given(st.lists(st.one_of(st.text(max_size=3), st.none(), st.floats(), st.booleans()), min_size=1))
def test_texts_are_total_and_row_by_row(cells):
    table = of(a=pd.Series(cells, dtype=object))
    words = table.texts("a")
    assert all(isinstance(word, str) for word in words)
    for k in range(len(cells)):
        assert table.take([k]).texts("a").tolist() == [words[k]]


PHOTO = Image.new("P", (4, 4), 7)
PIXELS = np.zeros((4, 4), dtype=np.uint8)
IMAGES = [b"GIF89a", PHOTO, PIXELS, torch.zeros(3, 4, 4), bytearray(b"x"), [b"x", "a.png"]]


def objects(*cells):
    column = pd.Series([None] * len(cells), dtype=object)
    for k, cell in enumerate(cells):
        column.iat[k] = cell
    return of(x=column)


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: type(image).__name__)
def test_images_within_the_table_are_no_words(image):
    table = objects("a.png", image, None)
    for read, wanted in ((table.texts, "text"), (table.numbers, "a number")):
        expected = f"table row 1, column 'x': an image ({type(image).__name__}) is not {wanted}"
        with pytest.raises(DataError, match=f"^{re.escape(expected)}$"):
            read("x")


def test_missing_cells_are_none_and_the_others_untouched():
    cells = [*IMAGES, ["a.png"], [], "a.png", 0, False]
    table = objects(*cells, None, float("nan"), pd.NaT, pd.NA, "")
    actual = table.cells("x")
    assert all(a is b for a, b in zip(actual, cells, strict=False))
    assert actual[len(cells) :] == [None] * 5


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ([1, 2], [1, 2]),
        ([1.5, None], [1.5, None]),
        (["a", ""], ["a", None]),
        (pd.array([1, None], dtype="Int64"), [1, None]),
        (pd.to_datetime(["2020-01-01", None]), [pd.Timestamp("2020-01-01"), None]),
        ([True, False], [True, False]),
    ],
)
def test_cells_of_every_dtype(column, cells):
    assert of(x=column).cells("x") == cells


def test_a_list_is_no_number():
    with pytest.raises(
        DataError, match=r"^table row 1, column 'x': \"\['a.png'\]\" is not a number$"
    ):
        objects("1", ["a.png"]).numbers("x")


def shown(mode, palette=None):
    image = Image.new(mode, (4, 4), 7)
    if palette:
        image.putpalette(palette)
    return image


DIFFERENT = [
    "a.png",
    "['a.png']",
    b"a.png",
    ["a.png"],
    ["a.png", "b.png"],
    [["a.png"], "b.png"],
    ["a.png", ["b.png"]],
    [],
    "",
    PIXELS,
    PIXELS.reshape(2, 8),
    PIXELS.astype(np.int8),
    PIXELS + 1,
    [PIXELS],
    shown("L"),
    shown("P", [1, 2, 3]),
    shown("P", [1, 2, 4]),
]


def test_a_fingerprint_tells_images_and_lists_apart():
    for more in ([], [b"x"]):
        prints = [objects(cell, *more).digest()["x"] for cell in DIFFERENT]
        again = [objects(copy.deepcopy(cell), *more).digest()["x"] for cell in DIFFERENT]
        assert prints == again
        assert len(set(prints)) == len(DIFFERENT)


def test_a_fingerprint_of_an_array_is_that_of_its_contents():
    turned = np.arange(6, dtype=np.uint8).reshape(2, 3)
    same = [turned, turned.T.copy().T, torch.from_numpy(turned), np.flip(np.flip(turned))]
    assert len({objects(cell).digest()["x"] for cell in same}) == 1


def test_a_fingerprint_tells_which_column_has_changed():
    before, after = frame_of(), frame_of()
    after.loc[5, "rooms"] = 99
    before, after = mip.from_frame(before).digest(), mip.from_frame(after).digest()
    assert [name for name in before if before[name] != after[name]] == ["rooms"]


# Cleaning.


@pytest.fixture(scope="module")
def ten(tmp_path_factory):
    """Ten rows, of which two name missing photos and one has no target."""
    folder = tmp_path_factory.mktemp("ten")
    draw_photos(folder, 10)
    frame = frame_of(10).assign(back="photos/0.jpg")
    frame.loc[[2, 7], "front"] = ["photos/missing.png", "photos/gone.png"]
    frame.loc[4, "price"] = float("nan")
    return mip.from_frame(frame, root=folder)


def with_photo(missing):
    lines = ["[branch.photo]", 'kind = "image"', 'columns = ["front"]', f'missing = "{missing}"']
    return spec_of("regression", "\n".join([*lines, "size = 8", ""]))


def test_rows_that_cannot_be_used_go_and_are_reported(ten):
    with pytest.warns(
        MipWarning, match="10 rows, 7 used; dropped, image file missing in 'front': 2 rows"
    ):
        kept, report = mip.clean(with_photo("drop"), ten)
    assert kept.row_ids.tolist() == [0, 1, 3, 5, 6, 8, 9]
    assert report.n_rows == 10
    assert report.dropped == {
        "image file missing in 'front'": [2, 7],
        "target 'price' missing": [4],
    }
    assert report.filled == {}


def test_whole_rows_stay_without_a_word(table):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept, report = mip.clean(with_photo("drop"), table)
    assert len(kept) == len(table)
    assert report.dropped == {}
    assert str(report) == f"{len(table)} rows, {len(table)} used"


def test_few_dropped_rows_are_no_warning():
    frame = frame_of(20)
    frame.loc[3, "price"] = float("nan")
    assert len(frame) * DROP_WARNING > 1
    kept, report = mip.clean(spec_of("regression", NUMBERS), mip.from_frame(frame))
    assert len(kept) == 19
    assert report.dropped == {"target 'price' missing": [3]}


def test_a_row_with_two_reasons_is_counted_once(ten):
    frame = ten.frame.copy()
    frame.loc[2, "price"] = float("nan")
    with pytest.warns(MipWarning):
        kept, report = mip.clean(with_photo("drop"), mip.from_frame(frame, ten.root))
    assert report.n_dropped == 10 - len(kept) == 3


def test_learned_photos_stay_and_are_counted(ten):
    kept, report = mip.clean(with_photo("learn"), ten.take([0, 1, 2, 3, 5, 6, 7, 8]))
    assert len(kept) == 8
    assert report.filled == {"image file missing in 'front'": [2, 7]}


def test_a_missing_photo_is_an_error_by_default(ten):
    expected = (
        "table row 2, column 'front': photos/missing.png is missing (leave the row out, or "
        "train with branch.photo.missing ="
    )
    with pytest.raises(DataError, match=re.escape(expected)):
        mip.clean(with_photo("error"), ten)


def test_a_broken_photo_is_told_from_a_missing_one(ten):
    broken = ten.root / "photos" / "missing-corner.png"
    broken.write_bytes(b"no image")
    table = mip.from_frame(ten.frame.assign(front="photos/1.png"), ten.root)
    table.frame.loc[0, "front"] = "photos/missing-corner.png"
    with pytest.warns(MipWarning):
        _, report = mip.clean(with_photo("drop"), table)
    assert report.dropped["image broken in 'front'"] == [0]


def test_a_missing_target_may_be_an_error():
    frame = frame_of(5)
    frame.loc[3, "price"] = float("nan")
    spec = mip.parse(NUMBERS + '[head]\nkind = "regression"\ncolumn = "price"\nmissing = "error"\n')
    with pytest.raises(DataError, match=r"^table row 3, column 'price': the target is missing$"):
        mip.clean(spec, mip.from_frame(frame))


def test_a_table_without_a_usable_row_is_refused():
    frame = frame_of(3).assign(price=float("nan"))
    with pytest.raises(DataError, match=r"^table: no row is left "):
        mip.clean(spec_of("regression", NUMBERS), mip.from_frame(frame))
