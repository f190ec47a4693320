"""What a fit leaves in the net when it fails, and the states that it does not begin with."""

from __future__ import annotations

import pytest
import torch
from toolz import pipe
from torch import nn
from torch.nn.functional import mse_loss

import mip
from mip.train import load_state

X = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
Y = X.sum(1, keepdim=True)
BATCHES = pipe((X, Y), mip.batch(8))


def small():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    return net, mip.train_step(net, mse_loss, mip.adamw(1e-2))


def weights(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def equal(one, other):
    return all(one[name].equal(other[name]) for name in one)


def raises_at(name, step, error):
    def hook(event):
        if (event.name, event.step) == (name, step):
            raise error

    return hook


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no"), SystemExit(3)])
@pytest.mark.parametrize(
    ("name", "steps"), [("after_batch", 4), ("before_batch", 5), ("validate", 6)]
)
def test_the_net_holds_what_was_learned_before_an_error(error, name, steps):
    net, step = small()
    state = step.init()
    expected = mip.fit(step, BATCHES, state, steps=steps)
    load_state(net, state)
    with pytest.raises(type(error)) as caught:
        mip.fit(step, BATCHES, state, epochs=9, hooks=[raises_at(name, steps, error)])
    assert equal(expected.params, weights(net))
    assert caught.value.__notes__[-1] == f"the net holds what it learned up to step {steps}"


def test_a_batch_that_fails_leaves_the_steps_before_it():
    net, step = small()
    batches = [(X, Y), (X, Y), (X[:, :2], Y)]
    expected = mip.fit(step, batches[:2], step.init(), epochs=1)
    net, step = small()
    with pytest.raises(mip.MipError, match="step 3"):
        mip.fit(step, batches, step.init(), epochs=1)
    assert equal(expected.params, weights(net))


def test_an_error_before_the_first_step_leaves_the_net_alone():
    net, step = small()
    state = step.init()
    nn.init.zeros_(net[0].weight)
    before = weights(net)
    for name in ("before_fit", "before_batch"):
        hooks = [raises_at(name, 0, ZeroDivisionError())]
        with pytest.raises(ZeroDivisionError) as caught:
            mip.fit(step, BATCHES, state, epochs=1, hooks=hooks)
        assert equal(before, weights(net))
        assert len(caught.value.__notes__) == 1


def test_an_error_that_a_hook_repeats_is_reported_once():
    def broken(event):
        if event.step == 2:
            raise ValueError("always the same")

    _, step = small()
    with pytest.raises(ValueError, match="always the same") as caught:
        mip.fit(step, BATCHES, step.init(), epochs=1, hooks=[broken])
    assert not any("always the same" in note for note in caught.value.__notes__)


def test_freezing_after_the_state_was_made_is_refused_with_the_cure():
    net, step = small()
    state = mip.fit(step, BATCHES, step.init(), epochs=1)
    net[0].requires_grad_(False)
    step = mip.train_step(net, mse_loss, mip.adamw(1e-2))
    with pytest.raises(mip.MipError, match=r"trains '0\.weight' and 1 more, .*step\.init\(\)"):
        mip.fit(step, BATCHES, state, epochs=1)
    before = weights(net)
    mip.fit(step, BATCHES, step.init(), epochs=1)
    assert net[0].weight.equal(before["0.weight"])
    assert not net[2].weight.equal(before["2.weight"])


def test_unfreezing_after_the_state_was_made_is_refused_with_the_cure():
    net, _ = small()
    net[0].requires_grad_(False)
    step = mip.train_step(net, mse_loss, mip.adamw(1e-2))
    state = mip.fit(step, BATCHES, step.init(), epochs=1)
    net[0].requires_grad_(True)
    with pytest.raises(mip.MipError, match=r"holds fixed '0\.weight' and 1 more"):
        mip.fit(step, BATCHES, state, epochs=1)
    before = weights(net)
    mip.fit(step, BATCHES, step.init(), epochs=1)
    assert not net[0].weight.equal(before["0.weight"])


def test_init_takes_the_weights_as_they_are_and_the_seed_changes_none():
    net, step = small()
    mip.fit(step, BATCHES, step.init(seed=0), epochs=1)
    for seed in (0, 1):
        assert equal(weights(net), step.init(seed=seed).params)


@pytest.mark.parametrize("epochs", ["3", -1, 1.5, float("nan")])
def test_a_length_that_is_no_whole_number_is_refused(epochs):
    _, step = small()
    with pytest.raises(mip.MipError, match="epochs must be a whole number, 0 or more"):
        mip.fit(step, BATCHES, step.init(), epochs=epochs)


def test_what_fit_returns_is_read_as_a_pair():
    _, step = small()
    fitted = mip.fit(step, BATCHES, step.init(), epochs=1)
    state, history = fitted
    assert fitted[0] == state
    assert fitted[1] is fitted[-1] is fitted.history is history


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 1), nn.Linear(3, 1)

    def forward(self, a, b):
        return self.a(a) + self.b(b)


class Unpacked(Two):
    def forward(self, inputs):
        return super().forward(**inputs) if isinstance(inputs, dict) else super().forward(*inputs)


@pytest.mark.parametrize(
    ("inputs", "unpacked"), [((X, X), r"\*inputs"), ({"a": X, "b": X}, r"\*\*inputs")]
)
def test_a_net_of_several_arguments_takes_them_by_two_lines(inputs, unpacked):
    rows = pipe((inputs, Y), mip.batch(8))
    cure = (
        rf"as one argument, .*def forward\(self, inputs\): return super\(\)\.forward\({unpacked}\)"
    )
    step = mip.train_step(Two(), mse_loss, mip.adamw(1e-2))
    with pytest.raises(mip.MipError, match=cure):
        mip.fit(step, rows, step.init(), epochs=1)
    with pytest.raises(mip.MipError, match=cure):
        mip.predict(step.net, rows)
    net = Unpacked()
    step = mip.train_step(net, mse_loss, mip.adamw(1e-2))
    assert mip.fit(step, rows, step.init(), epochs=1).step == 3
    assert mip.predict(net, rows).shape == (24, 1)
    assert net.state_dict().keys() == Two().state_dict().keys()


def test_batches_of_arrays_are_named_by_their_shape():
    _, step = small()
    error = r"an input ndarray float32 \[24, 3\]: .*; a batch holds tensors: torch\.as_tensor"
    with pytest.raises(mip.MipError, match=error):
        mip.fit(step, [(X.numpy(), Y.numpy())], step.init(), epochs=1)
