"""Predictions as people ask for them, and devices: each test is named after what it shows."""

from __future__ import annotations

import pytest
import torch
from conftest import NUMBERS, set_up, spec_of
from toolz import pipe
from torch import nn
from torch.nn.functional import mse_loss

import mip
from mip.errors import MipError

NO_GPU = not torch.accelerator.is_available()


@pytest.fixture(scope="module")
def numbers(table):
    """A model of table columns alone."""
    setup = set_up(spec_of("multiclass", NUMBERS), table)
    return mip.predictor(setup.plan, setup.state)


# Devices.


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_W22_P30_and_T21_the_same_lines_on_every_device(device, table, numbers):
    device = mip.devices.find_device(device)
    batches = pipe((torch.randn(8, 2), torch.randn(8)), mip.batch(4), mip.to(device))
    net = nn.Linear(2, 1).to(device)
    step = mip.train_step(net, mse_loss, mip.sgd(0.1))
    state, history = mip.fit(step, batches, step.init(), epochs=2)
    assert state.params["weight"].device.type == device
    assert isinstance(history.epochs[-1]["loss"], float)
    assert mip.predict(net, batches).device.type == "cpu"


def test_W35_a_stage_moves_every_tensor_of_a_batch():
    batches = pipe(({"a": torch.ones(4), "b": torch.ones(4, 2)}, torch.ones(4)), mip.batch(2))
    [(inputs, target), *_] = pipe(batches, mip.to("meta"))
    assert {inputs["a"].device.type, inputs["b"].device.type, target.device.type} == {"meta"}


def test_T21_a_model_moves_as_a_copy(numbers, table):
    moved = numbers.to("meta")
    assert {param.device.type for param in moved.net.parameters()} == {"meta"}
    assert {param.device.type for param in numbers.net.parameters()} == {"cpu"}
    assert numbers.to("cpu")(table).equals(numbers(table))


@pytest.mark.skipif(not NO_GPU, reason="this machine has an accelerator")
@pytest.mark.parametrize(
    "take",
    [
        mip.devices.find_device,
        lambda device: mip.Context(device=device),
        mip.to,
    ],
)
def test_P30_a_device_that_this_machine_lacks_is_one_error(take):
    with pytest.raises(MipError) as caught:
        take("cuda")
    assert str(caught.value) == "there is no device 'cuda' here; this machine has cpu (or say auto)"
    assert mip.devices.find_device("auto") == "cpu"
