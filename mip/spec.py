"""The spec: a frozen tree of what the user wants, from TOML and back."""

from __future__ import annotations

import json
import math
import re
import tomllib
import traceback
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs
from attrs import field, frozen
from attrs.validators import ge, gt, in_, le, lt, min_len, optional
from torch import nn

from mip.branch import Branch, branches, by_name
from mip.branches.boolean import Boolean
from mip.branches.categorical import Categorical
from mip.branches.continuous import Continuous
from mip.branches.datetime import Datetime
from mip.branches.ft_transformer import FtTransformer
from mip.branches.fuse import Fuse, Fusion
from mip.branches.image import Image
from mip.branches.mlp import Mlp
from mip.branches.resnet_mlp import ResnetMlp
from mip.branches.stub import Stub
from mip.branches.tabm import TabM
from mip.branches.tabular import Network, Tabular
from mip.branches.text import Text
from mip.branches.vector import Vector
from mip.errors import SpecError, hint
from mip.gradient import Precision
from mip.head import Head
from mip.heads.classes import Binary, Multiclass
from mip.heads.count import Count
from mip.heads.joint import Joint
from mip.heads.multilabel import Multilabel
from mip.heads.ordinal import Ordinal
from mip.heads.quantile import Quantile
from mip.heads.regression import Regression
from mip.initialise import INITIALISERS, strange, unknown
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


VERSION = 1
"""The version of specs that this code writes; it reads earlier ones, and a file that says none. A
field that is added takes its default where a file lacks it, and needs no new version.
"""


ON_NAN = ("stop", "skip", "roll_back")
"""What can happen to a step whose loss or gradients are not finite."""


ROLES = (Branch, Head, Network, OptimizerSpec, ScheduleSpec)
"""What a kind can be."""


@frozen
class Split:
    """How rows become train, valid and test.

    By `fractions` and `seed`, with one column at most that says how: `stratify`, `group`, `time`
    (the earliest rows train) or `key` (a row's part depends on its key alone); or by `column`,
    which says train, valid or test; or by a `folds` file, whose `column` says each row's fold:
    the fold `test` is the test part, the fold `valid` (if given) the valid part.
    """

    fractions: tuple[float, ...] = field(default=(0.7, 0.15, 0.15), converter=tuple)
    seed: int = 0
    stratify: str | None = None
    group: str | None = None
    column: str | None = None
    folds: str | None = None
    test: int | str | None = None
    valid: int | str | None = None
    time: str | None = None
    key: str | None = None

    def __attrs_post_init__(self) -> None:
        ways = ["stratify", "group", "time", "key", "folds" if self.folds else "column"]
        given = [name for name in ways if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"'{given[1]}' and '{given[0]}' exclude each other")
        for name in ("test", "valid"):
            if getattr(self, name) is not None and self.folds is None:
                raise ValueError(f"'{name}' is a fold, which needs 'folds', the file of folds")

    @fractions.validator
    def _whole(self, _: Any, shares: tuple[float, ...]) -> None:
        if not (len(shares) == 3 and min(shares) >= 0 and abs(sum(shares) - 1) <= 1e-6):
            raise ValueError(f"'fractions' must be three shares that add up to 1: {list(shares)}")


@frozen
class Data:
    """Where the rows are (what `read` takes, relative to the spec file) and how they are split.

    With `stream` they stay in their Parquet files and are read a window at a time.
    """

    table: str = ""
    split: Split = Split()
    stream: bool = False


def _initialiser(_: Any, about: attrs.Attribute, name: str) -> None:
    # `in_` alone, which the JSON Schema reads, would not say the nearest name.
    if mistake := unknown(name):
        raise ValueError(f"'{about.name}' = {mistake}")


@frozen
class Init:
    """Parameters that begin otherwise: those whose path `match` fits, frozen ones too, as `how` (a
    name of `mip.initialise.INITIALISERS`, which are torch.nn.init's) fills them with `options`.

    Where several fit a path, the last one counts.

    >>> Init("photos.*.weight", "kaiming_normal", {"nonlinearity": "relu"}).how
    'kaiming_normal'
    """

    match: str
    how: str = field(validator=[_initialiser, in_(tuple(INITIALISERS))])
    options: Mapping[str, float | int | str] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if mistake := strange(self.how, self.options):
            raise ValueError(f"'options': {mistake}")
        for name, value in self.options.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"'options' must be finite: {name} = {value}")


@frozen
class Group:
    """Parameters that are trained otherwise: those whose path `match` fits ("photos.backbone.*",
    with `*`, `?` and `[…]`; `mip show --layers` lists paths).

    Their learning rate is `lr` times that of the others, and 0 before the epoch `start`, counted
    from 0. The first group that fits a path counts.
    """

    match: str
    lr: float = field(default=1.0, validator=ge(0))
    start: int = field(default=0, validator=ge(0))


@frozen
class Plateau:
    """A rate that is lowered by `factor` where `metric` of the epochs was not better for more than
    `patience` of them; see `mip.schedules.plateau`. It works on top of the schedule.
    """

    metric: str = "valid/loss"
    factor: float = field(default=0.1, validator=[gt(0), lt(1)])
    patience: int = field(default=10, validator=ge(0))
    threshold: float = field(default=1e-4, validator=[ge(0), lt(1)])


@frozen
class Train:
    """How the model is trained.

    `clip` bounds the gradients' joint norm (0 does not); `keep` says which state becomes the
    model: that of the "best" epoch by the valid loss, or the "last"; `patience` stops after so
    many epochs without a better one; `checkpoint_every` adds a checkpoint every so many steps, and
    `checkpoint_keep` leaves those of the last so many epochs beside it (-1: of all). `mixup` and
    `cutmix` mix the rows of a batch by shares from Beta(a, a) (0 does not); where both are given
    each batch gets one of the two.

    `accumulate` batches make one step of the optimizer. Of the weights either `ema`, the decay of
    a moving average, or `swa`, the fraction of the run from which on they are averaged, makes the
    model an average (0 does not); `lookahead` goes back half the way every so many steps, and
    `sam` takes gradients where the loss is worst within that radius (0 does not). `precision` is
    that of the passes; `compile` makes one graph of both by torch.compile. `nan` says what
    happens to a step whose loss or gradients are not finite: the run ends ("stop"), goes on
    without it ("skip"), or from the begin of its epoch ("roll_back").
    """

    epochs: int = field(default=20, validator=ge(0))
    batch: int = field(default=32, validator=gt(0))
    optimizer: OptimizerSpec = AdamW()
    schedule: ScheduleSpec = OneCycle()
    clip: float = field(default=1.0, validator=ge(0))
    seed: int = 0
    keep: Literal["best", "last"] = field(default="last", validator=in_(("best", "last")))
    patience: int | None = field(default=None, validator=optional(gt(0)))
    checkpoint_every: int | None = field(default=None, validator=optional(gt(0)))
    checkpoint_keep: int = field(default=0, validator=ge(-1))
    workers: int = field(default=2, validator=ge(0))
    mixup: float = field(default=0.0, validator=[ge(0), lt(math.inf)])
    cutmix: float = field(default=0.0, validator=[ge(0), lt(math.inf)])
    group: tuple[Group, ...] = field(default=(), converter=tuple)
    plateau: Plateau | None = None
    accumulate: int = field(default=1, validator=gt(0))
    ema: float = field(default=0.0, validator=[ge(0), lt(1)])
    swa: float = field(default=0.0, validator=[ge(0), lt(1)])
    lookahead: int = field(default=0, validator=ge(0))
    sam: float = field(default=0.0, validator=[ge(0), lt(math.inf)])
    precision: Precision = field(default="float32", validator=in_(get_args(Precision)))
    compile: bool = False
    nan: Literal["stop", "skip", "roll_back"] = field(default="stop", validator=in_(ON_NAN))

    def __attrs_post_init__(self) -> None:
        free = isinstance(self.optimizer, ScheduleFree)
        kept = [name for name in ("ema", "swa") if getattr(self, name)]
        kept += ["optimizer.kind = 'schedule_free'"] if free else []
        if len(kept) > 1:
            raise ValueError(f"'{kept[0]}' and {kept[1]} both average the weights: choose one")
        if free and not isinstance(self.schedule, Constant):
            told = 'schedule = { kind = "constant" }, with a warmup if you like'
            raise ValueError(f"'schedule': the optimizer 'schedule_free' wants {told}")


@frozen
class Spec:
    """The whole of a spec file: data, branches by name (kept sorted), how they are fused, a head,
    the training, and what begins otherwise: `init` by a rule, and `graft`, by the dotted path of a
    branch, as that branch of a model file (relative to the spec file, as the table is).
    """

    branch: Mapping[str, Branch] = field(converter=by_name, validator=min_len(1))
    head: Head
    data: Data = Data()
    train: Train = Train()
    fusion: Fusion = Fusion()
    init: tuple[Init, ...] = field(default=(), converter=tuple)
    graft: Mapping[str, str] = field(factory=dict, converter=by_name)
    version: int = field(default=VERSION, validator=[ge(1), le(VERSION)])

    @graft.validator
    def _of_branches(self, _: Any, graft: Mapping[str, str]) -> None:
        known = dict(branches(self.branch))
        for name in graft:
            if name not in known:
                raise ValueError(f"'graft' names '{name}', which is no branch{hint(name, known)}")
            whole = [other for other in graft if name.startswith(f"{other}.")]
            if whole:
                raise ValueError(f"'graft' gives '{name}' twice: it is a part of '{whole[0]}'")

    @cached_property
    def root(self) -> Fuse:
        """The tree of branches as one branch."""
        return Fuse(self.branch, **attrs.asdict(self.fusion, recurse=False))


def load_spec(
    path: str | Path, kinds: Mapping[str, type] = KINDS, changes: Mapping[str, Any] | None = None
) -> Spec:
    """Read a spec file; `changes` puts values at dotted paths before it is read.

    Relative paths inside the file are kept as written: `resolve` finds them. Raises SpecError
    naming the file, the path inside it, and the nearest right name.
    """
    path = Path(path)
    try:
        if not path.is_file():
            near = [each.name for each in path.parent.glob("*.toml")]
            raise SpecError(f"{path}: there is no such spec{hint(path.name, near)}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not a text: a spec is a TOML file ({error})") from error
    try:
        return parse(text, kinds, changes)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error


def parse(
    text: str, kinds: Mapping[str, type] = KINDS, changes: Mapping[str, Any] | None = None
) -> Spec:
    """Read a spec from TOML text.

    >>> parse('''
    ... [branch.rooms]
    ... kind = "continous"
    ... columns = ["area"]
    ... [head]
    ... kind = "regression"
    ... column = "price"
    ... ''')
    Traceback (most recent call last):
    mip.errors.SpecError: branch.rooms.kind = 'continous' is not a kind; did you mean \
'continuous'? (known: boolean, categorical, continuous, datetime, fuse, image, stub, \
tabular, text, vector)
    """
    if len(text) > 1_000_000:
        raise SpecError("a spec has at most 1,000,000 characters")
    if sum(line.count(".") ** 2 for line in text.split("\n")) > 10_000_000:
        raise SpecError("a spec has no such long dotted names")  # which cost the square to read
    try:
        tree = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SpecError(f"not valid TOML: {error}") from error
    for name, value in (changes or {}).items():
        _put(tree, name.split("."), value, name)
    return from_dict(tree, kinds)


def dump(spec: Spec, kinds: Mapping[str, type] = KINDS) -> str:
    """Write a spec as TOML, its version first, then every field with its value;
    `parse(dump(spec)) == spec`.
    """
    import tomli_w

    return tomli_w.dumps({"version": spec.version, **to_dict(spec, kinds)})


def from_dict(tree: Mapping[str, Any], kinds: Mapping[str, type] = KINDS) -> Spec:
    """Build a spec of plain dicts, lists and values, strictly: nothing is converted.

    Raises SpecError with the path for an unknown kind or field, a missing field, a wrong type
    and a value out of range, and for a version that is yet to come.
    """
    _check_version(tree)
    try:
        return _build(Spec, tree, "", kinds)
    except RecursionError as error:
        raise SpecError("branches are nested too deep") from error


def _check_version(tree: Any) -> None:
    # Looked at first, for the fields of a later version would be called mistakes.
    found = tree.get("version") if isinstance(tree, Mapping) else None
    if type(found) is int and found > VERSION:
        told = f"this mip reads specs up to version {VERSION}; upgrade mip"
        raise SpecError(f"version = {found}: {told}")


def to_dict(value: Any, kinds: Mapping[str, type] = KINDS) -> Any:
    """Turn a spec into plain dicts, lists and values; what is None is left out.

    Raises SpecError for a kind that the table does not name.
    """
    if attrs.has(type(value)):
        kind = _kind(type(value), kinds)
        return kind | {name: to_dict(child, kinds) for name, child in _told(value)}
    if isinstance(value, Mapping):
        return {name: to_dict(child, kinds) for name, child in value.items()}
    return [to_dict(child, kinds) for child in value] if isinstance(value, tuple) else value


def _told(value: Any) -> Iterator[tuple[str, Any]]:
    for each in attrs.fields(type(value)):
        child = getattr(value, each.name)
        if child is None and each.default is not None:
            raise SpecError(f"{type(value).__name__}.{each.name} is None, which TOML cannot say")
        if child is not None:
            yield each.name, child


def _kind(kind: type, kinds: Mapping[str, type]) -> dict[str, str]:
    for name, known in kinds.items():
        if known is kind:
            return {"kind": name}
    if any(plays(kind, role) for role in ROLES):
        given = f"kinds={{**mip.KINDS, 'name': {kind.__name__}}}"
        raise SpecError(f"{kind.__name__} is not in the table of kinds: give it as {given}")
    return {}


def _put(tree: dict[str, Any], names: list[str], value: Any, path: str) -> None:
    for name in names[:-1]:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise SpecError(f"{path}: '{name}' is not a table")
    tree[names[-1]] = value


def _build(kind: Any, value: Any, path: str, kinds: Mapping[str, type]) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if attrs.has(kind):
        return _record(kind, value, path, kinds)
    if getattr(kind, "_is_protocol", False):
        return _choice(kind, value, path, kinds)
    if origin in (Union, UnionType):
        return _any_of([each for each in inner if each is not NoneType], value, path, kinds)
    if origin is Literal:
        return _word(inner, value, path)
    if origin is tuple:
        _expect(list, value, path)
        return tuple(_build(inner[0], each, f"{path}[{i}]", kinds) for i, each in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        named = getattr(inner[1], "_is_protocol", False)
        build = _names if named else _dotted if inner[1] is str else _plain
        return build(inner[1], value, path, kinds)
    return _scalar(kind, value, path)


def _record(kind: type, value: Any, path: str, kinds: Mapping[str, type]) -> Any:
    _expect(dict, value, path)
    hints, fields = _hints(kind), attrs.fields_dict(kind)
    for name in value:
        if name not in fields:
            raise SpecError(f"{_join(path, name)} is not a field{hint(name, fields)}")
    for name, each in fields.items():
        if each.default is attrs.NOTHING and name not in value:
            raise SpecError(f"{_join(path, name)} is missing")
    parts = {name: _build(hints[name], value[name], _join(path, name), kinds) for name in value}
    try:
        return kind(**parts)
    except ValueError as error:
        raise SpecError(_located(error, kind, path)) from error


_hints = cache(get_type_hints)


def _located(error: ValueError, kind: type, path: str) -> str:
    # Validators begin with the field's name in quotes; it becomes the end of the path.
    text = str(error.args[0]) if error.args else "its value is refused"
    text = re.sub(r"^Length of ('\w+') must be >= (\d+): .*", r"\1 must have \2 or more", text)
    found = re.match(r"'(\w+)'(:? .*)", text, re.DOTALL)
    if found:
        return f"{_join(path, found[1])}{found[2]}"
    name = _field_of(error, kind)
    return f"{_join(path, name) if name else path}: {text}"


def _field_of(error: ValueError, kind: type) -> str | None:
    # A validator of a user's own may not say the field's name; attrs has handed it the attribute.
    assert error.__traceback__ is not None
    for frame, _ in traceback.walk_tb(error.__traceback__.tb_next):
        for value in frame.f_locals.values():
            if isinstance(value, attrs.Attribute) and value in attrs.fields(kind):
                return value.name
    return None


def _choice(role: Any, value: Any, path: str, kinds: Mapping[str, type]) -> Any:
    _expect(dict, value, path)
    known = {name: kind for name, kind in kinds.items() if plays(kind, role)}
    where = _join(path, "kind")
    if "kind" not in value:
        raise SpecError(f"{where} is missing{hint('', known)}")
    name = value["kind"]
    if not isinstance(name, str) or name not in known:
        lacking = _lacking(kinds.get(name) if isinstance(name, str) else None, role)
        raise SpecError(f"{where} = {_show(name)} is not a kind{lacking or hint(str(name), known)}")
    fields = {key: child for key, child in value.items() if key != "kind"}
    return _record(known[name], fields, path, kinds)


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


def _lacking(kind: type | None, role: Any) -> str:
    # A kind of another role is a mistake in the file; one that plays none, in its class.
    if kind is None or any(plays(kind, each) for each in ROLES):
        return ""
    if not attrs.has(kind):
        return f": {kind.__name__} is not a frozen attrs class"
    return f": {kind.__name__} has no {', '.join(_missing(kind, role))}"


def _any_of(options: list[Any], value: Any, path: str, kinds: Mapping[str, type]) -> Any:
    fitting = [each for each in options if isinstance(each, type) and isinstance(value, each)]
    return _build((fitting or options)[0], value, path, kinds)


def _word(words: tuple[str, ...], value: Any, path: str) -> Any:
    if value not in words:
        raise SpecError(f"{path} = {_show(value)} is not one of its words{hint(str(value), words)}")
    return value


def _names(kind: Any, value: Any, path: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    _expect(dict, value, path)
    for name in value:
        taken = hasattr(nn.ModuleDict(), name) or name in {"body", "branch", "head"}
        if taken or not re.fullmatch(r"[A-Za-z][\w-]*", name):
            raise SpecError(f"{_join(path, name)}: '{name}' cannot be the name of a branch")
    return _plain(kind, value, path, kinds)


def _plain(kind: Any, value: Any, path: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    _expect(dict, value, path)
    return {name: _build(kind, child, _join(path, name), kinds) for name, child in value.items()}


def _dotted(kind: Any, value: Any, path: str, kinds: Mapping[str, type]) -> dict[str, str]:
    # Without quotes TOML makes tables of a dotted name.
    _expect(dict, value, path)
    found: dict[str, str] = {}
    for name, child in value.items():
        if isinstance(child, Mapping):
            below = _dotted(kind, child, _join(path, name), kinds)
            found |= {f"{name}.{rest}": text for rest, text in below.items()}
        else:
            found[name] = _build(kind, child, _join(path, name), kinds)
    return found


_WORDS = {
    bool: "true or false",
    dict: "a table",
    float: "a number",
    int: "a whole number",
    list: "a list",
    str: "text",
}


def _scalar(kind: type, value: Any, path: str) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    return _expect(kind, value, path)


def _expect(kind: type, value: Any, path: str) -> Any:
    if type(value) is not kind and not (kind is dict and isinstance(value, Mapping)):
        found = _WORDS.get(type(value), type(value).__name__)
        found = "a number with a fraction" if kind is int and type(value) is float else found
        shown = f" = {_show(value)}" if not isinstance(value, (dict, list)) else ""
        raise SpecError(f"{path or 'spec'}{shown} must be {_WORDS[kind]}, not {found}")
    return value


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _show(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else json.dumps(value, default=str)
