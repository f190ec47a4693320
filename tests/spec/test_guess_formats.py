"""What is written as text in any of many forms comes back as the number, date or list it was."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import mip
from mip.data import from_columns
from mip.errors import DataError
from mip.spec import make_draft
from mip.spec.drafts.distinct_cells import distinct_cells
from mip.spec.drafts.formats.columns import guess_formats
from mip.spec.drafts.targets.kinds import guess_separator

SEPARATORS = [("", "."), (",", "."), ("", ","), (".", ","), ("'", "."), ("'", ","), ("\u202f", ",")]
UNITS = [("", ""), ("$", ""), ("€ ", ""), ("", " €"), ("", "%"), ("", " m2"), ("CHF ", "")]
SIGNS = [("-", ""), ("(", ")"), ("", "-"), ("−", "")]
BLANKS = ["", "-", "n/a", "#N/A", "?", "."]
DATE_FORMATS = [
    "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%y", "%Y/%m/%d", "%d %b %Y", "%B %d, %Y", "%d-%b-%y", "%Y%m%d",
    "%d/%m/%Y %H:%M", "%m/%d/%Y %I:%M:%S %p", "%A, %d %B %Y", "%b %d, %Y %I:%M %p",
    "%d.%m.%Y %H:%M:%S",
]  # fmt: skip


def formats_of(table):
    return guess_formats(distinct_cells(table).values())


def read(cells, column="v"):
    """Read a column as a draft would have it read."""
    table = from_columns({column: cells})
    form = formats_of(table)[column].form
    return table.with_formats({column: form}), form


def written(value, separators, unit, sign):
    thousands, decimal = separators
    digits = f"{abs(value):,f}" if thousands else f"{abs(value):f}"
    before, after = sign if value < 0 else ("", "")
    inner = "-" if after == "-" else ""
    number = digits.translate({ord(","): thousands, ord("."): decimal}) + inner
    return f"{before}{unit[0]}{number}{unit[1]}{after.replace('-', '')}"


@given(
    cents=st.lists(st.integers(-(10**9), 10**9), min_size=8, max_size=30, unique=True),
    separators=st.sampled_from(SEPARATORS),
    unit=st.sampled_from(UNITS),
    sign=st.sampled_from(SIGNS),
    blank=st.sampled_from(BLANKS),
)
@example([*range(-5, 3)], ("", "."), ("", " €"), ("(", ")"), "")  # most are negative
def test_numbers_come_back(cents, separators, unit, sign, blank):
    numbers = [Decimal(each) / 100 for each in cents]
    texts = [written(n.quantize(Decimal("0.01")), separators, unit, sign) for n in numbers]
    table, form = read([*texts, blank])
    values = table.numbers("v")
    assert values[:-1].tolist() == [float(n) for n in numbers]
    assert np.isnan(values[-1])
    assert form.na_values == ()


MULTIPLIERS = {"": 0, "k": 3, "K": 3, "thousand": 3, "m": 6, "M": 6, "Mio.": 6, "bn": 9, "B": 9}


@given(
    cells=st.lists(
        st.tuples(st.integers(-(10**6), 10**6), st.sampled_from([*MULTIPLIERS])),
        min_size=8,
        max_size=30,
        unique=True,
    ),
    decimal=st.sampled_from(".,"),
    unit=st.sampled_from(UNITS),
    sign=st.sampled_from(SIGNS[:2]),
    blank=st.sampled_from(BLANKS),
    space=st.sampled_from(["", " "]),
)
def test_multiplied_numbers_come_back(cells, decimal, unit, sign, blank, space):
    assume(not {name for _, name in cells} <= {"", "m"})
    texts = [
        written(
            Decimal(tenths) / 10,
            ("", decimal),
            (unit[0], space * bool(name) + name + unit[1]),
            sign,
        )
        for tenths, name in cells
    ]
    table, form = read([*texts, blank])
    values = table.numbers("v")
    expected = [float(Decimal(tenths).scaleb(MULTIPLIERS[name] - 1)) for tenths, name in cells]
    assert values[:-1].tolist() == expected
    assert np.isnan(values[-1])
    assert form.na_values == ()
    assert {*form.multipliers} == {name for _, name in cells if name}


@pytest.mark.parametrize(
    ("cells", "unit"),
    [
        ([f"{k}m" for k in range(40)], "m"),
        ([f"{k} kg" for k in range(40)], "kg"),
        ([f"{k} M2" for k in range(40)], "M2"),
    ],
)
def test_a_letter_that_may_be_a_unit_is_one(cells, unit):
    form = read(cells)[1]
    assert (form.unit, form.multipliers) == (unit, {})


def test_letters_with_a_rival_are_no_multipliers():
    assert read(["S", "M", "L", "XL"] * 9)[1] == mip.data.ColumnFormat()
    assert read([f"{k}{'MF'[k % 2]}" for k in range(20, 60)])[1] == mip.data.ColumnFormat()


@given(
    days=st.lists(
        st.datetimes(datetime(1970, 1, 1), datetime(2060, 1, 1)), min_size=8, max_size=30
    ),
    date_format=st.sampled_from(DATE_FORMATS),
    missing=st.sampled_from(["", "n/a", "00/00/0000"]),
)
def test_dates_come_back(days, date_format, missing):
    assume(any(day.day > 12 for day in days) and len(set(days)) > 5)
    texts = [day.strftime(date_format) for day in days]
    expected = [datetime.strptime(text, date_format) for text in texts]
    assume(len(set(texts)) > 5)
    table, _ = read(texts if date_format == "%Y%m%d" else [*texts, missing])
    seconds = table.timestamps("v")[: len(days)] * 86400
    epoch = datetime(1970, 1, 1)
    assert [epoch + timedelta(seconds=round(each)) for each in seconds] == expected


@given(
    seconds=st.lists(st.integers(10**9, 2 * 10**9), min_size=6, max_size=20, unique=True),
    factor=st.sampled_from([1, 1000]),
)
def test_seconds_and_milliseconds_come_back(seconds, factor):
    table, form = read([str(each * factor) for each in seconds], "created_at")
    assert form.date_format == {1: "s", 1000: "ms"}[factor]
    assert (table.timestamps("created_at") * 86400).round().astype(int).tolist() == seconds


@given(
    sets=st.lists(st.sets(st.sampled_from(["sea", "pool", "new", "old town"])), min_size=40),
    sep=st.sampled_from([";", ",", "|", ", "]),
    brackets=st.booleans(),
)
def test_sets_of_labels_come_back(sets, sep, brackets):
    texts = [str(sorted(each)) if brackets else sep.join(sorted(each)) for each in sets]
    counts = {text: texts.count(text) for text in texts if text}
    found = guess_separator(counts)
    assume(found)
    form = mip.data.ColumnFormat(sep=found)
    for text, labels in zip(texts, sets, strict=True):
        value = form.values(text) if text else None
        assert set([value] if isinstance(value, str) else value or []) == labels


def test_the_separator_of_labels_is_found():
    texts = ["pool,sea", "sea", "pool,new", "new,sea", "old", "old,pool"] * 3
    assert guess_separator({text: texts.count(text) for text in texts}) == ","
    assert guess_separator({"Fish, fresh": 5, "Meat, frozen": 5}) == ""
    assert guess_separator({"oak": 5, "ash": 5}) == ""


# Dates that can be read in two ways.


def ambiguous(sep="/"):
    sold = [f"{1 + k % 12:02d}{sep}{1 + k % 7:02d}{sep}2020" for k in range(40)]
    return from_columns({"sold": sold, "y": np.arange(40) % 11 / 3})


def test_a_date_that_can_be_read_in_two_ways_is_an_error_that_shows_both():
    with pytest.raises(DataError) as caught:
        make_draft(ambiguous(), "y", "t.csv")
    for part in ("column 'sold'", "2020-01-08", "2020-08-01", "--day-first", "--month-first"):
        assert part in str(caught.value)


@pytest.mark.parametrize(("day_first", "form"), [(True, "%d/%m/%Y"), (False, "%m/%d/%Y")])
def test_an_option_decides_which_number_is_the_day(day_first, form):
    made = make_draft(ambiguous(), "y", "t.csv", day_first=day_first)
    assert mip.parse(made.text).data.columns["sold"].date_format == form


def test_a_date_with_points_has_the_day_first():
    text = make_draft(ambiguous("."), "y", "t.csv").text
    assert mip.parse(text).data.columns["sold"].date_format == "%d.%m.%Y"


# Numbers that can be read in two ways.


def test_three_digits_after_each_comma_are_said_with_both_readings():
    table = from_columns({"area": [f"{k},{k + 100}" for k in range(1, 30)]})
    found = formats_of(table)["area"]
    assert found.form.thousands == ","
    assert "can be 1101 (thousands" in found.notes[0]
    assert "or 1.101 (decimal" in found.notes[0]


def test_other_columns_decide_whether_the_comma_is_decimal():
    area = [f"{k},{k + 100}" for k in range(1, 30)]
    table = from_columns({"area": area, "price": [f"{k},5" for k in range(1, 30)]})
    assert formats_of(table)["area"].form.decimal == ","


# Cells that are no numbers.


def test_a_few_odd_cells_are_missing_and_said_with_their_row():
    cells = [*(f"{k}.5" for k in range(40)), "Total"]
    found = formats_of(from_columns({"sales": cells}))["sales"]
    assert found.form.na_values == ("Total",)
    assert found.notes == ("'Total' in 1 row (row 40) is no number: missing",)


def test_an_odd_cell_is_no_example_of_the_numbers():
    cells = [*(f"${k}.50" for k in range(40)), "Not for sale"]
    found = formats_of(from_columns({"sales": cells}))["sales"]
    assert found.notes[0] == "'$10.50' is 10.5 (unit = \"$\")"


def test_a_cell_that_contradicts_all_others_is_named():
    cells = [*(f"{k},5" for k in range(40)), "12.0"]
    with pytest.raises(DataError, match=r"row 40, column 'x': '12.0' is not a number"):
        formats_of(from_columns({"x": cells}))


def test_many_odd_cells_are_said_with_row_and_cure_before_what_nobody_misses():
    cells = [f"{k}" if k % 4 else f"about {k}" for k in range(40)]
    constant = {f"c{k}": [1] * 40 for k in range(20)}
    table = from_columns({**constant, "size": cells, "x": np.arange(40) % 7, "y": [*"ab"] * 20})
    said = [line for line in make_draft(table, "y", "t.csv").notes if line.startswith("left out")]
    assert said[0] == (
        "left out: size (nearly numbers: 40 different values: a number in 30 of 40 cells; row 0 "
        "has 'about 0': write all as numbers, or make them missing (data.columns.size.na_values))"
    )


def test_a_target_of_many_odd_cells_is_refused_with_the_first():
    cells = [f"x{k}" if k % 7 == 3 else f"{k}.5" for k in range(60)]
    table = from_columns({"y": cells, "x": np.arange(60) % 7}, name="t.csv")
    text = "t.csv: column 'y' is a number in 51 of 60 cells; row 3 has 'x3': write all as numbers"
    with pytest.raises(DataError, match=text):
        make_draft(table, "y", "t.csv")


def test_different_units_are_named():
    cells = [f"{k} kg" if k % 2 else f"{k} lb" for k in range(40)]
    problem = formats_of(from_columns({"weight": cells}))["weight"].problem
    assert "'lb' in 20 and 'kg' in 20 cells" in problem


@pytest.mark.parametrize(
    ("others", "value"),
    [
        (range(1950, 2020), -999),
        (range(1950, 2020), 9999),
        (range(1950, 2020), 0),
        (range(18, 80), 999),
        (range(10), -1),
    ],
)
def test_values_that_stand_apart_are_proposed_as_missing(others, value):
    cells = [*others, *[value] * 8]
    found = formats_of(from_columns({"built": cells}))["built"]
    assert found.proposed == (str(value),)
    assert not found.form.na_values
    few = formats_of(from_columns({"built": [*others, value]}))["built"]
    assert few.proposed == ()


def test_zeros_of_a_normal_column_are_not_proposed():
    assert formats_of(from_columns({"n": [*range(12)] * 4}))["n"].proposed == ()


def test_a_date_of_zeros_is_missing():
    days = [str(date(2020, 1, 1) + timedelta(days=k)) for k in range(30)]
    table, form = read([*days, *["0000-00-00"] * 5])
    assert form.na_values == ("0000-00-00",)
    assert np.isnan(table.timestamps("v")).sum() == 5


# Names and rows.


def test_numbers_of_eighteen_digits_and_zeros_in_front_are_no_amounts():
    from mip.spec.drafts.roles import guess

    rows = from_columns(
        {
            "key": [str(10**17 + k * k * 10**9) for k in range(40)],
            "zip": [f"{k % 9:05d}" for k in range(40)],
            "word": [f"w{k}" for k in range(40)],
        }
    )
    assert [guess(cells).role for cells in distinct_cells(rows).values()] == [
        "row name",
        "category",
        "names",
    ]


def test_rows_that_repeat_the_header_are_left_out():
    table = from_columns(
        {"x": [*(f"{k % 7}.5" for k in range(30)), "x"], "y": [*"ab"] * 15 + ["y"]}
    )
    spec = mip.parse(make_draft(table, "y", "t.csv").text)
    assert len(mip.clean(spec, table)[0]) == 30


def test_a_row_of_sums_is_pointed_out():
    table = from_columns({"town": ["Ulm", "Bonn"] * 9 + ["Total"], "y": np.arange(19) / 2})
    assert "row 18 has 'Total' in column 'town'" in make_draft(table, "y", "t.csv").notes[-1]


@pytest.mark.parametrize(("code", "is_pointed_out"), [("-999", True), ("9999", True), ("9", False)])
def test_a_code_beside_few_numbers_is_pointed_out_if_it_is_all_nines(code, is_pointed_out):
    rows = mip.from_columns({"beds": ["1", "2", "3", code] * 10, "y": range(40)})
    notes = "\n".join(make_draft(rows, "y", "t.csv").notes)
    assert (f'set na_values = ["{code}"]' in notes) is is_pointed_out
