"""RMSprop: gradients over the root of their mean square."""

from __future__ import annotations

from functools import partial
from typing import Any

from attrs import field, frozen
from attrs.validators import ge, gt, lt
from torch.optim.rmsprop import rmsprop as kernel

from mip.optim.protocol import Decay, Optimizer, Params, counts, decay_field, decaying, named, zeros
from mip.optim.schedules import Hyper, Schedule, value
from mip.tree import Tree


def rmsprop(
    rate: Hyper = 1e-2,
    alpha: Hyper = 0.99,
    eps: float = 1e-8,
    momentum: Hyper = 0.0,
    centered: bool = False,
    weight_decay: Hyper = 0.0,
) -> Optimizer:
    """RMSprop (Tieleman and Hinton 2012), with `centered` that of Graves (2013); equal to
    `torch.optim.RMSprop`.

    >>> import torch; params = {"w": torch.ones(1)}; one = rmsprop(0.01, alpha=0.75)
    >>> one.update({"w": torch.ones(1)}, one.init(params), params, 0)[2]
    {'w': tensor([0.9800])}
    """
    kept = {"square": True, "mean": centered, "momentum": bool(momentum)}

    def init(params: Params) -> Tree:
        buffers = {name: zeros(params) for name, needed in kept.items() if needed}
        return {"count": counts(params), **buffers}

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Any:
        kernel(
            list(params.values()),
            named(grads, params),
            named(state["square"], params),
            named(state["mean"], params) if centered else [],
            named(state["momentum"], params) if momentum else [],
            list(state["count"].unbind()),
            lr=value(rate, step),
            alpha=value(alpha, step),
            eps=eps,
            weight_decay=value(weight_decay, step),
            momentum=value(momentum, step),
            centered=centered,
        )
        return grads, state, params

    return Optimizer(init, update_)


@frozen
class RMSprop:
    """See `rmsprop`; `decay` says which weights decay, "all" or "matrices" alone."""

    kind = "rmsprop"
    lr: float = field(default=1e-2, validator=gt(0))
    alpha: float = field(default=0.99, validator=[ge(0), lt(1)])
    eps: float = field(default=1e-8, validator=gt(0))
    momentum: float = field(default=0.0, validator=[ge(0), lt(1)])
    centered: bool = False
    weight_decay: float = field(default=0.0, validator=ge(0))
    decay: Decay = decay_field()

    def optimizer(self, rate: Schedule) -> Optimizer:
        """Build it with a learning rate that follows a schedule."""
        build = partial(rmsprop, rate, self.alpha, self.eps, self.momentum, self.centered)
        return decaying(build, self.weight_decay, self.decay)
