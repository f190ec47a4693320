"""What a first spec predicts: classes, those with an order, counts, labels, several targets."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import mip
from mip.data import ColumnFormat, from_columns
from mip.errors import DataError
from mip.runs import prepare_job
from mip.spec import make_draft
from mip.spec.drafts.targets.classes import FRACTIONS

pytestmark = pytest.mark.filterwarnings("ignore::mip.errors.MipWarning")


def drafted(cells, **more):
    """The spec of a table with the target y, and what is said of it, if `mip check` accepts it."""
    table = from_columns({"x": np.arange(len(cells)) % 7 / 2, "y": cells, **more})
    made = make_draft(table, ["y", *more], "t.csv")
    spec = mip.parse(made.text)
    prepare_job(spec, mip.parts(spec, mip.clean(spec, table)[0]))
    return spec, "\n".join(made.notes), made.text


def uncommented(text, option):
    """A spec in which the line that proposes an option is one of the spec, and no other has it."""
    assert f"\n# {option} = " in text
    lines = [line for line in text.splitlines() if not line.startswith(f"{option} = ")]
    return mip.parse("\n".join(lines).replace(f"\n# {option} = ", f"\n{option} = "))


# Classes that have an order, and counts.


@pytest.mark.parametrize(
    "words",
    [
        ["low", "medium", "high"],
        ["Strongly disagree", "Disagree", "Neutral", "Agree", "Strongly agree"],
        ["S", "M", "L", "XL"],
        ["F", "D", "C", "B", "A"],
        ["C+", "B-", "B"],
        ["$", "$$", "$$$"],
    ],
)
def test_words_with_an_order_are_ordinal(words):
    spec, notes, _ = drafted([*reversed(words)] * 5)
    assert spec.head.kind == "ordinal"
    assert list(spec.head.order) == words
    assert f"classes in the order {', '.join(words)}" in notes
    assert spec.data.split.stratify == "y"


@pytest.mark.parametrize(
    "words",
    [
        ["1", "2", "3"],
        ["C", "B", "A"],
        ["level 1", "level 2", "level 10"],
        ["<10k", "10-20k", ">20k"],
    ],
)
def test_an_order_that_may_not_be_meant_is_a_proposal(words):
    spec, notes, _ = drafted([*reversed(words)] * 12)
    assert spec.head.kind == "multiclass"
    assert f'kind = "ordinal", order = {json.dumps(words)} keeps it' in notes


def test_floats_can_be_classes():
    assert drafted([1.0, 2.0, 3.0] * 8)[0].head.kind == "multiclass"
    assert drafted(["1.0", "2.0"] * 8)[0].head.kind == "binary"


def test_whole_numbers_from_0_with_a_long_tail_are_counts():
    counts = np.random.default_rng(0).poisson(4, 90).tolist()
    assert drafted(counts)[0].head.kind == "count"
    assert drafted([str(n) for n in counts])[0].head.kind == "count"
    assert drafted([n + 0.5 for n in counts])[0].head.kind == "regression"
    spec, notes, _ = drafted([*range(40)])
    assert spec.head.kind == "regression"
    assert 'kind = "count"' in notes


# Classes in several spellings, missing ones, and rare ones.


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        (["yes", "yes", "no", "no", "Yes", "Y", "N", "false", "1"], ["no", "yes"]),
        (["oak", "oak", "Oak", "OAK", "ash", "ash", "Ash"], ["ash", "oak"]),
        (["a", "A", "b"], ["A", "a", "b"]),
        (["oak,elm", "oak", "elm,Oak", "elm", "Elm"], ["elm", "oak"]),
    ],
)
def test_spellings_of_a_class_are_merged(cells, classes):
    spec, notes, _ = drafted(cells * 6)
    form = spec.data.columns.get("y", ColumnFormat())
    merged = {word: name for name, words in form.merge.items() for word in words}
    assert ("reads" in notes) == bool(merged)
    labels = {label for cell in cells for label in cell.split(",")}
    assert sorted({merged.get(label, label) for label in labels}) == classes
    assert {*merged.values()} <= {*classes}


def test_a_word_that_may_be_missing_is_a_proposal():
    cells = ["low", "high", "medium"] * 9 + ["N/A"] * 5
    spec, notes, text = drafted(cells)
    assert spec.head.kind == "multiclass"
    assert "'N/A' counts as a class; where that is a missing target" in notes
    assert 'order = ["low", "medium", "high"]' in notes
    assert uncommented(text, "na_values").data.columns["y"].na_values == ("N/A",)


def test_missing_targets_are_said():
    assert "2 rows have no target" in drafted([*range(40), None, None])[1]
    with pytest.raises(DataError) as caught:
        drafted(["x", ""] * 9)
    assert str(caught.value) == (
        "table: column 'y' has one value, 'x', and 9 empty cells: an empty cell is a missing "
        "target, so if it is a class, write a word into it"
    )


@pytest.mark.parametrize(
    ("cells", "rare", "merge"),
    [
        (["oak", "ash"] * 20 + ["yew", "elm"], ("elm", "yew"), {"other": ("elm", "yew")}),
        (["low", "medium", "high"] * 9 + ["extreme"], ("extreme",), {"high": ("extreme",)}),
        ([["sea", "sun"], ["sun"]] * 20 + [["new"], ["old"]], ("new", "old"), None),
    ],
)
def test_what_to_do_about_rare_classes_is_proposed(cells, rare, merge):
    spec, notes, text = drafted(cells)
    assert "fewer than 3 rows, too few for all parts" in notes
    left = uncommented(text, "na_values")
    assert left.data.columns["y"].na_values == rare
    merged = uncommented(text, "merge")
    assert merged.data.columns["y"].merge == (merge or {"other": rare})
    table = from_columns({"x": np.arange(len(cells)), "y": cells})
    known = [{*_classes(each, table)} for each in (spec, left, merged)]
    assert known[0] - known[1] == {*rare}
    assert known[2] == known[1] | {*merged.data.columns["y"].merge}


def _classes(spec, table):
    used, _ = mip.clean(spec, table)
    classes = mip.adapt(spec, used).facts["head"]["classes"]
    return [name for name in classes if spec.head.kind != "ordinal" or name in used.texts("y")]


def test_rare_classes_in_several_spellings_are_left_out_or_merged_with_all_of_them():
    cells = ["oak", "ash", "Ash"] * 10 + ["Yew", "yew", "elm"]
    _, _, text = drafted(cells)
    left, merged = uncommented(text, "na_values"), uncommented(text, "merge")
    table = from_columns({"x": np.arange(33), "y": cells})
    assert _classes(left, table) == ["ash", "oak"]
    assert _classes(merged, table) == ["ash", "oak", "other"]


def test_one_rare_class_has_no_other_to_be_merged_with():
    _, notes, text = drafted(["oak", "ash"] * 20 + ["yew"])
    assert 'leave it out (na_values = ["yew"]), or merge it with another (merge)' in notes
    assert "# merge" not in text


def test_labels_too_rare_for_every_split_are_left_out():
    cells = [["sea"], ["sun"], ["sea", "sun"], []] * 10 + [["sea", f"tag {k}"] for k in range(30)]
    spec, notes, _ = drafted(cells)
    assert {*spec.data.columns["y"].na_values} == {f"tag {k}" for k in range(30)}
    assert "in fewer than 3 rows: left out (na_values)" in notes


def test_a_label_that_train_lacks_is_an_error_of_the_check_with_its_cures():
    cells = ["sea;sun", "sun", "sea"] * 10 + ["sea;rare"]
    _, _, text = drafted(cells)
    table = from_columns({"x": np.arange(31) % 7 / 2, "y": cells})
    trains = [30 in mip.split(table, FRACTIONS, seed)[0].row_ids for seed in range(20)]
    lacking = mip.parse(text, changes={"data.split.seed": trains.index(False)})
    with pytest.raises(DataError) as caught:
        prepare_job(lacking, mip.parts(lacking, mip.clean(lacking, table)[0]))
    assert "'rare' is not a label of the training rows" in str(caught.value)
    for cure in ("data.columns.y.na_values", "data.columns.y.merge", "data.split.seed"):
        assert cure in str(caught.value)
    cures = {"data.columns.y.merge": {"sun": ["rare"]}}, {"data.columns.y.na_values": ["rare"]}
    for cure in cures:
        cured = mip.parse(text, changes={**cure, "data.split.seed": trains.index(False)})
        prepare_job(cured, mip.parts(cured, mip.clean(cured, table)[0]))


# Several targets.


def test_several_targets_are_a_joint_head_of_what_each_would_be():
    targets = {
        "size": ["S", "M", "L"] * 14,
        "kind of tree": ["oak", "ash"] * 20 + ["yew", "elm"],
        "type": [f"{k}.5" for k in range(42)],
        "tags": ["sea,sun", "sun", "sea"] * 14,
    }
    counts = np.random.default_rng(0).poisson(3, 42).tolist()
    spec, notes, _ = drafted(counts, **targets)
    assert {name: head.kind for name, head in spec.head.head.items()} == {
        "y": "count",
        "size": "ordinal",
        "kind_of_tree": "multiclass",
        "target_type": "regression",
        "tags": "multilabel",
    }
    assert spec.data.split.stratify == "size"
    for column, cells in targets.items():
        alone = drafted(cells)[0].head
        [part] = [head for head in spec.head.head.values() if head.column == column]
        assert mip.spec.to_dict(part) == {**mip.spec.to_dict(alone), "column": column}
        assert f"{column}: {part.kind}, " in notes


def test_a_target_with_a_format_of_its_own_keeps_it():
    table = from_columns({"x": np.arange(40) % 7, "y": [f"{k},5" for k in range(40)]})
    table = table.with_formats({"y": ColumnFormat(decimal=",")})
    assert make_draft(table, "y", "t.csv").notes[0].startswith("y: regression, 40 different")


def test_a_row_without_one_of_the_targets_is_left_out():
    spec, notes, text = drafted(["", *range(1, 40)], kind=["oak", "ash"] * 19 + ["", "oak"])
    assert "2 rows lack a target, and will be left out" in notes
    assert text.startswith("# table: 40 rows, 38 of them with a target\n")
    assert spec.data.split.stratify == "kind"


MISTAKES = {
    "twice": (["y", "y"], "table: column 'y' is a target twice (known: x, z)"),
    "unknown": (["y", "zz"], "table: there is no column 'zz'; did you mean 'z'? (known: x, y, z)"),
    "nothing left": (["x", "y", "z"], "table: no column besides 'x', 'y', 'z' can be read"),
    "in no row": (["y", "z"], "table: no row has all of the targets 'y', 'z'"),
}


@pytest.mark.parametrize(("targets", "text"), MISTAKES.values(), ids=MISTAKES)
def test_targets_that_cannot_be_are_named(targets, text):
    cells = ["a", "b", None, None] * 9
    rows = {"x": ["c", "d", "e"] * 12, "y": cells, "z": [*reversed(cells)]}
    if "x" in targets:
        rows = dict.fromkeys(rows, rows["x"])
    with pytest.raises(DataError) as caught:
        make_draft(from_columns(rows), targets, "t.csv")
    assert str(caught.value) == text


# Rows that belong together.


def with_groups(name, ids, seed=0):
    """A table with ids beside a number, and a target of two classes that the ids decide."""
    cells = np.random.default_rng(seed).normal(size=len(ids)).round(3)
    classes = ["ill" if hash_of(row) % 2 else "well" for row in ids]
    return from_columns({"x": cells, name: ids, "y": classes})


def hash_of(text):
    return sum(map(ord, str(text)))


@pytest.mark.parametrize("name", ["patient_id", "PatientID", "customer", "Lesion No", "id"])
@pytest.mark.parametrize("write", ["P{:02d}".format, int])
def test_rows_with_the_same_id_stay_in_one_part(name, write):
    table = with_groups(name, [write(row * 7 % 31) for row in range(120)])
    made = make_draft(table, "y", "t.csv")
    spec = mip.parse(made.text)
    parts = mip.parts(spec, mip.clean(spec, table)[0])
    ids = [{*part.texts(name)} for part in parts]
    assert all(ids)
    assert sum(map(len, ids)) == len(set.union(*ids)) == 31
    assert f"{name}: 31 different values in 120 rows; rows with the same one stay" in made.notes[1]
    assert name not in mip.model.columns_of(spec)
    assert made.notes[-1].startswith(f"left out: {name} (group: 31 different values")


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("patient_id", [*range(120)]),  # each once
        ("store_id", [row % 5 for row in range(120)]),  # few, which will come again
        ("customer_id", [row % 25 * 0.5 for row in range(120)]),  # an amount
        ("customer_id", ["new"] * 60 + [*range(60)]),  # a word for many of them
        ("width", [row * 7 % 31 for row in range(120)]),
    ],
)
def test_what_names_no_groups_leaves_rows_alone(name, ids):
    made = make_draft(with_groups(name, ids), "y", "t.csv")
    assert mip.parse(made.text).data.split.group is None
    assert "stay in one part" not in "\n".join(made.notes)


def test_rows_with_the_same_photo_stay_in_one_part(tmp_path):
    from PIL import Image

    for k in range(30):
        Image.new("RGB", (4, 4), (8 * k, 0, 0)).save(tmp_path / f"{k}.png")
    lines = [f"{k % 30}.png,{k % 7},{k % 5 * 1.5}" for k in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["photo,x,y", *lines]))
    table = mip.read(tmp_path / "t.csv")
    made = make_draft(table, "y", "t.csv")
    spec = mip.parse(made.text)
    assert spec.data.split.group == "photo"
    assert "photo: 30 different values in 60 rows; rows with the same one stay" in made.text + (
        "\n".join(made.notes)
    )
    assert "photo" in mip.model.columns_of(spec)


def test_a_split_by_groups_that_leaves_a_class_out_is_not_made():
    # Of each of the 25 classes there is one group.
    ids = [row % 25 for row in range(100)]
    table = from_columns({"x": [row * 0.7 % 3 for row in range(100)], "patient": ids, "y": ids})
    table = from_columns({**{c: table[c] for c in ("x", "patient")}, "y": [f"c{k}" for k in ids]})
    made = make_draft(table, "y", "t.csv")
    assert mip.parse(made.text).data.split.stratify == "y"
    assert "patient: 25 different values in 100 rows; no split by them has each class in train" in [
        *made.notes
    ]


def test_cells_without_a_photo_are_not_the_same_photo(tmp_path):
    from PIL import Image

    for k in range(30):
        Image.new("RGB", (4, 4), (8 * k, 0, 0)).save(tmp_path / f"{k}.png")
    lines = [f"{'' if k % 6 == 5 else f'{k}.png'},{k % 7},{k * 1.5}" for k in range(30)]
    (tmp_path / "t.csv").write_text("\n".join(["photo,x,y", *lines]))
    made = make_draft(mip.read(tmp_path / "t.csv"), "y", "t.csv")
    assert mip.parse(made.text).data.split.group is None
    assert any(note.startswith("5 cells name no photo") for note in made.notes)
    assert "missing or broken" not in "".join(made.notes)


def test_rows_that_are_copies_are_pointed_out():
    cells = [(str(k % 7 / 2), f"n{k}", str(k % 9)) for k in range(50)]
    once = pd.DataFrame(cells, columns=["x", "name", "y"], dtype="str")
    assert "copies" not in "".join(make_draft(mip.from_frame(once), "y", "t.csv").notes)
    twice = mip.from_frame(pd.concat([once, once.iloc[3:5]], ignore_index=True))
    notes = "\n".join(make_draft(twice, "y", "t.csv").notes)
    assert "2 rows are copies of another, as is row 50: what is in training is known" in notes


def test_numbers_of_rows_that_come_twice_are_no_feature():
    index = [str(k) for k in [*range(60), 3, 4]]
    rows = from_columns({"": index, "x": [k * 7 % 9 / 2 for k in range(62)], "y": range(62)})
    made = make_draft(rows, "y", "t.csv")
    assert "" not in mip.model.columns_of(mip.parse(made.text))
    assert any(note.startswith("left out: '' (row name") for note in made.notes)


def test_words_for_missing_numbers_in_many_columns_are_one_line():
    cells = ["1.5", "2", "NA", "3", "7", "8"] * 4
    columns = {f"x{k}": cells for k in range(30)}
    made = make_draft(from_columns({**columns, "y": range(24)}), "y", "t.csv")
    lines = [note for note in made.notes if "'NA'" in note]
    assert lines == ["x0: 'NA' in 4 rows: missing, and so in 29 other columns"]
