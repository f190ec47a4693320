"""The learning-rate finder: pure, and near the rate that a problem wants."""

from __future__ import annotations

import math
import shlex

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import bits
from toolz import pipe
from torch import nn
from typer.testing import CliRunner

import mip
from mip.cli.app import make_app
from mip.errors import MipError, SpecError
from mip.model import Parts
from mip.runs import lr_range_test, prepare_job
from mip.train import LRCurve, find_lr


def line(scale=1.0):
    """A quadratic problem whose largest rate without divergence is about 1 / scale ** 2."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Flatten(0))
    x = scale * torch.randn(256, 4, generator=torch.Generator().manual_seed(1))
    batches = pipe((x, x.sum(1)), mip.batch(32))
    train = lambda rate: mip.train_step(net, F.mse_loss, mip.sgd(rate))  # noqa: E731
    return net, train, batches, mip.init(net, mip.sgd())


def test_nothing_changes():
    net, train, batches, state = line()
    before, random = bits((state, net.state_dict())), torch.get_rng_state()
    first, second = (find_lr(train, batches, state) for _ in range(2))
    assert bits((state, net.state_dict())) == before
    assert torch.get_rng_state().equal(random)
    assert first == second


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_the_rate_follows_the_problem(scale):
    _, train, batches, state = line(scale)
    curve = find_lr(train, batches, state, low=1e-6, high=1e4)
    largest = 1 / scale**2
    assert 0.005 * largest < curve.suggestion < 1.5 * largest


def test_rates_rise_by_equal_factors_and_end_where_the_loss_diverges():
    _, train, batches, state = line()
    curve = find_lr(train, batches, state, low=1e-3, high=1e3, steps=60)
    assert len(curve.lrs) == len(curve.losses) < 60
    assert np.diff(np.log(curve.lrs)) == pytest.approx(math.log(1e6) / 59)
    assert curve.lrs[0] == pytest.approx(1e-3)
    assert all(map(math.isfinite, curve.losses))
    whole = find_lr(train, batches, state, low=1e-6, high=1e-4, steps=10)
    assert whole.lrs[-1] == pytest.approx(1e-4)


def test_rates_begin_at_the_state_that_is_given():
    _, train, batches, state = line()
    later, _ = train(lambda step: 0.0)(state, next(batches.iter_from(0)))
    assert find_lr(train, batches, later, steps=5).lrs[0] == pytest.approx(1e-6)


def test_the_first_smoothed_loss_is_the_first_loss():
    _, train, batches, state = line()
    _, metrics = train(lambda step: 1e-6)(state, next(batches.iter_from(0)))
    curve = find_lr(train, batches, state, steps=5)
    assert curve.losses[0] == pytest.approx(float(metrics["loss"]))


@pytest.mark.parametrize("wrong", [{"low": 0.0}, {"low": 1.0, "high": 0.1}, {"steps": 2}])
def test_rates_that_do_not_rise_are_refused(wrong):
    _, train, batches, state = line()
    with pytest.raises(ValueError, match="need 0 < low < high and steps >= 3"):
        find_lr(train, batches, state, **wrong)


def test_a_loss_that_is_never_finite_is_said():
    _, _, batches, state = line()
    net = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Flatten(0))
    train = lambda rate: mip.train_step(  # noqa: E731
        net, F.mse_loss, mip.sgd(rate), map_loss=lambda loss: loss * float("nan")
    )
    with pytest.raises(MipError, match=r"the loss is not finite after 0 steps with lr from"):
        find_lr(train, batches, state)


def test_the_suggestion_is_a_tenth_of_the_rate_with_the_least_loss():
    curve = LRCurve((1.0, 2.0, 3.0), (3.0, 1.0, 2.0))
    assert (curve.minimum, curve.suggestion) == (2.0, 0.2)


SPEC = """
[data]
table = "t.csv"
[branch.size]
kind = "continuous"
columns = ["a", "b"]
[head]
kind = "regression"
column = "y"
layers = [8]
[train]
batch_size = 16
"""


@pytest.mark.slow
def test_the_command_says_a_rate_that_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 200))
    pd.DataFrame({"a": a, "b": b, "y": a - 2 * b}).to_csv("t.csv", index=False)
    (tmp_path / "s.toml").write_text(SPEC)
    done = CliRunner().invoke(make_app(), ["lr", "s.toml", "--out", "lr.png", "--steps", "60"])
    assert done.exit_code == 0, done.output
    assert {path.name for path in tmp_path.iterdir()} == {"t.csv", "s.toml", "lr.png"}
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")
    spec = mip.load_spec("s.toml")
    rate = lr_range_test(spec, mip.parts(spec, mip.read("t.csv")), steps=60).suggestion
    assert f"the smoothed loss is lowest at {10 * rate:.2g}; a tenth" in done.stderr + done.output
    assert f"--set train.optimizer.lr={rate:.2g}\n" in done.stderr + done.output
    sets = ["--set", "train.epochs=1", "--set", "head.layers=[8, 8]"]
    done = CliRunner().invoke(make_app(), ["lr", "s.toml", *sets, "--device", "cpu"])
    lr = done.output.split("train.optimizer.lr=")[1].split()[0]
    command = (
        "mip fit s.toml --set train.epochs=1 --set 'head.layers=[8, 8]' "
        f"--set train.optimizer.kind=adamw --set train.optimizer.lr={lr} --device cpu"
    )
    assert done.output.endswith(f"try: {command}\n")
    words = [*shlex.split(command)[1:], "--out", "run"]
    assert CliRunner().invoke(make_app(), words).exit_code == 0
    assert mip.load_spec("run/spec.toml").train.optimizer.lr == float(lr)
    assert 1e-4 < rate < 1


# Groups of parameters.


def grouped(text):
    """A spec whose parameters are in groups, and its rows, all of which train: four batches."""
    a, b = np.random.default_rng(0).normal(size=(2, 64))
    table = mip.from_columns({"a": a, "b": b, "y": a - 2 * b})
    rest = table.take([])
    return mip.parse(SPEC + text), Parts(table, rest, rest)


GROUP = '[[train.group]]\nmatch = "*"\nlr_scale = {}\nstart_epoch = {}\n'


def test_a_group_is_trained_with_its_multiple_of_the_rate():
    spec, cut = grouped(GROUP.format(0.25, 0))
    setup, options = prepare_job(spec, cut), spec.train
    net = mip.build(setup.plan, options.seed)

    def make_optimizer(lr):
        return mip.chain(mip.clip_norm(options.clip_norm), options.optimizer.optimizer(lr))

    train = lambda lr: mip.train_step(net, setup.plan.loss, make_optimizer(lr))  # noqa: E731
    state = mip.init(net, make_optimizer(0.0), options.seed)
    expected = find_lr(train, setup.batches, state, low=0.25e-6, high=2.5, steps=30)
    assert lr_range_test(spec, cut, steps=30).losses == expected.losses


def test_a_group_that_starts_later_stands_still_until_then():
    texts = (GROUP.format(0, 0), GROUP.format(1, 1), "")
    still, late, now = (lr_range_test(*grouped(text), steps=20).losses for text in texts)
    # The loss of the fifth step, the second epoch's first, is the last of the first weights.
    assert still[:5] == late[:5] != now[:5]
    assert still[5] != late[5]


@pytest.mark.parametrize("line", ["sam = 0.5", 'precision = "bfloat16"'])
def test_a_range_test_trains_as_the_spec_says(line):
    spec, cut = grouped(line)
    job, plain = prepare_job(spec, cut), grouped("")
    curve, other = lr_range_test(spec, cut, steps=8), lr_range_test(*plain, steps=8)
    first = job.step(job.start.state, next(job.batches.iter_from(0)))[1]["loss"]
    assert curve.losses[0] == float(first)
    assert curve.losses != other.losses


def test_batches_that_are_accumulated_share_a_rate():
    spec, cut = grouped("accumulate = 2")
    job, curve = prepare_job(spec, cut), lr_range_test(spec, cut, steps=8)
    assert np.diff(np.log(curve.lrs)) == pytest.approx(math.log(1e7) / 7)
    # Before the first step of the optimizer both batches see the weights as they begin.
    batches, state, losses = job.batches.iter_from(0), job.start.state, []
    for _ in range(2):
        state, metrics = job.step(state, next(batches))
        losses.append(float(metrics["loss"]))
    assert curve.losses[0] == pytest.approx(np.mean(losses), rel=1e-6)


def test_a_group_that_fits_nothing_is_named():
    with pytest.raises(
        SpecError, match=r"train\.group\[0\]\.match = 'sise\.\*' matches no parameter"
    ):
        lr_range_test(*grouped('[[train.group]]\nmatch = "sise.*"\n'))


def test_a_step_in_the_place_of_its_maker_is_refused():
    net = torch.nn.Linear(1, 1)
    step = mip.train_step(net, torch.nn.functional.mse_loss, mip.sgd())
    for wrong in (step, None):
        with pytest.raises(mip.MipError, match="a function makes a step for each learning rate"):
            mip.train.find_lr(wrong, [], step.init())
    with pytest.raises(mip.MipError, match="the step is a net: make one"):
        mip.train.find_lr(lambda lr: net, [], step.init())
