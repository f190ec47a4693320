"""A warm-started branch has its source's weights and facts, to the bit; the source is read once."""

from __future__ import annotations

import re
import shutil

import pandas as pd
import pytest
import torch
from attrs import evolve
from conftest import HEADS, NUMBERS, bits, draw_photos, frame_of, spec_of
from torch import nn

import mip
from mip.cli.app import main
from mip.errors import FileError, MipWarning, SpecError
from mip.files import load_model, read_file
from mip.files.format import pack
from mip.model import Parts
from mip.runs import adopt_facts, build_warm, load_sources, prepare_job, replay

ROOMS = """
[branch.rooms]
kind = "fuse"
layers = [6]
dropout = 0.5

[branch.rooms.branch.place]
kind = "categorical"
columns = ["town"]
unseen_rate = 0.3

[branch.rooms.branch.sizes]
kind = "continuous"
columns = ["area", "rooms"]
"""

PHOTOS = """
[branch.photos]
kind = "image"
columns = ["front", "back"]
size = 8
base_channels = 2
pool = "attention"
missing = "learn"
"""

TRAIN = "[train]\nepochs = 2\nbatch_size = 4\ncheckpoint_every = 1\n"
WARM = '[warm_start]\nrooms = "alone.safetensors"\n'
PREFIX = "body.branch.rooms."


def all_of(table):
    return Parts(table, table.take([]), table.take([]))


def text(branches=ROOMS + PHOTOS, more=WARM, train=TRAIN):
    return branches + HEADS["regression"] + train + more


@pytest.fixture(scope="module")
def others(folder):
    """Rows that the source has not seen: other numbers, and a town of their own."""
    frame = frame_of(9, seed=5).replace({"town": {"Ulm": "Rom"}})
    return mip.from_frame(frame, root=folder, name="others.csv")


@pytest.fixture(scope="module")
def alone(table, tmp_path_factory):
    """A folder with the model of the table branch alone."""
    folder = tmp_path_factory.mktemp("alone")
    mip.run(mip.parse(text(ROOMS, "")), all_of(table), out=folder / "run")
    shutil.copy(folder / "run" / "model.safetensors", folder / "alone.safetensors")
    return folder


def setup(spec, table, folder):
    return prepare_job(spec, all_of(table), sources=load_sources(spec, mip.Context(base=folder)))


def part_of(state, prefix=PREFIX):
    tensors = {**state.params, **state.buffers}
    return bits({name: each for name, each in tensors.items() if name.startswith(prefix)})


def output(plan, state, rows, name="rooms"):
    net = mip.build(plan, pretrain=False).eval()
    net.load_state_dict({**state.params, **state.buffers})
    return bits(net.body.branch[name](plan.encode(rows).inputs[name]))


def test_a_branch_begins_as_it_was_trained_alone(alone, others, table):
    plan, state = load_model(alone / "alone.safetensors")
    whole = setup(mip.parse(text()), others, alone)
    assert len(part_of(state)) == 4
    assert part_of(whole.start.state) == part_of(state)
    assert whole.plan.facts["branch"]["rooms"] == plan.facts["branch"]["rooms"]
    for rows in (others, table, mip.from_frame(frame_of(6, seed=8), root=table.root)):
        assert output(whole.plan, whole.start.state, rows) == output(plan, state, rows)


@pytest.mark.parametrize("keep", ["", "keep_last = -1\n"])
def test_a_step_of_a_warm_started_run_is_replayed(alone, others, tmp_path, keep):
    # From the spec it needs the source; a checkpoint holds its weights.
    spec = mip.parse(text(train=TRAIN + keep))
    mip.run(spec, all_of(others), out=tmp_path, context=mip.Context(base=alone))
    base = tmp_path / "nowhere" if keep else alone
    again = replay(spec, all_of(others), tmp_path, 4, context=mip.Context(base=base))
    assert (again.start, again.differences) == (2 if keep else 0, {})
    assert again.then


def test_without_a_warm_start_the_branch_differs(alone, others):
    whole, plain = (setup(mip.parse(text(more=more)), others, alone) for more in (WARM, ""))
    assert whole.plan.facts["branch"]["rooms"] != plain.plan.facts["branch"]["rooms"]
    assert part_of(whole.start.state) != part_of(plain.start.state)
    # All else starts as it would have.
    assert part_of(whole.start.state, "body.branch.photos.") == part_of(
        plain.start.state, "body.branch.photos."
    )
    assert whole.plan.facts["head"] == plain.plan.facts["head"]
    assert whole.plan.facts["rows"] == plain.plan.facts["rows"]


def test_a_frozen_warm_started_branch_stays_its_sources(alone, others):
    held = '[[train.group]]\nmatch = "rooms.*"\nlr_scale = 0\n'
    plan, state = load_model(alone / "alone.safetensors")
    ended = mip.run(
        mip.parse(text(train=TRAIN + held)), all_of(others), context=mip.Context(base=alone)
    )
    assert ended.state.step == 4
    assert part_of(ended.state) == part_of(state)
    assert output(ended.plan, ended.state, others) == output(plan, state, others)


def test_a_warm_started_branch_trains_on(alone, others):
    ended = mip.run(mip.parse(text()), all_of(others), context=mip.Context(base=alone))
    assert part_of(ended.state) != part_of(load_model(alone / "alone.safetensors")[1])


NESTED = re.sub(r"branch\.photos", "branch.looks.branch.photos", PHOTOS)
LOOKS = '[branch.looks]\nkind = "fuse"\nlayers = [4]\n' + NESTED


@pytest.mark.parametrize("key", ['"looks.photos"', "looks.photos", "looks"])
def test_a_leaf_with_buffers_or_the_whole_fusion_starts_warm_by_its_path(
    key, table, others, tmp_path
):
    mip.run(mip.parse(text(LOOKS, "")), all_of(table), out=tmp_path / "looks")
    plan, state = load_model(tmp_path / "looks" / "model.safetensors")
    spec = mip.parse(text(LOOKS + NUMBERS, f'[warm_start]\n{key} = "looks/model.safetensors"\n'))
    whole = setup(spec, others, tmp_path)
    deep = "body.branch.looks.branch.photos."
    assert any(name.endswith("running_mean") for name in part_of(state, deep))
    assert part_of(whole.start.state, deep) == part_of(state, deep)
    if key == "looks":
        assert part_of(whole.start.state, "body.branch.looks.") == part_of(
            state, "body.branch.looks."
        )
        pair = ((whole.plan, whole.start.state), (plan, state))
        assert len({str(output(*each, others, "looks")) for each in pair}) == 1


def test_shapes_are_the_sources_too(table, folder, tmp_path):
    # How many photos a row has at most is learned of the rows.
    lists = frame_of().assign(back=[["photos/1.png"] * (1 + k % 3) for k in range(11)])
    source = mip.from_frame(lists, root=folder)
    only = text(PHOTOS, "")
    mip.run(mip.parse(only), all_of(source), out=tmp_path)
    spec = mip.parse(text(more='[warm_start]\nphotos = "model.safetensors"\n'))
    whole = setup(spec, table, tmp_path)
    assert (
        whole.plan.shapes["photos"]
        == load_model(tmp_path / "model.safetensors")[0].shapes["photos"]
    )
    encoded = whole.plan.encode(table).inputs["photos"]["pixels"]
    assert encoded.shape[1:] == whole.plan.example()["photos"]["pixels"].shape[1:]
    assert encoded.shape[1] == 4


def test_a_warm_start_wins_over_a_rule(alone, others):
    rule = '[[init]]\nmatch = "*.bias"\ninitializer = "ones"\n'
    whole = setup(mip.parse(text(more=WARM + rule)), others, alone)
    assert part_of(whole.start.state) == part_of(load_model(alone / "alone.safetensors")[1])
    assert (whole.start.state.params["head.0.bias"] == 1).all()


# Files: the source is read when a run begins, and never again.


@pytest.fixture
def begun(alone, others, tmp_path):
    """A run that stopped in its midst, whose source is gone."""
    shutil.copy(alone / "alone.safetensors", tmp_path)
    stop = lambda event: mip.Stop("now") if event.step == 3 else None  # noqa: E731
    spec = mip.parse(text())
    mip.run(
        spec,
        all_of(others),
        out=tmp_path / "cut",
        context=mip.Context(base=tmp_path),
        make_hooks=lambda _: [stop],
    )
    mip.run(spec, all_of(others), out=tmp_path / "whole", context=mip.Context(base=tmp_path))
    (tmp_path / "alone.safetensors").unlink()
    return tmp_path


def test_a_run_goes_on_without_its_source(begun, others):
    mip.run(
        mip.parse(text()),
        all_of(others),
        out=begun / "cut",
        context=mip.Context(base=begun),
        resume=True,
    )
    for name in ("model.safetensors", "history.jsonl", "checkpoints/last.safetensors"):
        assert (begun / "cut" / name).read_bytes() == (begun / "whole" / name).read_bytes()


def test_a_model_is_loaded_without_its_source(begun, others):
    predict = mip.load(begun / "whole" / "model.safetensors")
    plan, state = load_model(begun / "whole" / "checkpoints" / "last.safetensors")
    pd.testing.assert_frame_equal(predict(others), mip.predictor(plan, state)(others))


def test_a_run_does_not_go_on_with_other_warm_starts(begun, others):
    with pytest.raises(SpecError) as caught:
        mip.run(mip.parse(text(more="")), all_of(others), out=begun / "cut", resume=True)
    assert str(caught.value) == (
        f"{begun}/cut/checkpoints/last.safetensors: not the same run: warm_start.rooms was "
        "alone.safetensors and is nothing; resume it with its own spec.toml, or start again "
        "without resume"
    )
    more = '[warm_start]\n"rooms.sizes" = "alone.safetensors"\n'
    with pytest.raises(
        SpecError, match=r"run: warm_start\.rooms was alone.safetensors and is nothing"
    ):
        mip.run(mip.parse(text(more=more)), all_of(others), out=begun / "cut", resume=True)


def test_a_changed_branch_is_named_before_its_weights_are_copied(begun, others):
    spec = mip.parse(text(), changes={"branch.rooms.layers": [8]})
    with pytest.raises(SpecError, match=r"run: branch\.rooms\.layers was \[6\] and is \[8\]"):
        mip.run(spec, all_of(others), out=begun / "cut", resume=True)


def test_nothing_to_resume_is_said_as_ever(others, tmp_path):
    with pytest.raises(FileError, match=r"nothing to resume, there is no checkpoints/last"):
        mip.run(mip.parse(text()), all_of(others), out=tmp_path, resume=True)


def test_a_run_of_a_moved_spec_finds_its_source(alone, others, tmp_path):
    whole = mip.run(
        mip.parse(text()), all_of(others), out=tmp_path / "one", context=mip.Context(base=alone)
    )
    spec = mip.load_spec(tmp_path / "one" / "spec.toml")
    assert (tmp_path / "one" / spec.warm_start["rooms"]).samefile(alone / "alone.safetensors")
    again = mip.run(
        spec,
        all_of(others),
        out=tmp_path / "two" / "deep",
        context=mip.Context(base=tmp_path / "one"),
    )
    assert bits(again.state) == bits(whole.state)


def test_folds_start_warm_too(alone, others):
    table = mip.from_frame(others.frame.assign(fold=[k % 2 for k in range(9)]), root=others.root)
    held = '[[train.group]]\nmatch = "rooms.*"\nlr_scale = 0\n'
    spec, seen = mip.parse(text(train=TRAIN + held)), []
    hook = lambda setup: seen.append(part_of(setup.start.state)) or ()  # noqa: E731
    mip.crossval(spec, table, "fold", make_hooks=hook, context=mip.Context(base=alone))
    assert seen == [part_of(load_model(alone / "alone.safetensors")[1])] * 2


@pytest.mark.slow
def test_the_commands_read_a_source_beside_the_spec(alone, table, tmp_path, monkeypatch, capsys):
    def call(*words):
        monkeypatch.setattr("sys.argv", ["mip", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code, capsys.readouterr()
        return capsys.readouterr().out

    here = tmp_path / "specs"
    draw_photos(here)
    table.frame.to_csv(here / "houses.csv", index=False)
    shutil.copy(alone / "alone.safetensors", here)
    (here / "a.toml").write_text('data.table = "houses.csv"\n' + text())
    monkeypatch.chdir(tmp_path)
    assert "is fine" in call("check", "specs/a.toml")
    assert "rooms" in call("show", "specs/a.toml")
    call("fit", "specs/a.toml", "--out", "run", "--set", "train.epochs=1")
    call("fit", "specs/a.toml", "--out", "run", "--set", "train.epochs=1", "--resume")
    shutil.copy(alone / "alone.safetensors", tmp_path / "other.safetensors")
    (here / "alone.safetensors").unlink()
    call("check", "specs/a.toml", "--set", "warm_start.rooms=other.safetensors")
    call("fit", "specs/a.toml", "--out", "run", "--set", "train.epochs=1", "--resume")
    assert mip.load_spec("run/spec.toml").warm_start == {"rooms": "../specs/alone.safetensors"}
    pd.DataFrame({"row": range(11), "fold": [k % 2 for k in range(11)]}).to_csv("folds.csv")
    call(
        "crossval",
        "specs/a.toml",
        "--folds",
        "folds.csv",
        "--set",
        "warm_start.rooms=other.safetensors",
    )


# Errors, verbatim.


def test_a_spec_with_warm_starts_comes_back():
    spec = mip.parse(text(LOOKS + ROOMS, '[warm_start]\nlooks.photos = "a"\nrooms = "b"\n'))
    assert dict(spec.warm_start) == {"looks.photos": "a", "rooms": "b"}
    assert '"looks.photos" = "a"' in mip.dump(spec)
    assert mip.parse(mip.dump(spec)) == spec


def start_warm(alone, table, branches, more=WARM):
    setup(mip.parse(text(branches, more)), table, alone)


def test_a_branch_that_differs_is_named_with_its_first_field(alone, table):
    with pytest.raises(SpecError) as caught:
        start_warm(alone, table, ROOMS.replace("[6]", "[8]"))
    assert str(caught.value) == (
        "warm_start.rooms: branch.rooms.layers is [8] here and [6] in alone.safetensors"
    )
    with pytest.raises(SpecError) as caught:
        start_warm(alone, table, ROOMS.replace('"town"', '"style"'))
    assert str(caught.value) == (
        "warm_start.rooms: branch.rooms.branch.place.columns is ['style'] here and ['town'] in "
        "alone.safetensors"
    )
    with pytest.raises(SpecError) as caught:
        start_warm(alone, table, '[branch.rooms]\nkind = "stub"\n')
    assert str(caught.value) == (
        "warm_start.rooms: branch.rooms.kind is stub here and fuse in alone.safetensors"
    )


def test_a_file_without_the_branch_names_the_nearest(alone, table):
    more = '[warm_start]\nroom = "alone.safetensors"\n'
    with pytest.raises(SpecError) as caught:
        start_warm(alone, table, ROOMS.replace("branch.rooms", "branch.room"), more)
    assert str(caught.value) == (
        "warm_start.room: alone.safetensors has no such branch; did you mean 'rooms'? "
        "(known: rooms, rooms.place, rooms.sizes)"
    )


def test_a_missing_file_is_named_with_the_path_in_the_spec(alone, table):
    with pytest.raises(FileError) as caught:
        start_warm(alone, table, ROOMS, '[warm_start]\nrooms = "alon.safetensors"\n')
    assert str(caught.value) == (
        f"warm_start.rooms: {alone}/alon.safetensors: cannot be read (No such file or directory); "
        "did you mean 'alone.safetensors'? (known: alone.safetensors)"
    )


def test_by_hand_sources_must_be_passed(alone, table):
    spec = mip.parse(text())
    with pytest.raises(SpecError) as caught:
        prepare_job(spec, all_of(table), sources={})
    assert str(caught.value) == (
        "warm_start.rooms: alone.safetensors has not been read; pass mip.runs.load_sources(spec)"
    )
    plan = mip.adapt(spec, table)
    with pytest.raises(SpecError) as caught:
        mip.build(plan)
    assert str(caught.value) == (
        "warm_start: build() reads no files; use mip.runs.build_warm(plan, sources), or "
        "pretrain=False for a module whose weights are loaded afterwards"
    )
    sources = load_sources(spec, mip.Context(base=alone))
    net = build_warm(adopt_facts(plan, sources), sources)
    assert isinstance(net, nn.Module)
    assert net.training


@pytest.mark.parametrize("change", ["lost", "reshaped", "no facts"])
def test_a_file_that_does_not_hold_what_it_says_is_refused(change, alone, table, tmp_path):
    tensors, meta = read_file(alone / "alone.safetensors")
    name = next(name for name in tensors if PREFIX in name)
    if change == "lost":
        del tensors[name]
    elif change == "reshaped":
        tensors[name] = torch.zeros(1, 1, 1)
    else:
        meta["plan"]["facts"]["branch"] = {}
    (tmp_path / "alone.safetensors").write_bytes(
        pack(tensors, {name: meta[name] for name in ("plan", "step")})
    )
    with pytest.raises(FileError) as caught:
        start_warm(tmp_path, table, ROOMS)
    assert str(caught.value) == (
        "warm_start.rooms: alone.safetensors does not hold the branch that its spec describes"
    )


def test_a_source_is_left_as_it_was(alone, others):
    spec = mip.parse(text())
    sources = load_sources(spec, mip.Context(base=alone))
    before = bits(sources["rooms"][1])
    setup = prepare_job(spec, all_of(others), sources=sources)
    mip.fit(setup.step, setup.batches, setup.start.state, steps=3)
    assert bits(sources["rooms"][1]) == before


def test_a_spec_without_warm_starts_is_built_as_ever(table):
    spec = spec_of()
    plan = mip.adapt(spec, table)
    assert adopt_facts(plan, {}) == plan
    assert bits(build_warm(plan, {}, 3).state_dict()) == bits(mip.build(plan, 3).state_dict())
    assert evolve(spec, warm_start={}) == spec


@pytest.mark.parametrize("fill", ["zeros", "lsuv"])
def test_a_rule_that_matches_only_warm_parameters_is_told(alone, others, fill):
    rule = f'[[init]]\nmatch = "{{}}"\ninitializer = "{fill}"\n'
    with pytest.warns(MipWarning) as warned:
        setup(mip.parse(text(more=WARM + rule.format("rooms.*weight"))), others, alone)
    assert [str(each.message) for each in warned] == [
        "init[0]: 'rooms.*weight' changes nothing: all that it matches is warm-started"
    ]
    setup(mip.parse(text(more=WARM + rule.format("*.weight"))), others, alone)
