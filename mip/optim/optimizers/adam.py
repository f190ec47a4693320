"""Adam, and AdamW, whose weights decay apart from the gradient."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from attrs import field, frozen
from attrs.validators import ge, gt
from torch import Tensor

from mip.optim.protocol import (
    Decay,
    Optimizer,
    Params,
    betas_field,
    decay_field,
    decaying,
    named,
    zeros,
)
from mip.optim.schedules import Hyper, Schedule, value
from mip.tree import Tree, clone


def adamw(
    rate: Hyper = 1e-3,
    betas: tuple[Hyper, Hyper] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: Hyper = 0.01,
) -> Optimizer:
    """AdamW (Loshchilov and Hutter 2019) by torch's fused kernel; equal to `torch.optim.AdamW`.

    >>> params = {"w": torch.ones(1)}; one = adamw(0.1, weight_decay=0.0)
    >>> one.update({"w": torch.ones(1)}, one.init(params), params, 0)[2]
    {'w': tensor([0.9000])}
    """
    return _adam(rate, betas, eps, weight_decay, decoupled=True)


def adam(
    rate: Hyper = 1e-3,
    betas: tuple[Hyper, Hyper] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: Hyper = 0.0,
) -> Optimizer:
    """Adam (Kingma and Ba 2015) by torch's fused kernel; equal to `torch.optim.Adam`."""
    return _adam(rate, betas, eps, weight_decay, decoupled=False)


def root_(square: Tensor, grad: Tensor, beta: float, count: int, eps: float) -> Tensor:
    """Take a gradient into the running mean of squares, in place, and give its root, without the
    bias to its begin at 0.

    >>> root_(torch.zeros(1), torch.tensor([3.0]), beta=0.5, count=1, eps=0.0)
    tensor([3.])
    """
    square.mul_(beta).addcmul_(grad, grad, value=1 - beta)
    return (square / (1 - beta**count)).sqrt_().add_(eps)


def _adam(
    rate: Hyper, betas: tuple[Hyper, Hyper], eps: float, weight_decay: Hyper, decoupled: bool
) -> Optimizer:
    # Called as torch.optim calls it, but for its sorting by device, which costs as much again.
    kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_

    def init(params: Params) -> Tree:
        # The fused kernel reads the counts where the parameters are.
        device = next((param.device for param in params.values()), None)
        mean = zeros(params)
        return {
            "count": torch.zeros(len(params), device=device),
            "mean": mean,
            "square": clone(mean),
        }

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Any:
        if params:  # the kernel wants one at least
            kernel(
                list(params.values()),
                named(grads, params),
                named(state["mean"], params),
                named(state["square"], params),
                max_exp_avg_sqs=[],
                state_steps=list(state["count"].add_(1).unbind()),
                amsgrad=False,
                beta1=value(betas[0], step),
                beta2=value(betas[1], step),
                lr=value(rate, step),
                weight_decay=value(weight_decay, step),
                eps=eps,
                maximize=False,
            )
        return grads, state, params

    return Optimizer(init, update_)


@frozen
class AdamW:
    """See `adamw`; `decay` says which weights decay, "all" or "matrices" alone."""

    kind = "adamw"
    lr: float = field(default=1e-3, validator=gt(0))
    weight_decay: float = field(default=0.01, validator=ge(0))
    betas: tuple[float, ...] = betas_field()
    eps: float = field(default=1e-8, validator=gt(0))
    decay: Decay = decay_field()

    def optimizer(self, rate: Schedule) -> Optimizer:
        """Build it with a learning rate that follows a schedule."""
        first, second = self.betas
        build = partial(adamw, rate, (first, second), self.eps)
        return decaying(build, self.weight_decay, self.decay)


@frozen
class Adam:
    """See `adam`; `decay` says which weights decay, "all" or "matrices" alone."""

    kind = "adam"
    lr: float = field(default=1e-3, validator=gt(0))
    weight_decay: float = field(default=0.0, validator=ge(0))
    betas: tuple[float, ...] = betas_field()
    eps: float = field(default=1e-8, validator=gt(0))
    decay: Decay = decay_field()

    def optimizer(self, rate: Schedule) -> Optimizer:
        """Build it with a learning rate that follows a schedule."""
        first, second = self.betas
        build = partial(adam, rate, (first, second), self.eps)
        return decaying(build, self.weight_decay, self.decay)
