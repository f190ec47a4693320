"""What the parts of a model cost: parameters, multiply-adds and memory.

A copy of the module runs one encoded row of zeros while torch counts floating-point operations, of
which multiply-adds are half.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from attrs import evolve, frozen
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mip.model.net import Net
from mip.model.plan import Plan
from mip.rng import seeded
from mip.tree import Tree, leaves

Shape = tuple[int | str, ...]
"""Lengths of a tensor's dimensions; "n" stands for the number of rows."""


def format_shape(shape: Shape) -> str:
    """Format the shape of a tensor.

    >>> format_shape(("n", 3, 64, 64))
    'n × 3 × 64 × 64'
    """
    return " × ".join(map(str, shape))


def format_bytes(size: int) -> str:
    """Format a number of bytes.

    >>> format_bytes(640), format_bytes(4_096), format_bytes(102_230_128)
    ('640 B', '4.1 kB', '102.2 MB')
    """
    if size < 1000:
        return f"{size} B"
    return f"{size / 1e3:,.1f} kB" if size < 1e6 else f"{size / 1e6:,.1f} MB"


@frozen
class Node:
    """A part of a model: its path, its kind, the shapes of its input and output, and its cost.
    Shapes are those of the first tensor, and empty for a dict of tensors.

    `parameters` counts shared parameters once; `multiply_adds` are those of matrix products and
    convolutions (an embedding has none); `weight_bytes` are those of the parameters and
    `output_bytes` those of all outputs; `calls` is how often the part ran. A layer is a part
    of which no part ran by itself.
    """

    path: str
    kind: str
    shape: Shape
    parameters: int
    multiply_adds: int
    weight_bytes: int
    output_bytes: int
    calls: int = 1
    is_layer: bool = False
    input_shape: Shape = ()


class _Call(NamedTuple):
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    output_bytes: int


@torch.no_grad()
def profile(module: nn.Module, *inputs: Tree) -> list[Node]:
    """Measure every module that runs on the inputs, in evaluation mode, parents before children.

    A copy runs: the module, its mode and buffers and the global random state do not change. Module
    and inputs may be on the meta device, where nothing is computed.

    >>> net = nn.Sequential(nn.Linear(3, 5), nn.ReLU())
    >>> [(node.path, node.kind, node.multiply_adds) for node in profile(net, torch.zeros(1, 3))]
    [('', 'Sequential', 15), ('0', 'Linear', 15), ('1', 'ReLU', 0)]
    """
    calls: dict[str, list[_Call]] = {}
    net = deepcopy(module).eval()
    for path, part in net.named_modules():
        part.register_forward_hook(partial(_record, calls.setdefault(path, [])))
    with FlopCounterMode(display=False) as counter, seeded(0), _without_fast_path():
        net(*inputs)
    counts, name = counter.get_flop_counts(), type(net).__name__
    ran = [path for path, _ in net.named_modules() if calls[path]]
    containers = {parent for path in ran for parent in _parents(path)}
    return [
        _node(
            path,
            net.get_submodule(path),
            calls[path],
            # The counter's paths begin with the class of the outermost module.
            counts.get(f"{name}.{path}".rstrip("."), {}),
            is_container=path in containers,
        )
        for path in ran
    ]


@contextmanager
def _without_fast_path() -> Iterator[None]:
    # The counter does not know the operations that torch's fused attention is made of.
    was_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_enabled)


def _record(calls: list[_Call], module: nn.Module, args: tuple[Tree, ...], output: Tree) -> None:
    size = sum(leaf.nbytes for _, leaf in leaves(output))
    calls.append(_Call(_first_shape(args[0]) if args else (), _first_shape(output), size))


def _first_shape(tree: Tree) -> tuple[int, ...]:
    if isinstance(tree, dict):
        return ()
    return next((tuple(leaf.shape) for _, leaf in leaves(tree)), ())


def _parents(path: str) -> list[str]:
    names = path.split(".") if path else []
    return ["", *accumulate(names, "{}.{}".format)][: len(names)]


def _node(
    path: str,
    part: nn.Module,
    calls: Sequence[_Call],
    flops: Mapping[Any, int],
    is_container: bool,
) -> Node:
    params = list(part.parameters())
    is_empty = isinstance(part, nn.Sequential) and not len(part)
    return Node(
        path=path,
        kind=type(part).__name__,
        shape=calls[-1].output_shape,
        parameters=sum(param.numel() for param in params),
        multiply_adds=sum(flops.values()) // 2,
        weight_bytes=sum(param.nbytes for param in params),
        output_bytes=sum(call.output_bytes for call in calls),
        calls=len(calls),
        is_layer=not is_container and not is_empty,
        input_shape=calls[-1].input_shape,
    )


def count_layers(nodes: Sequence[Node]) -> dict[str, tuple[int, int]]:
    """Count the layers of each type and how often they run, the most frequent type first.

    >>> net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    >>> count_layers(profile(net, torch.ones(3)))
    {'Linear': (2, 2), 'ReLU': (1, 1)}
    """
    counts: dict[str, tuple[int, int]] = {}
    for node in nodes:
        if node.is_layer:
            layers, calls = counts.get(node.kind, (0, 0))
            counts[node.kind] = (layers + 1, calls + node.calls)
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1][0], pair[0])))


def format_layer_counts(counts: Mapping[str, tuple[int, int]]) -> str:
    """Write the number of layers of each type, and how often they run if more often.

    >>> format_layer_counts({"Conv2d": (53, 53), "ReLU": (17, 49)})
    '53 Conv2d, 17 ReLU (run 49 times)'
    """
    return ", ".join(
        f"{n} {kind}" + (f" (run {calls} times)" if calls != n else "")
        for kind, (n, calls) in counts.items()
    )


def plan_nodes(plan: Plan, net: Net, layers: bool = False) -> list[Node]:
    """List the branches of a model and its head, children before parents, as they are for one row;
    with `layers` also every layer below them.
    """
    nodes = {node.path: node for node in profile(net, plan.example())}
    parts = [
        *_parts(plan.spec.root, "branch", "body", "branch"),
        *_parts(plan.spec.head, "head", "head", "head"),
    ]
    inner: dict[str, list[Node]] = defaultdict(list)
    modules = [module for module, _, _ in parts]
    for node in nodes.values() if layers else ():
        if node.is_layer and node.path not in modules:  # one that is a part has a row of its own
            around = [module for module in modules if node.path.startswith(f"{module}.")]
            inner[max(around, key=len)].append(node)
    rows = []
    for module, path, kind in parts:
        rows += [_row(node, path + node.path.removeprefix(module)) for node in inner[module]]
        rows.append(evolve(_row(nodes[module], path), kind=kind))
    return rows


def _parts(part: Any, attribute: str, module: str, path: str) -> Iterator[tuple[str, str, str]]:
    """Yield the paths of a part's module and in the spec, and its kind: children first."""
    for name, child in getattr(part, attribute, {}).items():
        yield from _parts(child, attribute, f"{module}.{attribute}.{name}", f"{path}.{name}")
    yield module, path, getattr(part, "kind", type(part).__name__.lower())


def _row(node: Node, path: str) -> Node:
    return evolve(
        node, path=path, shape=_per_row(node.shape), input_shape=_per_row(node.input_shape)
    )


def _per_row(shape: Shape) -> Shape:
    # One row was measured; a first length of 2 is that of two photos a row.
    rows = ["n" if length == 1 else f"{length}n" for length in shape[:1]]
    return (*rows, *shape[1:])
