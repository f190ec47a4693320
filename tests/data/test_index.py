"""Rows go out with the index that they came in with."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from conftest import NUMBERS, frame_of, set_up, spec_of
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import mip
from mip.cli.app import make_app
from mip.data import as_table, from_arrow, from_rows, with_folds
from mip.errors import DataError
from mip.prediction import ensemble, prediction_warnings, tta

ROWS = 9
RNG = np.random.default_rng(0)
INDEXES = {
    "counted": pd.RangeIndex(ROWS),
    "every second": pd.RangeIndex(5, 5 + 2 * ROWS, 2),
    "shuffled": pd.Index(RNG.permutation(ROWS)),
    "filtered": pd.Index([-3, 4, 17, 2, 900, 5, 6, 8, 7]),
    "texts": pd.Index([f"h{k}" for k in range(ROWS)], name="house"),
    "twice": pd.Index(["a", "b", "a", "c", "b", "a", "d", "e", "a"]),
    "all one": pd.Index([7] * ROWS),
    "levels": pd.MultiIndex.from_product([["x", "y", "x"], [1, 2, 1]], names=["place", None]),
    "days": pd.DatetimeIndex(
        [*pd.date_range("2024-01-01", periods=ROWS, tz="Asia/Tokyo")], name="day"
    ),
    "months": pd.period_range("2024-01", periods=ROWS, freq="M"),
    "categories": pd.CategoricalIndex(list("abcabcabc")),
    "fractions": pd.Index([0.5, np.nan, 2.0, -1.0, 0.25, 8.0, 1e9, 3.0, 4.0]),
    "mixed": pd.Index(["a", 1, None, 2.5, ("a", 1), "b", True, pd.NaT, "c"], dtype=object),
}
over_indexes = pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)


def rows_of(index: pd.Index) -> pd.DataFrame:
    return frame_of(ROWS).set_index(index)


def near(actual: pd.DataFrame, expected: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(actual, expected, rtol=1e-5, check_freq=False)


@pytest.fixture(scope="module")
def predict():
    setup = set_up(spec_of("regression", NUMBERS), mip.from_frame(frame_of(ROWS)))
    return mip.predictor(setup.plan, setup.state)


@given(st.sampled_from([*INDEXES.values()]), st.lists(st.integers(0, ROWS - 1)))
def test_rows_are_predicted_with_their_index_in_any_order(predict, index, order):
    frame = rows_of(index)
    whole = predict(frame)
    pd.testing.assert_index_equal(whole.index, index)
    near(predict(frame.iloc[order]), whole.iloc[order])


@over_indexes
def test_a_column_of_predictions_belongs_to_its_rows(predict, index):
    frame = rows_of(index)
    order = RNG.permutation(ROWS)
    whole = frame.assign(pred=predict(frame)["value"])
    part = frame.iloc[order]
    near(part.assign(pred=predict(part)["value"]), whole.iloc[order])
    kept = frame[frame["rooms"] > 2]
    near(kept.assign(pred=predict(kept)["value"]), whole[whole["rooms"] > 2])


@over_indexes
def test_an_error_stands_at_its_row(predict, index):
    frame = rows_of(index).astype({"rooms": object})
    frame.iloc[4, frame.columns.get_loc("rooms")] = "many"
    for model in (predict, ensemble([predict, predict])):
        predictions = model(frame)
        pd.testing.assert_index_equal(predictions.index, index)
        assert np.flatnonzero(predictions["error"].notna()).tolist() == [4]
        assert np.flatnonzero(predictions["value"].isna()).tolist() == [4]


def test_ensembles_and_views_keep_the_index(table, folder):
    setup = set_up(spec_of(), table)
    model = mip.predictor(setup.plan, setup.state)
    index = INDEXES["twice"]
    rows = mip.from_frame(rows_of(index), folder)
    for predict in (ensemble([model, model]), tta(model, n=2)):
        pd.testing.assert_index_equal(predict(rows).index, index)


def test_no_rows_have_no_labels(predict):
    index = INDEXES["days"][:0]
    pd.testing.assert_index_equal(predict(rows_of(INDEXES["days"]).iloc[:0]).index, index)


def test_predictions_can_be_given_a_name_without_naming_the_frame(predict):
    frame = rows_of(INDEXES["shuffled"])
    predict(frame).index.name = "row"
    assert frame.index.name is None


@over_indexes
def test_out_of_fold_predictions_have_the_index(index):
    frame = rows_of(index).assign(fold=[1, 0, 1, 0, 0, 1, 0, 1, 1])
    spec = spec_of("regression", NUMBERS, "[train]\nepochs = 1\nrestore_best = false\n")
    predictions = mip.crossval(spec, mip.from_frame(frame), "fold").predictions
    pd.testing.assert_index_equal(predictions.index, index)
    assert predictions["fold"].tolist() == [*map(str, frame["fold"])]
    assert predictions["target"].tolist() == frame["price"].tolist()


@over_indexes
def test_what_is_made_of_a_table_keeps_labels_and_numbers(index):
    table = mip.from_frame(rows_of(index))
    assert table.row_ids.tolist() == [*range(ROWS)]
    taken = table.take([4, 2, 2])
    pd.testing.assert_index_equal(taken.frame.index, index[[4, 2, 2]])
    assert taken.row_ids.tolist() == [4, 2, 2]
    left = table.without([0, 3]).select(["area", "price"])
    pd.testing.assert_index_equal(left.frame.index, index.delete([0, 3]))
    assert left.row_ids.tolist() == [1, 2, 4, 5, 6, 7, 8]
    joined = taken.concat([left])
    assert joined.row_ids.tolist() == [4, 2, 2, *left.row_ids.tolist()]
    assert repr([*joined.index]) == repr([*index[[4, 2, 2]], *left.index])
    for part in mip.split(table, (0.5, 0.5)):
        pd.testing.assert_index_equal(part.index, index[part.row_ids])
    pd.testing.assert_index_equal(mip.folds(table, k=3).frame.index, index)


@over_indexes
def test_cleaned_rows_keep_labels_and_are_reported_by_them(index):
    frame = rows_of(index)
    frame.iloc[[2, 5], frame.columns.get_loc("price")] = np.nan
    with pytest.warns(mip.errors.MipWarning):
        table, report = mip.clean(spec_of("regression", NUMBERS), mip.from_frame(frame))
    pd.testing.assert_index_equal(table.frame.index, index.delete([2, 5]))
    assert table.row_ids.tolist() == [0, 1, 3, 4, 6, 7, 8]
    assert repr(report.dropped["target 'price' missing"]) == repr(index[[2, 5]].tolist())


@over_indexes
def test_draws_for_a_row_depend_on_its_id(index):
    spec = mip.parse("""
        branch.noise = { kind = "stub", out_features = 4 }
        head = { kind = "regression", column = "price" }
    """)
    tables = [mip.from_frame(rows_of(labels)) for labels in (INDEXES["counted"], index)]
    batch, expected = (mip.adapt(spec, table).encode(table) for table in tables)
    assert torch.equal(batch.inputs["noise"], expected.inputs["noise"])
    assert batch.row.tolist() == expected.row.tolist() == [*range(ROWS)]
    assert tables[0].digest() == tables[1].digest()


NAMED = {
    "texts": "table row 'h4', column 'rooms': 'many' is not a number",
    "filtered": "table row 900, column 'rooms': 'many' is not a number",
    "twice": "table row 'b' (number 4), column 'rooms': 'many' is not a number",
    "levels": "table row ('y', 2) (number 4), column 'rooms': 'many' is not a number",
    "days": "table row 2024-01-05 00:00:00+09:00, column 'rooms': 'many' is not a number",
    "counted": "table row 4, column 'rooms': 'many' is not a number",
}


@pytest.mark.parametrize(("kind", "text"), NAMED.items(), ids=NAMED)
def test_errors_name_a_row_by_its_label(predict, kind, text):
    frame = rows_of(INDEXES[kind]).astype({"rooms": object})
    frame.iloc[4, frame.columns.get_loc("rooms")] = "many"
    assert predict(frame)["error"].iloc[4] == text.replace(" (number 4)", "")
    with pytest.raises(DataError, match=f"^{re.escape(text)}$"):
        mip.from_frame(frame).numbers("rooms")


def test_remarks_and_classes_name_rows_by_their_labels(predict):
    table = mip.from_frame(rows_of(INDEXES["texts"]).assign(town="Rom"))
    line = "table: unseen categories in 'town', 'Rom': 9 rows ('h0', 'h1', 'h2', …)"
    assert prediction_warnings(predict.plan, table) == [line]
    plan = mip.adapt(spec_of("multiclass", NUMBERS), mip.from_frame(frame_of()))
    strange = rows_of(INDEXES["texts"]).assign(style="tent")
    with pytest.raises(DataError, match=r"\(9 rows: 'h0', 'h1', 'h2', 'h3', .*, …\)"):
        plan.encode(mip.from_frame(strange))


# Files: rows are numbered.


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_rows_of_a_file_are_numbered_whatever_index_was_written(predict, ending, tmp_path):
    model = tmp_path / "m.safetensors"
    mip.save(model, predict.plan, mip.init(predict.net, mip.adamw(1e-3)))
    frame = rows_of(INDEXES["texts"])
    path = tmp_path / f"t.{ending}"
    frame.to_csv(path) if ending == "csv" else frame.to_parquet(path)
    assert mip.read(path).index.tolist() == [*range(ROWS)]
    assert predict(path).index.tolist() == [*range(ROWS)]
    assert predict(mip.read(path).take([5, 2])).index.tolist() == [5, 2]
    for out in (tmp_path / "p.csv", tmp_path / "p.parquet"):
        arguments = ["predict", str(model), str(path), "--out", str(out)]
        assert CliRunner().invoke(make_app(), arguments).exit_code == 0
    assert pd.read_csv(tmp_path / "p.csv")["row"].tolist() == [*range(ROWS)]
    assert "row" in pa.parquet.read_schema(tmp_path / "p.parquet").names


def test_streamed_rows_are_numbered(predict, tmp_path):
    rows_of(INDEXES["texts"]).to_parquet(tmp_path / "t.parquet", row_group_size=4)
    shards = mip.stream(tmp_path / "t.parquet").without([1, 6])
    assert predict(shards).index.tolist() == [0, 2, 3, 4, 5, 7, 8]


@pytest.mark.parametrize("kind", ["filtered", "texts", "days", "counted"])
def test_folds_find_their_rows_by_label(kind, tmp_path):
    table = mip.from_frame(rows_of(INDEXES[kind]))
    folds = mip.folds(table, k=3).frame[["fold_0"]]
    folds.rename_axis("row").sample(frac=1, random_state=0).to_csv(tmp_path / "folds.csv")
    joined = with_folds(table, mip.read(tmp_path / "folds.csv"), "fold_0")
    assert joined.texts("fold_0").tolist() == [*map(str, folds["fold_0"])]
    with pytest.raises(DataError, match="no fold for row"):
        with_folds(table, mip.read(tmp_path / "folds.csv").take([0, 1]), "fold_0")


# What can be predicted.


def test_tables_of_every_form_are_predicted_alike(predict):
    index = INDEXES["texts"]
    frame = rows_of(index)
    want = predict(frame)
    near(predict(pa.Table.from_pandas(frame)), want)
    near(predict({name: frame[name] for name in frame}), want)
    plain = want.reset_index(drop=True)
    near(predict({name: frame[name].tolist() for name in frame}), plain)
    near(predict(frame.to_dict("records")), plain)
    near(predict(pa.record_batch({name: pa.array(frame[name]) for name in frame})), plain)
    assert from_arrow(pa.Table.from_pandas(frame)).index.equals(index)


ROWS_ARE = (
    "rows are a DataFrame, a Table, a path, an Arrow table, a dict of columns or of one row's "
    "cells, a list of such rows, or a Dataset, not "
)
REFUSED = {
    "one row": (
        lambda f: f.iloc[0],
        f"{ROWS_ARE}Series; the target is a column of the rows: rows.assign(price=series); "
        "one row is series.to_frame().T",
    ),
    "array": (
        lambda f: f.to_numpy(),
        f"{ROWS_ARE}ndarray; name its columns: pandas.DataFrame(array, columns=[…])",
    ),
    "nothing": (lambda f: None, f"{ROWS_ARE}NoneType"),
    "number": (lambda f: 7, f"{ROWS_ARE}int"),
    "Arrow column": (lambda f: pa.chunked_array([[1]]), f"{ROWS_ARE}ChunkedArray"),
    "list of numbers": (lambda f: [1, 2], "table row 0: int is not a dict of cells"),
    "cells of other columns": (
        lambda f: {"twon": "Ulm"},
        "table: there are no columns 'area', 'rooms', 'town'; did you mean 'twon'? (known: twon); "
        "the model reads columns 'area', 'rooms', 'town'",
    ),
    "two indexes": (
        lambda f: {"area": f["area"], "rooms": f["rooms"][::-1]},
        "table: column 'rooms' and column 'area' have different indexes; "
        "reset_index(drop=True) takes the cells in their order",
    ),
}


@pytest.mark.parametrize(("convert", "text"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_table_is_refused_in_one_line(predict, convert, text):
    with pytest.raises(DataError) as caught:
        predict(convert(rows_of(INDEXES["texts"])))
    assert str(caught.value) == text


def test_one_row_as_a_frame_is_predicted(predict):
    frame = rows_of(INDEXES["texts"])
    near(predict(frame.iloc[3].to_frame().T), predict(frame).iloc[[3]].rename_axis(None))


def test_a_key_that_a_dict_lacks_is_a_missing_cell(predict):
    rows = frame_of(ROWS).to_dict("records")
    del rows[2]["area"]
    blank = frame_of(ROWS)
    blank.loc[2, "area"] = ""
    near(predict(rows), predict(blank))
    assert as_table(rows).cells("area")[2] is None
    assert len(from_rows([])) == 0
