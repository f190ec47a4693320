"""Statistics of chunks are those of the whole, however the rows are cut."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from conftest import bits
from hypothesis import given
from hypothesis import strategies as st
from test_shards import SPEC, layouts, some_rows, total, written

import mip
from mip.branches import Categorical, Continuous
from mip.data import (
    bin_edges,
    category_codes,
    moments,
    normal_scores,
    quantiles,
    sample_rows,
    value_counts,
)
from mip.model import plan_from_dict, plan_to_dict

cells = st.one_of(st.none(), st.floats(-1e6, 1e6, width=32))


def cut(values: np.ndarray, ends: list[int]) -> list[np.ndarray]:
    return np.split(values, sorted(end % (len(values) + 1) for end in ends))


@given(values=st.lists(cells, min_size=1, max_size=60), ends=st.lists(st.integers(0, 99)))
def test_moments_of_chunks_are_those_of_the_whole(values, ends):
    column = np.array([[np.nan if cell is None else cell] for cell in values])
    stats, known = moments(cut(column, ends)), column[~np.isnan(column)]
    assert stats.known.tolist() == [len(known)]
    assert stats.missing.tolist() == [len(column) - len(known)]
    if len(known):
        np.testing.assert_allclose(stats.mean[0], known.mean(), rtol=1e-9, atol=1e-9)
        squares = ((known - known.mean()) ** 2).sum()
        np.testing.assert_allclose(stats.squares[0], squares, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("offset", [0, 1e9, -1e9, 1e12])
@pytest.mark.parametrize("chunk", [1, 7, 1_000, 300_000])
def test_a_large_offset_does_not_hide_the_spread(offset, chunk):
    rows = min(300_000, 1_000 * chunk)
    small = np.random.default_rng(0).integers(-8, 9, rows) / 4.0
    stats = moments((small + offset)[k : k + chunk, None] for k in range(0, rows, chunk))
    np.testing.assert_allclose(stats.scale[0], small.std(), rtol=1e-16 * abs(offset) + 1e-9)
    np.testing.assert_allclose(
        stats.mean[0] - offset, small.mean(), atol=1e-13 * abs(offset) + 1e-9
    )


@pytest.mark.parametrize("value", [0.1, -0.1, 1e-30, 3e30])
def test_a_constant_column_has_the_spread_of_its_size_however_it_is_cut(value):
    column = np.full((1_000, 1), value)
    scales = moments(np.split(column, range(7, 1_000, 7))).scale.tolist()
    assert scales == [pytest.approx(abs(value), rel=1e-9)]
    assert moments(np.split(0 * column, [300])).scale.tolist() == [1.0]


@given(layout=layouts, seed=st.integers(0, 9), data=st.data())
def test_a_plan_of_shards_or_of_some_of_their_rows_is_that_of_the_table(layout, seed, data):
    rows = range(1, total(layout))
    gone = data.draw(st.sets(st.sampled_from(rows))) if rows else set()
    with tempfile.TemporaryDirectory() as folder:
        some_rows(Path(folder), layout, seed)
        read, streamed = (
            mip.adapt(mip.parse(SPEC), opened(folder).without(gone)).facts
            for opened in (mip.read, mip.stream)
        )
    numbers = [facts["branch"].pop("numbers") for facts in (read, streamed)]
    assert read["branch"] == streamed["branch"]
    assert numbers[0]["missing"] == numbers[1]["missing"]
    for a, b in (numbers, (read["head"], streamed["head"])):
        for name in ("mean", "std"):
            np.testing.assert_allclose(a[name], b[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("head", ["binary", "multiclass"])
def test_classes_of_shards_are_those_of_the_table(head, tmp_path):
    kind = {"binary": ["no", "yes"], "multiclass": ["a", "b", "c", "no", "yes"]}[head]
    target = [kind[k % len(kind)] for k in range(15)]
    table = pa.table({"x": np.arange(15.0), "y": target})
    written(tmp_path, table, [[1, 4], [2, 8]])
    numbers = '[branch.x]\nkind = "continuous"\ncolumns = ["x"]\n'
    spec = mip.parse(f'{numbers}[head]\nkind = "{head}"\ncolumn = "y"\n')
    read, streamed = (mip.adapt(spec, rows) for rows in (mip.read(tmp_path), mip.stream(tmp_path)))
    assert read.facts["head"] == streamed.facts["head"]
    assert str(kind[-1]) in json.dumps(streamed.facts["head"])


def test_words_are_counted_over_chunks(tmp_path):
    column = pa.array(["b", "a", None, "", "b", "b", " a ", "c"])
    written(tmp_path, pa.table({"w": column}), [[2, 3], [3]])
    shards = mip.stream(tmp_path)
    assert (
        value_counts(shards, "w")
        == {"a": 2, "b": 3, "c": 1}
        == value_counts(mip.read(tmp_path), "w")
    )
    for least, expected in ((1, ["a", "b", "c"]), (2, ["a", "b"]), (3, ["b"])):
        assert Categorical(["w"], min_count=least).adapt(shards) == {"words": [expected]}
    fresh = Categorical(["w"]).unseen({"words": [["a"]]}, shards)
    assert list(fresh) == [("w", ["b", "c"])]


@given(vocabulary=st.lists(st.sampled_from("abcd"), unique=True), seed=st.integers(0, 9))
def test_places_are_those_of_the_vocabulary(vocabulary, seed):
    column = np.random.default_rng(seed).choice(["a", "b", "c", "e", ""], 20)
    expected = [vocabulary.index(word) if word in vocabulary else -1 for word in column]
    for cells in (pd.Series(column), pd.Series(column).astype("category"), pd.Series(list(column))):
        rows = mip.from_frame(pd.DataFrame({"w": cells}))
        assert category_codes(rows, "w", vocabulary).tolist() == expected


# Quantiles.


def of(**columns) -> mip.Table:
    return mip.from_frame(pd.DataFrame(columns))


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=257))
def test_quantiles_of_few_rows_are_their_values(values):
    assert quantiles(np.array([values]).T, 257) == [sorted(values)]


def test_quantiles_of_many_rows_are_near_and_the_same_however_they_are_cut(tmp_path):
    values = np.random.default_rng(0).gamma(2.0, size=250_000)
    values[::10] = np.nan
    table = pa.table({"x": values, "y": -values})
    written(tmp_path / "one", table, [[250_000]])
    written(tmp_path / "two", table, [[999, 100_001], [149_000]])
    kind = Continuous(["x", "y"], scale="quantile")
    facts, other_facts = (kind.adapt(mip.stream(tmp_path / name)) for name in ("one", "two"))
    assert facts == other_facts == kind.adapt(mip.read(tmp_path / "one"))
    assert facts["missing"] == [25_000, 25_000]
    columns = facts["quantiles"]
    levels = np.linspace(0, 1, 257)[5:-5]
    exact = np.nanquantile(values, levels)
    np.testing.assert_allclose(np.array(columns[0])[5:-5], exact, rtol=0.03)
    np.testing.assert_allclose(columns[1], -np.array(columns[0])[::-1])


def test_a_sample_is_of_so_many_rows_in_their_order_and_counts_all_cells():
    values = np.where(np.arange(5_000) % 5 == 0, np.nan, np.arange(5_000.0))
    rows, cells = np.arange(5_000), np.stack([values, np.arange(5_000)], axis=1)
    drawn, stats = sample_rows([(rows, cells)], n_rows=500)
    assert drawn.shape == (500, 2)
    assert stats.missing.tolist() == [1_000, 0]
    assert (np.diff(drawn[:, 1]) > 0).all()
    assert np.histogram(drawn[:, 1], bins=5, range=(0, 5_000))[0].min() > 60
    again, _ = sample_rows([(rows[:999], cells[:999]), (rows[999:], cells[999:])], n_rows=200)
    assert {*again[:, 1]} < {*drawn[:, 1]}


def encoded(values, train=None) -> np.ndarray:
    kind = Continuous(["x"], scale="quantile")
    facts = json.loads(json.dumps(kind.adapt(of(x=values if train is None else train))))
    return kind.encode(facts, of(x=values))[:, 0].numpy()


@pytest.mark.parametrize("rows", [300, 20_000])
def test_ranks_are_about_normal_numbers(rows):
    scores = encoded(np.random.default_rng(1).lognormal(3, 2, rows))
    assert abs(np.median(scores)) < 0.02
    assert abs(scores.std() - 1) < 0.1
    shares = [(scores < mark).mean() for mark in (-2, -1, 1, 2)]
    np.testing.assert_allclose(shares, [0.0228, 0.1587, 0.8413, 0.9772], atol=0.01)


@given(
    train=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=400),
    fresh=st.lists(st.floats(-2e6, 2e6, width=32), min_size=1, max_size=30),
)
def test_ranks_keep_the_order_and_stay_within_bounds(train, fresh):
    values = encoded(sorted(fresh), train)
    assert (np.diff(values) >= -1e-5).all()
    assert (np.abs(values) < 5.3).all()


def test_missing_constant_and_unknown_columns_are_defined():
    nan = float("nan")
    assert np.isnan(encoded([1.0, nan, 2.0])).tolist() == [False, True, False]
    np.testing.assert_allclose(encoded([3.0, 4.0, 5.0], [4.0] * 6), [-5.2, 0, 5.2], atol=0.01)
    np.testing.assert_allclose(encoded([4.0, 4.0], [4.0]), [0, 0], atol=1e-6)
    assert np.isnan(encoded([3.0, nan], [nan, nan])).all()
    assert normal_scores(np.array([]), [1.0, 2.0]).shape == (0,)


def test_equal_numbers_have_the_middle_of_their_ranks():
    values = encoded([0.0, 1.0, 2.0], [0.0] * 50 + [1.0] * 30 + [2.0] * 20)
    middles = torch.special.ndtri(torch.tensor([0.25, 0.65, 0.9])).numpy()
    np.testing.assert_allclose(values, middles, atol=0.05)


@given(values=st.lists(cells, min_size=1, max_size=40), index=st.lists(st.integers(0, 99)))
def test_ranks_encode_row_by_row(values, index):
    rows, positions = of(x=pd.array(values, dtype="Float64")), [k % len(values) for k in index]
    kind = Continuous(["x"], scale="quantile")
    facts = kind.adapt(rows)
    scores = kind.encode(facts, rows.take(positions))
    assert bits(scores) == bits(kind.encode(facts, rows)[positions])


def test_ranks_survive_a_model_file(tmp_path):
    some_rows(tmp_path / "data")
    shards = mip.stream(tmp_path / "data").without([])
    with pytest.warns(mip.errors.MipWarning, match="target 'y' missing"):
        rows, _ = mip.model.clean(mip.parse(SPEC), shards)
    train = '[train]\nepochs = 2\nbatch_size = 4\noptimizer = { kind = "adamw", lr = 1e-2 }\n'
    ended = mip.run(
        mip.parse(SPEC + train), mip.model.Parts(rows, *mip.split(rows, (0, 1))[:1] * 2)
    )
    mip.save(tmp_path / "model.safetensors", ended.plan, ended.state)
    again = mip.load(tmp_path / "model.safetensors")
    assert (
        again.plan == ended.plan == plan_from_dict(json.loads(json.dumps(plan_to_dict(ended.plan))))
    )
    assert again(shards).equals(ended.predict(shards))
    assert again(shards)["value"].notna().all()


@given(st.lists(st.integers(-50, 50), max_size=400), st.integers(2, 12))
def test_bins_rise_span_the_numbers_and_are_few(values, bins):
    column = np.array(values, dtype=float)[:, None]
    (edges,) = bin_edges(np.append(column, [[np.nan]], axis=0), bins)
    assert edges == sorted(set(edges))
    assert set(edges) <= set(values)
    assert len(edges) <= max(bins + 1, 0)
    if values:
        assert (edges[0], edges[-1]) == (min(values), max(values))
    if len(set(values)) <= bins + 1:
        assert edges == sorted(set(values))


def test_a_frequent_number_takes_one_bin_and_leaves_the_others_to_the_rest():
    rare = np.arange(1, 1001.0)
    (edges,) = bin_edges(np.append(np.zeros(99_000), rare)[:, None], 32)
    inside = np.histogram(rare, edges)[0]
    assert len(edges) == 33
    assert inside.max() <= 2 * 1000 / 31
    # Quantiles would give them one bin or two.
    assert len(set(quantiles(np.append(np.zeros(99_000), rare)[:, None], 33)[0])) <= 3


def test_bins_of_numbers_all_different_hold_as_many_each():
    (edges,) = bin_edges(np.random.default_rng(0).normal(size=(9600, 1)), 32)
    assert np.histogram(np.random.default_rng(0).normal(size=9600), edges)[0] == pytest.approx(
        np.full(32, 300), abs=2
    )
