"""Adagrad: gradients over the root of the sum of their squares."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from attrs import field, frozen
from attrs.validators import ge, gt
from torch.optim.adagrad import adagrad as kernel

from mip.optim.protocol import Decay, Optimizer, Params, counts, decay_field, decaying, named
from mip.optim.schedules import Hyper, Schedule, value
from mip.tree import Tree


def adagrad(
    rate: Hyper = 1e-2, initial: float = 0.0, eps: float = 1e-10, weight_decay: Hyper = 0.0
) -> Optimizer:
    """Adagrad (Duchi, Hazan and Singer 2011), on the CPU by torch's fused kernel; equal to
    `torch.optim.Adagrad`. The sums begin at `initial`.

    >>> params = {"w": torch.ones(1)}; one = adagrad(0.1)
    >>> one.update({"w": torch.ones(1)}, one.init(params), params, 0)[2]
    {'w': tensor([0.9000])}
    """

    def init(params: Params) -> Tree:
        sums = {path: torch.full_like(param, initial) for path, param in params.items()}
        return {"count": counts(params), "sum": sums}

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Any:
        kernel(
            list(params.values()),
            named(grads, params),
            named(state["sum"], params),
            list(state["count"].unbind()),
            fused=True if _on_cpu(params) else None,
            lr=value(rate, step),
            weight_decay=value(weight_decay, step),
            lr_decay=0.0,
            eps=eps,
            maximize=False,
        )
        return grads, state, params

    return Optimizer(init, update_)


def _on_cpu(params: Params) -> bool:
    return all(param.device.type == "cpu" for param in params.values())


@frozen
class Adagrad:
    """See `adagrad`; `decay` says which weights decay, "all" or "matrices" alone."""

    kind = "adagrad"
    lr: float = field(default=1e-2, validator=gt(0))
    initial: float = field(default=0.0, validator=ge(0))
    eps: float = field(default=1e-10, validator=gt(0))
    weight_decay: float = field(default=0.0, validator=ge(0))
    decay: Decay = decay_field()

    def optimizer(self, rate: Schedule) -> Optimizer:
        """Build it with a learning rate that follows a schedule."""
        build = partial(adagrad, rate, self.initial, self.eps)
        return decaying(build, self.weight_decay, self.decay)
