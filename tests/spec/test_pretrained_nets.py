"""First specs of photos that a pretrained net reads: which net a file holds, and what follows."""

from __future__ import annotations

import re
import shutil
import sys

import pytest
import torch
import torchvision
from safetensors.torch import save_file

import mip
from mip.errors import DataError, SpecError
from mip.spec import PretrainedNet, cached_net, draft, file_net, library_net, make_draft
from mip.spec.drafts.photos.nets import DEFAULT_BACKBONE, backbones_named
from mip.spec.drafts.training import MANY_ROWS

LIGHT = "mobilenet_v3_small"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A file with the tensors of a light net, drawn."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / f"{LIGHT}-047dcff4.safetensors"
    save_file(torchvision.models.get_model(LIGHT, weights=None).state_dict(), path)
    return path


@pytest.fixture
def here(folder, tmp_path, monkeypatch):
    """A copy of the small table, and no weights in any cache."""
    shutil.copytree(folder, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # so that it is restored after --offline
    return tmp_path / "here"


# Which net a file holds.

NAMES = {
    "resnet18-f37072fd.pth": ["resnet18", "timm/resnet18"],
    "resnet50_a1_0-14fe96d1.pth": ["resnet50", "timm/resnet50"],
    "tf_efficientnet_lite0.safetensors": ["timm/tf_efficientnet_lite0"],
    "tf_efficientnet_b0.ns_jft_in1k.bin": ["timm/tf_efficientnet_b0"],
    "efficientnet_b0_rwightman-7f5810bc.pth": ["efficientnet_b0", "timm/efficientnet_b0"],
    "vit_b_16-c867db91.PTH": ["vit_b_16"],
}


@pytest.mark.parametrize(("name", "backbones"), NAMES.items())
def test_a_file_is_named_after_a_backbone(tmp_path, name, backbones):
    pytest.importorskip("timm", reason="timm is an extra")
    assert backbones_named(tmp_path / name) == backbones


def test_the_weights_that_torchvision_publishes_are_named_after_their_nets(tmp_path):
    odd = {"mnasnet", "shufflenet"}  # which have other names there
    for name in torchvision.models.list_models(module=torchvision.models):
        for weights in torchvision.models.get_model_weights(name):
            path = tmp_path / weights.url.rpartition("/")[2]
            assert any(map(name.startswith, odd)) or backbones_named(path)[0] == name


def test_a_name_that_says_nothing_is_an_error_with_the_nearest(tmp_path):
    with pytest.raises(SpecError, match=r"resnet_18\.pt: is named after no .*'resnet18'\?"):
        backbones_named(tmp_path / "resnet_18.pt")
    with pytest.raises(SpecError, match="say which with --backbone NAME"):
        backbones_named(tmp_path / "model.safetensors")


def test_without_timm_its_files_are_named_with_the_cure(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SpecError, match=r"pip install 'mixed-input-pipelines\[timm\]'"):
        backbones_named(tmp_path / "tf_efficientnet_lite0.safetensors")


def test_the_tensors_decide_which_library_a_net_is_of(tmp_path):
    timm = pytest.importorskip("timm", reason="timm is an extra")
    path = tmp_path / "mnasnet_050-1.safetensors"
    save_file(timm.create_model("mnasnet_050").state_dict(), path)
    assert file_net(path, "w").backbone == "timm/mnasnet_050"
    shutil.move(path, tmp_path / "mobilenet_v2.safetensors")
    with pytest.raises(DataError, match="named after mobilenet_v2: if it is another, --backbone"):
        file_net(tmp_path / "mobilenet_v2.safetensors", "w")
    other = file_net(tmp_path / "mobilenet_v2.safetensors", "w", "timm/mnasnet_050")
    assert (other.backbone, other.pretrained, other.size) == ("timm/mnasnet_050", "w", 224)


def test_pixels_are_those_that_the_library_knows_of(drawn):
    net = file_net(drawn, "w")
    assert (net.backbone, net.size) == (LIGHT, 224)
    assert (net.mean, net.std) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert library_net("inception_v3").size == 299


def test_the_net_that_is_proposed_has_levels_and_is_used_if_it_is_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert library_net().backbone == DEFAULT_BACKBONE
    assert library_net().has_levels()
    assert cached_net() is None
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    (tmp_path / "hub/checkpoints/efficientnet_b0_rwightman-7f5810bc.pth").touch()
    assert str(tmp_path) in cached_net().why


@pytest.mark.parametrize(
    ("backbone", "weights", "text"),
    [
        ("resnet81", "DEFAULT", "--backbone resnet81 is not a backbone; did you mean 'resnet18'"),
        ("resnet18", "IMAGENET", "resnet18 has no weights 'IMAGENET'; did you mean"),
        ("small", "DEFAULT", "--backbone small: has no weights but those of a file"),
    ],
)
def test_a_net_of_a_library_is_checked(backbone, weights, text):
    with pytest.raises(mip.MipError, match=re.escape(text)):
        library_net(backbone, weights)


# What follows from it.


def draft_of(n_rows, photos_alone, net, **more):
    cells = [[[[k % 256] * 3] * 4] * 4 for k in range(n_rows)]
    photos = [torch.tensor(cell, dtype=torch.uint8).numpy() for cell in cells]
    numbers = {} if photos_alone else {"x": [k / 7 for k in range(n_rows)]}
    rows = mip.from_columns({"photo": photos, **numbers, "y": [k % 97 / 3 for k in range(n_rows)]})
    return make_draft(rows, "y", "rows.csv", find_net=lambda: net, **more)


NET = PretrainedNet(LIGHT, "w.pt", 224, "drawn")


def test_few_photos_beside_a_table_are_a_residual_branch():
    spec = mip.parse(draft_of(30, False, NET).text)
    assert spec.fusion.residual == ("photos",)
    photos = spec.branch["photos"]
    assert (photos.freeze, photos.feature_layer, photos.layers) == ("all", "levels", ())
    assert (photos.backbone, photos.pretrained, photos.size) == (LIGHT, "w.pt", 224)


def test_many_photos_beside_a_table_are_joined_to_it():
    spec = mip.parse(draft_of(MANY_ROWS, False, NET).text)
    assert not spec.fusion.residual
    assert spec.branch["photos"].layers
    assert spec.branch["photos"].freeze == "all"


def test_photos_alone_are_read_at_several_depths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a folder without images, of which the notes would speak first
    made = draft_of(30, True, NET)
    photos = mip.parse(made.text).branch["photos"]
    assert (photos.feature_layer, photos.feature_norm, photos.freeze) == ("levels", "batch", "all")
    assert made.photo_columns == ("photo",)
    assert "photos: drawn, and is frozen; --backbone small trains a small one" in made.notes[0]


def test_a_net_without_maps_has_its_last_features():
    pytest.importorskip("timm", reason="timm is an extra")
    assert not PretrainedNet("timm/vit_tiny_patch16_224", "w.pt", 32, "drawn").has_levels()


def test_a_draft_does_not_depend_on_what_is_cached(table, tmp_path, monkeypatch):
    before = draft(table, "price", "houses.csv")
    assert 'backbone = "small"' in before
    assert "mip new --pretrained" in before
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    (tmp_path / "hub/checkpoints/efficientnet_b0_rwightman-7f5810bc.pth").touch()
    assert draft(table, "price", "houses.csv") == before


# On the command line.


def test_weights_in_a_file_are_named_by_their_place(here, drawn, run):
    (here / "weights").mkdir()
    shutil.copy(drawn, here / "weights")
    weights = f"weights/{drawn.name}"
    code, out, err = run("new", "houses.csv", "--target", "price", "--pretrained", weights)
    assert code == 0, err
    assert f"photos: {LIGHT}, pretrained: {drawn.name} holds its tensors" in out
    assert mip.load_spec("houses.toml").branch["photos"].pretrained == weights
    moved = here.parent / "other.toml"
    words = ["--pretrained", weights, "--out", moved]
    assert run("new", "houses.csv", "--target", "price", *words)[0] == 0
    assert mip.load_spec(moved).branch["photos"].pretrained == f"here/{weights}"


def test_an_option_may_stand_alone(here, run):
    code, out, _ = run("new", "houses.csv", "--pretrained", "--target", "price")
    assert code == 0
    assert f"photos: {DEFAULT_BACKBONE}, pretrained: its weights DEFAULT, which a fit" in out
    assert mip.load_spec("houses.toml").branch["photos"].pretrained == "DEFAULT"
    assert run("new", "houses.csv", "--target", "price", "--force", "--backbone", "small")[0] == 0
    assert 'backbone = "small"' in (here / "houses.toml").read_text()


def test_weights_that_are_cached_are_used_and_said(here, run, tmp_path):
    checkpoints = tmp_path / "torch/hub/checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "efficientnet_b0_rwightman-7f5810bc.pth").touch()
    code, out, _ = run("new", "houses.csv", "--target", "price")
    assert code == 0
    assert f"its weights DEFAULT, in {checkpoints}" in out
    assert f"# {DEFAULT_BACKBONE}, pretrained: its" in (here / "houses.toml").read_text()


def test_a_table_without_photos_has_nothing_to_read(here, run):
    without = ["--without", "front", "--without", "back"]
    code, _, err = run("new", "houses.csv", "--target", "price", "--pretrained", *without)
    assert code == 2
    assert "houses.csv: has no photos, which --pretrained and --backbone are for" in err
    assert not (here / "houses.toml").exists()


def test_offline_says_in_a_line_what_is_missing(here, run):
    assert run("new", "houses.csv", "--target", "price", "--pretrained")[0] == 0
    small = ["--set", "branch.photos.size=32"]
    code, _, err = run("fit", "houses.toml", "--offline", *small)
    assert code == 2
    assert err.count("\n") == 1
    assert "efficientnet_b0_rwightman-7f5810bc.pth, and cannot be downloaded: --offline" in err
