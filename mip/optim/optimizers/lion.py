"""Lion: steps by the sign of a momentum."""

from __future__ import annotations

from torch import Tensor

from mip.optim.kernels import from_kernel
from mip.optim.optimizer_kinds import Betas, NonNegative, Positive, optimizer_kind
from mip.optim.protocol import Optimizer, zeros
from mip.optim.schedules import check_betas
from mip.optim.weight_decay import DecayParams


def lion(
    lr: Positive = 1e-4,
    betas: Betas = (0.9, 0.99),
    weight_decay: NonNegative = 0.0,
    decay_params: DecayParams = "all",
) -> Optimizer:
    """Lion (Chen et al. 2023): every element moves by the learning rate, against the sign of its
    momentum. It suits a third to a tenth of AdamW's rate, with as many times the weight decay.

    >>> import torch; params = {"w": torch.ones(2)}; opt = lion(0.1)
    >>> opt.update({"w": torch.tensor([5.0, -0.1])}, opt.init(params), params, 0)[2]
    {'w': tensor([0.9000, 1.1000])}
    """
    beta1, beta2 = check_betas(betas)
    hypers = {"lr": lr, "beta1": beta1, "beta2": beta2, "weight_decay": weight_decay}
    return from_kernel(_kernel, zeros, hypers, {}, decay_params)


def _kernel(
    params: list[Tensor],
    grads: list[Tensor],
    means: list[Tensor],
    *,
    lr: float,
    beta1: float,
    beta2: float,
    weight_decay: float,
) -> None:
    for param, grad, mean in zip(params, grads, means, strict=True):
        param.mul_(1 - lr * weight_decay).sub_(mean.lerp(grad, 1 - beta1).sign_(), alpha=lr)
        mean.lerp_(grad, 1 - beta2)


Lion = optimizer_kind("Lion", "lion", lion)
