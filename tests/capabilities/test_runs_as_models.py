"""A finished run is a model, and one table is split as its spec says."""

from __future__ import annotations

import html
import re

import pandas as pd
import pytest
import toolz
import torch

import mip
from mip.errors import DataError, FileError, MipError

CPU = mip.Context(device="cpu")
ROWS = pd.DataFrame({"x": range(40), "y": [k % 2 for k in range(40)]})
SPEC = """
[branch.x]
kind = "continuous"
columns = ["x"]

[head]
kind = "binary"
column = "y"

[data]
split = { fractions = [0.5, 0.25, 0.25], seed = 3 }

[train]
epochs = 2
patience = 2
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    return mip.run(mip.parse(SPEC), ROWS, out=tmp_path_factory.mktemp("run") / "a", context=CPU)


def test_one_table_is_split_as_the_spec_says(ended):
    parts = mip.parts(mip.parse(SPEC), ROWS)
    in_parts = mip.run(mip.parse(SPEC), parts, context=CPU)
    assert ended.plan.facts == in_parts.plan.facts
    assert ended.history.epochs == in_parts.history.epochs
    assert "valid/loss" in ended.history.epochs[-1]


def test_rows_without_a_target_are_left_out_before_one_table_is_split():
    spec, rows = mip.parse(SPEC), mip.from_frame(ROWS)
    rows.frame["y"] = [None if k in {3, 8, 21} else y for k, y in enumerate(ROWS["y"])]
    used = mip.parts(spec, mip.clean(spec, rows)[0])
    assert mip.run(spec, rows, context=CPU).plan.facts == mip.adapt(spec, used.train).facts


def test_parts_that_are_given_are_not_split_again():
    spec = mip.parse(SPEC.replace("patience = 2", ""))
    for rows in [((ROWS,),), (ROWS, None, ROWS), (mip.from_frame(ROWS), None, ROWS)]:
        run = mip.run(spec, *rows, context=CPU)
        assert run.plan.facts == mip.adapt(spec, mip.from_frame(ROWS)).facts
        assert "valid/loss" not in run.history.epochs[-1]


def test_the_file_of_a_spec_is_a_spec_and_its_folder_the_base(tmp_path):
    folds = pd.DataFrame({"row": range(40), "fold": [k % 5 for k in range(40)]})
    folds.to_csv(tmp_path / "folds.csv", index=False)
    split = 'split = { folds = "folds.csv", test = 0, valid = 1 }'
    text = SPEC.replace("split = { fractions = [0.5, 0.25, 0.25], seed = 3 }", split)
    path = tmp_path / "a.toml"
    path.write_text(text)
    run = mip.run(path, ROWS, context=CPU)
    assert run.plan.spec == mip.load_spec(path)
    assert mip.run(str(path), ROWS, context=CPU).history.epochs == run.history.epochs


def test_a_run_is_a_model(ended, tmp_path):
    pd.testing.assert_frame_equal(mip.predict(ended, ROWS), ended.predict(ROWS))
    assert mip.predict(ended, ROWS, device="cpu").equals(ended.predict(ROWS))
    assert mip.evaluate(ended, ROWS) == mip.evaluate(ended.predict, ROWS)
    mip.save(tmp_path / "run.safetensors", ended)
    mip.save(tmp_path / "plan.safetensors", ended.plan, ended.state)
    files = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("run", "plan")]
    assert files[0] == files[1]


def test_a_run_shows_its_scores_and_no_wall_of_text(ended):
    last = ended.history.epochs[-1]
    assert ended.scores["valid/loss"] == last["valid/loss"]
    assert not {"epoch", "step", "lr", "weight_decay"} & ended.scores.keys()
    assert repr(ended).startswith("Run('y', 2 epochs in ")
    assert "valid/loss" in repr(ended)
    assert len(repr(ended)) < 300
    assert "<table" in ended._repr_html_()


def test_the_scores_of_a_restored_run_are_those_of_its_best_epoch():
    changes = {"train.restore_best": True, "train.epochs": 6, "train.patience": 5}
    changes["train.optimizer"] = {"kind": "adamw", "lr": 3.0}
    run = mip.run(mip.parse(SPEC, changes=changes), ROWS, context=CPU)
    losses = [row["valid/loss"] for row in run.history.epochs]
    assert min(losses) < losses[-1]
    assert run.scores["valid/loss"] == min(losses)


def test_a_run_folder_is_the_file_of_a_model(tmp_path, run):
    out, table = tmp_path / "a", tmp_path / "rows.csv"
    ROWS.to_csv(table, index=False)
    ended = mip.run(mip.parse(SPEC), ROWS, out=out, context=CPU)
    assert mip.load(out)(ROWS).equals(ended.predict(ROWS))
    assert mip.predict(out, ROWS).equals(ended.predict(ROWS))
    for words in (("evaluate", out, table), ("predict", out, table)):
        assert run(*words)[0] == 0
        assert (
            run(*words)[1].split("\n")[1:]
            == run(words[0], out / "model.safetensors", table)[1].split("\n")[1:]
        )
    with pytest.raises(FileError, match=r"a folder without the model\.safetensors of a finished"):
        mip.load(tmp_path)


def test_a_series_as_target_is_refused_with_the_right_advice():
    with pytest.raises(DataError, match=r"the target is a column of the rows: rows\.assign"):
        mip.run(mip.parse(SPEC), ROWS[["x"]], ROWS["y"])


def test_hooks_watch_a_run_with_and_without_a_folder(tmp_path):
    spec = mip.parse(SPEC)
    for out in (None, tmp_path / "run"):
        rows, made = [], []
        run = mip.run(
            spec,
            ROWS,
            out=out,
            hooks=[mip.hooks.record(rows)],
            make_hooks=lambda job, made=made: [mip.hooks.record(made)],
            context=CPU,
        )
        assert rows == made == [*run.history.epochs]


def test_a_notebook_shows_specs_and_models_as_text_of_a_spec(ended):
    text = f"<pre>{html.escape(mip.dump(ended.plan.spec))}</pre>"
    for value in (ended.plan.spec, ended.plan, ended.predict):
        assert value._repr_html_() == text


def test_a_notebook_counts_epochs_from_1_and_leaves_out_fixed_rates():
    rows = [{"epoch": k, "step": k, "loss": k, "lr": 0.1 * k, "weight_decay": 0.01} for k in (0, 1)]
    shown = mip.train.History(tuple(rows))._repr_html_()
    assert re.findall("<th>(.*?)</th>", shown) == ["epoch", "step", "loss", "lr"]
    assert re.findall("<tr>\\s*<td>(.*?)</td>", shown) == ["1", "2"]
    assert mip.train.History()._repr_html_()


def test_crossval_takes_a_number_of_folds(tmp_path, run):
    ROWS.to_csv(tmp_path / "rows.csv", index=False)
    text = SPEC.replace("seed = 3", 'seed = 3, stratify = "y"').replace(
        "[data]", '[data]\ntable = "rows.csv"'
    )
    (tmp_path / "a.toml").write_text(text)
    by_file = tmp_path / "folds.csv"
    mip.folds(ROWS, 4, seed=3, stratify="y").frame[["fold_0"]].rename_axis("row").to_csv(by_file)
    outputs = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for folds, out in zip((4, by_file), outputs, strict=True):
        code, _, err = run("crossval", tmp_path / "a.toml", "--folds", folds, "--out", out)
        assert code == 0, err
    assert outputs[0].read_text() == outputs[1].read_text()


def test_a_summary_takes_the_pipe_that_a_net_trains_on():
    x, net = torch.zeros(6, 3), torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU())
    batches = toolz.pipe((x, torch.zeros(6)), mip.batch(4))
    assert repr(mip.model.summary(net, batches)) == repr(mip.model.summary(net, x[:4]))
    with pytest.raises(
        MipError, match=r"of a batch \(inputs, target\) give the inputs: batch\[0\]"
    ):
        mip.model.summary(net, batches[0])
