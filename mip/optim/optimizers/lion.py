"""Lion: the sign of a momentum."""

from __future__ import annotations

from functools import partial
from typing import Any

from attrs import field, frozen
from attrs.validators import ge, gt

from mip.optim.protocol import Decay, Optimizer, Params, betas_field, decay_field, decaying, zeros
from mip.optim.schedules import Hyper, Schedule, value
from mip.tree import Tree


def lion(
    rate: Hyper = 1e-4, betas: tuple[Hyper, Hyper] = (0.9, 0.99), weight_decay: Hyper = 0.0
) -> Optimizer:
    """Lion (Chen et al. 2023): every number moves by the rate, in the direction of its momentum.
    A rate a third to a tenth of AdamW's, and as much more decay, suit it.

    >>> import torch; params = {"w": torch.ones(2)}; one = lion(0.1)
    >>> one.update({"w": torch.tensor([5.0, -0.1])}, one.init(params), params, 0)[2]
    {'w': tensor([0.9000, 1.1000])}
    """

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Any:
        one, two = (value(beta, step) for beta in betas)
        lr, decay = value(rate, step), value(weight_decay, step)
        for path, param in params.items():
            grad, mean = grads[path], state[path]
            param.mul_(1 - lr * decay).sub_(mean.lerp(grad, 1 - one).sign_(), alpha=lr)
            mean.lerp_(grad, 1 - two)
        return grads, state, params

    return Optimizer(zeros, update_)


@frozen
class Lion:
    """See `lion`; `decay` says which weights decay, "all" or "matrices" alone."""

    kind = "lion"
    lr: float = field(default=1e-4, validator=gt(0))
    weight_decay: float = field(default=0.0, validator=ge(0))
    betas: tuple[float, ...] = betas_field(0.9, 0.99)
    decay: Decay = decay_field()

    def optimizer(self, rate: Schedule) -> Optimizer:
        """Build it with a learning rate that follows a schedule."""
        first, second = self.betas
        build = partial(lion, rate, (first, second))
        return decaying(lambda decay: build(weight_decay=decay), self.weight_decay, self.decay)
