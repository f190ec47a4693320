"""Which parameters decay: all of them, or those that a mask selects."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Literal

import torch

from mip.fields import in_annotation
from mip.optim.protocol import Mask, Optimizer, masked
from mip.optim.schedules import Hyper

DecayParams = Annotated[Literal["all", "matrices"], in_annotation]
"""Which parameters decay: all, or only those that `is_matrix` selects."""


def is_matrix(path: str, shape: torch.Size) -> bool:
    """Return whether a parameter is the matrix or filter of a layer: not a bias, the weight of a
    norm, an embedding or a token.

    >>> is_matrix("head.0.weight", torch.Size([4, 3])), is_matrix("head.0.bias", torch.Size([4]))
    (True, False)
    >>> is_matrix("body.branch.place.tables.0.weight", torch.Size([9, 3]))
    False
    """
    *modules, name = path.split(".")
    owner = next((module for module in reversed(modules) if not module.isdigit()), "")
    embeds = re.search("embed|table", owner, re.IGNORECASE)  # the module's name, or its list's
    return len(shape) >= 2 and name.endswith("weight") and not embeds


def with_decay_mask(
    build: Callable[[Hyper], Optimizer], weight_decay: Hyper, mask: Mask = is_matrix
) -> Optimizer:
    """Apply weight decay only to the parameters that `mask` selects; `build` makes the optimizer
    for a given weight decay.

    >>> from mip.optim.optimizers.adam import adamw
    >>> opt = with_decay_mask(lambda decay: adamw(0.1, weight_decay=decay), 0.5)
    >>> params = {"weight": torch.ones(1, 1), "bias": torch.ones(1)}
    >>> grads = {"weight": torch.zeros(1, 1), "bias": torch.zeros(1)}
    >>> opt.update(grads, opt.init(params), params, 0)[2]
    {'weight': tensor([[0.9500]]), 'bias': tensor([1.])}
    """
    return masked(build(weight_decay), mask, build(0.0)) if weight_decay else build(0.0)


def with_weight_decay(
    build: Callable[[Hyper], Optimizer], weight_decay: Hyper, decay_params: DecayParams
) -> Optimizer:
    """Apply weight decay to all parameters or, for "matrices", as `with_decay_mask` does."""
    return build(weight_decay) if decay_params == "all" else with_decay_mask(build, weight_decay)
