"""The search for options of a spec."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import mip
from mip.cli.train import tune as tune_verb
from mip.errors import FileError, MipError, SpecError
from mip.runs import tune

pytest.importorskip("optuna", reason="the extra tune is not installed")

SPEC = """
[data]
table = "t.csv"
split = { fractions = [0.6, 0.2, 0.2] }

[branch.numbers]
kind = "continuous"
columns = ["size"]

[head]
kind = "regression"
column = "price"

[train]
epochs = 1
batch_size = 8
workers = 0

[tune]
"train.optimizer.lr" = "1e-3..1e-1"
"head.layers" = "[4],[8, 4]"
"""


@pytest.fixture
def spec(tmp_path):
    rng = np.random.default_rng(0)
    sizes = rng.normal(size=60)
    frame = pd.DataFrame({"size": sizes, "price": 3 * sizes + rng.normal(size=60) / 9 + 5})
    frame.to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "s.toml").write_text(SPEC)
    return tmp_path / "s.toml"


def test_a_search_ends_with_the_best_of_its_trials_scored_on_test(spec, tmp_path):
    tuned = tune(spec, tmp_path / "out", trials=4)
    assert [trial.number for trial in tuned.trials] == [0, 1, 2, 3]
    assert tuned.trials[0].changes == {}
    assert tuned.best.score == min(trial.score for trial in tuned.trials)
    for trial in tuned.trials[1:]:
        assert 1e-3 <= trial.changes["train.optimizer.lr"] <= 1e-1
        assert trial.changes["head.layers"] in ([4], [8, 4])
    changed = mip.load_spec(spec, changes=tuned.best.changes)
    best = mip.load_spec(tmp_path / "out" / "best.toml")
    assert (best.head, best.train, best.tune) == (changed.head, changed.train, None)
    parts = mip.parts(changed, mip.read(tmp_path / "t.csv"))
    again = mip.run(changed, parts)
    assert mip.evaluate(again, parts.valid)["loss"] == pytest.approx(tuned.best.score)
    assert mip.evaluate(again, parts.test) == pytest.approx(tuned.test["best"])
    kept = mip.load(tmp_path / "out" / "best")
    assert mip.evaluate(kept, parts.test) == pytest.approx(tuned.test["best"])


def test_the_same_search_goes_on_from_its_journal(spec, tmp_path):
    first = tune(spec, tmp_path / "out", trials=3)
    seen = []
    more = tune(spec, tmp_path / "out", trials=5, on_trial=seen.append)
    assert more.trials[:3] == first.trials
    assert [trial.number for trial in seen] == [3, 4]
    with pytest.raises(FileError, match="another spec, other rows or another space"):
        tune(spec, tmp_path / "out", {"train.batch_size": "4,8"}, trials=3)
    anew = tune(spec, tmp_path / "out", trials=3, overwrite=True)
    assert [trial.score for trial in anew.trials] == [trial.score for trial in first.trials]
    (tmp_path / "out" / "trials.json").write_text("{")
    with pytest.raises(FileError, match="not a journal of trials"):
        tune(spec, tmp_path / "out", trials=3)


@pytest.mark.parametrize("k", [0, 3])
def test_what_the_rows_of_test_say_changes_no_trial(spec, tmp_path, k):
    before = tune(spec, tmp_path / "before", trials=3, k=k)
    frame = pd.read_csv(tmp_path / "t.csv")
    read = mip.load_spec(spec)
    test = mip.parts(read, mip.read(tmp_path / "t.csv")).test
    frame.loc[test.row_ids.tolist(), "price"] = 1e4
    frame.to_csv(tmp_path / "t.csv", index=False)
    after = tune(spec, tmp_path / "after", trials=3, k=k)
    assert [(t.changes, t.score) for t in after.trials] == [
        (t.changes, t.score) for t in before.trials
    ]
    assert after.test["best"]["mae"] > 1000


def test_trials_that_fail_are_named_and_the_others_go_on(spec, tmp_path):
    space = {"train.optimizer.lr": "1e-3..1e-1", "head.dropout": "0.0..0.5"}
    tuned = tune(spec, tmp_path / "out", space, trials=3)
    assert not any(trial.error for trial in tuned.trials)
    with pytest.raises(MipError, match=r"every trial failed; the first: there is no metric 'auc'"):
        tune(spec, tmp_path / "auc", space, trials=2, metric="auc")
    tried = json.loads((tmp_path / "auc" / "trials.json").read_text())["trials"]
    assert [trial["score"] for trial in tried] == [None, None]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"train.optimizer.rate": "1..2"}, "rate is not a field; did you mean 'lr'"),
        ({"train.epochs": "5"}, "one value leaves nothing to search"),
        ({"train.epochs": "5..2"}, "write a range as LOW..HIGH"),
        ({"train.epochs": "-3..2"}, "train.epochs"),
        ({"data.table": "a.csv,b.csv"}, "trials are compared on the same rows"),
    ],
)
def test_a_space_that_the_spec_does_not_have_is_refused(spec, tmp_path, space, message):
    with pytest.raises(SpecError, match=message):
        tune(spec, tmp_path / "out", space, trials=2)
    assert not (tmp_path / "out" / "trials.json").exists()


def test_the_command_says_what_was_tried_and_found(spec, tmp_path, capsys):
    tune_verb(spec, trials=2, out=tmp_path / "out", space=["train.batch_size=4,8"])
    said = capsys.readouterr().out
    assert "trial 0: loss" in said
    assert "the spec as it is" in said
    assert "best of 2: trial" in said
    with pytest.raises(MipError, match="write it as PATH=VALUES"):
        tune_verb(spec, out=tmp_path / "other", space=["train.batch_size"])
