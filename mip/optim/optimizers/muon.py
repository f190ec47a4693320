"""Muon: the momentum of a matrix, orthogonalized."""

from __future__ import annotations

from typing import Literal

import torch
from torch.optim._muon import muon as kernel

from mip.optim.kernels import from_kernel
from mip.optim.optimizer_kinds import Fraction, NonNegative, Positive, optimizer_kind
from mip.optim.optimizers.adam import adamw
from mip.optim.protocol import Optimizer, masked, zeros
from mip.optim.weight_decay import DecayParams, is_matrix


def muon(
    lr: Positive = 1e-3,
    momentum: Fraction = 0.95,
    nesterov: bool = True,
    weight_decay: NonNegative = 0.1,
    adjust_lr_fn: Literal["original", "match_rms_adamw"] = "match_rms_adamw",
    others: Optimizer | None = None,
    decay_params: DecayParams = "all",
) -> Optimizer:
    """Muon (Jordan et al. 2024) for the weight matrices of layers; equal to `torch.optim.Muon`
    there.

    All other parameters (biases, norms, embeddings, filters of convolutions) are updated by
    `others`, by default AdamW with the same learning rate, weight decay and `decay_params`: with
    `adjust_lr_fn` "match_rms_adamw" Muon's steps are as large as AdamW's (Liu et al. 2025).

    >>> params = {"weight": torch.eye(2), "bias": torch.ones(2)}; opt = muon(0.1, weight_decay=0)
    >>> opt.update(params, opt.init(params), params, 0)[2]["bias"]
    tensor([0.9000, 0.9000])
    """
    hypers = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
    options = {
        "nesterov": nesterov,
        "ns_coefficients": (3.4445, -4.775, 2.0315),
        "ns_steps": 5,
        "eps": 1e-7,
        "adjust_lr_fn": adjust_lr_fn,
        "has_complex": False,
    }
    if others is None:
        others = adamw(lr, weight_decay=weight_decay, decay_params=decay_params)
    return masked(from_kernel(kernel, zeros, hypers, options), _is_flat_matrix, others)


def _is_flat_matrix(path: str, shape: torch.Size) -> bool:
    return len(shape) == 2 and is_matrix(path, shape)


Muon = optimizer_kind("Muon", "muon", muon, skip={"adjust_lr_fn", "others"})
