"""Parameters drawn anew: by name for those that match, or by LSUV from a batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from fnmatch import fnmatchcase
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from mip.errors import MipError, SpecError, hint
from mip.rng import derive, seeded
from mip.tree import Tree

Params = dict[str, Tensor]
"""Parameters by their path in the module, as `State.params` has them."""


Fill = Callable[..., Any]
"""Writes into the tensor it is given, as the functions of `torch.nn.init` do."""


INITIALISERS: Mapping[str, Fill] = MappingProxyType(
    {
        "constant": nn.init.constant_,
        "dirac": nn.init.dirac_,
        "eye": nn.init.eye_,
        "kaiming_normal": nn.init.kaiming_normal_,
        "kaiming_uniform": nn.init.kaiming_uniform_,
        "normal": nn.init.normal_,
        "ones": nn.init.ones_,
        "orthogonal": nn.init.orthogonal_,
        "sparse": nn.init.sparse_,
        "trunc_normal": nn.init.trunc_normal_,
        "uniform": nn.init.uniform_,
        "xavier_normal": nn.init.xavier_normal_,
        "xavier_uniform": nn.init.xavier_uniform_,
        "zeros": nn.init.zeros_,
    }
)
"""The initialisers by name: `torch.nn.init`'s own, with their arguments as options."""


@frozen
class Rule:
    """Which parameters begin how: a pattern of their paths ("head.*.weight"), or the paths
    themselves as `paths` gives them; an initialiser's name, or a function that writes into the
    tensor it is given; and the initialiser's arguments. Errors begin with its `place`.
    """

    where: str | tuple[str, ...]
    how: str | Fill
    options: Mapping[str, Any] = field(factory=dict)
    place: str = "init"


def paths(net: nn.Module, kind: type[nn.Module], name: str = "*") -> tuple[str, ...]:
    """Give the paths of the parameters that modules of a type have themselves.

    >>> paths(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), nn.Linear)
    ('0.weight', '0.bias')
    """
    return tuple(
        f"{path}.{own}".lstrip(".")
        for path, module in net.named_modules()
        if isinstance(module, kind)
        for own, _ in module.named_parameters(recurse=False)
        if fnmatchcase(own, name)
    )


def reinit(params: Params, rules: Sequence[Rule], seed: int = 0) -> Params:
    """Draw the parameters that a rule matches anew; where several match, the last one counts.

    All others are the very same tensors. The draws of a parameter depend on the seed and its path
    alone. Raises SpecError for an unknown initialiser or option, a rule that matches nothing, and
    a shape that the initialiser cannot take.

    >>> params = {"a.weight": torch.zeros(2, 2), "a.bias": torch.zeros(2)}
    >>> after = reinit(params, [Rule("*.weight", "constant", {"val": 0.5})])
    >>> after["a.weight"].unique(), after["a.bias"] is params["a.bias"]
    (tensor([0.5000]), True)
    """
    chosen = {path: rule for rule in rules for path in _matched(params, rule)}
    return {
        path: _drawn(path, param, chosen[path], seed) if path in chosen else param
        for path, param in params.items()
    }


def _matched(params: Params, rule: Rule) -> list[str]:
    where = (rule.where,) if isinstance(rule.where, str) else rule.where
    found = [path for path in params if any(fnmatchcase(path, each) for each in where)]
    if not found:
        text = ", ".join(where)
        raise SpecError(f"{rule.place}: '{text}' matches no parameter{hint(text, params)}")
    return found


def _drawn(path: str, param: Tensor, rule: Rule, seed: int) -> Tensor:
    fill = _fill(rule)
    # Drawn on the CPU in float32 or wider: the same numbers on every device, for every precision.
    fresh = torch.empty(param.shape, dtype=torch.promote_types(param.dtype, torch.float32))
    try:
        with torch.no_grad(), seeded(derive("init", seed, path)):
            fill(fresh, **rule.options)
    except (RuntimeError, TypeError, ValueError) as error:
        shape = f"{path} of shape {list(param.shape)}"
        raise SpecError(f"{rule.place}: {_name(rule.how)} cannot fill {shape}: {error}") from error
    return fresh.to(param)


def _fill(rule: Rule) -> Fill:
    if mistake := unknown(rule.how) or strange(rule.how, rule.options):
        raise SpecError(f"{rule.place}: {mistake}")
    return INITIALISERS[rule.how] if isinstance(rule.how, str) else rule.how


def unknown(how: str | Fill) -> str:
    """Say what is wrong with an initialiser's name, or nothing.

    >>> unknown("orthgonal")[:62], unknown("ones")
    ("'orthgonal' is not an initialiser; did you mean 'orthogonal'? ", '')
    """
    known = not isinstance(how, str) or how in INITIALISERS
    return "" if known else f"'{how}' is not an initialiser{hint(str(how), INITIALISERS)}"


def strange(how: str | Fill, options: Mapping[str, Any]) -> str:
    """Say which option a known initialiser does not take, or nothing.

    >>> strange("normal", {"sdt": 1.0})
    "'sdt' is not an option of normal; did you mean 'std'? (known: mean, std)"
    """
    fill = INITIALISERS[how] if isinstance(how, str) else how
    known = [name for name in inspect.signature(fill).parameters if name not in _OWN]
    found = [name for name in options if name not in known]
    return f"'{found[0]}' is not an option of {_name(how)}{hint(found[0], known)}" if found else ""


_OWN = {"tensor", "generator"}


def _name(how: str | Fill) -> str:
    return how if isinstance(how, str) else getattr(how, "__name__", "the function")


@torch.no_grad()
def lsuv(
    net: nn.Module, inputs: Tree, seed: int = 0, tolerance: float = 0.05, rounds: int = 20
) -> Params:
    """Begin with outputs of variance 1: layer-sequential unit-variance (Mishkin and Matas 2016).

    The weights of linear and convolution layers begin orthogonal and are then scaled, in the order
    in which the layers run on the inputs in evaluation mode, until the variance of what a layer
    gives is 1 within the tolerance. Gives all parameters that ask for a gradient, as `State.params`
    has them; the module stays as it was. Raises MipError naming a layer that cannot be scaled so.

    >>> net = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 4))
    >>> x = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    >>> weights = lsuv(net, x); after = torch.func.functional_call(net, weights, x)
    >>> bool(abs(after.var() - 1) <= 0.05)
    True
    """
    net = deepcopy(net).eval()
    layers = {path: layer for path, layer in net.named_modules() if isinstance(layer, _LAYERS)}
    _orthogonal(layers, seed)
    done: set[str] = set()
    for path, layer in layers.items():
        layer.register_forward_hook(partial(_scale, path, done, tolerance, rounds))
    with seeded(derive("lsuv", seed)):
        net(inputs)
    return {path: param.detach() for path, param in net.named_parameters() if param.requires_grad}


_LAYERS = (nn.Linear, _ConvNd)


def _orthogonal(layers: Mapping[str, Any], seed: int) -> None:
    weights: Params = {
        path: layer.weight for path, layer in layers.items() if layer.weight.requires_grad
    }
    for path, fresh in reinit(weights, [Rule("*", "orthogonal")] if weights else [], seed).items():
        weights[path].copy_(fresh)


def _scale(
    path: str, done: set[str], tolerance: float, rounds: int, layer: Any, args: Any, output: Tensor
) -> Tensor:
    # A hook that gives the layer's output anew, so that one pass scales all layers in their order.
    if path in done or not layer.weight.requires_grad:
        return output
    done.add(path)
    for _ in range(rounds):
        variance = output.var(correction=0)
        if abs(variance - 1) <= tolerance:
            return output
        if not variance > 0:
            break
        layer.weight.div_(variance.sqrt())
        output = layer.forward(*args)
    raise MipError(f"lsuv: the output of {path} has variance {variance:g}, and cannot have 1")
