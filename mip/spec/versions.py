"""Versions of specs: the names in earlier ones, and how a tree with them is upgraded.

Version 2 renamed fields to the usual terms; the tables below have every name that it changed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from mip.errors import MipWarning, SpecError

VERSION = 2
"""The version of specs that this code writes. It also reads earlier ones and files that
state none. A new field needs no new version, because files without it get its default.
"""

Change = str | tuple[str, Callable[[Any], Any]]
"""The new name of a field, or the name and a function that converts its value."""

SECTIONS: Mapping[str, Mapping[str, Change]] = {
    "": {"graft": "warm_start"},
    "data": {},
    "fusion": {
        "fusion": "method",
        "width": "embedding_dim",
        "heads": "num_heads",
        "drop": "modality_dropout",
    },
    "init": {"how": "initializer"},
    "sequential.part": {"peak": "lr_scale"},
    "train": {
        "batch": "batch_size",
        "checkpoint_keep": "keep_last",
        "clip": "clip_norm",
        "keep": ("restore_best", lambda keep: keep == "best" if keep in ("best", "last") else keep),
        "nan": "on_nan",
    },
    "train.group": {"lr": "lr_scale", "start": "start_epoch"},
}
"""What version 1 called the fields of a section, by its path from the root of the spec or from the
kind that holds it.
"""

_OPTIMIZER: Mapping[str, Change] = {"decay": "decay_params"}
_ADAM: Mapping[str, Change] = {**_OPTIMIZER, "decoupled": "decoupled_weight_decay"}

FIELDS: Mapping[str, Mapping[str, Change]] = {
    "adafactor": {**_OPTIMIZER, "threshold": "clip_threshold"},
    "adagrad": {**_OPTIMIZER, "initial": "initial_accumulator_value"},
    "adam": _OPTIMIZER,
    "adamw": _OPTIMIZER,
    "binary": {
        "focal": "focal_gamma",
        "positive": "pos_label",
        "smoothing": "label_smoothing",
        "weights": "class_weight",
    },
    "categorical": {"width": "embedding_dim", "least": "min_count", "unseen": "unseen_rate"},
    "continuous": {"width": "embedding_dim"},
    "cosine": {"end": "end_factor"},
    "exponential": {"end": "end_factor"},
    "ft_transformer": {"width": "embedding_dim", "heads": "num_heads"},
    "fuse": {
        "fusion": "method",
        "width": "embedding_dim",
        "heads": "num_heads",
        "drop": "modality_dropout",
    },
    "image": {"width": "base_channels", "weights": "pretrained", "cut": "feature_layer"},
    "joint": {"weight": "loss_weights"},
    "lamb": _OPTIMIZER,
    "linear": {"start": "start_factor", "end": "end_factor"},
    "lion": _OPTIMIZER,
    "multi_step": {"at": "milestones", "factor": "gamma"},
    "multiclass": {
        "focal": "focal_gamma",
        "smoothing": "label_smoothing",
        "weights": "class_weight",
    },
    "muon": _OPTIMIZER,
    "nadam": _ADAM,
    "polynomial": {"end": "end_factor"},
    "quantile": {"levels": "quantiles"},
    "radam": _ADAM,
    "resnet_mlp": {"width": "hidden"},
    "rmsprop": _OPTIMIZER,
    "schedule_free": _OPTIMIZER,
    "sgd": _OPTIMIZER,
    "stub": {"width": "out_features"},
    "tabular": {"numbers": "continuous", "categories": "categorical", "unseen": "unseen_rate"},
    "text": {
        "words": "word_ngrams",
        "letters": "char_ngrams",
        "length": "max_length",
        "width": "embedding_dim",
    },
    "warm_restarts": {"factor": "cycle_mul", "end": "end_factor"},
}
"""What version 1 called the fields of a kind, by the kind's name in version 2."""

KIND_NAMES: Mapping[str, str] = {"joined": "sequential"}
"""What version 1 called the kinds."""


def check_version(tree: Any) -> None:
    """Raise SpecError for a later version, whose fields would be reported as mistakes."""
    version = tree.get("version") if isinstance(tree, Mapping) else None
    if type(version) is int and version > VERSION:
        cure = f"this mip reads specs up to version {VERSION}; upgrade mip"
        raise SpecError(f"version = {version}: {cure}")


def upgrade(tree: Any) -> Any:
    """Upgrade a tree of plain values to this version, if it states version 1 or none.

    Names of this version are kept, and so is anything that is not a spec. Warns with MipWarning
    if a spec that states no version has old names.

    >>> upgrade({"version": 2, "train": {"epochs": 3}})
    {'version': 2, 'train': {'epochs': 3}}
    >>> upgrade({"version": 1, "train": {"batch": 16}})
    {'version': 2, 'train': {'batch_size': 16}}
    """
    if not isinstance(tree, Mapping) or ("version" in tree and repr(tree["version"]) != "1"):
        return tree
    renamed: list[str] = []
    upgraded = _upgraded(tree, "", "", renamed)
    if "version" in tree:
        return {**upgraded, "version": VERSION}
    if renamed:
        text = f"this spec has names of version 1: {', '.join(renamed)}"
        warnings.warn(f"{text} (or say version = 1 at its top)", MipWarning, stacklevel=2)
    return upgraded


def _upgraded(value: Any, path: str, section: str, renamed: list[str]) -> Any:
    if isinstance(value, list):
        return [_upgraded(child, path, section, renamed) for child in value]
    if not isinstance(value, Mapping):
        return value
    fields = {"kind": value["kind"]} if "kind" in value else {}
    changes = SECTIONS.get(section, {})
    if isinstance(value.get("kind"), str):
        fields["kind"] = section = KIND_NAMES.get(value["kind"], value["kind"])
        changes = FIELDS.get(section, {})
        renamed += [f"'{value['kind']}' is now '{section}'"] if section != value["kind"] else []
    for name, child in value.items():
        new, convert = _change(changes.get(name, name))
        if new in value:  # a field under both names, which the reader refuses
            new, convert = _change(name)
        if name != "kind":
            where = f"{path}.{new}".lstrip(".")
            below = f"{section}.{new}".lstrip(".")
            fields[new] = _upgraded(convert(child), where, below, renamed)
            renamed += [f"'{name}' is now {where}"] if new != name else []
    return fields


def _change(change: Change) -> tuple[str, Callable[[Any], Any]]:
    return (change, lambda value: value) if isinstance(change, str) else change
