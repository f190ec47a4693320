"""NAdam: Adam with Nesterov momentum."""

from __future__ import annotations

from torch.optim.nadam import nadam as kernel

from mip.optim.kernels import Slots, from_kernel, zero_step_counts
from mip.optim.optimizer_kinds import Betas, NonNegative, Positive, optimizer_kind
from mip.optim.protocol import Optimizer, zeros
from mip.optim.schedules import check_betas
from mip.optim.weight_decay import DecayParams


def nadam(
    lr: Positive = 2e-3,
    betas: Betas = (0.9, 0.999),
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.0,
    momentum_decay: NonNegative = 4e-3,
    decoupled_weight_decay: bool = False,
    decay_params: DecayParams = "all",
) -> Optimizer:
    """NAdam (Dozat 2016), whose momentum rises at a speed set by `momentum_decay`; equal to
    `torch.optim.NAdam`. With `decoupled_weight_decay` weights decay as AdamW's do.

    >>> import torch; params = {"w": torch.ones(1)}; opt = nadam(0.1)
    >>> opt.update({"w": torch.ones(1)}, opt.init(params), params, 0)[2]
    {'w': tensor([0.8944])}
    """
    ones = lambda params: zero_step_counts(params) + 1  # noqa: E731
    slots: Slots = {"mean": zeros, "square": zeros, "product": ones, "count": zero_step_counts}
    beta1, beta2 = check_betas(betas)
    hypers = {
        "lr": lr,
        "beta1": beta1,
        "beta2": beta2,
        "eps": eps,
        "weight_decay": weight_decay,
        "momentum_decay": momentum_decay,
    }
    options = {"decoupled_weight_decay": decoupled_weight_decay}
    return from_kernel(kernel, slots, hypers, options, decay_params)


NAdam = optimizer_kind("NAdam", "nadam", nadam)
