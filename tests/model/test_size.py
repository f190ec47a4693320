"""What a model costs: golden numbers, what is left untouched, and a drawing that can be read."""

from __future__ import annotations

import copy
import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
import torch
import torchvision
from attrs import frozen
from conftest import bits, spec_of
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import mip
from mip.branches import Continuous
from mip.errors import MipError
from mip.model import (
    Node,
    count_layers,
    format_layer_counts,
    format_shape,
    plan_nodes,
    profile,
    summary,
)
from mip.plots import diagram
from mip.plots.diagrams import HEIGHT, boxes


@pytest.fixture(scope="module")
def plan(table):
    return mip.adapt(spec_of(), table)


def mlp(*widths):
    layers = [[nn.Linear(*pair), nn.ReLU()] for pair in pairwise(widths)]
    return nn.Sequential(*sum(layers, [])[:-1])  # noqa: RUF017


def test_a_plain_mlp_has_its_known_numbers():
    whole = profile(mlp(784, 100, 100, 100, 10), torch.zeros(1, 784))[0]
    assert whole.parameters == 99_710
    assert whole.multiply_adds == 99_400
    assert whole.weight_bytes == 4 * 99_710
    assert whole.output_bytes == 40
    assert whole.shape == (1, 10)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_resnet50_has_its_known_numbers(device):
    with torch.device(device):
        net, photo = torchvision.models.resnet50(), torch.zeros(1, 3, 224, 224)
    nodes = profile(net, photo)
    assert nodes[0].parameters == 25_557_032
    assert nodes[0].multiply_adds == 4_089_184_256
    counts = count_layers(nodes)
    assert counts["Conv2d"] == (53, 53)
    assert counts["BatchNorm2d"] == (53, 53)
    assert counts["ReLU"] == (17, 49)
    assert format_layer_counts(counts).startswith(
        "53 BatchNorm2d, 53 Conv2d, 17 ReLU (run 49 times), 1 "
    )


def test_layers_add_up_to_the_whole():
    nodes = profile(torchvision.models.resnet18(), torch.zeros(1, 3, 64, 64))
    layers = [node for node in nodes if node.is_layer]
    for name in ("parameters", "multiply_adds", "weight_bytes"):
        assert sum(getattr(node, name) for node in layers) == getattr(nodes[0], name)


def test_a_batch_of_two_costs_twice_as_much():
    net = mlp(7, 5, 3)
    one, two = (profile(net, torch.zeros(n, 7))[0] for n in (1, 2))
    assert two.multiply_adds == 2 * one.multiply_adds
    assert two.output_bytes == 2 * one.output_bytes
    assert two.parameters == one.parameters


def test_a_lookup_multiplies_nothing():
    nodes = profile(nn.Embedding(100, 8), torch.zeros(4, dtype=torch.int64))
    assert (nodes[0].multiply_adds, nodes[0].parameters) == (0, 800)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_attention_counts_its_products(device):
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, device=device)
    n, d, hidden = 5, 16, 32
    expected = 3 * n * d * d + 2 * n * n * d + n * d * d + 2 * n * d * hidden
    assert profile(layer, torch.zeros(1, n, d, device=device))[0].multiply_adds == expected


def test_a_weight_that_two_layers_share_counts_once():
    net = mlp(4, 4, 4)
    net[2].weight = net[0].weight
    assert profile(net, torch.zeros(1, 4))[0].parameters == 16 + 4 + 4


def test_several_inputs_and_several_outputs_are_measured():
    net = nn.LSTM(3, 4)
    state = (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))
    (node,) = profile(net, torch.zeros(5, 2, 3), state)
    assert node.shape == (5, 2, 4)
    assert node.output_bytes == 4 * (5 * 2 * 4 + 2 * 4 + 2 * 4)


def test_measuring_leaves_everything_as_it_was():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.LazyConv2d(2, 1))
    net[1].eval()
    modes = [part.training for part in net.modules()]
    before, random = copy.deepcopy(bits(net[:2].state_dict())), torch.get_rng_state()
    assert profile(net, torch.randn(2, 3, 8, 8, generator=torch.Generator()))[0].shape[1] == 2
    assert [part.training for part in net.modules()] == modes
    assert bits(net[:2].state_dict()) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(part._forward_hooks for part in net.modules())
    assert isinstance(net[3], nn.LazyConv2d)


# A plan's parts.


def test_parts_of_a_model_hold_its_layers(plan):
    net = mip.build(plan)
    parts, layers = plan_nodes(plan, net), plan_nodes(plan, net, layers=True)
    assert [node for node in layers if node in parts] == parts
    paths = [node.path for node in layers]
    assert len(set(paths)) == len(paths)
    for path in ("branch.photos.backbone.0", "branch.rooms.layers.0", "head.0"):
        assert path in paths
    assert paths.index("branch.photos.score") < paths.index("branch.photos")
    measured = {node.path for node in profile(net, plan.example()) if node.is_layer}
    assert len(layers) == len(parts) + len(measured - {"body.branch.rooms.branch.sizes"})


def test_the_shape_of_a_layer_says_how_many_photos_a_row_has(plan):
    nodes = {node.path: node for node in plan_nodes(plan, mip.build(plan), layers=True)}
    assert nodes["branch.photos.backbone.0"].shape == ("2n", 2, 4, 4)
    assert format_shape(nodes["branch.photos"].shape) == "n × 8"


def test_a_branch_without_layers_is_a_part_all_the_same(table):
    @frozen
    class Plain(Continuous):
        def module(self, facts):
            return nn.Sequential()

    plan = mip.adapt(mip.spec.Spec({"a": Plain(["rooms"])}, spec_of().head), table)
    net = mip.build(plan)
    assert [node.path for node in plan_nodes(plan, net)] == ["branch.a", "branch", "head"]
    assert count_layers(profile(net, plan.example())) == {
        "Linear": (2, 2),
        "Concat": (1, 1),
        "Dropout": (1, 1),
        "ReLU": (1, 1),
    }


def test_totals_of_parts_are_those_of_the_net(plan):
    net = mip.build(plan)
    whole, parts = profile(net, plan.example())[0], plan_nodes(plan, net)
    tops = [node for node in parts if node.path in {"branch", "head"}]
    assert sum(node.parameters for node in tops) == whole.parameters
    assert sum(node.multiply_adds for node in tops) == whole.multiply_adds


# The drawing.

SPACE = "{http://www.w3.org/2000/svg}"
names = st.text("abcö京", min_size=1, max_size=30)
trees = st.recursive(
    st.none(), lambda below: st.dictionaries(names, below, min_size=1, max_size=3), max_leaves=12
)


def nodes_of(tree, path="branch"):
    below = [nodes_of(child, f"{path}.{name}") for name, child in (tree or {}).items()]
    kind = "fuse" if tree else "continuous"
    return [*sum(below, []), Node(path, kind, ("n", 3), 0, 0, 0, 0)]  # noqa: RUF017


# The head alone, several of them, and several within several.
heads = st.sampled_from(
    [
        ["head"],
        ["head.a", "head.b", "head.c", "head.d", "head"],
        ["head.a", "head.b.x", "head.b.y", "head.b", "head"],
    ]
)


def heads_of(paths, kind):
    return [Node(path, kind, ("n",), 0, 0, 0, 0) for path in paths]


@given(trees, heads)
def test_boxes_stand_apart_and_inside_the_drawing(tree, paths):
    nodes = [*nodes_of(tree), *heads_of(paths, "<&>")]
    drawn = ET.fromstring(diagram(nodes))
    wide, high = map(float, drawn.get("viewBox").split()[2:])
    placed = boxes(nodes)
    assert sorted(box.path for box in placed) == sorted(node.path for node in nodes)
    for place, one in enumerate(placed):
        assert min(one.x, one.y) > 0
        assert one.x + one.width < wide
        assert one.y + HEIGHT < high
        for two in placed[place + 1 :]:
            apart = one.x + one.width < two.x or two.x + two.width < one.x
            assert apart or abs(one.y - two.y) > HEIGHT


@given(trees, heads)
def test_lines_run_from_each_box_to_the_next_and_through_none(tree, paths):
    nodes = [*nodes_of(tree), *heads_of(paths, "binary")]
    placed = {box.path: box for box in boxes(nodes)}
    paths = [path.get("d") for path in ET.fromstring(diagram(nodes)).iter(f"{SPACE}path")]
    assert len(paths) == len(nodes) - 1
    for text in paths:
        x, y, middle, _, last = map(float, re.findall(r"[\d.]+", text))
        assert any(abs(box.x + box.width - x) < 0.1 for box in placed.values())
        for box in placed.values():
            assert not box.x < middle < box.x + box.width
            crossed = x < box.x < last - 1 and box.y < y < box.y + HEIGHT
            assert not crossed, text


def test_several_heads_are_parts_of_their_own(table):
    plan = mip.adapt(spec_of("joint"), table)
    nodes = plan_nodes(plan, mip.build(plan))
    message = [(node.path, node.kind, format_shape(node.shape)) for node in nodes[-4:]]
    assert message == [
        ("branch", "fuse", "n × 17"),
        ("head.price", "regression", "n"),
        ("head.style", "multiclass", "n × 3"),
        ("head", "joint", ""),
    ]
    drawn = ET.fromstring(diagram(nodes))
    assert len(list(drawn.iter(f"{SPACE}path"))) == len(nodes) - 1


def test_a_drawing_says_name_kind_and_shape(plan):
    nodes = plan_nodes(plan, mip.build(plan))
    drawn = ET.fromstring(diagram(nodes))
    texts = [each.text for each in drawn.iter(f"{SPACE}text")]
    assert texts[:3] == ["photos", "image", "n × 8"]
    assert texts[-3:] == ["head", "regression", "n"]
    assert len(list(drawn.iter(f"{SPACE}rect"))) == len(nodes) + 1


# The summary of a net.


def test_a_summary_has_the_numbers_of_the_whole_and_of_each_layer():
    made = summary(mlp(784, 100, 100, 100, 10), torch.zeros(1, 784))
    assert (made.parameters, made.multiply_adds) == (99_710, 99_400)
    assert made.counts == {"Linear": (4, 4), "ReLU": (3, 3)}
    assert [node.path for node in made.layers] == list("0123456")
    lines = str(made).splitlines()
    assert lines[0] == "Sequential takes float32 [1, 784]"
    assert lines[2].split() == ["0", "Linear", "1", "×", "784", "1", "×", "100", "78,500", "78,400"]
    assert lines[-2].split() == ["total", "99,710", "99,400"]
    assert lines[-1] == "4 Linear, 3 ReLU"


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 2), nn.Embedding(7, 2)

    def forward(self, x):
        if isinstance(x, dict):
            x = x["a"], x["b"]
        return self.a(x[0]) + self.b(x[1])


def test_several_inputs_are_a_tuple_a_dict_or_arguments():
    x, words = torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)
    inputs = "(float32 [4, 3], int64 [4])", "{a: float32 [4, 3], b: int64 [4]}"
    made = summary(Two(), (x, words)), summary(Two(), {"a": x, "b": words})
    assert tuple(each.inputs for each in made) == inputs
    assert [(n.path, n.input_shape, n.shape) for n in made[0].layers] == [
        ("a", (4, 3), (4, 2)),
        ("b", (4,), (4, 2)),
    ]
    assert {each.parameters for each in made} == {3 * 2 + 2 + 7 * 2}
    assert (
        summary(nn.Bilinear(3, 2, 1), x, torch.zeros(4, 2)).inputs
        == "float32 [4, 3], float32 [4, 2]"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((nn.Conv2d(3, 4, 3),), r"a summary needs inputs .*: summary\(net, torch.zeros\(1, 3, 224"),
        (
            (mlp(3, 1), (1, 3)),
            r"a summary needs tensors .*: summary\(net, torch.zeros\(1, 3",
        ),
        ((mlp(3, 2, 1), torch.zeros(2, 4)), r"layer '0', a Linear .* cannot take .* \[2, 4\]"),
        ((nn.Linear,), "the net is the class Linear"),
    ],
)
def test_a_summary_that_cannot_be_made_says_what_to_pass(arguments, message):
    with pytest.raises(MipError, match=message):
        summary(*arguments)


def test_a_plan_is_no_net(plan):
    with pytest.raises(MipError, match=r"plan\.example\(\)"):
        summary(plan, mip.build(plan))
    assert summary(mip.build(plan), plan.example()).parameters > 0
