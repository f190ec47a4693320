"""Classes come out as they went in: whole numbers and booleans as such, everything else as text."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
import torch

import mip
from mip.heads import Binary, Multiclass, Ordinal
from mip.prediction import ensemble

TARGETS = {
    "int64": ([3, 1, 3, 10], "int64"),
    "uint8": (np.array([3, 1, 3, 10], "uint8"), "int64"),
    "Int64": (pd.array([3, None, 3, 1], "Int64"), "int64"),
    "floats beside missing ones": ([3.0, None, 1.0, 3.0], "int64"),
    "numbers as objects": (pd.Series([3, None, 1, 3], dtype=object), "int64"),
    "categories of numbers": (pd.Categorical([3, 1, 3, 10]), "int64"),
    "below zero": ([-1, 1, -1, 1], "int64"),
    "bool": ([True, False, True, True], "bool"),
    "boolean": (pd.array([True, None, False, True], "boolean"), "bool"),
    "booleans as objects": (pd.Series([True, None, False, True], dtype=object), "bool"),
    "texts": (["3", "1", "3", "10"], "object"),
    "fractions": ([0.5, 1.0, 0.5, 1.0], "object"),
    "numbers and texts": (pd.Series([3, "1", 3, 1], dtype=object), "object"),
    "numbers that int64 cannot hold": ([2**63, 1, 2**63, 1], "object"),
}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("kind", [Binary, Multiclass, Ordinal])
def test_classes_have_the_dtype_of_the_target(kind, name):
    cells, dtype = TARGETS[name]
    rows = mip.from_frame(pd.DataFrame({"y": cells}))
    if kind is Binary:
        rows = rows.take([0, 1, 2] if rows.texts("y")[1] else [0, 2, 3])
    head = kind("y")
    facts = head.adapt(rows)
    rows = rows.take(np.flatnonzero(head.known(rows)))
    target = head.encode(facts, rows)
    logits = 9.0 * torch.nn.functional.one_hot(target) if kind is Multiclass else 18 * target - 9
    label = head.decode(facts, logits)["label"]
    assert label.dtype == dtype
    assert label.astype(str).tolist() == rows.texts("y").tolist()
    if dtype != "object":
        assert (pd.Series(label) == rows.frame["y"].reset_index(drop=True)).all()
    before = head.decode({"classes": facts["classes"]}, logits)["label"]  # of an older file
    assert before.tolist() == rows.texts("y").tolist()


def test_classes_with_words_among_them_are_texts():
    rows = mip.from_columns({"y": [1, 2, 1]})
    assert Ordinal("y", order=("1", "2", "more")).adapt(rows) == {"classes": ["1", "2", "more"]}


@pytest.fixture(scope="module")
def predict():
    spec = mip.parse("""
        branch.x = { kind = "continuous", columns = ["x"] }
        head = { kind = "multiclass", column = "y", layers = [4] }
    """)
    plan = mip.adapt(spec, {"x": [1.0, 2.0, 3.0, 4.0], "y": [5, 7, 9, 5]})
    return mip.predictor(plan, mip.init(mip.build(plan, seed=0), mip.adamw(1e-3)))


def test_numbers_stay_numbers_in_a_file_an_ensemble_and_beside_rows_without_prediction(
    predict, tmp_path
):
    rows = pd.DataFrame({"x": [1.0, 2.0, 30.0]})
    alone = predict(rows)["label"]
    assert alone.dtype == "int64"
    assert ensemble([predict, predict])(rows)["label"].equals(alone)
    for path in (tmp_path / "a.csv", tmp_path / "a.jsonl"):
        rows.to_csv(path, index=False) if path.suffix == ".csv" else rows.to_json(
            path, orient="records", lines=True
        )
        assert predict(path)["label"].equals(alone)
    bad = predict(pd.DataFrame({"x": ["1", "2", "30", "bad"]}))
    assert bad["label"].dtype == "Int64"
    assert bad["label"][:3].tolist() == alone.tolist()
    text = pd.read_csv(io.StringIO(bad.to_csv(index=False)), dtype=str)["label"]
    assert text.tolist()[:3] == [*map(str, alone)]
    assert bad["label"].isna().tolist() == [False, False, False, True]


def test_the_most_probable_classes_are_numbers_too(predict):
    best = predict({"x": [1.0, 2.0]}, top=2)
    assert [str(dtype) for dtype in best[["label_1", "label_2"]].dtypes] == ["int64", "int64"]
    assert best["label_1"].equals(predict({"x": [1.0, 2.0]})["label"])
    bad = predict(pd.DataFrame({"x": ["1", "bad"]}), top=1)
    assert (bad["label_1"][0], bad["label_1"].isna().tolist()) == (
        best["label_1"][0],
        [False, True],
    )


def test_shards_say_the_dtype_that_their_table_has(tmp_path):
    pd.DataFrame({"y": [1, 2]}).to_parquet(tmp_path / "0.parquet")
    pd.DataFrame({"y": pd.array([3, None], "Int64")}).to_parquet(tmp_path / "1.parquet")
    head = Multiclass("y")
    facts = head.adapt(mip.stream(tmp_path))
    assert facts == head.adapt(mip.read(tmp_path)) == {"classes": ["1", "2", "3"], "dtype": "int64"}


def test_plots_read_a_label_as_the_name_of_a_class():
    figure = mip.plots.confusion_matrix(
        pd.DataFrame({"label": [5, 7, 9]}), ["5", "9", "9"], classes=["5", "7", "9"]
    )
    assert "66.7% (2 of 3 rows)" in figure.get_suptitle()
