"""Tables: what is read, what a cell means, how rows are cleaned."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from conftest import NUMBERS, draw_photos, frame_of, spec_of
from hypothesis import given
from hypothesis import strategies as st

import mip
from mip.errors import DataError, MipWarning
from mip.prepare import DROP_WARNING
from mip.table import digest, read_csv

FILES = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "parquet": lambda frame, path: frame.to_parquet(path),
}


def of(**columns):
    return mip.from_frame(pd.DataFrame(columns))


def written(tmp_path, text, name="houses.csv"):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# Reading.


@pytest.mark.parametrize("kind", FILES)
def test_every_format_reads_the_same(kind, tmp_path):
    path = tmp_path / f"houses.{kind}"
    FILES[kind](frame_of(), path)
    found, want = mip.read(path), mip.from_frame(frame_of())
    assert found.columns == want.columns
    assert found.name == f"houses.{kind}"
    assert found.root == tmp_path
    for column in ("town", "front", "back", "sold"):
        assert found.texts(column).tolist() == want.texts(column).tolist()
    for column in ("area", "rooms", "price"):
        np.testing.assert_array_equal(found.numbers(column), want.numbers(column))


@pytest.mark.parametrize("kind", FILES)
def test_every_format_has_the_same_fingerprint(kind, tmp_path):
    path = tmp_path / f"houses.{kind}"
    FILES[kind](frame_of(), path)
    assert digest(mip.read(path)) == digest(mip.from_frame(frame_of()))


def test_text_cells_stay_what_they_are(tmp_path):
    table = mip.read(written(tmp_path, 'code,word\n00123,NA\n1e3,null\n"a,b"," c\nd"\n'))
    assert table.texts("code").tolist() == ["00123", "1e3", "a,b"]
    assert table.texts("word").tolist() == ["NA", "null", "c\nd"]


def test_a_mark_of_byte_order_is_no_part_of_the_first_name(tmp_path):
    assert mip.read(written(tmp_path, b"\xef\xbb\xbfarea,town\n1,Ulm\n")).columns == [
        "area",
        "town",
    ]


def test_rows_keep_their_number_in_the_file():
    table = of(x=range(10)).take([7, 2, 5])
    assert table.rows.tolist() == [7, 2, 5]
    assert table.take([2, 0]).rows.tolist() == [5, 7]


def test_taking_and_numbering_leave_the_table_alone():
    table = of(x=range(4))
    table.rows[:] = 9
    table.take([1])
    assert table.rows.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("houses.csv", "", "houses.csv: not a readable CSV table: No columns to parse from file"),
        ("houses.csv", "area,town\n", "houses.csv: the table has no rows"),
        (
            "houses.csv",
            "area,town,area\n1,Ulm,2\n",
            "houses.csv: not a readable CSV table: the column 'area' stands twice in the header",
        ),
        (
            "houses.csv",
            "area,town\n1,Ulm\n2\n",
            "houses.csv: not a readable CSV table: row 1 has 1 cells, and the header 2",
        ),
        (
            "houses.csv",
            "area,town\n1,Ulm,3\n2,Bonn\n",
            "houses.csv: not a readable CSV table: row 0 has 3 cells, and the header 2",
        ),
        (
            "houses.tsv",
            "area\ttown\n1\tUlm\n2\tBonn\t3\n",
            "houses.tsv: not a readable CSV table: row 1 has 3 cells, and the header 2",
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


def test_a_missing_table_names_the_nearest(tmp_path):
    written(tmp_path, "a\n1\n", "houses.csv"), written(tmp_path, "a\n1\n", "folds.csv")
    want = "house.csv: there is no such table; did you mean 'houses.csv'? (known: folds.csv, houses"
    with pytest.raises(DataError, match=re.escape(want)):
        mip.read(tmp_path / "house.csv")


def test_a_missing_folder_has_no_nearest(tmp_path):
    with pytest.raises(DataError, match=r"houses\.csv: there is no such table$"):
        mip.read(tmp_path / "nowhere" / "houses.csv")


def test_another_ending_is_refused():
    with pytest.raises(
        DataError, match=r"^houses\.xlsx: a table ends in \.csv, \.tsv or \.parquet"
    ):
        mip.read("houses.xlsx")


def test_a_missing_column_names_the_nearest():
    want = "table: there is no column 'aera'; did you mean 'area'? (known: area, town)"
    with pytest.raises(DataError, match=re.escape(want)):
        of(area=[1], town=["Ulm"]).numbers("aera")


def test_a_frame_with_a_column_twice_is_refused():
    frame = pd.DataFrame([[1, 2]], columns=["area", "area"])
    with pytest.raises(DataError, match=r"^table: the column 'area' stands twice$"):
        mip.from_frame(frame)


def test_read_csv_is_read(tmp_path):
    path = written(tmp_path, "a\n1\n")
    assert digest(read_csv(path)) == digest(mip.read(str(path)))


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
    want = f"table row 2, column 'x': {word!r} is not a number"
    with pytest.raises(DataError, match=f"^{re.escape(want)}$"):
        table.numbers("x")


def test_a_date_is_not_a_number():
    with pytest.raises(
        DataError, match=r"row 0, column 'x': '2020-01-01 00:00:00' is not a number"
    ):
        of(x=pd.to_datetime(["2020-01-01"])).numbers("x")


def test_a_category_is_the_same_word_from_every_dtype():
    columns = [["3", "x"], [3, "x"], [3.0, "x"], [" 3 ", "x "], ["3.0", "x"], ["3.00", "x"]]
    assert {tuple(of(a=column).texts("a")) for column in columns} == {("3", "x")}


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


def test_a_fingerprint_tells_which_column_has_changed():
    one, two = frame_of(), frame_of()
    two.loc[5, "rooms"] = 99
    one, two = digest(mip.from_frame(one)), digest(mip.from_frame(two))
    assert [name for name in one if one[name] != two[name]] == ["rooms"]


# Cleaning.


@pytest.fixture(scope="module")
def ten(tmp_path_factory):
    """Ten rows, of which two name photos that are not there and one has no target."""
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
    assert kept.rows.tolist() == [0, 1, 3, 5, 6, 8, 9]
    assert report.rows == 10
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
    assert report.lost == 10 - len(kept) == 3


def test_learned_photos_stay_and_are_counted(ten):
    kept, report = mip.clean(with_photo("learn"), ten.take([0, 1, 2, 3, 5, 6, 7, 8]))
    assert len(kept) == 8
    assert report.filled == {"image file missing in 'front'": [2, 7]}


def test_a_missing_photo_is_an_error_by_default(ten):
    want = "table row 2, column 'front': photos/missing.png is missing (set branch.photo.missing to"
    with pytest.raises(DataError, match=re.escape(want)):
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
