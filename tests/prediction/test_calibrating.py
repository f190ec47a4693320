"""Bounds of predictions hold the truth as often as they say, on rows like those they come from."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from conftest import NUMBERS, set_up, spec_of
from hypothesis import given
from hypothesis import strategies as st

import mip
from mip.errors import DataError, MipError, SpecError
from mip.heads import Binary, Count, Joint, Multiclass, Quantile, Regression, check_calibrates
from mip.prediction import calibrate, ensemble

CLASSES = ["flat", "house", "loft"]
NUMBER = {"mean": 5.0, "std": 2.0}
HEADS = {
    "regression": (Regression("y"), NUMBER),
    "regression log": (Regression("y", "log"), NUMBER),
    "quantile": (Quantile("y", [0.2, 0.7]), NUMBER),
    "binary": (Binary("y"), {"classes": ["no", "yes"]}),
    "multiclass": (Multiclass("y"), {"classes": CLASSES}),
}


def drawn(name, rows, seed):
    """Logits and targets of rows, of which the logits know something."""
    rng = torch.Generator().manual_seed(seed)
    signal = torch.randn(rows, generator=rng)
    if name.startswith("regression"):
        return signal, signal + torch.randn(rows, generator=rng) * (0.2 + signal.abs())
    if name == "quantile":
        target = signal + torch.randn(rows, generator=rng)
        return torch.stack([signal + 0.1, signal - 0.1], dim=1), target
    if name == "binary":
        return 3 * signal, (torch.rand(rows, generator=rng) < signal.sigmoid()).float()
    logits = 2 * torch.randn(rows, 3, generator=rng)
    return 4 * logits, torch.multinomial(logits.softmax(1), 1, generator=rng).squeeze(1)


def is_within(name, head, facts, columns, target):
    if "set" in columns:
        truth = [facts["classes"][int(code)] for code in target]
        return np.array([t in s.split(" | ") for t, s in zip(truth, columns["set"], strict=True)])
    scaled = target.double()[:, None].expand(-1, 2 if name == "quantile" else 1)
    value = head.decode(facts, scaled.squeeze(1) if name != "quantile" else scaled)["value"]
    return (columns["low"] <= value) & (value <= columns["high"])


@pytest.mark.parametrize("name", HEADS)
@given(seed=st.integers(0, 10**6), coverage=st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_the_truth_is_within_as_often_as_it_says(name, seed, coverage):
    head, facts = HEADS[name]
    n, new = 400, 2000
    logits, target = drawn(name, n + new, seed)
    learned = head.calibrate(facts, logits[:n], target[:n], coverage)
    share = is_within(name, head, facts, head.bounds(facts, learned, logits[n:]), target[n:]).mean()
    noise = (coverage * (1 - coverage) * (1 / n + 1 / new)) ** 0.5
    assert share >= coverage - 5 * noise
    if "threshold" not in learned:  # sets are never empty, and so may hold the truth more often
        assert share <= coverage + 5 * noise


@pytest.mark.parametrize("name", ["binary", "multiclass"])
def test_a_temperature_lowers_the_loss_and_changes_no_label(name):
    head, facts = HEADS[name]
    logits, target = drawn(name, 2000, 1)
    learned = head.calibrate(facts, logits, target, 0.9)
    assert 2 < learned["temperature"] < 6  # the logits are three or four times too large
    loss = head.criterion(facts)
    assert loss(logits / learned["temperature"], target) < loss(logits, target)


def test_several_heads_are_calibrated_one_by_one():
    joint = Joint({"a": HEADS["regression"][0], "b": HEADS["binary"][0]})
    facts = {"a": NUMBER, "b": HEADS["binary"][1]}
    (one, two), (x, y) = zip(
        *(drawn(name, 40, 3) for name in ("regression", "binary")), strict=True
    )
    learned = joint.calibrate(facts, {"a": one, "b": two}, {"a": x, "b": y}, 0.9)
    columns = joint.bounds(facts, learned, {"a": one, "b": two})
    assert [*columns] == ["a.low", "a.high", "b.set"]


@pytest.fixture(scope="module")
def trained(table, head):
    setup = set_up(spec_of(head, NUMBERS), table)
    state = mip.fit(setup.step, setup.batches, setup.state, steps=4)
    return mip.predictor(setup.plan, state), state


def test_a_calibrated_model_is_saved_and_read(trained, table, tmp_path):
    predict, state = trained
    sure = calibrate(predict, table, 0.8)
    mip.save(tmp_path / "sure.safetensors", sure.plan, state)
    again = mip.load(tmp_path / "sure.safetensors")(table)
    assert again.equals(sure(table))
    new = {*again} - {*predict(table)}
    assert new == ({"set"} if "label" in again else {"low", "high"})
    if "low" in again:
        assert ((again["low"] <= again["value"]) & (again["value"] <= again["high"])).all()
        assert mip.evaluate(sure, table) == mip.evaluate(predict, table)
    else:
        assert again["label"].equals(predict(table)["label"])
        assert mip.evaluate(sure, table)["loss"] <= mip.evaluate(predict, table)["loss"] + 1e-6


def test_mistakes_are_named(trained, table):
    predict, _ = trained
    with pytest.raises(
        DataError, match=re.escape("coverage 0.95 needs 19 rows to calibrate on: 11")
    ):
        calibrate(predict, table, 0.95)
    with pytest.raises(MipError, match=re.escape("coverage must be between 0 and 1, as 0.9: 90")):
        calibrate(predict, table, 90)
    with pytest.raises(MipError, match="an ensemble cannot be calibrated"):
        calibrate(ensemble([predict, predict]), table, 0.5)
    with pytest.raises(SpecError, match="calibrated models cannot be averaged"):
        ensemble([calibrate(predict, table, 0.5), predict])
    with pytest.raises(SpecError, match=r"head\.kind = 'count' cannot be calibrated"):
        check_calibrates(Count("visits"))
