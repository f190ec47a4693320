"""What `[train]` says of a step is what the functions do, and every run of it can be stopped."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import NUMBERS, bits, spec_of
from torch import nn

import mip
from mip.errors import DataError, SpecError
from mip.hooks import early_stop, nan_guard, reduce_lr_on_plateau, restore_best
from mip.model import Parts
from mip.optim import (
    accumulate,
    adamw,
    chain,
    clip_norm,
    cosine,
    ema,
    inject_lr_factor,
    lookahead,
    swa,
)
from mip.optim.transforms import LrFactor
from mip.runs import lr_schedule
from mip.runs.optimizers import make_optimizer
from mip.spec import Train
from mip.tree import find

TRAIN = """
[train]
epochs = 4
batch_size = 2
workers = 0
optimizer = { kind = "adamw", lr = 1e-2 }
schedule = { kind = "cosine" }
checkpoint_every = 1
"""

FIELDS = {
    "accumulate": {"accumulate": 2},
    "ema": {"ema": 0.9},
    "swa": {"swa": 0.5},
    "lookahead": {"lookahead": 3},
    "sam": {"sam": 0.05},
    "bfloat16": {"precision": "bfloat16"},
    "float16": {"precision": "float16"},
    "plateau": {"plateau": {"factor": 0.5, "patience": 0, "threshold": 0.9}},
    "on_nan": {"on_nan": "skip"},
    "all": {
        "accumulate": 2,
        "ema": 0.9,
        "lookahead": 2,
        "sam": 0.01,
        "precision": "float16",
        "plateau": {"factor": 0.5, "patience": 1, "threshold": 0.5},
        "on_nan": "skip",
    },
}


def spec(**train):
    changes = {f"train.{name}": value for name, value in train.items()}
    return mip.parse(mip.dump(spec_of("regression", NUMBERS, TRAIN)), changes=changes)


@pytest.fixture(scope="module")
def cut(table):
    return Parts(table.take(range(7)), table.take(range(7, 9)), table.take(range(9, 11)))


@pytest.mark.parametrize("changes", FIELDS.values(), ids=FIELDS)
def test_a_run_that_is_stopped_goes_on_to_the_same_bytes(changes, cut, tmp_path):
    one = spec(**changes)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    mip.run(one, cut, out=whole)

    def stopping(at):
        return lambda job: [lambda event: mip.Stop("") if event.step == at else None]

    mip.run(one, cut, out=halves, make_hooks=stopping(5))
    mip.run(one, cut, out=halves, make_hooks=stopping(8), resume=True)
    mip.run(one, cut, out=halves, resume=True)
    for name in ("model.safetensors", "history.jsonl", "checkpoints/last.safetensors"):
        assert (whole / name).read_bytes() == (halves / name).read_bytes(), name


@pytest.fixture(scope="module")
def plain(cut):
    return mip.run(spec(), cut)


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "on_nan"])
def test_every_field_changes_what_is_learned(name, cut, plain):
    one, other = plain, mip.run(spec(**FIELDS[name]), cut)
    assert bits(one.predict.net.state_dict()) != bits(other.predict.net.state_dict())


def steps(optimizer, count=12):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0))
    draw = torch.Generator().manual_seed(1)
    rows = torch.randn(count, 5, 3, generator=draw)
    step, state = mip.train_step(net, F.mse_loss, optimizer), mip.init(net, optimizer)
    for inputs in rows:
        state, _ = step.donate(state, (inputs, inputs.sum(1)))
    return mip.train.with_averaged_params(state).params


RATE = cosine(1e-3, 6)


@pytest.mark.parametrize(
    ("how", "same"),
    [
        ({"ema": 0.5}, lambda one: chain(one, ema(lambda k: min(0.5, (1 + k) / (10 + k))))),
        ({"swa": 0.5}, lambda one: chain(one, swa(3))),
        ({"lookahead": 2}, lambda one: lookahead(one, 2)),
    ],
)
def test_a_field_is_its_function(how, same):
    train = Train(epochs=2, schedule=mip.optim.Cosine(), accumulate=2, **how)
    by_hand = accumulate(chain(clip_norm(1.0), same(adamw(RATE))), 2)
    assert bits(steps(make_optimizer(train, 12))) == bits(steps(by_hand))


def test_the_rate_is_told_by_the_batch():
    message = lr_schedule(Train(epochs=2, schedule=mip.optim.Cosine(), accumulate=2), 12)
    assert [message(k) for k in range(12)] == [RATE(k // 2) for k in range(12)]


# A plateau.


def scored(values):
    left = iter(values)
    return lambda event: {"score": next(left)} if event.name == "validate" else None


def line(one):
    net = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
    inputs = torch.ones(4, 3)
    step = mip.train_step(net, F.mse_loss, one)
    return step, [(inputs, inputs.sum(1))], mip.init(net, one)


def test_a_plateau_lowers_the_rate_in_the_epoch_after_it():
    one = inject_lr_factor(lambda factor: mip.sgd(factor * 1e-3))
    step, batches, state = line(one)
    seen = []

    def look(event):
        if event.name == "after_batch":
            seen.append(float(next(find(event.state.optimizer, LrFactor)).value))

    hooks = [
        scored([3.0, 2.0, 2.0, 2.0, 1.0]),
        reduce_lr_on_plateau("score", 0.5, 1, mode="min"),
        look,
    ]
    mip.fit(step, batches, state, epochs=5, hooks=hooks)
    assert seen == [1.0, 1.0, 1.0, 1.0, 0.5]


def test_a_plateau_of_a_metric_that_is_not_measured_is_refused():
    step, batches, state = line(inject_lr_factor(mip.sgd))
    with pytest.raises(
        mip.MipError, match=r"the epochs (will )?have no 'los'; did you mean 'loss'\?"
    ):
        mip.fit(step, batches, state, epochs=2, hooks=[reduce_lr_on_plateau("los")])


@pytest.mark.parametrize(
    "hook",
    [early_stop("los", 1), restore_best("los"), lambda event: None],
    ids=["early_stop", "restore_best", "lambda"],
)
def test_a_metric_that_is_not_measured_is_refused(hook, tmp_path):
    step, batches, state = line(mip.sgd(1e-3))
    hooks = [hook, mip.checkpoint(tmp_path, metric="los", mode="min")]
    with pytest.raises(
        mip.MipError, match=r"the epochs (will )?have no 'los'; did you mean 'loss'\?"
    ):
        mip.fit(step, batches, state, epochs=2, hooks=hooks)


def test_a_direction_has_two_words():
    step, batches, state = line(mip.sgd(1e-3))
    with pytest.raises(ValueError, match=r"'mode' must be 'min' or 'max', not 'mx'"):
        mip.fit(step, batches, state, epochs=2, hooks=[early_stop("loss", 1, mode="mx")])


def test_a_plateau_needs_an_optimizer_that_can_be_changed():
    step, batches, state = line(mip.sgd(1e-3))
    with pytest.raises(
        mip.MipError, match=r"learning rate cannot change while it runs: use inject_lr_factor"
    ):
        mip.fit(step, batches, state, epochs=2, hooks=[reduce_lr_on_plateau("loss")])


def test_a_run_of_too_few_batches_for_a_step_is_refused(cut):
    with pytest.raises(SpecError, match=r"train.accumulate = 1000: the run has 12 batches"):
        mip.run(spec(accumulate=1000), cut)


def test_words_of_functions_are_checked():
    with pytest.raises(ValueError, match=r"to skip, make the step with skip_nonfinite=True"):
        nan_guard("skip")
    net = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"'precision' must be one of float32, bfloat16, float16"):
        mip.train_step(net, F.mse_loss, mip.sgd(), precision="fp16")


def test_a_plain_function_is_a_step():
    step, batches, state = line(mip.sgd(1e-3))
    plain = lambda state, batch: step(state, batch)  # noqa: E731
    ended = mip.fit(plain, batches, state, epochs=3)
    assert bits(ended) == bits(mip.fit(step, batches, state, epochs=3))


def test_a_hook_that_was_not_called_is_named():
    step, batches, state = line(mip.sgd(1e-3))
    with pytest.raises(
        mip.MipError, match=r"progress makes a hook: call it, as in hooks=\[progress\(…\)\]"
    ):
        mip.fit(step, batches, state, epochs=1, hooks=[mip.progress])


def test_a_plateau_needs_valid_rows(cut):
    none = Parts(cut.train, cut.valid.take([]), cut.test)
    with pytest.raises(SpecError, match=r"train.plateau needs a valid part in data.split"):
        mip.run(spec(**FIELDS["plateau"]), none)


# What is not finite.


def test_a_run_that_skips_every_step_is_refused(cut, tmp_path):
    wild = {"optimizer": {"kind": "sgd", "lr": 1e30}, "clip_norm": 0.0, "on_nan": "skip"}
    with pytest.raises(DataError, match=r"no step of epoch \d had a finite loss and gradients"):
        mip.run(spec(**wild), cut, out=tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_a_run_that_goes_back_again_and_again_is_refused(cut, tmp_path):
    wild = {"optimizer": {"kind": "sgd", "lr": 1e30}, "clip_norm": 0.0, "on_nan": "roll_back"}
    with pytest.raises(DataError, match=r"epochs 1 and 2 were both rolled back"):
        mip.run(spec(**wild), cut, out=tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ema": 0.9, "swa": 0.5}, r"train.ema and swa both average the weights: choose one"),
        (
            {"optimizer": {"kind": "schedule_free"}},
            r'train.schedule must be \{ kind = "constant" \} for schedule_free',
        ),
        ({"precision": "float8"}, r"train.precision = 'float8' is not allowed"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, said):
    with pytest.raises(SpecError, match=said):
        spec(**changes)
