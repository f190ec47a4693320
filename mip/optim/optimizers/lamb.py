"""LAMB: Adam with a learning rate for each layer, for large batches."""

from __future__ import annotations

import torch
from torch import Tensor

from mip.optim.kernels import Slots, from_kernel, update_second_moment_
from mip.optim.optimizer_kinds import Betas, NonNegative, Positive, optimizer_kind
from mip.optim.protocol import Optimizer, zeros
from mip.optim.schedules import check_betas
from mip.optim.weight_decay import DecayParams


def lamb(
    lr: Positive = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Positive = 1e-6,
    weight_decay: NonNegative = 0.0,
    decay_params: DecayParams = "all",
) -> Optimizer:
    """LAMB (You et al. 2020): Adam's step, scaled to the norm of the parameter.

    >>> params = {"w": torch.tensor([3.0, 4.0])}; opt = lamb(0.1, eps=1e-12)
    >>> opt.update({"w": torch.ones(2)}, opt.init(params), params, 0)[2]
    {'w': tensor([2.6464, 3.6464])}
    """
    slots: Slots = {"count": lambda params: torch.zeros(()), "mean": zeros, "square": zeros}
    beta1, beta2 = check_betas(betas)
    hypers = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay}
    return from_kernel(_kernel, slots, hypers, {}, decay_params)


def _kernel(
    params: list[Tensor],
    grads: list[Tensor],
    count: Tensor,
    means: list[Tensor],
    squares: list[Tensor],
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    steps = int(count.add_(1))
    for param, grad, mean, square in zip(params, grads, means, squares, strict=True):
        mean.lerp_(grad, 1 - beta1)
        root = update_second_moment_(square, grad, beta2, steps, eps)
        update = (mean / (1 - beta1**steps)).div_(root).add_(param, alpha=weight_decay)
        param.sub_(update * _trust_ratio(param, update) * lr)


def _trust_ratio(param: Tensor, update: Tensor) -> Tensor:
    norm, update_norm = param.norm(), update.norm()
    return torch.where((norm > 0) & (update_norm > 0), norm / update_norm, 1.0)


Lamb = optimizer_kind("Lamb", "lamb", lamb)
