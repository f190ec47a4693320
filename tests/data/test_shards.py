"""Shards: however Parquet files are cut, their rows are those that `read` gives."""

from __future__ import annotations

import datetime
import gc
import random
import re
import tempfile
import threading
import time
import warnings
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from attrs import evolve
from conftest import BRANCHES, bits, draw_photos, frame_of, spec_of, within
from hypothesis import given
from hypothesis import strategies as st
from test_reading import mutant, refused
from toolz import concat, pipe
from torch.utils.data import DataLoader

import mip
from mip.cli import main
from mip.data import Shards
from mip.errors import DataError
from mip.model import clean
from mip.pipe import Datapipe, shard
from mip.runs.feeding import rows_pipe, train_pipe

layouts = st.lists(st.lists(st.integers(1, 7), max_size=3), min_size=1, max_size=3).filter(any)
"""Files as the sizes of their row groups; some have none."""


def written(folder: Path, table: pa.Table, layout) -> Path:
    """Write a table's rows as files of row groups of these sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    begin = 0
    for number, sizes in enumerate(layout):
        with pq.ParquetWriter(folder / f"part-{number}.parquet", table.schema) as writer:
            for size in sizes:
                writer.write_table(table.slice(begin, size))
                begin += size
    return folder


def every_kind(rows: int, seed: int = 0) -> pa.Table:
    """Rows with a column of every kind, cells missing here and there, as pandas writes them."""
    draw = random.Random(seed)

    def cells(*values):
        return [draw.choice([None, *values]) for _ in range(rows)]

    dates = [datetime.date(2020, 1, 1), datetime.date(1969, 7, 20)]
    frame = pd.DataFrame(
        {
            "text": cells("", "a", "1.0", "ü"),
            "class": pd.Categorical(cells("x", "y", "z")),
            "nullable": pd.array(cells(2**53 + 1, 3), dtype="Int64"),
            "bool": cells(True, False),
            "date": cells(*dates),
            "moment": pd.to_datetime(pd.Series(cells("2020-01-01 10:00", "1999-01-01 00:00"))),
            "photos": cells(["a.png"], ["b.png", "c.png"], []),
            "float": [draw.choice([0.5, float("nan"), 3.0]) for _ in range(rows)],
            "whole": [draw.randrange(5) for _ in range(rows)],
            "y": [draw.choice([1.5, float("nan"), 2.5]) for _ in range(rows)],
        },
        index=pd.Index([f"r{k}" for k in range(rows)], name="key"),
    )
    table = pa.Table.from_pandas(frame)
    plain = {
        "dictionary": pa.array(cells("p", "q", ""), pa.string()).dictionary_encode(),
        "large": pa.array(cells("", "l", "m"), pa.large_string()),
        "long": pa.array(cells(2**53 + 1, 2**53 + 3, -1), pa.int64()),
        "unsigned": pa.array(cells(2**63 + 1, 0), pa.uint64()),
        "small": pa.array(cells(1, 2), pa.int8()),
        "bytes": pa.array(cells(b"", b"GIF89a"), pa.binary()),
    }
    for name, column in plain.items():
        table = table.append_column(name, column)
    return table


def content(table: mip.Table) -> dict[str, list]:
    """All that can be asked of a table's columns, by column."""
    columns = {name: [table.cells(name)] for name in table.columns}
    for name, answers in columns.items():
        for look in (table.texts, table.numbers):
            with suppress(DataError):
                answers.append([*map(str, look(name))])
    return columns | {"": table.row_ids.tolist()}


def joined(chunks) -> mip.Table:
    first, *others = chunks
    return first.concat(others)


def total(layout) -> int:
    return sum(map(sum, layout))


def orders(rows: int):
    return st.lists(st.integers(0, rows - 1), max_size=3 * rows)


@given(layout=layouts, seed=st.integers(0, 9), data=st.data())
def test_shards_hold_the_rows_that_read_gives(layout, seed, data):
    with tempfile.TemporaryDirectory() as folder:
        written(Path(folder), every_kind(total(layout), seed), layout)
        shards, table = mip.stream(folder), mip.read(folder)
        assert shards.columns == table.columns
        assert len(shards) == len(table)
        assert content(joined(shards.chunks())) == content(table)
        index = data.draw(orders(len(table)))
        assert content(shards.take(torch.tensor(index, dtype=torch.int64))) == content(
            table.take(index)
        )


def test_a_long_whole_number_keeps_its_digits_beside_a_missing_one(tmp_path):
    numbers = [2**53 + 1, 2**53 + 3, None, 2**53 + 5]
    for kind in (pa.int64(), pa.uint64()):
        written(tmp_path, pa.table({"id": pa.array(numbers, kind)}), [[2], [2]])
        want = ["" if number is None else str(number) for number in numbers]
        shards = mip.stream(tmp_path)
        for table in (mip.read(tmp_path), joined(shards.chunks()), shards.take(range(4))):
            assert table.texts("id").tolist() == want
            assert np.isnan(table.numbers("id")).tolist() == [False, False, True, False]


SPEC = """
[branch.numbers]
kind = "continuous"
columns = ["float", "whole", "small", "nullable"]
[branch.ranks]
kind = "continuous"
columns = ["float", "whole"]
scale = "quantile"
[branch.words]
kind = "categorical"
columns = ["text", "class", "dictionary", "large", "bool", "date", "moment", "long"]
[head]
kind = "regression"
column = "y"
"""


def some_rows(folder: Path, layout=((4, 3), (), (5, 1, 2), (5,)), seed: int = 0) -> Path:
    """Write 20 rows of every kind; the first has a target."""
    table = every_kind(total(layout), seed)
    position = table.schema.get_field_index("y")
    target = table.column("y").to_pylist()
    return written(folder, table.set_column(position, "y", pa.array([1.5, *target[1:]])), layout)


def inputs(plan):
    """Encode what is read, without targets, of which some are missing."""
    return lambda rows: plan.encode(rows.select(set(rows.columns) - {"y"}))


@given(layout=layouts, seed=st.integers(0, 9), data=st.data())
def test_rows_encode_alike_as_they_are_read_and_when_taken(layout, seed, data):
    with tempfile.TemporaryDirectory() as folder:
        some_rows(Path(folder), layout, seed)
        shards, table = mip.stream(folder), mip.read(folder)
        plan = mip.adapt(mip.parse(SPEC), table)
        index = data.draw(orders(len(table)))
        rows = shards.map(inputs(plan)).take(index)
        assert bits(rows) == bits(inputs(plan)(table.take(index)))


def test_a_row_group_of_more_rows_than_a_chunk_is_read_in_chunks(tmp_path):
    rows = 70_000
    cells = {"x": np.arange(rows), "w": [str(k % 3) for k in range(rows)]}
    pq.write_table(pa.table(cells), tmp_path / "x.parquet", row_group_size=rows)
    shards = mip.stream(tmp_path)
    assert [len(chunk) for chunk in shards.chunks()] == [32_768, 32_768, 4_464]
    index = np.random.default_rng(0).permutation(rows)[:999]
    assert shards.take(index).numbers("x").tolist() == index.tolist()
    part = shards.without(range(1, rows, 2))
    assert part.take(index // 2).numbers("x").tolist() == (index // 2 * 2).tolist()
    assert part.take(index // 2).texts("w").tolist() == [str(k % 3) for k in index // 2 * 2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return some_rows(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def shards(folder) -> Shards:
    return mip.stream(folder, window=6)


def test_rows_can_be_taken_by_an_array_that_cannot_be_written(shards):
    index = np.array([3, 1])
    index.setflags(write=False)
    assert shards.take(index).row_ids.tolist() == [3, 1]


def test_folds_of_shards_are_refused(shards):
    with pytest.raises(DataError, match=r"^folds: shards must be read into memory: mip.read$"):
        mip.folds(shards)


def test_a_sampler_that_shards_cannot_have_is_refused_before_any_is_read(shards):
    with pytest.raises(DataError, match=r"^sample: shards are read in order or shuffled; "):
        len(pipe(shards, mip.sample(weights=torch.ones(20)), mip.batch(3)))


@pytest.mark.parametrize("index", [[20], [-1], [0, 20, 3], [-21]])
def test_a_place_that_is_none_is_an_index_error(shards, index):
    with pytest.raises(IndexError, match=r"position out of range for 20 rows$"):
        shards.take(index)


def test_a_chunk_of_a_column_has_no_other(tmp_path):
    pq.write_table(pa.table({"a": [1], "a.b": [2], "c": [3]}), tmp_path / "x.parquet")
    assert [chunk.columns for chunk in mip.stream(tmp_path).chunks(["a"])] == [["a"]]


def test_a_bad_cell_is_named_by_its_file_and_its_row_there(tmp_path):
    cells = [["1", "2", "3"], ["4", "x", "5", "6"]]
    for k, texts in enumerate(cells):
        table = pa.table({"area": texts})
        pq.write_table(table, tmp_path / f"part-{k}.parquet", row_group_size=1)
    shards = mip.stream(tmp_path)
    text = f"{tmp_path.name} row 4 (row 1 of part-1.parquet), column 'area': 'x' is not a number"
    even, rest = shards.divide(lambda group: group.row_ids() % 3, 2)[0], shards.without([0, 3])
    chunks = [*rest.chunks(), shards.take([1, 4, 6]), shards.take([6, 4, 0]), *shards.chunks()]
    bad = [chunk for chunk in chunks if "x" in chunk["area"].tolist()]
    assert len(bad) == 4
    for chunk in bad:
        with pytest.raises(DataError, match=re.escape(text)):
            chunk.numbers("area")
    assert [chunk.numbers("area").tolist() for chunk in even.chunks() if len(chunk)] == [
        [1.0],
        [4.0],
        [6.0],
    ]


def test_the_file_of_a_bad_cell_is_not_named_if_there_is_one(tmp_path):
    pq.write_table(pa.table({"area": ["1", "x"]}), tmp_path / "houses.parquet", row_group_size=1)
    _, second = mip.stream(tmp_path / "houses.parquet").chunks()
    with pytest.raises(DataError, match=r"^houses\.parquet row 1, column 'area': 'x' is not a"):
        second.numbers("area")


def test_a_missing_column_is_named(shards):
    for look in (
        lambda: mip.split(shards, (0.5, 0.5), key="texts"),
        lambda: mip.split(shards, column="texts"),
        lambda: mip.adapt(mip.parse(SPEC.replace('"float"', '"flaot"')), shards),
    ):
        with pytest.raises(mip.MipError, match=r"texts|did you mean 'float'"):
            look()


# In a pipe.


def row_ids_of(batches) -> list[list[int]]:
    return [batch.row_ids.tolist() for batch in batches]


def epochs(batches, count) -> list[list[int]]:
    stream = batches.iter_from(0)
    return [[*concat(row_ids_of(islice(stream, len(batches))))] for _ in range(count)]


@given(
    layout=layouts,
    window=st.integers(1, 70),
    size=st.integers(1, 70),
    seed=st.integers(0, 3),
    shuffle=st.booleans(),
)
def test_an_epoch_has_every_row_once(layout, window, size, seed, shuffle):
    with tempfile.TemporaryDirectory() as folder:
        written(Path(folder), pa.table({"x": range(total(layout))}), layout)
        shards = mip.stream(folder, window)
        batches = pipe(shards, mip.sample(shuffle, seed), mip.batch(size))
        assert len(batches) == -(-len(shards) // size)
        for rows in epochs(batches, 3):
            assert sorted(rows) == [*range(len(shards))]
            assert shuffle or rows == sorted(rows)
        for batch in batches:
            assert batch.numbers("x").tolist() == batch.row_ids.tolist()
            assert len(batch) in (size, len(shards) % size)


@given(
    layout=layouts,
    window=st.integers(1, 25),
    size=st.integers(2, 30),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    ranks=st.integers(1, 3),
)
def test_standing_before_any_step_equals_dropping_the_batches_before(
    layout, window, size, shuffle, drop_last, ranks
):
    with tempfile.TemporaryDirectory() as folder:
        written(Path(folder), pa.table({"x": range(total(layout))}), layout)
        shards = mip.stream(folder, window)
        batches = pipe(shards, mip.sample(shuffle, 1), mip.batch(size, drop_last))
        if not len(batches):
            with pytest.raises(DataError, match="the pipe has no batches"):
                batches.iter_from(2)
            return
        assert len(list(batches)) == len(batches)
        want = row_ids_of(islice(batches.iter_from(0), 2 * len(batches)))
        parts = [shard(rank, ranks)(batches) for rank in range(ranks)]
        for step in range(2 * len(batches)):
            assert next(batches.iter_from(step)).row_ids.tolist() == want[step]
        for step in {0, len(want) // 2, len(want) - 1} if want else ():
            expected = [next(part.iter_from(step)).row_ids.tolist() for part in parts]
            assert [*concat(expected)] == want[step]
            assert max(map(len, expected)) - min(map(len, expected)) <= 1


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Shards:
    folder = tmp_path_factory.mktemp("many")
    written(folder, pa.table({"x": range(2_000)}), [[100] * 5] * 4)
    return mip.stream(folder, window=400)


def test_the_order_is_a_function_of_seed_and_epoch(many):
    def order(seed, shards=many, size=64):
        orders = epochs(pipe(shards, mip.sample(True, seed), mip.batch(size)), 3)
        return [*map(tuple, orders)]

    assert order(5) == order(5, size=7)
    assert len({*order(5), *order(6)}) == 6


def test_every_epoch_shuffles_a_row_group_anew(tmp_path):
    written(tmp_path, pa.table({"x": range(50)}), [[50]])
    shards = mip.stream(tmp_path)
    batches = [pipe(shards, mip.sample(True, seed), mip.batch(9)) for seed in (1, 2)]
    assert len({tuple(rows) for source in batches for rows in epochs(source, 3)}) == 6


def test_rows_mix_within_and_across_row_groups(many):
    orders = np.array(epochs(pipe(many, mip.sample(True, 5), mip.batch(64)), 3))
    windows = (rows := orders[0]).reshape(5, 400)
    assert len({tuple({*(order[:400] // 100)}) for order in orders}) == 3
    for window in windows // 100:
        assert (np.bincount(window, minlength=20) > 0).sum() == 4
        # Of four row groups, neighbours are of one in a quarter of the cases.
        assert 0.15 < np.mean(window[1:] == window[:-1]) < 0.35
    assert np.mean(np.diff(rows) == 1) < 0.02
    assert len({tuple(sorted(set(window))) for window in windows // 100}) == 5
    assert sorted(set(windows[0] // 100)) not in [[*range(k, k + 4)] for k in range(17)]


def test_batches_are_the_same_however_they_are_made(folder):
    shards = mip.stream(folder, window=6)
    plan = mip.adapt(mip.parse(SPEC), shards)
    order = [mip.sample(True, 3), mip.batch(4)]
    encode, keep = mip.transform(inputs(plan)), mip.transform(lambda rows: rows)
    mapped = shards.map(inputs(plan))
    ways = [
        pipe(shards, *order, encode),
        pipe(shards, *order, mip.transform(inputs(plan), workers=2)),
        pipe(shards, *order, mip.prefetch(2), encode, mip.prefetch(1)),
        pipe(mapped, *order),
        pipe(mapped, *order, mip.transform(lambda rows: rows, workers=3), keep),
        pipe(mapped, *order, mip.prefetch(3)),
    ]
    want, *others = [bits([*islice(way.iter_from(2), 11)]) for way in ways]
    assert all(other == want for other in others)
    assert len(want) > 11


def test_collected_rows_are_those_of_the_files_in_order(folder):
    table, shards = mip.read(folder), mip.stream(folder, window=6)
    plan = mip.adapt(mip.parse(SPEC), table)
    shuffled = pipe(shards.map(inputs(plan)), mip.sample(True, 2), mip.batch(3))
    assert bits(mip.collect(shuffled)) == bits(inputs(plan)(table))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("mapped", [False, True])
def test_a_data_loader_gives_the_batches_of_the_pipe(folder, workers, mapped):
    shards = mip.stream(folder, window=6)
    plan = mip.adapt(mip.parse(SPEC), shards)
    source = shards.map(inputs(plan)) if mapped else shards
    stages = [] if mapped else [mip.transform(inputs(plan))]
    batches = pipe(source, mip.sample(True, 1), mip.batch(3), *stages)
    loader = DataLoader(Datapipe(batches), batch_size=None, num_workers=workers)
    assert bits(within(60, lambda: [*loader])) == bits([*batches])


def watched(shards, monkeypatch) -> tuple[Shards, list[int]]:
    """Copy shards, and keep the first row's number of every row group that is read of them."""
    seen, plain, copy = [], Shards.chunks_of, evolve(shards)

    def chunks_of(self, group, columns=None):
        if self is copy:
            seen.append(group.first)
        return plain(self, group, columns)

    monkeypatch.setattr(Shards, "chunks_of", chunks_of)
    return copy, seen


@pytest.mark.parametrize("stages", [[], [mip.transform(len, workers=2)], [mip.prefetch(4)]])
def test_a_pass_reads_every_row_group_once_and_none_of_a_next_epoch(many, stages, monkeypatch):
    shards, seen = watched(many, monkeypatch)
    for _ in pipe(shards, mip.sample(True, 5), mip.batch(64), *stages):
        pass
    time.sleep(0.05)
    assert sorted(seen) == [*range(0, 2_000, 100)]


def test_standing_late_in_an_epoch_reads_no_window_before(many, monkeypatch):
    shards, seen = watched(many, monkeypatch)
    batches = pipe(shards, mip.batch(100))
    assert next(batches.iter_from(15)).row_ids.tolist() == [*range(1_500, 1_600)]
    assert min(seen) >= 1_200


def test_one_window_is_read_ahead_and_no_more(many, monkeypatch):
    shards, seen = watched(many, monkeypatch)
    stream = pipe(shards, mip.batch(400)).iter_from(0)
    next(stream)
    time.sleep(0.2)
    assert sorted(seen) == [*range(0, 800, 100)]


@pytest.mark.parametrize("stages", [[], [mip.transform(torch.clone, workers=2)], [mip.prefetch(2)]])
def test_a_stream_dropped_half_way_leaves_no_thread(many, stages):
    before = {*threading.enumerate()}
    mapped = many.map(lambda rows: torch.from_numpy(rows.numbers("x")))
    stream = pipe(mapped, mip.sample(True), mip.batch(50), *stages).iter_from(3)
    assert len(next(stream)) == 50
    del stream
    gc.collect()
    until = time.monotonic() + 5
    while {*threading.enumerate()} - before and time.monotonic() < until:
        time.sleep(0.01)
    assert not {*threading.enumerate()} - before


@pytest.mark.parametrize(
    ("order", "named"),
    [
        ({"weights": [1.0] * 20}, "Weighted(weights=20, seed=0, num_samples=None)"),
        ({"groups": [0] * 20}, "Grouped("),
        ({"replacement": True}, "WithReplacement(seed=0, num_samples=None)"),
        ({"num_samples": 5}, "WithoutReplacement(shuffle=False, seed=0, num_samples=5)"),
        ({"order": lambda rows, epoch: torch.arange(rows)}, "CustomOrder("),
    ],
)
def test_other_orders_are_refused(shards, order, named):
    batches = pipe(shards, mip.sample(**order), mip.batch(4))
    for run in (lambda: batches.iter_from(0), lambda: list(batches)):
        with pytest.raises(DataError) as caught:
            run()
        message = str(caught.value)
        assert message.startswith(f"sample: shards are read in order or shuffled; {named}")
        assert message.endswith(" needs mip.read")


def test_a_subset_of_shards_is_a_source(shards, folder):
    chosen = pipe(shards, mip.subset([19, 0, 7, 7]), mip.batch(3))
    assert row_ids_of(chosen) == [[19, 0, 7], [7]]
    odd = shards.without(range(0, 20, 2))
    assert pipe(odd, mip.subset([9, 0, 3]), mip.batch(3)).source.row_ids.tolist() == [19, 1, 7]


def test_an_error_in_a_stage_names_rows_by_their_number(shards):
    odd = shards.without(range(0, 20, 2))
    for source in (odd, odd.map(lambda rows: {"x": torch.zeros(len(rows))})):
        stream = pipe(source, mip.batch(3), mip.transform(lambda rows: 1 / 0)).iter_from(1)
        with pytest.raises(ZeroDivisionError) as caught:
            next(stream)
        assert caught.value.__notes__ == ["in rows 7, 9, 11 of epoch 0"]


# Cut into parts, and cleaned.


def numbered(folder: Path, layout) -> tuple[Shards, mip.Table]:
    rows = total(layout)
    words = ["train", "test", "val"] if rows % 2 else ["train", "valid"]
    cells = {"x": range(rows), "k": [str(k % 5) for k in range(rows)]}
    table = pa.table({**cells, "part": [words[k % len(words)] for k in range(rows)]})
    written(folder, table, layout)
    return mip.stream(folder), mip.read(folder)


def rows_of(part) -> list[int]:
    return [*concat(chunk.row_ids.tolist() for chunk in part.chunks())]


fractions = st.sampled_from([(0.5, 0.5), (0.7, 0.2, 0.1), (0.0, 1.0, 0.0)])


@given(layout=layouts, fractions=fractions, seed=st.integers(0, 9), key=st.sampled_from("kx"))
def test_parts_are_disjoint_cover_and_are_those_of_the_key(layout, fractions, seed, key):
    with tempfile.TemporaryDirectory() as folder:
        shards, table = numbered(Path(folder), layout)
        for options in ({}, {"key": key}):
            parts = mip.split(shards, fractions, seed, **options)
            rows = [*map(rows_of, parts)]
            assert sorted(concat(rows)) == [*range(len(table))]
            assert [len(part) for part in parts] == [*map(len, rows)]
            assert all(not len(p) for p, share in zip(parts, fractions, strict=True) if not share)
        want = [part.row_ids.tolist() for part in mip.split(table, fractions, seed, key=key)]
        assert rows == want
        want = [part.row_ids.tolist() for part in mip.split(table, column="part")]
        assert [rows_of(part) for part in mip.split(shards, column="part")] == want


def test_sizes_of_parts_are_near_the_fractions_and_a_part_can_be_cut_again(many):
    whole = many
    for seed in (0, 0, 1):
        parts = mip.split(whole, (0.6, 0.3, 0.1), seed)
        shares = [len(part) / len(whole) for part in parts]
        np.testing.assert_allclose(shares, [0.6, 0.3, 0.1], atol=0.08)
        whole = parts[0]
    parts, same, different = (rows_of(mip.split(many, (0.5, 0.5), seed)[0]) for seed in (1, 1, 2))
    assert parts == same != different


def test_other_rows_of_the_same_files_have_another_fingerprint(many):
    parts = [many, *mip.split(many, (0.5, 0.5), 1), *mip.split(many, (0.5, 0.5), 2)]
    assert len({part.digest()["x"] for part in parts}) == 5
    assert parts[1].digest() == mip.split(many, (0.5, 0.5), 1)[0].digest()


def test_a_part_is_a_source_as_all_rows_are(many):
    part = mip.split(many, (0.3, 0.7), seed=2)[0]
    row_ids = rows_of(part)
    assert part.take([5, 0]).row_ids.tolist() == [row_ids[5], row_ids[0]]
    batches = pipe(part, mip.sample(True, 1), mip.batch(7))
    for rows in epochs(batches, 2):
        assert sorted(rows) == row_ids
    assert (
        next(batches.iter_from(30)).row_ids.tolist()
        == row_ids_of(islice(batches.iter_from(0), 31))[-1]
    )
    left = part.without(row_ids[:-1])
    assert (len(left), rows_of(left), left.take([0]).row_ids.tolist()) == (
        1,
        row_ids[-1:],
        row_ids[-1:],
    )


def test_a_part_without_rows_is_usable(shards, folder):
    plan = mip.adapt(mip.parse(SPEC), shards)
    none = mip.split(shards, (1.0, 0.0))[1]
    assert (len(none), len(joined(none.chunks())), rows_of(none)) == (0, 0, [])
    assert none.take([]).columns == shards.columns
    with pytest.raises(DataError, match="the pipe has no batches: its source has no rows"):
        iter(pipe(none, mip.sample(True), mip.batch(3)))
    assert len(none.map(plan.encode).take([]).row) == 0
    with pytest.raises(IndexError):
        none.take([0])
    with pytest.raises(DataError, match=r"there are no training rows$"):
        mip.adapt(mip.parse(SPEC), none)
    assert [len(part) for part in mip.split(none, (0.5, 0.5))] == [0, 0]


@pytest.mark.parametrize("way", ["stratify", "group", "time"])
def test_splits_that_need_all_rows_are_refused(shards, way):
    want = f"split: shards are split by fractions or a key; '{way}' needs mip.read"
    refused(want, mip.split, shards, (0.5, 0.5), **{way: "whole"})


PARTS = """
[data]
split = { %s }
[branch.x]
kind = "continuous"
columns = ["x"]
[head]
kind = "regression"
column = "y"
"""


def test_a_column_may_say_the_parts_and_leave_some_without_rows(tmp_path):
    spec = mip.parse(PARTS % 'column = "part"')
    cells = {"x": [1.0, 2, 3], "y": [1.0, 2, 3], "part": ["train", "test", "train"]}
    written(tmp_path, pa.table(cells), [[2], [1]])
    cut = mip.parts(spec, mip.stream(tmp_path))
    assert [*map(rows_of, cut)] == [[0, 2], [], [1]]
    assert all(isinstance(part, Shards) for part in cut)
    written(tmp_path, pa.table({**cells, "part": ["train", None, "x"]}), [[2], [1]])
    want = ": column 'part' must say train, valid or test, not '', 'x'"
    for rows in (mip.stream(tmp_path), mip.read(tmp_path)):
        refused(f"{tmp_path.name}{want}", mip.parts, spec, rows)


def test_folds_from_a_file_are_refused(shards):
    with pytest.raises(mip.errors.SpecError) as caught:
        mip.parts(mip.parse(PARTS % 'folds = "folds.csv", test = 0'), shards)
    assert str(caught.value) == ("data.split.folds needs a table in memory; leave out data.stream")


@pytest.fixture(scope="module")
def houses(tmp_path_factory) -> Path:
    """The small table in shards, with a price and two photos that are not there."""
    folder = tmp_path_factory.mktemp("houses")
    draw_photos(folder)
    frame = frame_of().assign(area=np.arange(11.0))
    frame.loc[4, "price"] = None
    frame.loc[[6, 8], "front"] = ["photos/none.png", None]
    (folder / "photos" / "9.png").write_bytes(b"no photo")
    return written(folder, pa.Table.from_pandas(frame), [[3, 4], [1, 3]])


@pytest.mark.filterwarnings("ignore::mip.errors.MipWarning")
def test_rows_that_cannot_be_used_are_those_of_the_table(houses):
    for policy in ("drop", "learn"):
        spec = spec_of(branches=BRANCHES.replace('"learn"', f'"{policy}"'))
        kept, report = clean(spec, mip.stream(houses))
        table, want = clean(spec, mip.read(houses))
        assert str(report) == str(want)
        assert (rows_of(kept), len(kept)) == (table.row_ids.tolist(), len(table))
        assert "target 'price' missing: 1 row (4)" in str(report)
        plan = mip.adapt(spec, kept)
        assert bits(kept.map(plan.encode).take(range(len(kept)))) == bits(plan.encode(table))
    for rows in (mip.stream(houses), mip.read(houses)):
        with pytest.raises(DataError) as caught:
            clean(spec_of(branches=BRANCHES.replace('"learn"', '"error"')), rows)
        cure = '(leave the row out, or train with branch.photos.missing = "drop" or "learn")'
        message = f"{houses.name} row 0, column 'back': no image is named {cure}"
        other = f"{houses.name} row 6, column 'front': photos/none.png is missing {cure}"
        assert re.sub(r" \(row \d of .*?\)", "", str(caught.value)) in (message, other)


# A whole run.

RUN = """
[data]
table = "data.d"
stream = true
split = { fractions = [0.6, 0.2, 0.2], seed = 0 }
[branch.numbers]
kind = "continuous"
columns = ["a"]
scale = "quantile"
[branch.words]
kind = "categorical"
columns = ["w"]
[head]
kind = "regression"
column = "y"
dropout = 0.2
layers = [6]
[train]
epochs = 3
batch_size = 16
checkpoint_every = 3
optimizer = { kind = "adamw", lr = 3e-2 }
"""


def trainable(folder: Path, layout=((50, 30), (70,), (50,)), seed: int = 0) -> Path:
    draw = np.random.default_rng(seed)
    a, word = draw.normal(size=total(layout)), draw.choice(["p", "q", ""], total(layout))
    y = a * 2 + (word == "p") + draw.normal(size=len(a)) / 9
    return written(folder / "data.d", pa.table({"a": a, "w": word, "y": y, "z": a}), layout)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    trainable(tmp_path)
    (tmp_path / "spec.toml").write_text(RUN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def opened(**changes) -> tuple:
    spec = mip.parse(RUN, changes={f"train.{name}": value for name, value in changes.items()})
    return spec, mip.parts(spec, mip.stream("data.d", window=40))


class CutError(Exception): ...


@pytest.mark.parametrize(
    ("step", "changes"), [(3, {}), (10, {}), (7, {"mixup": 0.4, "workers": 2})]
)
def test_a_run_over_shards_resumes_in_the_middle_of_an_epoch_to_the_same_bytes(here, step, changes):
    def cutting(event):
        if event.step == step and event.name == "after_batch":
            raise CutError

    with pytest.raises(CutError):
        mip.run(*opened(**changes), out=here / "cut", make_hooks=lambda job: [cutting])
    mip.run(*opened(**changes), out=here / "cut", resume=True)
    mip.run(*opened(**changes), out=here / "whole")
    for name in ("model.safetensors", "history.jsonl", "checkpoints/last.safetensors"):
        assert (here / "cut" / name).read_bytes() == (here / "whole" / name).read_bytes()


def test_changed_shards_are_refused_and_the_column_named(here):
    mip.run(*opened(), out=here / "run")
    table = pq.read_table("data.d/part-1.parquet")
    cells = [7.0, *table.column("w").to_pylist()[1:]]
    changed = table.set_column(1, "w", pa.array([str(cell) for cell in cells]))
    pq.write_table(changed, "data.d/part-1.parquet")
    with pytest.raises(mip.errors.SpecError, match=r"the t\w+ rows are others, column 'w' differs"):
        mip.run(*opened(), out=here / "run", resume=True)


def test_a_model_of_shards_predicts_and_scores_as_in_memory(here):
    spec, cut = opened()
    ended = mip.run(spec, cut, out=here / "run")
    predict, shards, table = (
        mip.load("run/model.safetensors"),
        mip.stream("data.d"),
        mip.read("data.d"),
    )
    streamed, whole = predict(shards), predict(table)
    assert streamed.index.tolist() == whole.index.tolist() == [*range(200)]
    np.testing.assert_allclose(streamed["value"], whole["value"], atol=1e-5)
    test = cut.test.take(range(len(cut.test)))
    for rows, same in ((shards, table), (cut.test, test)):
        streamed, whole = mip.evaluate(predict, rows), mip.evaluate(predict, same)
        assert streamed.keys() == whole.keys()
        np.testing.assert_allclose([*streamed.values()], [*whole.values()], rtol=1e-5)
    assert mip.evaluate(predict, cut.test)["r2"] > 0.5
    assert ended.history.epochs[-1]["valid/loss"] == pytest.approx(
        mip.evaluate(predict, cut.valid)["loss"], rel=1e-5
    )


def test_shards_train_as_the_same_batches_in_memory(here, monkeypatch):
    spec, cut = opened()
    plan = mip.adapt(spec, cut.train)
    table = cut.train.take(range(len(cut.train)))
    want = plan.encode(table)
    for memory in (2 << 30, 0):
        monkeypatch.setattr("mip.runs.feeding.MEMORY_BYTES", memory)
        rows = [*concat(batch.row.tolist() for batch in train_pipe(plan, cut.train))]
        assert sorted(rows) == table.row_ids.tolist() != rows
        assert bits(mip.collect(rows_pipe(plan, cut.train, 16))) == bits(want)
        assert bits(mip.collect(train_pipe(plan, cut.train))) == bits(want)


@pytest.mark.parametrize("size", [7, 40])
def test_a_last_batch_of_one_row_is_left_out_of_training(here, size):
    spec, cut = opened(batch_size=size)
    train = cut.train.without(rows_of(cut.train)[size * 2 + 1 :])
    plan = mip.adapt(spec, train)
    assert len(train) == 2 * size + 1
    batches = train_pipe(plan, train)
    assert (len(batches), len([*batches])) == (2, 2)


def command(monkeypatch, capsys, *words) -> str:
    """Run the command line here; give what it says."""
    monkeypatch.setattr("sys.argv", ["mip", *words])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    with pytest.raises(SystemExit) as ended:
        main()
    out, error = capsys.readouterr()
    return out if ended.value.code in (0, None) else error


def test_the_command_line_walks_over_a_folder_of_shards(here, monkeypatch, capsys):
    run = partial(command, monkeypatch, capsys)
    assert "data.d: 200 rows, 200 used" in (text := run("check", "spec.toml"))
    assert re.search(r"spec.toml is fine: \d+ steps of up to 16 rows", text)
    assert "model.safetensors" in run("fit", "spec.toml", "--out", "run")
    model = "run/model.safetensors"
    for part in ("test", "each", "all"):
        assert "r2" in run("evaluate", model, "data.d", "--split", part)
    assert "wrote 200 predictions to p.csv" in run("predict", model, "data.d", "--out", "p.csv")
    assert len(pd.read_csv("p.csv")) == 200
    assert run("predict", model, "data.d/part-1.parquet").count("\n") == 71
    assert "a" in run("show", "spec.toml")
    mip.from_frame(pd.DataFrame({"row": range(200), "fold": 0})).frame.to_csv("folds.csv")
    assert run("crossval", "spec.toml", "--folds", "folds.csv") == (
        "mip: error: spec.toml: crossval needs all rows in memory: --set data.stream=false\n"
    )
    trainable(here, seed=1)
    assert "not the table that this model was trained on" in run(
        "evaluate", model, "data.d", "--split", "test"
    )


def test_a_spec_whose_column_says_the_parts_can_be_checked_without_test_rows(
    here, monkeypatch, capsys
):
    table = pq.read_table("data.d/part-0.parquet")
    pq.write_table(table.append_column("part", [["train"] * 80]), "data.d/part-0.parquet")
    for number in (1, 2):
        Path(f"data.d/part-{number}.parquet").unlink()
    changes = ['data.split={column="part"}']
    assert "is fine" in command(monkeypatch, capsys, "check", "spec.toml", "--set", *changes)


# Faults.


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (
            lambda p: (p / "a.csv").write_text("x\n1\n"),
            "a.csv: only .parquet files can be streamed",
        ),
        (lambda p: (p / "d").mkdir(), "d: holds no .parquet files"),
        (lambda p: None, "nope: there is no such table (known: "),
        (lambda p: (p / "a.parquet").write_bytes(b"PAR1"), "a.parquet: not a readable Parquet"),
        (lambda p: (p / "a.parquet").write_bytes(b""), "a.parquet: not a readable Parquet"),
        (lambda p: written(p / "d", pa.table({"x": [1]}), [[]]), "d: the table has no rows"),
    ],
)
def test_what_is_no_table_of_shards_is_refused(tmp_path, make, error):
    make(tmp_path)
    path = next(iter(sorted(tmp_path.iterdir())), tmp_path / "nope")
    with pytest.raises(DataError) as caught:
        mip.stream(path)
    assert str(caught.value).removeprefix(f"{tmp_path}/").startswith(error.split(" (")[0])


def test_shards_that_are_not_alike_are_refused_as_read_refuses_them(tmp_path):
    tables = {
        "other": pa.table({"b": [1]}),
        "type": pa.table({"a": ["1.0"]}),
        "more": pa.table({"a": [1], "b": [2]}),
    }
    for name, table in tables.items():
        written(tmp_path / name, pa.table({"a": [1]}), [[1]])
        pq.write_table(table, tmp_path / name / "z.parquet")
        messages = []
        for way in (mip.stream, mip.read):
            with pytest.raises(DataError) as caught:
                way(tmp_path / name)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]
        assert messages[0].startswith(f"{name}: z.parquet does not match part-0.parquet: ")


def test_a_file_that_was_cut_before_it_is_opened_is_named(tmp_path):
    written(tmp_path, pa.table({"x": range(50)}), [[25], [25]])
    path = tmp_path / "part-1.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"^part-1\.parquet: not a readable Parquet table: "):
        mip.stream(tmp_path)


def damaged(path: Path, damage: str) -> None:
    data = bytearray(path.read_bytes())
    if damage == "noise":
        data[4:-1_000] = random.Random(0).randbytes(len(data) - 1_004)
    if damage == "zeros":
        data[4:-1_000] = bytes(len(data) - 1_004)
    path.write_bytes(data[:100] if damage == "cut" else data)
    if damage == "gone":
        path.unlink()


@pytest.mark.parametrize("damage", ["noise", "zeros", "cut", "gone"])
@pytest.mark.parametrize("ahead", [0, 2])
def test_damage_behind_an_open_footer_is_an_error_in_its_window(tmp_path, damage, ahead):
    words = [f"{k * 7919:x}" for k in range(3_000)]
    written(tmp_path, pa.table({"x": range(3_000), "w": words}), [[1_000]] * 3)
    shards = mip.stream(tmp_path, window=500)
    stages = [mip.transform(len, workers=2), mip.prefetch(ahead)] if ahead else []
    stream, seen = pipe(shards, mip.batch(300), *stages).iter_from(0), []
    damaged(tmp_path / "part-1.parquet", damage)

    def run():
        seen.extend(stream)

    with pytest.raises(
        DataError, match=r"^part-1\.parquet: not a readable Parquet table: "
    ) as caught:
        within(10, run)
    assert len(seen) == 3
    rows = ", ".join(map(str, range(1_000, 1_008)))
    assert f"in rows {rows}, … of epoch 0" in caught.value.__notes__
    for look in (lambda: [*shards.chunks()], lambda: shards.take([1_500])):
        with pytest.raises(DataError, match=r"^part-1\.parquet: "):
            look()
    assert shards.take([2_999, 0]).row_ids.tolist() == [2_999, 0]


def test_a_file_that_is_gone_is_named_by_every_look(tmp_path):
    written(tmp_path, pa.table({"x": [1.0, 2.0], "y": [1.0, 2.0]}), [[1], [1]])
    shards = mip.stream(tmp_path)
    before = shards.digest()
    (tmp_path / "part-1.parquet").unlink()
    for look in (shards.digest, lambda: [*shards.chunks()], lambda: shards.take([1])):
        with pytest.raises(DataError, match=r"part-1\.parquet"):
            look()
    written(tmp_path, pa.table({"x": [1.0, 2.0], "y": [1.0, 2.0]}), [[1], [1]])
    assert shards.digest() == before


# Whatever the bytes are.


def streamed(path: Path) -> dict | str:
    try:
        shards = mip.stream(path, window=3)
        table = joined(shards.chunks())
        assert len(table) == len(shards)
        assert sorted(concat(row_ids_of(pipe(shards, mip.sample(True), mip.batch(4))))) == rows_of(
            shards
        )
        return content(table)
    except DataError as error:
        assert str(error).startswith(path.name)  # noqa: PT017
        return "refused"


def whole(path: Path) -> dict | str:
    try:
        return content(mip.read(path))
    except DataError:
        return "refused"


def compared(path: Path, data: bytes, draw: random.Random, count: int) -> list[tuple[bool, bool]]:
    """Read mutants in both ways; where both give rows, the same. Say which was refused."""
    outcomes = []
    for _ in range(count):
        path.write_bytes(mutant(data, draw))
        a, b = streamed(path), whole(path)
        assert "refused" in (a, b) or a == b
        outcomes.append((a == "refused", b == "refused"))
    return outcomes


@pytest.mark.parametrize("count", [30, pytest.param(1_000, marks=pytest.mark.slow)])
def test_every_file_streams_the_rows_that_read_gives_or_a_named_error(count, tmp_path):
    rows = some_rows(tmp_path / "sound", [(4, 3, 4)], seed=1) / "part-0.parquet"
    path, data = tmp_path / "mutant.parquet", rows.read_bytes()
    outcomes = within(300, lambda: compared(path, data, random.Random(5), count))
    assert 0 < outcomes.count((False, False)) < count
    # Where one way refuses and the other does not, the footer and the pages disagree.
    assert sum(a != b for a, b in outcomes) <= count / 20
