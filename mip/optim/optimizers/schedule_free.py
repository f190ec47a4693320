"""Schedule-free AdamW: a running average of the weights in place of a schedule."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from attrs import field, frozen
from attrs.validators import ge, gt
from torch import Tensor

from mip.optim.optimizers.adam import root_
from mip.optim.protocol import Decay, Optimizer, Params, betas_field, decay_field, decaying, zeros
from mip.optim.schedules import Hyper, Schedule, value
from mip.optim.transforms import average_of
from mip.tree import Tree, clone


def schedule_free(
    rate: Hyper = 2.5e-3,
    betas: tuple[Hyper, Hyper] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: Hyper = 0.0,
) -> Optimizer:
    """Schedule-free AdamW (Defazio et al. 2024): gradients are taken between a point that AdamW
    moves and the average of where it has been. The average is the model, which
    `mip.train.with_averaged_params(state)` gives. The rate stays constant, but for a warm-up.

    >>> params = {"w": torch.ones(1)}; one = schedule_free(0.1)
    >>> one.update({"w": torch.ones(1)}, one.init(params), params, 0)[2]
    {'w': tensor([0.9000])}
    """

    def init(params: Params) -> Tree:
        # The sum of the weights of the average, and the largest rate so far.
        sums, square = torch.zeros(2, dtype=torch.float64), zeros(params)
        begun = {"base": clone(params), "average": average_of(params)}
        return {"sums": sums, "square": square, **begun}

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Any:
        (one, two), lr = (value(beta, step) for beta in betas), value(rate, step)
        count, decay = int(state["average"].taken.add_(1)), value(weight_decay, step)
        share = _share(state["sums"], lr)
        for path, param in params.items():
            grad, base, square = grads[path], state["base"][path], state["square"][path]
            root = root_(square, grad, two, count, eps)
            base.sub_((grad / root).add_(param, alpha=decay), alpha=lr)
            mean = state["average"].mean[path].lerp_(base, share)
            param.copy_(base.lerp(mean, one))
        return grads, state, params

    return Optimizer(init, update_)


def _share(sums: Tensor, rate: float) -> float:
    # What a step counts for in the average is the square of the largest rate until then.
    sums[1].clamp_(min=rate)
    sums[0].add_(sums[1] ** 2)
    return float(sums[1] ** 2 / sums[0]) if sums[0] else 0.0


@frozen
class ScheduleFree:
    """See `schedule_free`, which wants the schedule "constant"; the model is the average. `decay`
    says which weights decay, "all" or "matrices" alone.
    """

    kind = "schedule_free"
    lr: float = field(default=2.5e-3, validator=gt(0))
    weight_decay: float = field(default=0.0, validator=ge(0))
    betas: tuple[float, ...] = betas_field()
    eps: float = field(default=1e-8, validator=gt(0))
    decay: Decay = decay_field()

    def optimizer(self, rate: Schedule) -> Optimizer:
        """Build it with a learning rate that follows a schedule."""
        first, second = self.betas
        build = partial(schedule_free, rate, (first, second), self.eps)
        return decaying(build, self.weight_decay, self.decay)
