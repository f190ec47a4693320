"""From a plan to a module."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from mip.branches import Branch, Fuse
from mip.errors import SpecError, hint
from mip.heads import tower
from mip.model.plan import Plan
from mip.nn import InitRule, reinit
from mip.rng import derive, seeded
from mip.tree import Tree


class Net(nn.Module):
    """A tree of branches and a head: encoded inputs of n rows to logits [n] or [n, k], or with
    several heads to a dict of these. In training, each member of a head has logits of its own.
    """

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, inputs: Tree) -> Tree:
        return self.head(self.body(inputs))


def build(plan: Plan, seed: int = 0, pretrain: bool = True) -> Net:
    """Build the module that a plan describes; its initial values are a function of the seed.

    With `pretrain`, image branches that name weights load them (from torchvision's cache, or by
    download), and then `[[init]]` fills the parameters that its rules match; without it the module
    is one whose weights are loaded afterwards. Raises SpecError naming the branch that cannot take
    its input, and the rule that cannot be applied. `mip.runs.build_warm` builds a plan with
    `[warm_start]`.
    """
    if pretrain and plan.spec.warm_start:
        raise SpecError(
            "warm_start: build() reads no files; use mip.runs.build_warm(plan, sources), "
            "or pretrain=False for a module whose weights are loaded afterwards"
        )
    root, head, facts = plan.spec.root, plan.spec.head, plan.facts
    with seeded(derive("build", seed)):
        try:
            body = root.module(facts["branch"])
        except SpecError as error:
            raise SpecError(f"branch.{error}") from error
        # Lazy layers find their widths in this pass, so that no spec has to state them.
        with torch.no_grad():
            width = _try_branch(body.eval(), root, plan.example(), "branch").shape[1]
        net = Net(body, tower(head, facts["head"], width)).train()
    if pretrain:
        root.pretrain(net.body)
        _apply_init(net, plan, seed)
    return net


def _try_branch(module: Any, branch: Branch, inputs: Tree, path: str) -> Tensor:
    if isinstance(branch, Fuse):  # first the branches that it holds, to name the one that fails
        for name, child in branch.branch.items():
            _try_branch(module.branch[name], child, inputs[name], f"{path}.{name}")
    try:
        vector = module(inputs)
    except Exception as error:  # whatever a backbone raises, the user needs the path
        raise SpecError(f"{path}: the module cannot take its input: {error}") from error
    if vector.dim() != 2:
        shape = tuple(vector.shape)
        raise SpecError(f"{path}: the module must return [rows, width], not shape {shape}")
    return vector


@torch.no_grad()
def _apply_init(net: Net, plan: Plan, seed: int) -> None:
    params = {path: param.detach() for path, param in net.named_parameters()}
    rules = []
    for k, init in enumerate(plan.spec.init):
        matches = tuple(path for path in params if matches_pattern(path, init.match))
        if not matches:
            known = hint(init.match, map(short_path, params))
            raise SpecError(f"init[{k}]: '{init.match}' matches no parameter{known}")
        rules.append(InitRule(matches, init.initializer, init.options, f"init[{k}]"))
    for path, fresh in reinit(params, rules, seed).items():
        if fresh is not params[path]:
            params[path].copy_(fresh)


def short_path(parameter: str) -> str:
    """Return the path of a parameter of the module as specs write it: the names alone, without the
    attributes that hold them.

    >>> short_path("body.branch.looks.branch.photos.backbone.conv1.weight")
    'looks.photos.backbone.conv1.weight'
    >>> short_path("head.0.bias"), short_path("head.head.price.0.bias")
    ('head.0.bias', 'head.price.0.bias')
    """
    names = [name for name in parameter.split(".") if name not in {"body", "branch"}]
    rest = [name for name in names[1:] if (names[0], name) != ("head", "head")]
    return ".".join([*names[:1], *rest])


def matches_pattern(parameter: str, pattern: str) -> bool:
    """Return whether the path of a parameter matches a pattern of a spec, which may also name the
    attributes that hold it.

    >>> path = "body.branch.looks.branch.photos.score.weight"
    >>> patterns = ("looks.photos.*", "branch.looks.photos.*", "*.bias")
    >>> [matches_pattern(path, pattern) for pattern in patterns]
    [True, True, False]
    """
    return fnmatchcase(short_path(parameter), short_path(pattern))
