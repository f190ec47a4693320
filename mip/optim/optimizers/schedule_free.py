"""Schedule-free AdamW: a running average of the weights instead of a schedule."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from mip.optim.kernels import rates_of, update_second_moment_
from mip.optim.optimizer_kinds import Betas, NonNegative, Positive, optimizer_kind
from mip.optim.protocol import Optimizer, Params, Update, zeros
from mip.optim.schedules import Hyper, check_betas, value_at
from mip.optim.transforms import init_average
from mip.optim.weight_decay import DecayParams, with_weight_decay
from mip.tree import Tree, clone


def schedule_free(
    lr: Positive = 2.5e-3,
    betas: Betas = (0.9, 0.999),
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.0,
    decay_params: DecayParams = "all",
) -> Optimizer:
    """Schedule-free AdamW (Defazio et al. 2024): gradients are taken between the point that AdamW
    moves and the average of the points where it has been. The average is the model, which
    `mip.train.with_averaged_params(state)` returns. Use a constant learning rate, after a warm-up
    at most.

    >>> params = {"w": torch.ones(1)}; opt = schedule_free(0.1)
    >>> opt.update({"w": torch.ones(1)}, opt.init(params), params, 0)[2]
    {'w': tensor([0.9000])}
    """
    return with_weight_decay(partial(_adamw, lr, betas, eps), weight_decay, decay_params)


def _adamw(lr: Hyper, betas: tuple[Hyper, Hyper], eps: Hyper, decay: Hyper) -> Optimizer:
    betas = check_betas(betas)

    def init(params: Params) -> Tree:
        return {
            "sums": torch.zeros(2, dtype=torch.float64),  # see _average_weight
            "square": zeros(params),
            "base": clone(params),
            "average": init_average(params),
        }

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Update:
        (beta1, beta2), rate = (value_at(beta, step) for beta in betas), value_at(lr, step)
        epsilon, weight_decay = value_at(eps, step), value_at(decay, step)
        count = int(state["average"].steps.add_(1))
        weight = _average_weight(state["sums"], rate)
        for path, param in params.items():
            grad, base, square = grads[path], state["base"][path], state["square"][path]
            root = update_second_moment_(square, grad, beta2, count, epsilon)
            base.sub_((grad / root).add_(param, alpha=weight_decay), alpha=rate)
            mean = state["average"].mean[path].lerp_(base, weight)
            param.copy_(base.lerp(mean, beta1))
        return grads, state, params

    return Optimizer(init, update_, rates_of({"lr": lr, "weight_decay": decay}))


def _average_weight(sums: Tensor, lr: float) -> float:
    # A step counts in the average by the square of the highest learning rate so far. `sums` holds
    # the total of these, and the rate.
    sums[1].clamp_(min=lr)
    sums[0].add_(sums[1] ** 2)
    return float(sums[1] ** 2 / sums[0]) if sums[0] else 0.0


ScheduleFree = optimizer_kind("ScheduleFree", "schedule_free", schedule_free)
