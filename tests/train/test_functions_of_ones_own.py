"""Losses, metrics and nets of the user's: what is right in torch is right here, and what is not is
named."""

from itertools import pairwise

import pytest
import torch
from toolz import pipe
from torch import nn
from torch.nn.functional import mse_loss

import mip
from mip import MipError
from mip.hooks import reduce_lr_on_plateau, restore_best
from mip.metrics import direction

X = torch.linspace(-1, 1, 80).reshape(20, 4)
Y = X.sum(1) ** 2
BATCHES = pipe((X, Y), mip.batch(5))


def net_of(*sizes):
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes)))


def trained(batches=BATCHES, net=None, loss=mse_loss, epochs=2, hooks=(), **options):
    step = mip.train_step(net or net_of(4, 1), loss, mip.sgd(0.01), **options)
    return mip.fit(step, batches, step.init(), epochs=epochs, hooks=hooks)


# Which end of a metric is better.


@pytest.mark.parametrize(
    "watching",
    [
        lambda folder, **mode: mip.early_stop("valid/mine", patience=3, **mode),
        lambda folder, **mode: restore_best("valid/mine", **mode),
        lambda folder, **mode: mip.checkpoint(folder, metric="valid/mine", **mode),
        lambda folder, **mode: reduce_lr_on_plateau("valid/mine", **mode),
    ],
    ids=["early_stop", "restore_best", "checkpoint", "plateau"],
)
def test_a_metric_without_a_known_direction_needs_a_mode(watching, tmp_path):
    steps, net = [], net_of(4, 1)
    optimizer = mip.optim.inject_lr_factor(lambda factor: mip.sgd(factor * 0.01))
    step = mip.train_step(net, mse_loss, optimizer)
    own = {"mine": lambda p, y: float(len(p))}
    scores = mip.validate(net, BATCHES, metrics=own)
    count = lambda event: steps.append(event.step) if event.name == "before_batch" else None  # noqa: E731
    fit = lambda hook: mip.fit(step, BATCHES, step.init(), epochs=1, hooks=[scores, count, hook])  # noqa: E731
    count.__dict__.update(reads=(), adds=())
    with pytest.raises(
        MipError, match=r"'valid/mine' does not say .* give mode='min' or mode='max'"
    ):
        fit(watching(tmp_path / "asked"))
    assert steps == []
    assert fit(watching(tmp_path / "said", mode="max")).step == 4


def test_what_others_call_a_metric_has_its_direction():
    higher = ["acc", "valid/AUROC", "valid/f1_score", "r2_score", "style.acc", "roc_auc"]
    lower = ["loss", "loss.1", "valid/my_loss", "mean_squared_error", "brier_score", "max_error"]
    assert {direction(name) for name in higher} == {"max"}
    assert {direction(name) for name in lower} == {"min"}
    assert {direction(name) for name in ("mine", "valid/mean_pred", "dice")} == {None}


def test_the_best_epoch_of_acc_is_the_one_with_the_highest():
    rows = [{"valid/acc": 0.5}, {"valid/acc": 0.9}, {"valid/acc": 0.7}]
    assert mip.metrics.best_epoch(rows, "valid/acc") == 1
