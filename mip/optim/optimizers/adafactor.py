"""Adafactor: mean squares of a matrix kept as one row and one column."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from attrs import field, frozen
from attrs.validators import ge, gt, lt
from torch.optim._adafactor import adafactor as kernel

from mip.optim.protocol import (
    Decay,
    Optimizer,
    Params,
    counts,
    decay_field,
    decaying,
    named,
    optional,
)
from mip.optim.schedules import Hyper, Schedule, value
from mip.tree import Tree


def adafactor(
    rate: Hyper = 1e-2,
    beta2_decay: Hyper = -0.8,
    eps: tuple[float | None, float] = (None, 1e-3),
    threshold: float = 1.0,
    weight_decay: Hyper = 0.0,
) -> Optimizer:
    """Adafactor (Shazeer and Stern 2018), which keeps rows + columns numbers for a matrix; equal
    to `torch.optim.Adafactor`, where `threshold` is `d`. A step is in proportion to the
    parameter's own size, and `rate` bounds it.

    >>> params = {"w": torch.ones(1)}; one = adafactor(0.1)
    >>> one.update({"w": torch.ones(1)}, one.init(params), params, 0)[2]
    {'w': tensor([0.9000])}
    """

    def init(params: Params) -> Tree:
        wide = {path: param for path, param in params.items() if param.dim() > 1}
        return {
            "count": counts(params),
            "row": {path: torch.zeros_like(param[..., :1]) for path, param in wide.items()},
            "column": {path: torch.zeros_like(param[..., :1, :]) for path, param in wide.items()},
            "square": {k: torch.zeros_like(p) for k, p in params.items() if k not in wide},
        }

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Any:
        kernel(
            list(params.values()),
            named(grads, params),
            optional(state["row"], params),
            optional(state["column"], params),
            optional(state["square"], params),
            list(state["count"].unbind()),
            d=threshold,
            lr=value(rate, step),
            beta2_decay=value(beta2_decay, step),
            weight_decay=value(weight_decay, step),
            eps1=eps[0],  # type: ignore[arg-type]
            eps2=eps[1],
            maximize=False,
        )
        return grads, state, params

    return Optimizer(init, update_)


@frozen
class Adafactor:
    """See `adafactor`; `decay` says which weights decay, "all" or "matrices" alone."""

    kind = "adafactor"
    lr: float = field(default=1e-2, validator=gt(0))
    beta2_decay: float = field(default=-0.8, validator=lt(0))
    threshold: float = field(default=1.0, validator=ge(1))
    weight_decay: float = field(default=0.0, validator=ge(0))
    decay: Decay = decay_field()

    def optimizer(self, rate: Schedule) -> Optimizer:
        """Build it with a learning rate that follows a schedule."""
        build = partial(adafactor, rate, self.beta2_decay, threshold=self.threshold)
        return decaying(lambda decay: build(weight_decay=decay), self.weight_decay, self.decay)
