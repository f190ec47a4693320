"""A column is read as its cells are, one by one, however fast."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mip.data.cells import BLANKS, as_text, parse_number
from mip.data.column_cells import float_texts, holds_text, parse_plain, texts_of
from mip.data.dates import parse_dates

NUMBERS = st.from_regex(
    r"[ ]?[-+]?[0-9]{0,20}\.?[0-9]{0,5}([eE][-+]?[0-9]{1,3})?[ ]?", fullmatch=True
)
WORDS = st.sampled_from(
    ["nan", "-nan", "NaN", "nan(1)", "inf", "-Infinity", "1_0", "0x1p3", "٣", "1" * 400, *BLANKS]
)
DAY, TIME = "[0-9]{4}-[0-9]{2}(-[0-9]{2})?", r"[0-9]{2}(:[0-9]{2}){0,2}(\.[0-9]{1,9})?"
ZONE = "(Z|[+-][0-9]{2}(:?[0-9]{2})?)?"
DATES = st.one_of(
    st.dates().map(str),
    st.datetimes().map(str),
    st.datetimes().map(lambda moment: f"{moment.isoformat()}Z"),
    st.from_regex(f"{DAY}([ T]{TIME}{ZONE})?", fullmatch=True),
)


def column(*cells):
    return pd.Series(cells, dtype="str")


@given(NUMBERS | WORDS)
def test_a_plain_number_is_what_its_text_is(text):
    read = parse_plain(column(text, "0.5", None), "number")
    if read is not None:
        np.testing.assert_array_equal(read, [parse_number(text), 0.5, np.nan])


@pytest.mark.parametrize("text", ["12", "-0.25", "1e-400", "1e400", "007", "NA", "n/a", "?", ""])
def test_what_is_written_plainly_is_read_at_once(text):
    assert parse_plain(column(text), "number") is not None


@given(DATES | WORDS)
def test_a_plain_date_is_what_its_text_is(text):
    read = parse_plain(column(text, ""), "date")
    if read is not None:
        want = parse_dates([text, ""])
        np.testing.assert_array_equal(read.astype(want.dtype), want)
        assert text.lower() in BLANKS or not np.isnat(read[0])


@pytest.mark.parametrize(
    "text", ["2024-02-29", "9999-12-31", "2024-02-29 12:30", "2024-02-29T12:30+02:00", "NA", ""]
)
def test_a_date_that_is_written_plainly_is_read_at_once(text):
    assert parse_plain(column(text), "date") is not None


@given(st.lists(st.text(max_size=4) | st.from_regex(r"\A[ ]?[-+]?[0-9]\.0{0,2}\Z") | st.none()))
@pytest.mark.parametrize("repeats", [1, 3])
def test_the_texts_of_a_column_are_those_of_its_cells(repeats, cells):
    cells = column(*cells * repeats)
    assert holds_text(cells)
    assert texts_of(cells).tolist() == ["" if cell != cell else as_text(cell) for cell in cells]


@pytest.mark.parametrize("dtype", ["string[python]", "string[pyarrow]"])
def test_reading_a_column_leaves_it_alone(dtype):
    cells = pd.Series([" Ulm", "3.0"], dtype=dtype)
    assert texts_of(cells).tolist() == ["Ulm", "3"]
    assert cells.tolist() == [" Ulm", "3.0"]


@given(st.lists(st.floats() | st.integers(-(10**17), 10**17).map(float) | st.floats(-2, 2)))
def test_the_texts_of_floats_are_those_of_each(values):
    want = ["" if value != value else as_text(value) for value in values]
    assert float_texts(np.array(values, dtype=np.float64)).tolist() == want


def test_the_texts_of_floats_are_those_of_each_near_powers_and_at_limits():
    powers = np.concatenate([2.0 ** np.arange(-60, 80), 10.0 ** np.arange(-20.0, 20.0)])
    near = [np.nextafter(powers, limit) for limit in (-np.inf, np.inf)]
    values = np.concatenate([powers, -powers, *near, np.random.default_rng(0).normal(size=3000)])
    assert float_texts(values).tolist() == [*map(as_text, values.tolist())]


def test_the_texts_of_floats_are_the_same_without_arrow(monkeypatch):
    values = np.array([0.5, 3.0, -0.0, 1e-5, 12345.678, 1e300, np.nan])
    want = float_texts(values).tolist()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert float_texts(values).tolist() == want
