"""A number as a target: the scale on which it is learned, and the way back to its unit."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mip.branches import Facts
from mip.data import FLOAT32_MAX, Rows, Table, moments, nonzero_scale
from mip.errors import DataError, quote
from mip.heads.fields import Scale

MAX_LOG = 709.0
"""About the logarithm of the largest float64; larger ones are clamped to it before `exp`."""


class NumberHead(Protocol):
    """A head over a column of numbers."""

    @property
    def column(self) -> str: ...


class ScaledHead(NumberHead, Protocol):
    """A head over a column of numbers that are learned on a scale."""

    @property
    def scale(self) -> Scale: ...


def known(head: NumberHead, rows: Table) -> np.ndarray:
    """Return which rows have a number: bool [n]."""
    return ~np.isnan(rows.numbers(head.column))


def adapt(head: ScaledHead, rows: Rows) -> Facts:
    """Compute mean and standard deviation of the scaled numbers, 0 and 1 for the scale "none".

    Raises DataError if no row has a number, and as `encode` does.
    """
    if head.scale == "none":
        return {"mean": 0.0, "std": 1.0}
    chunks = rows.chunks([head.column])
    stats = moments(_before_scaling(head, chunk)[:, None] for chunk in chunks)
    if not stats.known[0]:
        raise DataError(f"{rows.name}: column '{head.column}' has no training target")
    # Another unit shifts logarithms and leaves their differences as they are.
    std = nonzero_scale(stats.deviation, np.ones(1)) if head.scale == "log" else stats.scale
    return {"mean": stats.mean.item(), "std": std.item()}


def encode(head: ScaledHead, facts: Facts, rows: Table) -> Tensor:
    """Scale the numbers: float32 [n], NaN for a missing one.

    Raises DataError for a cell that is no number, for a number without a logarithm (scale "log"),
    and for one that overflows float32 on this scale.
    """
    values = (_before_scaling(head, rows) - facts["mean"]) / facts["std"]
    for row in np.flatnonzero(np.abs(values) > FLOAT32_MAX)[:1].tolist():
        cell = quote(rows[head.column].iloc[row])
        where = rows.cell_name(row, head.column)
        raise DataError(f"{where}: {cell} overflows float32 on the scale of the training rows")
    return torch.from_numpy(values.astype(np.float32))


def _before_scaling(head: ScaledHead, rows: Table) -> np.ndarray:
    values = rows.numbers(head.column)
    if head.scale != "log":
        return values
    for row in np.flatnonzero(values <= 0)[:1].tolist():
        where = rows.cell_name(row, head.column)
        raise DataError(f"{where}: {values[row]:g} has no logarithm (scale = 'log')")
    return np.log(values)


def unscale(facts: Facts, values: np.ndarray, scale: Scale) -> np.ndarray:
    """Return scaled values, float64 of any shape, in the target's unit. A 0 that was encoded as a
    float32 decodes to 0 exactly, and not to a rounding error.

    >>> unscale({"mean": 2.0, "std": 0.5}, np.array([0.0, 2.0]), "standard").tolist()
    [2.0, 3.0]
    """
    numbers = values * facts["std"] + facts["mean"]
    if scale == "log":
        return np.exp(np.minimum(numbers, MAX_LOG))
    return np.where(values == np.float32(-facts["mean"] / facts["std"]), 0.0, numbers)


def interval(
    head: ScaledHead, facts: Facts, low: np.ndarray, high: np.ndarray, margin: float
) -> dict[str, np.ndarray]:
    """Widen intervals on the scale by a margin, which may be below 0, and return them in the
    target's unit: `low` and `high`.
    """
    middle = (low + high) / 2
    ends = {"low": np.minimum(low - margin, middle), "high": np.maximum(high + margin, middle)}
    return {name: unscale(facts, values, head.scale) for name, values in ends.items()}


def rescale(facts: Facts, values: np.ndarray, scale: Scale) -> np.ndarray:
    """Return values in the target's unit on its scale, float64: the inverse of `unscale`.

    >>> rescale({"mean": 2.0, "std": 0.5}, np.array([2.0, 3.0]), "standard").tolist()
    [0.0, 2.0]
    """
    # A value too small for a float64 was decoded to 0, which has no logarithm.
    values = np.log(np.maximum(values, np.finfo(float).tiny)) if scale == "log" else values
    return (values - facts["mean"]) / facts["std"]
