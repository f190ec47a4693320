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
"""A label per row: numbers or strings, as a tensor, an array or a list."""


class Sampler(Protocol):
    """Anything that returns the rows of an epoch by index, and knows how many there are."""

    def size(self, n_rows: int) -> int:
        """Return the number of indices in an epoch, the same in all, for a source of n rows."""
        ...

    def __call__(self, n_rows: int, epoch: int) -> Tensor:
        """Return the indices of an epoch, int64 [size]."""
        ...


def _length(values: Tensor) -> str:
    return str(len(values))


def _num_samples() -> Any:
    return field(default=None, validator=optional(gt(0)))


@frozen
class WithoutReplacement:
    """Every row once, in order or shuffled; with `num_samples`, only the first so many of them."""

    shuffle: bool = False
    seed: int = 0
    num_samples: int | None = _num_samples()

    def size(self, n_rows: int) -> int:
        """Return the number of indices; raise DataError for more samples than rows."""
        wanted = self.num_samples or n_rows
        if n_rows and wanted > n_rows:
            raise DataError(f"sample: {wanted} samples from {n_rows} rows need replacement=True")
        return min(wanted, n_rows)

    def __call__(self, n_rows: int, epoch: int) -> Tensor:
        """Return distinct indices, int64 [size]."""
        if not self.shuffle:
            return torch.arange(n_rows)[: self.num_samples]
        rng = generator("shuffle", self.seed, epoch)
        return torch.randperm(n_rows, generator=rng)[: self.num_samples]


@frozen
class WithReplacement:
    """Rows drawn with replacement, all with the same probability."""

    seed: int = 0
    num_samples: int | None = _num_samples()

    def size(self, n_rows: int) -> int:
        """Return the number of indices: `num_samples`, or that of the rows."""
        return (self.num_samples or n_rows) if n_rows else 0

    def __call__(self, n_rows: int, epoch: int) -> Tensor:
        """Return indices, int64 [size]."""
        rng = generator("uniform", self.seed, epoch)
        return torch.randint(n_rows, (self.size(n_rows),), generator=rng)


def _as_weights(weights: Any) -> Tensor:
    return torch.as_tensor(weights, dtype=torch.float64).cpu()


def _check_weights(_: Any, __: Attribute, weights: Tensor) -> None:
    if weights.ndim != 1:
        raise DataError(f"sample: weights must be one number per row, not {list(weights.shape)}")
    for index in torch.nonzero(~(weights.isfinite() & (weights >= 0)))[:1, 0].tolist():
        raise DataError(
            f"sample: weights must be finite and >= 0, but row {index} has {weights[index]:g}"
        )
    if not weights.any():
        raise DataError("sample: no weight is above 0")


@frozen(eq=False)
class Weighted:
    """Rows drawn with replacement, with probabilities in proportion to their weights."""

    weights: Tensor = field(converter=_as_weights, validator=_check_weights, repr=_length)
    seed: int = 0
    num_samples: int | None = _num_samples()

    def size(self, n_rows: int) -> int:
        """Return the number of indices; raise DataError unless there is a weight per row."""
        _check_length("weights", self.weights, n_rows)
        return self.num_samples or n_rows

    def __call__(self, n_rows: int, epoch: int) -> Tensor:
        """Return indices, int64 [size]."""
        # torch.multinomial is limited to 2**24 rows. Dividing first keeps the sum finite.
        cumulative = (self.weights / self.weights.max()).cumsum(0)
        rng = generator("weighted", self.seed, epoch)
        points = torch.rand(self.size(n_rows), generator=rng, dtype=torch.float64)
        return torch.searchsorted(cumulative, points * cumulative[-1], right=True)


def factorize(labels: Labels) -> Tensor:
    """Number labels by their first appearance: int64 [n]. A missing label is a label too.

    >>> factorize(["b", "a", "b"])
    tensor([0, 1, 0])
    """
    import pandas as pd

    cells = labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if cells.ndim != 1:
        raise DataError(f"sample: labels must be one per row, not {list(cells.shape)}")
    return torch.from_numpy(pd.factorize(cells, use_na_sentinel=False)[0].astype(np.int64))


def balanced_weights(labels: Labels) -> Tensor:
    """Return weights with which all classes are drawn equally often: 1 / count, float64 [n].

    For `sample(weights=balanced_weights(labels))`. Labels are a tensor, an array or a list, one per
    row; any other shape raises DataError.

    >>> balanced_weights(["cat", "dog", "cat", "cat", "cat"])
    tensor([0.2500, 1.0000, 0.2500, 0.2500, 0.2500], dtype=torch.float64)
    """
    codes = factorize(labels)
    return (1 / torch.bincount(codes).double())[codes]


@frozen(eq=False)
class Grouped:
    """The rows of each group together; the groups, and the rows in each of them, are shuffled."""

    groups: Tensor = field(converter=factorize, repr=_length)
    seed: int = 0

    def size(self, n_rows: int) -> int:
        """Return the number of indices; raise DataError unless there is a group per row."""
        _check_length("groups", self.groups, n_rows)
        return n_rows

    def __call__(self, n_rows: int, epoch: int) -> Tensor:
        """Return the indices of all rows, int64 [n_rows]."""
        rng = generator("grouped", self.seed, epoch)
        rows, rank_of_group = (torch.randperm(n_rows, generator=rng) for _ in range(2))
        return rows[rank_of_group[self.groups[rows]].argsort(stable=True)]


def _check_length(name: str, values: Tensor, n_rows: int) -> None:
    if len(values) != n_rows:
        raise DataError(f"sample: {len(values)} {name} for {n_rows} rows")


def name_of(function: Any) -> str:
    """Return the name of a function, under which a pipe prints it.

    >>> name_of(np.mean)
    'mean'
    """
    # A bound method's repr includes the object that it is bound to: a whole plan.
    inner = getattr(function, "func", function)
    return str(getattr(inner, "__qualname__", type(inner).__name__))


@frozen
class CustomOrder:
    """A function of the user: (number of rows, epoch) to indices."""

    function: Callable[[int, int], Any] = field(repr=name_of)

    def size(self, n_rows: int) -> int:
        """Return the number of indices in the first epoch."""
        return len(self(n_rows, 0)) if n_rows else 0

    def __call__(self, n_rows: int, epoch: int) -> Tensor:
        """Return the function's indices, int64 [size]; raise DataError for invalid ones."""
        return as_indices(self.function(n_rows, epoch), n_rows)


def as_indices(values: Any, n_rows: int) -> Tensor:
    """Convert a tensor, an array or a list to row indices, int64 [n], and check their range.

    >>> as_indices([2, 0, 3], n_rows=3)
    Traceback (most recent call last):
    mip.errors.DataError: index 3 is out of range for 3 rows, counted from 0
    """
    indices = torch.as_tensor(values).cpu()
    indices = indices if indices.numel() else indices.long()
    if indices.ndim != 1 or indices.is_floating_point() or indices.dtype == torch.bool:
        dtype = str(indices.dtype).removeprefix("torch.")
        raise DataError(f"indices must be int64 [n], not {dtype} {list(indices.shape)}")
    for index in indices[(indices < 0) | (indices >= n_rows)][:1].tolist():
        raise DataError(f"index {index} is out of range for {n_rows} rows, counted from 0")
    return indices.long()
