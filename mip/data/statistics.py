"""Statistics: what is learned of columns a chunk of rows at a time, so that none must fit whole."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mip.data.table import Rows, Table
from mip.rng import derive, uniform

SAMPLE = 100_000
"""So many rows stand for all where a statistic needs their order, such as a quantile."""


LEVELS = 257
"""So many quantiles stand for a distribution."""


WEIGHTS = torch.tensor([[1.0], [2.0**-24]], dtype=torch.float64)


class Moments(NamedTuple):
    """Of columns: known cells, missing cells, mean, and the sum of squared distances to it."""

    known: np.ndarray
    missing: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    @property
    def deviation(self) -> np.ndarray:
        """The standard deviation of the population."""
        return np.sqrt(self.squares / np.maximum(self.known, 1))

    @property
    def std(self) -> np.ndarray:
        """The standard deviation to divide by: where all values are equal, the size of their mean,
        or 1 where that is 0.
        """
        return spread(self.deviation, np.abs(self.mean))


def moments(chunks: Iterable[np.ndarray]) -> Moments:
    """Take moments of chunks of float64 [n, columns] as they come, NaN for a missing cell.

    Chunks are merged pairwise (Chan, Golub and LeVeque 1983).

    >>> found = moments([np.array([[1.0], [3.0]]), np.array([[np.nan], [5.0]])])
    >>> found.mean.tolist(), found.squares.tolist(), found.missing.tolist()
    ([3.0], [8.0], [1])
    """
    return reduce(_merged, map(_moments, chunks))


def _moments(values: np.ndarray) -> Moments:
    known = ~np.isnan(values)
    count = known.sum(0)
    mean = np.where(known, values, 0).sum(0) / np.maximum(count, 1)
    squares = (np.where(known, values - mean, 0) ** 2).sum(0)
    return Moments(count, (~known).sum(0), mean, squares)


def _merged(a: Moments, b: Moments) -> Moments:
    known = a.known + b.known
    share, apart = b.known / np.maximum(known, 1), b.mean - a.mean
    squares = a.squares + b.squares + apart**2 * a.known * share
    return Moments(known, a.missing + b.missing, a.mean + apart * share, squares)


def spread(deviation: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Give the standard deviation of values of about this size: where they differ by rounding
    alone, the size itself, which has their unit, or 1 where it is 0.

    >>> spread(np.array([0.5, 1e-15, 1e-30, 0.0]), np.array([5.0, 5.0, 0.0, 0.0])).tolist()
    [0.5, 5.0, 1e-30, 1.0]
    """
    return np.where(deviation > 1e-12 * size, deviation, np.where(size > 0, size, 1.0))


def averaged(values: Iterable[float]) -> tuple[float, float, int]:
    """Give mean and standard deviation (of a sample) of the values that are not NaN, and how many
    these are. The mean of none is NaN, and so is the deviation of fewer than two.

    >>> averaged([1.0, 3.0, float("nan")])
    (2.0, 1.4142135623730951, 2)
    """
    known = np.array([value for value in values if value == value])
    with np.errstate(invalid="ignore", over="ignore"):  # what is infinite has no deviation
        mean = float(known.mean()) if len(known) else math.nan
        deviation = float(known.std(ddof=1)) if len(known) > 1 else math.nan
    return mean, deviation, len(known)


def words(rows: Rows, column: str) -> Counter[str]:
    """Count the words of a column; a missing cell is none.

    >>> from mip.data.memory import from_columns
    >>> sorted(words(from_columns({"zip": ["85255", 85255.0, ""]}), "zip").items())
    [('85255', 2)]
    """
    counts: Counter[str] = Counter()
    for chunk in rows.chunks([column]):
        codes, known = chunk.coded(column)
        found = np.bincount(codes[codes >= 0], minlength=len(known))
        for word, count in zip(known, found.tolist(), strict=True):
            counts[word] += count
    return Counter({word: count for word, count in counts.items() if word and count})


def places(rows: Table, column: str, vocabulary: Sequence[str]) -> np.ndarray:
    """Look up each row's word: its place in the vocabulary, int64 [n], -1 for one not in it.

    >>> from mip.data.memory import from_columns
    >>> places(from_columns({"zip": ["85255", "1", ""]}), "zip", ["36372", "85255"]).tolist()
    [1, -1, -1]
    """
    codes, known = rows.coded(column)
    place = {word: code for code, word in enumerate(vocabulary)}
    return np.array([*(place.get(word, -1) for word in known), -1], dtype=np.int64)[codes]


def quantiles(values: np.ndarray, levels: int) -> list[list[float]]:
    """Give the quantiles of columns, float64 [n, columns], at so many levels from 0 to 1.

    Fewer levels where there are fewer numbers; none for a column without one.

    >>> quantiles(np.array([[3, np.nan], [1, np.nan], [2, np.nan]]), 257)
    [[1.0, 2.0, 3.0], []]
    """
    return [_marks(column[~np.isnan(column)], levels).tolist() for column in values.T]


def _marks(values: np.ndarray, levels: int) -> np.ndarray:
    if len(values) <= levels:  # as they are: a rounded quantile would part equal values
        return np.sort(values)
    return np.quantile(values, np.linspace(0, 1, levels))


def edges(values: np.ndarray, bins: int) -> list[list[float]]:
    """Cut columns, float64 [n, columns], into up to so many bins of about as many numbers each,
    where equal numbers count for one bin at most; none for a column without a number.

    So the few numbers beside a frequent one have bins of their own (the greedy bins of Ke et al.
    2017), where quantiles would give nearly all bins to it.

    >>> edges(np.array([[0.0]] * 90 + [[k] for k in range(1, 11)]), 4)
    [[0.0, 1.0, 4.0, 8.0, 10.0]]
    """
    return [_edges(column[~np.isnan(column)], bins) for column in values.T]


def _edges(values: np.ndarray, bins: int) -> list[float]:
    known, counts = np.unique(values, return_counts=True)
    if len(known) <= bins + 1:
        return known.tolist()
    weights = counts.astype(float)
    for _ in range(30):
        weights = np.minimum(weights, weights.sum() / bins)
    middles = (weights.cumsum() - weights / 2) / weights.sum()
    inner = np.searchsorted(middles, np.linspace(0, 1, bins + 1)[1:-1])
    return known[np.unique([0, *inner, len(known) - 1])].tolist()


def normal(values: np.ndarray, marks: Sequence[float]) -> np.ndarray:
    """Spread values, float64 [n], like a standard normal distribution by their rank among the
    quantiles; NaN stays. Between -5.2 and 5.2.

    >>> normal(np.array([1.0, 2.0, 9.0]), [1.0, 2.0, 3.0]).round(1).tolist()
    [-5.2, 0.0, 5.2]
    """
    if not len(marks):
        return np.full_like(values, np.nan)
    levels, known = np.linspace(0, 1, len(marks)), np.array(marks)
    # From both sides, so that of equal quantiles the middle counts.
    below = np.interp(values, known, levels)
    above = 1 - np.interp(-values, -known[::-1], levels)
    ranks = np.clip((below + above) / 2, 1e-7, 1 - 1e-7)
    return torch.special.ndtri(torch.from_numpy(ranks)).numpy()


def sample(
    chunks: Iterable[tuple[Tensor, np.ndarray]], most: int = SAMPLE
) -> tuple[np.ndarray, Moments]:
    """Keep `most` rows of chunks, float64 [m, columns], all where there are no more; and take the
    moments of all. A chunk is row numbers, int64 [n], and values, float64 [n, columns].

    Which rows is a function of their numbers, and so the same however they are chunked: those
    whose draw is smallest.

    >>> values, found = sample([(torch.arange(3), np.array([[3.0], [np.nan], [2.0]]))])
    >>> values.tolist(), found.missing.tolist()
    ([[3.0], [nan], [2.0]], [1])
    """
    kept, found = None, None
    for rows, values in chunks:
        here = _moments(values)
        found = _merged(found, here) if found else here
        # Two draws of 24 bits, so that no two of many rows have the same.
        draws = uniform(derive("sample"), rows, 2).double() @ WEIGHTS
        fresh = np.concatenate([draws.numpy(), values], axis=1)
        kept = _smallest(fresh if kept is None else np.concatenate([kept, fresh]), most)
    assert kept is not None
    assert found is not None
    return kept[:, 1:], found


def _smallest(drawn: np.ndarray, most: int) -> np.ndarray:
    if len(drawn) <= most:
        return drawn
    return drawn[np.sort(np.argpartition(drawn[:, 0], most)[:most])]
