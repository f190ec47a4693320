"""Predictions of a plain net are those of all rows, in their order, or there are none."""

from __future__ import annotations

import pytest
import torch
from toolz import pipe
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import mip
from mip.train import Step

X = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
Y = X.sum(1)
ROWS = TensorDataset(X, Y)
NET = nn.Linear(3, 1)

SHUFFLED = {
    "sample(shuffle=True)": pipe((X, Y), mip.sample(shuffle=True), mip.batch(4)),
    "replacement": pipe((X, Y), mip.sample(replacement=True), mip.batch(4)),
    "weights": pipe((X, Y), mip.sample(weights=torch.ones(12)), mip.batch(4)),
    "groups": pipe((X, Y), mip.sample(groups=[0, 1] * 6), mip.batch(4)),
    "shuffle=True": DataLoader(ROWS, 4, shuffle=True),
    "weighted loader": DataLoader(ROWS, 4, sampler=WeightedRandomSampler([1.0] * 12, 12)),
    "subset": DataLoader(ROWS, 4, sampler=SubsetRandomSampler(range(12))),
    "batch sampler": DataLoader(ROWS, batch_sampler=BatchSampler(RandomSampler(ROWS), 4, False)),
}


@pytest.mark.parametrize("batches", SHUFFLED.values(), ids=SHUFFLED)
def test_shuffled_rows_are_refused(batches):
    with pytest.raises(mip.MipError, match=r"shuffles its rows, .* not be in their order: leave"):
        mip.predict(NET, batches)
    assert mip.evaluate(NET, batches, loss=mse_loss)["loss"] > 0


@pytest.mark.parametrize(
    "batches", [pipe((X, Y), mip.batch(5, drop_last=True)), DataLoader(ROWS, 5, drop_last=True)]
)
def test_rows_that_are_dropped_are_refused(batches):
    with pytest.raises(mip.MipError, match="leave drop_last out"):
        mip.predict(NET, batches)


def test_rows_in_order_are_predicted_whatever_holds_them():
    expected = mip.predict(NET, X)
    for batches in (
        X.numpy(),
        X.double().numpy(),  # as in a pipe, in the default dtype
        pipe((X, Y), mip.batch(5)),
        pipe((X, Y), mip.sample(order=lambda n, epoch: range(n)), mip.batch(5)),
        DataLoader(ROWS, 5),
        [X[:4], X[4:]],
    ):
        torch.testing.assert_close(mip.predict(NET, batches), expected)


@pytest.mark.parametrize("parts", [(X, X), (X.numpy(), X.numpy()), {"a": X}])
def test_several_parts_are_one_batch_and_not_several(parts):
    with pytest.raises(mip.MipError, match=r"put a batch of several parts into a list, \[batch\]"):
        mip.predict(NET, parts)


STEP = mip.train_step(NET, mse_loss, mip.sgd())
BATCHES = pipe((X, Y), mip.batch(4))


@pytest.mark.parametrize("call", [mip.predict, mip.evaluate])
@pytest.mark.parametrize(
    ("model", "rows", "error"),
    [
        (STEP.init(), BATCHES, r"the model is a State: pass the net, .* mip\.module\(net, state\)"),
        (STEP, BATCHES, "the model is a Step: pass its net"),
        (BATCHES, NET, r"the model comes first, (predict|evaluate)\(model, rows\), not Pipe"),
        (X, X, r"the model comes first, .*, not Tensor"),
        (None, X, r"the model comes first, .*, not NoneType"),
    ],
)
def test_what_makes_no_predictions_is_named(call, model, rows, error):
    assert isinstance(STEP, Step)
    with pytest.raises(mip.MipError, match=error):
        call(model, rows)
