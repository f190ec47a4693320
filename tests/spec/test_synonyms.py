"""A word of another library is answered with the right name, wherever that belongs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args, get_origin

import attrs
import pytest

import mip
from mip.branches import Finetune
from mip.data import ColumnFormat
from mip.errors import SpecError
from mip.fields import type_hints
from mip.images import Augment
from mip.spec.kinds import ROLES, flat_fields, plays
from mip.spec.synonyms import FIELDS, KINDS
from mip.spec.values import Data, Fusion, Init, ParamGroup, Plateau, Spec, Split, Train

PLAYERS = {
    role.__name__: [kind for kind in mip.KINDS.values() if plays(kind, role)] for role in ROLES
}
RECORDS = (Augment, ColumnFormat, Data, Finetune, Fusion, ParamGroup, Init, Plateau, Split, Train)
CLASSES = PLAYERS | {kind.__name__: [kind] for kind in RECORDS}
SPEC = """
[branch.photos]
kind = "image"
columns = ["front"]
[branch.rooms]
kind = "continuous"
columns = ["area"]
[branch.all]
kind = "tabular"
continuous = ["age"]
network = { kind = "mlp" }
[head]
kind = "regression"
column = "price"
[train]
optimizer = { kind = "adamw" }
schedule = { kind = "cosine" }
[[train.group]]
match = "photos.*"
"""


def fields_of(kind):
    """The fields that a spec has for a class, with their types."""
    fields = dict(type_hints(kind)) if attrs.has(kind) else {}
    for name, part in flat_fields(kind).items() if fields else ():
        fields |= type_hints(part)
        del fields[name]
    return fields


def exists(hint, names):
    """Whether a path below a value of some type can be in a spec; NAME is any name."""
    if not names:
        return True
    if get_origin(hint) is not None and get_origin(hint) is not tuple:
        inner = [each for each in get_args(hint) if each is not type(None)]
        below = names[1:] if issubclass(get_origin(hint), Mapping) else names
        return exists(inner[-1], below)
    if get_origin(hint) is tuple:
        return exists(get_args(hint)[0], names)
    classes = CLASSES.get(getattr(hint, "__name__", ""), [hint])
    actual = [fields_of(kind)[names[0]] for kind in classes if names[0] in fields_of(kind)]
    return any(exists(below, names[1:]) for below in actual)


@pytest.mark.parametrize("role", KINDS)
def test_every_kind_that_is_proposed_is_one_of_the_role(role):
    for name in KINDS[role]:
        if "." in name:
            assert exists(Spec, name.split(".")), name
        else:
            assert plays(mip.KINDS[name], next(each for each in ROLES if each.__name__ == role))


@pytest.mark.parametrize("role", FIELDS)
def test_every_field_that_is_proposed_exists(role):
    fields = {name for kind in CLASSES.get(role, []) for name in fields_of(kind)}
    for name in FIELDS[role]:
        assert name in fields or exists(Spec, name.split(".")), name


def test_a_path_that_does_not_exist_is_none():
    assert exists(Spec, ["train", "optimizer", "betas"])
    for path in ("train.optimiser", "train.lr", "train.optimizer.size", "branch.NAME.kernel"):
        assert not exists(Spec, path.split("."))


def proposed(text, changes=None):
    with pytest.raises(SpecError) as caught:
        mip.parse(text, changes=changes)
    return str(caught.value).partition("did you mean ")[2].partition("?")[0]


@pytest.mark.parametrize(
    ("word", "kind"),
    {
        "numeric": "continuous",
        "numerical": "continuous",
        "number": "continuous",
        "category": "categorical",
        "cat": "categorical",
        "bool": "boolean",
        "binary": "boolean",
        "date": "datetime",
        "timestamp": "datetime",
        "img": "image",
        "photo": "image",
        "picture": "image",
        "ft_transformer": "tabular",
    }.items(),
)
def test_a_kind_of_branch_has_many_names(word, kind):
    assert proposed(SPEC.replace('"continuous"', f'"{word}"')) == f"'{kind}'"


@pytest.mark.parametrize(
    ("line", "word", "kind"),
    [
        ('"regression"', '"classification"', "'multiclass' or 'binary'"),
        ('"regression"', '"regressor"', "'regression'"),
        ('"mlp"', '"transformer"', "'ft_transformer'"),
        ('"adamw"', '"AdamW"', "'adamw'"),
        ('"cosine"', '"CosineAnnealingLR"', "'cosine'"),
        ('"cosine"', '"joined"', "'sequential'"),
        ('"cosine"', '"ReduceLROnPlateau"', "'train.plateau'"),
    ],
)
def test_heads_networks_optimizers_and_schedules_have_too(line, word, kind):
    assert proposed("version = 2\n" + SPEC.replace(line, word)) == kind


@pytest.mark.parametrize(
    ("path", "right"),
    {
        "train.n_epochs": "'train.epochs'",
        "train.epochs_max": "'train.epochs'",
        "train.maxEpochs": "'train.epochs'",
        "train.bs": "'train.batch_size'",
        "train.minibatch": "'train.batch_size'",
        "train.lr": "'train.optimizer.lr'",
        "train.learning_rate": "'train.optimizer.lr'",
        "train.weight_decay": "'train.optimizer.weight_decay'",
        "train.early_stopping": "'train.patience'",
        "train.random_state": "'train.seed'",
        "train.optim": "'train.optimizer'",
        "train.scheduler": "'train.schedule'",
        "train.loss": "'head.loss'",
        "train.optimizer.learning_rate": "'lr'",
        "train.optimizer.step_size": "'lr'",
        "train.schedule.min_lr": "'end_factor'",
        "data.path": "'data.table'",
        "data.csv": "'data.table'",
        "data.y": "'head.column'",
        "data.test_size": "'data.split.fractions'",
        "data.split.random_state": "'seed'",
        "dataset": "'data.table'",
        "target": "'head.column'",
        "features": "'branch'",
        "epochs": "'train.epochs'",
        "random_state": "'train.seed'",
        "head.target": "'column'",
        "head.epochs": "'train.epochs'",
        "head.hidden_dims": "'layers'",
        "branch.photos.img_size": "'size'",
        "branch.photos.resolution": "'size'",
        "branch.photos.encoder": "'backbone'",
        "branch.photos.features": "'columns'",
        "branch.photos.augmentation.hflip": "'flip'",
        "branch.all.network.hidden_layers": "'layers'",
        "model": "'branch.NAME.backbone'",
    }.items(),
)
def test_a_field_has_many_names_and_places(path, right):
    assert proposed(SPEC, {path: 1}) == right


@pytest.mark.parametrize(
    ("path", "right"),
    {
        "train.batch": "'batch_size'",
        "train.keep": "'restore_best'",
        "branch.rooms.width": "'embedding_dim'",
        "branch.photos.width": "'base_channels'",
        "branch.photos.weights": "'pretrained'",
        "branch.all.numbers": "'continuous'",
        "graft": "'warm_start'",
        "train.schedule.end": "'end_factor'",
    }.items(),
)
def test_a_name_of_version_1_is_answered_with_that_of_version_2(path, right):
    assert proposed(f"version = 2\n{SPEC}", {path: 1}) == right


def test_an_old_name_beside_the_new_one_is_not_dropped():
    # Which of the two counts is not for the reader to guess.
    assert proposed(SPEC, {"train.batch": 16, "train.batch_size": 32}) == "'batch_size'"


def test_what_is_known_best_is_the_nearest_spelling():
    assert proposed(SPEC, {"train.epoch_": 3}) == "'train.epochs'"
    assert proposed(SPEC, {"train.epoks": 3}) == "'epochs'"
    assert proposed(SPEC, {"train.zzz": 3}) == ""
