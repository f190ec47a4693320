"""Stochastic gradient descent."""

from __future__ import annotations

from functools import partial
from typing import Any

from attrs import field, frozen
from attrs.validators import ge, gt, lt
from torch.optim.sgd import sgd as kernel

from mip.optim.protocol import (
    Decay,
    Optimizer,
    Params,
    decay_field,
    decaying,
    named,
    optional,
    zeros,
)
from mip.optim.schedules import Hyper, Schedule, value
from mip.tree import Tree


def sgd(
    rate: Hyper = 1e-2, momentum: Hyper = 0.0, nesterov: bool = False, weight_decay: Hyper = 0.0
) -> Optimizer:
    """Stochastic gradient descent by torch's fused kernel; equal to `torch.optim.SGD`.

    Without `momentum` there is none, as in torch; a spec's `sgd` has 0.9 by default. Raises
    ValueError for `nesterov` without a momentum.

    >>> import torch; params = {"w": torch.ones(1)}; one = sgd(0.1)
    >>> one.update({"w": torch.ones(1)}, one.init(params), params, 0)[2]
    {'w': tensor([0.9000])}
    """
    if nesterov and not momentum:
        raise ValueError("'nesterov' needs a momentum: sgd(rate, momentum=0.9, nesterov=True)")

    def init(params: Params) -> Tree:
        return zeros(params) if momentum else {}

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Any:
        kernel(
            list(params.values()),
            named(grads, params),
            optional(state, params),
            fused=True,
            weight_decay=value(weight_decay, step),
            momentum=value(momentum, step),
            lr=value(rate, step),
            dampening=0.0,
            nesterov=nesterov,
            maximize=False,
        )
        return grads, state, params

    return Optimizer(init, update_)


@frozen
class SGD:
    """See `sgd`; `decay` says which weights decay, "all" or "matrices" alone. The momentum is 0.9
    by default, unlike that of the function: specs have been trained with the one, programs with
    the other, and either would learn something else with another default.
    """

    kind = "sgd"
    lr: float = field(default=1e-2, validator=gt(0))
    momentum: float = field(default=0.9, validator=[ge(0), lt(1)])
    nesterov: bool = False
    weight_decay: float = field(default=0.0, validator=ge(0))
    decay: Decay = decay_field()

    def optimizer(self, rate: Schedule) -> Optimizer:
        """Build it with a learning rate that follows a schedule."""
        nesterov = self.nesterov and self.momentum > 0
        return decaying(partial(sgd, rate, self.momentum, nesterov), self.weight_decay, self.decay)
