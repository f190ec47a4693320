"""The fields that several kinds of heads have, with their defaults and bounds."""

from __future__ import annotations

import math
from typing import Literal

from attrs import field
from attrs.validators import ge, le, lt

from mip.fields import choice
from mip.nn import Activation, BatchNorm

ClassWeight = Literal["none", "balanced"]
"""How classes are weighted in a loss."""

Missing = Literal["drop", "error"]
"""What happens to a row without a target."""

Scale = Literal["standard", "log", "none"]
"""How a number is scaled: standardized, after a logarithm for "log", or not at all."""


def activation_field() -> Activation:
    """Declare the activation that follows each of a head's layers."""
    return choice("relu", kw_only=True)


def batch_norm_field() -> BatchNorm:
    """Declare where each of a head's layers has a batch norm: before or after its activation."""
    return choice("none", kw_only=True)


def dropout_field() -> float:
    """Declare the dropout rate behind each of a head's layers."""
    return field(default=0.0, validator=[ge(0), lt(1)])


def members_field() -> int:
    """Declare how many members predict together, each trained with its own loss."""
    return field(default=1, validator=[ge(1), le(1024)])


def missing_field() -> Missing:
    """Declare what happens to a row without a target."""
    return choice("drop")


def scale_field() -> Scale:
    """Declare the scale on which a number is learned."""
    return choice("standard")


def class_weight_field() -> ClassWeight:
    """Declare whether classes are weighted: "balanced" makes each count as much as the others."""
    return choice("none")


def focal_gamma_field() -> float:
    """Declare gamma of the focal loss: the larger, the less a row counts that is already right."""
    return field(default=0.0, validator=[ge(0), lt(math.inf)])


def label_smoothing_field() -> float:
    """Declare the share of a target that is spread over all classes."""
    return field(default=0.0, validator=[ge(0), lt(1)])
