"""Features of frozen backbones: computed once, and in every way those that pixels would give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

import mip
from mip.branches import Image
from mip.branches.photo_features import VIEWS, PhotoFeatures
from mip.branches.photo_net import PhotoNet
from mip.errors import SpecError
from mip.model import with_features
from mip.nn import split_after
from mip.rng import derive
from mip.runs import prepare_job, run_trials, scoring_predictor, sharing_features
from mip.runs.feeding import feature_plan, train_pipe
from mip.tree import leaves

VIT = "timm/test_vit"
PIXELS = mip.Context(device="cpu", use_features=False)
FEATURES = mip.Context(device="cpu")


def table_of(lists, seed=0):
    """A table with lists of photos of some lengths, a number and a target."""
    rng = np.random.default_rng(seed)
    photos = [[rng.integers(0, 256, (12, 9, 3), dtype=np.uint8) for _ in range(n)] for n in lists]
    numbers = rng.normal(size=len(lists)).tolist()
    return mip.from_columns({"photo": photos, "x": numbers, "y": [2 * x for x in numbers]})


TABLE = table_of([1, 2, 0, 1, 3, 1, 1, 2, 1, 1])


def spec_of(nested=False, train=None, **more):
    """A spec of photos with a frozen backbone and a number; `freeze=""` freezes nothing."""
    photo = {
        "kind": "image",
        "columns": ["photo"],
        "size": 16,
        "base_channels": 2,
        "freeze": "all",
        "missing": "learn",
        "layers": [3],
        **more,
    }
    photo = {name: value for name, value in photo.items() if value != ""}
    number = {"kind": "continuous", "columns": ["x"]}
    inner = {"photo": photo, "number": number}
    branch = {"looks": {"kind": "fuse", "branch": inner}} if nested else inner
    head = {"kind": "regression", "column": "y"}
    settled = {"epochs": 3, "batch_size": 4, **(train or {})}
    return mip.parse("", changes={"branch": branch, "head": head, "train": settled})


def count_photos(monkeypatch):
    """Collect how many photos run through a backbone to get their features."""
    counts, run = [], PhotoFeatures._run

    def counting(features, photos):
        counts.append(int((photos["present"] == 1).sum()))
        return run(features, photos)

    monkeypatch.setattr(PhotoFeatures, "_run", counting)
    return counts


# Features are what pixels would give.


BACKBONES = {"small": {"base_channels": 2}, "conv": {"channels": [2, 3], "base_channels": 16}}


@settings(max_examples=15, deadline=None)
@given(
    lists=st.lists(st.integers(0, 3), min_size=1, max_size=6).filter(any),
    pool=st.sampled_from(["mean", "max", "attention"]),
    backbone=st.sampled_from([*BACKBONES]),
    global_pool=st.sampled_from(["avg", "max", "none"]),
    nested=st.booleans(),
    partly=st.booleans(),
)
def test_a_net_computes_the_same_of_features_as_of_pixels(
    lists, pool, backbone, global_pool, nested, partly
):
    table = table_of(lists)
    freeze = {"small": "3", "conv": "0"}[backbone] if partly else "all"
    fields = {"backbone": backbone, "freeze": freeze, **BACKBONES[backbone]}
    plan = mip.adapt(spec_of(nested, pool=pool, global_pool=global_pool, **fields), table)
    net = mip.build(plan).eval()
    encoding = with_features(plan, net.body, table)
    assert encoding is not plan
    rows, features = plan.encode(table), encoding.encode(table)
    with torch.no_grad():
        torch.testing.assert_close(net(features.inputs), net(rows.inputs), rtol=1e-4, atol=1e-5)
    assert torch.equal(features.row, rows.row)
    assert torch.equal(features.target, rows.target)


PARTLY = {"freeze": "3", "train": {"epochs": 2, "optimizer": {"kind": "sgd", "lr": 0.01}}}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"pool": "attention"},
        {"nested": True},
        PARTLY,
        {**PARTLY, "finetune": {"after": 0.5}, "gradient_checkpointing": True},
    ],
)
def test_training_on_features_is_training_on_pixels(more):
    runs = [
        mip.run(spec_of(**more), (TABLE, TABLE.take([0, 3])), context=context)
        for context in (FEATURES, PIXELS)
    ]
    ours, theirs = (dict(leaves(run.state.params)) for run in runs)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=1e-5)
    for one, other in zip(*(run.history.epochs for run in runs), strict=True):
        assert one["valid/loss"] == pytest.approx(other["valid/loss"], rel=1e-4)
    frozen = [dict(leaves(run.state.buffers)) for run in runs]
    assert frozen[0].keys() == frozen[1].keys()
    assert all(torch.equal(frozen[0][name], frozen[1][name]) for name in frozen[0])
    assert runs[0].plan == runs[1].plan


@pytest.mark.parametrize("average", [{"ema": 0.5}, {"swa": 0.5}])
@pytest.mark.parametrize("context", [FEATURES, PIXELS])
def test_averages_keep_the_statistics_of_a_frozen_backbone(monkeypatch, average, context):
    def pretrain(image, module):
        module.backbone[1].running_var.fill_(7.0)

    monkeypatch.setattr(Image, "pretrain", pretrain)
    state = mip.run(spec_of(train=average), (TABLE,), context=context).state
    statistics = state.buffers["body.branch.photo.backbone.1.running_var"]
    assert statistics.tolist() == [7.0, 7.0]


def test_the_model_of_a_run_reads_photos(tmp_path):
    ended = mip.run(spec_of(), (TABLE,), out=tmp_path / "run", context=FEATURES)
    predict = mip.load(tmp_path / "run/model.safetensors")
    assert predict(TABLE).equals(ended.predict(TABLE))
    assert predict.plan.shapes["photo"].keys() == {"pixels", "present"}


# They are computed once.


def test_a_run_computes_the_features_of_each_photo_once(monkeypatch):
    counts, told = count_photos(monkeypatch), []
    context = evolve(FEATURES, on_features=lambda *rows: told.append(rows))
    mip.run(spec_of(), (TABLE, TABLE.take([0, 4])), context=context)
    assert sum(counts) == 13 + 1 + 3
    assert told == [(10, 10), (2, 2)]


def test_folds_share_features(monkeypatch):
    counts = count_photos(monkeypatch)
    pairs = table_of([2] * 10)
    rows = mip.from_frame(pairs.frame.assign(fold=[k % 5 for k in range(10)]))
    done = mip.crossval(spec_of(), rows, "fold", context=FEATURES)
    assert sum(counts) == 20
    alone = mip.crossval(spec_of(), rows, "fold", context=PIXELS)
    ours, theirs = done.predictions["value"], alone.predictions["value"]
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_later_runs_with_a_cache_compute_nothing(tmp_path, monkeypatch):
    context = evolve(FEATURES, cache=tmp_path)
    first = mip.run(spec_of(), (TABLE,), context=context)
    counts = count_photos(monkeypatch)
    again = mip.run(spec_of(train={"seed": 0}), (TABLE,), context=context)
    score = scoring_predictor(again.predict, TABLE, context)
    assert mip.evaluate(score, TABLE)["loss"] > 0
    assert sum(counts) == 0
    ours, theirs = (dict(leaves(run.state.params)) for run in (first, again))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    mip.run(spec_of(train={"seed": 1}), (TABLE,), context=context)  # another random backbone
    assert sum(counts) == 13


def test_a_changed_photo_is_computed_again(tmp_path, monkeypatch):
    context = evolve(FEATURES, cache=tmp_path)
    mip.run(spec_of(), (TABLE,), context=context)
    counts = count_photos(monkeypatch)
    cells = list(TABLE["photo"])
    cells[1] = [cells[1][0], np.zeros((5, 5, 3), np.uint8) + 7]
    changed = mip.from_frame(TABLE.frame.assign(photo=cells))
    mip.run(spec_of(), (changed,), context=context)
    assert sum(counts) == 2


def test_trials_share_features(monkeypatch):
    counts = count_photos(monkeypatch)
    parts = mip.model.Parts(TABLE, TABLE.take([0, 1]), TABLE.take([4]))
    lrs = [evolve(spec_of(), train=evolve(spec_of().train, epochs=n)) for n in (1, 2)]
    trials = [mip.runs.Trial(str(k), spec, parts) for k, spec in enumerate(lrs)]
    outcomes = list(run_trials(trials, context=FEATURES))
    assert not any(outcome.error for outcome in outcomes)
    assert sum(counts) == 13


def test_features_do_not_depend_on_the_number_of_threads(monkeypatch):
    plan = mip.adapt(spec_of(), TABLE)
    encoding = with_features(plan, mip.build(plan).body, TABLE)
    used, features, before = [], PhotoNet.features, torch.get_num_threads()

    def noting(net, pixels):
        used.append(torch.get_num_threads())
        return features(net, pixels)

    monkeypatch.setattr(PhotoNet, "features", noting)
    torch.set_num_threads(2)
    try:
        encoding.encode(TABLE)
        after = torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
    assert set(used) == {1}
    assert after == 2


def test_scores_of_rows_with_a_broken_photo_name_it(tmp_path):
    rows = mip.from_frame(TABLE.frame.iloc[[0, 3, 5]])
    ended = mip.run(spec_of(missing="error"), (rows,), context=FEATURES)
    cells = [*rows["photo"][:2], [b"GIF89a"]]
    broken = mip.from_frame(rows.frame.assign(photo=cells))
    context = evolve(FEATURES, features=tmp_path)
    scoring = scoring_predictor(ended.predict, broken, context)
    ours, theirs = scoring(broken), ended.predict(broken)
    assert ours["error"].isna().tolist() == [True, True, False]
    assert ours["error"].tolist()[2] == theirs["error"].tolist()[2]
    np.testing.assert_allclose(ours["value"], theirs["value"], rtol=1e-4)


def test_features_may_be_brought_to_one_size(tmp_path):
    spec = spec_of(feature_norm="batch", layers=[])
    plan = mip.adapt(spec, TABLE)
    net = mip.build(plan)
    rows = with_features(plan, net.body, TABLE).encode(TABLE).inputs["photo"]
    photos = net.body.branch["photo"]
    raw = mip.build(mip.adapt(spec_of(layers=[]), TABLE)).body.branch["photo"].eval()(rows)
    variance, mean = torch.var_mean(raw, dim=0, correction=0)
    norm = photos.train().norm
    torch.testing.assert_close(photos(rows), (raw - mean) / (variance + norm.eps).sqrt())
    expected = (raw - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(photos.eval()(rows), expected)
    ended = mip.run(spec, (TABLE,), out=tmp_path, context=FEATURES)
    assert mip.load(tmp_path / "model.safetensors")(TABLE).equals(ended.predict(TABLE))


# Views.


def test_training_draws_one_of_a_few_views_of_each_row():
    spec = spec_of(augmentation={"flip": True, "brightness": 0.4})
    plan = mip.adapt(spec, TABLE)
    net = mip.build(plan).eval()
    encoding = with_features(plan, net.body, TABLE, augmented=True)
    plain = with_features(plan, net.body, TABLE)
    rows = encoding.encode(TABLE)
    assert rows.inputs["photo"]["features"].shape[:3] == (10, VIEWS, 3)
    assert plain.encode(TABLE).inputs["photo"]["features"].shape[:2] == (10, 3)
    photos = [
        plan.augment(plan.encode(TABLE), derive("view", view)).inputs["photo"]
        for view in range(VIEWS)
    ]
    with torch.no_grad():
        others = plan.encode(TABLE).inputs
        views = torch.stack([net({**others, "photo": photo}) for photo in photos])
        drawn = {key: net(encoding.augment(rows, key).inputs) for key in range(20)}
    # Every row is one of its views, and more than one is drawn.
    chosen = torch.stack([(views - outputs).abs().argmin(dim=0) for outputs in drawn.values()])
    for outputs, places in zip(drawn.values(), chosen, strict=True):
        nearest = views.gather(0, places[None])[0]
        torch.testing.assert_close(outputs, nearest, rtol=1e-4, atol=1e-5)
    assert all(len(set(column.tolist())) > 1 for column in chosen.T[:2])
    again = encoding.augment(rows, 3).inputs["photo"]["features"]
    part = encoding.augment(encoding.encode(TABLE.take([4])), 3).inputs["photo"]["features"]
    torch.testing.assert_close(again[[4]], part, rtol=1e-4, atol=1e-5)


# Of a part of a backbone.


CUTS = {
    "resnet18": ["bn1", "layer1", "layer2.0", "layer4"],
    "efficientnet_b0": ["features.0", "features.4", "features.5.0"],
    "swin_t": ["features.2"],
}


@pytest.mark.parametrize("name", CUTS)
def test_models_are_split_where_they_run_their_modules_in_order(name):
    import torchvision

    model = torchvision.models.get_model(name, weights=None).eval()
    photos = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        for path in CUTS[name]:
            first, rest = split_after(model, path)
            assert torch.equal(rest(first(photos)), model(photos))


@pytest.mark.parametrize(
    ("backbone", "freeze"), [("resnet18", "layer1.0.conv1"), (VIT, "blocks.1")]
)
def test_other_models_are_not_split(backbone, freeze):
    if backbone == VIT:
        pytest.importorskip("timm")
    plan = mip.adapt(spec_of(backbone=backbone, base_channels="", size=32, freeze=freeze), TABLE)
    assert with_features(plan, mip.build(plan).body, TABLE) is plan


def test_a_split_net_holds_its_own_parameters_once_and_trains_as_one():
    plan = mip.adapt(spec_of(freeze="3"), TABLE)
    net = mip.build(plan)
    names = [*net.state_dict()]
    assert len(names) == len(set(names)) == len([*mip.build(evolve(plan)).state_dict()])
    photos = net.body.branch["photo"]
    first, rest = photos.split
    assert not any(part.training for part in first if [*part.parameters()])
    assert rest.training
    assert not net.eval().body.branch["photo"].split[1].training


def test_maps_are_kept_where_they_fit(monkeypatch):
    plan = mip.adapt(spec_of(freeze="3", base_channels=16), TABLE)
    net = mip.build(plan)
    assert feature_plan(plan, net, TABLE, FEATURES).row_bytes > plan.row_bytes
    monkeypatch.setattr("mip.runs.feeding.MEMORY_BYTES", 10)
    assert feature_plan(plan, net, TABLE, FEATURES) is plan
    plan = mip.adapt(spec_of(), TABLE)
    assert feature_plan(plan, mip.build(plan), TABLE, FEATURES) is not plan


# Where pixels are needed, they are used.


@pytest.mark.parametrize(
    "fields",
    [
        {"freeze": ""},
        {
            "backbone": "resnet18",
            "base_channels": "",
            "feature_layer": "layer2",
            "freeze": "layer1",
        },
        {"freeze": "3.first"},
        {"train": {"mixup": 0.2}},
        {"train": {"cutmix": 1.0}},
    ],
)
def test_pixels_are_used_where_they_matter(fields):
    batch = next(iter(prepare_job(spec_of(**fields), mip.model.as_parts(TABLE)).batches))
    assert batch.inputs["photo"].keys() == {"pixels", "present"}


def test_a_backbone_frozen_up_to_its_last_module_has_features():
    batch = next(iter(prepare_job(spec_of(freeze="5"), mip.model.as_parts(TABLE)).batches))
    assert batch.inputs["photo"].keys() == {"features", "present"}


def test_a_model_without_a_frozen_backbone_has_the_same_plan():
    spec = spec_of(freeze="")
    plan = mip.adapt(spec, TABLE)
    net = mip.build(plan)
    assert with_features(plan, net.body, TABLE) is plan
    assert feature_plan(plan, net, TABLE, FEATURES) is plan
    assert len(train_pipe(plan, TABLE).stages) == 1


def test_the_part_that_is_computed_once_is_a_copy():
    plan = mip.adapt(spec_of(), TABLE)
    net = mip.build(plan)
    features = with_features(plan, net.body, TABLE).root.branch["photo"]
    assert isinstance(features, PhotoFeatures)
    before = features.encode(plan.facts["branch"]["photo"], TABLE)["features"]
    with torch.no_grad():
        for param in net.parameters():
            param.zero_()
    again = features.encode(plan.facts["branch"]["photo"], TABLE)["features"]
    assert torch.equal(before, again)


# Resumed and repeated.


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_ends_as_one_that_was_not_stopped(tmp_path, workers):
    whole = mip.run(spec_of(train={"epochs": 4}), (TABLE,), out=tmp_path / "whole")
    augment = {"train": {"epochs": 4, "checkpoint_every": 1, "keep_last": -1}}
    spec = spec_of(**augment)
    mip.run(spec, (TABLE,), out=tmp_path / "run")
    stopped = tmp_path / "run/checkpoints/epoch-0001.safetensors"
    (tmp_path / "run/checkpoints/last.safetensors").write_bytes(stopped.read_bytes())
    spec = evolve(spec, train=evolve(spec.train, workers=workers))
    ended = mip.run(spec, (TABLE,), out=tmp_path / "run", resume=True)
    ours, theirs = (dict(leaves(run.state.params)) for run in (ended, whole))
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)


def test_a_run_is_not_resumed_with_other_frozen_weights(tmp_path, monkeypatch):
    mip.run(spec_of(), (TABLE,), out=tmp_path / "run")
    last = tmp_path / "run/checkpoints/last.safetensors"
    original = Image.pretrain

    def other(image, module):
        original(image, module)
        with torch.no_grad():
            module.backbone[0].weight.add_(1)

    monkeypatch.setattr(Image, "pretrain", other)
    with pytest.raises(SpecError, match=r"photo\.backbone\.0\.weight is frozen, and has other"):
        mip.run(spec_of(), (TABLE,), out=tmp_path / "run", resume=True)
    assert last.exists()


def test_a_temporary_folder_ends_with_the_runs_that_share_it(tmp_path):
    with sharing_features(FEATURES) as sharing:
        folder = sharing.feature_folder
        mip.run(spec_of(), (TABLE,), context=sharing)
        assert [*Path(folder).glob("*.rows")]
    assert not folder.exists()
    with sharing_features(evolve(FEATURES, cache=tmp_path)) as sharing:
        assert sharing.feature_folder == tmp_path
    assert tmp_path.exists()
