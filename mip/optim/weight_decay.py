"""Which parameters decay: all of them, or those that a mask selects."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from torch import nn

from mip.fields import in_annotation
from mip.optim.protocol import Mask, Optimizer, masked
from mip.optim.schedules import Hyper

DecayParams = Annotated[Literal["all", "matrices"], in_annotation]
"""Which parameters decay: all, or only those that `is_matrix` selects."""


def is_matrix(path: str, shape: torch.Size) -> bool:
    """Return whether a parameter is the matrix or filter of a layer: not a bias, the weight of a
    norm, an embedding or a token. Here a path and a shape have to tell, so that an embedding is
    known by its name; `matrices_of` looks at the modules.

    >>> is_matrix("head.0.weight", torch.Size([4, 3])), is_matrix("head.0.bias", torch.Size([4]))
    (True, False)
    >>> is_matrix("body.branch.place.tables.0.weight", torch.Size([9, 3]))
    False
    """
    *modules, name = path.split(".")
    owner = next((module for module in reversed(modules) if not module.isdigit()), "")
    embeds = re.search("embed|table", owner, re.IGNORECASE)  # the module's name, or its list's
    return _is_weight(name, shape) and not embeds


def matrices_of(net: nn.Module) -> Mask:
    """Select the matrices and filters of a net's layers as `is_matrix` does, but tell embeddings
    and norms by what the modules are, whatever their names: a mask for `with_decay_mask`.

    >>> net = nn.Sequential(nn.Embedding(9, 4), nn.LayerNorm([2, 4]), nn.LSTM(4, 4))
    >>> mask = matrices_of(net)
    >>> [path for path, param in net.named_parameters() if mask(path, param.shape)]
    ['2.weight_ih_l0', '2.weight_hh_l0']
    """
    decays = {
        f"{path}.{name}".lstrip(".").replace("_orig_mod.", "")
        for path, module in net.named_modules()
        for name, param in module.named_parameters(recurse=False)
        if _is_weight(name, param.shape) and not _is_exempt(module)
    }
    return lambda path, shape: path in decays


def _is_exempt(module: nn.Module) -> bool:
    embeds = isinstance(module, (nn.Embedding, nn.EmbeddingBag))
    return embeds or "norm" in type(module).__name__.lower()


def _is_weight(name: str, shape: torch.Size) -> bool:
    # Also in_proj_weight of an attention, weight_hh_l0 and weight_ih_l0_reverse of an RNN.
    return len(shape) >= 2 and bool(re.search(r"weight(_[ih]h_l\d+(_reverse)?)?$", name))


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
