"""The first spec of a table: what each column seems to be, and that it trains."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import mip
from mip.data import from_columns, from_frame
from mip.errors import DataError
from mip.spec import draft, make_draft
from mip.spec.drafts.distinct_cells import distinct_cells
from mip.spec.drafts.roles import guess


@pytest.fixture
def table():
    n = 90
    rng = np.random.default_rng(0)
    return from_frame(
        pd.DataFrame(
            {
                "id": np.arange(n),
                "visit": 1000 - np.arange(n),
                "zipcode": rng.choice([85255, 36372, 92677], n),
                "area": rng.uniform(50, 5000, n).round(1),
                "age": rng.integers(0, 60, n),
                "town": rng.choice(["Ulm", "Bonn"], n),
                "sold": pd.date_range("2020-01-01", periods=n).astype(str),
                "note": [f"a house with the number {k}" for k in range(n)],
                "same": 1,
                "price": rng.uniform(1e5, 5e6, n).round(),
                "cheap": rng.choice(["yes", "no"], n),
                "kind": rng.choice(["flat", "house", "barn"], n),
            }
        )
    )


@pytest.mark.parametrize(
    ("column", "role"),
    [
        ("id", "row name"),
        ("visit", "row name"),
        ("zipcode", "category"),
        ("area", "log number"),
        ("age", "number"),
        ("town", "category"),
        ("sold", "date"),
        ("note", "free text"),
        ("same", "constant"),
        ("cheap", "yes or no"),
    ],
)
def test_roles(table, column, role):
    assert guess(distinct_cells(table)[column]).role == role


@pytest.mark.parametrize(
    ("target", "kind"), [("price", "Regression"), ("cheap", "Binary"), ("kind", "Multiclass")]
)
def test_a_draft_is_a_spec_that_adapts(table, target, kind):
    spec = mip.parse(draft(table, target, "houses.csv"))
    assert type(spec.head).__name__ == kind
    assert spec.data.table == "houses.csv"
    cut = mip.parts(spec, mip.clean(spec, table)[0])
    mip.build(mip.adapt(spec, cut.train))


def test_dates_answers_and_vectors_get_their_branches(table):
    frame = table.frame.assign(v=[[1.0, float(k)] for k in range(90)])
    spec = mip.parse(draft(from_frame(frame), "price", "t.csv"))
    actual = {name: branch.columns for name, branch in spec.branch.items()}
    assert actual["dates"] == ("sold",)
    assert actual["answers"] == ("cheap",)
    assert actual["vectors"] == ("v",)


def many(table, rows=2000):
    """The table with the rows again and again, and other notes."""
    frame = pd.concat([table.frame] * (rows // len(table) + 1), ignore_index=True)[:rows]
    return from_frame(frame.assign(note=[f"house number {k} in Ulm" for k in range(rows)]))


def test_many_rows_teach_curves_and_words(table):
    few, more = draft(table, "price", "t.csv"), draft(many(table), "price", "t.csv")
    spec = mip.parse(few)
    assert "texts" not in spec.branch
    assert spec.branch["numbers"].embedding == "none"
    assert spec.branch["amounts"].scale == "log"
    assert "# left out: note (rare text: 90 different values: too many to be categories, and" in few
    spec = mip.parse(more)
    assert spec.branch["texts"].columns == ("note",)
    assert "amounts" not in spec.branch
    assert (spec.branch["numbers"].embedding, spec.branch["numbers"].bins) == ("piecewise", 128)
    assert "area" in spec.branch["numbers"].columns
    assert "# 2000 rows are enough for a curve for each column" in more


@pytest.mark.parametrize(
    ("rows", "has_text", "members", "batch_size", "epochs"),
    [
        (1_999, False, 8, 32, 40),
        (9_999, False, 8, 128, 60),
        (12_000, False, 4, 256, 58),
        (12_000, True, 8, 128, 60),
        (70_000, False, 4, 256, 10),
    ],
)
def test_a_large_table_is_trained_in_few_large_steps(rows, has_text, members, batch_size, epochs):
    columns = {"x": np.arange(rows) / 7 % 5, "y": np.arange(rows) / 3 % 4}
    if has_text:
        columns["note"] = [f"house number {k} in Ulm" for k in range(rows)]
    spec = mip.parse(draft(from_columns(columns), "y", "t.csv"))
    actual = spec.head.members, spec.train.batch_size, spec.train.epochs
    assert actual == (members, batch_size, epochs)


def test_classes_of_a_large_table_are_seen_less_often_than_numbers():
    x = np.arange(20_000) / 7 % 5
    table = from_columns({"x": x, "number": x * 3.3, "kind": np.where(x > 2, "tall", "low")})
    targets = {"kind": 25, "number": 35, ("kind", "number"): 35}
    for target, epochs in targets.items():
        assert mip.parse(draft(table, target, "t.csv")).train.epochs == epochs


def test_photos_beside_few_rows_of_a_table_get_few_words():
    photos = [np.full((4, 4, 3), k, dtype="uint8") for k in range(20)]
    rows = {"x": np.linspace(0, 1, 20), "photo": photos, "y": np.linspace(5, 6, 20)}
    text = draft(from_columns(rows), "y", "t.csv")
    assert "layers = [8]            # few, because there are 20 rows" in text
    assert mip.parse(text).branch["looks"].branch["photos"].columns == ("photo",)
    alone = draft(from_columns({"photo": photos, "y": rows["y"]}), "y", "t.csv")
    assert list(mip.parse(alone).branch) == ["photos"]


def test_lists_of_words_are_labels():
    rows = from_columns({"x": [1.5, 2.0, 3.0], "tags": [["sea"], ["sea", "sun"], []]})
    assert type(mip.parse(draft(rows, "tags", "t.csv")).head).__name__ == "Multilabel"


def test_a_target_that_spans_decades_is_predicted_on_a_log_scale(table):
    assert mip.parse(draft(table, "price", "t.csv")).head.scale == "log"
    assert mip.parse(draft(table, "age", "t.csv")).head.scale == "standard"


def test_columns_left_out_say_why(table):
    frame = table.frame.assign(
        agent=[f"agent {k}" for k in range(90)], size=["small", *[f"{k}-{k}" for k in range(89)]]
    )
    text = draft(from_frame(frame), "price", "t.csv")
    names = "90 different values: another word in each row"
    assert f"# left out: agent (names: {names})" in text
    assert f"# left out: size (names: {names})" in text
    assert "# zipcode: 3 different values: a code, not an amount" in text


def test_names_with_quotes_and_brackets_stay_whole(table):
    frame = table.frame.rename(columns={"area": 'area "net" [m²]'})
    spec = mip.parse(draft(from_frame(frame), "price", "t.csv"))
    assert 'area "net" [m²]' in spec.branch["amounts"].columns


def test_an_unknown_target_is_named(table):
    with pytest.raises(mip.MipError, match=r"there is no column 'prize'; did you mean 'price'\?"):
        draft(table, "prize", "t.csv")


def test_a_constant_target_is_refused(table):
    with pytest.raises(mip.MipError, match="column 'same' has one value, nothing to predict"):
        draft(table, "same", "t.csv")


@pytest.mark.parametrize(
    ("cells", "role"),
    [
        ([["a.png", "b.JPG"], "c.tiff", None], "image"),
        ([b"GIF89a", None, b"GIF89a"], "image"),
        ([np.zeros((4, 4)), np.ones((4, 4)), None], "image"),
        ([["red", "green"], ["blue"], []], "list"),
        ([[], [], []], "list"),
        ([[1, 2.5], None, [3, 4]], "vector"),
        ([[1, 2.5], [3]], "list"),
        ([[1, 2.5], "1 2"], "list"),
        ([{"bytes": b"GIF89a", "path": None}, None], "image"),
        (["p0", "p1", "p2", "p3"], "names"),
        (["none", "wood", "none"], "category"),
    ],
)
def test_roles_of_cells(cells, role):
    assert guess(distinct_cells(from_columns({"x": cells}))["x"]).role == role


def test_lists_of_words_are_left_out(table):
    frame = table.frame.assign(tags=[["red", "green"]] * len(table))
    assert "# left out: tags (list: lists of 180 in 90 rows: neither images nor" in draft(
        from_frame(frame), "price", "t.csv"
    )


def test_photos_that_are_not_there_are_counted_and_the_first_is_named(tmp_path):
    cells = ["a.png", "b.png", "", "c.png"] * 5
    for name in ("a.png", "c.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    frame = pd.DataFrame({"photo": cells, "price": np.arange(20.0)})
    text = draft(from_frame(frame, root=tmp_path), "price", "t.csv")
    assert "# 5 cells name no photo, and 5 of 15 photos are missing or broken\n" in text
    assert "(the first: row 1: b.png is missing); their rows are left out" in text
    assert mip.parse(text).branch["photos"].missing == "drop"
    more = from_frame(frame.assign(area=np.arange(20) % 7 + 0.5), root=tmp_path)
    text = draft(more, "price", "t.csv")
    assert "(the first: row 1: b.png is missing); a learned" in text
    assert mip.parse(text).branch["looks"].branch["photos"].missing == "learn"


def test_a_class_that_is_not_in_train_names_its_rows():
    part = ["train"] * 8 + ["test"] * 2
    rows = from_columns({"x": np.arange(10.0), "y": [*"abababab", "a", "c"], "part": part})
    with pytest.raises(DataError, match=r"leave out its rows \(9\), or move some to train$"):
        draft(rows, "y", "t.csv")


def test_a_column_of_parts_that_is_not_used_is_explained():
    rows = {"x": np.arange(12) % 7 + 0.5, "y": [*"ab" * 5, None, None]}
    text = draft(from_columns(rows | {"part": ["train"] * 10 + ["test"] * 2}), "y", "t.csv")
    assert "# the column part is not used: the rows with a target are not" in text
    assert "column part" not in draft(from_columns(rows), "y", "t.csv")


def test_names_of_files_that_are_not_there_are_left_out(tmp_path):
    frame = pd.DataFrame(
        {"photo": ["a.png", "b.png"] * 9, "size": np.arange(18) % 7, "y": range(18)}
    )
    actual = guess(distinct_cells(from_frame(frame, root=tmp_path))["photo"])
    assert (actual.role, actual.reason) == (
        "lost files",
        "2 different values: none of these files exists",
    )
    rows = from_frame(frame, root=tmp_path)
    with pytest.raises(DataError, match=r"a\.png is missing, and the table's folder has no im"):
        draft(rows, "y", "t.csv")
    made = make_draft(rows, "y", "t.csv", without=["photo"])
    assert "left out: photo (by --without)" in made.notes
    assert list(mip.parse(made.text).branch) == ["numbers"]


@pytest.mark.parametrize("target", ["id", "note", "sold"])
def test_a_target_of_too_many_words_is_refused(table, target):
    words = table.frame.assign(id=[f"no. {k}" for k in range(90)])
    message = rf"'{target}': 90 different words in 90 rows are too many to be classes$"
    with pytest.raises(DataError, match=message):
        draft(from_frame(words), target, "t.csv")


def test_sentences_are_no_categories_and_lists_of_numbers_no_text(table):
    rows = from_columns(
        {
            "note": [f"a house with {k % 50} rooms" for k in range(300)],
            "made": [f"[{k}.5, -1e-3, {k}]" for k in range(300)],
            "code": [f"c{k % 50}" for k in range(300)],
        }
    )
    actual = {name: guess(cells).role for name, cells in distinct_cells(rows).items()}
    assert actual == {"note": "free text", "made": "vector", "code": "category"}


def role_of(name, cells):
    return guess(distinct_cells(from_columns({name: cells, "x": range(len(cells))}))[name])


@pytest.mark.parametrize("mark", ["x", "yes", "1", "✓", 1])
def test_a_mark_beside_empty_cells_is_a_category(mark):
    found = role_of("sold", [mark, None, mark, None, None, mark])
    assert (found.role, found.reason) == ("category", "1 value, 3 missing: marked or not")
    assert role_of("sold", [mark] * 6).role == "constant"
    assert role_of("sold", [*[mark] * 5, None]).role == "constant"


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "unnamed", "id", "row_no"])
def test_numbers_of_rows_are_none_of_amounts_although_some_rows_lack_one(name):
    numbers = [str(row * 3 + 1) for row in range(40)]
    assert role_of(name, numbers).role == "row name"
    assert role_of(name, [*numbers[:-1], None]).role == "row name"
    assert role_of(name, [*numbers[:20], *[None] * 20]).role != "row name"
    assert role_of("size", numbers).role == "log number"


def test_a_last_row_that_is_the_sum_of_the_others_is_pointed_out():
    rng = np.random.default_rng(0)
    prices, taxes = rng.integers(1, 99, size=(2, 20)) / 4
    frame = pd.DataFrame({"price": prices, "tax": taxes, "y": range(20)})
    [*_, last] = make_draft(
        from_frame(pd.concat([frame, frame.sum().to_frame().T])), "y", "t"
    ).notes
    assert last.startswith("the last row is the sum of the others in the columns 'price', 'tax'")
    assert "sum of the others" not in "".join(make_draft(from_frame(frame), "y", "t").notes)
