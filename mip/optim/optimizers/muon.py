"""Muon: momentum of a matrix, made orthogonal."""

from __future__ import annotations

from typing import Any, Literal

import torch
from attrs import field, frozen
from attrs.validators import ge, gt, lt
from torch.optim._muon import muon as kernel

from mip.optim.optimizers.adam import adamw
from mip.optim.protocol import (
    Decay,
    Optimizer,
    Params,
    decay_field,
    decaying,
    masked,
    matrices,
    named,
    zeros,
)
from mip.optim.schedules import Hyper, Schedule, value
from mip.tree import Tree

Adjust = Literal["original", "match_rms_adamw"]


def muon(
    rate: Hyper = 1e-3,
    momentum: Hyper = 0.95,
    nesterov: bool = True,
    weight_decay: Hyper = 0.1,
    adjust: Adjust = "match_rms_adamw",
    others: Optimizer | None = None,
) -> Optimizer:
    """Muon (Jordan et al. 2024) for the matrices of layers; equal to `torch.optim.Muon` there.

    All else (biases, norms, embeddings, filters of convolutions) goes to `others`, or to AdamW
    with the same rate and decay: by `adjust` a step is as large as AdamW's (Liu et al. 2025).

    >>> params = {"weight": torch.eye(2), "bias": torch.ones(2)}; one = muon(0.1, weight_decay=0)
    >>> one.update(params, one.init(params), params, 0)[2]["bias"]
    tensor([0.9000, 0.9000])
    """

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Any:
        kernel(
            list(params.values()),
            named(grads, params),
            named(state, params),
            lr=value(rate, step),
            weight_decay=value(weight_decay, step),
            momentum=value(momentum, step),
            nesterov=nesterov,
            ns_coefficients=(3.4445, -4.775, 2.0315),
            ns_steps=5,
            eps=1e-7,
            adjust_lr_fn=adjust,
            has_complex=False,
        )
        return grads, state, params

    rest = adamw(rate, weight_decay=weight_decay) if others is None else others
    return masked(_flat, Optimizer(zeros, update_), rest)


def _flat(path: str, shape: torch.Size) -> bool:
    return len(shape) == 2 and matrices(path, shape)


@frozen
class Muon:
    """See `muon`; `decay` says which weights decay, "all" or "matrices" alone."""

    kind = "muon"
    lr: float = field(default=1e-3, validator=gt(0))
    momentum: float = field(default=0.95, validator=[ge(0), lt(1)])
    nesterov: bool = True
    weight_decay: float = field(default=0.1, validator=ge(0))
    decay: Decay = decay_field()

    def optimizer(self, rate: Schedule) -> Optimizer:
        """Build it with a learning rate that follows a schedule."""
        rest = decaying(
            lambda decay: adamw(rate, weight_decay=decay), self.weight_decay, self.decay
        )
        return muon(rate, self.momentum, self.nesterov, self.weight_decay, others=rest)
