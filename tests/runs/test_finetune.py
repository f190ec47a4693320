"""Fine-tuning: a backbone that is trained with small steps, and from a point of the run on."""

from __future__ import annotations

from collections import OrderedDict
from copy import deepcopy
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from attrs import evolve
from conftest import bits

import mip
from mip.errors import SpecError
from mip.model import as_parts, param_groups
from mip.nn import checkpoint_blocks, layer_groups
from mip.rng import derive, seeded
from mip.runs import Trial, prepare_job, run_stacked, run_trials
from mip.train import compiled, eager

RNG = np.random.default_rng(0)
TABLE = mip.from_columns(
    {
        "photo": [RNG.integers(0, 256, (12, 9, 3), dtype=np.uint8) for _ in range(8)],
        "x": RNG.normal(size=8).tolist(),
        "y": RNG.normal(size=8).tolist(),
    }
)
BACKBONE = "body.branch.photo.backbone."
CPU = mip.Context(device="cpu")


def spec_of(finetune=None, train=None, **more):
    """Four epochs of two steps, with photos and a number."""
    photo = {"kind": "image", "columns": ["photo"], "size": 16, "base_channels": 2, **more}
    if finetune is not None:
        photo["finetune"] = finetune
    branch = {"photo": photo, "number": {"kind": "continuous", "columns": ["x"]}}
    settled = {"epochs": 4, "batch_size": 4, **(train or {})}
    return mip.parse(
        "",
        changes={"branch": branch, "head": {"kind": "regression", "column": "y"}, "train": settled},
    )


def job_of(*args, **more):
    return prepare_job(spec_of(*args, **more), as_parts(TABLE), CPU)


def states_of(job):
    """The state before the first step, and after each."""
    states, batches = [job.start.state], job.batches.iter_from(0)
    for _ in range(job.steps):
        states.append(job.step(states[-1], next(batches))[0])
    return states


def backbone_of(state):
    return {path: leaf for path, leaf in state.params.items() if path.startswith(BACKBONE)}


class Block(torch.nn.Module):
    """Whatever it holds, as one block."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


# When the backbone is trained.


@pytest.mark.parametrize(
    ("train", "first"),
    [
        ({}, 4),
        ({"accumulate": 2}, 4),
        ({"optimizer": {"kind": "sgd", "lr": 0.01}, "lookahead": 3}, 4),
        ({"optimizer": {"kind": "schedule_free"}, "schedule": {"kind": "constant"}}, 4),
        ({"sam": 0.05}, 4),
        ({"precision": "float16"}, 4),
    ],
)
def test_a_backbone_waits_for_its_share_of_the_run(train, first):
    states = states_of(job_of({"after": 0.5}, train))
    backbones = [bits(backbone_of(state)) for state in states]
    assert all(each == backbones[0] for each in backbones[: first + 1])
    assert all(one != other for one, other in zip(backbones[4:], backbones[6:], strict=False))
    heads = [bits(state.params) for state in states]
    assert heads[0] != heads[2] != heads[4]


def test_until_then_all_is_as_with_a_frozen_backbone():
    quiet = {"clip_norm": 0.0}
    waiting, frozen = states_of(job_of({"after": 0.5}, quiet)), job_of(None, quiet, freeze="all")
    alone = states_of(evolve(frozen, batches=job_of({"after": 0.5}, quiet).batches))
    for one, other in zip(waiting[:5], alone[:5], strict=True):
        assert bits({path: one.params[path] for path in other.params}) == bits(other.params)


def test_statistics_of_batch_norms_stay():
    first, *_, last = states_of(job_of({}))
    assert bits(first.buffers) == bits(last.buffers)
    assert bits(job_of().start.state.buffers) != bits(states_of(job_of())[-1].buffers)


# How fast it is trained.


def test_layer_groups_end_with_the_input_at_the_slowest():
    job = job_of({"lr_scale": 0.2, "layer_decay": 0.5})
    groups = param_groups(job.plan, job.step.net)
    assert [group.name for group in groups] == [f"photo.{k}" for k in (0, 3, 4, 5)]
    assert [group.lr_scale for group in groups] == pytest.approx([0.025, 0.05, 0.1, 0.2])
    assert {path for group in groups for path in group.params} == {*backbone_of(job.start.state)}
    rates = job.step.rates(job.start.state)
    assert rates["lr.photo.3"] == pytest.approx(0.05 * rates["lr.others"])


def test_the_rates_are_those_of_torchs_parameter_groups():
    rule = {"clip_norm": 0.0, "schedule": {"kind": "constant"}}
    job = job_of({"lr_scale": 0.2, "layer_decay": 0.5}, rule)
    net, train = mip.build(job.plan, 0).train(), job.plan.spec.train
    named = dict(net.named_parameters())
    lrs = {
        path: train.optimizer.lr * group.lr_scale
        for group in param_groups(job.plan, net)
        for path in group.params
    }
    own = [{"params": param, "lr": lrs.get(k, train.optimizer.lr)} for k, param in named.items()]
    optimizer = torch.optim.AdamW(own, weight_decay=train.optimizer.weight_decay)
    for step, batch in zip(range(job.steps), job.batches.iter_from(0), strict=False):
        with seeded(derive("step", 0, step)):
            loss = job.plan.loss(net(batch.inputs), batch.target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    ended = states_of(job)[-1]
    for path, param in ended.params.items():
        torch.testing.assert_close(param, named[path].detach(), rtol=1e-4, atol=1e-6)


def test_a_group_of_the_spec_comes_first():
    group = {"match": "photo.backbone.3.*", "lr_scale": 0.0}
    first, *_, last = states_of(job_of({"after": 0.5}, {"group": [group]}))
    moved = {k for k, leaf in backbone_of(first).items() if not torch.equal(leaf, last.params[k])}
    assert moved == {path for path in backbone_of(first) if not path.startswith(f"{BACKBONE}3.")}


@pytest.mark.parametrize("more", [{"feature_layer": "layer2"}, {"freeze": "layer1"}])
def test_groups_are_those_of_what_is_trained_of_a_library_model(more):
    job = job_of({"layer_decay": 0.5}, backbone="resnet18", **{"size": 32, **more})
    groups = param_groups(job.plan, job.step.net)
    stages = ["conv1", "layer1", "layer2"] if "feature_layer" in more else ["layer2", "layer3"]
    assert [group.name for group in groups][: len(stages)] == [f"photo.{k}" for k in stages]


def test_vision_transformers_have_a_group_for_each_block():
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_vit", num_classes=0)
    found, theirs = layer_groups(model), model.group_matcher(coarse=True)
    groups = timm.models.group_parameters(model, theirs)
    ours = [{*paths} for paths in found.values()]
    # timm has the norm after the last block by itself, and the patches with their positions.
    assert [*found][-2:] == ["blocks.4", "blocks.5"]
    assert all(any({*paths} <= own for own in ours) for paths in [*groups.values()][1:])


# However a step is taken.


def test_a_run_resumed_before_or_after_ends_with_the_same_bytes(tmp_path):
    keep = {"checkpoint_every": 1, "keep_last": -1, "ema": 0.5}
    spec = spec_of({"after": 0.5, "layer_decay": 0.7}, keep)
    whole = mip.run(spec, (TABLE,), out=tmp_path / "run", context=CPU)
    checkpoints = tmp_path / "run/checkpoints"
    for epoch in (0, 2):
        saved = checkpoints / f"epoch-{epoch:04}.safetensors"
        (checkpoints / "last.safetensors").write_bytes(saved.read_bytes())
        again = mip.run(spec, (TABLE,), out=tmp_path / "run", resume=True, context=CPU)
        assert bits(again.state.params) == bits(whole.state.params)
        assert bits(again.state.optimizer) == bits(whole.state.optimizer)


def test_the_step_is_pure_and_in_place_the_same():
    job = job_of({"after": 0.5})
    state, batches = job.start.state, job.batches.iter_from(0)
    for batch in (next(batches) for _ in range(job.steps)):
        before = bits(state)
        after = job.step(state, batch)[0]
        assert bits(state) == before
        assert bits(job.step.donate(mip.train.state.copy(state), batch)[0]) == bits(after)
        state = after


@pytest.mark.parametrize("engine", [eager, partial(compiled, backend="aot_eager")])
def test_parameters_start_at_their_step_with_every_engine(engine):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    late = {"0.weight": 2, "0.bias": 2}
    rule = mip.optim.partition(
        {"0": mip.optim.delayed(mip.adamw(0.1), 2), "1": mip.adamw(0.1)}, lambda path: path[0]
    )
    loss = torch.nn.functional.mse_loss
    step = mip.train_step(net, loss, rule, gradient_engine=engine, starts=late)
    batch, states = (torch.ones(3, 2), torch.arange(3.0)[:, None]), [step.init()]
    for _ in range(3):
        states.append(step(states[-1], batch)[0])
    moved = [
        {k for k, param in one.params.items() if not torch.equal(param, other.params[k])}
        for one, other in pairwise(states)
    ]
    assert moved == [{"1.weight", "1.bias"}] * 2 + [{*net.state_dict()}]
    # Adam begins there, with a step of its learning rate.
    began = states[3].params["0.bias"] - states[2].params["0.bias"]
    torch.testing.assert_close(began.abs(), torch.full((2,), 0.1), rtol=0.02, atol=0.0)


def test_stacked_models_are_those_trained_alone():
    how = {"slow": {}, "fast": {"train.optimizer.lr": 1e-2}}
    text = mip.dump(spec_of({"after": 0.5}, {"workers": 0}))
    trials = [
        Trial(name, mip.parse(text, changes=each), as_parts(TABLE)) for name, each in how.items()
    ]
    for one, alone in zip(run_stacked(trials), run_trials(trials), strict=True):
        ours, theirs = one.run.state.params, alone.run.state.params
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    other = Trial("other", mip.parse(text, changes={"train.accumulate": 3}), as_parts(TABLE))
    with pytest.raises(SpecError, match=r"finetune\.after: all models must begin with the same"):
        run_stacked([*trials, other])


def test_a_range_test_of_learning_rates_has_the_groups():
    spec = spec_of({"after": 0.25}, {"batch_size": 8})
    curve = mip.runs.lr_range_test(spec, as_parts(TABLE), 20, context=CPU)
    assert len(curve.lrs) > 1


# With less memory.


@pytest.mark.parametrize(
    ("train", "more"),
    [
        ({}, {}),
        ({"sam": 0.05, "precision": "bfloat16"}, {}),
        ({}, {"backbone": "timm/test_vit", "size": 32}),
        ({}, {"backbone": "timm/test_efficientnet", "size": 32, "finetune": {"after": 0.5}}),
    ],
)
def test_checkpointing_changes_nothing(train, more):
    if "backbone" in more:
        pytest.importorskip("timm")
    plain, checkpointed = (
        states_of(job_of(train=train, gradient_checkpointing=on, **more))[-1]
        for on in (False, True)
    )
    assert bits(checkpointed.params) == bits(plain.params)
    assert bits(checkpointed.buffers) == bits(plain.buffers)


def test_checkpointing_keeps_dropout_and_statistics_with_less_memory():
    def run(net):
        kept = {}
        pack = lambda leaf: kept.update({leaf.data_ptr(): leaf.nbytes}) or leaf  # noqa: E731
        with seeded(1), torch.autograd.graph.saved_tensors_hooks(pack, lambda leaf: leaf):
            loss = net(torch.ones(4, 6)).square().mean()
        with seeded(2):
            loss.backward()
        return sum(kept.values()), [leaf.grad for leaf in net.parameters()], [*net.buffers()]

    layers = [torch.nn.Linear(6, 6), torch.nn.BatchNorm1d(6), torch.nn.Dropout(0.5)]
    net = torch.nn.Sequential(torch.nn.Sequential(*layers, torch.nn.Linear(6, 6))).train()
    block = torch.nn.Sequential(OrderedDict(block1=Block(net)))
    plain, copied = deepcopy(block), deepcopy(block)
    assert checkpoint_blocks(copied) == 1
    copied = deepcopy(copied)  # whose blocks are its own
    ours, theirs = run(copied), run(plain)
    assert ours[0] < theirs[0] / 2
    assert bits(ours[1:]) == bits(theirs[1:])


# What cannot be.

NO_BLOCKS = r"photo\.gradient_checkpointing must be left out: the conv backbone has no blocks"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"freeze": "all"}, "branch.photo.finetune must be left out: freeze = 'all' trains none"),
        ({"freeze": "5"}, r"branch\.photo\.finetune trains nothing: freeze = '5' is all of the"),
        ({"gradient_checkpointing": True, "backbone": "conv", "base_channels": 16}, NO_BLOCKS),
        (
            {"gradient_checkpointing": True, "backbone": "resnet18", "feature_layer": "layer2"},
            "checkpointing must be left out: with 'feature_layer' the backbone's blocks are taken",
        ),
        (
            {"gradient_checkpointing": True, "train": {"compile": True}},
            r"train\.compile must be left out: branch\.photo\.gradient_checkpointing cannot be",
        ),
        ({"finetune": {"after": 1.0}}, r"branch\.photo\.finetune\.after must be < 1"),
        ({"finetune": {"decay": 0.7}}, "finetune.decay is not a field; did you mean 'layer_decay'"),
        ({"finetune": {"lr": 0.7}}, "finetune.lr is not a field; did you mean 'lr_scale'"),
        ({"unfreeze": 3}, "photo.unfreeze is not a field; did you mean 'finetune'"),
    ],
)
def test_what_cannot_be_is_named(fields, message):
    with pytest.raises(SpecError, match=message):
        job_of(**{"finetune": {}, **fields})
