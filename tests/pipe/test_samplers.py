"""Samplers: an epoch's rows are a function of (seed, epoch), however they are drawn and shared."""

from __future__ import annotations

import re
from itertools import islice

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import within
from hypothesis import assume, given
from hypothesis import strategies as st
from toolz import concat, pipe

import mip
from mip.errors import DataError
from mip.pipe import shard

OPTIONS = {
    "sequential": lambda rows: {},
    "shuffled": lambda rows: {"shuffle": True},
    "fewer": lambda rows: {"shuffle": True, "num_samples": max(1, rows // 2)},
    "uniform": lambda rows: {"replacement": True},
    "many": lambda rows: {"replacement": True, "num_samples": 2 * rows + 1},
    "weighted": lambda rows: {"weights": torch.arange(1, rows + 1)},
    "weighted few": lambda rows: {"weights": torch.arange(1, rows + 1), "num_samples": 3},
    "grouped": lambda rows: {"groups": torch.arange(rows) % 3},
    "custom": lambda rows: {"order": lambda n, epoch: (torch.arange(n) + epoch) % n},
}
kinds = st.sampled_from(sorted(OPTIONS))
sizes = st.integers(1, 12)


def numbers(kind, rows, size, drop_last=False, seed=0, more=()):
    sampled = mip.sample(seed=seed, **OPTIONS[kind](rows))
    return pipe(torch.arange(rows), sampled, mip.batch(size, drop_last), *more)


def lists(batches):
    return [batch.tolist() for batch in batches]


def epochs(batches, count=1, first=0):
    """The rows of some epochs, a list for each."""
    stream = batches.iter_from(first * len(batches))
    return [list(concat(lists(islice(stream, len(batches))))) for _ in range(count)]


@given(kind=kinds, rows=st.integers(1, 20), size=sizes, drop_last=st.booleans())
def test_the_length_is_the_number_of_batches(kind, rows, size, drop_last):
    batches = numbers(kind, rows, size, drop_last)
    assume(len(batches))
    assert len(batches) == len(list(batches))


@given(
    kind=kinds,
    rows=st.integers(1, 20),
    size=sizes,
    step=st.integers(0, 30),
    drop_last=st.booleans(),
)
def test_standing_before_a_step_equals_dropping_the_batches_before_it(
    kind, rows, size, step, drop_last
):
    batches = numbers(kind, rows, size, drop_last)
    assume(len(batches))
    expected = lists(islice(batches.iter_from(0), step, step + 4))
    assert lists(islice(batches.iter_from(step), 4)) == expected
    threads = [mip.transform(torch.clone, workers=2), mip.prefetch(2)]
    assert (
        lists(islice(numbers(kind, rows, size, drop_last, more=threads).iter_from(step), 4))
        == expected
    )


@pytest.mark.parametrize("kind", sorted({*OPTIONS} - {"sequential", "custom"}))
def test_a_sampler_is_a_function_of_seed_and_epoch(kind):
    drawn = [epochs(numbers(kind, 40, 7, seed=seed), 3) for seed in (0, 1)]
    assert len({tuple(epoch) for epoch in concat(drawn)}) == 6
    torch.manual_seed(3)
    assert epochs(numbers(kind, 40, 5, seed=1), 1, first=2) == drawn[1][2:]


@pytest.mark.parametrize("kind", sorted({*OPTIONS} - {"weighted", "weighted few"}))
def test_an_empty_source_has_no_batches(kind):
    batches = mip.sample(**OPTIONS[kind](0))(torch.arange(0))
    assert len(batches) == 0
    with pytest.raises(DataError, match="the pipe has no batches: its source has no rows"):
        iter(batches)


# Weights.


@given(st.lists(st.sampled_from([0.0, 0.5, 3.0]), min_size=1, max_size=20).filter(any), sizes)
def test_a_weight_of_zero_is_never_drawn(weights, draws):
    batches = pipe(torch.arange(len(weights)), mip.sample(weights=weights, num_samples=draws))
    assert len(batches) == draws
    assert all(weights[row] > 0 for row in concat(epochs(batches, 3)))


def test_rows_are_drawn_as_often_as_their_weights_say():
    weights = torch.tensor([1.0, 0.0, 2.0, 5.0])
    batches = pipe(torch.arange(4), mip.sample(weights=weights, num_samples=20_000), mip.batch(500))
    counts = np.bincount(epochs(batches)[0], minlength=4)
    assert counts / 20_000 == pytest.approx([0.125, 0, 0.25, 0.625], abs=0.015)


def test_weights_may_be_as_large_as_numbers_are():
    batches = pipe(
        torch.arange(3), mip.sample(weights=[1e308, 0, 1e308], num_samples=50), mip.batch(50)
    )
    assert set(epochs(batches)[0]) == {0, 2}


@pytest.mark.parametrize(
    ("weights", "error"),
    [
        ([1, -2], "sample: weights must be finite and >= 0, but row 1 has -2"),
        ([1, float("nan")], "sample: weights must be finite and >= 0, but row 1 has nan"),
        ([float("inf")], "sample: weights must be finite and >= 0, but row 0 has inf"),
        ([0, 0], "sample: no weight is above 0"),
        ([], "sample: no weight is above 0"),
        ([[1.0]], "sample: weights must be one number per row, not [1, 1]"),
    ],
)
def test_weights_that_cannot_be_drawn_from_are_refused(weights, error):
    with pytest.raises(DataError, match=f"^{re.escape(error)}$"):
        mip.sample(weights=weights)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"weights": [1, 1]}, "sample: 2 weights for 3 rows"),
        ({"groups": ["a"]}, "sample: 1 groups for 3 rows"),
        ({"num_samples": 4}, "sample: 4 samples from 3 rows need replacement=True"),
        (
            {"order": lambda rows, epoch: [0, 3]},
            "index 3 is out of range for 3 rows, counted from 0",
        ),
        (
            {"order": lambda rows, epoch: [-1]},
            "index -1 is out of range for 3 rows, counted from 0",
        ),
        ({"order": lambda rows, epoch: [0.5]}, "indices must be int64 [n], not float32 [1]"),
    ],
)
def test_a_sampler_that_does_not_fit_is_refused_when_the_pipe_is_laid_out(options, error):
    batches = pipe(torch.arange(3), mip.sample(**options), mip.prefetch(2))
    for laid_out in (len, iter, lambda batches: batches.iter_from(0)):
        with pytest.raises(DataError, match=f"^{re.escape(error)}$"):
            laid_out(batches)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"groups": [0], "weights": [1]}, "groups and weights"),
        ({"groups": [0], "num_samples": 1}, "groups and num_samples"),
        ({"order": len, "replacement": True}, "order and replacement"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options, names):
    with pytest.raises(DataError, match=f"^sample: {names} exclude each other$"):
        mip.sample(**options)


def test_the_number_of_samples_is_positive():
    with pytest.raises(ValueError, match="'num_samples' must be > 0"):
        mip.sample(num_samples=0)


@pytest.mark.parametrize(
    "labels",
    [
        ["a", "b", "a", "a", None],
        np.array([2.0, 1.0, 2.0, 2.0, np.nan]),
        torch.tensor([7, 0, 7, 7, 3]),
        pd.Series(["a", "b", "a", "a", ""]),
    ],
)
def test_balance_weighs_a_row_by_the_size_of_its_class(labels):
    assert mip.balanced_weights(labels).tolist() == [1 / 3, 1, 1 / 3, 1 / 3, 1]


def test_balanced_classes_are_drawn_alike():
    labels = np.array(["rare"] * 5 + ["common"] * 95)
    draw = mip.sample(weights=mip.balanced_weights(labels), num_samples=10_000)
    rows = epochs(pipe(torch.arange(100), draw, mip.batch(1000)))[0]
    assert (labels[rows] == "rare").mean() == pytest.approx(0.5, abs=0.02)


def test_labels_of_two_columns_are_refused():
    with pytest.raises(DataError, match=r"^sample: labels must be one per row, not \[2, 1\]$"):
        mip.balanced_weights(torch.zeros(2, 1))


# With and without replacement.


def test_without_replacement_no_row_comes_twice_and_all_come_in_time():
    seen = epochs(pipe(torch.arange(20), mip.sample(True, num_samples=8), mip.batch(3)), 12)
    assert all(len(set(epoch)) == len(epoch) == 8 for epoch in seen)
    assert set(concat(seen)) == set(range(20))


def test_with_replacement_rows_come_as_chance_has_it():
    draw = mip.sample(replacement=True, num_samples=20_000)
    counts = np.bincount(epochs(pipe(torch.arange(4), draw, mip.batch(999)))[0], minlength=4)
    assert counts / 20_000 == pytest.approx([0.25] * 4, abs=0.015)
    assert sum(counts) == 20_000


# Groups.


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=30), st.integers(0, 3))
def test_the_rows_of_a_group_come_one_after_another(groups, seed):
    batches = pipe(torch.arange(len(groups)), mip.sample(seed=seed, groups=groups), mip.batch(4))
    for epoch in epochs(batches, 2):
        assert sorted(epoch) == list(range(len(groups)))
        labels = [groups[row] for row in epoch]
        turns = [
            word for word, before in zip(labels, [None, *labels], strict=False) if word != before
        ]
        assert len(turns) == len(set(groups))


def test_groups_and_the_rows_in_them_are_shuffled():
    batches = pipe(torch.arange(30), mip.sample(groups=torch.arange(30) // 10), mip.batch(30))
    seen = epochs(batches, 20)
    assert {epoch[0] // 10 for epoch in seen} == {0, 1, 2}
    within_first = {tuple(row for row in epoch if row < 10) for epoch in seen}
    assert len(within_first) == 20


# Custom orders.


def test_an_order_that_changes_its_length_is_an_error_where_it_happens():
    def shrinking(rows, epoch):
        return torch.arange(rows - epoch)

    stream = pipe(
        torch.arange(4), mip.sample(order=shrinking), mip.batch(2), mip.prefetch(2)
    ).iter_from(0)
    assert lists(islice(stream, 2)) == [[0, 1], [2, 3]]
    error = "^sample: expected an order of 4 indices, got 3"
    with pytest.raises(DataError, match=error) as caught:
        within(5, lambda: next(stream))
    assert caught.value.__notes__ == ["in epoch 1"]


def test_an_order_that_raises_does_not_hang():
    def late(rows, epoch):
        return torch.arange(rows) if not epoch else next(iter(()))

    stream = pipe(torch.arange(2), mip.sample(order=late), mip.transform(len, workers=2)).iter_from(
        0
    )
    assert list(islice(stream, 2)) == [1, 1]
    with pytest.raises(DataError, match="StopIteration in epoch 1"):
        within(5, lambda: next(stream))


# Subsets.


@given(data=st.data(), rows=st.integers(1, 20), size=sizes, shuffle=st.booleans())
def test_a_subset_is_the_source_of_its_rows(data, rows, size, shuffle):
    indices = data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=20))
    stages = [mip.sample(shuffle), mip.batch(size)]
    restricted = pipe(torch.arange(rows) * 10, mip.subset(indices), *stages)
    expected = pipe(torch.tensor(indices, dtype=torch.int64) * 10, *stages)
    assert len(restricted) == len(expected)
    assert lists(restricted) == lists(expected)


def test_subsets_nest_and_errors_name_the_rows_of_the_file():
    table = mip.from_frame(pd.DataFrame({"x": range(10)})).take([9, 7, 5, 3])
    kept = pipe(table, mip.subset([3, 1, 0]), mip.subset(np.array([2, 0])), mip.batch(2))
    assert [rows.row_ids.tolist() for rows in kept] == [[9, 3]]
    with pytest.raises(ZeroDivisionError) as caught:
        list(mip.transform(lambda rows: 1 / 0)(kept))
    assert caught.value.__notes__ == ["in rows 9, 3 of epoch 0"]


def test_a_subset_of_a_tree_of_tensors_and_its_weights():
    source = {"x": torch.arange(5), "y": torch.arange(5) * 2}
    batches = pipe(source, mip.subset([4, 2]), mip.sample(weights=[0, 1]), mip.batch(2))
    assert [batch["y"].tolist() for batch in batches] == [[4, 4]]


@pytest.mark.parametrize("indices", [[3], [-1], [True, False], [[0]]])
def test_indices_that_the_source_lacks_are_refused(indices):
    with pytest.raises(DataError, match=r"^(index|indices) "):
        mip.subset(indices)(torch.arange(3))


# Ranks.


@given(
    kind=kinds,
    rows=st.integers(1, 20),
    size=sizes,
    ranks=st.integers(1, 4),
    step=st.integers(0, 9),
    drop_last=st.booleans(),
)
def test_the_ranks_share_every_batch_evenly_and_in_its_order(
    kind, rows, size, ranks, step, drop_last
):
    whole = numbers(kind, rows, size, drop_last)
    assume(len(whole))
    shared = [numbers(kind, rows, size, drop_last, more=[shard(k, ranks)]) for k in range(ranks)]
    assert {len(part) for part in shared} == {len(whole)}
    streams = [lists(islice(part.iter_from(step), 4)) for part in shared]
    for batch, *parts in zip(lists(islice(whole.iter_from(step), 4)), *streams, strict=True):
        assert list(concat(parts)) == batch
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_shard_is_where_it_stands_on_the_pipe():
    rows, stages = torch.arange(7), [mip.batch(3), shard(1, 2), mip.subset([5, 4, 3, 2])]
    for order in (stages, stages[::-1]):
        assert lists(pipe(rows, *order)) == [[3], []]


@pytest.mark.parametrize(("rank", "ranks"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_is_one_of_the_ranks(rank, ranks):
    with pytest.raises(ValueError, match=r"'rank' must be from 0 to 1|'ranks' must be > 0"):
        shard(rank, ranks)(torch.arange(3))


def test_all_rows_are_collected_whatever_the_sampler_and_the_rank():
    drawn = pipe(torch.arange(5), mip.sample(weights=[1, 0, 0, 0, 0]))
    drawn = pipe(drawn, mip.batch(2), shard(1, 2))
    assert mip.collect(drawn).tolist() == list(range(5))


def test_a_pipe_says_what_it_is():
    stages = [
        mip.subset(range(4)),
        mip.sample(weights=[1] * 4, num_samples=9),
        mip.batch(2, drop_last=True),
    ]
    assert repr(pipe(torch.arange(6), *stages, shard(1, 3), mip.prefetch(2))) == (
        "4 of 6 rows of int64 [] | Weighted(weights=4, seed=0, num_samples=9) | "
        "batch(2, drop_last=True) | shard(1, 3) | Prefetch(batches=2)"
    )
