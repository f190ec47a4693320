"""Many runs at once: each is the run that it would be alone, and a sweep keeps what it has."""

from __future__ import annotations

import json
import time

import numpy as np
import pandas as pd
import pytest
import torch
from attrs import frozen
from conftest import HEADS, NUMBERS, bits, frame_of

import mip
from mip.branches import Continuous
from mip.cli.inputs import parse_choices
from mip.errors import FileError, MipError, SpecError
from mip.runs import Trial, best_combination, run_trials, sweep
from mip.runs.sweeps import combinations_of, name_of
from mip.workers import parallel_map

TEXT = (
    NUMBERS
    + HEADS["regression"]
    + '[data]\ntable = "houses.csv"\n[train]\nepochs = 2\nbatch_size = 8\nworkers = 0\n'
    + 'optimizer = { kind = "adamw", lr = 5e-3 }\n'
)
RATES = {"train.optimizer.lr": [1e-3, 1e-2]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a table and a spec."""
    folder = tmp_path_factory.mktemp("many")
    frame_of(60).to_csv(folder / "houses.csv", index=False)
    (folder / "houses.toml").write_text(TEXT)
    return folder


@pytest.fixture(scope="module")
def cut(folder):
    spec = mip.parse(TEXT)
    return mip.parts(spec, mip.read(folder / "houses.csv"))


def trials(cut, **changes):
    """A trial for each seed, and for each change one."""
    seeds = {f"seed {k}": {"train.seed": k} for k in range(2)}
    each = {**seeds, **changes}
    return [Trial(name, mip.parse(TEXT, changes=change), cut) for name, change in each.items()]


def slow(seconds):
    time.sleep(seconds)
    return seconds


# Workers.


@pytest.mark.slow
def test_items_are_taken_as_needed_and_results_come_in_their_order():
    seconds, taken = [0.3, 0.0, 0.1, *[0.0] * 47], []
    items = (taken.append(each) or each for each in seconds)
    results = parallel_map(slow, items, workers=2)
    assert next(results) == 0.3
    assert len(taken) < 50
    assert list(results) == seconds[1:]


@pytest.mark.slow
def test_a_worker_has_one_thread():
    assert list(parallel_map(threads, [0, 0], workers=2)) == [1, 1]


def threads(_):
    return torch.get_num_threads()


def test_what_cannot_be_sent_is_said():
    with pytest.raises(MipError) as caught:
        list(parallel_map(lambda item: item, [1], workers=2))
    assert str(caught.value).startswith("cannot be sent to a worker process (")
    assert str(caught.value).endswith(
        "): define kinds and hooks at the top of a module, or use one worker"
    )


def test_no_workers_are_refused():
    with pytest.raises(ValueError, match="'workers' must be >= 1: 0"):
        list(parallel_map(abs, [1], workers=0))


def killed(_):
    import os

    os._exit(3)


@pytest.mark.slow
def test_a_process_that_dies_is_said():
    with pytest.raises(MipError) as caught:
        list(parallel_map(killed, [1], workers=2))
    assert str(caught.value) == (
        "a worker process ended without a result: it ran out of memory, or the script starts "
        "workers outside of `if __name__ == '__main__':`"
    )


# Runs.


WILD = {"train.optimizer.lr": 1e30, "train.clip_norm": 0.0}
OTHER = {"train.optimizer.lr": 0.1, "train.optimizer.weight_decay": 0.3}


@pytest.fixture(scope="module", params=[1, 2])
def outcomes(request, cut):
    """The outcomes of good trials and of some that fail, with one worker and with two."""
    several = trials(cut, wild=WILD, mixed={"train.cutmix": 1.0}, other=OTHER)
    return list(run_trials(several, request.param))


def test_each_run_is_the_one_it_makes_alone(cut, outcomes):
    good = [outcome for outcome in outcomes if not outcome.error]
    assert [outcome.name for outcome in good] == ["seed 0", "seed 1", "other"]
    for each, trial in zip(good, trials(cut, other=OTHER), strict=True):
        alone = mip.run(trial.spec, trial.parts, context=mip.Context(device="cpu"))
        assert bits(each.run.state.params) == bits(alone.state.params)
        assert each.run.history.epochs == alone.history.epochs
        assert each.scores["test"] == mip.evaluate(alone.predict, cut.test)


def test_an_error_is_named_and_loses_no_other(outcomes):
    errors = {outcome.name: outcome.error for outcome in outcomes if outcome.error}
    assert list(errors) == ["wild", "mixed"]
    assert str(errors["mixed"]) == (
        "mixed: train.cutmix = 1 pastes photos, but no branch reads any; "
        "use train.mixup for numbers"
    )
    assert isinstance(errors["mixed"], SpecError)
    assert str(errors["wild"]).startswith("wild: ")


def test_what_is_no_mistake_of_the_user_is_named_too(cut):
    (outcome,) = run_trials([Trial("broken", None, cut)])
    assert str(outcome.error).startswith("broken: TypeError: ")


@frozen
class Doubled(Continuous):
    """A kind of one's own."""

    kind = "doubled"


@pytest.mark.slow
def test_kinds_of_ones_own_are_sent(cut):
    kinds = {**mip.KINDS, "doubled": Doubled}
    spec = mip.parse(TEXT.replace('"continuous"', '"doubled"'), kinds)
    (outcome, _) = run_trials(
        [Trial("own", spec, cut)] * 2, workers=2, context=mip.Context(kinds=kinds)
    )
    assert isinstance(outcome.run.plan.spec.branch["sizes"], Doubled)


@pytest.mark.slow
def test_folds_among_workers_are_those_of_one(folder):
    rows = mip.folds(mip.read(folder / "houses.csv"), k=3)
    spec = mip.parse(TEXT)
    one, two = (mip.crossval(spec, rows, "fold_0", workers=k) for k in (1, 2))
    pd.testing.assert_frame_equal(one.predictions, two.predictions, check_exact=True)
    assert one.scores == two.scores


# Sweeps.


def test_a_sweep_is_a_grid_with_seeds(folder, tmp_path):
    done = sweep(folder / "houses.toml", {**RATES, "train.batch_size": [8, 16]}, tmp_path, seeds=2)
    expected = combinations_of({**RATES, "train.batch_size": [8, 16]})
    assert [each.changes for each in done] == expected
    assert [len(each.outcomes) for each in done] == [2] * 4
    losses = [each.valid_loss for each in done]
    assert best_combination(done) is done[int(np.argmin(losses))]
    losses = [each.scores["valid"]["loss"] for each in done[0].outcomes]
    assert done[0].average("valid", "loss") == pytest.approx(
        (np.mean(losses), np.std(losses, ddof=1), 2)
    )
    assert all((path / "model.safetensors").is_file() for each in done for path in each.folders)


def test_a_run_of_a_sweep_is_the_run_alone(folder, cut, tmp_path):
    done = sweep(folder / "houses.toml", RATES, tmp_path / "swept", seeds=2)
    spec = mip.parse(TEXT, changes={"train.optimizer.lr": 1e-2, "train.seed": 1})
    mip.run(
        spec,
        cut,
        out=tmp_path / "alone",
        context=mip.Context(base=folder, device="cpu"),
    )
    one = (done[1].folders[1] / "model.safetensors").read_bytes()
    assert one == (tmp_path / "alone" / "model.safetensors").read_bytes()
    assert done[1].folders[1].name == "train.optimizer.lr=0.01,train.seed=1"


def test_a_sweep_goes_on_where_models_are_missing(folder, tmp_path):
    path = folder / "houses.toml"
    first = sweep(path, RATES, tmp_path)
    (kept,), (gone,) = (each.folders for each in first)
    before = (kept / "model.safetensors").stat().st_mtime_ns
    (gone / "model.safetensors").unlink()
    again = sweep(path, RATES, tmp_path, seeds=2)
    assert (kept / "model.safetensors").stat().st_mtime_ns == before
    assert (gone / "model.safetensors").is_file()
    assert [each.outcomes[0].scores for each in again] == [
        each.outcomes[0].scores for each in first
    ]


def test_a_folder_with_another_run_is_an_error_of_that_run(folder, tmp_path):
    path = folder / "houses.toml"
    (done,) = sweep(path, {"train.batch_size": [8]}, tmp_path)
    other = tmp_path / "other.toml"
    other.write_text(
        TEXT.replace("epochs = 2", "epochs = 3").replace("houses.csv", f"{folder}/houses.csv")
    )
    (again,) = sweep(other, {"train.batch_size": [8]}, tmp_path)
    assert isinstance(again.outcomes[0].error, FileError)
    assert str(again.outcomes[0].error) == (
        f"train.batch_size=8,train.seed=0: {done.folders[0]}: holds a run of another spec or other "
        "rows; choose another --out, or replace it with --force (overwrite=True in Python)"
    )
    assert best_combination([again]) is None


@pytest.mark.parametrize(
    ("values", "seeds", "message"),
    [
        ({"train.bach": [1]}, 1, "{path}: train.bach is not a field; did you mean 'batch_size'?"),
        ({"train.batch_size": [8, 8]}, 1, "a sweep has a combination of values twice"),
        ({"train.seed": [1, 2]}, 2,
         "a sweep over train.seed names its seeds; leave out their number"),
        ({}, 0, "a sweep needs at least one seed, not 0"),
        ({"data.table": [""]}, 1, "{path}: data.table is missing"),
        ({"data.split.fractions": [[0.8, 0.0, 0.2]]}, 1,
         "{path}: a sweep chooses by valid loss and needs a valid part"),
    ],
)  # fmt: skip
def test_sweeps_that_cannot_be(folder, tmp_path, values, seeds, message):
    path = folder / "houses.toml"
    with pytest.raises(SpecError) as caught:
        sweep(path, values, tmp_path / "out", seeds=seeds)
    assert str(caught.value).startswith(message.format(path=path))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("path", "values", "message"),
    [
        (mip.parse(TEXT), RATES, "sweep takes the path of a spec file; run_trials takes specs"),
        ("a.toml", [1, 2], r'a dict of values to try, {"train.batch_size": \[16, 32\]}'),
        ("a.toml", {"train.epochs": 3}, "sweep takes a list of values for train.epochs, not 3"),
        ("a.toml", {"head.kind": "binary"}, "a list of values for head.kind, not 'binary'"),
        ("a.toml", {"train.epochs": []}, r"a list of values for train.epochs, not \[\]"),
    ],
)
def test_arguments_that_are_no_sweep(tmp_path, path, values, message):
    with pytest.raises(MipError, match=message):
        sweep(path, values, tmp_path)


def test_names_of_folders_are_harmless_and_apart():
    one, two = name_of({"a": "../../etc"}), name_of({"a": "..\\..\\etc"})
    assert "/" not in one
    assert one != two
    assert len(name_of({"a": list(range(300))})) < 140


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("train.batch_size=16", {"train.batch_size": [16]}),
        ("train.optimizer.lr=1e-3,1e-2", {"train.optimizer.lr": [1e-3, 1e-2]}),
        ("head.layers=[64],[64, 32]", {"head.layers": [[64], [64, 32]]}),
        ("head.layers=[]", {"head.layers": [[]]}),
        ("train.on_nan=stop,skip", {"train.on_nan": ["stop", "skip"]}),
    ],
)
def test_choices_are_divided_by_commas(text, values):
    assert parse_choices([text]) == values


def test_the_command_line_sweeps_prints_and_writes(folder, tmp_path, run):
    words = ["--set", "train.optimizer.lr=1e-3,1e-2", "--seeds", 2, "--out", tmp_path]
    code, out, err = run("sweep", folder / "houses.toml", *words)
    assert code == 0, err
    assert "train.optimizer.lr=0.001,train.seed=0: valid loss " in out
    assert out.count(" best") == 1
    rows = json.loads((tmp_path / "sweep.json").read_text())
    assert [row["changes"] for row in rows] == combinations_of(RATES)
    assert sum(row["best"] for row in rows) == 1
    assert rows[0]["spread"]["test"]["mae"] > 0
    frame = pd.read_csv(tmp_path / "sweep.csv", index_col="combination")
    assert frame["train.optimizer.lr"].tolist() == RATES["train.optimizer.lr"]
    np.testing.assert_allclose(frame["test/mae"], [row["test"]["mae"] for row in rows])
    np.testing.assert_allclose(
        frame["valid/loss std"], [row["spread"]["valid"]["loss"] for row in rows]
    )


def test_the_command_line_names_runs_that_fail(folder, tmp_path, run):
    words = ["--set", "train.cutmix=0.0,1.0", "--out", tmp_path]
    code, _, err = run("sweep", folder / "houses.toml", *words)
    assert code == 2
    assert err == (
        "mip: error: train.cutmix=1.0,train.seed=0: train.cutmix = 1 pastes photos, but no branch "
        "reads any; use train.mixup for numbers\n"
        "mip: error: 1 of 2 runs failed: train.cutmix=1.0,train.seed=0; the others are kept\n"
    )
    before = (tmp_path / "sweep.json").read_bytes()
    rows = json.loads(before)
    assert [row["best"] for row in rows] == [True, False]
    assert rows[1]["valid"]["loss"] is None
    assert len(rows[1]["errors"]) == 1
    code, _, err = run("sweep", folder / "houses.toml", *words)
    assert (code, err.count("\n")) == (2, 1)
    assert "sweep.json: exists already" in err
    assert (tmp_path / "sweep.json").read_bytes() == before


def test_a_sweep_reads_the_table_as_the_spec_says(folder, tmp_path):
    frame_of(60).to_csv(tmp_path / "houses.csv", index=False, sep=";")
    text = TEXT.replace('table = "houses.csv"\n', 'table = "houses.csv"\nformat = { sep = ";" }\n')
    (tmp_path / "houses.toml").write_text(text)
    losses = []
    for place in (folder, tmp_path):
        [done] = sweep(place / "houses.toml", {"train.epochs": [1]}, tmp_path / f"of {place.name}")
        losses.append(done.valid_loss)
    assert losses[0] == losses[1]
