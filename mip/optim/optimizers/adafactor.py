"""Adafactor: the mean squares of a matrix, kept as one row and one column."""

from __future__ import annotations

from typing import Annotated

import torch
from attrs.validators import ge, lt
from torch.optim._adafactor import adafactor as kernel

from mip.optim.kernels import Slots, from_kernel, zero_step_counts
from mip.optim.optimizer_kinds import NonNegative, Positive, optimizer_kind
from mip.optim.protocol import Optimizer, Params
from mip.optim.schedules import Hyper
from mip.optim.weight_decay import DecayParams


def adafactor(
    lr: Positive = 1e-2,
    beta2_decay: Annotated[Hyper, lt(0)] = -0.8,
    eps: tuple[float | None, float] = (None, 1e-3),
    clip_threshold: Annotated[Hyper, ge(1)] = 1.0,
    weight_decay: NonNegative = 0.0,
    decay_params: DecayParams = "all",
) -> Optimizer:
    """Adafactor (Shazeer and Stern 2018), which keeps rows + columns numbers for a matrix; equal
    to `torch.optim.Adafactor`, which calls `clip_threshold` `d`. A step is in proportion to the
    size of the parameter, with `lr` as its bound.

    >>> params = {"w": torch.ones(1)}; opt = adafactor(0.1)
    >>> opt.update({"w": torch.ones(1)}, opt.init(params), params, 0)[2]
    {'w': tensor([0.9000])}
    """
    slots: Slots = {"row": _rows, "column": _columns, "square": _squares, "count": zero_step_counts}
    hypers = {
        "lr": lr,
        "beta2_decay": beta2_decay,
        "d": clip_threshold,
        "weight_decay": weight_decay,
    }
    options = {"eps1": eps[0], "eps2": eps[1], "maximize": False}
    return from_kernel(kernel, slots, hypers, options, decay_params)


def _rows(params: Params) -> Params:
    return {k: torch.zeros_like(p[..., :1]) for k, p in params.items() if p.dim() > 1}


def _columns(params: Params) -> Params:
    return {k: torch.zeros_like(p[..., :1, :]) for k, p in params.items() if p.dim() > 1}


def _squares(params: Params) -> Params:
    return {k: torch.zeros_like(p) for k, p in params.items() if p.dim() <= 1}


# A spec cannot express `eps`, whose first number may be None.
Adafactor = optimizer_kind("Adafactor", "adafactor", adafactor, skip={"eps"})
