"""The table of kinds: every branch, head, optimizer and schedule that a spec can name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol, TypeGuard

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
    ResnetMlp,
    Stub,
    TabM,
    Tabular,
    TabularNetwork,
    Text,
    Vector,
)
from mip.fields import type_hints
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
    Sequential,
    WarmRestarts,
)


class Kind(Protocol):
    """A class that specs name by its attribute `kind`: `kind = "season"`."""

    kind: str


_CLASSES: tuple[type[Kind], ...] = (
    Adafactor,
    Adagrad,
    Adam,
    AdamW,
    Binary,
    Boolean,
    Categorical,
    Constant,
    Continuous,
    Cosine,
    Count,
    Datetime,
    Exponential,
    FtTransformer,
    Fuse,
    Image,
    InverseSqrt,
    Joint,
    Lamb,
    Linear,
    Lion,
    Mlp,
    MultiStep,
    Multiclass,
    Multilabel,
    Muon,
    NAdam,
    OneCycle,
    Ordinal,
    Polynomial,
    Quantile,
    RAdam,
    Regression,
    ResnetMlp,
    RMSprop,
    ScheduleFree,
    Sequential,
    SGD,
    Stub,
    TabM,
    Tabular,
    Text,
    Vector,
    WarmRestarts,
)


KINDS: Mapping[str, type] = MappingProxyType({kind.kind: kind for kind in _CLASSES})
"""Every kind that a file can name. Readers take a table with your own, whose classes have the
attribute `kind`: `kinds={**mip.KINDS, "season": Season}`.
"""


Kinds = Mapping[str, Callable[..., Any]]
"""A table of kinds: classes, and functions that `layers` and `backbone` can name."""


ROLES = (Branch, Head, TabularNetwork, OptimizerSpec, ScheduleSpec)
"""What a kind can be."""


def name_of(kind: type) -> str | None:
    """Return the name of a class in specs, its own attribute `kind`; None if it has none.

    >>> name_of(Image), name_of(type("Thumbnail", (Image,), {}))
    ('image', None)
    """
    name = vars(kind).get("kind")  # not by getattr: a subclass is another kind
    return name if isinstance(name, str) else None


def lacks_name(kind: type, name: str) -> str:
    """Return the error text for a class that does not have this name in specs."""
    return f'class {kind.__name__} needs the attribute kind = "{name}", its name in specs'


def flat_fields(kind: type) -> dict[str, type]:
    """Return the fields that specs flatten, so that their own fields appear in their place, with
    their classes: those with the attrs metadata `flat`.

    >>> flat_fields(Fuse)
    {'fusion': <class 'mip.branches.fuse.Fusion'>}
    """
    names = [field.name for field in attrs.fields(kind) if field.metadata.get("flat")]
    return {name: type_hints(kind)[name] for name in names}


def functions_in(kinds: Kinds) -> dict[str, Callable[..., Any]]:
    """Return the functions of a table of kinds, which are all that is no kind.

    >>> list(functions_in({**KINDS, "double": lambda x: 2 * x}))
    ['double']
    """
    return {name: kind for name, kind in kinds.items() if not _is_attrs(kind)}


def is_role(hint: Any) -> bool:
    """Return whether an annotation is a role, a protocol that kinds play."""
    return getattr(hint, "_is_protocol", False)


def plays(kind: Any, role: Any) -> TypeGuard[type]:
    """Return whether a kind plays a role: has all of its verbs and fields. No base class is needed.

    >>> plays(Image, Branch), plays(Image, Head)
    (True, False)
    """
    return _is_attrs(kind) and not _missing(kind, role)


def _is_attrs(kind: Any) -> bool:
    return attrs.has(kind)


def _missing(kind: Any, role: Any) -> list[str]:
    fields = attrs.fields_dict(kind) if attrs.has(kind) else {}
    members = {name: member for name, member in vars(role).items() if not name.startswith("_")}
    return [
        name
        for name, member in members.items()
        if not (callable(getattr(kind, name, None)) if callable(member) else name in fields)
    ]


def missing_verbs(kind: Any, role: Any) -> str:
    """Return the end of an error text: what a class lacks to play a role."""
    # A kind with another role is a mistake in the file; one that plays none, in its class.
    if kind is None or any(plays(kind, other) for other in ROLES):
        return ""
    if not attrs.has(kind):
        return f": {getattr(kind, '__name__', kind)} is not a frozen attrs class"
    return f": {kind.__name__} has no {', '.join(_missing(kind, role))}"
