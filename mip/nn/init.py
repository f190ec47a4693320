"""Initial values: parameters redrawn by rules that match their names, or by LSUV from a batch.

A redrawn parameter is a function of the seed and its path, so one more rule leaves the others as
they were. `[[init]]` of a spec is applied when the module is built, after pretrained weights, LSUV
last; a module that only waits for the weights of a file draws none. LSUV scales each layer in a
hook during one pass, in the order in which the layers run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
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
"""Parameters by their path in the module, as in `State.params`."""


Initializer = Callable[..., Any]
"""A function that writes into a tensor, as those of `torch.nn.init` do."""


INITIALIZERS: Mapping[str, Initializer] = MappingProxyType(
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
"""The initializers of `torch.nn.init` by name; their arguments are options."""


LSUV = "lsuv"
"""The name in specs of the initializer that measures rows: see `lsuv`."""


@frozen
class InitRule:
    """How to initialize the parameters that `match` fits: a pattern of their paths
    ("head.*.weight"), or the paths themselves, as `parameter_paths` returns them.

    The `initializer` is a name or a function that writes into a tensor; `options` are its
    arguments. Errors begin with the `label`.
    """

    match: str | tuple[str, ...]
    initializer: str | Initializer
    options: Mapping[str, Any] = field(factory=dict)
    label: str = "init"


def parameter_paths(
    net: nn.Module, kind: type[nn.Module] | tuple[type[nn.Module], ...], name: str = "*"
) -> tuple[str, ...]:
    """Return the paths of the parameters that belong directly to modules of a class, or of one of
    several classes.

    >>> parameter_paths(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), nn.Linear)
    ('0.weight', '0.bias')
    """
    return tuple(
        f"{path}.{parameter}".lstrip(".")
        for path, module in net.named_modules()
        if isinstance(module, kind)
        for parameter, _ in module.named_parameters(recurse=False)
        if fnmatchcase(parameter, name)
    )


def reinit(params: Params, rules: Sequence[InitRule], seed: int = 0) -> Params:
    """Redraw the parameters that a rule matches; if several rules match, the last one wins.

    All other parameters are the same tensors as before. The draws of a parameter depend only on the
    seed and its path. Raises SpecError for an unknown initializer or option, a rule that matches
    nothing, and a shape that the initializer does not accept.

    >>> params = {"a.weight": torch.zeros(2, 2), "a.bias": torch.zeros(2)}
    >>> after = reinit(params, [InitRule("*.weight", "constant", {"val": 0.5})])
    >>> after["a.weight"].unique(), after["a.bias"] is params["a.bias"]
    (tensor([0.5000]), True)
    """
    rule_of = {path: rule for rule in rules for path in _matching(params, rule)}
    return {
        path: _draw(path, param, rule_of[path], seed) if path in rule_of else param
        for path, param in params.items()
    }


def _matching(params: Params, rule: InitRule) -> list[str]:
    patterns = (rule.match,) if isinstance(rule.match, str) else rule.match
    paths = [path for path in params if any(fnmatchcase(path, each) for each in patterns)]
    if not paths:
        text = ", ".join(patterns)
        raise SpecError(f"{rule.label}: '{text}' matches no parameter{hint(text, params)}")
    return paths


def _draw(path: str, param: Tensor, rule: InitRule, seed: int) -> Tensor:
    initializer = rule.initializer
    if mistake := initializer_error(initializer) or option_error(initializer, rule.options):
        raise SpecError(f"{rule.label}: {mistake}")
    if initializer == LSUV:
        raise SpecError(f"{rule.label}: lsuv measures what layers compute: call mip.nn.lsuv")
    fill = INITIALIZERS[initializer] if isinstance(initializer, str) else initializer
    # Drawn on the CPU in float32 or wider: the same numbers on every device, for every precision.
    values = torch.empty(param.shape, dtype=torch.promote_types(param.dtype, torch.float32))
    try:
        with torch.no_grad(), seeded(derive("init", seed, path)):
            fill(values, **rule.options)
    except (RuntimeError, TypeError, ValueError) as error:
        text = f"{_name(initializer)} cannot fill {path} of shape {list(param.shape)}"
        raise SpecError(f"{rule.label}: {text}: {error}") from error
    return values.to(param)


def initializer_error(initializer: str | Initializer) -> str:
    """Return what is wrong with the name of an initializer of specs, or an empty text.

    >>> initializer_error("orthgonal")[:62], initializer_error("ones")
    ("'orthgonal' is not an initializer; did you mean 'orthogonal'? ", '')
    """
    known = (*INITIALIZERS, LSUV)
    if not isinstance(initializer, str) or initializer in known:
        return ""
    return f"'{initializer}' is not an initializer{hint(initializer, known)}"


def option_error(initializer: str | Initializer, options: Mapping[str, Any]) -> str:
    """Return which option a known initializer does not have, or an empty text.

    >>> option_error("normal", {"sdt": 1.0})
    "'sdt' is not an option of normal; did you mean 'std'? (known: mean, std)"
    """
    by_name = {**INITIALIZERS, LSUV: lsuv}
    fill = by_name[initializer] if isinstance(initializer, str) else initializer
    arguments = {"tensor", "generator", "net", "inputs", "seed", "weights"}
    known = inspect.signature(fill).parameters.keys() - arguments
    for name in options:
        if name not in known:
            return f"'{name}' is not an option of {_name(initializer)}{hint(name, known)}"
    return ""


def _name(initializer: str | Initializer) -> str:
    if isinstance(initializer, str):
        return initializer
    return getattr(initializer, "__name__", "the function")


@torch.no_grad()
def lsuv(
    net: nn.Module,
    inputs: Tree,
    seed: int = 0,
    tolerance: float = 0.05,
    max_iter: int = 20,
    weights: Collection[str] | None = None,
) -> Params:
    """Initialize for outputs of variance 1: layer-sequential unit-variance (Mishkin and Matas
    2016).

    The weights of linear and convolution layers, or of these only those with the paths `weights`,
    start orthogonal. They are then scaled, in the order in which the layers run on the inputs in
    evaluation mode, until the variance of a layer's output is 1 within the tolerance, at most
    `max_iter` times. Returns all trainable parameters, as in `State.params`; the module is not
    changed. Raises MipError naming a layer that cannot be scaled.

    >>> net = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 4))
    >>> x = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    >>> params = lsuv(net, x); after = torch.func.functional_call(net, params, x)
    >>> bool(abs(after.var() - 1) <= 0.05)
    True
    """
    net = deepcopy(net).eval()
    chosen = [path for path in scalable_weights(net) if weights is None or path in weights]
    params: Params = {path: net.get_parameter(path) for path in chosen}
    rules = [InitRule("*", "orthogonal")] if params else []
    for path, values in reinit(params, rules, seed).items():
        params[path].copy_(values)
    done: set[str] = set()
    for path in chosen:
        layer = path.removesuffix("weight").rstrip(".")
        scale = partial(_scale, layer, done, tolerance, max_iter)
        net.get_submodule(layer).register_forward_hook(scale)
    with seeded(derive("lsuv", seed)):
        net(inputs)
    return {path: param.detach() for path, param in net.named_parameters() if param.requires_grad}


def scalable_weights(net: nn.Module) -> list[str]:
    """Return the paths of the weights that LSUV scales: the trainable ones of linear and
    convolution layers.

    >>> scalable_weights(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Conv1d(2, 2, 1)))
    ['0.weight', '2.weight']
    """
    weights = parameter_paths(net, _LAYERS, "weight")
    return [path for path in weights if net.get_parameter(path).requires_grad]


_LAYERS = (nn.Linear, _ConvNd)


def _scale(
    path: str,
    done: set[str],
    tolerance: float,
    max_iter: int,
    layer: nn.Linear | _ConvNd,
    args: tuple[Tensor, ...],
    output: Tensor,
) -> Tensor:
    # A hook that replaces the layer's output, so that one pass scales all layers in their order.
    if path in done:
        return output
    done.add(path)
    for _ in range(max_iter):
        variance = output.var(correction=0)
        if abs(variance - 1) <= tolerance:
            return output
        if not variance > 0:
            break
        layer.weight.div_(variance.sqrt())
        output = layer.forward(*args)
    raise MipError(f"lsuv: the output of {path} has variance {variance:g}, and cannot have 1")
