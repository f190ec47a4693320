"""From a plan to a module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mip.branch import Branch
from mip.branches.fuse import Fuse
from mip.errors import SpecError
from mip.head import tower
from mip.plan import Plan
from mip.rng import derive, seeded
from mip.tree import Tree


class Net(nn.Module):
    """A tree of branches and a head: encoded inputs of n rows to logits [n] or [n, k], or where
    there are several heads to a dict of these. In training each member of a head has its own.
    """

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, inputs: Tree) -> Tree:
        return self.head(self.body(inputs))


def build(plan: Plan, seed: int = 0, pretrain: bool = True) -> Net:
    """Build the module that a plan describes; its start is a function of the seed.

    With `pretrain`, image branches that name weights load them (torchvision's own cache and
    download). Raises SpecError naming the branch that cannot take its input.
    """
    with seeded(derive("build", seed)):
        body = _body(plan)
        net = Net(body, tower(plan.spec.head, plan.facts["head"], _width(body, plan))).train()
    if pretrain:
        plan.spec.root.pretrain(net.body)
    return net


def _body(plan: Plan) -> nn.Module:
    try:
        return plan.spec.root.module(plan.facts["branch"])
    except SpecError as error:
        raise SpecError(f"branch.{error}") from error


@torch.no_grad()
def _width(body: nn.Module, plan: Plan) -> int:
    # Widths of the lazy layers are found here, so that no spec has to state them.
    return _try(body.eval(), plan.spec.root, plan.example(), "branch").shape[1]


def _try(module: Any, branch: Branch, inputs: Tree, path: str) -> Tensor:
    if isinstance(branch, Fuse):
        for name, child in branch.branch.items():
            _try(module.branch[name], child, inputs[name], f"{path}.{name}")
    try:
        vector = module(inputs)
    except Exception as error:  # whatever a backbone raises, the user needs the path
        raise SpecError(f"{path}: the module cannot take its input: {error}") from error
    if vector.dim() != 2:
        shape = tuple(vector.shape)
        raise SpecError(f"{path}: the module gives shape {shape}, and must give (rows, width)")
    return vector
