"""LAMB: Adam with a rate for each layer, for large batches."""

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
from mip.tree import Tree


def lamb(
    rate: Hyper = 1e-3,
    betas: tuple[Hyper, Hyper] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: Hyper = 0.0,
) -> Optimizer:
    """LAMB (You et al. 2020): Adam's step, made as long as the parameter itself is.

    >>> params = {"w": torch.tensor([3.0, 4.0])}; one = lamb(0.1, eps=1e-12)
    >>> one.update({"w": torch.ones(2)}, one.init(params), params, 0)[2]
    {'w': tensor([2.6464, 3.6464])}
    """

    def init(params: Params) -> Tree:
        return {"count": torch.zeros(()), "mean": zeros(params), "square": zeros(params)}

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Any:
        (one, two), decay = (value(beta, step) for beta in betas), value(weight_decay, step)
        count = int(state["count"].add_(1))
        for path, param in params.items():
            mean, square = state["mean"][path], state["square"][path]
            mean.lerp_(grads[path], 1 - one)
            root = root_(square, grads[path], two, count, eps)
            move = (mean / (1 - one**count)).div_(root).add_(param, alpha=decay)
            param.sub_(move * _trust(param, move) * value(rate, step))
        return grads, state, params

    return Optimizer(init, update_)


def _trust(param: Tensor, move: Tensor) -> Tensor:
    long, far = param.norm(), move.norm()
    return torch.where((long > 0) & (far > 0), long / far, 1.0)


@frozen
class Lamb:
    """See `lamb`; `decay` says which weights decay, "all" or "matrices" alone."""

    kind = "lamb"
    lr: float = field(default=1e-3, validator=gt(0))
    weight_decay: float = field(default=0.0, validator=ge(0))
    betas: tuple[float, ...] = betas_field()
    eps: float = field(default=1e-6, validator=gt(0))
    decay: Decay = decay_field()

    def optimizer(self, rate: Schedule) -> Optimizer:
        """Build it with a learning rate that follows a schedule."""
        first, second = self.betas
        build = partial(lamb, rate, (first, second), self.eps)
        return decaying(build, self.weight_decay, self.decay)
