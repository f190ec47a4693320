"""Fine-tuning: how a pretrained backbone is trained on."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen
from attrs.validators import ge, gt, le, lt
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mip.branches.protocol import LayerGroup
from mip.nn import layer_groups


@frozen
class Finetune:
    """How the trained part of a backbone is fine-tuned: with small steps, and not at once.

    Its learning rate is `lr_scale` times that of the other parameters, and with each layer group
    towards the input `layer_decay` times that of the group after it (discriminative rates, Howard
    and Ruder 2018; see `mip.nn.layer_groups`). Until the fraction `after` of the run the backbone
    stays as it is. Its batch norms use the statistics that they were trained with throughout.
    """

    lr_scale: float = field(default=0.1, validator=[gt(0), le(100)])
    layer_decay: float = field(default=1.0, validator=[gt(0), le(1)])
    after: float = field(default=0.0, validator=[ge(0), lt(1)])

    def param_groups(self, backbone: nn.Module) -> Sequence[LayerGroup]:
        """Return the layer groups of a backbone that are trained, from the input on; one of all its
        parameters if they have one learning rate.
        """
        groups = layer_groups(backbone)
        if self.layer_decay == 1:
            groups = {"backbone": [path for paths in groups.values() for path in paths]}
        factors = [self.layer_decay**k for k in reversed(range(len(groups)))]
        return [
            LayerGroup(name, tuple(paths), self.lr_scale * factor, self.after)
            for (name, paths), factor in zip(groups.items(), factors, strict=True)
        ]


def batch_norms(model: nn.Module) -> tuple[nn.Module, ...]:
    """Return the batch norms of a model."""
    return tuple(module for module in model.modules() if isinstance(module, _BatchNorm))
