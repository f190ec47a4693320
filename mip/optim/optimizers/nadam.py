"""NAdam: Adam with Nesterov's momentum."""

from __future__ import annotations

from functools import partial
from typing import Any

from attrs import field, frozen
from attrs.validators import ge, gt
from torch.optim.nadam import nadam as kernel

from mip.optim.protocol import (
    Decay,
    Optimizer,
    Params,
    betas_field,
    counts,
    decay_field,
    decaying,
    named,
    zeros,
)
from mip.optim.schedules import Hyper, Schedule, value
from mip.tree import Tree


def nadam(
    rate: Hyper = 2e-3,
    betas: tuple[Hyper, Hyper] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: Hyper = 0.0,
    momentum_decay: Hyper = 4e-3,
    decoupled: bool = False,
) -> Optimizer:
    """NAdam (Dozat 2016), whose momentum rises as `momentum_decay` says; equal to
    `torch.optim.NAdam`. With `decoupled` weights decay as AdamW's.

    >>> import torch; params = {"w": torch.ones(1)}; one = nadam(0.1)
    >>> one.update({"w": torch.ones(1)}, one.init(params), params, 0)[2]
    {'w': tensor([0.8944])}
    """

    def init(params: Params) -> Tree:
        mean, square, count = zeros(params), zeros(params), counts(params)
        return {"count": count, "mean": mean, "square": square, "product": count + 1}

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Any:
        kernel(
            list(params.values()),
            named(grads, params),
            named(state["mean"], params),
            named(state["square"], params),
            list(state["product"].unbind()),
            list(state["count"].unbind()),
            decoupled_weight_decay=decoupled,
            beta1=value(betas[0], step),
            beta2=value(betas[1], step),
            lr=value(rate, step),
            weight_decay=value(weight_decay, step),
            momentum_decay=value(momentum_decay, step),
            eps=eps,
        )
        return grads, state, params

    return Optimizer(init, update_)


@frozen
class NAdam:
    """See `nadam`; `decay` says which weights decay, "all" or "matrices" alone."""

    kind = "nadam"
    lr: float = field(default=2e-3, validator=gt(0))
    weight_decay: float = field(default=0.0, validator=ge(0))
    betas: tuple[float, ...] = betas_field()
    eps: float = field(default=1e-8, validator=gt(0))
    momentum_decay: float = field(default=4e-3, validator=ge(0))
    decoupled: bool = False
    decay: Decay = decay_field()

    def optimizer(self, rate: Schedule) -> Optimizer:
        """Build it with a learning rate that follows a schedule."""
        first, second = self.betas
        build = partial(nadam, rate, (first, second), self.eps, decoupled=self.decoupled)
        build = partial(build, momentum_decay=self.momentum_decay)
        return decaying(lambda decay: build(weight_decay=decay), self.weight_decay, self.decay)
