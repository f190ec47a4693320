"""Optimizers in a spec: a class whose fields are the parameters of the optimizer's function."""

from __future__ import annotations

from collections.abc import Callable, Collection
from inspect import Parameter, signature
from typing import (
    Annotated,
    Any,
    Generic,
    ParamSpec,
    Protocol,
    get_args,
    get_origin,
    get_type_hints,
)

import attrs
from attrs.validators import ge, gt, lt

from mip.errors import FieldError
from mip.optim.protocol import Optimizer
from mip.optim.schedules import Hyper, Schedule

P = ParamSpec("P")


class OptimizerSpec(Protocol):
    """An optimizer in a spec; `lr` is the highest learning rate of the schedule."""

    kind: str

    @property
    def lr(self) -> float: ...

    def optimizer(self, lr: Schedule) -> Optimizer:
        """Build the optimizer with a learning rate that follows a schedule."""
        ...


class OptimizerKind(Generic[P]):
    """The type of a class that `optimizer_kind` makes, for type checkers: an `OptimizerSpec` that
    is constructed with the parameters of a function.
    """

    kind: str
    lr: float

    def __init__(self, *args: P.args, **kwargs: P.kwargs) -> None: ...

    def optimizer(self, lr: Schedule) -> Optimizer:
        """Build the optimizer with a learning rate that follows a schedule."""
        raise NotImplementedError


def _check_betas(_: Any, attribute: attrs.Attribute, betas: tuple[float, ...]) -> None:
    if not (len(betas) == 2 and all(0 <= beta < 1 for beta in betas)):
        text = f"must be two numbers from 0 to below 1: {list(betas)}"
        raise FieldError(attribute.name, text)


# The types of an optimizer's parameters, with the limits that a spec must keep to.
Positive = Annotated[Hyper, gt(0)]
NonNegative = Annotated[Hyper, ge(0)]
Fraction = Annotated[Hyper, ge(0), lt(1)]
Betas = Annotated[tuple[Hyper, Hyper], _check_betas]


def optimizer_kind(
    name: str, kind: str, build: Callable[P, Optimizer], skip: Collection[str] = ()
) -> type[OptimizerKind[P]]:
    """Make the frozen class called `name` that represents an optimizer in a spec, where it is
    called `kind`. Its fields are the parameters of `build` except those in `skip`: with the same
    names, order and defaults, and with the attrs validators that their annotations hold. A
    hyper-parameter is a number there, never a schedule.

    >>> from mip.optim import sgd
    >>> def plain(lr: Positive = 0.1, weight_decay: NonNegative = 0.0) -> Optimizer:
    ...     return sgd(lr, weight_decay=weight_decay)
    >>> Plain = optimizer_kind("Plain", "plain", plain)
    >>> Plain(lr=0.01), Plain.kind
    (Plain(lr=0.01, weight_decay=0.0), 'plain')
    >>> Plain(weight_decay=-1.0)
    Traceback (most recent call last):
    ValueError: 'weight_decay' must be >= 0: -1.0
    """
    hints = get_type_hints(build, include_extras=True)
    make: Callable[..., Optimizer] = build
    fields = {
        parameter.name: _field(hints[parameter.name], parameter.default)
        for parameter in signature(build).parameters.values()
        if parameter.name not in skip
    }

    def optimizer(self: Any, lr: Schedule) -> Optimizer:
        return make(**{**attrs.asdict(self, recurse=False), "lr": lr})

    body = {"__doc__": build.__doc__, "kind": kind, "optimizer": optimizer}
    made = attrs.make_class(name, fields, class_body=body, frozen=True, slots=True, order=False)
    made.__module__ = build.__module__  # where pickle, and so a worker process, looks for it
    return made


def _field(hint: Any, default: Any) -> Any:
    kind, *validators = get_args(hint) if get_origin(hint) is Annotated else [hint]
    pair = get_origin(kind) is tuple
    return attrs.field(
        type=float if kind == Hyper else tuple[float, ...] if pair else kind,
        default=attrs.NOTHING if default is Parameter.empty else default,
        validator=validators,
        converter=tuple if pair else None,
    )
