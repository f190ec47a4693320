"""Parts and folds: disjoint, covering, of known sizes, and a function of rows and seed."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from conftest import NUMBERS, frame_of, spec_of
from hypothesis import example, given
from hypothesis import strategies as st

import mip
from mip.data import with_folds
from mip.errors import DataError, SpecError


def of(**columns):
    return mip.from_frame(pd.DataFrame(columns))


def numbers(parts):
    return [part.row_ids.tolist() for part in parts]


shares = st.lists(st.integers(0, 10), min_size=1, max_size=4).filter(any)


@given(rows=st.integers(0, 60), shares=shares, seed=st.integers(0, 5))
def test_a_split_is_disjoint_covers_and_has_exact_sizes(rows, shares, seed):
    fractions = [share / sum(shares) for share in shares]
    parts = mip.split(of(x=range(rows)), fractions, seed)
    row_ids = numbers(parts)
    assert sorted(sum(row_ids, [])) == list(range(rows))  # noqa: RUF017
    assert all(part == sorted(part) for part in row_ids)
    for part, fraction in zip(row_ids, fractions, strict=True):
        assert abs(len(part) - fraction * rows) < 1


def test_the_sizes_are_known_numbers():
    sizes = {
        rows: [*map(len, mip.split(of(x=range(rows)), (0.7, 0.15, 0.15)))] for rows in (10, 100)
    }
    assert sizes == {10: [7, 2, 1], 100: [70, 15, 15]}


def test_a_split_is_a_function_of_its_seed():
    table = of(x=range(50))
    first, again, other = (
        mip.split(table, (0.5, 0.5), seed)[0].row_ids.tolist() for seed in (0, 0, 1)
    )
    assert first == again != other
    assert first != list(range(25))


@given(
    words=st.lists(st.sampled_from("abcdefghij"), max_size=60),
    fractions=st.sampled_from([(0.7, 0.15, 0.15), (0.5, 0.5), (0.8, 0.2, 0.0), (0.1,) * 10]),
    seed=st.integers(0, 5),
)
# Counts whose odd rows must be handed on, to a part that can take them, by way of another.
@example(words=list("aaabb"), fractions=(6 / 12, 4 / 12, 2 / 12), seed=0)
@example(words=list("abbbcc"), fractions=(3 / 15, 9 / 15, 3 / 15), seed=0)
@example(words=list("abbbcdddeee"), fractions=(4 / 9, 2 / 9, 3 / 9), seed=0)
@example(words=list("abcccddd"), fractions=(6 / 16, 2 / 16, 5 / 16, 3 / 16), seed=0)
def test_a_stratified_split_has_the_proportions_of_the_table(words, fractions, seed):
    table = of(y=words)
    parts = mip.split(table, fractions, seed, stratify="y")
    assert sorted(np.concatenate([part.row_ids for part in parts])) == list(range(len(words)))
    grown = len(parts[0]) == len(set(words))  # as large as it must be to have each of them
    for part, fraction in zip(parts, fractions, strict=True):
        assert grown or abs(len(part) - fraction * len(words)) < 1
        for word in set(words):
            count, share = (part.texts("y") == word).sum(), fraction * words.count(word)
            assert abs(count - share) < (1 if len(parts) < 5 else 2) + lacking(words, fractions[0])


def lacking(words, fraction):
    """How many classes may be too rare for a row in the first part: others have fewer for them."""
    return sum(words.count(word) * fraction < 1 for word in set(words))


@given(
    words=st.lists(st.sampled_from("abcdefghijklmnop"), max_size=40),
    shares=shares,
    seed=st.integers(0, 5),
)
def test_each_class_is_in_the_first_part_whatever_the_fractions(words, shares, seed):
    fractions = [share / sum(shares) for share in shares]
    parts = mip.split(of(y=words), fractions, seed, stratify="y")
    assert sorted(sum(numbers(parts), [])) == list(range(len(words)))  # noqa: RUF017
    if fractions[0] > 0:
        assert set(parts[0].texts("y")) == set(words)
    if len(parts[0]) != len(set(words)):
        pairs = zip(parts, fractions, strict=True)
        assert all(abs(len(part) - fraction * len(words)) < 1 for part, fraction in pairs)


def test_a_class_of_one_row_is_in_the_first_part_and_a_large_one_has_a_row_less():
    table = of(y=["common"] * 20 + [f"rare {k}" for k in range(20)])
    train, test = mip.split(table, (0.75, 0.25), stratify="y")
    assert len(train) == 30
    assert len(set(train.texts("y"))) == 21
    assert set(test.texts("y")) == {"common"}
    train, test = mip.split(table, (0.25, 0.75), stratify="y")
    assert len(train) == len(set(train.texts("y"))) == 21
    table = of(y=["a"] * 9 + ["b"])
    rows = [
        int(mip.split(table, (0.1, 0.9), seed, stratify="y")[0].row_ids[0]) for seed in range(9)
    ]
    assert len(set(rows)) > 1


def test_sizes_come_before_proportions_where_both_cannot_be():
    # Of two classes with these counts no table of five parts is within a row everywhere.
    fractions = (1 / 6, 1 / 6, 1 / 4, 1 / 6, 1 / 4)
    parts = mip.split(of(y=["a"] * 4 + ["b"] * 6), fractions, stratify="y")
    assert [*map(len, parts)] == [2, 2, 2, 2, 2]


def test_a_rare_class_is_in_every_part():
    table = of(y=["common"] * 190 + ["rare"] * 10)
    for seed in range(5):
        parts = mip.split(table, (0.7, 0.15, 0.15), seed, stratify="y")
        rare = [int((part.texts("y") == "rare").sum()) for part in parts]
        assert rare[0] == 7
        assert sorted(rare[1:]) == [1, 2]


@given(
    groups=st.lists(st.integers(0, 8), min_size=1, max_size=60),
    fractions=st.sampled_from([(0.7, 0.15, 0.15), (0.5, 0.5)]),
    seed=st.integers(0, 5),
)
def test_a_group_is_never_cut(groups, fractions, seed):
    parts = mip.split(of(g=groups), fractions, seed, group="g")
    assert sorted(np.concatenate([part.row_ids for part in parts])) == list(range(len(groups)))
    owners = [set(part.texts("g")) for part in parts]
    assert sum(map(len, owners)) == len(set(groups))


def test_groups_of_one_are_split_near_the_fractions():
    sizes = [len(part) for part in mip.split(of(g=range(100)), (0.7, 0.15, 0.15), group="g")]
    assert sizes == [70, 15, 15]


@given(
    times=st.lists(st.integers(-5, 5) | st.integers(-700_000, 700_000), min_size=1, max_size=60),
    fractions=st.sampled_from([(0.7, 0.15, 0.15), (0.5, 0.5), (0.0, 1.0)]),
    dates=st.booleans(),
)
def test_the_past_trains_and_the_future_tests(times, fractions, dates):
    days = [str(np.datetime64("2020-01-01") + np.timedelta64(t, "D")) for t in times]
    cells = days if dates else times
    parts = mip.split(of(t=cells), fractions, time="t")
    assert sorted(sum(numbers(parts), [])) == list(range(len(times)))  # noqa: RUF017
    moments = [[times[row] for row in part] for part in numbers(parts) if part]
    assert all(max(early) < min(late) for early, late in pairwise(moments))
    if len(set(times)) == len(times):
        assert [*map(len, parts)] == [*map(len, mip.split(of(t=cells), fractions))]


def test_the_rows_of_one_moment_stay_together_on_the_side_that_is_nearer():
    sides = {
        times: numbers(mip.split(of(t=list(times)), (0.5, 0.5), time="t"))
        for times in [(1, 1, 1, 2, 2, 2), (1, 1, 2, 2, 2, 3), (1, 2, 2, 2, 2, 3)]
    }
    assert [len(first) for first, _ in sides.values()] == [3, 2, 1]


def test_dates_and_times_may_be_mixed_and_have_zones():
    dates = ["2020-01-02", "2020-01-02T01:00+02:00", "2020-01-01 22:00", "2021"]
    assert numbers(mip.split(of(t=dates), [0.25] * 4, time="t")) == [[2], [1], [0], [3]]
    stamps = [pd.Timestamp(day) for day in ("2021-05-01", "2019-05-01", "2020-05-01 12:00")]
    assert numbers(mip.split(of(t=stamps), (1 / 3, 2 / 3), time="t")) == [[1], [0, 2]]


@pytest.mark.parametrize(
    ("cells", "error"),
    [
        (["2020-01-01", "31.12.2020"], "'31.12.2020' is neither a number nor an ISO date"),
        ([3.5, None], "no time is given"),
        (["5", "soon"], "'soon' is neither a number nor an ISO date"),
    ],
)
def test_a_cell_that_is_no_time_is_named(cells, error):
    with pytest.raises(DataError, match=f"^table row 1, column 't': {re.escape(error)}$"):
        mip.split(of(t=cells), (0.5, 0.5), time="t")


keys = st.lists(st.integers(0, 10**6), max_size=40)


@given(old=keys, new=keys, seed=st.integers(0, 3))
def test_the_part_of_a_key_does_not_change_when_rows_are_added(old, new, seed):
    fractions = (0.5, 0.25, 0.25)
    before = mip.split(of(id=pd.Series(old, dtype="int64")), fractions, seed, key="id")
    after = mip.split(of(id=pd.Series(new + old, dtype="int64")), fractions, seed, key="id")
    assert sum(map(len, before)) == len(old)
    owners = [set(part.texts("id")) for part in after]
    assert sum(map(len, owners)) == len({*old, *new})
    for part, owned in zip(before, owners, strict=True):
        assert set(part.texts("id")) <= owned


def test_many_keys_are_split_near_the_fractions_and_by_the_seed():
    table = of(id=range(4000))
    parts = mip.split(table, (0.7, 0.0, 0.3), key="id")
    assert [len(part) for part in parts] == pytest.approx([2800, 0, 1200], abs=100)
    assert numbers(parts) != numbers(mip.split(table, (0.7, 0.0, 0.3), 1, key="id"))
    floats = of(id=[*map(float, range(4000))])
    assert numbers(parts) == numbers(mip.split(floats, (0.7, 0.0, 0.3), key="id"))


def test_the_part_of_a_key_is_the_same_everywhere():
    assert numbers(mip.split(of(id=list("abcdefgh")), (0.5, 0.5), key="id")) == [
        [0, 2],
        [1, 3, 4, 5, 6, 7],
    ]


@pytest.mark.parametrize("fractions", [(0.5, 0.4), (1.2, -0.2), (float("nan"), 0.5), ()])
def test_fractions_must_add_up(fractions):
    with pytest.raises(DataError, match=r"^split: the fractions .* must add up to 1$"):
        mip.split(of(x=[1]), fractions)


def test_stratify_and_group_exclude_each_other():
    with pytest.raises(DataError, match="stratify and group exclude each other"):
        mip.split(of(x=[1]), (1.0,), stratify="x", group="x")
    with pytest.raises(DataError, match=r"^split: time and key exclude each other$"):
        mip.split(of(x=[1]), (1.0,), time="x", key="x")


# Folds.


@given(
    words=st.lists(st.sampled_from("abcdef"), min_size=6, max_size=60),
    k=st.integers(2, 6),
    seed=st.integers(0, 3),
    stratify=st.sampled_from([None, "y"]),
)
def test_folds_differ_by_one_row_and_so_do_their_classes(words, k, seed, stratify):
    table = of(y=words)
    folds = mip.folds(table, k, 2, seed, stratify)
    for column in ("fold_0", "fold_1"):
        fold = folds.numbers(column).astype(int)
        sizes = np.bincount(fold, minlength=k)
        assert len(sizes) == k
        assert sizes.max() - sizes.min() <= 1
        for word in set(words) if stratify else ():
            counts = np.bincount(fold[folds.texts("y") == word], minlength=k)
            assert counts.max() - counts.min() <= 1
    assert folds.frame.equals(mip.folds(table, k, 2, seed, stratify).frame)
    assert folds.frame[["y"]].equals(table.frame)


@given(st.lists(st.integers(0, 20), min_size=5, max_size=60).filter(lambda g: len(set(g)) > 2))
def test_folds_do_not_cut_groups_and_are_even(groups):
    folds = mip.folds(of(g=groups), 3, group="g")
    of_groups = {(int(g), fold) for g, fold in zip(groups, folds.texts("fold_0"), strict=True)}
    assert len(of_groups) == len(set(groups))
    sizes = np.bincount(folds.numbers("fold_0").astype(int), minlength=3)
    assert sizes.min() > 0
    assert sizes.max() - sizes.min() <= max(map(groups.count, groups))


def test_the_largest_groups_are_dealt_first():
    sizes = mip.folds(of(g=list("abcdeeee")), 2, group="g").numbers("fold_0")
    assert np.bincount(sizes.astype(int)).tolist() == [4, 4]


def test_repeats_and_seeds_give_other_folds_and_a_longer_run_keeps_the_first():
    table = of(x=range(60))
    two, three, other = mip.folds(table, 3, 2), mip.folds(table, 3, 3), mip.folds(table, 3, 1, 1)
    assert (
        len({tuple(column) for column in (*three.frame.T.values[1:], other.frame["fold_0"])}) == 4
    )
    assert three.frame[two.columns].equals(two.frame)


def test_folds_survive_their_file(tmp_path):
    table = of(x=range(10)).take([7, 2, 9, 4])
    written = mip.folds(table, 2, 2)
    written.frame.rename_axis("row").to_csv(tmp_path / "folds.csv")
    again = with_folds(table, mip.read(tmp_path / "folds.csv"), "fold_1")
    assert again.texts("fold_1").tolist() == written.texts("fold_1").tolist()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"k": 1}, "folds: k = 1 must be from 2 to the 3 rows of table"),
        ({"k": 4}, "folds: k = 4 must be from 2 to the 3 rows of table"),
        ({"k": 3, "group": "g"}, "folds: k = 3 must be from 2 to the 2 groups of table"),
        ({"k": 2, "group": "g", "stratify": "g"}, "folds: stratify and group exclude each other"),
        ({"k": 2, "repeats": 8}, "folds: table already has a column 'fold_7'"),
    ],
)
def test_folds_that_cannot_be_are_refused(options, error):
    with pytest.raises(DataError, match=f"^{re.escape(error)}$"):
        mip.folds(of(g=["a", "b", "a"], fold_7=0), **options)


# Parts by the spec.


def test_a_column_may_say_the_parts_in_the_usual_words():
    table = of(part=["train", "Test", "training", "val", "VALIDATION ", "testing"])
    parts = mip.split(table, column="part")
    assert [part.row_ids.tolist() for part in parts] == [[0, 2], [3, 4], [1, 5]]


@pytest.mark.parametrize(("option", "value"), [("fractions", (0.5, 0.5)), ("key", "part")])
def test_a_column_of_parts_leaves_nothing_else_to_say(option, value):
    with pytest.raises(DataError, match=f"^split: {option} and column exclude each other$"):
        mip.split(of(part=["train", "test"]), column="part", **{option: value})


def with_split(options):
    return spec_of("regression", NUMBERS, f"[data.split]\n{options}\n")


def test_parts_follow_the_fractions_of_the_spec():
    table = mip.from_frame(frame_of(40))
    parts = mip.parts(with_split("fractions = [0.5, 0.25, 0.25]\nseed = 3"), table)
    assert [*map(len, parts)] == [20, 10, 10]
    expected = mip.split(table, (0.5, 0.25, 0.25), seed=3)
    assert [part.row_ids.tolist() for part in parts] == [part.row_ids.tolist() for part in expected]


@pytest.mark.parametrize("way", ["stratify", "group", "time", "key"])
def test_parts_follow_the_column_of_the_spec(way):
    table = mip.from_frame(frame_of(40))
    parts = mip.parts(with_split(f'seed = 3\n{way} = "rooms"'), table)
    expected = mip.split(table, (0.7, 0.15, 0.15), 3, **{way: "rooms"})
    assert numbers(parts) == numbers(expected)
    assert numbers(parts) != numbers(mip.split(table, (0.7, 0.15, 0.15), 3))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ('group = "a"\nstratify = "b"', "data.split.group and 'stratify' exclude each other"),
        ('time = "a"\nkey = "b"', "data.split.key and 'time' exclude each other"),
        ('time = "a"\ncolumn = "b"', "data.split.column and 'time' exclude each other"),
        ('key = "a"\nfolds = "b"\ncolumn = "c"', "data.split.folds and 'key' exclude each other"),
        ("test = 1", "data.split.test is a fold, which needs 'folds', the file of folds"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options, error):
    with pytest.raises(SpecError, match=f"^{re.escape(error)}$"):
        with_split(options)


def test_parts_follow_a_column():
    table = mip.from_frame(frame_of(4).assign(part=["train", "test", "train", "train"]))
    parts = mip.parts(with_split('column = "part"'), table)
    assert [part.row_ids.tolist() for part in parts] == [[0, 2, 3], [], [1]]


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        (["train", "tset"], "must say train, valid or test, not 'tset'"),
        (["", "train"], "must say train, valid or test, not ''"),
        ("abcdefg", "must say train, valid or test, not 'a', 'b', 'c', 'd', 'e', …"),
        (["valid", "test"], "says train in no row"),
    ],
)
def test_a_column_of_other_words_than_parts_is_refused(parts, error):
    table = mip.from_frame(frame_of(len(parts)).assign(part=[*parts]))
    with pytest.raises(DataError, match=f"column 'part' {re.escape(error)}$"):
        mip.parts(with_split('column = "part"'), table)


def folds_of(tmp_path, rows, folds):
    pd.DataFrame({"row": rows, "fold": folds}).to_csv(tmp_path / "folds.csv", index=False)


def test_parts_follow_a_folds_file(tmp_path):
    folds_of(tmp_path, [3, 2, 1, 0], ["a", "b", "c", "c"])
    spec = with_split('folds = "folds.csv"\ntest = "a"\nvalid = "b"')
    parts = mip.parts(spec, mip.from_frame(frame_of(4)), tmp_path)
    assert [part.row_ids.tolist() for part in parts] == [[0, 1], [2], [3]]


def test_folds_may_be_numbers(tmp_path):
    folds_of(tmp_path, range(4), [0, 1, 2, 0])
    parts = mip.parts(
        with_split('folds = "folds.csv"\ntest = 0'), mip.from_frame(frame_of(4)), tmp_path
    )
    assert [part.row_ids.tolist() for part in parts] == [[1, 2], [], [0, 3]]


def test_a_fold_that_is_none_names_the_known(tmp_path):
    folds_of(tmp_path, range(4), [0, 1, 2, 0])
    spec = with_split('folds = "folds.csv"\ntest = 7')
    with pytest.raises(SpecError, match=r"data\.split\.test = 7 is not a fold.*\(known: 0, 1, 2\)"):
        mip.parts(spec, mip.from_frame(frame_of(4)), tmp_path)


@pytest.mark.parametrize(
    ("rows", "names", "error"),
    [
        ("01", "00", "folds.csv: no fold for row 2 of table"),
        ("012", ["0", "1", ""], "folds.csv: no fold for row 2 of table"),
        ("011", "000", "folds.csv: duplicate row in column 'row'"),
        (["0", "1", ""], "000", "folds.csv row 2, column 'row': not the number of a row"),
        (["0", "1", "1.5"], "000", "folds.csv row 2, column 'row': not the number of a row"),
    ],
)
def test_folds_that_do_not_fit_are_refused(rows, names, error):
    folds = mip.from_frame(pd.DataFrame({"row": [*rows], "fold": [*names]}), name="folds.csv")
    with pytest.raises(DataError, match=f"^{re.escape(error)}$"):
        with_folds(of(x=range(3)), folds)
