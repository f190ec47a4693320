"""The command line as a user meets it: what it prints, what it writes, and one line a mistake."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tomllib
import warnings
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from safetensors.torch import load_file

import mip
from mip.cli.app import VERBS, command_name
from mip.demo import draw
from mip.prediction import tta
from mip.runs import replay

SPEC = """
[data]
table = "houses.csv"
split = { fractions = [0.6, 0.2, 0.2], seed = 0 }

[branch.size]
kind = "continuous"
columns = ["area", "age", "rooms"]

[branch.place]
kind = "categorical"
columns = ["district"]
embedding_dim = 4

[branch.photos]
kind = "image"
columns = ["front", "garden"]
size = 16
base_channels = 4
missing = "learn"

[head]
kind = "regression"
column = "price"
scale = "log"
layers = [8]

[train]
epochs = 2
batch_size = 8
optimizer = { kind = "adamw", lr = 5e-3 }
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    draw(folder, n_rows=40)
    (folder / "houses.toml").write_text(SPEC)
    return folder


@pytest.fixture
def folder(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(drawn, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture(scope="module")
def model(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(drawn, tmp_path_factory.mktemp("trained") / "run")


def fit(drawn: Path, out: Path, changes: dict[str, object] | None = None) -> Path:
    """Train the spec of the folder `drawn` with changes into `out`; return the model file."""
    spec = mip.load_spec(drawn / "houses.toml", changes=changes)
    table = mip.clean(spec, mip.read(drawn / "houses.csv"))[0]
    mip.run(spec, mip.parts(spec, table), out=out, context=mip.Context(base=drawn))
    return out / "model.safetensors"


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / "houses.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def cell(folder: Path, row: int, column: str, value: str) -> None:
    frame = pd.read_csv(folder / "houses.csv", dtype=str, keep_default_na=False)
    frame.loc[row, column] = value
    frame.to_csv(folder / "houses.csv", index=False)


def refused(result: tuple[int, str, str]) -> str:
    code, _, err = result
    assert code == 2, result
    assert err.count("\n") == 1, err
    assert err.startswith("mip: error: "), err
    return err.removeprefix("mip: error: ").strip()


# What works


def test_every_help_fits_one_screen(run):
    commands = [command_name(verb) for verbs in VERBS.values() for verb in verbs]
    for words in ([], *([name] for name in commands)):
        code, out, _ = run(*words, "--help")
        assert code == 0
        assert len(out.splitlines()) <= (24 if words else 40), (words, out)
        assert words or "..." not in out.replace("[ARGS]...", "")


def test_new_writes_a_spec_that_checks(folder, run):
    (folder / "houses.toml").unlink()
    assert run("new", "houses.csv", "--target", "price")[0] == 0
    text = (folder / "houses.toml").read_text()
    assert 'missing = "learn"' in text
    assert "[branch.dates]" in text
    small = "branch.looks.branch.photos.size=16"
    code, out, err = run("check", "houses.toml", "--set", small)
    assert code == 0, err
    assert "houses.toml is fine" in out


def test_check_tells_what_is_not_read_as_it_stands(folder, run):
    cell(folder, 3, "area", "1e39")
    code, out, _ = run("check", "houses.toml")
    assert code == 0
    assert "'area' infinite or beyond float32, treated as missing: 1 row (3)" in out


def test_several_targets_are_predicted_and_scored_by_one_model(folder, run):
    cell(folder, 3, "price", "")
    words = ("--target", "price", "--target", "district")
    left_out = ("--without", "front", "--without", "garden")
    code, out, err = run("new", "houses.csv", *words, *left_out, "--out", "two.toml")
    assert code == 0, err
    assert "1 row lacks a target, and will be left out" in out
    assert 'stratify = "district"' in Path("two.toml").read_text()
    assert run("check", "two.toml")[0] == 0
    small = {f"head.head.{name}.layers": [4] for name in ("price", "district")}
    spec = mip.load_spec("two.toml", changes={"train.epochs": 1, **small})
    mip.run(spec, mip.read("houses.csv"), out="run")
    model = "run/model.safetensors"
    assert run("predict", model, "houses.csv", "--out", "p.csv")[0] == 0
    assert {"price.value", "district.label"} < {*pd.read_csv("p.csv").columns}
    code, out, err = run("evaluate", model, "houses.csv", "--split", "test")
    assert code == 0, err
    assert "district.accuracy" in out
    wrong = refused(run("new", "houses.csv", *words, "--target", "price", "--out", "x.toml"))
    assert wrong.startswith("houses.csv: column 'price' is a target twice (known: ")


def test_new_keeps_a_spec_that_is_there(folder, run):
    assert refused(run("new", "houses.csv", "--target", "price")) == (
        "houses.toml: exists already; choose another name, or replace it with --force "
        "(overwrite=True in Python)"
    )


def test_show_prints_the_tree(folder, run):
    code, out, _ = run("show", "houses.toml")
    assert code == 0
    assert "branch.photos" in out
    assert "n × 16" in out


def test_show_prints_costs_and_layers_and_draws_the_tree(folder, run):
    code, out, err = run("show", "houses.toml", "--layers", "--svg", "tree.svg")
    assert code == 0, err
    assert "multiply-adds" in out
    assert "branch.photos.backbone.3.norm1" in out
    assert "layers: 10 Conv2d, " in out
    assert "drew tree.svg" in out
    assert Path("tree.svg").read_text().count("<rect") == 6


def test_schema_is_printed_or_written(folder, run):
    code, out, _ = run("schema")
    assert code == 0
    assert json.loads(out)["title"] == "mip spec"
    assert run("schema", "--out", "mip.json")[1] == "wrote mip.json\n"
    assert Path("mip.json").read_text() == out


def test_fit_fills_a_run_folder(folder, run):
    Path("run").mkdir()
    Path("run/notes.txt").write_text("of the user")
    code, out, err = run("fit", "houses.toml", "--out", "run", "--set", "train.epochs=1")
    assert code == 0, err
    names = {
        path.relative_to("run").as_posix() for path in Path("run").rglob("*") if path.is_file()
    }
    wanted = "spec.toml history.jsonl metrics.json history.png model.safetensors"
    written = " ".join(sorted(["checkpoints", *wanted.split()]))
    assert out.splitlines()[-1] == f"wrote {written.replace(' ', ', ')} in run"
    assert names == {
        *wanted.split(),
        "notes.txt",
        "checkpoints/last.safetensors",
        "checkpoints/best.safetensors",
    }
    assert mip.load_spec("run/spec.toml").train.epochs == 1
    assert len(Path("run/history.jsonl").read_text().splitlines()) == 1
    header, line = out.splitlines()[2:4]
    assert header.split()[:3] == ["epoch", "loss", "valid/loss"]
    assert line.split()[0] == "1"
    assert len(header) == len(line)
    assert "mape" in out


def test_fit_without_matplotlib_trains_and_says_the_cure(folder, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "mip.plots.canvas", None)
    code, out, err = run("fit", "houses.toml", "--out", "run", "--set", "train.epochs=1")
    assert code == 0
    cure = "pip install 'mixed-input-pipelines[plot]'"
    assert err == f"mip: drawing needs matplotlib: {cure}\n"
    assert "history.png" not in out
    assert Path("run/model.safetensors").is_file()


def test_fit_draws_its_learning_rate(folder, run, monkeypatch):
    seen = []
    monkeypatch.setattr(
        mip.hooks, "plot_history", lambda path, rate, overwrite: seen.append((path, rate)) or str
    )
    run("fit", "houses.toml", "--out", "run", "--set", "train.epochs=1")
    [(path, rate)] = seen
    assert path == Path("run/history.png")
    assert [rate(k) for k in range(3)] == [mip.one_cycle(5e-3, steps=3)(k) for k in range(3)]


def test_fit_writes_for_tensorboard(folder, run):
    pytest.importorskip("tensorboard")
    words = ["--out", "run", "--set", "train.epochs=1", "--tensorboard", "board"]
    assert run("fit", "houses.toml", *words)[0] == 0
    assert [path.name.split(".")[1] for path in Path("board").iterdir()] == ["out"]


@pytest.mark.slow
def test_crossval_with_workers_is_crossval(folder, run):
    pd.DataFrame({"row": range(40), "part": [k % 2 for k in range(40)]}).to_csv(
        "f.csv", index=False
    )
    words = ["crossval", "houses.toml", "--folds", "f.csv", "--column", "part", "--set"]
    for workers in (1, 2):
        more = ("train.epochs=1", "--json", f"{workers}.json", "--workers", workers)
        assert run(*words, *more)[0] == 0
    assert Path("1.json").read_bytes() == Path("2.json").read_bytes()


def test_evaluate_writes_what_it_prints(folder, model, run):
    code, out, _ = run("evaluate", model, "houses.csv", "--json", "scores.json")
    assert code == 0
    scores = json.loads(Path("scores.json").read_text())
    assert scores.keys() >= {"mae", "rmse", "mape", "median_ape", "r2"}
    assert f"{scores['mape']:.1%}" in out


def test_evaluate_says_which_rows_the_model_was_trained_on(folder, model, run):
    text = "mip: houses.csv: the model was trained on 24 of these 40 rows; --split test scores"
    assert text in run("evaluate", model, "houses.csv")[2]
    assert "was trained on" not in run("evaluate", model, "houses.csv", "--split", "test")[2]
    pd.read_csv("houses.csv").iloc[:30].to_csv("fewer.csv", index=False)
    assert "was trained on" not in run("evaluate", model, "fewer.csv")[2]


def test_evaluate_scores_every_part(folder, model, run):
    code, _, _ = run("evaluate", model, "houses.csv", "--split", "each", "--json", "scores.json")
    assert code == 0
    assert set(json.loads(Path("scores.json").read_text())) == {"train", "valid", "test"}


def test_predict_writes_a_row_for_each_row(folder, model, run):
    assert run("predict", model, "houses.csv", "--out", "guess.csv")[0] == 0
    frame = pd.read_csv("guess.csv")
    assert frame["row"].tolist() == list(range(40))
    assert frame["value"].gt(0).all()


def test_predict_prints_without_a_file(folder, model, run):
    _, out, _ = run("predict", model, "houses.csv")
    assert out.startswith("row,value\n0,")


def test_crossval_gives_spread_and_predictions(folder, run):
    pd.DataFrame({"row": range(40), "part": [k % 2 for k in range(40)]}).to_csv(
        "f.csv", index=False
    )
    words = ["crossval", "houses.toml", "--folds", "f.csv", "--column", "part", "--set"]
    code, _, err = run(*words, "train.epochs=1", "--json", "cv.json", "--out", "oof.csv")
    assert code == 0, err
    scores = json.loads(Path("cv.json").read_text())
    assert scores["mape"] == pytest.approx(sum(fold["mape"] for fold in scores["folds"]) / 2)
    assert scores["spread"]["mape"] >= 0
    frame = pd.read_csv("oof.csv")
    assert frame["row"].is_unique
    assert set(frame["fold"]) == {0, 1}


@pytest.mark.slow
def test_crossval_runs_every_repeat_of_a_file_of_folds(folder, run):
    folds = mip.folds(mip.read("houses.csv"), k=2, repeats=2).frame[["fold_0", "fold_1"]]
    folds.to_csv("f.csv", index_label="row")
    folds[["fold_0"]].to_csv("one.csv", index_label="row")
    words = ["crossval", "houses.toml", "--set", "train.epochs=1", "--folds"]
    for name, *column in (["f"], ["first", "--column", "fold_0"], ["one"]):
        path = name if name == "one" else "f"
        outs = ["--json", f"{name}.json", "--out", f"out-{name}.csv"]
        code, _, err = run(*words, f"{path}.csv", *column, *outs)
        assert code == 0, err
    both, first, one = (json.loads(Path(f"{n}.json").read_text()) for n in ("f", "first", "one"))
    assert first == one
    assert both["folds"][:2] == first["folds"] != both["folds"][2:]
    frame = pd.read_csv("out-f.csv")
    assert frame.groupby("repeat")["row"].nunique().to_dict() == {"fold_0": 40, "fold_1": 40}
    folds.rename(columns=lambda name: f"my_{name}").to_csv("f.csv", index_label="row")
    text = refused(run(*words, "f.csv"))
    assert text == ("f.csv: say which column has the folds: --column (known: my_fold_0, my_fold_1)")


def test_set_takes_a_table_from_the_current_folder(folder, run):
    shutil.move("houses.csv", "images/moved.csv")
    frame = pd.read_csv("images/moved.csv", dtype=str, keep_default_na=False)
    for column in ("front", "garden"):
        frame[column] = frame[column].str.removeprefix("images/")
    frame.to_csv("images/moved.csv", index=False)
    assert run("check", "houses.toml", "--set", "data.table=images/moved.csv")[0] == 0


@pytest.fixture(scope="module")
def flipped(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose spec asks for augmentation, and for both ways of mixing."""
    changes = {
        "branch.photos.augmentation": {"flip": True},
        "train.mixup": 0.2,
        "train.cutmix": 1.0,
    }
    return fit(drawn, tmp_path_factory.mktemp("flipped") / "run", changes)


def test_tta_is_that_of_the_library(folder, flipped, run):
    expected = tta(mip.load(flipped), 3)
    code, _, err = run("predict", flipped, "houses.csv", "--tta", 3, "--out", "guess.csv")
    assert code == 0, err
    actual = pd.read_csv("guess.csv", dtype=str)["value"].map(float)  # to the last bit
    assert actual.tolist() == expected("houses.csv")["value"].tolist()
    words = ["evaluate", flipped, "houses.csv", "--json", "scores.json"]
    scores = []
    for views in (0, 3):
        assert run(*words, "--tta", views, "--force")[0] == 0
        scores.append(json.loads(Path("scores.json").read_text()))
    assert scores == [
        mip.evaluate(predict, "houses.csv") for predict in (mip.load(flipped), expected)
    ]
    assert scores[0]["mae"] != scores[1]["mae"]


# What is wrong is said in one line, and nothing is written


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_tta_that_cannot_be(folder, model, flipped, run, command):
    assert refused(run(command, model, "houses.csv", "--tta", 2)) == (
        "test-time augmentation needs a model whose spec has an augmentation, and this one has none"
    )
    assert refused(run(command, flipped, "houses.csv", "--tta=-1")) == (
        "--tta -1: give a number of views, or 0 for none"
    )


def test_cutmix_without_photos(folder, run):
    text = (folder / "houses.toml").read_text()
    photos, head = text.index("[branch.photos]"), text.index("[head]")
    (folder / "houses.toml").write_text(text[:photos] + text[head:] + "cutmix = 1.0\n")
    for command in (["check", "houses.toml"], ["fit", "houses.toml", "--out", "run"]):
        assert refused(run(*command)) == (
            "train.cutmix = 1 pastes photos, but no branch reads any; use train.mixup for numbers"
        )
    assert not Path("run").exists()


def test_no_such_table(folder, run):
    text = refused(run("new", "hoses.csv", "--target", "price"))
    assert text.startswith("hoses.csv: there is no such table; did you mean 'houses.csv'?")


@pytest.mark.parametrize("content", ["", "area,price\n"])
def test_empty_table(folder, run, content):
    Path("empty.csv").write_text(content)
    text = refused(run("new", "empty.csv", "--target", "price"))
    assert text.startswith("empty.csv: ")
    assert "no rows" in text or "is empty" in text
    assert not Path("empty.toml").exists()


def test_target_missing(folder, run):
    edit(folder, 'column = "price"', 'column = "prize"')
    text = refused(run("fit", "houses.toml", "--out", "run"))
    assert text.startswith(
        "houses.toml: head.column = 'prize' is not a column of houses.csv; did you mean 'price'?"
    )
    assert not Path("run").exists()


def test_target_with_text(folder, run):
    cell(folder, 7, "price", "cheap")
    text = refused(run("fit", "houses.toml", "--out", "run"))
    assert text == "houses.csv row 7, column 'price': 'cheap' is not a number"
    assert not Path("run").exists()


def test_number_column_with_text(folder, run):
    cell(folder, 3, "area", "large")
    text = refused(run("check", "houses.toml"))
    assert text == "houses.csv row 3, column 'area': 'large' is not a number"


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (
            '"district"',
            '"distrikt"',
            "houses.toml: branch.place.columns: 'distrikt' is not a column of houses.csv; "
            "did you mean 'district'?",
        ),
        (
            'kind = "image"',
            'kind = "imgae"',
            "houses.toml: branch.photos.kind = 'imgae' is not a kind; did you mean 'image'?",
        ),
        (
            "size = 16",
            "sise = 16",
            "houses.toml: branch.photos.sise is not a field; did you mean 'size'?",
        ),
        (
            "base_channels = 4\nmissing",
            'base_channels = "64"\nmissing',
            "houses.toml: branch.photos.base_channels = '64' must be a whole number, not text",
        ),
        ("size = 16", "size = -16", "houses.toml: branch.photos.size must be >= 8: -16"),
        ("[head]", "[head", "houses.toml: not valid TOML:"),
    ],
)
def test_spec_mistakes(folder, run, old, new, text):
    edit(folder, old, new)
    for command in (["check", "houses.toml"], ["fit", "houses.toml", "--out", "run"]):
        assert refused(run(*command)).startswith(text)
    assert not Path("run").exists()


@pytest.fixture
def strict(folder: Path) -> Path:
    """A table whose photos are all there, and a spec that wants them to be."""
    frame = pd.read_csv("houses.csv", dtype=str, keep_default_na=False)
    frame = frame[(frame["front"] != "") & (frame["garden"] != "")].reset_index(drop=True)
    frame.to_csv("houses.csv", index=False)
    edit(folder, 'missing = "learn"', 'missing = "error"')
    return folder


def break_photo(folder: Path, how: str) -> str:
    name = pd.read_csv("houses.csv", dtype=str)["front"][5]
    path = folder / name
    data = path.read_bytes()
    broken = {"truncated": data[: len(data) // 2], "text": b"not an image", "empty": b""}
    if how == "missing":
        path.unlink()
    elif how == "outside":
        cell(folder, 5, "front", "../outside.png")
        return "../outside.png"
    else:
        path.write_bytes(broken[how])
    return name


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("missing", "is missing"),
        ("truncated", "is "),
        ("text", "is not an image"),
        ("empty", "is empty (0 bytes)"),
        ("outside", "leaves the table's folder"),
    ],
)
def test_photos_that_cannot_be_had(strict, run, how, reason):
    name = break_photo(strict, how)
    text = refused(run("fit", "houses.toml", "--out", "run"))
    assert text.startswith(f"houses.csv row 5, column 'front': {name} {reason}")
    assert not Path("run").exists()


def test_one_bad_photo_costs_one_prediction(strict, run):
    assert run("fit", "houses.toml", "--out", "run", "--set", "train.epochs=1")[0] == 0
    run("predict", "run/model.safetensors", "houses.csv", "--out", "whole.csv")
    break_photo(strict, "truncated")
    code, _, err = run("predict", "run/model.safetensors", "houses.csv", "--out", "holed.csv")
    assert code == 3
    assert "1 of " in err
    assert "row 5, column 'front'" in err
    whole, holed = pd.read_csv("whole.csv"), pd.read_csv("holed.csv")
    assert holed["value"].isna().tolist() == [row == 5 for row in holed["row"]]
    rest = holed["row"] != 5
    assert holed["value"][rest].to_numpy() == pytest.approx(
        whole["value"][rest].to_numpy(), rel=1e-5
    )


@pytest.mark.parametrize("command", ["check", "predict", "evaluate"])
def test_broken_photos_that_are_learned_around_are_named(folder, model, run, command):
    for name in pd.read_csv("houses.csv", dtype=str)["front"].dropna()[:12]:
        (folder / name).write_bytes((folder / name).read_bytes()[:99])
    files = ["houses.toml"] if command == "check" else [model, "houses.csv"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # pytest turns warnings into errors
        code, _, err = run(command, *files)
    assert code == 0
    lines = [line for line in err.splitlines() if "warning: " in line]
    assert lines[0].startswith("mip: warning: houses.csv row ")
    assert "column 'front': " in lines[0]
    assert "it counts as missing" in lines[0]
    assert lines[10:] == ["mip: warning: … and 2 more"]


def test_photos_that_are_not_there_at_prediction_are_said(folder, model, run):
    (folder / "elsewhere").mkdir()
    shutil.copy("houses.csv", "elsewhere")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, _, err = run("predict", model, "elsewhere/houses.csv")
    assert code == 0
    assert "mip: warning: houses.csv: 78 photos are not found (houses.csv row 0, column" in err
    assert "mip: houses.csv: image file missing in 'front': 38 rows (0, 2, 3, …)\n" in err
    assert "mip: houses.csv: no image named in 'front': 2 rows (1, 24)\n" in err


def test_parts_of_another_table_are_not_scored(folder, model, run):
    assert run("evaluate", model, "houses.csv", "--split", "test")[0] == 0
    pd.read_csv("houses.csv").iloc[:30].to_csv("fewer.csv", index=False)
    text = refused(run("evaluate", model, "fewer.csv", "--split", "test"))
    assert text.startswith("fewer.csv: not the table that this model was trained on, so that its")
    assert run("evaluate", model, "fewer.csv")[0] == 0


def test_a_run_can_be_repeated_from_the_spec_it_wrote(folder, run):
    assert run("fit", "houses.toml", "--out", "runs/first", "--set", "train.epochs=1")[0] == 0
    assert run("fit", "runs/first/spec.toml", "--out", "second")[0] == 0
    first, second = (Path(at) / "model.safetensors" for at in ("runs/first", "second"))
    assert load_file(first).keys() == load_file(second).keys()
    weights = [list(load_file(path).values()) for path in (first, second)]
    assert all(one.equal(other) for one, other in zip(*weights, strict=True))


def test_predictions_are_written_to_a_table(folder, model, run):
    text = refused(run("predict", model, "houses.csv", "--out", "guess.txt"))
    assert text == "guess.txt: predictions are written to a .csv or .parquet file"


def test_a_folder_for_a_model_names_what_lies_in_it(folder, model, run):
    shutil.copytree(model.parent, "copy")
    assert run("predict", "copy", "houses.csv")[0] == 0
    Path("copy", model.name).rename("copy/first.safetensors")
    text = refused(run("predict", "copy", "houses.csv"))
    assert text.endswith(
        "without the model.safetensors of a finished run (known: first.safetensors)"
    )


def test_a_run_folder_is_its_model(folder, model, run):
    for words in (["predict"], ["evaluate"]):
        by_file, by_folder = (run(*words, path, "houses.csv") for path in (model, model.parent))
        assert by_file[0] == 0
        assert by_folder == by_file
    code, out, _ = run("baseline", "houses.toml", "--model", model.parent)
    assert code == 0
    assert "network" in out


def test_unseen_category_is_predicted_and_said(folder, model, run):
    cell(folder, 0, "district", "atlantis")
    code, out, err = run("predict", model, "houses.csv")
    assert code == 0
    assert "mip: houses.csv: unseen categories in 'district', 'atlantis': 1 row (0)\n" in err
    assert len(out.splitlines()) == 41


def test_column_missing_at_prediction(folder, model, run):
    pd.read_csv("houses.csv").rename(columns={"area": "aria"}).to_csv("other.csv", index=False)
    text = refused(run("predict", model, "other.csv", "--out", "guess.csv"))
    assert text.startswith(
        "other.csv: there is no column 'area'; did you mean 'aria'? (known: age, aria, "
    )
    assert text.endswith(
        "; the model reads columns 'age', 'area', 'district', 'front', 'garden', 'rooms'"
    )
    assert not Path("guess.csv").exists()


@pytest.mark.parametrize("fault", ["truncated", "flipped", "foreign", "absent"])
def test_model_files_that_cannot_be_trusted(folder, model, run, fault):
    data = bytearray(model.read_bytes())
    data[-9] ^= 4
    faults = {"truncated": data[:-100], "flipped": data, "foreign": b"GIF89a and more"}
    if fault in faults:
        Path("bad.safetensors").write_bytes(faults[fault])
    text = refused(run("predict", "bad.safetensors", "houses.csv", "--out", "guess.csv"))
    reasons = {
        "truncated": "the file is damaged",
        "flipped": "the file is damaged (its checksum does not match)",
        "foreign": "the file is truncated, or not a mip file",
        "absent": "cannot be read (No such file or directory)",
    }
    assert text.startswith(f"bad.safetensors: {reasons[fault]}")
    assert not Path("guess.csv").exists()


def test_resume_from_nothing(folder, run):
    text = refused(run("fit", "houses.toml", "--out", "run", "--resume"))
    assert text == (
        "run: nothing to resume, there is no checkpoints/last.safetensors; begin without resume"
    )
    assert not Path("run").exists()


def test_out_folder_that_cannot_be_written(folder, run):
    Path("taken").write_text("a file where a folder should be")
    text = refused(run("fit", "houses.toml", "--out", "taken/run"))
    assert text == "taken/run: cannot be written (Not a directory)"


def test_an_earlier_run_is_not_overwritten_by_accident(folder, run):
    few = ("--set", "train.epochs=1", "--out", "run")
    fit(folder, Path("run"), {"train.epochs": 1})
    before = Path("run/model.safetensors").read_bytes()
    text = refused(run("fit", "houses.toml", *few))
    assert text == (
        "run: holds a run already; use --resume, --force or another --out "
        "(resume=True, overwrite=True in Python)"
    )
    for words in (["houses.csv"], ["house.tml"], ["house.tml", "--force"], ["."]):
        text = refused(run("fit", *words, "--out", "run"))
        what = "there is no such spec" if "house.tml" in words else "not a spec, which mip new"
        assert what in text
        assert "houses.toml" in text
    assert Path("run/model.safetensors").read_bytes() == before
    assert run("fit", "houses.toml", *few, "--force")[0] == 0


def test_resume_says_what_it_goes_on_from(folder, run):
    few = ("fit", "houses.toml", "--set", "train.keep_last=-1", "--out", "run")
    fit(folder, Path("run"), {"train.keep_last": -1})
    same = "same spec, same rows, the checkpoint is intact"
    out = run(*few, "--resume")[1]
    more = "to train on: --resume --set train.epochs=4"
    assert f"run: finished after step 6 of 6, in epoch 2 of 2; {more}\n" in out
    shutil.copy("run/checkpoints/epoch-0000.safetensors", "run/checkpoints/last.safetensors")
    out = run(*few, "--resume")[1]
    assert f"run: resuming after step 3 of 6, in epoch 2 of 2; {same}\n" in out


@pytest.mark.slow
def test_a_run_folder_is_trained_on_with_more_epochs(folder, run):
    flat = ("--set", 'train.schedule.kind="constant"')
    assert run("fit", "houses.toml", *flat, "--out", "run")[0] == 0
    code, out, err = run("fit", "run", "--resume", "--set", "train.epochs=4")
    assert (code, err) == (0, "")
    assert "run: resuming after step 6 of 12, in epoch 3 of 4; " in out
    assert run("fit", "houses.toml", *flat, "--set", "train.epochs=4", "--out", "whole")[0] == 0
    one, two = (load_file(f"{name}/model.safetensors") for name in ("run", "whole"))
    assert all(one[path].equal(tensor) for path, tensor in two.items())
    assert mip.load_spec("run/spec.toml").train.epochs == 4
    text = refused(run("fit", "run", "--resume", "--set", "train.epochs=3"))
    assert text == ("run: train.epochs = 3: the run has taken 12 steps, and 3 epochs are 9")
    assert refused(run("fit", "run")).startswith("run: holds a run already; use --resume")


def test_replay_shows_a_step_and_holds_it_against_the_history(folder, run):
    keep = ("--set", "train.keep_last=-1")
    assert run("fit", "houses.toml", *keep, "--out", "run")[0] == 0
    loss = replay(*_run_of("run"), "run", 5).now["loss"]
    for step, origin in [
        (5, "in epoch 2, from epoch-0000.safetensors, after step 3"),
        (2, "in epoch 1, from the spec"),
    ]:
        code, out, _ = run("replay", "run", step)
        assert code == 0
        first, rows, numbers, last = out.splitlines()[-4:]
        assert first == f"run: step {step}, {origin}"
        assert len(rows.removeprefix("rows ").split(", ")) == 8
        assert last == "equal to the history, bit for bit: loss"
        assert (step == 2) or numbers.startswith(f"loss {loss:.9g}, grad_norm ")
    assert refused(run("replay", "run", 7)) == "run: there is no step 7; its steps are 1 to 6"
    text = refused(run("replay", "no-run", 1))
    assert text == "no-run/spec.toml: there is no such spec"
    Path("deep").mkdir()
    Path("run").rename("deep/run")
    text = refused(run("replay", "deep/run", 5))
    assert text == (
        "deep/run/../houses.csv: there is no such table; --set data.table=PATH says where it is"
    )
    assert run("replay", "deep/run", 5, "--set", "data.table=houses.csv")[0] == 0


def _run_of(folder: str) -> tuple[mip.spec.Spec, mip.model.Parts]:
    spec = mip.load_spec(f"{folder}/spec.toml")
    table, _ = mip.clean(spec, mip.read(Path(folder) / spec.data.table))
    return spec, mip.parts(spec, table)


def test_resume_refuses_what_has_changed(folder, run):
    assert run("fit", "houses.toml", "--out", "run")[0] == 0
    cell(folder, 0, "area", "123")
    text = refused(run("fit", "houses.toml", "--out", "run", "--resume"))
    assert text == (
        "run/checkpoints/last.safetensors: not the same run: the valid rows are others, column "
        "'area' differs; resume it with the rows that it had, or start again without resume"
    )
    changes = ["--set", "train.batch_size=4", "--set", "train.optimizer.lr=1", "--resume"]
    assert refused(run("fit", "houses.toml", "--out", "run", *changes)) == (
        "run/checkpoints/last.safetensors: not the same run: train.batch_size was 8 and is 4, "
        "train.optimizer.lr was 0.005 and is 1.0; resume it with its own spec.toml, or start again "
        "without resume"
    )


def test_a_bad_change_is_named(folder, run):
    assert refused(run("check", "houses.toml", "--set", "train.epoch=3")).startswith(
        "houses.toml: train.epoch is not a field; did you mean 'train.epochs'?"
    )
    assert refused(run("check", "houses.toml", "--set", "train")) == (
        "--set train: write it as PATH=VALUE"
    )


def test_ctrl_c_leaves_a_checkpoint_that_resumes_to_the_same_bytes(folder, run, monkeypatch):
    fit = ["fit", "houses.toml", "--set", "train.epochs=4"]
    replace = os.replace

    def interrupted(draft, path):
        replace(draft, path)
        if Path(path).name == "last.safetensors":
            monkeypatch.setattr(os, "replace", replace)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(os, "replace", interrupted)
    code, _, err = run(*fit, "--out", "broken")
    assert code == 130
    words = "fit houses.toml --out broken --set train.epochs=4 --resume"
    assert err == f"mip: stopped; resume with: mip {words}\n"
    assert len(Path("broken/history.jsonl").read_text().splitlines()) < 4
    assert run(*words.split())[0] == 0
    assert run(*fit, "--out", "whole")[0] == 0
    whole, resumed = (load_file(f"{name}/model.safetensors") for name in ("whole", "broken"))
    assert all((whole[name] == resumed[name]).all() for name in whole)
    assert Path("whole/history.jsonl").read_bytes() == Path("broken/history.jsonl").read_bytes()


# What is a table


def rewritten(folder: Path, name: str) -> str:
    """Write the houses in another form; give the table's name."""
    frame = pd.read_csv(folder / "houses.csv", dtype=str, keep_default_na=False)
    if name == "houses.jsonl":
        frame.to_json(folder / name, orient="records", lines=True)
    elif name == "houses-*.csv":
        frame[:20].to_csv(folder / "houses-0.csv", index=False)
        frame[20:].to_csv(folder / "houses-1.csv", index=False)
    else:
        (folder / name).mkdir()
        frame[:20].to_parquet(folder / name / "0.parquet")
        frame[20:].to_parquet(folder / name / "1.parquet")
        shutil.copytree(folder / "images", folder / name / "images")
    return name


@pytest.mark.parametrize("name", ["houses.jsonl", "houses-*.csv", "shards.d"])
def test_every_kind_of_table_is_taken_by_every_command(folder, run, model, name):
    run("predict", model, "houses.csv", "--out", "want.csv")
    name = rewritten(folder, name)
    code, _, err = run("predict", model, name, "--out", "found.csv")
    assert code == 0, err
    assert Path("found.csv").read_text() == Path("want.csv").read_text()
    assert run("check", "houses.toml", "--set", f"data.table={name}")[0] == 0
    Path("houses.toml").unlink()
    assert run("new", name, "--target", "price")[0] == 0
    written = "shards.d.toml" if name == "shards.d" else "houses.toml"
    assert tomllib.loads(Path(written).read_text())["data"]["table"] == name
    assert run("check", written)[0] == 0


def test_a_class_folder_trains(tmp_path, monkeypatch, run):
    for k in range(24):
        path = tmp_path / "pets" / ("cat" if k % 2 else "dog") / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (k, 100 * (k % 2), 0)).save(path)
    monkeypatch.chdir(tmp_path / "pets")
    assert run("new", ".", "--target", "label")[0] == 0
    monkeypatch.chdir(tmp_path)
    shown = run("fit", "pets.toml", "--set", "train.epochs=1", "--set", "branch.photos.size=8")
    assert shown[0] == 0, shown
    assert run("evaluate", "runs/pets/model.safetensors", "pets", "--split", "test")[0] == 0
    text = refused(run("predict", "runs/pets/model.safetensors", "pest"))
    assert text.startswith("pest: there is no such table; did you mean 'pets'?")


@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
def test_check_says_that_nothing_is_trained(folder, run, schedule):
    changes = "--set", f"train.schedule.kind={schedule}"
    code, out, err = run("check", "houses.toml", "--set", "train.epochs=0", *changes)
    assert code == 0, err
    assert "train.epochs = 0: nothing is trained" in out
    assert "nothing is trained" not in run("check", "houses.toml", *changes)[1]
    out = run("fit", "houses.toml", "--out", "run", "--set", "train.epochs=0", *changes)[1]
    assert "nothing is trained" in out


def test_new_reads_a_file_as_its_options_say_and_the_verbs_after_it(tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    town = "\u041c\u043e\u0441\u043a\u0432\u0430"
    rows = "".join(f"{town}|{k % 7}|{k % 5}.5\n" for k in range(40))
    text = f"Prices | of | towns\ntown|rooms|price\n{rows}"
    Path("t.csv").write_text(text, encoding="koi8-r")
    options = ["--target", "price", "--sep", "|", "--encoding", "koi8-r"]
    code, out, _ = run("new", "t.csv", *options, "--skip-rows", "1")
    assert code == 0
    assert "sep = '|', encoding = 'koi8-r', skip_rows = 1 (above the names of" in out
    assert run("fit", "t.toml", "--set", "train.epochs=0", "--out", "run")[0] == 0
    code, out, _ = run("predict", "run", "t.csv")
    assert (code, out.count("\n")) == (0, 41)
    for option, value in [("--sep", ";;"), ("--encoding", "rot13")]:
        code, _, err = run("new", "t.csv", "--target", "price", "--force", option, value)
        assert (code, err.startswith(f"mip: error: {option} ")) == (2, True)
