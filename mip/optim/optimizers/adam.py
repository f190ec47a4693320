"""Adam, and AdamW, whose weight decay is decoupled from the gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from mip.optim.kernels import rates_of
from mip.optim.optimizer_kinds import Betas, NonNegative, Positive, optimizer_kind
from mip.optim.protocol import Optimizer, Params, Update, zeros
from mip.optim.schedules import Hyper, check_betas, value_at
from mip.optim.weight_decay import DecayParams, with_weight_decay
from mip.tree import Tree


def adamw(
    lr: Positive = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.01,
    decay_params: DecayParams = "all",
) -> Optimizer:
    """AdamW (Loshchilov and Hutter 2019) by torch's fused kernel; equal to `torch.optim.AdamW`.

    >>> params = {"w": torch.ones(1)}; opt = adamw(0.1, weight_decay=0.0)
    >>> opt.update({"w": torch.ones(1)}, opt.init(params), params, 0)[2]
    {'w': tensor([0.9000])}
    """
    build = partial(_fused, torch._fused_adamw_, lr, betas, eps)
    return with_weight_decay(build, weight_decay, decay_params)


def adam(
    lr: Positive = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.0,
    decay_params: DecayParams = "all",
) -> Optimizer:
    """Adam (Kingma and Ba 2015) by torch's fused kernel; equal to `torch.optim.Adam`."""
    build = partial(_fused, torch._fused_adam_, lr, betas, eps)
    return with_weight_decay(build, weight_decay, decay_params)


def _fused(
    kernel: Callable[..., None], lr: Hyper, betas: tuple[Hyper, Hyper], eps: Hyper, decay: Hyper
) -> Optimizer:
    # Not by `from_kernel`: torch.optim's function sorts the tensors by device before it calls the
    # kernel, which costs as much again, and one addition counts the steps of all parameters.
    beta1, beta2 = check_betas(betas)

    def init(params: Params) -> Tree:
        # The fused kernel reads the counts on the device of the parameters.
        device = next((param.device for param in params.values()), None)
        count = torch.zeros(len(params), device=device)
        return {"count": count, "mean": zeros(params), "square": zeros(params)}

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Update:
        if params:  # the kernel refuses an empty list
            kernel(
                list(params.values()),
                [grads[path] for path in params],
                [state["mean"][path] for path in params],
                [state["square"][path] for path in params],
                max_exp_avg_sqs=[],
                state_steps=list(state["count"].add_(1).unbind()),
                amsgrad=False,
                lr=value_at(lr, step),
                beta1=value_at(beta1, step),
                beta2=value_at(beta2, step),
                eps=value_at(eps, step),
                weight_decay=value_at(decay, step),
                maximize=False,
            )
        return grads, state, params

    return Optimizer(init, update_, rates_of({"lr": lr, "weight_decay": decay}))


AdamW = optimizer_kind("AdamW", "adamw", adamw)
Adam = optimizer_kind("Adam", "adam", adam)
