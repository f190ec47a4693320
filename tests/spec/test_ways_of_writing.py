"""Numbers and dates as people write them around the world come back; doubt is said, and so is the
reason where a column is read as neither.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import mip
from mip.data import ColumnFormat, from_columns, from_frame, parse_dates
from mip.errors import DataError
from mip.spec import make_draft
from mip.spec.drafts.distinct_cells import distinct_cells
from mip.spec.drafts.formats.columns import guess_formats


def guess(cells, column="v", **others):
    table = from_columns({column: cells, **others})
    return table, guess_formats(distinct_cells(table).values())[column]


def read(cells, column="v", **others):
    """Read a column as a draft would have it read."""
    table, found = guess(cells, column, **others)
    return table.with_formats({column: found.form})


def numbers(cells, **others):
    return read(cells, **others).numbers("v").tolist()


def days(cells, column="v"):
    return [str(np.datetime64(int(day), "D")) for day in read(cells, column).timestamps(column)]


def lists(values, **sizes):
    return st.lists(values, min_size=8, max_size=20, unique=True, **sizes)


# Separators.


def grouped(number, mark, lakhs=False):
    digits = f"{number:,}"
    if lakhs and number >= 1000:
        head, last = str(number)[:-3], str(number)[-3:]
        pairs = [head[max(k - 2, 0) : k] for k in range(len(head), 0, -2)]
        digits = ",".join([*reversed(pairs), last])
    return digits.replace(",", mark)


@given(lists(st.integers(0, 10**9)), st.sampled_from(["", "₹", "Rs. "]), st.booleans())
def test_lakhs_and_crores_come_back(whole, unit, has_decimals):
    assume(any(number >= 100_000 for number in whole))
    end = ".50" if has_decimals else ""
    cells = [f"{unit}{grouped(number, ',', lakhs=True)}{end}" for number in whole]
    assert numbers(cells) == [number + 0.5 * has_decimals for number in whole]


@given(
    lists(st.integers(1000, 9_999)),
    lists(st.integers(100, 999)),
    st.sampled_from(",."),
    st.sampled_from([("1,5", "20,25"), ("1,234.5", "20.25"), ("a", "b")]),
)
def test_numbers_below_a_thousand_tell_what_the_mark_of_the_others_is(large, small, mark, others):
    whole = [*large, *small]
    other = [others[k % 2] for k in range(len(whole))]
    cells = [grouped(number, mark) for number in whole]
    assert numbers(cells, other=other) == whole
    [note] = guess(cells, other=other)[1].notes
    assert f"go up to {max(small)}" in note
    assert "for the second set decimal = " in note


@given(lists(st.integers(1, 60_000)), st.sampled_from(",."))
def test_three_decimals_in_each_cell_are_decimals_if_some_are_below_one(thousandths, mark):
    assume(min(thousandths) < 1000)
    cells = [f"{number / 1000:.3f}".replace(".", mark) for number in thousandths]
    assert numbers(cells) == [number / 1000 for number in thousandths]


@pytest.mark.parametrize(
    ("cells", "others", "first"),
    [
        ("{}.125", "1.5", 1.125),  # a point is decimal
        ("{}.125", "1,5", 1125),  # as in other columns
        ("{}.125 €", "1.5", 1125),  # money has no three decimals
        ("{},125", "1.5", 1125),
        ("{},125", "1,5", 1.125),
    ],
)
def test_where_all_cells_have_three_digits_behind_a_mark_the_doubt_is_said(cells, others, first):
    texts = [cells.format(k) for k in range(1, 30)]
    other = [f"{others}{k}" for k in range(1, 30)]
    assert numbers(texts, other=other)[0] == first
    assert "can be" in guess(texts, other=other)[1].notes[0]


def test_currencies_without_decimals_leave_no_doubt():
    _, found = guess([f"{k},336円" for k in range(1, 30)])
    assert found.form.thousands == ","
    assert "can be" not in found.notes[0]


@given(lists(st.integers(1, 10**6)), st.integers(-5, 5))
def test_exponents_behind_a_decimal_comma_come_back(mantissas, exponent):
    cells = [f"{number / 1e5:.5f}E{exponent:+03d}" for number in mantissas]
    assert numbers([cell.replace(".", ",") for cell in cells]) == [float(cell) for cell in cells]


@pytest.mark.parametrize("mark", [" ", "'", "_"])
def test_where_no_number_shows_its_decimals_three_of_them_are_no_number(mark):
    form = read([f"{k}{mark}319 m" for k in range(1, 30)]).formats["v"]
    assert form.decimal == ""
    cells = [f"3{mark}319 m", f"3{mark}319.5 m", "3,25 m", "3.319 m", "3,319 m"]
    assert [form.parse_number(cell) for cell in cells] == [3319, 3319.5, 3.25, None, None]
    assert read([f"3{mark}319,5", f"4{mark}000"]).formats["v"].decimal == ","


@given(
    lists(st.integers(0, 10**9)),
    st.sampled_from(["０１２３４５６７８９", "٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९"]),
    st.sampled_from(["", " €"]),
)
def test_digits_of_other_scripts_come_back(whole, digits, unit):
    cells = [f"{number}".translate(str.maketrans("0123456789", digits)) for number in whole]
    assert numbers([f"{cell}{unit}" for cell in cells]) == whole


# Units.


@given(
    percents=lists(st.integers(2, 100)),
    fractions=lists(st.integers(1, 99)),
    comma=st.booleans(),
)
def test_percents_beside_fractions_are_fractions(percents, fractions, comma):
    cells = [*(f"{number}%" for number in percents), *(f"{n / 100:.2f}" for n in fractions)]
    cells = [cell.replace(".", ",") for cell in cells] if comma else cells
    expected = [*(number / 100 for number in percents), *(number / 100 for number in fractions)]
    assert numbers(cells) == pytest.approx(expected, abs=1e-15)
    _, found = guess(cells)
    assert f"no '%' in {len(fractions)} cells" in found.notes[1]
    assert 'set unit = "%"' in found.notes[1]


def test_percents_beside_numbers_above_one_are_percents():
    assert numbers([*(f"{k}%" for k in range(20)), "30", "0.5"])[-2:] == [30, 0.5]


@pytest.mark.parametrize(
    ("cells", "note"),
    [
        ([*(f"{k} kg" for k in range(20)), "21", "22"], "no 'kg' in 2 cells, such as '21'"),
        ([*(f"{k}k" for k in range(20)), "892"], "no 'k' in 1 cell, '892': read as written"),
    ],
)
def test_cells_without_the_unit_of_others_are_counted(cells, note):
    assert any(note in each for each in guess(cells)[1].notes)


@given(lists(st.integers(0, 999)), st.sampled_from(["l/100 km", "/5", "out of 10", "(of 12)"]))
def test_numbers_before_a_text_with_digits_come_back(tenths, tail):
    cells = [f"{number / 10:.1f} {tail}" for number in tenths]
    assert numbers(cells) == [number / 10 for number in tenths]


def test_ordinals_are_numbers_if_they_are_more_than_the_classes_of_a_few():
    ends = ["th", "st", "nd", "rd", *["th"] * 6]
    assert numbers([f"{k}{ends[k % 10]}" for k in range(21, 41)]) == [*range(21, 41)]
    assert guess(["1st", "2nd", "3rd"] * 9)[1].form == ColumnFormat()


# Several numbers in a cell.


@given(
    rows=st.lists(
        st.tuples(st.integers(1, 500), st.integers(1, 500)), min_size=8, max_size=20, unique=True
    ),
    form=st.sampled_from(["{}.5,{}.25", "{}/{}", "{} x {} cm", "{} kW ({} PS)", "{},5; {},25"]),
)
def test_several_numbers_in_a_cell_come_back_as_a_vector(rows, form):
    cells = [form.format(*pair) for pair in rows]
    assume("/" not in form or any(first > 31 for first, _ in rows))
    table = from_columns({"v": cells, "y": np.arange(len(cells)) / 2})
    spec = mip.parse(make_draft(table, "y", "t.csv").text)
    assert spec.branch["vectors"].columns == ("v",)
    [branch] = spec.branch.values()
    read = table.with_formats(spec.data.columns)
    facts = {"mean": [[0.0, 0.0]], "std": [[1.0, 1.0]]}
    ends = (0.5, 0.25) if "5" in form else (0, 0)
    expected = [[a + ends[0], b + ends[1]] for a, b in rows]
    assert branch.encode(facts, read).tolist() == expected


def test_several_numbers_are_no_target():
    cells = [f"52.{k},13.{k}" for k in range(10, 60)]
    table = from_columns({"x": np.arange(50) % 7, "y": cells})
    with pytest.raises(DataError, match="'y' is a list of numbers in each cell"):
        make_draft(table, "y", "t.csv")


# Durations.


def clock(seconds):
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def in_words(seconds):
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60}h {minutes % 60} min. {seconds} sec"


@given(
    lists(st.integers(0, 10**6)),
    st.sampled_from([clock, in_words, lambda seconds: str(timedelta(seconds=seconds))]),
)
def test_durations_come_back_in_seconds(seconds, write):
    assume(len({write(each) for each in seconds}) > 5)
    assert numbers(["", *map(write, [5, 100_000, *seconds])])[3:] == seconds


def test_times_of_day_are_dates_and_named_as_such():
    _, found = guess([f"{k % 24:02d}:{k % 60:02d}" for k in range(50)])
    assert found.form.date_format == "%H:%M"
    assert "a time of day; if it is a duration, set duration = true" in found.notes[0]


@pytest.mark.parametrize("dtype", ["timedelta64[s]", "timedelta64[ns]", object])
def test_timedeltas_are_seconds(dtype):
    frame = pd.DataFrame({"v": pd.Series([timedelta(minutes=5), None], dtype=dtype)})
    assert from_frame(frame).numbers("v").tolist() == pytest.approx([300, np.nan], nan_ok=True)


# Dates.

MONTHS = {
    "German": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "German, short": "Jan. Feb. März Apr. Mai Jun. Jul. Aug. Sept. Okt. Nov. Dez.",
    "French": "janvier février mars avril mai juin juillet août septembre octobre novembre "
    "décembre",
    "French, short": "janv. févr. mars avr. mai juin juil. août sept. oct. nov. déc.",
    "Spanish": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre "
    "diciembre",
    "Italian": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre "
    "novembre dicembre",
    "Portuguese": "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro "
    "dezembro",
    "Dutch": "januari februari maart april mei juni juli augustus september oktober november "
    "december",
    "Polish": "stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października "
    "listopada grudnia",
}  # fmt: skip

calendar = st.lists(
    st.dates(date(1990, 1, 1), date(2050, 1, 1)), min_size=8, max_size=20, unique=True
)


@given(calendar, st.sampled_from([*MONTHS]), st.sampled_from(["{}. {} {}", "{} {} {}"]))
def test_months_with_names_come_back(dates, language, form):
    names = MONTHS[language].split()
    assert len(names) == 12
    cells = [form.format(day.day, names[day.month - 1], day.year) for day in dates]
    assert days(cells) == [*map(str, dates)]


WAYS = {
    "Japanese": lambda day: f"{day.year}年{day.month}月{day.day}日",
    "Korean": lambda day: f"{day.year}년 {day.month}월 {day.day}일",
    "ordinal": lambda day: f"{day:%B} {day.day}{'st' if day.day % 10 == 1 else 'th'}, {day.year}",
    "JavaScript": lambda day: f"{day:%a %b %d %Y} 00:00:00 GMT+0000 (Coordinated Universal Time)",
    "Spanish": lambda day: f"{day.day} de {MONTHS['Spanish'].split()[day.month - 1]} de {day.year}",
    "some ISO": lambda day: str(day) if day.day % 3 else f"{day:%d.%m.%Y}",
    "week and day": lambda day: f"{day:%G-W%V-%u}",
}  # fmt: skip


@given(calendar, st.sampled_from([*WAYS]))
def test_dates_of_many_kinds_come_back(dates, way):
    assume(any(day.day % 3 == 0 for day in dates) and any(day.day > 12 for day in dates))
    assert days([WAYS[way](day) for day in dates]) == [*map(str, dates)]


FIRSTS = {
    "%m.%Y": lambda day: day.replace(day=1),
    "%m/%Y": lambda day: day.replace(day=1),
    "%m/%y": lambda day: day.replace(day=1),
    "%G-W%V": lambda day: day - timedelta(days=day.weekday()),
    "%YQ%q": lambda day: day.replace(month=3 * ((day.month - 1) // 3) + 1, day=1),
    "Q%q %Y": lambda day: day.replace(month=3 * ((day.month - 1) // 3) + 1, day=1),
}


@given(calendar, st.sampled_from([*FIRSTS]))
def test_months_weeks_and_quarters_are_their_first_day(dates, form):
    cells = [day.strftime(form.replace("%q", str((day.month - 1) // 3 + 1))) for day in dates]
    assume(len({*cells}) > 2 and len({cell[-2:] for cell in cells}) > 1)
    assert days(cells) == [str(FIRSTS[form](day)) for day in dates]
    assert read(cells).formats["v"].date_format == form


@given(calendar)
def test_days_as_numbers_are_dates_where_the_name_of_the_column_says_so(dates):
    six, serial = ([], [])
    for day in dates:
        six.append(f"{day:%y%m%d}")
        serial.append(str((day - date(1899, 12, 30)).days))
    assert days(six, "sale_date") == days(serial, "Kaufdatum") == [*map(str, dates)]
    assert guess(serial, "price")[1].form == ColumnFormat()


def test_iso_dates_are_read_beside_every_form_but_one_that_looks_like_them():
    assert not np.isnat(parse_dates(["2024-03-01", "1/3/2024"], "%d/%m/%Y")).any()
    assert np.isnat(parse_dates(["2024-03-31"], "%Y-%d-%m")).all()


@pytest.mark.parametrize("cells", ["{}.2019", "{}.1995"])
def test_numbers_that_are_no_months_stay_numbers(cells):
    texts = [cells.format(k) for k in range(5, 20)]
    assert numbers(texts) == [*map(float, texts)]


# What cannot be read.

NEITHER = {
    "phone": [f"+49 30 {636961 + 7 * k}" for k in range(40)],
    "address": [f"10.0.{k}.{3 * k % 77}" for k in range(40)],
    "version": [f"1.{k}.{k % 7}" for k in range(40)],
}


@pytest.mark.parametrize("kind", NEITHER)
def test_codes_with_digits_are_not_said_to_have_units(kind):
    _, found = guess(NEITHER[kind])
    assert found.form == ColumnFormat()
    assert found.problem == ""


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (["7.2025", "11.2024", "3.2023", "4.2024", "5.2023", "6.2024", "new", "new"],
         "a date in 6 of 8 cells; row 6 has 'new': write all as dates"),
        ([f"£{k} to £{2 * k}" for k in range(5, 40)], "several numbers in each cell, such as"),
        ([f"{k} {'kg' if k % 2 else 'g'}" for k in range(40)], "give each its factor"),
    ],
)  # fmt: skip
def test_the_reason_for_neither_is_said(cells, reason):
    assert reason in guess(cells)[1].problem


FORMS = {
    "a decimal comma, the unit 'm²' if any": (ColumnFormat(decimal=",", unit="m²"), "53.2 m²"),
    "a decimal point, blanks between thousands": (ColumnFormat(thousands=" "), "1.234,5"),
    "a decimal point, 'k' or 'M' behind it if any": (
        ColumnFormat(multipliers={"k": 1e3, "M": 1e6}), "7 x"),
}  # fmt: skip


@pytest.mark.parametrize("text", FORMS)
def test_an_error_says_how_numbers_are_written(text):
    form, cell = FORMS[text]
    table = from_columns({"v": [cell]}).with_formats({"v": form})
    with pytest.raises(DataError) as caught:
        table.numbers("v")
    expected = f"{cell!r} is not a number with {text}, as [data.columns.v] says"
    assert str(caught.value).endswith(expected)


def test_an_error_says_how_dates_are_written():
    table = from_columns({"v": ["05/27/2023"]})
    with pytest.raises(DataError, match=r"of the form %d/%m/%Y, as \[data.columns.v\] says"):
        table.with_formats({"v": ColumnFormat(date_format="%d/%m/%Y")}).timestamps("v")
    with pytest.raises(DataError, match=r"\[data.columns.v\] names no date_format"):
        table.timestamps("v")


# Targets.


def test_decimal_commas_of_a_target_are_no_sets_of_labels():
    grades = [f"{1 + k % 5},{k % 10}" for k in range(60)]
    table = from_columns({"x": np.arange(60) % 7, "y": grades})
    assert mip.parse(make_draft(table, "y", "t.csv").text).head.kind == "regression"


def test_an_hour_of_a_zone_is_that_of_utc():
    cells = [f"Thu Mar {k:02d} 2024 00:30:00 GMT+0100 (CET)" for k in range(7, 29)]
    [first, *_] = read(cells).timestamps("v")
    assert datetime(1970, 1, 1) + timedelta(days=first) == datetime(2024, 3, 6, 23, 30)
