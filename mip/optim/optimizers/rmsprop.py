"""RMSprop: gradients divided by the root of their mean square."""

from __future__ import annotations

from torch.optim.rmsprop import rmsprop as kernel

from mip.optim.kernels import Slots, from_kernel, zero_step_counts
from mip.optim.optimizer_kinds import Fraction, NonNegative, Positive, optimizer_kind
from mip.optim.protocol import Optimizer, zeros
from mip.optim.weight_decay import DecayParams


def rmsprop(
    lr: Positive = 1e-2,
    alpha: Fraction = 0.99,
    eps: Positive = 1e-8,
    momentum: Fraction = 0.0,
    centered: bool = False,
    weight_decay: NonNegative = 0.0,
    decay_params: DecayParams = "all",
) -> Optimizer:
    """RMSprop (Tieleman and Hinton 2012), and with `centered` that of Graves (2013); equal to
    `torch.optim.RMSprop`.

    >>> import torch; params = {"w": torch.ones(1)}; opt = rmsprop(0.01, alpha=0.75)
    >>> opt.update({"w": torch.ones(1)}, opt.init(params), params, 0)[2]
    {'w': tensor([0.9800])}
    """
    slots: Slots = {
        "square": zeros,
        "mean": zeros if centered else None,
        "momentum": zeros if momentum else None,
        "count": zero_step_counts,
    }
    hypers = {
        "lr": lr,
        "alpha": alpha,
        "eps": eps,
        "weight_decay": weight_decay,
        "momentum": momentum,
    }
    return from_kernel(kernel, slots, hypers, {"centered": centered}, decay_params)


RMSprop = optimizer_kind("RMSprop", "rmsprop", rmsprop)
