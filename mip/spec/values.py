"""The spec as values: a frozen tree of what the user wants."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal, get_args

import attrs
from attrs import field, frozen
from attrs.validators import ge, gt, in_, le, lt, min_len, optional

from mip.branches import Branch, Fuse, Fusion, branches, by_name
from mip.errors import hint
from mip.heads import Head
from mip.nn import INITIALISERS, strange, unknown
from mip.optim import AdamW, Constant, OneCycle, OptimizerSpec, ScheduleFree, ScheduleSpec
from mip.spec.versions import VERSION
from mip.train import Precision

ON_NAN = ("stop", "skip", "roll_back")
"""What can happen to a step whose loss or gradients are not finite."""


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
    name of `mip.nn.INITIALISERS`, which are torch.nn.init's) fills them with `options`.

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
    `patience` of them; see `mip.optim.plateau`. It works on top of the schedule.
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
