"""The table of kinds: every branch, head, optimizer and schedule that a spec can name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import attrs

from mip.branches import (
    Boolean,
    Branch,
    Categorical,
    Continuous,
    Datetime,
    FtTransformer,
    Fuse,
    Image,
    Mlp,
    Network,
    ResnetMlp,
    Stub,
    TabM,
    Tabular,
    Text,
    Vector,
)
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
    Joined,
    Lamb,
    Linear,
    Lion,
    MultiStep,
    Muon,
    NAdam,
    OneCycle,
    OptimizerSpec,
    Polynomial,
    RAdam,
    RMSprop,
    ScheduleFree,
    ScheduleSpec,
    WarmRestarts,
)

KINDS: Mapping[str, type] = MappingProxyType(
    {
        "adafactor": Adafactor,
        "adagrad": Adagrad,
        "adam": Adam,
        "adamw": AdamW,
        "binary": Binary,
        "boolean": Boolean,
        "categorical": Categorical,
        "constant": Constant,
        "continuous": Continuous,
        "cosine": Cosine,
        "count": Count,
        "datetime": Datetime,
        "exponential": Exponential,
        "ft_transformer": FtTransformer,
        "fuse": Fuse,
        "image": Image,
        "inverse_sqrt": InverseSqrt,
        "joined": Joined,
        "joint": Joint,
        "lamb": Lamb,
        "linear": Linear,
        "lion": Lion,
        "mlp": Mlp,
        "multi_step": MultiStep,
        "multiclass": Multiclass,
        "multilabel": Multilabel,
        "muon": Muon,
        "nadam": NAdam,
        "one_cycle": OneCycle,
        "ordinal": Ordinal,
        "polynomial": Polynomial,
        "quantile": Quantile,
        "radam": RAdam,
        "regression": Regression,
        "resnet_mlp": ResnetMlp,
        "rmsprop": RMSprop,
        "schedule_free": ScheduleFree,
        "sgd": SGD,
        "stub": Stub,
        "tabm": TabM,
        "tabular": Tabular,
        "text": Text,
        "vector": Vector,
        "warm_restarts": WarmRestarts,
    }
)
"""Every kind a file can name. Add your own: `kinds={**mip.KINDS, "season": Season}`."""


ROLES = (Branch, Head, Network, OptimizerSpec, ScheduleSpec)
"""What a kind can be."""


def plays(kind: type, role: Any) -> bool:
    """Say whether a kind fits a role: it has all of its verbs and fields; no base class is asked
    for.
    """
    return attrs.has(kind) and not _missing(kind, role)


def _missing(kind: type, role: Any) -> list[str]:
    fields = attrs.fields_dict(kind) if attrs.has(kind) else {}
    wanted = {name: part for name, part in vars(role).items() if not name.startswith("_")}
    return [
        name
        for name, part in wanted.items()
        if not (callable(getattr(kind, name, None)) if callable(part) else name in fields)
    ]


def missing_verbs(kind: type | None, role: Any) -> str:
    """Say which verbs a class lacks to play a role, for an error's end."""
    # A kind of another role is a mistake in the file; one that plays none, in its class.
    if kind is None or any(plays(kind, each) for each in ROLES):
        return ""
    if not attrs.has(kind):
        return f": {kind.__name__} is not a frozen attrs class"
    return f": {kind.__name__} has no {', '.join(_missing(kind, role))}"
