"""Cached photos: the rows that encoding gives, decoded once, whatever happens in between."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import bits, in_a_copy, spec_of
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from toolz import pipe

import mip
from mip.cli.app import main
from mip.errors import DataError, MipWarning
from mip.images import LazyRows, cache, clear_caches, list_caches
from mip.images.cache import CachedRows

LINES = '[branch.photo]\nkind = "image"\ncolumns = ["a", "b"]\nsize = 8\nbase_channels = 2\n'
LEARN = LINES + 'missing = "learn"\n'


@pytest.fixture
def table(tmp_path):
    draws = np.random.default_rng(0)
    for k in range(12):
        pixels = draws.integers(0, 256, (10, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
    names = [f"{k}.png" for k in range(12)]
    frame = pd.DataFrame({"a": names[:6], "b": names[6:], "price": range(6)})
    frame.loc[4, "b"] = "gone.png"
    return mip.from_frame(frame, tmp_path, "houses.csv")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "kept"


@pytest.fixture
def plan(table):
    return mip.adapt(spec_of("regression", LEARN), table)


@pytest.fixture
def decoded(monkeypatch):
    """The cells that have been decoded so far."""
    seen, decode = [], mip.images.decode

    def watched(root, cell, *rest):
        seen.append(str(cell))
        return decode(root, cell, *rest)

    monkeypatch.setattr("mip.branches.image.decode", watched)
    return seen


def taken(cached, *places):
    return mip.tree.take(cached, torch.tensor(places))


def same(one, other):
    return bits(one.inputs) == bits(other.inputs) and bits(one.row) == bits(other.row)


@given(places=st.lists(st.integers(0, 5), min_size=1, max_size=9))
def test_cached_rows_are_encoded_rows(places, tmp_path_factory):
    # A folder for all examples: some records are there already, some are not.
    base = tmp_path_factory.getbasetemp() / "law"
    base.mkdir(exist_ok=True)
    for k in range(6):
        if not (base / f"{k}.png").exists():
            Image.new("RGB", (4, 4), (40 * k, 9, 250 - k)).save(base / f"{k}.png")
    frame = pd.DataFrame({"a": [f"{k}.png" for k in range(6)], "price": range(6)}).assign(b="0.png")
    rows = mip.from_frame(frame, base)
    plan = mip.adapt(spec_of("regression", LEARN), rows)
    cached = plan.cache(rows, base / "kept")
    assert same(taken(cached, *places), plan.encode(rows.take(places)))


def test_photos_are_decoded_once(plan, table, folder, decoded):
    for _ in range(3):
        taken(plan.cache(table, folder), *range(6))
    assert len(decoded) == 12  # eleven photos, and one that is looked for and not found


def test_parts_of_a_table_share_a_file(plan, table, folder, decoded):
    taken(plan.cache(table.take([0, 2, 3]), folder), 0, 1, 2)
    before = len(decoded)
    taken(plan.cache(table.take([3, 0, 2]), folder), 0, 1, 2)
    assert len(decoded) == before
    assert len(list_caches(folder)) == 1


def test_only_a_changed_photo_is_decoded_again(plan, table, folder, decoded):
    taken(plan.cache(table, folder), *range(6))
    decoded.clear()
    Image.new("RGB", (5, 5), "red").save(table.root / "3.png")
    cached = plan.cache(table, folder)
    assert same(taken(cached, *range(6)), plan.encode(table))
    assert decoded[:2] == ["3.png", "9.png"]
    assert taken(cached, 3).inputs["photo"]["pixels"][0, 0, 0].unique().tolist() == [255]


def test_a_photo_that_was_missing_is_found_later(plan, table, folder):
    taken(plan.cache(table, folder), *range(6))
    Image.new("RGB", (5, 5), "red").save(table.root / "gone.png")
    photos = taken(plan.cache(table, folder), 4).inputs["photo"]
    assert photos["present"].tolist() == [[1, 1]]


def test_added_rows_make_the_file_longer(plan, table, folder, decoded):
    taken(plan.cache(table.take([0, 1]), folder), 0, 1)
    decoded.clear()
    taken(plan.cache(table, folder), *range(6))
    assert sorted(decoded) == sorted(table.cells("a")[2:] + table.cells("b")[2:])


@pytest.mark.parametrize("change", ["size = 9", 'size = 8\ndecoding = "scaled"'])
def test_another_decoding_has_another_file(change, plan, table, folder):
    taken(plan.cache(table, folder), 0)
    other = mip.adapt(spec_of("regression", LEARN.replace("size = 8", change)), table)
    assert same(taken(other.cache(table, folder), 0), other.encode(table.take([0])))
    assert len(list_caches(folder)) == 2


def test_pixels_in_cells_count_as_content(folder):
    frame = pd.DataFrame({"a": [b"", b""], "price": [1, 2]})
    for k, colour in enumerate(["red", "blue"]):
        frame.at[k, "a"] = np.array(Image.new("RGB", (4, 4), colour))
    rows = mip.from_frame(frame)
    lines = LEARN.replace('"a", "b"', '"a"')
    plan = mip.adapt(spec_of("regression", lines), rows)
    taken(plan.cache(rows, folder), 0, 1)
    turned = mip.from_frame(frame.iloc[::-1])
    assert same(taken(plan.cache(turned, folder), 0, 1), plan.encode(turned))


def test_a_photo_that_cannot_be_read_is_still_an_error(table, folder):
    plan = mip.adapt(spec_of("regression", LINES), table)
    cached = plan.cache(table, folder)
    taken(cached, 0, 1)
    with pytest.raises(DataError, match=r"^houses\.csv row 4, column 'b': gone\.png is missing$"):
        taken(cached, 3, 4)
    assert same(taken(cached, 3, 1), plan.encode(table.take([3, 1])))


def test_a_missing_photo_that_one_policy_allows_is_still_an_error_of_another(table, folder):
    learns, refuses = (mip.adapt(spec_of("regression", lines), table) for lines in (LEARN, LINES))
    taken(learns.cache(table, folder), 4)
    with pytest.raises(DataError, match=r"^houses\.csv row 4, column 'b': gone\.png is missing$"):
        taken(refuses.cache(table, folder), 4)


# A cache is never the reason why a run ends.


def test_a_small_budget_warns_and_rows_are_decoded_each_time(plan, table, folder, monkeypatch):
    monkeypatch.setenv("MIP_CACHE_BYTES", "100")
    with pytest.warns(
        MipWarning, match=r"photos are not cached: 2,.* bytes are needed, the budget"
    ):
        cached = plan.cache(table, folder)
    assert isinstance(cached.inputs["photo"], LazyRows)
    assert same(taken(cached, 2, 0), plan.encode(table.take([2, 0])))
    assert list_caches(folder) == []


def test_a_folder_that_cannot_be_written_warns(plan, table, folder):
    folder.write_text("a file")
    with pytest.warns(MipWarning, match="photos are not cached"):
        cached = plan.cache(table, folder)
    assert same(taken(cached, 1), plan.encode(table.take([1])))


def test_the_least_recently_used_files_make_room(plan, table, folder, monkeypatch):
    sizes = [8, 9, 10]
    plans = [
        mip.adapt(spec_of("regression", LEARN.replace("size = 8", f"size = {size}")), table)
        for size in sizes
    ]
    for age, each in zip((300, 200), plans, strict=False):
        path = each.cache(table, folder).inputs["photo"].path
        os.utime(path, (time.time() - age,) * 2)
    before = {name for name, _, _ in list_caches(folder)}
    room = sum(size for _, size, _ in list_caches(folder)) + 100
    monkeypatch.setenv("MIP_CACHE_BYTES", str(room))
    newest = plans[2].cache(table, folder).inputs["photo"].path.name
    after = {name for name, _, _ in list_caches(folder)}
    assert newest in after
    assert len(before - after) >= 1
    assert sum(size for _, size, _ in list_caches(folder)) <= room


def test_a_cache_in_use_may_be_cleared(plan, table, folder):
    cached = plan.cache(table, folder)
    taken(cached, 0, 1)
    assert clear_caches(folder) > 0
    assert list_caches(folder) == []
    assert same(taken(cached, 1, 5, 0), plan.encode(table.take([1, 5, 0])))


def test_threads_fill_it_together(plan, table, folder):
    cached, batches = plan.cache(table, folder), {}

    def work(k):
        batches[k] = taken(cached, *range(6))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same(each, plan.encode(table)) for each in batches.values())


@pytest.mark.parametrize("writes", [0, 1, 2, 5])
def test_a_process_killed_while_filling_leaves_no_wrong_rows(
    writes, plan, table, folder, monkeypatch
):
    sync, left = cache._sync, [writes]

    def die(path):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(path)

    def fill():
        cached = plan.cache(table, folder)
        for k in range(6):
            taken(cached, k)

    with monkeypatch.context() as changed:
        changed.setattr(cache, "_sync", die)
        assert in_a_copy(fill) == (-signal.SIGKILL, None)
    assert same(taken(plan.cache(table, folder), *range(6)), plan.encode(table))


def test_a_pipe_over_cached_rows_gives_the_batches_of_one_over_encoded_rows(plan, table, folder):
    stages = mip.sample(shuffle=True, seed=3), mip.batch(4), mip.augment(plan.augment, seed=1)
    cached = pipe(plan.cache(table, folder), *stages)
    encoded = pipe(plan.encode(table), *stages)
    for step in (0, 1, 5):
        assert same(next(cached.iter_from(step)), next(encoded.iter_from(step)))


def test_the_default_folder_is_set_by_the_environment(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.delenv("MIP_CACHE", raising=False)
    assert mip.images.default_cache_folder() == Path("/somewhere/mip")
    monkeypatch.setenv("MIP_CACHE", "/elsewhere")
    assert mip.images.default_cache_folder() == Path("/elsewhere")


def test_a_cached_leaf_counts_its_rows(plan, table, folder):
    cached = plan.cache(table, folder).inputs["photo"]
    assert isinstance(cached, CachedRows)
    assert len(cached) == 6


def trained(table, cut, **options):
    train = "[train]\nepochs = 2\nbatch_size = 2\nworkers = 2\n"
    lines = LEARN + "augmentation = { flip = true }\n"
    return mip.run(mip.parse(lines + HEAD + train), cut, **options).state


HEAD = '[head]\nkind = "regression"\ncolumn = "price"\n'


@pytest.fixture
def cut(table):
    return mip.model.Parts(table.take([0, 1, 2, 3]), table.take([4, 5]), table.take([]))


def test_a_run_from_the_cache_is_the_run_without(table, cut, folder, decoded):
    plain = trained(table, cut)
    first = trained(table, cut, context=mip.Context(cache=folder))
    decoded.clear()
    second = trained(table, cut, context=mip.Context(cache=folder))
    assert bits(plain.params) == bits(first.params) == bits(second.params)
    assert decoded == []


def test_rows_that_do_not_fit_into_memory_are_cached_in_the_default_folder(
    table, cut, folder, monkeypatch
):
    plain = trained(table, cut)
    monkeypatch.setattr("mip.runs.feeding.MEMORY_BYTES", 0)
    monkeypatch.setenv("MIP_CACHE", str(folder))
    assert bits(plain.params) == bits(trained(table, cut).params)
    assert len(list_caches(folder)) == 1


def test_the_command_lists_and_clears(plan, table, folder, monkeypatch, capsys):
    taken(plan.cache(table, folder), 0)
    monkeypatch.setenv("MIP_CACHE", str(folder))
    monkeypatch.setattr(sys, "argv", ["mip", "cache"])
    for arguments, text in ([], "houses.csv-"), (["--clear"], "bytes removed"), ([], "total"):
        monkeypatch.setattr(sys, "argv", ["mip", "cache", *arguments])
        with pytest.raises(SystemExit):
            main()
        assert text in capsys.readouterr().out
    assert list_caches(folder) == []
