"""Backbones by name: any torchvision classification model, with pretrained weights on request."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pandas as pd
import pytest
import torch
import torchvision
from PIL import Image as Pillow
from torch import nn

import mip
from mip.branches import Image
from mip.data import from_frame
from mip.nn import LevelFeatures


@pytest.fixture
def photos(tmp_path):
    for k in range(4):
        Pillow.new("RGB", (40, 30), (60 * k, 80, 120)).save(tmp_path / f"{k}.png")
    frame = pd.DataFrame({"photo": [f"{k}.png" for k in range(4)], "y": [1.0, 2.0, 3.0, 4.0]})
    return from_frame(frame, root=tmp_path)


def spec(backbone: str, **more: object) -> mip.spec.Spec:
    photo = {"kind": "image", "columns": ["photo"], "backbone": backbone, **more}
    return mip.parse(
        "", changes={"branch.photo": photo, "head": {"kind": "regression", "column": "y"}}
    )


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Put weights where torchvision looks before it downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(5)
    weights = torchvision.models.resnet18(weights=None).state_dict()
    url = torchvision.models.ResNet18_Weights.DEFAULT.url
    torch.save(weights, folder / url.rsplit("/", 1)[1])
    return weights


def test_pretrained_weights_come_through_torchvisions_own_loader(photos, cached):
    plan = mip.adapt(spec("resnet18", pretrained="DEFAULT", size=32), photos)
    net = mip.build(plan)
    loaded = net.body.branch["photo"].backbone.state_dict()
    assert "fc.weight" not in loaded
    assert all(torch.equal(loaded[name], cached[name]) for name in loaded)
    assert plan.facts["branch"]["photo"]["mean"] == [0.485, 0.456, 0.406]


def test_a_saved_model_needs_no_weights_to_load(photos, cached, tmp_path, monkeypatch):
    plan = mip.adapt(spec("resnet18", pretrained="DEFAULT", size=32), photos)
    optimizer = mip.sgd(0.1)
    mip.save(tmp_path / "model.safetensors", plan, mip.init(mip.build(plan), optimizer))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "nothing-here"))
    assert len(mip.load(tmp_path / "model.safetensors")(photos)) == 4


def test_unknown_weights_are_named(photos):
    with pytest.raises(
        mip.MipError, match=r"resnet18 has no weights 'IMAGENET1K_V9'; did you mean"
    ):
        mip.adapt(spec("resnet18", pretrained="IMAGENET1K_V9"), photos)


def test_unknown_backbones_are_named():
    with pytest.raises(
        mip.MipError, match=r"backbone = 'resnet81' is not a backbone; did you mean"
    ):
        spec("resnet81")


def test_without_timm_the_error_suggests_a_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(mip.errors.SpecError) as caught:
        spec("timm/resnet18")
    text = "needs timm: pip install 'mixed-input-pipelines[timm]'"
    assert str(caught.value) == f"branch.photo.backbone = 'timm/resnet18' {text}"


def test_weights_that_cannot_be_downloaded_are_named(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "nothing-here"))

    def none(*_, **__):
        raise OSError("no way\nto the network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", none)
    with pytest.raises(mip.errors.DataError) as caught:
        mip.build(mip.adapt(spec("resnet18", pretrained="DEFAULT", size=32), photos))
    path = tmp_path / "nothing-here/hub/checkpoints/resnet18-f37072fd.pth"
    why = "cannot be downloaded: no way to the network"
    cure = 'pretrained = "FILE" takes them from a file'
    text = f"resnet18: the weights 'DEFAULT' are not in {path}, and {why}; {cure}"
    assert str(caught.value) == text


def test_weights_in_the_cache_that_are_damaged_are_named(photos, cached, tmp_path):
    path = tmp_path / "torch/hub/checkpoints/resnet18-f37072fd.pth"
    path.write_bytes(b"nothing")
    with pytest.raises(mip.errors.DataError) as caught:
        mip.build(mip.adapt(spec("resnet18", pretrained="DEFAULT", size=32), photos))
    assert str(caught.value).startswith(
        f"resnet18: the weights 'DEFAULT' in {path} cannot be read: "
    )


@pytest.mark.parametrize("name", ["resnet18", "timm/resnet18"])
def test_offline_the_network_is_not_asked(name, photos, tmp_path, monkeypatch):
    if name.startswith("timm/"):
        pytest.importorskip("timm", reason="timm is an extra")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def refused(*_):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refused)
    with pytest.raises(mip.errors.DataError, match="--offline or HF_HUB_OFFLINE forbids it"):
        mip.build(mip.adapt(spec(name, pretrained="DEFAULT", size=32), photos))


def test_the_small_backbone_has_no_weights():
    with pytest.raises(mip.MipError, match=r"branch\.photo\.pretrained must be left out"):
        spec("small", pretrained="DEFAULT")


def test_a_photo_too_small_for_its_backbone_names_the_branch(photos):
    with pytest.raises(mip.MipError, match=r"branch\.photo"):
        mip.build(mip.adapt(spec("alexnet", size=16), photos))


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1"])
def test_light_backbones_give_one_prediction_per_row(photos, name):
    plan = mip.adapt(spec(name, size=64), photos)
    assert mip.build(plan).eval()(plan.encode(photos).inputs).shape == (4,)


@pytest.mark.slow
@pytest.mark.parametrize("name", torchvision.models.list_models(module=torchvision.models))
def test_every_torchvision_backbone_builds(photos, name):
    if name in {"regnet_y_128gf", "vit_h_14"}:
        pytest.skip("half a billion parameters and more: too large for a test machine")
    plan = mip.adapt(spec(name, size=299 if name == "inception_v3" else 224), photos)
    net = mip.build(plan)
    with torch.no_grad():
        features = net.eval().body(plan.example())
    assert net.head[0].in_features == features.shape[1] > 0


@pytest.mark.parametrize("pool", ["mean", "max", "concat", "attention"])
def test_photos_of_a_row_are_pooled(photos, pool):
    frame = photos.frame.assign(other=photos.frame["photo"])
    rows = from_frame(frame, root=photos.root)
    branch = Image(("photo", "other"), size=16, base_channels=4, pool=pool)
    module = branch.module(branch.adapt(rows)).eval()
    vectors = module(branch.encode(branch.adapt(rows), rows))
    assert vectors.shape == (4, 32 if pool == "concat" else 16)


def test_modules_before_a_feature_layer_are_frozen_by_their_names(photos):
    cut = spec("mobilenet_v3_small", feature_layer="features.4", freeze="features.1", size=32)
    net = mip.build(mip.adapt(cut, photos))
    held = [path for path, param in net.named_parameters() if not param.requires_grad]
    assert held
    assert all(".features.0." in path or ".features.1." in path for path in held)
    wrong = spec("mobilenet_v3_small", feature_layer="features.4", freeze="feature.1", size=32)
    with pytest.raises(mip.errors.SpecError, match=r"freeze = 'feature\.1' .* 'features\.1'\?"):
        mip.build(mip.adapt(wrong, photos))


LEVELS = {
    ("small", 48): [16, 32, 64],
    ("resnet18", 64): [64, 128, 256, 512],
    ("mobilenet_v3_small", 64): [16, 24, 48, 576],
}


@pytest.mark.parametrize(("name", "size"), LEVELS)
def test_levels_are_mean_and_maximum_of_maps_at_several_depths(name, size):
    branch = Image(["photo"], size=size, backbone=name, feature_layer="levels")
    module = branch.module({"mean": [0.5] * 3, "std": [0.5] * 3, "most": [1]}).eval()
    backbone, photos = module.backbone, torch.rand(2, 3, size, size)
    with torch.no_grad():
        maps = [*backbone.cut(photos).values()]
        features = backbone(photos)
    assert [m.shape[1] for m in maps] == LEVELS[name, size]
    sides = [m.shape[2] for m in maps]
    assert sides == sorted(sides, reverse=True)
    expected = [pooled for m in maps for pooled in (m.mean((2, 3)), m.amax((2, 3)))]
    assert torch.equal(features, torch.cat(expected, dim=1))


def test_levels_take_pretrained_weights_and_can_be_frozen(photos, cached):
    levels = {"feature_layer": "levels", "freeze": "all", "size": 32}
    plan = mip.adapt(spec("resnet18", pretrained="DEFAULT", **levels), photos)
    net = mip.build(plan)
    loaded = net.body.branch["photo"].backbone.state_dict()
    assert all(torch.equal(loaded[name], cached[name.removeprefix("cut.")]) for name in loaded)
    encoding = mip.model.with_features(plan, net.body, photos)
    net.eval()
    with torch.no_grad():
        ours, theirs = (net(each.encode(photos).inputs) for each in (encoding, plan))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


class ChannelsLast(nn.Module):
    """Halve a map whose channels are last."""

    def forward(self, x):
        return torch.nn.functional.avg_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


def test_levels_may_have_their_channels_last():
    first = nn.Conv2d(3, 5, 2, 2)
    levels = LevelFeatures(nn.Sequential(first, ChannelsFirstToLast(), ChannelsLast()), 16)
    photos = torch.rand(2, 3, 16, 16)
    whole = first(photos)
    half = torch.nn.functional.avg_pool2d(whole, 2)
    expected = [pool(m, (2, 3)) for m in (whole, half) for pool in (torch.mean, torch.amax)]
    torch.testing.assert_close(levels(photos), torch.cat(expected, dim=1))


class ChannelsFirstToLast(nn.Module):
    """Put the channels of a map last."""

    def forward(self, x):
        return x.permute(0, 2, 3, 1)


def test_levels_need_maps_of_several_resolutions(photos):
    with pytest.raises(mip.MipError, match="needs a backbone with maps of two resolutions"):
        LevelFeatures(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 5)), 8)
    with pytest.raises(mip.MipError, match=r"photo\.global_pool must be left out: 'levels'"):
        spec("small", feature_layer="levels", global_pool="max")


GRADIENTS = """
import copy, torch
from mip.nn import SmallResNet
torch.manual_seed(0)
for width in (2, 4, 6):
    net = SmallResNet(width).to(memory_format=torch.channels_last)
    exact, photos = copy.deepcopy(net).double(), torch.rand(16, 3, 32, 32)
    net(photos.to(memory_format=torch.channels_last)).square().sum().backward()
    exact(photos.double()).square().sum().backward()
    for one, other in zip(net.parameters(), exact.parameters()):
        assert (one.grad - other.grad).abs().max() < 1e-3 * other.grad.abs().max(), width
"""


@pytest.mark.slow
def test_a_narrow_net_has_the_right_gradients_without_avx512():
    # Where oneDNN writes out of bounds the process may die, so it is a separate one.
    env = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    run = [sys.executable, "-c", GRADIENTS]
    done = subprocess.run(run, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
