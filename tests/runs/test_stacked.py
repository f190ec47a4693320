"""Models that are trained together are those that are trained alone."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve
from conftest import BRANCHES, HEADS, NUMBERS, bits, spec_of

import mip
from mip.errors import DataError, SpecError
from mip.model import Parts
from mip.prediction import ensemble
from mip.runs import Trial, run_stacked, run_trials

TRAIN = "[train]\nepochs = 3\nbatch_size = 4\nworkers = 0\n"


@pytest.fixture
def cut(table):
    return Parts(table.take(range(7)), table.take(range(7, 9)), table.take(range(9, 11)))


def trials(cut, changes, branches=NUMBERS, head="regression", out=None):
    text = mip.dump(spec_of(head, branches, TRAIN))
    return [
        Trial(name, mip.parse(text, changes=each), cut, out and out / name)
        for name, each in changes.items()
    ]


WAYS = {
    "slow": {"train.optimizer.lr": 1e-3},
    "fast": {"train.optimizer.lr": 3e-2, "train.schedule.kind": "constant"},
    "averaged": {"train.ema": 0.9, "train.clip_norm": 0.1},
    "other": {"train.optimizer": {"kind": "sgd", "lr": 0.01}},
}


@pytest.mark.parametrize("head", HEADS)
def test_each_is_the_run_that_it_is_alone(head, cut):
    # What is drawn within a step is drawn for each of a stack.
    still = {"branch.place.unseen_rate": 0.0} | (
        {"head.dropout": 0.0} if head == "regression" else {}
    )
    asked = trials(cut, {name: how | still for name, how in WAYS.items()}, head=head)
    for one, alone in zip(run_stacked(asked), run_trials(asked), strict=True):
        assert one.name == alone.name
        torch.testing.assert_close(
            one.run.predict.net.state_dict(), alone.run.predict.net.state_dict()
        )
        kept, expected = one.run.history.epochs, alone.run.history.epochs
        assert [row["loss"] for row in kept] == pytest.approx(
            [row["loss"] for row in expected], rel=1e-4
        )
        for part, scores in alone.scores.items():
            assert one.scores[part] == pytest.approx(scores, rel=1e-3, abs=1e-5)


def test_seeds_give_other_models_of_every_kind_of_branch(cut):
    asked = trials(cut, {f"seed {k}": {"train.seed": k} for k in range(3)}, BRANCHES)
    done = run_stacked(asked)
    states = [bits(each.run.predict.net.state_dict()) for each in done]
    assert len({str(each) for each in states}) == 3
    assert ensemble([each.run.predict for each in done])(cut.test).shape[0] == 2


def test_their_models_are_kept(cut, tmp_path):
    asked = trials(cut, {"one": {}, "two": {"train.seed": 1}}, out=tmp_path)
    for each in run_stacked(asked):
        loaded = mip.load(tmp_path / each.name / "model.safetensors")
        assert loaded(cut.test).equals(each.run.predict(cut.test))


def test_one_that_goes_wrong_leaves_the_others(cut, tmp_path):
    wild = {"train.optimizer": {"kind": "sgd", "lr": 1e30}, "train.clip_norm": 0.0}
    good, bad = run_stacked(trials(cut, {"good": {}, "bad": wild}, out=tmp_path))
    assert good.error is None
    assert isinstance(bad.error, DataError)
    assert str(bad.error).startswith("bad: ")
    assert not (tmp_path / "bad" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train.batch_size": 2}, r"two: train.batch_size differs; only accumulate, .*, swa may"),
        ({"head.layers": [3]}, r"two: head differs"),
    ],
)
def test_what_differs_otherwise_is_refused(changes, said, cut):
    with pytest.raises(SpecError, match=said):
        run_stacked(trials(cut, {"one": {}, "two": changes}))


def test_other_rows_are_refused(cut):
    one, two = trials(cut, {"one": {}, "two": {}})
    less = Parts(cut.train.take(range(5)), cut.valid, cut.test)
    with pytest.raises(SpecError, match="two: the training rows differs"):
        run_stacked([one, evolve(two, parts=less)])


@pytest.mark.parametrize(("name", "value"), [("patience", 2), ("sam", 0.1), ("restore_best", True)])
def test_what_looks_at_one_model_is_refused(name, value, cut):
    with pytest.raises(SpecError, match=rf"train.{name}.* needs a model that is trained alone"):
        run_stacked(trials(cut, {"one": {f"train.{name}": value}}))
