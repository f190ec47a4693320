"""Adagrad: gradients divided by the root of the sum of their squares."""

from __future__ import annotations

from typing import Annotated

import torch
from attrs.validators import ge
from torch import Tensor
from torch.optim.adagrad import adagrad as torch_kernel

from mip.optim.kernels import Slots, from_kernel, zero_step_counts
from mip.optim.optimizer_kinds import NonNegative, Positive, optimizer_kind
from mip.optim.protocol import Optimizer, Params
from mip.optim.weight_decay import DecayParams


def adagrad(
    lr: Positive = 1e-2,
    initial_accumulator_value: Annotated[float, ge(0)] = 0.0,
    eps: Positive = 1e-10,
    weight_decay: NonNegative = 0.0,
    decay_params: DecayParams = "all",
) -> Optimizer:
    """Adagrad (Duchi, Hazan and Singer 2011), on the CPU by torch's fused kernel; equal to
    `torch.optim.Adagrad`.

    >>> params = {"w": torch.ones(1)}; opt = adagrad(0.1)
    >>> opt.update({"w": torch.ones(1)}, opt.init(params), params, 0)[2]
    {'w': tensor([0.9000])}
    """

    def initial_sums(params: Params) -> Params:
        return {p: torch.full_like(leaf, initial_accumulator_value) for p, leaf in params.items()}

    slots: Slots = {"sum": initial_sums, "count": zero_step_counts}
    hypers = {"lr": lr, "eps": eps, "weight_decay": weight_decay}
    return from_kernel(_kernel, slots, hypers, {}, decay_params)


def _kernel(
    params: list[Tensor],
    grads: list[Tensor],
    sums: list[Tensor],
    counts: list[Tensor],
    *,
    lr: float,
    eps: float,
    weight_decay: float,
) -> None:
    on_cpu = all(param.device.type == "cpu" for param in params)
    torch_kernel(
        params,
        grads,
        sums,
        counts,
        fused=True if on_cpu else None,
        lr=lr,
        weight_decay=weight_decay,
        lr_decay=0.0,
        eps=eps,
        maximize=False,
    )


Adagrad = optimizer_kind("Adagrad", "adagrad", adagrad)
