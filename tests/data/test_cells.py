"""Any cell in any column is a value, a missing one, or an error that names it, and costs no other
row its prediction.
"""

from __future__ import annotations

import datetime as dt
import io
import re
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import mip
from mip.data import DATE_YEARS, from_arrow, parse_number
from mip.errors import DataError, MipError
from mip.images import decode
from mip.model import conversions
from mip.prediction import prediction_warnings
from mip.spec import draft

BRANCHES = """
branch.size = { kind = "continuous", columns = ["size"] }
branch.town = { kind = "categorical", columns = ["town"] }
branch.hash = { kind = "categorical", columns = ["code"], encoding = "hash", buckets = 8 }
branch.new = { kind = "boolean", columns = ["new"] }
branch.sold = { kind = "datetime", columns = ["sold"] }
branch.note = { kind = "text", columns = ["note"], buckets = 16, char_ngrams = 2 }
branch.made = { kind = "vector", columns = ["made"] }
branch.both = { kind = "tabular", continuous = ["high"], categorical = ["kind"] }
branch.photo = { kind = "image", columns = ["photo"], size = 8, base_channels = 1 }
"""
HEADS = {
    "regression": [1.0, 2.0, 3.0, 4.0],
    "quantile": [1.0, 2.0, 3.0, 4.0],
    "count": [1, 2, 0, 4],
    "binary": ["no", "yes", "no", "yes"],
    "multiclass": ["a", "b", "c", "a"],
    "ordinal": ["1", "2", "3", "1"],
    "multilabel": ["a;b", "b", "a", "c"],
}
HEADERS = ["size", "town", "code", "new", "sold", "note", "made", "high", "kind", "photo"]

TEXTS = [
    "", " ", "NA", "None", "nan", "-nan", "inf", "-Infinity", "-0", "1e400", "-1e39", "1e-400",
    "0x10", "1_000", "1,5", "1 000", "٣", "１", "1j", "1" * 400, "1" * 5000, "½", "+-1", "[1, 2",
    "9999-12-31", "0001-01-01", "0000-00-00", "-0001-01-01", "10000-01-01", "now", "today", "NaT",
    "2024-02-30", "2024-01-01T25:00", "2024-01-01 00:00:00+00:53:28", "2024", "20240101",
    "\0", "a\0b", "\ud83d", "a\nb", "\r", "x" * 100_000, "'", '"', "yes", "TRUE", "{}", ";", "a;b",
    "../a.png", "/etc/passwd", "a.png\0", "b\\c.png", "x" * 300 + ".png", "\ud83d.png", "[1 2]",
    "[1_0 2]", "[1e39 2]", "[nan nan]", "[1 2 3]", "[]",
]  # fmt: skip


class Mute:
    """An object that has no text."""

    def __str__(self):
        raise RuntimeError("mute")


LOOP: list[object] = []
LOOP.append(LOOP)
CLOSED = Image.new("L", (4, 4))
CLOSED.close()
OBJECTS = [
    None, pd.NA, pd.NaT, np.nan, np.datetime64("NaT", "ns"), True, np.True_, 0, -7, 10**400,
    -(10**5000),
    1.5, -0.0, np.inf, 1e300, *(kind(1) for kind in (np.int8, np.uint64, np.float16, np.float32)),
    np.longdouble("1e4000"), 1j, np.complex64(1), Decimal("1.5"), Decimal("NaN"), Decimal("sNaN"),
    Decimal("1e999999"), Fraction(1, 3), Fraction(10**400), Fraction(-(10**400)),
    dt.date(2024, 2, 29), dt.date(9999, 12, 31), dt.datetime(1, 1, 1, tzinfo=dt.UTC),
    dt.datetime(9999, 12, 31, tzinfo=dt.timezone(dt.timedelta(hours=-5))),
    dt.datetime(1880, 1, 1, tzinfo=dt.timezone(dt.timedelta(minutes=53, seconds=28))), dt.time(12),
    dt.timedelta(1), pd.Timestamp("2024-02-29"), pd.Timestamp("2024-02-29", tz="Asia/Tokyo"),
    pd.Timestamp.max, pd.Timestamp.min, pd.Timedelta(1), pd.Period("2024Q2"),
    pd.Period("9999", "Y"), pd.Period("0001-01-01", "D"), pd.Interval(0, 1),
    np.datetime64("2024-02-29"), np.datetime64("20000-01-01"), np.timedelta64(1, "D"),
    Path("a.png"), b"", b"12", b"\xff\xd8",
    bytearray(b"GIF89a"), memoryview(b"GIF89a"), UUID(int=7), {"bytes": b"x", "path": None},
    {"bytes": None, "path": "a.png"}, {"bytes": None, "path": None}, {"bytes": 1}, {}, {"a": 1},
    set(), {"b", "a"}, frozenset({1}), (), ("a", None), [], [1, 2], [1.0, None], ["1_0", "2"],
    [1, "x"], [1j, 2], [10**400, 1], [1e39, 1], [[1, 2], [3]], [[1, 2]], [None, None], [pd.NA, 1],
    [b"x"], [""], range(2), np.zeros(2), np.zeros((8, 8)), np.zeros((8, 8), dtype=np.uint8),
    np.array([1j, 2]), np.array(["1", "2"]), np.array([None, 1], dtype=object), np.array(3.0),
    np.array(None, dtype=object), np.array(["2024"], dtype="datetime64[s]"), torch.zeros(2),
    torch.zeros(2, requires_grad=True), torch.zeros(2, dtype=torch.bfloat16), torch.tensor(1.0),
    Image.new("L", (4, 4)), Image.new("F", (4, 4)), SimpleNamespace(), Ellipsis, int, len,
    Mute(), LOOP, CLOSED,
]  # fmt: skip
CELLS = st.one_of(st.sampled_from(TEXTS), st.text(max_size=9), st.sampled_from(OBJECTS))


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), shade).save(file, "PNG")
    return file.getvalue()


def column(*cells) -> pd.Series:
    """A column of objects, however much a cell looks like several."""
    series = pd.Series([None] * len(cells), dtype=object)
    for k, cell in enumerate(cells):
        series.iat[k] = cell
    return series


def rows_of(**changes) -> pd.DataFrame:
    """Four rows of columns of every kind, and a target for every head."""
    frame = pd.DataFrame(
        {
            "size": [1.0, 2.0, 3.0, None],
            "town": ["Ulm", "Bonn", "Ulm", "x"],
            "code": ["a", "b", "c", "d"],
            "new": ["yes", "no", "yes", ""],
            "sold": ["2024-01-01", "2023-06-05", "2024-02-29", ""],
            "note": ["two rooms", "bright", "", "a garden"],
            "made": column([1.0, 2.0], [2.0, 1.0], "3 4", None),
            "high": ["1", "2", "", "4"],
            "kind": ["p", "q", "p", "q"],
            "photo": column(*map(png, (0, 90, 180, 255))),
            **{f"{kind} target": cells for kind, cells in HEADS.items()},
        }
    )
    return frame.assign(**changes)


def with_cell(header: str, cell: object) -> pd.DataFrame:
    cells = list(rows_of()[header])
    return rows_of(**{header: column(*cells[:2], cell, cells[3])})


def spec_of(head: str, branches: str = 'branch.size = { kind = "continuous", columns = ["size"] }'):
    return mip.parse(f'{branches}\nhead = {{ kind = "{head}", column = "{head} target" }}')


def predictor_of(branches: str):
    plan = mip.adapt(spec_of("regression", branches), mip.from_frame(rows_of()))
    return mip.predictor(plan, mip.init(mip.build(plan, seed=0), mip.adamw(1e-3)))


@pytest.fixture(scope="module")
def predict():
    return predictor_of(BRANCHES)


@pytest.fixture(scope="module")
def alone():
    """For each column, a model of the branch that reads it."""
    lines = BRANCHES.splitlines()
    return {
        header: predictor_of(next(line for line in lines if f'"{header}"' in line))
        for header in HEADERS
    }


@pytest.fixture(scope="module")
def want(predict):
    return predict(rows_of())["value"].to_numpy()


def outcome(do, header: str):
    """What was done, or None where an error named the row and the column, in one line."""
    try:
        return do()
    except MipError as error:
        text = str(error)
        assert text.isprintable()
        assert len(text) < 500
        # Where a column is a target, it may have too few values without the cell.
        assert f"table row 2, column '{header}'" in text or f"table: column '{header}'" in text
        return None


quiet = pytest.mark.filterwarnings("ignore::mip.errors.MipWarning")


def check_costs(predictions: pd.DataFrame, want: np.ndarray, header: str) -> None:
    """Good rows come first; each of the others has a prediction or an error that names it."""
    np.testing.assert_allclose(predictions["value"].to_numpy()[: len(want)], want, rtol=1e-5)
    errors = (
        predictions["error"]
        if "error" in predictions
        else pd.Series(None, predictions.index, dtype=object)
    )
    assert errors.isna().tolist() == np.isfinite(predictions["value"]).tolist()
    for row, error in errors.dropna().items():
        assert error.startswith(f"table row {row}, column '{header}'")
        assert error.isprintable()
        assert len(error) < 500


@quiet
@pytest.mark.parametrize("header", HEADERS)
def test_odd_cells_of_a_branch_cost_their_rows_at_most(header, alone):
    predict = alone[header]
    want = predict(rows_of())["value"].to_numpy()
    cells = [*rows_of()[header], *TEXTS, *OBJECTS]
    frame = rows_of().iloc[[0, 1, 2, 3, *[1] * (len(cells) - 4)]].reset_index(drop=True)
    check_costs(predict(frame.assign(**{header: column(*cells)})), want, header)


@given(header=st.sampled_from(HEADERS), texts=st.lists(st.text(max_size=9), min_size=9, max_size=9))
def test_any_text_of_a_branch_costs_its_row_at_most(header, texts, predict, want):
    cells = [*rows_of()[header], *texts]
    frame = rows_of().iloc[[0, 1, 2, 3, *[1] * len(texts)]].reset_index(drop=True)
    check_costs(predict(frame.assign(**{header: column(*cells)})), want, header)


@quiet
@given(cell=CELLS, header=st.sampled_from(HEADERS), missing=st.sampled_from(["error", "learn"]))
def test_a_cell_can_be_learned_from_or_is_named(cell, header, missing):
    table = mip.from_frame(with_cell(header, cell))
    spec = spec_of("regression", BRANCHES.replace("size = 8", f'size = 8, missing = "{missing}"'))
    plan = outcome(lambda: mip.adapt(spec, mip.clean(spec, table)[0]), header)
    if plan:
        outcome(lambda: plan.encode(table), header)
        outcome(lambda: conversions(spec, table), header)
        outcome(lambda: prediction_warnings(plan, table), header)


@pytest.fixture(scope="module")
def models():
    plans = [mip.adapt(spec_of(head), mip.from_frame(rows_of())) for head in HEADS]
    return {
        head: mip.predictor(plan, mip.init(mip.build(plan, seed=0), mip.adamw(1e-3)))
        for head, plan in zip(HEADS, plans, strict=True)
    }


@quiet
@pytest.mark.parametrize("head", HEADS)
@given(cell=CELLS)
def test_a_cell_of_a_target_is_learned_and_scored_or_named(head, cell, models):
    table, header = mip.from_frame(with_cell(f"{head} target", cell)), f"{head} target"
    outcome(lambda: mip.adapt(spec_of(head), mip.clean(spec_of(head), table)[0]), header)
    outcome(lambda: mip.evaluate(models[head], table), header)
    assert "error" not in models[head](table)


@given(cell=CELLS, header=st.sampled_from([*HEADERS, *(f"{head} target" for head in HEADS)]))
def test_a_first_spec_is_drawn_up_of_any_cell(cell, header):
    table = mip.from_frame(with_cell(header, cell))
    for target in (header, "size"):
        with suppress(DataError):
            mip.parse(draft(table, target, "t.csv").encode().decode())


DRAFTED = {
    "a list beside a number": {"made": column([1, 2], [2, 1], 3, None)},
    "a list beside a long number": {"made": column([1, 2], [2, 1], 10**5000, None)},
    "numbers all past float64": {"size": ["inf", "-inf", "1e400", "-1e400"]},
    "classes of several lines": {"binary target": ["a\nb", "c\0", "a\nb", "c\0"]},
}


@pytest.mark.parametrize("changes", DRAFTED.values(), ids=DRAFTED)
def test_a_first_spec_can_be_parsed(changes):
    target = "binary target" if "binary target" in changes else "regression target"
    assert mip.parse(draft(mip.from_frame(rows_of(**changes)), target, "t.csv")).head.column


def test_names_longer_than_a_files_are_refused_with_the_cure():
    rows = rows_of(photo=[f"{'x' * k}.png" for k in range(300, 304)])
    with pytest.raises(DataError, match="leave it out by --without 'photo'"):
        draft(mip.from_frame(rows), "regression target", "t.csv")


# The same cells in columns of every dtype.

DTYPES = [
    object,
    "str",
    "string[python]",
    "string[pyarrow]",
    pd.ArrowDtype(pa.string()),
    "category",
]


def read(table, header):
    """What a column is as words, numbers and dates; errors as their texts."""
    outcomes = []
    dates = table.timestamps, table.out_of_bounds_rows
    for verb in (table.texts, table.numbers, table.overflow_rows, *dates):
        try:
            outcomes.append(verb(header).tolist())
        except DataError as error:
            outcomes.append(str(error))
    return repr(outcomes)


@given(st.lists(st.one_of(st.sampled_from(TEXTS), st.text(max_size=9), st.none()), min_size=1))
def test_texts_are_read_the_same_from_every_dtype(cells):
    cells = [cell and cell.replace("\ud83d", "") for cell in cells]  # which Arrow cannot hold
    tables = [mip.from_frame(pd.DataFrame({"x": pd.Series(cells, dtype=d)})) for d in DTYPES]
    backed = pd.Series(cells, dtype=pd.ArrowDtype(pa.string()))
    tables += [mip.from_columns({"x": cells}), mip.from_frame(pd.DataFrame({"x": backed}))]
    tables.append(from_arrow(pa.table({"x": pa.array(cells, pa.string())})))
    assert len({read(table, "x") for table in tables}) == 1


@given(st.lists(st.one_of(st.integers(-(2**53), 2**53), st.none()), min_size=1))
def test_whole_numbers_are_read_the_same_from_every_dtype(cells):
    dtypes = [object, "Int64", "Float64", float, "Sparse[float]", pd.ArrowDtype(pa.int64())]
    columns = [pd.Series(cells, dtype=dtype) for dtype in dtypes]
    columns.append(pd.Series([cell if cell is None else str(cell) for cell in cells], dtype=object))
    columns.append(pd.Series(cells, dtype=object).map(Decimal, na_action="ignore"))
    columns.append(pd.Series(cells, dtype="Int64").astype("category"))
    tables = [mip.from_frame(pd.DataFrame({"x": cells})) for cells in columns]
    want = np.array([np.nan if cell is None else cell for cell in cells], dtype=float)
    for table in tables:
        np.testing.assert_array_equal(table.numbers("x"), want)
        assert table.texts("x").tolist() == ["" if cell is None else str(cell) for cell in cells]


ARROW = {
    "binary": (pa.binary(), [b"x", None]),
    "dates": (pa.date32(), [dt.date(2024, 1, 1), dt.date(9999, 1, 1)]),
    "decimals": (pa.decimal128(5, 2), [Decimal("1.5"), None]),
    "durations": (pa.duration("s"), [dt.timedelta(1), None]),
    "lists": (pa.list_(pa.float64()), [[1.0, 2.0], None]),
    "nothing": (pa.null(), [None, None]),
    "structs": (pa.struct({"bytes": pa.binary(), "path": pa.string()}), [{"bytes": b"x"}, None]),
    "times": (pa.timestamp("us", "Asia/Tokyo"), [dt.datetime(2024, 1, 1), None]),
    "words": (pa.dictionary(pa.int8(), pa.string()), ["Ulm", None]),
    "yes or no": (pa.bool_(), [True, None]),
}
TYPED = {
    **{f"Arrow {k}": pd.Series(c, dtype=pd.ArrowDtype(kind)) for k, (kind, c) in ARROW.items()},
    "complex": pd.Series([1 + 2j, 3]),
    "durations": pd.Series([pd.Timedelta(1), pd.NaT]),
    "halves": pd.Series([1, np.nan], dtype=np.float16),
    "intervals": pd.Series(pd.interval_range(0, 2)),
    "long doubles": pd.Series([np.longdouble("1e4000"), 1]),
    "moments by category": pd.Series(pd.date_range("2024", periods=2)).astype("category"),
    "nullable bool": pd.Series([True, None], dtype="boolean"),
    "numbers by category": pd.Series([1, None], dtype="Int64").astype("category"),
    "periods": pd.Series(pd.period_range("2024", periods=2, freq="M")),
    "sparse": pd.Series([1, np.nan], dtype="Sparse[float]"),
    "strings": pd.Series(["yes", None], dtype="string"),
}


@quiet
@pytest.mark.parametrize("cells", TYPED.values(), ids=TYPED)
def test_a_column_of_any_dtype_is_what_its_cells_are(cells, alone):
    for header, predict in alone.items():
        typed, objects = (
            predict_or_text(predict, header, case) for case in (cells, column(*cells))
        )
        assert typed == objects
        assert typed.startswith(("table row ", " "))  # an error of all rows, or predictions


def predict_or_text(predict, header, cells):
    try:
        return repr(predict(rows_of().iloc[:2].assign(**{header: cells})))
    except DataError as error:
        return str(error)


MOMENTS = [*(dt.datetime(year, 1, 1, 6, 30) for year in (2024, 1901, 9999)), None]
HELD = {
    "objects": lambda: pd.Series(MOMENTS, dtype=object),
    "texts": lambda: pd.Series([m and m.isoformat() for m in MOMENTS], dtype=object),
    "seconds": lambda: pd.Series(np.array(MOMENTS, dtype="datetime64[s]")),
    "microseconds": lambda: pd.Series(np.array(MOMENTS, dtype="datetime64[us]")),
    "zone": lambda: pd.Series(np.array(MOMENTS, dtype="datetime64[s]")).dt.tz_localize("UTC"),
    "period": lambda: pd.Series([m and pd.Period(m, "min") for m in MOMENTS], dtype="period[min]"),
    "timestamps": lambda: pd.Series(MOMENTS, dtype=pd.ArrowDtype(pa.timestamp("us"))),
    "categories": lambda: pd.Series([m and m.isoformat() for m in MOMENTS], dtype="category"),
}


@pytest.mark.parametrize("held", HELD.values(), ids=HELD)
def test_dates_are_read_the_same_from_every_dtype(held):
    table = mip.from_frame(pd.DataFrame({"x": held()}))
    np.testing.assert_array_equal(
        table.timestamps("x"), [19723 + 6.5 / 24, -25202 + 6.5 / 24, np.nan, np.nan]
    )
    assert table.out_of_bounds_rows("x").tolist() == [2]


@pytest.mark.parametrize("dtype", ["datetime64[s]", "datetime64[ms]"])
def test_a_date_that_microseconds_cannot_hold_is_far(dtype):
    cells = np.array(["2024-01-01", "300000-01-01", "-9999-01-01"], dtype=dtype)
    table = mip.from_frame(pd.DataFrame({"x": pd.Series(cells)}))
    assert table.out_of_bounds_rows("x").tolist() == [1, 2]
    np.testing.assert_array_equal(table.timestamps("x"), [19723, np.nan, np.nan])


def test_the_range_of_dates_is_whole_years():
    first, last = DATE_YEARS
    cells = [f"{first - 1}-12-31 23:59", f"{first}-01-01", f"{last}-12-31 23:59", f"{last + 1}"]
    table = mip.from_columns({"x": cells})
    assert table.out_of_bounds_rows("x").tolist() == [0, 3]
    want = (dt.datetime(last, 12, 31, 23, 59) - dt.datetime(1970, 1, 1)) / dt.timedelta(days=1)
    assert table.timestamps("x")[2] == want


@given(st.datetimes(dt.datetime(1678, 1, 1), dt.datetime(2261, 12, 31)))
def test_a_date_is_its_days_since_1970(moment):
    want = (moment - dt.datetime(1970, 1, 1)) / dt.timedelta(days=1)
    table = mip.from_columns({"x": [moment.isoformat()]})
    assert table.timestamps("x")[0] == pytest.approx(want, 1e-15)


@pytest.mark.parametrize("cell", ["now", "today", "2024-02-30", "-0001-01-01", "10000-01-01", 7.5])
def test_what_is_no_date_is_named(cell):
    want = f"table row 1, column 'x': {str(cell)!r} is not an ISO date (2024-12-31)"
    with pytest.raises(DataError, match=f"^{re.escape(want)}"):
        mip.from_frame(pd.DataFrame({"x": column("2024-01-01", cell)})).timestamps("x")


def test_far_dates_do_not_change_what_is_learned():
    spec = spec_of("regression", 'branch.sold = { kind = "datetime", columns = ["sold"] }')
    far, blank = (rows_of(sold=["2024-01-01", "2023-06-05", x, ""]) for x in ("9999-12-31", ""))
    facts, expected = (
        mip.adapt(spec, mip.from_frame(frame)).facts["branch"] for frame in (far, blank)
    )
    assert facts == expected


def test_far_dates_and_vectors_past_float32_are_remarked_with_their_rows(predict):
    frame = rows_of(sold=["2024-01-01", "9999-12-31", "", "0001-01-01"])
    table = mip.from_frame(frame.assign(made=column([1, 2], [1, 1e39], [1, 2], [1, 2])))
    want = {
        "'made' has a number infinite or beyond float32, treated as missing": [1],
        "'sold' outside of 1678 to 2261, counts as missing": [1, 3],
    }
    assert conversions(predict.plan.spec, table) == want
    lines = prediction_warnings(predict.plan, table)
    assert "table: 'sold' outside of 1678 to 2261, counts as missing: 2 rows (1, 3)" in lines
    assert "error" not in predict(table)


# Photos.


def test_a_photo_is_the_same_in_every_form(tmp_path):
    (tmp_path / "a.png").write_bytes(png(90))
    data = png(90)
    forms = [
        "a.png",
        Path("a.png"),
        data,
        bytearray(data),
        memoryview(data),
        {"bytes": data, "path": "gone.png"},
        {"bytes": None, "path": "a.png"},
        {"path": Path("a.png")},
        [Path("a.png")],
        [{"bytes": data}],
        Image.open(io.BytesIO(data)),
        np.full((8, 8), 90, dtype=np.uint8),
    ]
    kind = mip.KINDS["image"](["photo"], size=8)
    table = mip.from_frame(pd.DataFrame({"photo": column(*forms)}), tmp_path)
    pixels = kind.encode(kind.adapt(table), table)["pixels"]
    assert all(torch.equal(each, pixels[0]) for each in pixels)
    assert all(torch.equal(decode(tmp_path, form, 8), pixels[0, 0]) for form in forms[:8])
    assert not list(kind.problems(table))


def test_a_hugging_face_photo_of_a_parquet_file_is_read(tmp_path):
    cells = [{"bytes": png(shade), "path": f"{shade}.png"} for shade in (0, 90)]
    pq.write_table(pa.table({"photo": cells, "y": [1.0, 2.0]}), tmp_path / "t.parquet")
    table = mip.read(tmp_path / "t.parquet")
    assert 'kind = "image"' in draft(table, "y", "t.parquet")
    kind = mip.KINDS["image"](["photo"], size=8)
    assert kind.encode(kind.adapt(table), table)["pixels"][:, 0, 0, 0, 0].tolist() == [0, 90]


def test_a_fingerprint_of_a_photo_is_that_of_its_bytes():
    forms = [b"GIF", bytearray(b"GIF"), memoryview(b"GIF"), {"bytes": b"GIF", "path": "a.gif"}]
    tables = [mip.from_frame(pd.DataFrame({"x": column(form, b"x")})) for form in forms]
    assert len({table.digest()["x"] for table in tables}) == 1


@pytest.mark.parametrize("text", ["1_000", "0x10", "²", "1,5", "1 000", "-nan", "½", "1\0"])
def test_digits_are_plain(text):
    assert parse_number(text) is None
    named = f"table row 0, column 'x': {text!r} is not a number"
    with pytest.raises(DataError) as caught:
        mip.from_columns({"x": [text]}).numbers("x")
    assert str(caught.value) == named
    table = mip.from_columns({"x": [[text, "2"]]})
    with pytest.raises(DataError, match="is not a list of numbers"):
        mip.KINDS["vector"](["x"]).adapt(table)


def test_a_target_too_far_from_the_training_rows_is_named():
    near = rows_of(**{"regression target": [1e-3, 2e-3, 3e-3, 4e-3]})
    plan = mip.adapt(spec_of("regression"), mip.from_frame(near))
    rows = mip.from_frame(rows_of(**{"regression target": [1, 2, 1e38, 4]}))
    text = r"row 2, column 'regression target': '1e\+38' overflows float32 on the scale of the"
    with pytest.raises(DataError, match=text):
        plan.encode(rows)
