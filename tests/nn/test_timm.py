"""timm's models as backbones: features, weights from the hub's cache, and never the network."""

from __future__ import annotations

import socket

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import mip
from mip.branches import Image
from mip.errors import DataError, SpecError

timm = pytest.importorskip("timm", reason="timm is an extra")

SMALL = "timm/mobilenetv3_small_050"
WIDTHS = {
    "timm/efficientnet_b0": 1280,
    "timm/mobilenetv3_small_050": 1024,
    "timm/resnet18": 512,
    "timm/swin_tiny_patch4_window7_224": 768,
    "timm/vit_tiny_patch16_224": 192,
}


@pytest.fixture(scope="module")
def photos():
    cells = [np.full((40, 30, 3), 60 * k, dtype=np.uint8) for k in range(4)]
    return mip.from_columns({"photo": cells, "y": [1.0, 2.0, 3.0, 4.0]})


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """An empty cache of the Hugging Face hub, and no way to the network."""
    from huggingface_hub import constants

    def refused(*_):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def put(hub, name):
    """Draw weights for a name with its tag and put them where the hub's library looks."""
    torch.manual_seed(5)
    weights = timm.create_model(name).state_dict()
    folder = hub / f"models--timm--{name}"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    save_file(weights, folder / "snapshots" / "abc" / "model.safetensors")
    return weights


def spec(backbone: str, **more: object) -> mip.spec.Spec:
    photo = {"kind": "image", "columns": ["photo"], "backbone": backbone, "size": 32, **more}
    return mip.parse(
        "", changes={"branch.photo": photo, "head": {"kind": "regression", "column": "y"}}
    )


def backbone_of(net):
    return net.body.branch["photo"].backbone


@pytest.mark.parametrize(("name", "width"), WIDTHS.items(), ids=WIDTHS)
def test_features_are_those_before_the_classifier(photos, name, width):
    plan = mip.adapt(spec(name), photos)
    net = mip.build(plan).eval()
    assert net.head[0].in_features == width
    assert net(plan.encode(photos).inputs).shape == (4,)


def test_an_efficientnet_has_its_width_inferred_and_as_many_outputs_as_classes():
    photos = [np.zeros((9, 9, 3), np.uint8)] * 53
    rows = mip.from_columns({"photo": photos, "card": [f"card {k}" for k in range(53)]})
    head = {"kind": "multiclass", "column": "card"}
    plan = mip.adapt(
        mip.parse(mip.dump(spec("timm/efficientnet_b0")), changes={"head": head}), rows
    )
    net = mip.build(plan)
    assert (net.head[0].in_features, net.head[-1].out_features) == (1280, 53)


def test_initial_weights_are_a_function_of_the_seed(photos):
    plan = mip.adapt(spec(SMALL), photos)
    first, second, third = (mip.build(plan, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], third[name]) for name in first)


# Weights.


@pytest.mark.parametrize("weights", ["DEFAULT", "ra_in1k"])
def test_weights_are_read_from_the_cache_of_the_hub(photos, hub, weights):
    given = put(hub, "efficientnet_b0.ra_in1k")
    plan = mip.adapt(spec("timm/efficientnet_b0", pretrained=weights), photos)
    before = torch.get_rng_state()
    loaded = backbone_of(mip.build(plan)).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert given.keys() - loaded.keys() == {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(loaded[name], given[name]) for name in loaded)
    assert plan.facts["branch"]["photo"]["mean"] == [0.485, 0.456, 0.406]


def test_weights_of_a_transformer_are_fitted_to_the_size(photos, hub):
    given = put(hub, "vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    plan = mip.adapt(spec("timm/vit_tiny_patch16_224", pretrained="DEFAULT"), photos)
    loaded = backbone_of(mip.build(plan)).state_dict()
    assert (given["pos_embed"].shape[1], loaded["pos_embed"].shape[1]) == (14 * 14 + 1, 2 * 2 + 1)
    same = loaded.keys() - {"pos_embed"}
    assert all(torch.equal(loaded[name], given[name]) for name in same)
    assert plan.facts["branch"]["photo"] == {"mean": [0.5] * 3, "std": [0.5] * 3, "most": [1]}


def test_a_feature_extractor_gets_the_weights_before_its_layer(photos, hub):
    given = put(hub, "mobilenetv3_small_050.lamb_in1k")
    plan = mip.adapt(spec(SMALL, pretrained="DEFAULT", feature_layer="blocks.1"), photos)
    loaded = backbone_of(mip.build(plan)).state_dict()
    assert all(torch.equal(loaded[name], given[name.removeprefix("cut.")]) for name in loaded)
    assert len(loaded) < len(given) / 2


@pytest.mark.parametrize("cut", [None, "blocks.2"])
def test_a_saved_model_needs_no_weights_to_load(photos, hub, tmp_path, monkeypatch, cut):
    put(hub, "mobilenetv3_small_050.lamb_in1k")
    more = {"feature_layer": cut} if cut else {}
    plan = mip.adapt(spec(SMALL, pretrained="DEFAULT", **more), photos)
    state = mip.init(mip.build(plan), mip.sgd(0.1))
    mip.save(tmp_path / "model.safetensors", plan, state)
    (hub / "models--timm--mobilenetv3_small_050.lamb_in1k").rename(tmp_path / "elsewhere")
    loaded = mip.load(tmp_path / "model.safetensors")
    assert loaded(photos).equals(mip.predictor(plan, state)(photos))
    assert not list(hub.iterdir())


# Cut and frozen.


CUTS = {
    ("timm/resnet18", "layer2"): 128,
    ("timm/resnet18", "fc"): 1000,
    ("timm/efficientnet_b0", "blocks.2"): 40,
    ("timm/vit_tiny_patch16_224", "blocks.3"): 192,
    ("timm/swin_tiny_patch4_window7_224", "layers.1"): 192,
}


@pytest.mark.parametrize(("name", "cut", "width"), [(*key, CUTS[key]) for key in CUTS])
def test_any_module_is_a_feature_layer(name, cut, width):
    module = Image(["photo"], size=32, backbone=name, feature_layer=cut).module(
        {"mean": [0.5] * 3, "std": [0.5] * 3, "most": [1]}
    )
    pixels = torch.zeros(3, 1, 3, 32, 32, dtype=torch.uint8)
    for mode in (True, False):
        assert module.train(mode)({"pixels": pixels, "present": torch.ones(3, 1)}).shape == (
            3,
            width,
        )


def test_a_model_is_frozen_up_to_a_module(photos):
    net = mip.build(mip.adapt(spec("timm/vit_tiny_patch16_224", freeze="blocks.3"), photos))
    asked = {
        name.partition(".")[0] for name, p in backbone_of(net).named_parameters() if p.requires_grad
    }
    held = [name for name, p in backbone_of(net).named_parameters() if not p.requires_grad]
    assert asked == {"blocks", "norm"}
    assert {"cls_token", "pos_embed", "blocks.3.mlp.fc2.bias"} <= set(held)
    assert not any(name.startswith("blocks.4.") for name in held)


# Errors.


WRONG = {
    "branch.photo.backbone = 'timm/resnet81' is not a backbone; did you mean 'timm/resnet18'?": {
        "backbone": "timm/resnet81"
    },
    "branch.photo.backbone = 'timm/resnet18.a1_in1k' is not a backbone; did you mean": {
        "backbone": "timm/resnet18.a1_in1k"
    },
    "timm/resnet18 has no weights 'a4_in1k'; did you mean 'a3_in1k'? (known: DEFAULT, a1_in1k,": {
        "backbone": "timm/resnet18",
        "pretrained": "a4_in1k",
    },
    "timm/resnet18 has no weights 'IMAGENET1K_V1'": {
        "backbone": "timm/resnet18",
        "pretrained": "IMAGENET1K_V1",
    },
    "branch.photo.feature_layer = 'layer9' is not a module of the backbone; did you mean": {
        "backbone": "timm/resnet18",
        "feature_layer": "layer9",
    },
    "branch.photo.feature_layer = 'blocks.0.attn.attn_drop': the backbone cannot be cut there: "
    "ValueError: node: 'blocks.0.attn.attn_drop' is not present in model": {
        "backbone": "timm/vit_tiny_patch16_224",
        "feature_layer": "blocks.0.attn.attn_drop",
    },
    "branch.photo.size = 40: the backbone 'timm/hiera_tiny_224' cannot take photos of this size ": {
        "backbone": "timm/hiera_tiny_224",
        "size": 40,
    },
    "timm/mobilenetv3_small_050: the weights 'DEFAULT' are not in ": {
        "backbone": SMALL,
        "pretrained": "DEFAULT",
    },
}


@pytest.mark.parametrize(("text", "fields"), WRONG.items())
def test_a_mistake_is_named(photos, text, fields):
    with pytest.raises((DataError, SpecError)) as caught:
        mip.build(mip.adapt(spec(**fields), photos))
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


def test_a_model_without_weights_has_none(photos):
    named = {name.partition(".")[0] for name in timm.list_pretrained()}
    none = next(f"timm/{name}" for name in timm.list_models() if name not in named)
    with pytest.raises(DataError) as caught:
        mip.adapt(spec(none, pretrained="DEFAULT"), photos)
    assert str(caught.value) == f"{none} has no weights 'DEFAULT' (branch.photo)"


@pytest.mark.parametrize("weights", ["DEFAULT", "lamb_in1k"])
def test_weights_that_are_nowhere_are_an_error_after_one_request(weights, photos, monkeypatch):
    from huggingface_hub import constants

    tries = []

    def unreachable(url, timeout=None):
        tries.append(url)
        raise OSError("no route to the hub")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    text = f"the weights '{weights}' are not in .*, and cannot be downloaded: no route to the hub"
    with pytest.raises(DataError, match=text):
        mip.build(mip.adapt(spec(SMALL, pretrained=weights), photos))
    assert len(tries) == 1


def test_weights_in_the_cache_need_no_request(hub, photos, monkeypatch):
    put(hub, "mobilenetv3_small_050.lamb_in1k")
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", None)
    mip.build(mip.adapt(spec(SMALL, pretrained="lamb_in1k"), photos))
