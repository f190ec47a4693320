"""What was computed is not lost, whatever a metric, a fold or the terminal does."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from attrs import evolve
from conftest import NUMBERS, frame_of, spec_of
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import mip
from mip.cli.terminal import echo, write_stdout
from mip.data import mean_and_std
from mip.errors import DataError, MipError, MipWarning
from mip.runs import best_combination
from mip.runs.sweeps import Combination
from mip.runs.trials import Outcome

NAN = math.nan
SPEC = """
[data]
table = "rows.csv"

[branch.x]
kind = "continuous"
columns = ["x"]

[head]
kind = "{kind}"
column = "{column}"

[train]
epochs = 1
batch_size = 8
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Rows of which fold 0 has one class alone, and the only yew."""
    x = np.random.default_rng(0).normal(size=24)
    tree = ["yew", *["oak", "ash"] * 11, "oak"]
    grown = np.where((np.arange(24) < 6) | (np.arange(24) % 2 > 0), "old", "new")
    frame = pd.DataFrame({"x": x, "y": 1e-6 * x, "grown": grown, "tree": tree})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    for name, fold in {"four": np.arange(24) // 6, "each": np.arange(24)}.items():
        pd.DataFrame({"row": range(24), "fold": fold}).to_csv(tmp_path / f"{name}.csv", index=False)
    for kind, column in {"binary": "grown", "multiclass": "tree", "regression": "y"}.items():
        (tmp_path / f"{kind}.toml").write_text(SPEC.format(kind=kind, column=column))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder, run):
    """The command line, in the folder."""
    return run


def text_of(grid):
    console = Console(width=200)
    with console.capture() as shown:
        console.print(grid)
    return shown.get()


# Means and deviations.


@given(st.lists(st.floats(-1e9, 1e9) | st.just(NAN), max_size=9))
def test_means_and_deviations_are_those_of_what_is_defined(values):
    known = [value for value in values if value == value]
    mean, deviation, count = mean_and_std(values)
    assert count == len(known)
    assert mean == pytest.approx(np.mean(known) if known else NAN, nan_ok=True)
    expected = np.std(known, ddof=1) if len(known) > 1 else NAN
    assert deviation == pytest.approx(expected, nan_ok=True)


def test_what_is_infinite_has_no_deviation():
    assert mean_and_std([math.inf, 1.0])[0] == math.inf
    assert math.isnan(mean_and_std([math.inf, 1.0])[1])
    assert math.isnan(mean_and_std([math.inf, -math.inf])[0])


def test_the_spread_of_folds_says_how_many_have_a_metric():
    folds = {"a": {"auc": NAN, "mae": 1.0}, "b": {"auc": 0.5, "mae": 3.0}, "c": {"auc": 1.0}}
    text = text_of(mip.runs.folds_table("t", folds))
    assert "0.75 (2 of 3)" in text
    assert "2 (2 of 3)" in text
    assert "n/a, not defined: auc if all rows are of one class" in text
    actual = mip.runs.fold_averages(list(folds.values()))
    assert actual["auc"] == 0.75
    assert actual["defined"] == {"auc": 2, "mae": 2}
    none = mip.runs.fold_averages([{"r2": NAN}, {"r2": NAN}])
    assert math.isnan(none["r2"])
    assert "n/a (0 of 2)" in text_of(
        mip.runs.folds_table("t", {"a": {"r2": NAN}, "b": {"r2": NAN}})
    )


def outcome(loss, **more):
    return Outcome("run", {"valid": {"loss": loss, **more}})


def test_a_loss_that_is_not_defined_never_wins_a_sweep():
    lost = Combination({"k": 1}, (outcome(NAN), outcome(0.1)), (Path(), Path()))
    kept = Combination({"k": 2}, (outcome(0.5, auc=NAN), outcome(0.7, auc=0.9)), (Path(), Path()))
    failed = Combination({"k": 3}, (Outcome("run", error=MipError("no")), outcome(0.1)), (Path(),))
    assert [math.isnan(each.valid_loss) for each in (lost, kept, failed)] == [True, False, True]
    assert best_combination([lost, failed, kept]) is kept
    assert best_combination([lost, failed]) is None
    assert kept.average("valid", "auc")[::2] == (0.9, 1)
    text = text_of(mip.runs.sweep_table("t", [lost, kept]))
    assert "0.1 (1 of 2)" in text
    assert "0.9 (1 of 2)" in text
    frame = mip.runs.sweep_frame([lost, kept])
    assert frame["valid/auc n"].tolist() == [0, 1]
    assert frame["valid/loss n"].tolist() == [1, 2]


def test_runs_of_a_sweep_may_have_other_metrics():
    one = Combination({"k": 1}, (outcome(0.5, auc=0.9),), (Path(),))
    two = Combination({"k": 2}, (outcome(0.5, mae=2.0),), (Path(),))
    assert set(mip.runs.sweep_json([one, two])[0]["valid"]) == {"loss", "auc", "mae"}
    assert "n/a" in text_of(mip.runs.sweep_table("t", [one, two]))


def test_json_has_null_for_what_is_no_number(tmp_path):
    mip.runs.write_json(tmp_path / "a.json", {"auc": NAN, "loss": [math.inf, 1.0]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"auc": None, "loss": [None, 1.0]}


def test_a_history_has_null_for_what_is_no_number(run):
    def strict(constant):
        raise AssertionError(constant)

    few = ("--set", "data.split.fractions=[0.9, 0.05, 0.05]")
    code, out, err = run("fit", "regression.toml", "--out", "a", *few)
    assert code == 0, err
    (line,) = Path("a/history.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=strict)["valid/r2"] is None
    assert json.loads(Path("a/metrics.json").read_text())["valid"]["r2"] is None
    assert "n/a, not defined: r2 if all targets are equal, as a single one is\n" in out


# Folds and sweeps, to the end.


def test_a_fold_of_one_class_is_no_end_of_a_crossval(run):
    words = ["crossval", "binary.toml", "--folds", "four.csv", "--out", "o.csv", "--json", "o.json"]
    code, out, err = run(*words)
    assert code == 0, err
    assert "(3 of 4)" in out
    actual = json.loads(Path("o.json").read_text())
    assert actual["defined"]["auc"] == 3
    assert [fold["auc"] is None for fold in actual["folds"]] == [True, False, False, False]
    assert len(pd.read_csv("o.csv")) == 24


@pytest.mark.slow
def test_each_row_may_be_a_fold(run):
    words = ["--folds", "each.csv", "--out", "o.csv", "--json", "o.json"]
    code, out, err = run("crossval", "regression.toml", *words)
    assert code == 0, err
    assert "n/a, not defined: r2 if all targets are equal" in out
    assert json.loads(Path("o.json").read_text())["r2"] is None
    assert len(pd.read_csv("o.csv")) == 24


@pytest.mark.filterwarnings("always")
def test_a_fold_that_fails_is_named_and_the_others_are_written(run):
    words = ["--folds", "four.csv", "--out", "o.csv", "--json", "o.json"]
    code, out, err = run("crossval", "multiclass.toml", *words)
    assert code == 2
    assert "fold '0': rows.csv row 0, column 'tree': 'yew' is not a class of the training" in err
    assert err.endswith("mip: error: 1 of 4 folds failed; the scores are those of the others\n")
    assert "accuracy" in out
    assert sorted(set(pd.read_csv("o.csv")["fold"])) == [1, 2, 3]
    assert list(json.loads(Path("o.json").read_text())["errors"]) == ["0"]


def failing(names):
    """Hooks that fail in folds with so many rows to train by."""

    def hooks(job):
        if job.batches.source.row.tolist()[0] in names:
            raise KeyError("odd")
        return ()

    return hooks


def test_whatever_fails_in_one_fold_the_others_are_kept(folder):
    rows = mip.read("rows.csv")
    fold = [str(k // 6) for k in range(24)]
    table = evolve(rows, frame=rows.frame.assign(fold=fold))
    spec = mip.load_spec("regression.toml")
    with pytest.warns(MipWarning, match=r"^fold '0': KeyError: 'odd'$"):
        done = mip.crossval(spec, table, "fold", make_hooks=failing({6}))
    assert done.folds == ("1", "2", "3")
    assert len(done.scores) == 3
    assert done.predictions.index.tolist() == list(range(6, 24))
    assert isinstance(done.errors["0"].__cause__, KeyError)
    with pytest.raises(MipError, match=r"^fold '0': KeyError: 'odd'$"):
        mip.crossval(spec, table, "fold", make_hooks=failing({0, 6}))


def test_a_sweep_of_seeds_ends_although_a_metric_is_not_defined(run, monkeypatch):
    rows = pd.read_csv("rows.csv").assign(part=["valid"] * 5 + ["test"] + ["train"] * 18)
    rows.to_csv("rows.csv", index=False)
    Path("binary.toml").write_text(
        SPEC.format(kind="binary", column="grown").replace(
            "[branch", 'split.column="part"\n[branch', 1
        )
    )
    code, _, err = run("sweep", "binary.toml", "--set", "train.batch_size=8", "--seeds", 2)
    assert code == 0, err
    actual = json.loads(Path("sweeps/binary/sweep.json").read_text())
    assert actual[0]["valid"]["auc"] is None
    assert actual[0]["defined"]["valid"] == {"loss": 2, "accuracy": 2, "auc": 0}


# A model that cannot be scored.


def test_a_class_that_cannot_be_scored_is_named_before_the_training(run):
    rows = pd.read_csv("rows.csv").assign(part=["test"] + ["train"] * 20 + ["valid"] * 3)
    rows.to_csv("rows.csv", index=False)
    with_column = SPEC.format(kind="multiclass", column="tree")
    Path("a.toml").write_text(with_column.replace("[branch", 'split.column="part"\n[branch', 1))
    code, _, err = run("fit", "a.toml", "--out", "a")
    assert code == 2
    assert "rows.csv row 0, column 'tree': 'yew' is not a class of the training rows" in err
    assert not Path("a/checkpoints").exists()


def test_an_error_while_a_model_is_scored_loses_neither_it_nor_its_scores(run, monkeypatch):
    scored = mip.prediction.evaluate

    def evaluate(predict, rows):
        if len(rows) < 5:
            raise DataError("no such photo")
        return scored(predict, rows)

    monkeypatch.setattr(mip, "evaluate", evaluate)
    code, _, err = run("fit", "regression.toml", "--out", "a")
    assert code == 2
    assert "error: the model is saved in a, but could not be scored: no such photo" in err
    assert mip.load("a/model.safetensors")("rows.csv").shape == (24, 1)
    assert "train" in json.loads(Path("a/metrics.json").read_text())


def test_a_part_without_rows_is_named(run):
    assert (
        run("fit", "regression.toml", "--out", "a", "--set", "data.split.fractions=[1,0,0]")[0] == 0
    )
    code, _, err = run("evaluate", "a/model.safetensors", "rows.csv", "--split", "test")
    assert (code, err) == (2, "mip: error: rows.csv: there are no rows in the part 'test'\n")


# Where it is told.


def called(*words, **environment):
    command = [sys.executable, "-m", "mip", *words]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env={**os.environ, **environment}, **piped)


@pytest.mark.slow
def test_a_reader_that_goes_away_does_not_stop_the_training(folder):
    process = called("fit", "regression.toml", "--out", "a", "--set", "train.workers=0")
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 0
    assert set(json.loads(Path("a/metrics.json").read_text())) == {"train", "valid", "test"}


def test_a_terminal_that_lacks_letters_gets_escapes(run, monkeypatch, tmp_path):
    with (tmp_path / "out").open("w", encoding="ascii") as narrow:
        monkeypatch.setattr(sys, "stdout", narrow)
        echo("Köln ± 3 \udc80 \U0001f600")
        with pytest.raises(mip.errors.FileError, match="ascii has no 'ö'; set PYTHONIOENCODING"):
            write_stdout("Köln")
    assert (tmp_path / "out").read_text().startswith("K\\xf6ln \\xb1 3 \\udc80 \\U0001f600\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_standard_output_is_one_line(run, monkeypatch):
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(
            mip.errors.FileError,
            match=r"^standard output: cannot be written \(No space left on device\)$",
        ):
            echo("much")


def test_crossval_needs_the_name_of_a_column():
    with pytest.raises(MipError, match="name a column of folds, not 5"):
        mip.crossval(spec_of("regression", NUMBERS), frame_of(), 5)
