"""A spec is a tree of values: it round-trips, names only known kinds, and its errors say where."""

from __future__ import annotations

import math
import re
import string
import time
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
import torch
from attrs import evolve, field, frozen
from attrs.validators import deep_iterable, gt
from conftest import HEADS, NUMBERS, bits, frame_of, known, set_up, spec_of
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import mip
from mip.branches import (
    Boolean,
    Branch,
    Categorical,
    Continuous,
    Datetime,
    FtTransformer,
    Fuse,
    Fusion,
    Image,
    Mlp,
    ResnetMlp,
    Stub,
    TabM,
    Tabular,
    Text,
    Vector,
)
from mip.branches import branches as all_branches
from mip.errors import FileError, SpecError
from mip.files import load_model, save_checkpoint
from mip.heads import (
    Binary,
    Count,
    Head,
    Joint,
    Multiclass,
    Multilabel,
    Ordinal,
    Quantile,
    Regression,
)
from mip.images import Augment
from mip.optim import (
    SGD,
    Adafactor,
    Adagrad,
    Adam,
    AdamW,
    Constant,
    Cosine,
    Exponential,
    InverseSqrt,
    Lamb,
    Linear,
    Lion,
    MultiStep,
    Muon,
    NAdam,
    OneCycle,
    OptimizerSpec,
    Phase,
    Polynomial,
    RAdam,
    RMSprop,
    ScheduleFree,
    Sequential,
    WarmRestarts,
)
from mip.spec import Spec, Train, from_dict, to_dict
from mip.spec.values import Data, Init, Plateau, Split
from mip.train import History

# Random trees of every kind.

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
columns = st.lists(texts, min_size=1, max_size=3)
counts = st.integers(1, 500)
shares = st.floats(0, 0.99)
positive = st.floats(1e-9, 1e6)
layers = st.lists(counts, max_size=3)
names = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=6).filter(
    lambda name: (
        name[0].isalpha()
        and not hasattr(nn.ModuleDict(), name)
        and name not in {"body", "branch", "head"}
    )
)
reserved = st.none() | texts

augments = st.builds(
    Augment,
    flip=st.booleans(),
    shift=st.floats(0, 0.49),
    brightness=shares,
    rotate=st.floats(0, 180),
    crop=st.floats(0.01, 1),
    contrast=shares,
    saturation=shares,
    hue=st.floats(0, 0.5),
    erase=st.floats(0, 1),
    auto=st.sampled_from(["", "rand", "trivial"]),
)
ways_to_scale = st.sampled_from(["standard", "log", "quantile", "none"])
ways_to_embed = st.sampled_from(["none", "linear", "piecewise", "periodic"])
pairs = (
    st.tuples(columns, st.just([])) | st.tuples(st.just([]), columns) | st.tuples(columns, columns)
)


sizes = st.lists(counts, min_size=1, max_size=3)
activations = st.sampled_from(["relu", "gelu", "silu", "tanh", "sigmoid"])
networks = st.one_of(
    st.builds(Mlp, sizes, activations, st.sampled_from(["none", "before", "after"]), shares),
    st.builds(ResnetMlp, counts, st.integers(1, 256), shares),
    st.builds(TabM, sizes, counts, shares),
)
transformers = st.builds(
    lambda heads, times, *rest: FtTransformer(heads * times, 3, heads, *rest),
    *(st.integers(1, 8), st.integers(1, 64), shares),
)
tabular = st.one_of(
    st.builds(
        lambda pair, *rest: Tabular(*pair, *rest),
        pairs,
        networks,
        ways_to_scale,
        ways_to_embed,
        shares,
    ),
    st.builds(
        lambda pair, net, scale: Tabular(*pair, net, scale), pairs, transformers, ways_to_scale
    ),
)
leaves = st.one_of(
    tabular,
    st.builds(
        Continuous,
        columns,
        ways_to_scale,
        ways_to_embed,
        counts,
        st.integers(2, 256),
        positive,
    ),
    st.builds(
        Categorical,
        columns,
        st.none() | counts,
        counts,
        shares,
        st.sampled_from(["embedding", "one_hot", "hash"]),
        st.integers(2, 1 << 24),
    ),
    st.builds(Boolean, columns),
    st.builds(Datetime, columns),
    st.builds(Stub, counts),
    st.builds(
        Text, columns, st.integers(1, 8), st.integers(0, 8), st.integers(2, 99), counts, counts
    ),
    st.builds(Vector, columns, st.sampled_from(["standard", "none"])),
    st.builds(
        Image,
        columns,
        size=st.integers(8, 1024),
        backbone=st.sampled_from(["small", "resnet18"]),
        base_channels=counts,
        pool=st.sampled_from(["mean", "max", "concat", "attention"]),
        missing=st.sampled_from(["error", "drop", "learn"]),
        augmentation=augments,
    ),
)
forest = lambda trees: st.dictionaries(names, trees, min_size=1, max_size=3)  # noqa: E731
fusions = st.one_of(
    st.builds(Fusion, layers, shares, modality_dropout=shares),
    st.builds(
        *(Fusion, layers, shares, st.sampled_from(["gated", "bilinear"]), st.none() | counts),
        modality_dropout=shares,
    ),
    st.builds(
        lambda heads, times, depth, drop: Fusion(
            method="attention",
            embedding_dim=heads * times,
            depth=depth,
            num_heads=heads,
            modality_dropout=drop,
        ),
        *(st.integers(1, 8), st.integers(1, 64), st.none() | st.integers(1, 64), shares),
    ),
)
branches = st.recursive(leaves, lambda below: st.builds(Fuse, forest(below), fusions))
gaps = st.sampled_from(["drop", "error"])
scales = st.sampled_from(["standard", "log", "none"])
losses = st.sampled_from(["mse", "mae", "huber", "log_cosh"])
quantiles = st.lists(st.floats(1e-9, 0.999), min_size=1, max_size=4, unique=True).map(sorted)
class_weights = st.sampled_from(["none", "balanced"])
gammas = st.floats(0, 1e6)
orders = st.just(()) | st.lists(texts.filter(bool), min_size=2, max_size=4, unique=True)
single = st.one_of(
    st.builds(Regression, texts, scales, losses, layers, shares, counts, gaps),
    st.builds(Quantile, texts, quantiles, scales, layers, shares, counts, gaps),
    st.builds(Count, texts, layers, shares, counts, gaps),
    st.builds(Binary, texts, reserved, class_weights, gammas, shares, layers, shares, counts, gaps),
    st.builds(Multiclass, texts, class_weights, gammas, shares, layers, shares, counts, gaps),
    st.builds(Ordinal, texts, orders, layers, shares, counts, gaps),
    st.builds(Multilabel, texts, layers, shares, counts, gaps),
)


@st.composite
def joined(draw, below):
    named = draw(st.dictionaries(names, below, min_size=1, max_size=3))
    if draw(st.booleans()):
        return Joint(named, "learned")
    weights = st.dictionaries(st.sampled_from(sorted(named)), st.floats(0, 1e6))
    return Joint(named, loss_weights=draw(weights))


heads = st.recursive(single, joined, max_leaves=4)
thirds = st.sampled_from([(0.7, 0.15, 0.15), (1.0, 0.0, 0.0), (1 / 3, 1 / 3, 1 / 3)])
folds = st.none() | st.integers() | texts
ways = st.sampled_from(["stratify", "group", "time", "key", "column"])
splits = st.one_of(
    st.builds(Split, thirds, st.integers()),
    st.builds(Split, column=reserved, folds=texts, test=folds, valid=folds),
    st.builds(lambda way, name: Split(**{way: name}), ways, texts),
)
decays, betas = st.sampled_from(["all", "matrices"]), st.tuples(shares, shares)
optimizers = st.one_of(
    st.builds(SGD, positive, shares, st.booleans(), shares, decays),
    st.builds(Adafactor, positive, st.floats(-5, -0.01), st.floats(1, 9), shares, decays),
    st.builds(Adagrad, positive, shares, positive, shares, decays),
    st.builds(Lion, positive, betas, shares, decays),
    st.builds(Muon, positive, shares, st.booleans(), shares, decays),
    st.builds(NAdam, positive, betas, positive, shares, shares, st.booleans(), decays),
    st.builds(RAdam, positive, betas, positive, shares, st.booleans(), decays),
    st.builds(RMSprop, positive, shares, positive, shares, st.booleans(), shares, decays),
    *(st.builds(kind, positive, betas, positive, shares, decays) for kind in (Adam, AdamW, Lamb)),
)
simple = st.one_of(
    st.builds(Constant, shares),
    st.builds(Cosine, shares, shares),
    st.builds(Exponential, st.floats(0.01, 2), shares),
    st.builds(InverseSqrt, shares),
    st.builds(Linear, shares, shares, shares),
    st.builds(MultiStep, st.lists(shares, max_size=3), shares, shares),
    st.builds(OneCycle, st.floats(0.01, 1)),
    st.builds(Polynomial, positive, shares, shares),
    st.builds(WarmRestarts, st.integers(1, 9), st.integers(1, 3), shares, shares),
)
schedules = simple | st.builds(
    lambda one, two, peak: Sequential([Phase(0.25, one, peak), Phase(0.75, two)]),
    simple,
    simple,
    shares,
)
trained = st.one_of(
    st.tuples(optimizers, schedules, st.sampled_from([(0.0, 0.0), (0.9, 0.0), (0.0, 0.5)])),
    st.tuples(
        st.builds(ScheduleFree, positive, betas, positive, shares, decays),
        st.builds(Constant, shares),
        st.just((0.0, 0.0)),
    ),
)
trains = st.builds(
    lambda how, **others: Train(
        optimizer=how[0], schedule=how[1], ema=how[2][0], swa=how[2][1], **others
    ),
    trained,
    epochs=st.integers(0, 10**6),
    batch_size=counts,
    clip_norm=st.just(0.0) | positive,
    seed=st.integers(),
    restore_best=st.booleans(),
    patience=st.none() | counts,
    checkpoint_every=st.none() | counts,
    keep_last=st.integers(-1, 9),
    workers=st.integers(0, 8),
    mixup=st.just(0.0) | positive,
    cutmix=st.just(0.0) | positive,
    plateau=st.none() | st.builds(Plateau, texts, st.floats(0.01, 0.99), counts, shares),
    accumulate=counts,
    lookahead=st.integers(0, 99),
    sam=st.just(0.0) | positive,
    precision=st.sampled_from(["float32", "bfloat16", "float16"]),
    compile=st.booleans(),
    on_nan=st.sampled_from(["stop", "skip", "roll_back"]),
)
patterns = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1)
filled = {
    "constant": {"val": numbers},
    "kaiming_uniform": {
        "a": numbers,
        "mode": st.sampled_from(["fan_in", "fan_out"]),
        "nonlinearity": texts,
    },
    "normal": {"mean": numbers, "std": numbers},
    "zeros": {},
}
inits = st.sampled_from(sorted(filled)).flatmap(
    lambda how: st.builds(
        Init, patterns, st.just(how), st.fixed_dictionaries({}, optional=filled[how])
    )
)


@st.composite
def whole(draw, trees, *others):
    """A spec some branches of which start warm, none within another."""
    trees = draw(trees)
    known = [path for path, _ in all_branches(trees)]
    chosen = sorted(draw(st.sets(st.sampled_from(known), max_size=3)), key=len)
    apart = [path for path in chosen if not any(path.startswith(f"{each}.") for each in chosen)]
    return Spec(trees, *map(draw, others), {path: draw(texts) for path in apart})


specs = whole(
    forest(branches),
    heads,
    st.builds(Data, texts, splits),
    trains,
    fusions,
    st.lists(inits, max_size=2),
)


@given(specs)
def test_a_spec_comes_back_from_its_text(spec):
    assert mip.parse(mip.dump(spec)) == spec


@given(specs)
def test_a_text_comes_back_from_its_spec(spec):
    assert mip.dump(mip.parse(mip.dump(spec))) == mip.dump(spec)


@given(specs)
def test_a_spec_comes_back_from_its_values(spec):
    assert from_dict(to_dict(spec)) == spec


def turned(tree):
    """The same tree with every table in the opposite order."""
    if isinstance(tree, dict):
        return {name: turned(child) for name, child in reversed(tree.items())}
    return tree


def ordered(branch):
    """The names of a tree of branches in their order."""
    return [(name, ordered(child)) for name, child in getattr(branch, "branch", {}).items()]


@given(specs)
def test_the_order_of_tables_does_not_matter(spec):
    again = from_dict(turned(to_dict(spec)))
    assert again == spec
    assert ordered(again.root) == ordered(spec.root)
    assert mip.dump(again) == mip.dump(spec)


def test_tables_in_another_order_give_the_same_model(table):
    one, two = '[branch.b]\nkind = "continuous"\ncolumns = ["rooms"]\n', NUMBERS
    specs = [mip.parse(text + HEADS["regression"]) for text in (one + two, two + one)]
    plans = [mip.adapt(spec, table) for spec in specs]
    assert plans[0] == plans[1]
    states = [bits(mip.build(plan).state_dict()) for plan in plans]
    assert states[0] == states[1]
    outs = [mip.build(plan).eval()(plan.encode(table).inputs) for plan in plans]
    assert torch.equal(*outs)


def test_a_spec_keeps_its_branches_sorted():
    leaf = Continuous(["x"])
    assert list(Spec({"b": leaf, "a": leaf}, Regression("y")).branch) == ["a", "b"]
    assert list(Fuse({"b": leaf, "a": leaf}).branch) == ["a", "b"]


def test_every_field_is_written_with_its_value():
    text = mip.dump(spec_of("regression", NUMBERS))
    for line in ('scale = "standard"', "unseen_rate = 0.05", "epochs = 20", 'kind = "one_cycle"'):
        assert line in text


def test_a_spec_is_read_from_a_file_with_changes(tmp_path):
    path = tmp_path / "houses.toml"
    path.write_text(NUMBERS + HEADS["regression"], encoding="utf-8")
    changes = {
        "train.epochs": 3,
        "branch.place.embedding_dim": 7,
        "train.optimizer": {"kind": "sgd"},
    }
    spec = mip.load_spec(path, changes=changes)
    assert (spec.train.epochs, spec.branch["place"].embedding_dim) == (3, 7)
    assert spec.train.optimizer == SGD()


def test_a_whole_number_is_a_number():
    text = NUMBERS + HEADS["regression"] + '[train]\noptimizer = { kind = "sgd", lr = 1 }\n'
    assert mip.parse(text).train.optimizer == SGD(lr=1.0)


# Errors: what, where, and the nearest right thing. Verbatim, for they are the interface.

HEAD = '[head]\nkind = "regression"\ncolumn = "price"\n'
PHOTO = '[branch.photos]\nkind = "image"\ncolumns = ["front"]\n'
PLACE = '[branch.place]\nkind = "categorical"\ncolumns = ["town"]\n'

TABULAR = '[branch.all]\nkind = "tabular"\ncontinuous = ["area"]\n'

ERRORS = {
    PHOTO.replace("image", "imgae") + HEAD: (
        f"branch.photos.kind = 'imgae' is not a kind; did you mean 'image'? {known(Branch)}"
    ),
    PLACE + HEAD.replace("regression", "regresion"): (
        f"head.kind = 'regresion' is not a kind; did you mean 'regression'? {known(Head)}"
    ),
    PLACE + HEAD.replace("regression", "image"): (
        f"head.kind = 'image' is not a kind {known(Head)}"
    ),
    PLACE + HEAD + '[train]\noptimizer = { kind = "adm" }\n': (
        f"train.optimizer.kind = 'adm' is not a kind; did you mean 'adam'? {known(OptimizerSpec)}"
    ),
    '[branch.place]\ncolumns = ["town"]\n' + HEAD: (
        f"branch.place.kind is missing {known(Branch)}"
    ),
    "[branch.place]\nkind = 3\n" + HEAD: f"branch.place.kind = 3 is not a kind {known(Branch)}",
    PLACE + "embeding_dim = 3\n" + HEAD: (
        "branch.place.embeding_dim is not a field; did you mean 'embedding_dim'? "
        "(known: buckets, columns, embedding_dim, encoding, min_count, unseen_rate)"
    ),
    PLACE + HEAD + "[trian]\nepochs = 3\n": (
        "trian is not a field; did you mean 'train'? "
        "(known: branch, data, fusion, head, init, train, tune, version, warm_start)"
    ),
    PLACE + 'buckets = "64"\n' + HEAD: (
        "branch.place.buckets = '64' must be a whole number, not text"
    ),
    PLACE + "buckets = 6.5\n" + HEAD: (
        "branch.place.buckets = 6.5 must be a whole number, not a number"
    ),
    PLACE + "buckets = true\n" + HEAD: (
        "branch.place.buckets = true must be a whole number, not true or false"
    ),
    PHOTO + "size = -64\n" + HEAD: "branch.photos.size must be >= 8: -64",
    PLACE + "embedding_dim = 0\n" + HEAD: "branch.place.embedding_dim must be > 0: 0",
    PLACE + "unseen_rate = 1.0\n" + HEAD: "branch.place.unseen_rate must be < 1: 1.0",
    PLACE + "unseen_rate = nan\n" + HEAD: "branch.place.unseen_rate must be >= 0: nan",
    PLACE.replace('["town"]', '"town"') + HEAD: (
        "branch.place.columns = 'town' must be a list, not text"
    ),
    PLACE.replace('["town"]', "[1]") + HEAD: (
        "branch.place.columns[0] = 1 must be text, not a whole number"
    ),
    PLACE.replace('["town"]', "[]")
    + HEAD: "branch.place.columns must have at least 1 entry, not 0",
    '[branch.place]\nkind = "categorical"\n' + HEAD: "branch.place.columns is missing",
    PLACE: "head is missing",
    HEAD: "branch is missing",
    "[branch]\n" + HEAD: "branch must have at least 1 entry, not 0",
    "branch = 3\n" + HEAD: "branch = 3 must be a table, not a whole number",
    PLACE + HEAD + 'scale = "lgo"\n': (
        "head.scale = 'lgo' is not allowed; did you mean 'log'? (known: log, none, standard)"
    ),
    PLACE + HEAD + "layers = [8, 0]\n": "head.layers must hold widths of 1 to 65536: [8, 0]",
    PHOTO
    + 'backbone = "resnet19"\n'
    + HEAD: "branch.photos.backbone = 'resnet19' is not a backbone",
    PHOTO + 'pretrained = "DEFAULT"\n' + HEAD: (
        "branch.photos.pretrained must be left out: the small backbone has none"
    ),
    PHOTO + "augmentation = { shift = 0.7 }\n" + HEAD: (
        "branch.photos.augmentation.shift must be < 0.5: 0.7"
    ),
    PHOTO + "augmentation = { rotate = 200 }\n" + HEAD: (
        "branch.photos.augmentation.rotate must be <= 180: 200.0"
    ),
    PHOTO + "augmentation = { crop = 0 }\n" + HEAD: (
        "branch.photos.augmentation.crop must be > 0: 0.0"
    ),
    PHOTO + "augmentation = { hue = 0.6 }\n" + HEAD: (
        "branch.photos.augmentation.hue must be <= 0.5: 0.6"
    ),
    PHOTO + "augmentation = { erase = -0.1 }\n" + HEAD: (
        "branch.photos.augmentation.erase must be >= 0: -0.1"
    ),
    PHOTO + 'augmentation = { auto = "radn" }\n' + HEAD: (
        "branch.photos.augmentation.auto = 'radn' is not allowed; did you mean 'rand'?"
    ),
    PLACE + HEAD + '[fusion]\nmethod = "gatde"\n': (
        "fusion.method = 'gatde' is not allowed; did you mean 'gated'?"
    ),
    PLACE + HEAD + "[fusion]\nembedding_dim = 8\n": (
        "fusion.embedding_dim must be left out: method 'concat' has none"
    ),
    PLACE + HEAD + '[fusion]\nmethod = "gated"\nnum_heads = 2\n': (
        "fusion.num_heads must be left out: method 'gated' has none"
    ),
    PLACE + HEAD + '[fusion]\nmethod = "bilinear"\ndepth = 2\n': (
        "fusion.depth must be left out: method 'bilinear' has none"
    ),
    PLACE + HEAD + '[fusion]\nmethod = "attention"\nembedding_dim = 10\n': (
        "fusion.num_heads must divide 10: 4"
    ),
    PLACE + HEAD + "[fusion]\nmodality_dropout = 1.0\n": "fusion.modality_dropout must be < 1: 1.0",
    PLACE + HEAD + "[fusion]\nlayers = [0]\n": (
        "fusion.layers must hold widths of 1 to 65536: [0]"
    ),
    '[branch.all]\nkind = "fuse"\nmethod = "attention"\nnum_heads = 3\n'
    + PLACE.replace("branch.", "branch.all.branch.")
    + HEAD: ("branch.all.num_heads must divide 64: 3"),
    '[branch.all]\nkind = "fuse"\nmethd = "gated"\n'
    + PLACE.replace("branch.", "branch.all.branch.")
    + HEAD: (
        "branch.all.methd is not a field; did you mean 'method'? (known: activation, "
        "batch_norm, branch, depth, dropout, embedding_dim, layers, method, modality_dropout, "
        "num_heads, residual, residual_folds)"
    ),
    '[branch.all]\nkind = "tabular"\n' + HEAD: (
        "branch.all.continuous or 'categorical' must name a column"
    ),
    TABULAR + 'network = { kind = "mlp", layers = [] }\n' + HEAD: (
        "branch.all.network.layers must have at least 1 entry, not 0"
    ),
    TABULAR + 'network = { kind = "tabm", layers = [0] }\n' + HEAD: (
        "branch.all.network.layers must hold widths of 1 to 65536: [0]"
    ),
    TABULAR + "unseen_rate = 1.0\n" + HEAD: "branch.all.unseen_rate must be < 1: 1.0",
    TABULAR + 'network = { kind = "ft_transformer", embedding_dim = 30 }\n' + HEAD: (
        "branch.all.network.num_heads must divide 30: 4"
    ),
    TABULAR + 'network = { kind = "ft_transformer" }\nembedding = "linear"\n' + HEAD: (
        "branch.all.embedding must be left out: the network makes its own"
    ),
    TABULAR + 'network = { kind = "image" }\n' + HEAD: (
        "branch.all.network.kind = 'image' is not a kind "
        "(known: ft_transformer, mlp, resnet_mlp, tabm)"
    ),
    PLACE + HEAD + '[[init]]\nmatch = "*"\ninitializer = "kaiming_nromal"\n': (
        "init[0].initializer = 'kaiming_nromal' is not an initializer; did you mean "
        "'kaiming_normal'? (known: constant, dirac, eye, kaiming_normal, kaiming_uniform, lsuv, "
        "normal, ones, orthogonal, sparse, trunc_normal, uniform, xavier_normal, xavier_uniform, "
        "zeros)"
    ),
    PLACE + HEAD + "[[init]]\ninitializer = 'ones'\n": "init[0].match is missing",
    PLACE + HEAD + "init = { match = '*', initializer = 'ones' }\n": "head.init is not a field",
    PLACE + HEAD + "[[init]]\nmatch = '*'\ninitializer = 'normal'\noptions.sdt = 1\n": (
        "init[0].options does not fit: 'sdt' is not an option of normal; did you mean 'std'? "
        "(known: mean, std)"
    ),
    PLACE + HEAD + "[[init]]\nmatch = '*'\ninitializer = 'normal'\noptions = { std = inf }\n": (
        "init[0].options must be finite: std = inf"
    ),
    PLACE + HEAD + "[[init]]\nmatch = '*'\ninitializer = 'normal'\noptions = { std = true }\n": (
        "init[0].options.std = true must be a whole number, not true or false"
    ),
    PLACE + HEAD + "[[init]]\nmatch = '*'\ninitializer = 'normal'\noptions = 1\n": (
        "init[0].options = 1 must be a table, not a whole number"
    ),
    PLACE + HEAD + "[warm_start]\nplcae = 'a.safetensors'\n": (
        "warm_start names 'plcae', which is not a branch; did you mean 'place'? (known: place)"
    ),
    PLACE + HEAD + "[warm_start]\nplace.x = 'a.safetensors'\n": (
        "warm_start names 'place.x', which is not a branch; did you mean 'place'? (known: place)"
    ),
    PLACE + HEAD + "[warm_start]\nplace = 3\n": (
        "warm_start.place = 3 must be text, not a whole number"
    ),
    PLACE + HEAD + "warm_start = 3\n": "head.warm_start is not a field",
    "warm_start = 'a.safetensors'\n" + PLACE + HEAD: (
        "warm_start = 'a.safetensors' must be a table, not text"
    ),
    '[branch.all]\nkind = "fuse"\n'
    + PLACE.replace("branch.", "branch.all.branch.")
    + HEAD
    + "[warm_start]\nall = 'a'\n'all.place' = 'b'\n": (
        "warm_start has 'all.place' twice: 'all' contains it"
    ),
    PLACE + HEAD + "[data.columns.town]\nmerge = { a = ['x'], b = ['y', 'x'] }\n": (
        "data.columns.town.merge has 'x' in 'a' and in 'b'"
    ),
    PLACE + HEAD + "[data.columns.town]\nmerge = { a = ['x', 'b'], b = ['y'] }\n": (
        "data.columns.town.merge has 'b' in 'a', and merges others into it"
    ),
    PLACE + HEAD + "[data.columns.town]\nmerge = { a = ['x'] }\nna_values = ['x']\n": (
        "data.columns.town.merge has 'x' in 'a', and 'na_values' has it too"
    ),
    PLACE + HEAD + "[data.columns.size]\nmultipliers = { k = 0 }\n": (
        "data.columns.size.multipliers must be finite and > 0: k = 0.0"
    ),
    PLACE + HEAD + "[data.columns.size]\nmultipliers = { 1k = 1000 }\n": (
        "data.columns.size.multipliers are words without digits, not '1k'"
    ),
    PLACE + HEAD + "[train]\nmixup = -0.1\n": "train.mixup must be >= 0: -0.1",
    PLACE + HEAD + "[train]\nmixup = nan\n": "train.mixup must be >= 0: nan",
    PLACE + HEAD + "[train]\ncutmix = inf\n": "train.cutmix must be < inf: inf",
    PLACE + HEAD + "[train]\ncutmix = true\n": (
        "train.cutmix = true must be a number, not true or false"
    ),
    PLACE + HEAD + "[train]\nmixpu = 0.2\n": "train.mixpu is not a field; did you mean 'mixup'?",
    PLACE + HEAD + "[data.split]\nfractions = [0.5, 0.4, 0.3]\n": (
        "data.split.fractions must be three shares that add up to 1: [0.5, 0.4, 0.3]"
    ),
    PLACE + HEAD + "[data.split]\nfractions = [nan, 0.5, 0.5]\n": (
        "data.split.fractions must be three shares that add up to 1: [nan, 0.5, 0.5]"
    ),
    "[branch.place\n": (
        "not valid TOML: Expected ']' at the end of a table declaration (at line 1, column 14)"
    ),
}


@pytest.mark.parametrize(("text", "error"), ERRORS.items(), ids=[*map(str, range(len(ERRORS)))])
def test_an_error_says_what_where_and_the_nearest(text, error):
    with pytest.raises(SpecError) as caught:
        mip.parse(text)
    assert str(caught.value).startswith(error)


@pytest.mark.parametrize(
    "name", ["items", "keys", "training", "forward", "children", "2nd", "a b", "head"]
)
def test_some_names_cannot_be_those_of_branches(name):
    for text in (f'[branch."{name}"]', f'[branch.all.branch."{name}"]'):
        with pytest.raises(SpecError, match=f"'{name}' cannot be the name of a branch$"):
            mip.parse(f"{text}\n{HEAD}" + '[branch.all]\nkind = "fuse"\n')


def test_a_file_is_named_in_its_errors(tmp_path):
    path = tmp_path / "houses.toml"
    path.write_text(PHOTO.replace("image", "imgae") + HEAD)
    with pytest.raises(SpecError) as caught:
        mip.load_spec(path)
    assert str(caught.value).startswith(f"{path}: branch.photos.kind = 'imgae' is not a kind; did")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SpecError, match=r"nowhere\.toml: there is no such spec$"):
        mip.load_spec(tmp_path / "nowhere.toml")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "houses.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(
        SpecError, match=r"houses\.toml: not a text: a spec is a TOML file \('utf-8'"
    ):
        mip.load_spec(path)


def test_a_missing_column_names_the_nearest():
    table = mip.from_frame(frame_of(), name="houses.csv")
    spec = mip.parse(PLACE.replace("town", "twon") + HEAD)
    expected = (
        "branch.place.columns: 'twon' is not a column of houses.csv; did you mean 'town'? (known: "
    )
    with pytest.raises(SpecError, match=re.escape(expected)):
        mip.adapt(spec, table)


def test_a_missing_target_names_the_nearest():
    table = mip.from_frame(frame_of(), name="houses.csv")
    spec = mip.parse(PLACE + HEAD.replace("price", "prize"))
    expected = "head.column = 'prize' is not a column of houses.csv; did you mean 'price'? (known: "
    with pytest.raises(SpecError, match=re.escape(expected)):
        mip.adapt(spec, table)


def test_a_target_that_a_branch_reads_is_refused():
    spec = mip.parse(PLACE.replace("town", "price") + HEAD)
    with pytest.raises(SpecError, match=r"^branch\.place\.columns: 'price' is the target$"):
        mip.adapt(spec, mip.from_frame(frame_of()))


def test_a_change_below_a_value_is_refused():
    with pytest.raises(SpecError, match=r"head\.column\.name: 'column' is not a table"):
        mip.parse(PLACE + HEAD, changes={"head.column.name": 3})


def nested(depth):
    inner = "{kind='continuous',columns=['x']}"
    for _ in range(depth):
        inner = "{kind='fuse',branch={a=" + inner + "}}"
    return "branch={a=" + inner + "}\n" + HEAD


def test_depth_is_free():
    spec = mip.parse(nested(10))
    frame = pd.DataFrame({"x": [1.0, 2.0], "price": [1.0, 2.0]})
    plan = mip.adapt(spec, mip.from_frame(frame))
    assert mip.build(plan)(plan.encode(mip.from_frame(frame)).inputs).shape == (2,)


@pytest.mark.parametrize("depth", [60, 90, 120, 150, 200, 400])
def test_a_tree_too_deep_is_refused_and_no_more(depth):
    # How deep is too deep depends on the stack; nothing but these two may happen.
    with suppress(SpecError):
        assert isinstance(mip.parse(nested(depth)), Spec)


@pytest.mark.parametrize("text", [".".join(["x"] * 20_000) + " = 1\n", "#" * 1_000_001])
def test_a_hostile_text_is_refused_at_once(text):
    began = time.monotonic()
    with pytest.raises(SpecError):
        mip.parse(text)
    assert time.monotonic() - began < 1


def test_what_toml_cannot_say_is_refused():
    @frozen
    class Bounded(Continuous):
        kind = "bounded"
        limit: float | None = 1.0

    spec = Spec({"a": Bounded(["x"], limit=None)}, Regression("y"))
    with pytest.raises(SpecError, match=r"^Bounded\.limit is None, which TOML cannot express$"):
        mip.dump(spec)


# Kinds: only those of the table given.


@frozen
class Season:
    """The time of the year, on a circle; an own kind with its three verbs."""

    kind = "season"
    column: str
    out: int = field(default=2, validator=gt(0))

    def adapt(self, rows):
        return {"earliest": float(np.nanmin(rows.numbers(self.column)))}

    def encode(self, facts, rows):
        months = np.nan_to_num(rows.numbers(self.column) - facts["earliest"])
        angle = torch.from_numpy(months * (2 * math.pi / 12)).float()
        return torch.stack([angle.sin(), angle.cos()], dim=1)

    def module(self, facts):
        return nn.Linear(2, self.out)


SEASON = '[branch.season]\nkind = "season"\ncolumn = "month"\n'
SEASONS = {**mip.KINDS, "season": Season}


@pytest.fixture(scope="module")
def months():
    month = np.arange(48) % 12 + 1
    price = 100 + 20 * np.sin(month * 2 * np.pi / 12)
    return mip.from_frame(pd.DataFrame({"month": month, "price": price}))


def test_an_own_kind_is_read_and_written():
    spec = mip.parse(SEASON + "out = 3\n" + HEAD, kinds=SEASONS)
    assert spec.branch["season"] == Season("month", 3)
    assert mip.parse(mip.dump(spec), SEASONS) == spec


def test_an_own_kind_has_the_errors_of_every_kind(months):
    with pytest.raises(SpecError, match=r"^branch\.season\.out must be > 0: -1$"):
        mip.parse(SEASON + "out = -1\n" + HEAD, SEASONS)
    with pytest.raises(SpecError, match=r"^branch\.season\.columm is not a field; did you mean"):
        mip.parse(SEASON.replace("column", "columm") + HEAD, SEASONS)
    spec = mip.parse(SEASON.replace("month", "mnth") + HEAD, SEASONS)
    with pytest.raises(SpecError, match=r"'mnth' is not a column of table; did you mean 'month'"):
        mip.adapt(spec, months)


def large(instance, attribute, value):
    if value > 3:
        raise ValueError("width is too large")


@frozen
class Inner:
    depth: int = field(default=1, validator=large)


@frozen
class Checked:
    """A kind whose checks do not say the names of its fields."""

    kind = "checked"
    width: int = field(default=1, validator=[gt(0), large])
    sizes: tuple[int, ...] = field(default=(), converter=tuple, validator=deep_iterable(large))
    size: int = field(default=1)
    name: str = field(default="")
    depth: int = 1

    @size.validator
    def _bare(self, _, size):
        if size > 3:
            raise ValueError

    @name.validator
    def _other(self, _, name):
        if name:
            raise ValueError("'width' and a name exclude each other")

    def __attrs_post_init__(self):
        Inner(self.depth)

    def adapt(self, rows):
        return {}

    def encode(self, facts, rows):
        return torch.zeros(len(rows), 1)

    def module(self, facts):
        return nn.Identity()


@pytest.mark.parametrize(
    ("text", "message"),
    {
        "width = 7": "branch.a.branch.b.width: width is too large",
        "width = 0": "branch.a.branch.b.width must be > 0: 0",
        "sizes = [1, 9]": "branch.a.branch.b.sizes: width is too large",
        "size = 9": "branch.a.branch.b.size: this value is not allowed",
        "name = 'x'": "branch.a.branch.b.name: 'width' and a name exclude each other",
        "depth = 9": "branch.a.branch.b: width is too large",
    }.items(),
)
def test_a_check_of_a_users_own_is_named_with_its_field(text, message):
    own = f"[branch.a]\nkind = 'fuse'\n[branch.a.branch.b]\nkind = 'checked'\n{text}\n"
    with pytest.raises(SpecError) as caught:
        mip.parse(own + HEAD, kinds={**mip.KINDS, "checked": Checked})
    assert str(caught.value) == message


def test_an_own_kind_is_trained_saved_and_loaded(months, tmp_path):
    train = '[train]\nepochs = 30\nbatch_size = 8\noptimizer = { kind = "adamw", lr = 0.05 }\n'
    spec = mip.parse(SEASON + HEAD + train, SEASONS)
    parts = mip.model.Parts(months, months, months.take([]))
    ended = mip.run(spec, parts, out=tmp_path, context=mip.Context(kinds=SEASONS))
    assert mip.evaluate(ended.predict, months)["r2"] > 0.95
    for name in ("model.safetensors", "checkpoints/last.safetensors"):
        predict = mip.load(tmp_path / name, SEASONS)
        pd.testing.assert_frame_equal(predict(months), ended.predict(months))
    assert mip.load_spec(tmp_path / "spec.toml", SEASONS) == spec


def test_an_own_kind_goes_through_cross_validation(months):
    train = "[train]\nepochs = 1\n"
    table = mip.from_frame(months.frame.assign(fold=np.arange(48) % 2))
    done = mip.crossval(
        mip.parse(SEASON + HEAD + train, SEASONS), table, "fold", context=mip.Context(kinds=SEASONS)
    )
    assert len(done.predictions) == 48


def test_a_kind_that_is_not_in_the_table_cannot_be_named(months, tmp_path):
    with pytest.raises(
        SpecError, match=r"^branch\.season\.kind = 'season' is not a kind \(known: "
    ):
        mip.parse(SEASON + HEAD)
    spec = mip.parse(SEASON + HEAD, SEASONS)
    setup = set_up(spec, months)
    mip.save(tmp_path / "model.safetensors", setup.plan, setup.state)
    with pytest.raises(FileError, match=r"branch\.season\.kind = 'season' is not a kind"):
        mip.load(tmp_path / "model.safetensors")


@frozen
class Month(Season):
    """A kind that does not state its name: a base class's is another kind's."""


def test_a_kind_without_a_name_is_not_written(months, tmp_path):
    spec = Spec({"season": Month("month")}, Regression("price"))
    setup = set_up(spec, months)
    expected = r'^class Month needs the attribute kind = "month", its name in specs$'
    with pytest.raises(SpecError, match=expected):
        mip.dump(spec)
    with pytest.raises(SpecError, match=expected):
        mip.save(tmp_path / "model.safetensors", setup.plan, setup.state)
    with pytest.raises(SpecError, match=expected):
        save_checkpoint(tmp_path / "last", setup.state, History(), setup.plan)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [Month, Season, Image])
def test_a_kind_is_read_by_its_name_alone(kind):
    # Under another name it would be trained, saved, and then not be read again.
    with pytest.raises(SpecError) as caught:
        mip.parse(SEASON.replace('"season"', '"own"') + HEAD, {**mip.KINDS, "own": kind})
    text = f'class {kind.__name__} needs the attribute kind = "own", its name in specs'
    assert str(caught.value) == f"branch.season.kind = 'own': {text}"


def test_kinds_play_only_their_role():
    kinds = {**SEASONS, "photo": Image}
    with pytest.raises(SpecError, match=r"^train\.optimizer\.kind = 'season' is not a kind"):
        mip.parse(PLACE + HEAD + '[train]\noptimizer = { kind = "season" }\n', kinds)


def test_the_table_of_kinds_cannot_be_changed():
    with pytest.raises(TypeError):
        mip.KINDS["season"] = Season


@pytest.mark.parametrize(
    "kind", ["os.system", "mip.branch.Image", "__import__", "builtins.eval", ""]
)
def test_a_path_of_python_is_not_a_kind(kind):
    with pytest.raises(SpecError, match="is not a kind"):
        mip.parse(PLACE.replace("categorical", kind) + HEAD)


def test_a_model_file_names_only_kinds_of_the_table(table, tmp_path):
    setup = set_up(spec_of("regression", NUMBERS), table)
    only = {name: kind for name, kind in mip.KINDS.items() if name != "categorical"}
    mip.save(tmp_path / "model.safetensors", setup.plan, setup.state)
    with pytest.raises(FileError, match=r"branch\.place\.kind = 'categorical' is not a kind"):
        load_model(tmp_path / "model.safetensors", only)


def test_a_spec_is_a_value():
    spec = spec_of()
    assert evolve(spec, train=Train()) == spec
    with pytest.raises(AttributeError):
        spec.head = Regression("x")


def test_a_class_that_is_no_kind_says_what_it_lacks():
    @frozen
    class Half:
        column: str

        def adapt(self, rows):
            return {}

    class Bare:
        pass

    for kind, message in (
        (Half, "'own' is not a kind: Half has no encode, module"),
        (Bare, "'own' is not a kind: Bare is not a frozen attrs class"),
    ):
        with pytest.raises(SpecError) as caught:
            mip.parse(f'[branch.a]\nkind = "own"\n{HEAD}', {**mip.KINDS, "own": kind})
        assert str(caught.value) == f"branch.a.kind = {message}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('optimizer = "adam"', "train.optimizer = 'adam' must be a table: { kind = \"adam\" }"),
        ('optimizer = "admw"', "train.optimizer = 'admw' must be a table: { kind = \"adamw\" }"),
        ('schedule = "sgdr"', "schedule = 'sgdr' must be a table: { kind = \"warm_restarts\" }"),
        ('optimizer = "x"', "train.optimizer = 'x' must be a table: { kind = \"…\" } (known: ada"),
        ('optimizer.knd = "adam"', "train.optimizer.knd is not a field; did you mean 'kind'?"),
        ("optimizer.lr = 0.1", "train.optimizer.kind is missing (known: adafactor"),
        (
            'metrics = ["f1"]',
            "train.metrics is not a field; the head computes its metrics, and mip.",
        ),
    ],
)
def test_a_kind_that_is_written_otherwise_is_recognized(line, message):
    with pytest.raises(SpecError, match=re.escape(message)):
        mip.parse(f"""
        [branch]
        [head]
        kind = "regression"
        column = "y"
        [train]
        {line}
        """)
