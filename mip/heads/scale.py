"""The scale on which a number is learned, and back to its own unit."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from attrs import field
from attrs.validators import in_

from mip.branch import Facts
from mip.errors import DataError
from mip.statistics import moments
from mip.table import Rows, Table

Scale = Literal["standard", "log", "none"]

LARGEST = 709.0
"""The logarithm of about the largest float64: what lies above decodes to its power."""


def scale_field() -> Any:
    """Declare how the target is scaled: standardised, after a logarithm for "log", or not."""
    return field(default="standard", validator=in_(("standard", "log", "none")))


def learn(rows: Rows, column: str, scale: Scale) -> Facts:
    """Give mean and standard deviation of the scaled target, 0 and 1 for scale "none".

    Raises DataError where no row has a target, and as `scaled` does.
    """
    if scale == "none":
        return {"mean": 0.0, "std": 1.0}
    found = moments(_raw(chunk, column, scale)[:, None] for chunk in rows.chunks([column]))
    if not found.known[0]:
        raise DataError(f"{rows.name}: column '{column}' has no training target")
    return {"mean": found.mean.item(), "std": found.std.item()}


def scaled(facts: Facts, rows: Table, column: str, scale: Scale) -> np.ndarray:
    """Give the target as it is learned: float64 [n], NaN where it is missing.

    Raises DataError for what is not a number, and for one that has no logarithm.
    """
    return (_raw(rows, column, scale) - facts["mean"]) / facts["std"]


def unscaled(facts: Facts, values: np.ndarray, scale: Scale) -> np.ndarray:
    """Give values, float64 of any shape, in the target's own unit.

    >>> unscaled({"mean": 2.0, "std": 0.5}, np.array([0.0, 2.0]), "standard").tolist()
    [2.0, 3.0]
    """
    values = values * facts["std"] + facts["mean"]
    return np.exp(np.minimum(values, LARGEST)) if scale == "log" else values


def rescaled(facts: Facts, values: np.ndarray, scale: Scale) -> np.ndarray:
    """Give values in the target's own unit as they are learned, float64: `unscaled` backwards.

    >>> rescaled({"mean": 2.0, "std": 0.5}, np.array([2.0, 3.0]), "standard").tolist()
    [0.0, 2.0]
    """
    # A value too small for a float64 has been decoded to 0, which has no logarithm.
    values = np.log(np.maximum(values, np.finfo(float).tiny)) if scale == "log" else values
    return (values - facts["mean"]) / facts["std"]


def _raw(rows: Table, column: str, scale: Scale) -> np.ndarray:
    values = rows.numbers(column)
    if scale != "log":
        return values
    for place in np.flatnonzero(values <= 0)[:1]:
        where = rows.where(int(place), column)
        raise DataError(f"{where}: {values[place]:g} has no logarithm (scale = 'log')")
    return np.log(values)
