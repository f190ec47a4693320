"""The scale on which a number is learned, and back to its own unit."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from attrs import field
from attrs.validators import in_
from torch import Tensor

from mip.branches import Facts
from mip.data import FLOAT32, Rows, Table, moments, spread
from mip.errors import DataError, shown

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
    # Another unit moves logarithms, and leaves their differences as they are.
    std = spread(found.deviation, np.ones(1)) if scale == "log" else found.std
    return {"mean": found.mean.item(), "std": std.item()}


def scaled(facts: Facts, rows: Table, column: str, scale: Scale) -> Tensor:
    """Give the target as it is learned: float32 [n], NaN where it is missing.

    Raises DataError for what is not a number, for one that has no logarithm, and for one that is
    past float32 on this scale.
    """
    values = (_raw(rows, column, scale) - facts["mean"]) / facts["std"]
    for place in np.flatnonzero(np.abs(values) > FLOAT32)[:1].tolist():
        told = f"{shown(rows[column].iloc[place])} is too far from the training rows for float32"
        raise DataError(f"{rows.where(place, column)}: {told}")
    return torch.from_numpy(values.astype(np.float32))


def unscaled(facts: Facts, values: np.ndarray, scale: Scale) -> np.ndarray:
    """Give values, float64 of any shape, in the target's own unit. What encodes 0, a float32,
    decodes to 0, and not to what rounding leaves of it.

    >>> unscaled({"mean": 2.0, "std": 0.5}, np.array([0.0, 2.0]), "standard").tolist()
    [2.0, 3.0]
    """
    numbers = values * facts["std"] + facts["mean"]
    if scale == "log":
        return np.exp(np.minimum(numbers, LARGEST))
    return np.where(values == np.float32(-facts["mean"] / facts["std"]), 0.0, numbers)


def rescaled(facts: Facts, values: np.ndarray, scale: Scale) -> np.ndarray:
    """Give values in the target's own unit as they are learned, float64: `unscaled` backwards.

    >>> rescaled({"mean": 2.0, "std": 0.5}, np.array([2.0, 3.0]), "standard").tolist()
    [0.0, 2.0]
    """
    # A value too small for a float64 has been decoded to 0, which has no logarithm.
    values = np.log(np.maximum(values, np.finfo(float).tiny)) if scale == "log" else values
    return (values - facts["mean"]) / facts["std"]


def average(values: Tensor) -> float:
    """Give the mean of sizes, float64 [n], none below 0, whose sum may be too large for a float64.

    >>> import torch
    >>> average(torch.tensor([1e308, 1e308], dtype=torch.float64))
    1e+308
    """
    largest = values.max()
    return float(largest * (values / largest).mean()) if largest > 0 else float(values.mean())


def root_mean_square(values: Tensor) -> float:
    """Give the root of the mean square of numbers, float64 [n], whose squares may be too large or
    too small for a float64.

    >>> import torch
    >>> root_mean_square(torch.tensor([3e-200, -3e-200], dtype=torch.float64))
    3e-200
    """
    largest = values.abs().max()
    if not largest > 0:
        return float(largest)
    return float(largest * (values / largest).square().mean().sqrt())


def _raw(rows: Table, column: str, scale: Scale) -> np.ndarray:
    values = rows.numbers(column)
    if scale != "log":
        return values
    for place in np.flatnonzero(values <= 0)[:1]:
        where = rows.where(int(place), column)
        raise DataError(f"{where}: {values[place]:g} has no logarithm (scale = 'log')")
    return np.log(values)
