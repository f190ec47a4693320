"""What branches add to the logits of a model that was trained without them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mip.tree import Tree


class Residual(nn.Module):
    """Add linear functions of the vectors of branches to logits; those of a new module are 0.

    `widths` are the lengths of the vectors by branch, `outputs` is the number of logits of a head,
    None for logits [n], or those of several heads by name. `absent` marks, by name, the rows of a
    branch's inputs that have none, bool [n]: to them nothing is added. Takes logits, float32 [n] or
    [n, k] or a dict of these, and what `centered` returns by name; returns logits. The weights are
    buffers, because no gradient trains them.

    >>> residual = Residual({"photos": 3}, None, {"photos": lambda x: x.isnan().any(1)})
    >>> inputs = {"photos": torch.tensor([[1.0, 1, 1], [torch.nan, 1, 1]])}
    >>> centered = residual.centered("photos", inputs["photos"], inputs); centered
    tensor([[1., 1., 1.],
            [0., 0., 0.]])
    >>> residual(torch.tensor([1.0, 2.0]), {"photos": centered})
    tensor([1., 2.])
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        outputs: Any,
        absent: Mapping[str, Callable[[Tree], Tensor]],
    ) -> None:
        super().__init__()
        self.absent = dict(absent)
        self.branch = nn.ModuleDict({name: Centered(d, outputs) for name, d in widths.items()})

    def centered(self, name: str, vector: Tensor, inputs: Mapping[str, Tree]) -> Tensor:
        """Return the distance of a branch's vectors from their center, float32 [n, d]; 0 for rows
        that have no inputs.
        """
        absent = self.absent[name](inputs[name]).unsqueeze(1)
        center = self.branch[name].get_buffer("center")
        return (vector - center).masked_fill(absent, 0)

    def forward(self, logits: Tree, centered: Mapping[str, Tensor]) -> Tree:
        for name, added in self.branch.items():
            logits = added(logits, centered[name])
        return logits


class Centered(nn.Module):
    """Add a linear function of a vector's distance from `center` to logits: float32 [n] or [n, k]
    or a dict of these, and the distance [n, d], to logits.
    """

    center: Tensor

    def __init__(self, width: int, outputs: Any) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(width))
        self.linear = _linear(width, outputs)

    def forward(self, logits: Tree, centered: Tensor) -> Tree:
        return _add(logits, self.linear, centered)


class FixedLinear(nn.Module):
    """A linear function whose weight is a buffer: float32 [n, width] to [n, outputs] or [n]."""

    weight: Tensor

    def __init__(self, width: int, outputs: int | None) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(outputs or 1, width))
        self.squeeze = outputs is None

    def forward(self, x: Tensor) -> Tensor:
        added = F.linear(x, self.weight)
        return added.squeeze(1) if self.squeeze else added


def _linear(width: int, outputs: Any) -> nn.Module:
    if isinstance(outputs, Mapping):
        return nn.ModuleDict({name: _linear(width, child) for name, child in outputs.items()})
    return FixedLinear(width, outputs)


def _add(logits: Any, linear: nn.Module, x: Tensor) -> Tree:
    if isinstance(linear, nn.ModuleDict):
        return {**logits, **{k: _add(logits[k], child, x) for k, child in linear.items()}}
    return logits + linear(x)
