"""What the command line shows: tables of text, and plots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from attrs import evolve, frozen
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mip.model.net import Net
from mip.model.plan import Plan
from mip.rng import seeded
from mip.tree import Tree, leaves


def shape(lengths: Shape) -> str:
    """Write the shape of a part's input or output.

    >>> shape(("n", 3, 64, 64))
    'n × 3 × 64 × 64'
    """
    return " × ".join(map(str, lengths))


def memory(size: int) -> str:
    """Write a number of bytes for a person.

    >>> memory(640), memory(4_096), memory(102_230_128)
    ('640 B', '4.1 kB', '102.2 MB')
    """
    if size < 1000:
        return f"{size} B"
    return f"{size / 1e3:,.1f} kB" if size < 1e6 else f"{size / 1e6:,.1f} MB"


Shape = tuple[int | str, ...]
"""Lengths of an output; "n" stands for the rows."""


Seen = list[tuple[tuple[int, ...], tuple[int, ...], int]]
"""Shapes of what a module took and gave, and the bytes of this, for every call."""


@frozen
class Node:
    """A part of a model: its path, kind and output's shape, what it costs, and the shape that it
    takes. Shapes are those of the first tensor, and empty for tensors by name.

    `parameters` counts each once; `multiply_adds` are those of matrix products and convolutions
    (a lookup has none); `weight_bytes` are those of the parameters and `output_bytes` of what
    comes out; `calls` says how often it ran. A layer is a part below which nothing ran by itself.
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
    takes: Shape = ()


@torch.no_grad()
def measure(module: nn.Module, *inputs: Tree) -> list[Node]:
    """Measure every module that runs on the inputs, in evaluation mode, parents before children.

    The module, its mode, its buffers and the global random state stay as they were: a copy runs.
    Module and inputs may be on the meta device, where nothing is computed.

    >>> [(node.path, node.kind, node.multiply_adds) for node in measure(
    ...     nn.Sequential(nn.Linear(3, 5), nn.ReLU()), torch.zeros(1, 3))]
    [('', 'Sequential', 15), ('0', 'Linear', 15), ('1', 'ReLU', 0)]
    """
    seen: dict[str, Seen] = {}
    net = deepcopy(module).eval()
    for path, part in net.named_modules():
        part.register_forward_hook(partial(_see, seen.setdefault(path, [])))
    with FlopCounterMode(display=False) as counter, seeded(0), _step_by_step():
        net(*inputs)
    counts = counter.get_flop_counts()
    inner = {above for path, calls in seen.items() if calls for above in _above(path)}
    return [
        _node(path, part, seen[path], counts.get(_counted(net, path), {}), path not in inner)
        for path, part in net.named_modules()
        if seen[path]
    ]


@contextmanager
def _step_by_step() -> Iterator[None]:
    # torch's fused attention is made of operations that the counter does not know.
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


def _see(seen: Seen, module: nn.Module, args: Any, output: Tree) -> None:
    size = sum(leaf.nbytes for _, leaf in leaves(output))
    seen.append((_first(args[0]) if args else (), _first(output), size))


def _first(tree: Tree) -> tuple[int, ...]:
    named = isinstance(tree, dict)
    return next((() if named else tuple(leaf.shape) for _, leaf in leaves(tree)), ())


def _counted(net: nn.Module, path: str) -> str:
    # The counter begins its paths with the outermost module's class.
    return f"{type(net).__name__}.{path}".rstrip(".")


def _above(path: str) -> list[str]:
    names = path.split(".") if path else []
    return ["", *accumulate(names, "{}.{}".format)][: len(names)]


def _node(
    path: str, part: nn.Module, seen: Seen, flops: Mapping[Any, int], is_lowest: bool
) -> Node:
    params = list(part.parameters())
    return Node(
        path,
        type(part).__name__,
        seen[-1][1],
        sum(param.numel() for param in params),
        sum(flops.values()) // 2,
        sum(param.nbytes for param in params),
        sum(size for _, _, size in seen),
        len(seen),
        is_lowest and not (isinstance(part, nn.Sequential) and not len(part)),
        seen[-1][0],
    )


def types(nodes: Sequence[Node]) -> dict[str, tuple[int, int]]:
    """Count the layers of each type, and how often they run: the most first.

    >>> types(measure(nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)), torch.ones(3)))
    {'Linear': (2, 2), 'ReLU': (1, 1)}
    """
    found: dict[str, tuple[int, int]] = {}
    for node in nodes:
        if node.is_layer:
            layers, calls = found.get(node.kind, (0, 0))
            found[node.kind] = (layers + 1, calls + node.calls)
    return dict(sorted(found.items(), key=lambda pair: (-pair[1][0], pair[0])))


def summary(plan: Plan, net: Net, layers: bool = False) -> list[Node]:
    """List the parts of a model from its branches to its head, children before parents, as they
    are for one row; with `layers` also every layer below them.
    """
    found = {node.path: node for node in measure(net, plan.example())}
    branches = _parts(plan.spec.root, "branch", "body", "branch")
    parts = [*branches, *_parts(plan.spec.head, "head", "head", "head")]
    owned = _owned(list(found.values()), [where for where, _, _ in parts]) if layers else {}
    return [
        row
        for where, path, kind in parts
        for row in [
            *[_row(node, path + node.path.removeprefix(where)) for node in owned.get(where, [])],
            evolve(_row(found[where], path), kind=kind),
        ]
    ]


def _parts(part: Any, below: str, where: str, path: str) -> Iterator[tuple[str, str, str]]:
    for name, child in getattr(part, below, {}).items():
        yield from _parts(child, below, f"{where}.{below}.{name}", f"{path}.{name}")
    yield where, path, _kind(part)


def _kind(value: Any) -> str:
    return getattr(value, "kind", type(value).__name__.lower())


def _owned(nodes: Sequence[Node], parts: Sequence[str]) -> dict[str, list[Node]]:
    # A layer belongs to the innermost part that it stands in; one that is a part has its row.
    owned: dict[str, list[Node]] = {}
    for node in nodes:
        if node.is_layer and node.path not in parts:
            around = [part for part in parts if node.path.startswith(f"{part}.")]
            owned.setdefault(max(around, key=len), []).append(node)
    return owned


def _row(node: Node, path: str) -> Node:
    return evolve(node, path=path, shape=_by_row(node.shape), takes=_by_row(node.takes))


def _by_row(shape: Shape) -> Shape:
    # One row was measured; a first length of 2 is that of two photos a row.
    rows = ["n" if length == 1 else f"{length}n" for length in shape[:1]]
    return (*rows, *shape[1:])
