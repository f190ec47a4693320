"""Whatever table there is, `mip new` writes a spec that `mip check` accepts, or says why not."""

from __future__ import annotations

import csv
import json
import tempfile
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import mip
from mip.errors import DataError
from mip.runs import prepare_job
from mip.spec import draft
from mip.spec.drafts.distinct_cells import distinct_cells
from mip.spec.drafts.roles import guess
from mip.spec.drafts.targets.classes import FRACTIONS

pytestmark = pytest.mark.filterwarnings("ignore::mip.errors.MipWarning")

BLANKS = ["", "none", "None", "-", "?", "NA", "n/a", "nan", "null", " "]
CELLS = st.one_of(
    st.sampled_from(BLANKS),
    st.sampled_from(["yes", "no", "Yes", "true", "f", "0", "1", "01", "1.0", "on", "+"]),
    st.sampled_from(
        ["mild", "severe", "Ulm", "Köln", "it is a word", 'the "x"', "a\nb", "#", "\\"]
    ),
    st.sampled_from(["2024-01-31", "2021-02-30", "31.12.2020", "2020-01-01 10:00", "2024-05-05"]),
    st.sampled_from(
        ["a.png", "b.JPG", "../c.png", "x" * 300 + ".png", "[1, 2]", "(3; 4.5)", "[+, .]"]
    ),
    st.sampled_from(["1e39", "inf", "-1e-30", "1e-300", "1e38", "1,5", "0x1", "1_000", "١", "-0"]),
    st.integers(-3, 40).map(str),
    st.floats(-9, 9).map(lambda x: f"{x:.2f}"),
    st.text(max_size=4),
)
NUMBERS = st.integers(-3, 40).map(str) | st.floats(1e-9, 1e9).map(str)
DAYS = st.dates(date(1700, 1, 1), date(2250, 1, 1)).map(str)
PALETTES = st.one_of(
    st.lists(CELLS, min_size=1, max_size=5).map(st.sampled_from),
    st.sampled_from(BLANKS).map(lambda blank: NUMBERS | st.just(blank)),
    st.sampled_from(BLANKS).map(lambda blank: DAYS | st.just(blank)),
    st.just(NUMBERS),
    st.just(CELLS),
)
"""What the cells of a column are drawn of: a few words again and again, or anything."""

HEADERS = st.text(max_size=6) | st.sampled_from(["id", "zip code", "a\nb", "c\r\nd", "x" * 500, ""])
JSON = st.one_of(
    CELLS,
    st.none(),
    st.booleans(),
    st.integers(-(10**40), 10**40),
    st.floats(allow_nan=False),
    st.lists(st.sampled_from(["sea", "sun", "a.png", "b.png"]), max_size=3),
    st.lists(st.integers(0, 3) | st.floats(-1, 1) | st.just(10**400), max_size=2),
)


@st.composite
def tables(draw):
    """The header and the columns of a table of a few rows."""
    rows = draw(st.integers(1, 9) | st.sampled_from([20, 34]))
    header = draw(st.lists(HEADERS, min_size=1, max_size=5, unique=True))
    return {
        name: [draw(p) for _ in range(rows)]
        for name, p in ((name, draw(PALETTES)) for name in header)
    }


@st.composite
def objects(draw):
    """The rows of a file of JSON lines."""
    names = draw(st.lists(st.text(max_size=3), min_size=2, max_size=4, unique=True))
    palettes = [draw(st.lists(JSON, min_size=1, max_size=4)) for _ in names]
    rows = draw(st.integers(1, 12))
    cells = [st.sampled_from(each) for each in palettes]
    return [dict(zip(names, [draw(each) for each in cells], strict=True)) for _ in range(rows)]


def check(table, text):
    """Do what `mip check` does."""
    spec = mip.parse(text)
    text.encode()
    used, _ = mip.clean(spec, table)
    cut = mip.parts(spec, used)
    plan = mip.adapt(spec, cut.train)
    for part in cut:
        plan.encode(part)
    return spec, cut


def drafted(table, targets):
    try:
        return draft(table, targets, "t.csv")
    except DataError:
        return None


def some(columns):
    """One column or two."""
    return st.lists(st.sampled_from(columns), min_size=1, max_size=2, unique=True)


@settings(max_examples=60)
@given(columns=tables(), data=st.data())
@example({"x": ["1", "2", "3"], "kind": ["none", "mild", "severe"]}, None)
@example({"x": ["1", "2", "3", "4"], "kind": ["+", "-", "+", "-"]}, None)
@example({"x": ["1", "2", "3", "4"], "kind": ["0", "1", "none", "1"]}, None)
@example({"x": ["1", "2", "3", "4"], "kind": ["None", "aphid", "", "aphid"]}, None)
@example({"x\ny": ["1", "2", "3", "4"], "kind": ["a\nb", "c", "c", "c"]}, None)
@example({"x": ["[+, 1]", "[1, 2]", "[1, 3]"], "kind": ["1", "2", "3"]}, None)
@example({"x": ["[1, 2]", "[1, 2]", "[1]"], "kind": ["1", "2", "3"]}, None)
@example({"x": ["[1, 2]", "NA", "[1, 3]", "[1, 4]"], "kind": ["1", "2", "3", "4"]}, None)
@example({"x": ["2021-02-30", "2021-02-01"] * 2, "kind": ["1", "2", "3", "4"]}, None)
@example({"x": ["a" * 300 + ".png"] * 2 + ["b.png"], "kind": ["1", "2", "3"]}, None)
def test_a_table_of_words_gets_a_spec_that_can_be_used_or_a_reason(columns, data):
    targets = list(columns)[-1] if data is None else data.draw(some(list(columns)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        with path.open("w", encoding="utf-8", errors="surrogatepass", newline="") as file:
            rows = csv.writer(file, quoting=csv.QUOTE_ALL)
            rows.writerows([list(columns), *zip(*columns.values(), strict=True)])
        try:
            table = mip.read(path)
        except DataError:
            assume(False)
        text = drafted(table, targets)
        if text is not None:
            check(table, text)


@settings(max_examples=75)
@given(rows=objects(), data=st.data())
def test_a_table_of_json_gets_a_spec_that_can_be_used_or_a_reason(rows, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        try:
            table = mip.read(path)
        except DataError:
            assume(False)
        assume(table.columns)
        text = drafted(table, data.draw(some(table.columns)))
        if text is not None:
            check(table, text)


# What stands for a missing number is a word among words.


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["none", "mild", "severe"], "Ordinal"),
        (["none", "oak", "ash"], "Multiclass"),
        (["+", "-"], "Binary"),
        (["None", "aphid"], "Binary"),
        (["NA", "EU", "SA"], "Multiclass"),
        (["1", "none"], "Binary"),
        (["0", "1", ""], "Binary"),
        (["yes", "no", "?"], "Multiclass"),
    ],
)
def test_words_that_look_blank_are_classes(cells, kind):
    table = mip.from_columns({"x": np.arange(60) % 7, "y": (cells * 60)[:60]})
    spec, cut = check(table, draft(table, "y", "t.csv"))
    assert type(spec.head).__name__ == kind
    plan = prepare_job(spec, cut).plan
    assert sorted(plan.facts["head"]["classes"]) == sorted(filter(None, cells))


@pytest.mark.parametrize("cells", [["0", "1", "NA"], ["1", "2", "3", "?"], ["0", "1", "2", "-"]])
def test_words_that_look_blank_are_missing_among_classes_that_are_numbers(cells):
    table = mip.from_columns({"x": np.arange(60) % 7, "y": (cells * 60)[:60]})
    spec, cut = check(table, draft(table, "y", "t.csv"))
    assert spec.data.columns["y"].na_values == (cells[-1],)
    assert prepare_job(spec, cut).plan.facts["head"]["classes"] == cells[:-1]


@pytest.mark.parametrize(
    ("cells", "role"),
    [
        (["none", "wood"], "category"),
        (["-", "+"], "category"),
        (["none", "-"], "category"),
        (["none", ""], "constant"),
        (["1", "none"], "category"),
        (["1", "2.5", "none"], "number"),
        (["yes", "no", "none"], "yes or no"),
        (["yes", "none"], "category"),
        (["2024-01-31", "2024-02-01", "none"], "date"),
        (["2024-02-30", "2024-02-01"], "category"),
        (["[1, 2]", "[3, 4]", "[5, 6]", "none"], "vector"),
        (["[1, 2]", "[3]", "[5, 6]"], "category"),
        (["[1, 2]", "none", "none"], "category"),
        (["inf", "1e39"], "category"),
    ],
)
def test_the_roles_of_columns_with_blank_words(cells, role):
    columns = distinct_cells(mip.from_columns({"x": cells * 2}))
    assert guess(columns["x"]).role == role


def test_rows_without_a_target_are_not_looked_at():
    table = mip.from_columns(
        {"x": ["a", "b", "c"] * 4, "z": ["1"] * 11 + ["2"], "y": ["u", "v"] * 6}
    )
    table.frame.loc[11, "y"] = ""
    text = draft(table, "y", "t.csv")
    assert text.startswith("# table: 12 rows, 11 of them with a target\n")
    assert "# left out: z (constant: 1 value: nothing to learn)" in text
    check(table, text)


# Every class trains.


@given(rare=st.integers(1, 8), common=st.integers(8, 40), seed=st.integers(0, 5))
def test_a_class_of_one_row_trains(rare, common, seed):
    words = ["oak", "ash"] * common + [f"rare {k}" for k in range(rare)]
    table = mip.from_columns({"x": np.arange(len(words)) % 5 / 2, "y": words})
    text = draft(table, "y", "t.csv")
    assert 'stratify = "y"' in text
    spec = mip.parse(text, changes={"data.split.seed": seed})
    plan = mip.adapt(spec, mip.parts(spec, table).train)
    assert plan.facts["head"]["classes"] == sorted(set(words))


def test_every_label_trains_or_is_named():
    tags = [["sea"], ["sun"], ["sea", "sun"], []] * 5
    rows = {"x": np.arange(20) % 7, "tags": [*tags[:-1], ["rare"]]}
    spec, cut = check(table := mip.from_columns(rows), draft(mip.from_columns(rows), "tags", "t"))
    assert spec.head.adapt(cut.train) == spec.head.adapt(table)
    rare = mip.from_columns({"x": np.arange(20) % 7, "tags": [[f"tag {k}"] for k in range(20)]})
    with pytest.raises(DataError) as caught:
        draft(rare, "tags", "t.csv")
    assert str(caught.value).startswith("table: column 'tags': the label 'tag ")
    assert str(caught.value).endswith(
        "' is in too few rows: no split of 100 has each label in train; leave rare labels out"
    )
    assert sum(FRACTIONS) == 1


def parted(**counts):
    """A table with as many rows in each part."""
    parts = [part for part, count in counts.items() for _ in range(count)]
    return mip.from_columns(
        {"x": np.arange(len(parts)) % 7, "y": np.arange(len(parts)) % 2, "part": parts}
    )


def test_a_column_that_names_parts_is_the_split_and_no_input():
    text = draft(table := parted(Train=20, val=5, test=5), "y", "t.csv")
    spec, cut = check(table, text)
    assert spec.data.split.column == "part"
    assert [*map(len, cut)] == [20, 5, 5]
    assert mip.model.columns_of(spec) == ["x", "y"]
    others = mip.from_columns({**table.frame, "part": ["train", "tail"] * 15})
    assert mip.parse(draft(others, "y", "t.csv")).data.split.column is None


def test_without_valid_rows_the_last_epoch_is_the_model():
    text = draft(table := parted(train=2000, test=20), "y", "t.csv")
    assert "the last epoch: there are no valid rows to choose by" in text
    assert not check(table, text)[0].train.restore_best


def test_a_class_that_only_a_test_row_has_is_named():
    table = parted(train=20, test=5)
    table.frame["y"] = ["oak", "ash"] * 10 + ["yew"] * 5
    with pytest.raises(DataError, match="column 'y': 'yew' is in no row of the part train"):
        draft(table, "y", "t.csv")


def test_a_split_that_leaves_a_class_out_gets_its_cure():
    rows = {"x": np.arange(20.0), "y": ["yew"] + ["oak", "ash"] * 9 + ["oak"]}
    spec = mip.parse("""
        branch.x = { kind = "continuous", columns = ["x"] }
        head = { kind = "multiclass", column = "y" }
    """)
    table = mip.from_columns(rows)
    seed = next(k for k in range(99) if "yew" not in mip.split(table, FRACTIONS, k)[0].texts("y"))
    cut = mip.model.Parts(*mip.split(table, FRACTIONS, seed))
    with pytest.raises(DataError) as caught:
        prepare_job(spec, cut)
    assert str(caught.value) == (
        "table row 0, column 'y': 'yew' is not a class of the training rows (known: ash, oak); "
        "leave such rows out (data.columns.y.na_values), or merge the class with another "
        "(data.columns.y.merge), or train on some of them: where rows are drawn, by "
        "data.split.stratify = 'y'"
    )
    prepare_job(spec, mip.model.Parts(*mip.split(table, FRACTIONS, seed, stratify="y")))


# Names and words that hold anything.

ODD = [
    "a\nb",
    "c\r\n[d]",
    "e\u2028f",
    "g\x00\x1b[31m",
    '"""',
    "\\",
    "#",
    "x" * 5000,
    "ö \U0001f600",
    "a\tb",
]


@pytest.mark.parametrize("name", ODD)
def test_a_comment_is_one_line_whatever_it_quotes(name):
    words = [name, f"other {name}"] * 6
    columns = {name: range(12), f"{name}2": words, f"{name}3": [name] * 12, "y": words}
    table = mip.from_columns(columns, name=f"t{name[:20]}.csv")
    text = draft(table, "y", f"{name}.csv")
    spec, _ = check(table, text)
    assert spec.data.table == f"{name}.csv"
    assert spec.branch["categories"].columns == (f"{name}2",)
    comments = [line for line in text.split("\n") if line.startswith("#")]
    assert len(comments) == 7
    assert all(line.isprintable() and len(line) <= 202 for line in comments)


def test_names_that_no_spec_can_hold_are_left_out_or_named():
    long, dotted = "long " * 3000, "." * 4000
    rows = {long: range(5), dotted: range(5), "x": [1, 3, 1, 3, 7], "y": [1.5, 2.5, 3.5, 9.5, 1.0]}
    table = mip.from_columns(rows)
    text = draft(table, "y", "t.csv")
    spec, _ = check(table, text)
    assert spec.branch["numbers"].columns == ("x",)
    assert text.count("… (odd name: a spec cannot hold it: rename the column)\n") == 2
    with pytest.raises(
        DataError, match="the name of the target cannot be written in a spec: rename it"
    ):
        draft(table, dotted, "t.csv")
    with pytest.raises(DataError, match="the name of the table's file cannot be written in a spec"):
        draft(table, "y", "t\udcff.csv")


@pytest.mark.slow
def test_many_names_with_dots_stand_a_line_each():
    columns = {f"{'very.' * 20}{k}": [1.5, 2.5, k] for k in range(400)}
    table = mip.from_columns({**columns, "y": [1.5, 2.5, 4.0]})
    spec, _ = check(table, draft(table, "y", "t.csv"))
    assert len(spec.branch["numbers"].columns) + len(spec.branch["amounts"].columns) == 400
