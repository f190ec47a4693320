"""A pipe is a recipe: its order is derived, it stands before any step, and it never hangs."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from itertools import islice

import numpy as np
import pandas as pd
import pytest
import torch
from attrs import evolve
from conftest import NUMBERS, bits, set_up, spec_of, within
from hypothesis import assume, given
from hypothesis import strategies as st
from toolz import concat, pipe
from torch.utils.data import DataLoader, TensorDataset

import mip
from mip.errors import DataError
from mip.model import Batch
from mip.pipe import Datapipe

sizes = st.integers(1, 12)
stages = st.tuples(st.integers(0, 2), st.integers(0, 2))


def numbers(rows, size, shuffle=True, seed=0, drop_last=False, workers=0, ahead=0):
    """A pipe of row numbers."""
    stages = [mip.sample(shuffle, seed), mip.batch(size, drop_last)]
    stages += [mip.transform(torch.clone, workers)] if workers else []
    stages += [mip.prefetch(ahead)] if ahead else []
    return pipe(torch.arange(rows), *stages)


def lists(batches):
    return [batch.tolist() for batch in batches]


def flat(batches):
    return list(concat(lists(batches)))


def test_the_last_batch_is_smaller():
    batches = list(numbers(10, 3, shuffle=False))
    assert [len(batch) for batch in batches] == [3, 3, 3, 1]
    assert flat(batches) == list(range(10))


def test_an_epoch_of_many_batches_is_cut_as_one_of_few():
    for skip, drop_last in ((0, False), (63, True), (64, False), (130, True)):
        batches = numbers(263, 2, shuffle=False, drop_last=drop_last)
        batches = islice(batches.iter_from(skip), 132 - drop_last - skip)
        assert flat(batches) == list(range(2 * skip, 263 - drop_last))


@pytest.mark.parametrize(("workers", "ahead"), [(0, 0), (2, 0), (0, 3), (2, 3)])
def test_a_pass_asks_for_every_row_once_however_far_ahead_it_reads(workers, ahead):
    asked = []

    def ask(rows):
        asked.extend(rows.tolist())
        return rows

    stages = [mip.prefetch(ahead)] if ahead else []
    mip.collect(pipe(torch.arange(10), mip.batch(4), mip.transform(ask, workers), *stages))
    assert sorted(asked) == list(range(10))


def test_drop_last_leaves_only_whole_batches():
    batches = numbers(10, 3, drop_last=True)
    assert [len(batch) for batch in batches] == [3, 3, 3]
    assert len(batches) == 3


def test_a_pipe_can_be_iterated_again():
    batches = numbers(10, 3)
    assert lists(batches) == lists(batches)


def test_the_order_is_a_function_of_seed_and_epoch():
    orders = {
        (seed, epoch): tuple(flat(islice(numbers(40, 8, seed=seed).iter_from(5 * epoch), 5)))
        for seed in (0, 1)
        for epoch in (0, 1, 2)
    }
    again = tuple(flat(islice(numbers(40, 8, seed=1).iter_from(10), 5)))
    assert len(set(orders.values())) == 6
    assert orders[1, 2] == again


def test_the_order_does_not_depend_on_the_size_of_a_batch_or_on_the_global_state():
    torch.manual_seed(1)
    first = flat(numbers(20, 3))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert flat(numbers(20, 7)) == first
    assert torch.equal(torch.get_rng_state(), before)


@given(rows=st.integers(1, 30), size=sizes, seed=st.integers(0, 9), epoch=st.integers(0, 3))
def test_every_row_comes_once_an_epoch(rows, size, seed, epoch):
    batches = numbers(rows, size, seed=seed)
    whole = list(islice(batches.iter_from(epoch * len(batches)), len(batches)))
    assert sorted(flat(whole)) == list(range(rows))


@given(
    rows=st.integers(1, 20),
    size=sizes,
    step=st.integers(0, 40),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    stage=stages,
)
def test_standing_before_a_step_equals_dropping_the_batches_before_it(
    rows, size, step, shuffle, drop_last, stage
):
    batches = numbers(rows, size, shuffle, drop_last=drop_last, workers=stage[0], ahead=stage[1])
    if not len(batches):
        with pytest.raises(DataError, match="the pipe has no batches"):
            batches.iter_from(step)
        return
    plain = numbers(rows, size, shuffle, drop_last=drop_last)
    expected = lists(islice(plain.iter_from(0), step, step + 4))
    assert lists(islice(batches.iter_from(step), 4)) == expected


@given(rows=st.integers(0, 30), size=sizes, drop_last=st.booleans())
def test_the_length_is_the_number_of_batches(rows, size, drop_last):
    batches = numbers(rows, size, drop_last=drop_last)
    assume(len(batches))
    assert len(batches) == len(list(batches))


def test_a_pipe_without_batches_says_why():
    with pytest.raises(DataError, match="no batches: its source has no rows"):
        iter(numbers(0, 4))
    with pytest.raises(DataError, match=r"3 rows are fewer than batch\(4, drop_last=True\)"):
        numbers(3, 4, drop_last=True).iter_from(3)
    assert len(numbers(0, 4)) == 0


@given(rows=st.integers(1, 30), size=sizes, shuffle=st.booleans(), number=st.integers(0, 3))
def test_epochs_and_items_are_those_of_the_endless_stream(rows, size, shuffle, number):
    batches = numbers(rows, size, shuffle)
    stream = lists(islice(batches.iter_from(0), 4 * len(batches)))
    first = number * len(batches)
    assert lists(batches.epoch(number)) == stream[first : first + len(batches)]
    assert [(k, lists(epoch)) for k, epoch in batches.epochs(number + 1, start=number)] == [
        (number, lists(batches.epoch(number)))
    ]
    assert lists(batches[k] for k in range(len(batches))) == lists(batches)
    assert batches[-1].tolist() == lists(batches)[-1]
    assert batches.rows_at(first).tolist() == stream[first]
    with pytest.raises(IndexError):
        batches[len(batches)]


def test_a_row_is_an_item_of_the_source():
    pairs = mip.pipe.Pipe((list(range(10)), list(range(5, 15))))
    assert (len(pairs), pairs.row(0), pairs.row(-1)) == (10, (0, 5), (9, 14))
    table = mip.from_columns({"area": [70, 95], "town": ["Ulm", "Bonn"]})
    assert pipe(table, mip.batch(2)).row(1) == table[1] == {"area": 95, "town": "Bonn"}
    with pytest.raises(IndexError):
        pairs.row(10)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_give_the_same_as_none(table, workers):
    alone, threaded = (set_up(spec_of(), table, workers=k).batches for k in (0, workers))
    for expected, got in zip(
        islice(alone.iter_from(1), 7), islice(threaded.iter_from(1), 7), strict=True
    ):
        assert bits(got) == bits(expected)


def test_workers_keep_the_order_when_later_batches_are_ready_first():
    def slow(rows):
        time.sleep(0.05 if int(rows[0]) % 4 == 0 else 0)
        return rows

    batches = pipe(torch.arange(16), mip.batch(2), mip.transform(slow, workers=3))
    assert flat(batches) == list(range(16))


def raising(kind, at=4):
    def transform(rows):
        if int(rows[0]) >= at:
            raise kind("no such thing")
        return rows

    return transform


def faulty(kind, workers=0, ahead=0):
    batches = pipe(torch.arange(12) * 1, mip.batch(2), mip.transform(raising(kind), workers))
    return mip.prefetch(ahead)(batches) if ahead else batches


every_way = pytest.mark.parametrize(("workers", "ahead"), [(0, 0), (0, 2), (2, 0), (2, 2)])


@every_way
def test_an_error_in_a_stage_is_raised_at_its_batch_with_its_rows(workers, ahead):
    stream, seen = faulty(ValueError, workers, ahead).iter_from(0), []

    def run():
        seen.extend(batch.tolist() for batch in stream)

    with pytest.raises(ValueError, match="no such thing") as caught:
        within(5, run)
    assert seen == [[0, 1], [2, 3]]
    assert caught.value.__notes__ == ["in rows 4, 5 of epoch 0"]


def test_an_error_that_is_raised_again_names_its_rows_once():
    error = ValueError("no such thing")

    def transform(rows):
        raise error

    batches = pipe(torch.arange(4), mip.batch(2), mip.transform(transform))
    for _ in range(2):
        with pytest.raises(ValueError, match="no such thing"):
            list(batches)
    assert error.__notes__ == ["in rows 0, 1 of epoch 0"]


@every_way
def test_a_stage_that_raises_stop_iteration_does_not_end_the_epoch(workers, ahead):
    with pytest.raises(mip.errors.DataError, match="StopIteration in rows 4, 5 of epoch 0"):
        within(5, lambda: list(faulty(StopIteration, workers, ahead)))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_stage_that_exits_does_not_hang():
    with pytest.raises(SystemExit):
        within(2, lambda: list(faulty(SystemExit, workers=2)))


def test_an_error_in_a_later_epoch_names_it():
    def transform(rows):
        if len(seen) == 5:
            raise ValueError("late")
        seen.append(rows)
        return rows

    seen = []
    batches = pipe(torch.arange(4), mip.batch(2), mip.transform(transform))
    with pytest.raises(ValueError, match="late") as caught:
        list(islice(batches.iter_from(0), 9))
    assert caught.value.__notes__ == ["in rows 2, 3 of epoch 2"]


def test_an_error_names_rows_by_their_number_in_the_file():
    table = mip.from_frame(pd.DataFrame({"x": range(10)})).take([9, 7, 5])
    batches = pipe(table, mip.batch(2), mip.transform(lambda rows: 1 / 0))
    with pytest.raises(ZeroDivisionError) as caught:
        list(batches)
    assert caught.value.__notes__ == ["in rows 9, 7 of epoch 0"]


def test_an_error_in_a_large_batch_names_eight_rows():
    batches = pipe(torch.arange(20), mip.batch(20), mip.transform(raising(ValueError, at=0)))
    with pytest.raises(ValueError, match="no such") as caught:
        list(batches)
    assert caught.value.__notes__ == ["in rows 0, 1, 2, 3, 4, 5, 6, 7, … of epoch 0"]


def test_a_stage_may_be_any_function_of_a_batch():
    batches = pipe(torch.arange(4), mip.batch(2), mip.transform(sum), mip.transform(int))
    assert list(batches) == [1, 5]


def test_augmentation_depends_on_the_epoch_and_the_seed(table):
    setup = set_up(spec_of(), table)
    batch = setup.plan.encode(table)
    pixels = {
        name: bits(changed.inputs["photos"]["pixels"])[""][2]
        for name, changed in {
            "first": setup.plan.augment(batch, 1),
            "again": setup.plan.augment(batch, 1),
            "other": setup.plan.augment(batch, 2),
            "none": batch,
        }.items()
    }
    assert pixels["first"] == pixels["again"]
    assert len(set(pixels.values())) == 3


def by_row(batches) -> dict[int, bytes]:
    """The bytes of each row's photos, by the row's number."""
    return {
        int(row): photos.numpy().tobytes()
        for batch in batches
        for row, photos in zip(batch.row, batch.inputs["photos"]["pixels"], strict=True)
    }


@pytest.mark.parametrize(("rows", "workers"), [(1, 0), (3, 2), (4, 1), (11, 0)])
def test_the_augmentation_of_a_row_does_not_depend_on_its_batch(table, rows, workers):
    expected = by_row(set_up(spec_of(), table).batches)
    setup = set_up(spec_of(), table, rows=rows, workers=workers)
    staged = evolve(setup.batches, stages=(setup.batches.stages[0],))
    got = by_row(mip.augment(setup.plan.augment, 0, workers)(staged))
    assert got == expected


def test_every_epoch_augments_anew(table):
    batches = set_up(spec_of(), table).batches
    first, second = (
        by_row(islice(batches.iter_from(k * len(batches)), len(batches))) for k in (0, 1)
    )
    assert first.keys() == second.keys()
    assert sum(first[row] != second[row] for row in first) > len(first) // 2


def test_all_photos_of_a_row_change_alike(table):
    plan = set_up(spec_of(), table).plan
    pixels = torch.randint(0, 256, (5, 1, 3, 8, 8), dtype=torch.uint8).repeat(1, 2, 1, 1, 1)
    changed = plan.spec.branch["photos"].augmentation(pixels, 7, torch.arange(5))
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert not torch.equal(changed, pixels)


def test_collected_rows_are_those_of_the_file_in_order(table):
    setup = set_up(spec_of(), table)
    kept = mip.collect(pipe(table, mip.batch(3), mip.transform(setup.plan.encode)))
    assert isinstance(kept, Batch)
    assert bits(kept) == bits(setup.plan.encode(table))


def test_a_pipe_over_collected_rows_gives_the_same_batches(table):
    setup = set_up(spec_of(), table)
    kept = mip.collect(pipe(table, mip.batch(3), mip.transform(setup.plan.encode)))
    memory = pipe(kept, mip.sample(True, 0), mip.batch(4), mip.augment(setup.plan.augment, 0))
    for expected, got in zip(
        islice(setup.batches.iter_from(2), 5), islice(memory.iter_from(2), 5), strict=True
    ):
        assert bits(got) == bits(expected)


def test_batches_move_to_a_device():
    batches = pipe({"x": torch.arange(3)}, mip.batch(2), mip.to("meta"))
    assert [batch["x"].device.type for batch in batches] == ["meta", "meta"]


def test_a_recipe_is_a_value():
    batches = numbers(10, 3)
    mip.prefetch(2)(batches)
    assert batches.stages == ()
    assert "10 rows" in repr(batches)


@pytest.mark.parametrize("size", [0, -1, 16.0, "3", None])
def test_the_size_of_a_batch_is_checked_at_once(size):
    with pytest.raises(DataError, match=f"a whole number, 1 or more: {size!r}"):
        mip.batch(size)


def test_as_many_batches_are_prefetched_as_there_can_be():
    with pytest.raises(ValueError, match="must be > 0"):
        mip.prefetch(0)


def test_numbers_of_numpy_are_sizes():
    assert [len(rows) for rows in pipe(torch.arange(5), mip.batch(np.int64(2)))] == [2, 2, 1]


SCRIPT = """
import pandas, torch, mip
from toolz import pipe
table = mip.from_frame(pandas.DataFrame(dict(x=range(8))))
list(pipe(table, mip.batch(2), {stage}))
print(torch.get_num_threads())
"""


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core has one thread")
def test_threads_of_a_pipe_leave_the_number_of_torchs_threads_alone():
    # In processes of their own, where torch has not fixed the number before.
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    stages = ["mip.transform(len, workers=2)", "mip.prefetch(2)"]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT.format(stage=stage)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for stage in stages
    ]
    assert [run.communicate(timeout=60)[0].split() for run in runs] == [["2"], ["2"]]


def test_a_stream_can_be_dropped_half_way():
    stream = numbers(100, 2, workers=2, ahead=2).iter_from(0)
    assert np.size(next(stream).numpy()) == 2
    within(5, lambda: stream.close())


# With torch's own tools.


def loaded(batches, workers):
    return list(DataLoader(Datapipe(batches), batch_size=None, num_workers=workers))


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("stages", [[], [mip.transform(torch.clone)], [mip.prefetch(2)]])
def test_a_data_loader_gives_the_batches_of_the_pipe(workers, stages):
    batches = pipe(torch.arange(23), mip.sample(shuffle=True, seed=4), mip.batch(5), *stages)
    assert lists(loaded(batches, workers)) == lists(batches)
    assert len(Datapipe(batches)) == len(batches) == 5


def test_a_process_of_a_data_loader_makes_its_own_batches_and_no_other():
    def mark(rows):
        return torch.stack([rows, torch.full_like(rows, os.getpid())])

    batches = pipe(torch.arange(8), mip.batch(2), mip.transform(mark))
    makers = [int(batch[1, 0]) for batch in loaded(batches, 2)]
    assert makers[0] == makers[2] != makers[1] == makers[3]


def test_an_error_in_a_process_of_a_data_loader_names_the_rows(monkeypatch):
    def fail(rows):
        raise KeyError("broken")

    # The loader waits this long for a process that has failed, when it is collected.
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)
    batches = pipe(torch.arange(8), mip.batch(2), mip.transform(fail))
    with pytest.raises(KeyError, match=r"(?s)broken.*in rows 0, 1 of epoch 0"):
        loaded(batches, 1)
    gc.collect()


def test_fit_takes_a_data_loader_and_a_datapipe_of_batches():
    net, opt = torch.nn.Linear(2, 1), mip.sgd(0.1)
    step = mip.train_step(net, torch.nn.functional.mse_loss, opt)
    rows = torch.randn(9, 2), torch.randn(9, 1)
    batches, start = pipe(rows, mip.batch(4)), mip.init(net, opt)
    expected = bits(mip.fit(step, batches, start, epochs=2).params)
    loader = DataLoader(Datapipe(batches), batch_size=None)
    usual = DataLoader(TensorDataset(*rows), batch_size=4)
    for source in (Datapipe(batches), loader, usual, list(batches)):
        assert bits(mip.fit(step, source, start, epochs=2).params) == expected


def test_a_pipe_prints_its_functions_by_name(table):
    def changed(batch, key):
        return batch

    plan = mip.adapt(spec_of(branches=NUMBERS), table)
    batches = pipe(
        table, mip.batch(4), mip.transform(plan.encode, workers=2), mip.augment(changed, 3)
    )
    assert str(batches).split(" | ")[3:] == [
        "Transform(function=Plan.encode, workers=2)",
        f"Augment(function={changed.__qualname__}, seed=3, workers=0)",
    ]
