"""Parts of a model that are trained otherwise: frozen, slower, or from a later epoch on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attrs import evolve
from conftest import spec_of
from mixed_model import mixed
from torch import nn

import mip
from mip.branches import Image
from mip.errors import MipError, SpecError
from mip.model import Parts
from mip.nn import FeatureExtractor, freeze_until
from mip.optim import partition
from mip.runs import prepare_job

GROUP = '[[train.group]]\nmatch = "{match}"\nlr_scale = {lr}\nstart_epoch = {start}\n'


def setup(table, freeze=None, backbone="small", groups="", epochs=3):
    spec = spec_of(train=f"[train]\nepochs = {epochs}\nbatch_size = 4\n{groups}")
    photos = evolve(spec.branch["photos"], freeze=freeze, backbone=backbone, size=32)
    return prepare_job(evolve(spec, branch={**spec.branch, "photos": photos}), all_of(table))


def all_of(table):
    return Parts(table, table.take([]), table.take([]))


def trained(setup, steps=None):
    return mip.fit(setup.step, setup.batches, setup.start.state, steps=steps or setup.steps)


def moved(before, after) -> set[str]:
    pairs = {**before.params, **before.buffers}, {**after.params, **after.buffers}
    return {path for path in pairs[0] if not torch.equal(pairs[0][path], pairs[1][path])}


BACKBONE = "body.branch.photos.backbone."


def test_a_frozen_backbone_stays_as_it_is_statistics_too(table):
    run = setup(table, "all")
    changed = moved(run.start.state, trained(run))
    assert changed
    assert not [path for path in changed if path.startswith(BACKBONE)]
    assert not [path for path in run.start.state.params if path.startswith(BACKBONE)]


def test_a_backbone_is_frozen_up_to_a_module(table):
    run = setup(table, "layer1", "resnet18")
    changed = moved(run.start.state, trained(run, 3))
    first = ("conv1.", "bn1.", "layer1.")
    inside = {path.removeprefix(BACKBONE) for path in changed if path.startswith(BACKBONE)}
    assert not [path for path in inside if path.startswith(first)]
    assert {path.split(".")[0] for path in inside} == {"layer2", "layer3", "layer4"}


def test_frozen_batch_norms_use_the_statistics_that_they_have():
    net = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.9), nn.BatchNorm1d(2))
    assert freeze_until(net, "0") == (net[0],)
    assert [param.requires_grad for param in net.parameters()] == [False, False, True, True]


def test_unknown_modules_are_named(table):
    with pytest.raises(SpecError, match=r"branch\.photos\.freeze = 'layer9' is not a module"):
        setup(table, "layer9", "resnet18")
    with pytest.raises(SpecError, match=r"did you mean 'layer4'"):
        FeatureExtractor(nn.ModuleDict({"layer4": nn.Identity()}), "layer9")


@pytest.mark.parametrize(("name", "width"), [("layer2", 128), ("avgpool", 512), ("fc", 1000)])
def test_a_backbone_is_cut_anywhere(name, width):
    kind = Image(["photo"], size=32, backbone="resnet18", feature_layer=name)
    facts = {"mean": [0.5] * 3, "std": [0.5] * 3, "most": [1]}
    pixels = torch.zeros(2, 1, 3, 32, 32, dtype=torch.uint8)
    module = kind.module(facts)
    assert module({"pixels": pixels, "present": torch.ones(2, 1)}).shape == (2, width)


def test_a_cut_of_a_vision_transformer_is_averaged_over_its_patches():
    import torchvision

    model = torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 16)
    assert FeatureExtractor(model, "encoder.layers.encoder_layer_0")(
        torch.zeros(3, 3, 32, 32)
    ).shape == (3, 8)


@pytest.mark.parametrize(
    ("name", "width"), [("features.0.0", 8), ("features.3", 16), ("permute", 64)]
)
def test_a_cut_of_a_model_with_channels_last_is_averaged_over_its_places(name, width):
    import torchvision

    swin = torchvision.models.SwinTransformer([4, 4], 8, [1] * 4, [1] * 4, [2, 2])
    model = FeatureExtractor(swin, name).eval()
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, width)


def test_where_the_channels_are_is_asked_where_the_shape_says_nothing():
    model = FeatureExtractor(nn.Sequential(nn.Identity()), "0")
    images = torch.rand(1, 3, 3, 3)
    assert torch.equal(model(images), images.mean((2, 3)))
    model.channels_last = True
    assert torch.equal(model(images), images.mean((1, 2)))


def test_a_cut_where_none_can_be_made_says_why():
    with pytest.raises(SpecError) as caught:
        FeatureExtractor(nn.ModuleDict({"unused": nn.Identity()}), "unused")
    message = "feature_layer = 'unused': the backbone cannot be cut there: NotImplementedError: "
    assert str(caught.value).startswith(message)


def test_a_stack_of_convolutions_has_so_many_parameters():
    rows = mip.from_columns({"photo": [np.zeros((9, 9, 3), np.uint8)] * 3, "price": [1.0, 2, 3]})
    spec = mip.parse("""
        branch.photo = { kind = "image", columns = ["photo"], size = 256, backbone = "conv", \
channels = [5, 7, 10, 14] }
        head = { kind = "regression", column = "price", layers = [20, 10] }
    """)
    net = mip.build(mip.adapt(spec, rows))
    assert sum(param.numel() for param in net.parameters()) == 2_897


@pytest.mark.parametrize("option", ["feature_layer", "pretrained"])
def test_what_is_for_torchvisions_models_is_refused_elsewhere(option):
    with pytest.raises(
        ValueError, match=f"'{option}' must be left out: the conv backbone has none"
    ):
        Image(["photo"], backbone="conv", **{option: "x"})


# Groups of parameters.


def test_a_group_without_a_learning_rate_stays(table):
    run = setup(table, groups=GROUP.format(match="photos.*", lr=0, start=0))
    params = run.start.state.params
    changed = moved(run.start.state, trained(run)) & params.keys()
    assert {path for path in params if ".photos." not in path} == changed


def test_a_group_starts_at_its_epoch(table):
    run = setup(table, groups=GROUP.format(match="photos.backbone.*", lr=1, start=2))
    seen = []

    def look(event):
        if event.name == "after_epoch":
            paths = moved(run.start.state, event.state) & run.start.state.params.keys()
            seen.append(any(path.startswith(BACKBONE) for path in paths))

    mip.fit(run.step, run.batches, run.start.state, epochs=3, hooks=[look])
    assert seen == [False, False, True]


def test_a_learning_rate_of_its_own_equals_torchs_groups(table):
    groups = GROUP.format(match="place.*", lr=0.1, start=0)
    clip = "clip_norm = 0.0\nschedule = { kind = 'constant' }\n"
    run = setup(table, groups=clip + groups, epochs=2)
    state, stream = run.start.state, run.batches.iter_from(0)
    batches = [next(stream) for _ in range(5)]
    for batch in batches:
        state, _ = run.step(state, batch)
    expected = by_torch(run, batches)
    for path in state.params.keys() - {"body.branch.photos.score.bias"}:  # which has no gradient
        param = state.params[path]
        torch.testing.assert_close(param, expected[path], rtol=1e-5, atol=1e-7)


def by_torch(run, batches):
    from mip.rng import derive, seeded

    net = mip.build(run.plan, run.plan.spec.train.seed)
    named = {path: param for path, param in net.named_parameters() if param.requires_grad}
    place = [param for path, param in named.items() if ".place." in path]
    others = [param for path, param in named.items() if ".place." not in path]
    lr = run.plan.spec.train.optimizer.lr
    optimizer = torch.optim.AdamW(
        [{"params": place, "lr": lr / 10}, {"params": others}],
        lr=lr,
        weight_decay=run.plan.spec.train.optimizer.weight_decay,
    )
    for step, batch in enumerate(batches):
        with seeded(derive("step", 0, step)):
            loss = run.plan.loss(net.train()(batch.inputs), batch.target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {path: param.detach() for path, param in named.items()}


def test_a_group_that_fits_nothing_is_named(table):
    with pytest.raises(SpecError) as caught:
        setup(table, groups=GROUP.format(match="photo.*", lr=1, start=0))
    assert str(caught.value).startswith("train.group[0].match = 'photo.*' matches no parameter")


def test_a_label_without_an_optimizer_is_an_error():
    one = partition({"a": mip.sgd(1.0)}, lambda path: path)
    with pytest.raises(MipError, match="no optimizer"):
        one.init({"b": torch.zeros(1)})


def test_a_run_with_groups_resumes_to_the_same_bytes(table, tmp_path):
    groups = "checkpoint_every = 1\n" + GROUP.format(match="photos.*", lr=0.5, start=1)
    spec = spec_of(train=f"[train]\nepochs = 2\nbatch_size = 4\n{groups}")
    whole = mip.run(spec, all_of(table), out=tmp_path / "a")

    def stop(event):
        return mip.Stop("now") if event.name == "after_batch" and event.step == 4 else None

    mip.run(spec, all_of(table), out=tmp_path / "b", make_hooks=lambda _: (stop,))
    again = mip.run(spec, all_of(table), out=tmp_path / "b", resume=True)
    assert moved(whole.state, again.state) == set()


def test_one_spec_describes_the_mixed_model():
    net = mip.build(mip.adapt(*mixed()))
    assert sum(param.numel() for param in net.parameters()) == 21_849_189
