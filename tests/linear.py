"""A linear net, the smallest thing that a fit can train, and a hook that scores it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from toolz import pipe
from torch import nn

import mip


def line(rows=8, size=2, **events):
    """A linear net, its step, a pipe of whole batches and a state."""
    torch.manual_seed(0)
    net, one = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)), mip.sgd(0.1)
    x = torch.randn(rows, 2, generator=torch.Generator().manual_seed(1))
    batches = pipe((x, x.sum(1)), mip.batch(size))
    return mip.train_step(net, F.mse_loss, one, **events), batches, mip.init(net, one)


def scored(values):
    """A hook that measures an epoch: one number after the other."""
    left = iter(values)
    return lambda event: {"valid/loss": next(left)} if event.name == "validate" else None
