"""Stochastic gradient descent."""

from __future__ import annotations

from torch.optim.sgd import sgd as kernel

from mip.optim.kernels import from_kernel
from mip.optim.optimizer_kinds import Fraction, NonNegative, Positive, optimizer_kind
from mip.optim.protocol import Optimizer, zeros
from mip.optim.weight_decay import DecayParams


def sgd(
    lr: Positive = 1e-2,
    momentum: Fraction = 0.0,
    nesterov: bool = False,
    weight_decay: NonNegative = 0.0,
    decay_params: DecayParams = "all",
) -> Optimizer:
    """Stochastic gradient descent by torch's fused kernel; equal to `torch.optim.SGD`.

    The default is no momentum, as in torch; a spec's `sgd` has 0.9. Raises ValueError for
    `nesterov` without a momentum.

    >>> import torch; params = {"w": torch.ones(1)}; opt = sgd(0.1)
    >>> opt.update({"w": torch.ones(1)}, opt.init(params), params, 0)[2]
    {'w': tensor([0.9000])}
    """
    if nesterov and not momentum:
        raise ValueError("'nesterov' needs a momentum: sgd(lr, momentum=0.9, nesterov=True)")
    slots = zeros if momentum else lambda params: {}
    hypers = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
    options = {"fused": True, "dampening": 0.0, "nesterov": nesterov, "maximize": False}
    return from_kernel(kernel, slots, hypers, options, decay_params)


def _sgd_in_a_spec(
    lr: Positive = 1e-2,
    momentum: Fraction = 0.9,
    nesterov: bool = False,
    weight_decay: NonNegative = 0.0,
    decay_params: DecayParams = "all",
) -> Optimizer:
    """Stochastic gradient descent, by default with a momentum of 0.9.

    Its defaults differ from those of `sgd`, since either would train differently with those of the
    other; for the same reason it ignores `nesterov` if there is no momentum.
    """
    return sgd(lr, momentum, nesterov and bool(momentum), weight_decay, decay_params)


SGD = optimizer_kind("SGD", "sgd", _sgd_in_a_spec)
