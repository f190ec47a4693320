"""What a net cannot be trained on, told before training: batches of one row, photos too small."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from conftest import HEADS, bits, draw_photos, frame_of

import mip
from mip.errors import MipWarning, SpecError
from mip.model import Parts
from mip.runs import lr_range_test, prepare_job
from mip.runs.checks import check_batch_norm

PHOTOS = """
[branch.looks]
kind = "fuse"
[branch.looks.branch.photos]
kind = "image"
columns = ["front"]
size = {size}
backbone = "{backbone}"
base_channels = 2
freeze = {freeze}
"""
TRAIN = "[train]\nepochs = 1\nbatch_size = {batch}\nworkers = 0\n"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table of photos."""
    folder = tmp_path_factory.mktemp("photos")
    draw_photos(folder)
    frame_of().to_csv(folder / "houses.csv", index=False)
    return mip.read(folder / "houses.csv")


def spec_of(branches, batch=1):
    return mip.parse(branches + HEADS["regression"] + TRAIN.format(batch=batch))


def photos(size=8, backbone="small", freeze='""'):
    text = PHOTOS.format(size=size, backbone=backbone, freeze=freeze)
    return text.replace('freeze = ""\n', "")


def cut(table, rows):
    return Parts(table.take(np.arange(rows)), table.take([]), table.take([]))


@pytest.mark.parametrize(
    ("size", "freeze", "batch", "rows"),
    list(product([8, 16, 24], ['""', '"all"'], [1, 2], [1, 4])),
)
def test_what_is_refused_is_what_torch_would_refuse(size, freeze, batch, rows, table):
    spec, given = spec_of(photos(size, freeze=freeze), batch), cut(table, rows)
    plan = mip.adapt(spec, given.train)
    net = mip.build(plan)
    inputs, _, *_ = plan.encode(given.train.take(np.arange(min(batch, rows))))
    actual = []
    for function in (lambda: net(inputs), lambda: prepare_job(spec, given)):
        try:
            function()
        except (ValueError, SpecError) as error:
            actual.append(str(error))
    assert not actual or (len(actual) == 2 and actual[0].startswith("Expected more than 1 value"))


def test_the_spec_and_the_cure_are_named(table):
    why = r"batch norm \('looks.photos.backbone.\d+.norm\d'\) needs 2"
    cure = "set train.batch_size to 2 or more"
    with pytest.raises(SpecError, match=rf"^train.batch_size = 1: {why} or more rows; {cure}$"):
        prepare_job(spec_of(photos()), cut(table, 4))
    cure = "give it more rows in data.split, or choose a model without batch norm"
    with pytest.raises(SpecError, match=rf"^the training part has 1 row: {why}; {cure}$"):
        prepare_job(spec_of(photos(), batch=4), cut(table, 1))


def test_it_is_told_wherever_a_run_begins(table):
    with pytest.raises(SpecError, match=r"train\.batch_size = 1: batch norm"):
        lr_range_test(spec_of(photos()), cut(table, 4))
    frame = table.frame.assign(fold=["a", "b", *["a"] * (len(table) - 2)])
    folds = mip.Table(frame, table.name, table.root)
    with pytest.warns(MipWarning, match="fold 'a': the training part has 1 row: batch norm"):
        done = mip.crossval(spec_of(photos(), batch=4), folds, "fold")
    assert isinstance(done.errors["a"], SpecError)


@pytest.mark.parametrize("network", ["mlp", "resnet_mlp"])
def test_layers_of_a_table_are_looked_at_too(network, table):
    more = 'layers = [4, 4], batch_norm = "after"' if network == "mlp" else "hidden = 4"
    branches = f"""
[branch.all]
kind = "tabular"
continuous = ["rooms"]
network = {{ kind = "{network}", {more} }}
"""
    with pytest.raises(SpecError, match=r"^train.batch_size = 1: batch norm \('all\."):
        prepare_job(spec_of(branches), cut(table, 4))
    prepare_job(spec_of(branches, batch=2), cut(table, 4))


def test_nothing_is_changed_by_looking(table):
    plan = mip.adapt(spec_of(photos(24)), cut(table, 4).train)
    net = mip.build(plan)
    before, random = bits(net.state_dict()), torch.get_rng_state()
    check_batch_norm(plan, net, 4)
    assert bits(net.state_dict()) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_a_size_that_the_backbone_cannot_take_is_named(table):
    message = (
        r"^branch\.looks\.branch\.photos\.size = 8: the backbone 'squeezenet1_1' cannot take "
        r"photos of this size \(.+\)$"
    )
    with pytest.raises(SpecError, match=message):
        mip.build(mip.adapt(spec_of(photos(8, "squeezenet1_1")), table))
