"""From a plan to a module."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from mip.branches import Branch, Fuse
from mip.errors import SpecError, hint
from mip.heads import tower
from mip.model.plan import Plan
from mip.nn import Rule, reinit
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
    download), and then `[[init]]` draws what it matches anew; without it the module is one that
    weights are put into. Raises SpecError naming the branch that cannot take its input, and the
    rule that cannot be followed. `mip.runs.build_warm` builds a plan with `[warm_start]`.
    """
    if pretrain and plan.spec.warm_start:
        raise SpecError(
            "warm_start: build() reads no files; use mip.runs.build_warm(plan, sources), "
            "or pretrain=False for a module whose weights are loaded afterwards"
        )
    with seeded(derive("build", seed)):
        body = _body(plan)
        net = Net(body, tower(plan.spec.head, plan.facts["head"], _width(body, plan))).train()
    if pretrain:
        plan.spec.root.pretrain(net.body)
        _begin(net, plan, seed)
    return net


@torch.no_grad()
def _begin(net: Net, plan: Plan, seed: int) -> None:
    params = {path: param.detach() for path, param in net.named_parameters()}
    for path, fresh in reinit(params, _rules(plan, params), seed).items():
        if fresh is not params[path]:
            params[path].copy_(fresh)


def _rules(plan: Plan, paths: Iterable[str]) -> list[Rule]:
    named = list(paths)
    rules = []
    for k, each in enumerate(plan.spec.init):
        found = tuple(path for path in named if fits(path, each.match))
        if not found:
            known = hint(each.match, map(spoken, named))
            raise SpecError(f"init[{k}]: '{each.match}' matches no parameter{known}")
        rules.append(Rule(found, each.initializer, each.options, f"init[{k}]"))
    return rules


def spoken(parameter: str) -> str:
    """Give the path by which a spec's patterns speak of a parameter of the module: names alone,
    without what holds them.

    >>> spoken("body.branch.looks.branch.photos.backbone.conv1.weight"), spoken("head.0.bias")
    ('looks.photos.backbone.conv1.weight', 'head.0.bias')
    >>> spoken("head.head.price.0.bias")
    'head.price.0.bias'
    """
    names = [name for name in parameter.split(".") if name not in {"body", "branch"}]
    rest = [name for name in names[1:] if (names[0], name) != ("head", "head")]
    return ".".join([*names[:1], *rest])


def fits(parameter: str, pattern: str) -> bool:
    """Say whether a spec's pattern speaks of a parameter; it may name what holds it, too.

    >>> path = "body.branch.looks.branch.photos.score.weight"
    >>> [fits(path, each) for each in ("looks.photos.*", "branch.looks.photos.*", "*.bias")]
    [True, True, False]
    """
    return fnmatchcase(spoken(parameter), spoken(pattern))


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
