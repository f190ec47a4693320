"""The models of all folds as one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import mip
from mip.cli.train import fit
from mip.data import folds, from_columns
from mip.errors import FileError, MipError
from mip.runs import run_folds

BRANCHES = """
[branch.numbers]
kind = "continuous"
columns = ["size"]
"""
HEAD = """
[head]
kind = "regression"
column = "price"
"""
TRAIN = """
[train]
epochs = 2
batch_size = 8
workers = 0
optimizer = { kind = "adamw", lr = 1e-2 }
ema = 0.5
"""


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    sizes = rng.normal(size=40)
    return from_columns({"size": sizes, "price": 3 * sizes + rng.normal(size=40) / 9 + 5})


@pytest.fixture
def spec():
    return mip.parse(BRANCHES + HEAD + TRAIN)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_model_is_the_mean_of_those_that_cross_validation_trains(rows, spec, workers, tmp_path):
    dealt = folds(rows, 3)
    bagged = run_folds(spec, dealt, "fold_0", out=tmp_path / "run", workers=workers)
    done = mip.crossval(spec, dealt, "fold_0")
    assert_frame_equal(bagged.folds.predictions, done.predictions)
    assert bagged.folds.scores == done.scores
    members = bagged.predict.members
    # Out of fold, a row is predicted by the one model that has not seen it.
    for name, member in enumerate(members):
        mine = np.flatnonzero(dealt.numbers("fold_0") == name)
        alone = member(rows.take(mine))["value"].to_numpy()
        np.testing.assert_allclose(alone, done.predictions["value"].to_numpy()[mine], rtol=1e-5)
    mean = np.mean([member(rows)["value"] for member in members], axis=0)
    np.testing.assert_allclose(bagged.predict(rows)["value"], mean, rtol=1e-6)
    assert_frame_equal(mip.load(tmp_path / "run")(rows), bagged.predict(rows))
    written = pd.read_csv(tmp_path / "run" / "out_of_fold.csv", index_col="row")
    np.testing.assert_allclose(written["value"], done.predictions["value"])
    again = mip.load_spec(tmp_path / "run" / "spec.toml")
    assert again.train == spec.train


def test_a_folder_with_a_run_is_kept_and_a_fold_that_fails_writes_nothing(rows, spec, tmp_path):
    run_folds(spec, folds(rows, 2), "fold_0", out=tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(FileError, match="holds a run already"):
        run_folds(spec, folds(rows, 2), "fold_0", out=tmp_path)

    def refuse(job):
        raise MipError("no hook today")

    with pytest.raises(MipError, match="no hook today"):
        run_folds(spec, folds(rows, 2), "fold_0", out=tmp_path, overwrite=True, make_hooks=refuse)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    run_folds(spec, folds(rows, 2), "fold_0", out=tmp_path, overwrite=True)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_fit_with_folds_scores_the_mean_on_test(rows, tmp_path, capsys):
    rows.frame.to_csv(tmp_path / "t.csv", index=False)
    text = '[data]\ntable = "t.csv"\nsplit = { fractions = [0.6, 0.2, 0.2] }\n'
    (tmp_path / "s.toml").write_text(text + BRANCHES + HEAD + TRAIN)
    fit(tmp_path / "s.toml", out=tmp_path / "run", folds=Path("2"))
    assert "the mean of 2 models" in capsys.readouterr().out
    scores = json.loads((tmp_path / "run" / "metrics.json").read_text())
    table = mip.read(tmp_path / "t.csv")
    test = mip.parts(mip.load_spec(tmp_path / "s.toml"), table).test
    assert scores["test"] == pytest.approx(mip.evaluate(mip.load(tmp_path / "run"), test))
    assert len(scores["out_of_fold"]["folds"]) == 2
    assert len(pd.read_csv(tmp_path / "run" / "out_of_fold.csv")) == 32
