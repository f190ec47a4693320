"""What can be seen of a net's layers while it runs: the statistics of each output, call by call."""

from __future__ import annotations

import pytest
import torch
import torchvision
from mixed_model import mixed
from torch import nn

import mip
from mip.explain import layers, record_activations, to_frame

NET = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU())
X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


def test_W45_mean_and_deviation_of_each_layer_in_each_batch():
    with torch.no_grad(), record_activations(NET) as records:
        outputs = [NET(X), NET(X + 1)]
    table = to_frame(records)
    assert [*zip(table["path"], table["pass"], strict=True)] == [
        (path, batch) for batch in (0, 1) for path in "0123"
    ]
    last = table[table["path"] == "3"]
    assert last["mean"].tolist() == pytest.approx([float(out.mean()) for out in outputs])
    assert last["std"].tolist() == pytest.approx(
        [float(out.std(correction=0)) for out in outputs], rel=1e-5
    )


def test_W46_blocks_are_stacked_and_leave_no_hook_behind():
    with record_activations(NET) as outer:
        with record_activations(NET, "0") as inner:
            NET(X)
        NET(X)
    NET(X)
    assert (len(outer), len(inner)) == (8, 1)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in NET.modules())


def test_W47_hooks_are_removed_when_the_block_fails():
    with pytest.raises(RuntimeError), record_activations(NET, types=nn.Linear) as records:
        NET(X[:, :2])
    NET(X)
    assert not records
    with pytest.raises(RuntimeError), record_activations(NET[1:]) as records:
        NET[1:](X)
    assert [record.path for record in records] == ["1"]
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in NET.modules())


def test_W48_a_plain_function_makes_the_record_and_may_keep_a_state():
    largest = [0.0]

    def record(output):
        largest[0] = max(largest[0], float(output.max()))
        return {"max": output.max(), "so_far": largest[0]}

    with record_activations(NET, "1", record=record) as records:
        for x in (X, 3 * X, 2 * X):
            NET(x)
    table = to_frame(records)
    assert table["so_far"].tolist() == pytest.approx(table["max"].cummax().tolist())
    assert table["max"].tolist() == pytest.approx([NET[:2](k * X).max().item() for k in (1, 3, 2)])


def test_W49_the_leaves_of_any_depth_by_type():
    net = mip.build(mip.adapt(*mixed()))
    assert (len(layers(net, nn.ReLU)), len(layers(net, nn.Conv2d))) == (22, 36)
    assert layers(net) == layers(net)
    assert not any([*module.children()] for _, module in layers(net))
    assert [module for _, module in layers(net, containers=True)] == [*net.modules()]


def test_W50_a_module_that_runs_twice_in_a_pass_has_two_records():
    net = torchvision.models.resnet34().eval()
    with torch.no_grad(), record_activations(net, types=nn.ReLU) as records:
        for _ in range(6):
            net(torch.zeros(1, 3, 16, 16))
    counts = to_frame(records).groupby("path").size()
    assert sorted(counts) == [6] + [12] * 16
    assert [(r.pass_, r.call) for r in records if r.path == "layer1.0.relu"] == [
        (batch, call) for batch in range(6) for call in (0, 1)
    ]
