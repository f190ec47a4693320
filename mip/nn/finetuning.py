"""Layer groups of a backbone: what is fine-tuned at one learning rate."""

from __future__ import annotations

import re

from torch import nn


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
