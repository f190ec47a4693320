"""From a plan to a module."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mip.branches import (
    Branch,
    Fuse,
    FusionNet,
    GroupsParams,
    LayerGroup,
    Residual,
    having,
    path_in_spec,
)
from mip.errors import MipError, SpecError, hint
from mip.heads import tower
from mip.model.limits import MAX_BYTES, LimitBytes, TooLargeError
from mip.model.plan import Plan
from mip.model.spec_files import root_at
from mip.nn import LSUV, InitRule, lsuv, reinit, scalable_weights
from mip.rng import derive, seeded
from mip.tree import Tree, leaves


class Net(nn.Module):
    """A tree of branches and a head: encoded inputs of n rows to logits [n] or [n, k], or with
    several heads to a dict of these. In training, each member of a head has logits of its own, and
    residual branches neither run nor need inputs: they are fitted to what training leaves over.
    """

    def __init__(self, body: FusionNet, head: nn.Module, residual: Residual | None = None) -> None:
        super().__init__()
        self.body, self.head, self.residual = body, head, residual

    def forward(self, inputs: Tree) -> Tree:
        logits = self.head(self.body(inputs))
        return logits if self.training else self._corrected(logits, self._centered(inputs))

    def vectors(self, inputs: Tree) -> dict[str, Tensor]:
        """Run the branches that have inputs: float32 [n, d] by name; of residual ones that is the
        distance from their center. Where a row has no inputs it is what stands for these.
        """
        return {**self.body.vectors(inputs), **self._centered(inputs)}

    def from_vectors(self, vectors: Mapping[str, Tensor]) -> Tree:
        """Turn what `vectors` returns into logits in evaluation mode; each row by itself."""
        return self._corrected(self.head(self.body.join(vectors)), vectors)

    def _centered(self, inputs: Tree) -> dict[str, Tensor]:
        if self.residual is None:
            return {}
        return {
            name: self.residual.centered(name, self.body.vector(name, inputs), inputs)
            for name in self.residual.branch
            if name in inputs
        }

    def _corrected(self, logits: Tree, vectors: Mapping[str, Tensor]) -> Tree:
        return logits if self.residual is None else self.residual(logits, vectors)


def build(plan: Plan, seed: int = 0, pretrain: bool = True, base: str | Path = ".") -> Net:
    """Build the module that a plan describes; its initial values are a function of the seed.

    With `pretrain` they are those of `initialize`; without it the module is one whose weights are
    loaded afterwards. Files of pretrained weights are relative to the folder `base`.
    `mip.runs.build_warm` builds a plan with `[warm_start]`, or with the
    initializer "lsuv". Raises SpecError naming the branch that cannot take its input, and the rule
    that cannot be applied, and for a model of more than 8 GiB of parameters.
    """
    if pretrain:
        _check_needs_nothing(plan)
    root, head, facts = plan.spec.root, plan.spec.head, plan.facts
    with seeded(derive("build", seed)), LimitBytes(MAX_BYTES):
        body = root.module(facts["branch"])
        # Lazy layers find their widths in this pass, so that no spec has to state them.
        vector = _try_branch(body, root, plan.example(), "fusion")
        logits = tower(head, facts["head"], vector.shape[1])
        _try(logits, vector, "head")
        # Residual branches come last, so that the others begin as they do without them.
        residual = _add_residual(body, plan) if root.fusion.residual else None
    net = Net(body, logits, residual).train()
    if residual is not None:
        _try(net, plan.example(), "fusion.residual")
        net.train()
    if pretrain:
        initialize(net, plan, seed, base)
    return net


def _check_needs_nothing(plan: Plan) -> None:
    spec = plan.spec
    if spec.warm_start:
        raise SpecError(
            "warm_start: build() reads no files; use mip.runs.build_warm(plan, sources), "
            "or pretrain=False for a module whose weights are loaded afterwards"
        )
    for k, init in enumerate(spec.init):
        if init.initializer == LSUV:
            raise SpecError(
                f"init[{k}]: lsuv measures training rows, and build() has none; "
                "use mip.runs.build_warm(plan, sources, rows=train)"
            )


def _add_residual(body: FusionNet, plan: Plan) -> Residual:
    root, inputs, widths = plan.spec.root, plan.example(), dict[str, int]()
    for name, module in root.residual_modules(plan.facts["branch"]).items():
        vector = _try_branch(module, root.branch[name], inputs[name], f"branch.{name}")
        body.branch[name], widths[name] = module, vector.flatten(1).shape[1]
    return root.residual(widths, plan.spec.head.outputs(plan.facts["head"]))


def _try_branch(module: Any, branch: Branch, inputs: Tree, path: str) -> Tensor:
    if isinstance(branch, Fuse):  # first the branches that it holds, to name the one that fails
        around = "branch" if path == "fusion" else f"{path}.branch"
        for name, child in branch.fused.items():
            _try_branch(module.branch[name], child, inputs[name], f"{around}.{name}")
    vector = _try(module, inputs, path)
    is_vector, is_map = vector.dim() == 2, vector.dim() == 4 and path != "fusion"
    if not (is_vector or is_map) or len(vector) != 1:
        expected = "[1, width]" if path == "fusion" else "[1, width] or a map [1, channels, h, w]"
        text = f"the module must return {expected} for {_shapes(inputs)}, not {_shapes(vector)}"
        raise SpecError(f"{path}: {text}")
    return vector


def _try(module: nn.Module, inputs: Tree, path: str) -> Any:
    try:
        with torch.no_grad():
            return module.eval()(inputs)
    except TooLargeError:
        raise
    except SpecError as error:  # of a layer, whose path below this one it begins with
        raise SpecError(f"{path}.{error}") from error
    except Exception as error:  # whatever a backbone raises, the user needs the path
        text = f"the module cannot take its input {_shapes(inputs)}: {error}"
        raise SpecError(f"{path}: {text}") from error


def _shapes(tree: Tree) -> str:
    """Return the shapes of a tree's tensors in words: `[1, 7]`, `pixels [1, 2], present [1]`."""
    return ", ".join(f"{path} {list(leaf.shape)}".lstrip() for path, leaf in leaves(tree))


def initialize(net: Net, plan: Plan, seed: int = 0, base: str | Path = ".") -> None:
    """Give a fresh module its initial values: branches that name pretrained weights load them (from
    a file, relative to `base`, from their library's cache, or by download), then `[[init]]` fills
    the parameters that its rules match, except for those of "lsuv": see `apply_lsuv`.
    """
    root_at(plan.spec, base).pretrain(net.body)
    params = {path: param.detach() for path, param in net.named_parameters()}
    rules = []
    for k, init in enumerate(plan.spec.init):
        matches = tuple(path for path in params if matches_pattern(path, init.match))
        if not matches:
            known = hint(init.match, map(short_path, params))
            raise SpecError(f"init[{k}]: '{init.match}' matches no parameter{known}")
        if init.initializer != LSUV:
            rules.append(InitRule(matches, init.initializer, init.options, f"init[{k}]"))
    _copy(reinit(params, rules, seed), params)


def param_groups(plan: Plan, net: Net) -> list[LayerGroup]:
    """Return the groups of a net's parameters that branches give learning rates of their own, with
    the path of the branch before each name. What a group of `[train]` matches is in none.
    """
    patterns, groups = [group.match for group in plan.spec.train.group], []
    for path, branch in having(plan.fused.spec.root, GroupsParams):
        place = f"body.{path_in_spec(path)}"
        for group in branch.param_groups(net.get_submodule(place)):
            params = (f"{place}.{param}" for param in group.params)
            free = [k for k in params if not any(matches_pattern(k, each) for each in patterns)]
            groups.append(group._replace(name=f"{path}.{group.name}", params=tuple(free)))
    return [group for group in groups if group.params]


def _copy(values: Mapping[str, Tensor], params: Mapping[str, Tensor]) -> None:
    for path, fresh in values.items():
        if fresh is not params[path]:
            params[path].copy_(fresh)


def apply_lsuv(
    net: Net, plan: Plan, inputs: Tree, seed: int = 0, keep: Collection[str] = ()
) -> None:
    """Initialize the weights of linear and convolution layers that a rule "lsuv" of `[[init]]`
    matches, by what these layers compute for encoded rows; see `mip.nn.lsuv`. Weights that a later
    rule matches stay as they are, and those with the paths `keep`.

    Raises SpecError naming a rule that matches no such weight, or whose layers cannot be scaled.
    """
    weights = scalable_weights(net)
    matches = [
        [path for path in weights if matches_pattern(path, init.match)] for init in plan.spec.init
    ]
    last = {path: k for k, paths in enumerate(matches) for path in paths if path not in keep}
    params = {path: param.detach() for path, param in net.named_parameters()}
    for k, init in enumerate(plan.spec.init):
        if init.initializer != LSUV:
            continue
        if not matches[k]:
            text = "matches no trainable weight of a linear or convolution layer"
            raise SpecError(f"init[{k}]: '{init.match}' {text}")
        chosen = [path for path in matches[k] if last.get(path) == k]
        options: Mapping[str, Any] = init.options
        try:
            values = lsuv(net, inputs, seed, weights=chosen, **options)
        except (MipError, TypeError) as error:  # of an option, for example
            raise SpecError(f"init[{k}]: {error}") from error
        _copy({path: values[path] for path in chosen}, params)


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
