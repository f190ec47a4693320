"""Samplers: which rows an epoch has and in which order, a function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from attrs import Attribute, field, frozen
from attrs.validators import gt, optional
from torch import Tensor

from mip.errors import DataError
from mip.rng import generator

Labels = Tensor | np.ndarray | Sequence
"""One label a row: numbers or words, as a tensor, an array or a list."""


class Order(Protocol):
    """A sampler: anything that gives the places of an epoch's rows, and says how many."""

    def size(self, rows: int) -> int:
        """Count the places of an epoch, the same in all, over a source of so many rows."""
        ...

    def __call__(self, rows: int, epoch: int) -> Tensor:
        """Give the places of an epoch, int64 [size]."""
        ...


def _counted(values: Tensor) -> str:
    return str(len(values))


def _draws() -> Any:
    return field(default=None, validator=optional(gt(0)))


@frozen
class Each:
    """Each row once, as they stand or shuffled; with `num_samples`, only so many of them."""

    shuffle: bool = False
    seed: int = 0
    num_samples: int | None = _draws()

    def size(self, rows: int) -> int:
        """Count the places; raises DataError for more samples than rows."""
        if rows and (self.num_samples or 0) > rows:
            raise DataError(
                f"sample: {self.num_samples} samples from {rows} rows need replacement=True"
            )
        return min(self.num_samples or rows, rows)

    def __call__(self, rows: int, epoch: int) -> Tensor:
        """Give places, int64 [size], none of them twice."""
        if not self.shuffle:
            return torch.arange(rows)[: self.num_samples]
        return torch.randperm(rows, generator=generator("shuffle", self.seed, epoch))[
            : self.num_samples
        ]


@frozen
class Uniform:
    """Rows drawn with replacement, each as likely as any other."""

    seed: int = 0
    num_samples: int | None = _draws()

    def size(self, rows: int) -> int:
        """Count the places: as many as rows, unless `num_samples` says otherwise."""
        return (self.num_samples or rows) if rows else 0

    def __call__(self, rows: int, epoch: int) -> Tensor:
        """Give places, int64 [size]."""
        draws = generator("uniform", self.seed, epoch)
        return torch.randint(rows, (self.size(rows),), generator=draws)


def _numbers(weights: Any) -> Tensor:
    return torch.as_tensor(weights, dtype=torch.float64).cpu()


def _can_be_drawn(_: Any, __: Attribute, weights: Tensor) -> None:
    if weights.ndim != 1:
        raise DataError(f"sample: weights must be one number a row, not {list(weights.shape)}")
    for place in torch.nonzero(~(weights.isfinite() & (weights >= 0)))[:1, 0].tolist():
        raise DataError(f"sample: the weight {weights[place]:g} of row {place} is not 0 or more")
    if not weights.any():
        raise DataError("sample: no weight is above 0")


@frozen(eq=False)
class Weighted:
    """Rows drawn with replacement, each as likely as its weight says; a weight of 0 is never."""

    weights: Tensor = field(converter=_numbers, validator=_can_be_drawn, repr=_counted)
    seed: int = 0
    num_samples: int | None = _draws()

    def size(self, rows: int) -> int:
        """Count the places; raises DataError unless there is a weight for each row."""
        _fits("weights", self.weights, rows)
        return self.num_samples or rows

    def __call__(self, rows: int, epoch: int) -> Tensor:
        """Give places, int64 [size]."""
        # torch.multinomial stops at 2**24 rows. Dividing first keeps the sum finite.
        ends = (self.weights / self.weights.max()).cumsum(0)
        draws = generator("weighted", self.seed, epoch)
        marks = torch.rand(self.size(rows), generator=draws, dtype=torch.float64)
        return torch.searchsorted(ends, marks * ends[-1], right=True)


def codes(labels: Labels) -> Tensor:
    """Number labels by their first appearance: int64 [n]. A missing label is a label too.

    >>> codes(["b", "a", "b"])
    tensor([0, 1, 0])
    """
    import pandas as pd

    cells = labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if cells.ndim != 1:
        raise DataError(f"sample: labels must be one a row, not {list(cells.shape)}")
    return torch.from_numpy(pd.factorize(cells, use_na_sentinel=False)[0].astype(np.int64))


def balance(labels: Labels) -> Tensor:
    """Weigh rows so that every class is drawn as often as any other: float64 [n], 1 / count.

    For `sample(weights=balance(labels))`. Labels are a tensor, an array or a list, one a row;
    raises DataError for any other shape.

    >>> balance(["cat", "dog", "cat", "cat", "cat"])
    tensor([0.2500, 1.0000, 0.2500, 0.2500, 0.2500], dtype=torch.float64)
    """
    numbers = codes(labels)
    return (1 / torch.bincount(numbers).double())[numbers]


@frozen(eq=False)
class Grouped:
    """Rows of a group one after another; the groups, and the rows in each, shuffled."""

    groups: Tensor = field(converter=codes, repr=_counted)
    seed: int = 0

    def size(self, rows: int) -> int:
        """Count the places; raises DataError unless there is a group for each row."""
        return _fits("groups", self.groups, rows)

    def __call__(self, rows: int, epoch: int) -> Tensor:
        """Give the places of all rows, int64 [rows]."""
        draws = generator("grouped", self.seed, epoch)
        order, turns = (torch.randperm(rows, generator=draws) for _ in range(2))
        return order[turns[self.groups[order]].argsort(stable=True)]


@frozen
class Own:
    """An order written by the user: a function of (rows, epoch)."""

    function: Callable[[int, int], Any]

    def size(self, rows: int) -> int:
        """Count the places by laying out the first epoch."""
        return len(self(rows, 0)) if rows else 0

    def __call__(self, rows: int, epoch: int) -> Tensor:
        """Give the function's places, int64 [size]; raises DataError for what is no place."""
        return places_of(self.function(rows, epoch), rows)


def places_of(places: Any, rows: int) -> Tensor:
    """Read places of a source of so many rows: int64 [n], from a tensor, an array or a list.

    >>> places_of([2, 0, 3], rows=3)
    Traceback (most recent call last):
    mip.errors.DataError: place 3 is not one of 3 rows, counted from 0
    """
    found = torch.as_tensor(places).cpu()
    found = found if found.numel() else found.long()
    if found.ndim != 1 or found.is_floating_point() or found.dtype == torch.bool:
        kind = str(found.dtype).removeprefix("torch.")
        raise DataError(f"places must be int64 [n], not {kind} {list(found.shape)}")
    for place in found[(found < 0) | (found >= rows)][:1].tolist():
        raise DataError(f"place {place} is not one of {rows} rows, counted from 0")
    return found.long()


def _fits(name: str, given: Tensor, rows: int) -> int:
    if len(given) != rows:
        raise DataError(f"sample: {len(given)} {name} for {rows} rows")
    return rows
