"""Shards: however Parquet files are cut, their rows are those that `read` gives."""

from __future__ import annotations

import datetime
import gc
import random
import re
import tempfile
import threading
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from attrs import evolve
from conftest import bits, draw_photos, frame_of, spec_of, within
from hypothesis import given, settings
from hypothesis import strategies as st
from test_read import mutant, refused
from toolz import concat, pipe
from torch.utils.data import DataLoader

import mip
from mip.errors import DataError
from mip.mix import mixup
from mip.pipe import Datapipe, shard
from mip.prepare import clean
from mip.run import job, rows_pipe, train_pipe
from mip.shards import Shards
from mip.split import split_by

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
    asked = {name: [table.cells(name)] for name in table.columns}
    for name, answers in asked.items():
        for look in (table.texts, table.numbers):
            with suppress(DataError):
                answers.append([*map(str, look(name))])
    return asked | {"": table.rows.tolist()}


def joined(chunks) -> mip.Table:
    first, *others = chunks
    return first.join(others)


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
    place = table.schema.get_field_index("y")
    target = table.column("y").to_pylist()
    return written(folder, table.set_column(place, "y", pa.array([1.5, *target[1:]])), layout)


@given(layout=layouts, seed=st.integers(0, 9), data=st.data())
def test_rows_encode_alike_as_they_are_read_and_when_taken(layout, seed, data):
    with tempfile.TemporaryDirectory() as folder:
        some_rows(Path(folder), layout, seed)
        shards, table = mip.stream(folder), mip.read(folder)
        plan = mip.adapt(mip.parse(SPEC), table)
        index = data.draw(orders(len(table)))
        found = shards.map(plan.encode).take(index)
        assert bits(found) == bits(plan.encode(table.take(index)))


def test_a_row_group_of_more_rows_than_a_piece_is_read_in_pieces(tmp_path):
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
    assert shards.take(index).rows.tolist() == [3, 1]


@pytest.mark.parametrize("index", [[20], [-1], [0, 20, 3], [-21]])
def test_a_place_that_is_none_is_an_index_error(shards, index):
    with pytest.raises(IndexError, match=r"a place that is not one of 20 rows$"):
        shards.take(index)


def test_a_chunk_of_a_column_has_no_other(tmp_path):
    pq.write_table(pa.table({"a": [1], "a.b": [2], "c": [3]}), tmp_path / "x.parquet")
    assert [chunk.columns for chunk in mip.stream(tmp_path).chunks(["a"])] == [["a"]]


def test_a_missing_column_is_named(shards):
    for look in (
        lambda: mip.split(shards, (0.5, 0.5), key="texts"),
        lambda: split_by(shards, "texts"),
        lambda: mip.adapt(mip.parse(SPEC.replace('"float"', '"flaot"')), shards),
    ):
        with pytest.raises(mip.MipError, match=r"texts|did you mean 'float'"):
            look()


# In a pipe.


def places(batches) -> list[list[int]]:
    return [batch.rows.tolist() for batch in batches]


def epochs(batches, count) -> list[list[int]]:
    stream = batches.at(0)
    return [[*concat(places(islice(stream, len(batches))))] for _ in range(count)]


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
            assert batch.numbers("x").tolist() == batch.rows.tolist()
            assert len(batch) in (size, len(shards) % size)


@given(
    layout=layouts,
    window=st.integers(1, 25),
    size=st.integers(1, 30),
    shuffle=st.booleans(),
    tail=st.booleans(),
    ranks=st.integers(1, 3),
)
def test_standing_before_any_step_equals_dropping_the_batches_before(
    layout, window, size, shuffle, tail, ranks
):
    with tempfile.TemporaryDirectory() as folder:
        written(Path(folder), pa.table({"x": range(total(layout))}), layout)
        shards = mip.stream(folder, window)
        batches = pipe(shards, mip.sample(shuffle, 1), mip.batch(size, tail))
        assert len(list(batches)) == len(batches)
        want = places(islice(batches.at(0), 3 * len(batches)))
        parts = [shard(rank, ranks)(batches) for rank in range(ranks)]
        for step in range(3 * len(batches)):
            assert next(batches.at(step)).rows.tolist() == want[step]
            own = [next(part.at(step)).rows.tolist() for part in parts]
            assert [*concat(own)] == want[step]
            assert max(map(len, own)) - min(map(len, own)) <= 1
        assert len(batches) or list(batches.at(2)) == []


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Shards:
    folder = tmp_path_factory.mktemp("many")
    written(folder, pa.table({"x": range(2_000)}), [[100] * 5] * 4)
    return mip.stream(folder, window=400)


def test_the_order_is_a_function_of_seed_and_epoch(many):
    def order(seed, shards=many, size=64):
        found = epochs(pipe(shards, mip.sample(True, seed), mip.batch(size)), 3)
        return [*map(tuple, found)]

    assert order(5) == order(5, size=7)
    assert len({*order(5), *order(6)}) == 6


def test_rows_mix_within_and_across_row_groups(many):
    rows = np.array(epochs(pipe(many, mip.sample(True, 5), mip.batch(64)), 1)[0])
    windows = rows.reshape(5, 400)
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
    encode, keep = mip.transform(plan.encode), mip.transform(lambda rows: rows)
    mapped = shards.map(plan.encode)
    ways = [
        pipe(shards, *order, encode),
        pipe(shards, *order, mip.transform(plan.encode, workers=2)),
        pipe(shards, *order, mip.prefetch(2), encode, mip.prefetch(1)),
        pipe(mapped, *order),
        pipe(mapped, *order, mip.transform(lambda rows: rows, workers=3), keep),
        pipe(mapped, *order, mip.prefetch(3)),
    ]
    want, *others = [bits([*islice(way.at(2), 11)]) for way in ways]
    assert all(found == want for found in others)
    assert len(want) > 11


def test_collected_rows_are_those_of_the_files_in_order(folder):
    table, shards = mip.read(folder), mip.stream(folder, window=6)
    plan = mip.adapt(mip.parse(SPEC), table)
    shuffled = pipe(shards.map(plan.encode), mip.sample(True, 2), mip.batch(3))
    assert bits(mip.collect(shuffled)) == bits(plan.encode(table))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("mapped", [False, True])
def test_a_data_loader_gives_the_batches_of_the_pipe(folder, workers, mapped):
    shards = mip.stream(folder, window=6)
    plan = mip.adapt(mip.parse(SPEC), shards)
    source = shards.map(plan.encode) if mapped else shards
    stages = [] if mapped else [mip.transform(plan.encode)]
    batches = pipe(source, mip.sample(True, 1), mip.batch(3), *stages)
    loader = DataLoader(Datapipe(batches), batch_size=None, num_workers=workers)
    assert bits(within(60, lambda: [*loader])) == bits([*batches])


def reads(monkeypatch) -> list[int]:
    """Keep the first row's number of every row group that is read."""
    seen, plain = [], Shards.pieces

    def pieces(self, group, columns=None):
        seen.append(group.first)
        return plain(self, group, columns)

    monkeypatch.setattr(Shards, "pieces", pieces)
    return seen


@pytest.mark.parametrize("stages", [[], [mip.transform(len, workers=2)], [mip.prefetch(4)]])
def test_a_pass_reads_every_row_group_once_and_none_of_a_next_epoch(many, stages, monkeypatch):
    seen = reads(monkeypatch)
    for _ in pipe(many, mip.sample(True, 5), mip.batch(64), *stages):
        pass
    time.sleep(0.05)
    assert sorted(seen) == [*range(0, 2_000, 100)]


def test_standing_late_in_an_epoch_reads_no_window_before(many, monkeypatch):
    seen = reads(monkeypatch)
    batches = pipe(many, mip.batch(100))
    assert next(batches.at(15)).rows.tolist() == [*range(1_500, 1_600)]
    assert min(seen) >= 1_200


def test_one_window_is_read_ahead_and_no_more(many, monkeypatch):
    seen = reads(monkeypatch)
    stream = pipe(many, mip.batch(400)).at(0)
    next(stream)
    time.sleep(0.1)
    assert sorted(seen) == [*range(0, 800, 100)]


@pytest.mark.parametrize("stages", [[], [mip.transform(torch.clone, workers=2)], [mip.prefetch(2)]])
def test_a_stream_dropped_half_way_leaves_no_thread(many, stages):
    before = threading.active_count()
    mapped = many.map(lambda rows: torch.from_numpy(rows.numbers("x")))
    stream = pipe(mapped, mip.sample(True), mip.batch(50), *stages).at(3)
    assert len(next(stream)) == 50
    del stream
    gc.collect()
    until = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("order", "named"),
    [
        ({"weights": [1.0] * 20}, "Weighted(weights=20, seed=0, draws=None)"),
        ({"groups": [0] * 20}, "Grouped("),
        ({"replacement": True}, "Uniform(seed=0, draws=None)"),
        ({"draws": 5}, "Each(shuffle=False, seed=0, draws=5)"),
        ({"order": lambda rows, epoch: torch.arange(rows)}, "Own("),
    ],
)
def test_other_orders_are_refused(shards, order, named):
    batches = pipe(shards, mip.sample(**order), mip.batch(4))
    for run in (lambda: batches.at(0), lambda: list(batches)):
        with pytest.raises(DataError) as caught:
            run()
        told = str(caught.value)
        assert told.startswith(f"sample: shards are read in order or shuffled; {named}")
        assert told.endswith(" needs mip.read")


def test_a_subset_of_shards_is_a_source(shards, folder):
    chosen = pipe(shards, mip.subset([19, 0, 7, 7]), mip.batch(3))
    assert places(chosen) == [[19, 0, 7], [7]]
    odd = shards.without(range(0, 20, 2))
    assert pipe(odd, mip.subset([9, 0, 3]), mip.batch(3)).source.rows.tolist() == [19, 1, 7]


def test_an_error_in_a_stage_names_rows_by_their_number(shards):
    odd = shards.without(range(0, 20, 2))
    for source in (odd, odd.map(lambda rows: {"x": torch.zeros(len(rows))})):
        stream = pipe(source, mip.batch(3), mip.transform(lambda rows: 1 / 0)).at(1)
        with pytest.raises(ZeroDivisionError) as caught:
            next(stream)
        assert caught.value.__notes__ == ["in rows 7, 9, 11 of epoch 0"]
