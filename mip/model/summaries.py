"""The summary of a net: its layers, with their shapes and what they cost."""

from __future__ import annotations

from copy import deepcopy

import torch
from attrs import frozen
from torch import nn

from mip.errors import MipError
from mip.model.plan import Plan
from mip.model.size import Node, count_layers, format_layer_counts, format_shape, profile
from mip.pipe import Pipe
from mip.train import check_net, failing_layer
from mip.tree import Tree, leaves, map_tree, shapes_text


@frozen(repr=False)
class Summary:
    """What a net is made of and costs, as `summary` measures it: `nodes` has the net itself first,
    and `inputs` describes what it ran on. It prints as a table of the layers.

    >>> summary(nn.Sequential(nn.Linear(3, 5), nn.ReLU()), torch.zeros(1, 3))
    Sequential takes float32 [1, 3]
    layer  type    input  output  parameters  multiply-adds
    0      Linear  1 × 3   1 × 5          20             15
    1      ReLU    1 × 5   1 × 5           0              0
    total                                 20             15
    1 Linear, 1 ReLU
    """

    inputs: str
    nodes: tuple[Node, ...]

    @property
    def layers(self) -> list[Node]:
        """The layers, in the order in which the net holds them."""
        return [node for node in self.nodes if node.is_layer]

    @property
    def parameters(self) -> int:
        """The number of parameters; shared ones count once."""
        return self.nodes[0].parameters

    @property
    def multiply_adds(self) -> int:
        """The number of multiply-adds on these inputs."""
        return self.nodes[0].multiply_adds

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """The number of layers of each type, and how often they run."""
        return count_layers(self.nodes)

    def __repr__(self) -> str:
        rows = [("layer", "type", "input", "output", "parameters", "multiply-adds")]
        for n in self.layers:
            shapes = format_shape(n.input_shape), format_shape(n.shape)
            rows.append((n.path, n.kind, *shapes, f"{n.parameters:,}", f"{n.multiply_adds:,}"))
        rows.append(("total", "", "", "", f"{self.parameters:,}", f"{self.multiply_adds:,}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        layout = "  ".join(f"{{:{'<' if k < 2 else '>'}{width}}}" for k, width in enumerate(widths))
        lines = [layout.format(*row) for row in rows]
        title = f"{self.nodes[0].kind} takes {self.inputs}"
        return "\n".join([title, *lines, format_layer_counts(self.counts)])


def summary(net: nn.Module, *inputs: Tree) -> Summary:
    """Measure a net on inputs of any values: each layer's shapes, parameters and multiply-adds.

    `inputs` are the arguments of the net: tensors, or tuples and dicts of these; or a pipe, whose
    first batch has them. The net does not change. Raises MipError without inputs, and for inputs
    that a layer cannot take.

    >>> net = nn.Sequential(nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))
    >>> summary(net, torch.zeros(1, 784)).parameters
    79510
    >>> summary(net)
    Traceback (most recent call last):
    mip.errors.MipError: a summary needs inputs to see the shapes of layers: summary(net, \
torch.zeros(1, 784))
    """
    if isinstance(net, Plan):
        cure = "summary(net, plan.example()), or plan_nodes(plan, net) for its branches and head"
        raise MipError(f"a summary is that of a net, not of a plan: {cure}")
    check_net(net)
    if len(inputs) == 1 and isinstance(inputs[0], Pipe):
        inputs = (_first_inputs(inputs[0]),)
    if not inputs or not all(any(True for _ in leaves(tree)) for tree in inputs):
        what = "inputs to see the shapes of layers" if not inputs else "tensors as inputs"
        raise MipError(f"a summary needs {what}: summary(net, {_example_input(net)})")
    device = next((param.device for param in net.parameters()), torch.device("cpu"))
    moved = [map_tree(lambda leaf: leaf.to(device), tree) for tree in inputs]
    try:
        nodes = profile(net, *moved)
    except Exception as error:
        why = failing_layer(deepcopy(net).eval(), moved)
        is_batch = len(inputs) == 1 and isinstance(inputs[0], tuple) and len(inputs[0]) == 2
        cure = "; of a batch (inputs, target) give the inputs: batch[0]" if is_batch else ""
        raise MipError(f"summary: {why or error}{cure}") from error
    return Summary(", ".join(map(shapes_text, inputs)), tuple(nodes))


def _first_inputs(batches: Pipe) -> Tree:
    batch = batches[0]
    return batch[0] if isinstance(batch, tuple) else batch


def _example_input(net: nn.Module) -> str:
    for part in net.modules():
        if isinstance(part, nn.Linear):
            return f"torch.zeros(1, {part.in_features})"
        if isinstance(part, nn.Conv2d):
            return f"torch.zeros(1, {part.in_channels}, 224, 224)"
    return "torch.zeros(1, 8)"
