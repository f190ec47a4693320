"""Fine-tuning a large backbone: its layer groups, its frozen part, and its memory.

A layer group is what has one learning rate. A block is what a backward pass computes again, if it
is to keep less of the forward pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import copy
from functools import partial
from itertools import takewhile
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mip.tree import clone


def layer_groups(model: nn.Module) -> dict[str, list[str]]:
    """Group the trainable parameters of a model by its stages, in its order: names of groups to
    paths of parameters.

    The group of a parameter is its path up to the first name with a number in it, as "layer1",
    "blocks.5" or "features.3"; without a number it is the parameter's module. Vectors alone, as
    those of a batch norm behind a convolution, belong to the group before them.

    >>> import torchvision
    >>> list(layer_groups(torchvision.models.resnet18()))
    ['conv1', 'layer1', 'layer2', 'layer3', 'layer4', 'fc']
    """
    named = {path: param for path, param in model.named_parameters() if param.requires_grad}
    by_name: dict[str, list[str]] = {}
    for path in named:
        by_name.setdefault(_group_name(path), []).append(path)
    groups: dict[str, list[str]] = {}
    for name, paths in by_name.items():
        if groups and all(named[path].dim() < 2 for path in paths):
            groups[next(reversed(groups))] += paths
        else:
            groups[name] = paths
    return groups


def _group_name(path: str) -> str:
    numbered = re.match(r"(?:[^.\d]+\.)*[^.]*\d[^.]*(?=\.)", path)
    return numbered[0] if numbered else path.rpartition(".")[0] or "stem"


def split_after(model: nn.Module, path: str) -> tuple[nn.Module, nn.Module]:
    """Split a model behind one of its modules: all modules up to that one, one after another, and
    the model without them. Both share their parameters with the model.

    The second computes of the result of the first what the model computes, if the model begins by
    running its modules in their order, as convolutional nets do. That must be tried.

    >>> import torchvision
    >>> model, x = torchvision.models.resnet18().eval(), torch.zeros(1, 3, 32, 32)
    >>> first, rest = split_after(model, "layer3.0")
    >>> torch.equal(rest(first(x)), model(x)), first(x).shape
    (True, torch.Size([1, 256, 2, 2]))
    """
    rest = inner = _with_own_modules(model)
    *outer, last = path.split(".")
    first = list[nn.Module]()
    for name in (*outer, last):
        for before in takewhile(lambda other: other != name, list(inner._modules)):  # noqa: B023
            first += _taken(inner, before)
        if name is not last:
            inner._modules[name] = inner = _with_own_modules(inner.get_submodule(name))
    return nn.Sequential(*first, *_taken(inner, last)), rest


def _with_own_modules(module: nn.Module) -> nn.Module:
    copied = copy(module)
    copied._modules = dict(module._modules)
    return copied


def _taken(module: nn.Module, name: str) -> list[nn.Module]:
    child, module._modules[name] = module._modules[name], nn.Identity()
    return [] if child is None else [child]


def checkpoint_blocks(model: nn.Module) -> int:
    """Let the blocks of a model keep nothing but their inputs for the backward pass, which computes
    the rest again (gradient checkpointing, Chen et al. 2016): less memory, for a third more time.
    The model is changed in place; return the number of its blocks.

    A block is the module of a layer group, or each in its `nn.Sequential`. Results are the same to
    the bit: dropout draws what it drew, and batch norms count a batch once.

    >>> import torchvision
    >>> checkpoint_blocks(torchvision.models.resnet18())
    8
    """
    blocks = list(_blocks(model))
    for block in blocks:
        # A wrapper around the block would change the names of its parameters.
        block.forward = partial(_checkpointed, block.forward)
    return len(blocks)


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    names, modules = [*layer_groups(model)], dict(model.named_modules())
    for name in names:
        group = modules.get(name, nn.Identity())
        holds_others = any(other.startswith(f"{name}.") for other in names)
        within = group if type(group) is nn.Sequential else [group]
        yield from (block for block in within if any(block.children()) and not holds_others)


def _checkpointed(forward: Any, *args: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **named)
    contexts = lambda: (nullcontext(), _copied_buffers(forward.__self__))  # noqa: E731
    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **named)


@contextmanager
def _copied_buffers(block: nn.Module) -> Iterator[None]:
    # A second pass would count the batch in the statistics of batch norms again.
    stores = [part._buffers for part in block.modules() if part.training and part._buffers]
    kept = [dict(store) for store in stores]
    for store in stores:
        store.update(clone(store))
    try:
        yield
    finally:
        for store, buffers in zip(stores, kept, strict=True):
            store.update(buffers)
