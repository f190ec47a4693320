"""The spec: a frozen tree of what the user wants."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from html import escape
from typing import Any, Literal

import attrs
from attrs import field, frozen
from attrs.converters import optional as optional_of
from attrs.validators import ge, gt, in_, le, lt, optional

from mip.branches import Branch, Fuse, Fusion, branches, path_in_spec, sorted_by_name
from mip.data import ColumnFormat, CsvFormat
from mip.errors import FieldError, hint
from mip.fields import MinLength, choice
from mip.heads import Head
from mip.nn import INITIALIZERS, LSUV, initializer_error, option_error
from mip.optim import AdamW, Constant, OneCycle, OptimizerSpec, ScheduleFree, ScheduleSpec
from mip.spec.versions import VERSION
from mip.train import Precision


@frozen
class Split:
    """How rows are split into train, valid and test.

    By `fractions` and `seed`, optionally with one of the columns `stratify`, `group`, `time` (the
    earliest rows train) and `key` (a row's part depends on its key alone); or by `column`, which
    says train, valid or test (`mip.data.part_name`); or by a `folds` file, whose `column` has the
    fold of each row: the fold `test` is the test part, and the fold `valid`, if given, the valid
    part.
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
        exclusive = ["stratify", "group", "time", "key", "folds" if self.folds else "column"]
        given = [name for name in exclusive if getattr(self, name) is not None]
        if len(given) > 1:
            raise FieldError(given[1], f"and '{given[0]}' exclude each other")
        for name in ("test", "valid"):
            if getattr(self, name) is not None and self.folds is None:
                raise FieldError(name, "is a fold, which needs 'folds', the file of folds")

    @fractions.validator
    def _check_fractions(self, _: attrs.Attribute, fractions: tuple[float, ...]) -> None:
        if not (len(fractions) == 3 and min(fractions) >= 0 and abs(sum(fractions) - 1) <= 1e-6):
            text = f"must be three shares that add up to 1: {list(fractions)}"
            raise FieldError("fractions", text)


@frozen
class Data:
    """Where the rows are (a path that `read` takes, relative to the spec file) and how they are
    split. With `stream` they stay in their Parquet files and are read a window at a time.
    `format` says how a CSV file is written, and `columns` how the cells of columns are, where that
    is not the plain form.
    """

    table: str = ""
    split: Split = Split()
    stream: bool = False
    format: CsvFormat = CsvFormat()
    columns: Mapping[str, ColumnFormat] = field(factory=dict)


def _known_initializer(_: Any, attribute: attrs.Attribute, name: str) -> None:
    # The JSON Schema reads `in_`, whose message alone would not name the nearest initializer.
    if mistake := initializer_error(name):
        raise FieldError(attribute.name, f"= {mistake}")


@frozen
class Init:
    """An initialization rule: parameters whose path matches the pattern `match`, frozen ones too,
    are filled by `initializer` (a name of `mip.nn.INITIALIZERS`, those of torch.nn.init) with
    `options`. If several rules match a path, the last one wins. "lsuv" fills the matching weights
    of linear and convolution layers, from what these compute for training rows: see `mip.nn.lsuv`.

    >>> Init("photos.*.weight", "kaiming_normal", {"nonlinearity": "relu"}).initializer
    'kaiming_normal'
    """

    match: str
    initializer: str = field(validator=[_known_initializer, in_((*INITIALIZERS, LSUV))])
    options: Mapping[str, float | int | str] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if mistake := option_error(self.initializer, self.options):
            raise FieldError("options", f"does not fit: {mistake}")
        for name, value in self.options.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise FieldError("options", f"must be finite: {name} = {value}")


@frozen
class ParamGroup:
    """A parameter group: the parameters whose path matches the pattern `match`
    ("photos.backbone.*", with `*`, `?` and `[…]`; `mip show --layers` lists the paths).

    Their learning rate is `lr_scale` times that of the others, and 0 before epoch `start_epoch`,
    counted from 0. If several groups match a path, the first one wins.
    """

    match: str
    lr_scale: float = field(default=1.0, validator=ge(0))
    start_epoch: int = field(default=0, validator=ge(0))


@frozen
class Plateau:
    """Multiply the learning rate by `factor` when `metric` has not improved for more than
    `patience` epochs; see `mip.optim.Plateau`. Applies on top of the schedule.
    """

    metric: str = "valid/loss"
    factor: float = field(default=0.1, validator=[gt(0), lt(1)])
    patience: int = field(default=10, validator=ge(0))
    threshold: float = field(default=1e-4, validator=[ge(0), lt(1)])


@frozen
class Train:
    """How the model is trained.

    `clip_norm` limits the global norm of the gradients (0: no limit). `restore_best` makes the
    epoch with the best valid loss the model, instead of the last one; `patience` stops after that
    many epochs without improvement. `checkpoint_every` writes a checkpoint every n steps, besides
    every epoch; `keep_last` keeps the checkpoints of the last n epochs (-1: of all). `mixup` and
    `cutmix` are the a of Beta(a, a), from which the shares of mixed rows are drawn (0: off); with
    both, each batch gets one of the two.

    `accumulate` is the number of batches per optimizer step. The model is an average of the
    weights with either `ema`, the decay of a moving average, or `swa`, the fraction of the run
    after which averaging begins (0: off). `lookahead` moves the weights halfway back every n steps
    (0: off); `sam` is the radius of sharpness-aware minimization (0: off). `precision` is that of
    the forward and backward pass; `compile` compiles both into one graph by torch.compile. `on_nan`
    is what to do with a step whose loss or gradients are not finite: end the run ("stop"), leave
    the step out ("skip"), or go back to the start of its epoch ("roll_back").
    """

    epochs: int = field(default=20, validator=ge(0))
    batch_size: int = field(default=32, validator=gt(0))
    optimizer: OptimizerSpec = AdamW()
    schedule: ScheduleSpec = OneCycle()
    clip_norm: float = field(default=1.0, validator=ge(0))
    seed: int = 0
    restore_best: bool = False
    patience: int | None = field(default=None, validator=optional(gt(0)))
    checkpoint_every: int | None = field(default=None, validator=optional(gt(0)))
    keep_last: int = field(default=0, validator=ge(-1))
    workers: int = field(default=2, validator=ge(0))
    mixup: float = field(default=0.0, validator=[ge(0), lt(math.inf)])
    cutmix: float = field(default=0.0, validator=[ge(0), lt(math.inf)])
    group: tuple[ParamGroup, ...] = field(default=(), converter=tuple)
    plateau: Plateau | None = None
    accumulate: int = field(default=1, validator=gt(0))
    ema: float = field(default=0.0, validator=[ge(0), lt(1)])
    swa: float = field(default=0.0, validator=[ge(0), lt(1)])
    lookahead: int = field(default=0, validator=ge(0))
    sam: float = field(default=0.0, validator=[ge(0), lt(math.inf)])
    precision: Precision = choice("float32")
    compile: bool = False
    on_nan: Literal["stop", "skip", "roll_back"] = choice("stop")

    def __attrs_post_init__(self) -> None:
        free = isinstance(self.optimizer, ScheduleFree)
        averaging = [name for name in ("ema", "swa") if getattr(self, name)]
        averaging += ["optimizer.kind = 'schedule_free'"] if free else []
        if len(averaging) > 1:
            text = f"and {averaging[1]} both average the weights: choose one"
            raise FieldError(averaging[0], text)
        if free and not isinstance(self.schedule, Constant):
            text = 'must be { kind = "constant" } for schedule_free, optionally with a warmup'
            raise FieldError("schedule", text)


@frozen
class Spec:
    """A whole spec file: data, branches by name (kept sorted), their fusion, a head and the
    training. `init` are rules for initial values; `warm_start` maps the dotted path of a branch to
    the model file (relative to the spec file, as the table is) whose branch of that path it starts
    from. `tune` is what `mip tune` tries, by the path of each field: a range "1e-4..1e-2", or
    choices "16,32".
    """

    branch: Mapping[str, Branch] = field(converter=sorted_by_name, validator=MinLength(1))
    head: Head
    data: Data = Data()
    train: Train = field(default=Train())
    fusion: Fusion = field(default=Fusion())
    init: tuple[Init, ...] = field(default=(), converter=tuple)
    warm_start: Mapping[str, str] = field(factory=dict, converter=sorted_by_name)
    version: int = field(default=VERSION, validator=[ge(1), le(VERSION)])
    tune: Mapping[str, str] | None = field(default=None, converter=optional_of(sorted_by_name))

    @fusion.validator
    def _residual_of_others(self, _: Any, fusion: Fusion) -> None:
        for name in fusion.residual:
            if name not in self.branch:
                text = f"names '{name}', which is not a branch{hint(name, self.branch)}"
                raise FieldError("fusion.residual", text)
            for path, branch in branches({name: self.branch[name]}):
                if getattr(branch, "finetune", None):
                    where = f"{path_in_spec(path)}.finetune"
                    raise FieldError(where, "must be left out: residual branches are not trained")
        if len(fusion.residual) == len(self.branch):
            raise FieldError("fusion.residual", "must leave at least one other branch")
        for path, branch in branches(self.branch):
            if isinstance(branch, Fuse) and branch.fusion.residual:
                where = f"{path_in_spec(path)}.residual"
                raise FieldError(where, "must be left out: only [fusion] has logits to add to")

    @train.validator
    def _compiles(self, _: Any, train: Train) -> None:
        for path, branch in branches(self.branch):
            if train.compile and getattr(branch, "gradient_checkpointing", False):
                why = f"{path_in_spec(path)}.gradient_checkpointing cannot be compiled"
                raise FieldError("train.compile", f"must be left out: {why}")

    @warm_start.validator
    def _branches_once(self, _: Any, files: Mapping[str, str]) -> None:
        known = dict(branches(self.branch))
        for name in files:
            if name not in known:
                text = f"names '{name}', which is not a branch{hint(name, known)}"
                raise FieldError("warm_start", text)
            parents = [other for other in files if name.startswith(f"{other}.")]
            if parents:
                raise FieldError("warm_start", f"has '{name}' twice: '{parents[0]}' contains it")

    def _repr_html_(self) -> str:
        from mip.spec.writing import dump  # which reads this module

        return f"<pre>{escape(dump(self))}</pre>"

    @cached_property
    def root(self) -> Fuse:
        """The tree of branches as one branch."""
        return Fuse(self.branch, self.fusion)
