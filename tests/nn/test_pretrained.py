"""Pretrained weights from a file: for every source of backbones, strictly, and relative to the
spec.
"""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import mip
from mip.branches import Image
from mip.errors import DataError, FileError, SpecError
from mip.nn import file_digest, load_pretrained, source_of
from mip.spec import to_dict

BACKBONES = {
    "small": {"base_channels": 4},
    "conv": {"channels": [4, 8]},
    "mobilenet_v3_small": {},
    "timm/mobilenetv3_small_050": {},
}


@pytest.fixture(scope="module")
def photos():
    rng = np.random.default_rng(0)
    cells = [rng.integers(0, 256, (40, 30, 3), dtype=np.uint8) for _ in range(8)]
    return mip.from_columns({"photo": cells, "y": [float(k) for k in range(8)]})


def spec(backbone="small", **more):
    photo = {"kind": "image", "columns": ["photo"], "backbone": backbone, "size": 32, **more}
    return mip.parse(
        "",
        changes={
            "branch.photo": photo,
            "head": {"kind": "regression", "column": "y"},
            "train": {"epochs": 2, "batch_size": 4},
        },
    )


def draw_backbone(name, seed=5, **more):
    """Draw the weights of a whole model, which for a library's has a classifier too."""
    if name.startswith("timm/"):
        pytest.importorskip("timm", reason="timm is an extra")
    torch.manual_seed(seed)
    branch = Image(["photo"], size=32, backbone=name, **more)
    if branch.of_library:
        return source_of(name).build(None, 32, classifier=True).state_dict()
    module = branch.module({"mean": [0.5] * 3, "std": [0.5] * 3, "most": [1]})
    # Its own nets have their channels last in memory, which safetensors refuses.
    return {name: each.contiguous() for name, each in module.backbone.state_dict().items()}


def backbone_of(net):
    return net.body.branch["photo"].backbone


def write_small(path, **more):
    save_file(draw_backbone("small", base_channels=4, **more), path)
    return path


# What is read.


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize(("name", "more"), BACKBONES.items(), ids=BACKBONES)
def test_a_file_gives_a_backbone_all_its_tensors(photos, tmp_path, name, more, suffix):
    given = draw_backbone(name, **more)
    path = tmp_path / f"weights.{suffix}"
    torch.save(given, path) if suffix == "pt" else save_file(given, path)
    read = spec(name, pretrained=path.name, **more)
    plan = mip.adapt(read, photos, base=tmp_path)
    loaded = backbone_of(mip.build(plan, base=tmp_path)).state_dict()
    assert loaded
    assert all(torch.equal(loaded[name], given[name]) for name in loaded)
    assert plan.facts["branch"]["photo"]["sha256"] == file_digest(path)


@pytest.mark.parametrize("wrapped", ["nested", "module.", "body.branch.other.backbone."])
def test_names_may_be_nested_and_have_a_prefix(tmp_path, wrapped):
    given = draw_backbone("small", base_channels=4)
    prefix = wrapped if wrapped.endswith(".") else ""
    tensors = {prefix + name: tensor for name, tensor in given.items()}
    tensors |= {"head.0.weight": torch.zeros(1)}
    held = tensors if prefix else {"state_dict": tensors, "epoch": 3}
    torch.save(held, tmp_path / "weights.pth")
    branch = Image(["photo"], size=32, base_channels=4, pretrained=str(tmp_path / "weights.pth"))
    module = branch.module({"mean": [0.5] * 3, "std": [0.5] * 3, "most": [1]})
    branch.pretrain(module)
    loaded = module.backbone.state_dict()
    assert all(torch.equal(loaded[name], given[name]) for name in given)


def test_the_backbone_of_a_model_of_mip_is_read(photos, tmp_path):
    mip.run(spec(base_channels=4), (photos,), out=tmp_path / "run")
    path = tmp_path / "run/checkpoints/last.safetensors"
    _, state = mip.files.load_model(path)
    other = spec(base_channels=4, pretrained=str(path), pool="max")
    loaded = backbone_of(mip.build(mip.adapt(other, photos))).state_dict()
    given = {**state.params, **state.buffers}
    start = "body.branch.photo.backbone."
    assert all(torch.equal(loaded[name], given[start + name]) for name in loaded)


def test_positions_of_a_transformer_are_fitted_to_the_size(photos, tmp_path):
    timm = pytest.importorskip("timm", reason="timm is an extra")
    given = timm.create_model("vit_tiny_patch16_224").state_dict()
    save_file(given, tmp_path / "vit.safetensors")
    read = spec("timm/vit_tiny_patch16_224", pretrained=str(tmp_path / "vit.safetensors"))
    loaded = backbone_of(mip.build(mip.adapt(read, photos))).state_dict()
    assert loaded["pos_embed"].shape[1] == 2 * 2 + 1
    same = loaded.keys() - {"pos_embed"}
    assert all(torch.equal(loaded[name], given[name]) for name in same)


def test_a_feature_extractor_gets_the_weights_before_its_layer(photos, tmp_path):
    given = draw_backbone("mobilenet_v3_small")
    save_file(given, tmp_path / "net.safetensors")
    read = spec(
        "mobilenet_v3_small",
        pretrained=str(tmp_path / "net.safetensors"),
        feature_layer="features.4",
    )
    loaded = backbone_of(mip.build(mip.adapt(read, photos))).state_dict()
    assert len(loaded) < len(given) / 2
    assert all(torch.equal(loaded[name], given[name.removeprefix("cut.")]) for name in loaded)


NORMALIZATION = {
    "small": ([0.5] * 3, [0.25] * 3),
    "mobilenet_v3_small": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "timm/tf_efficientnet_lite0": ([0.5] * 3, [0.5] * 3),
}


@pytest.mark.parametrize("name", NORMALIZATION)
def test_pixels_are_normalized_as_the_library_or_the_spec_says(photos, tmp_path, name):
    if name.startswith("timm/"):
        pytest.importorskip("timm", reason="timm is an extra")
    path = write_small(tmp_path / "weights.safetensors")
    facts = mip.adapt(spec(name, pretrained=str(path)), photos).facts["branch"]["photo"]
    assert (facts["mean"], facts["std"]) == NORMALIZATION[name]
    given = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    facts = mip.adapt(spec(name, pretrained=str(path), **given), photos).facts["branch"]["photo"]
    assert {name: facts[name] for name in given} == given


# Where files are.


def write_spec(folder, **more):
    """Write a spec with its table and weights beside it."""
    folder.mkdir()
    write_small(folder / "weights.safetensors")
    for k in range(8):
        save_photo(folder / f"{k}.png", k)
    rows = "".join(f"{k}.png,{k}\n" for k in range(8))
    (folder / "table.csv").write_text(f"photo,y\n{rows}")
    read = spec(base_channels=4, pretrained="weights.safetensors", **more)
    data = {"table": "table.csv", "split": {"fractions": [0.5, 0.25, 0.25]}}
    tree = mip.parse("", changes={**to_dict(read), "data": data})
    (folder / "spec.toml").write_text(mip.dump(tree))
    return folder / "spec.toml"


def save_photo(path, k):
    from PIL import Image as Pillow

    Pillow.new("RGB", (40, 30), (30 * k, 80, 120)).save(path)


def run_spec(path, out, **more):
    context = mip.Context(base=path.parent)
    table = mip.read(path.parent / "table.csv")
    return mip.run(mip.load_spec(path), table, out=out, context=context, **more)


def test_a_run_folder_names_the_file_and_its_model_does_not_need_it(tmp_path):
    path = write_spec(tmp_path / "made")
    ended = run_spec(path, tmp_path / "run")
    stored = mip.load_spec(tmp_path / "run/spec.toml").branch["photo"].pretrained
    assert stored == "../made/weights.safetensors"
    assert mip.files.input_files(mip.load_spec(path), path.parent)[0].name == "weights.safetensors"
    (tmp_path / "made/weights.safetensors").unlink()
    table = mip.read(tmp_path / "made/table.csv")
    loaded = mip.load(tmp_path / "run/model.safetensors")
    assert loaded(table).equals(ended.predict(table))


def test_a_run_is_resumed_where_the_file_lies_now_and_not_with_another_one(tmp_path):
    path = write_spec(tmp_path / "made")
    run_spec(path, tmp_path / "run")
    shutil.move(tmp_path / "made", tmp_path / "moved")
    path = tmp_path / "moved/spec.toml"
    run_spec(path, tmp_path / "run", resume=True)
    write_small(tmp_path / "moved/weights.safetensors", seed=6)
    with pytest.raises(SpecError, match=r"not the same run: branch\.photo\.pretrained was sha256-"):
        run_spec(path, tmp_path / "run", resume=True)


def test_a_sweep_is_not_continued_with_another_file(tmp_path):
    path = write_spec(tmp_path / "made")
    values = {"train.seed": [0]}
    (first,) = mip.runs.sweep(path, values, tmp_path / "runs")
    (again,) = mip.runs.sweep(path, values, tmp_path / "runs")
    assert first.outcomes[0].scores == again.outcomes[0].scores
    write_small(tmp_path / "made/weights.safetensors", seed=6)
    (other,) = mip.runs.sweep(path, values, tmp_path / "runs")
    assert "holds a run of another spec or other rows" in str(other.outcomes[0].error)


def test_a_change_on_the_command_line_is_relative_to_the_current_folder(tmp_path, monkeypatch):
    from mip.cli.inputs import parse_changes, parse_choices

    monkeypatch.chdir(tmp_path)
    name = "branch.photo.pretrained"
    assert parse_changes([f"{name}=a.pt"]) == {name: str(tmp_path / "a.pt")}
    assert parse_changes([f"{name}=DEFAULT"]) == {name: "DEFAULT"}
    both = [str(tmp_path / "a.pt"), str(tmp_path / "b.pt")]
    assert parse_choices([f"{name}=a.pt,b.pt"]) == {name: both}


# Mistakes.


def broken(change):
    tensors = draw_backbone("small", base_channels=4)
    change(tensors)
    return tensors


def rename(tensors):
    tensors["0.wieght"] = tensors.pop("0.weight")


def reshape(tensors):
    tensors["3.first.weight"] = torch.zeros(8, 4, 3, 3)


def drop_all(tensors):
    for name in [*tensors]:
        tensors[f"other_{name.replace('.', '_')}"] = tensors.pop(name)


WRONG = {
    "there is no 0.weight (nearest: 0.wieght)": rename,
    "3.first.weight is [8, 4, 3, 3], and must be [4, 4, 3, 3]": reshape,
    "there is no 0.weight (nearest: other_0_weight); there is no 1.weight (nearest: other_1_weight)"
    "; there is no 1.bias (nearest: other_1_bias); there is no 1.running_mean (nearest: "
    "other_1_running_mean); and 34 more": drop_all,
}


@pytest.mark.parametrize(("text", "change"), WRONG.items())
def test_what_does_not_fit_is_named(photos, tmp_path, text, change):
    path = tmp_path / "weights.safetensors"
    save_file(broken(change), path)
    read = spec(base_channels=4, pretrained=str(path))
    with pytest.raises(DataError) as caught:
        mip.build(mip.adapt(read, photos))
    assert str(caught.value) == f"{path}: does not hold the backbone: {text}"


def test_a_backbone_that_does_not_fit_is_left_as_it_was():
    net = nn.Sequential(nn.Linear(2, 1))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(DataError):
        load_pretrained(net, {"0.weight": torch.ones(1, 2)}, "a.pt")
    assert all(torch.equal(net.state_dict()[name], before[name]) for name in before)


def test_a_file_with_two_backbones_that_fit_is_an_error():
    net = nn.Linear(2, 1)
    twice = {f"{start}.{name}": t for start in "ab" for name, t in net.state_dict().items()}
    with pytest.raises(DataError, match=r"several backbones that fit: below 'a\.' and 'b\.'"):
        load_pretrained(net, twice, "a.pt")


def test_a_file_that_is_not_there_is_named_with_the_nearest(photos, tmp_path):
    write_small(tmp_path / "weights.safetensors")
    read = spec(base_channels=4, pretrained="wieghts.safetensors")
    with pytest.raises(FileError, match=r"cannot be read .* did you mean 'weights\.safetensors'"):
        mip.adapt(read, photos, base=tmp_path)


def test_a_file_that_would_run_code_is_refused(photos, tmp_path):
    torch.save(nn.Linear(2, 1), tmp_path / "whole.pt")
    read = spec(base_channels=4, pretrained=str(tmp_path / "whole.pt"))
    with pytest.raises(FileError, match="reading that could run code"):
        mip.build(mip.adapt(read, photos))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"mean": [0.5, 0.5]}, r"branch\.photo\.mean must be three numbers: \[0\.5, 0\.5\]"),
        ({"std": [0.5, 0.5, 0.0]}, r"branch\.photo\.std must be three numbers above 0"),
        ({"pretrained": "DEFAULT"}, r"has none but files \(\.safetensors, \.pt, \.pth, \.bin\)"),
    ],
)
def test_fields_are_checked(fields, text):
    with pytest.raises(SpecError, match=text):
        spec(**fields)
