"""RAdam: Adam that uses its second moment only once that has seen enough gradients."""

from __future__ import annotations

from torch.optim.radam import radam as kernel

from mip.optim.kernels import Slots, from_kernel, zero_step_counts
from mip.optim.optimizer_kinds import Betas, NonNegative, Positive, optimizer_kind
from mip.optim.protocol import Optimizer, zeros
from mip.optim.schedules import check_betas
from mip.optim.weight_decay import DecayParams


def radam(
    lr: Positive = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.0,
    decoupled_weight_decay: bool = False,
    decay_params: DecayParams = "all",
) -> Optimizer:
    """RAdam (Liu et al. 2020), which needs no warm-up; equal to `torch.optim.RAdam`. With
    `decoupled_weight_decay` weights decay as AdamW's do.

    >>> import torch; params = {"w": torch.ones(1)}; opt = radam(0.1)
    >>> opt.update({"w": torch.ones(1)}, opt.init(params), params, 0)[2]
    {'w': tensor([0.9000])}
    """
    slots: Slots = {"mean": zeros, "square": zeros, "count": zero_step_counts}
    beta1, beta2 = check_betas(betas)
    hypers = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay}
    options = {"decoupled_weight_decay": decoupled_weight_decay}
    return from_kernel(kernel, slots, hypers, options, decay_params)


RAdam = optimizer_kind("RAdam", "radam", radam)
