"""Statistics of columns, computed chunk by chunk, so that no column must fit in memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch

from mip.data.table import Rows, Table
from mip.rng import derive, uniform

SAMPLE_ROWS = 100_000
"""Rows that are sampled for statistics that need the order of values, such as quantiles."""


N_QUANTILES = 257
"""Quantiles that describe a distribution."""


_DRAW_WEIGHTS = torch.tensor([[1.0], [2.0**-24]], dtype=torch.float64)


class Moments(NamedTuple):
    """By column: known cells, missing cells, mean, and the sum of squared deviations from it."""

    known: np.ndarray
    missing: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    @property
    def deviation(self) -> np.ndarray:
        """The population standard deviation."""
        return np.sqrt(self.squares / np.maximum(self.known, 1))

    @property
    def scale(self) -> np.ndarray:
        """The standard deviation to divide by, which is never 0; see `nonzero_scale`."""
        return nonzero_scale(self.deviation, np.abs(self.mean))


def moments(chunks: Iterable[np.ndarray]) -> Moments:
    """Compute the moments of chunks, float64 [n, columns] each, with NaN for a missing cell.

    Chunks are merged pairwise (Chan, Golub and LeVeque 1983).

    >>> both = moments([np.array([[1.0], [3.0]]), np.array([[np.nan], [5.0]])])
    >>> both.mean.tolist(), both.squares.tolist(), both.missing.tolist()
    ([3.0], [8.0], [1])
    """
    return reduce(_merge, map(_moments, chunks))


def _moments(values: np.ndarray) -> Moments:
    known = ~np.isnan(values)
    count = known.sum(0)
    mean = np.where(known, values, 0).sum(0) / np.maximum(count, 1)
    squares = (np.where(known, values - mean, 0) ** 2).sum(0)
    return Moments(count, (~known).sum(0), mean, squares)


def _merge(a: Moments, b: Moments) -> Moments:
    known = a.known + b.known
    share, distance = b.known / np.maximum(known, 1), b.mean - a.mean
    squares = a.squares + b.squares + distance**2 * a.known * share
    return Moments(known, a.missing + b.missing, a.mean + distance * share, squares)


def nonzero_scale(deviation: np.ndarray, magnitude: np.ndarray) -> np.ndarray:
    """Return the standard deviation of values of about this magnitude. If they differ only by
    rounding, return the magnitude itself, which has their unit, or 1 if it is 0.

    >>> nonzero_scale(np.array([0.5, 1e-15, 1e-30, 0.0]), np.array([5.0, 5.0, 0.0, 0.0])).tolist()
    [0.5, 5.0, 1e-30, 1.0]
    """
    constant = np.where(magnitude > 0, magnitude, 1.0)
    return np.where(deviation > 1e-12 * magnitude, deviation, constant)


def mean_and_std(values: Iterable[float]) -> tuple[float, float, int]:
    """Return the mean and sample standard deviation of the values that are not NaN, and their
    count. The mean of none is NaN, and so is the standard deviation of fewer than two.

    >>> mean_and_std([1.0, 3.0, float("nan")])
    (2.0, 1.4142135623730951, 2)
    """
    known = np.array([value for value in values if value == value])
    with np.errstate(invalid="ignore", over="ignore"):  # infinite values have no deviation
        mean = float(known.mean()) if len(known) else math.nan
        deviation = float(known.std(ddof=1)) if len(known) > 1 else math.nan
    return mean, deviation, len(known)


def value_counts(rows: Rows, column: str) -> Counter[str]:
    """Count the texts of a column, without missing cells.

    >>> from mip.data import from_columns
    >>> sorted(value_counts(from_columns({"zip": ["85255", 85255.0, ""]}), "zip").items())
    [('85255', 2)]
    """
    counts: Counter[str] = Counter()
    for chunk in rows.chunks([column]):
        codes, texts = chunk.factorize(column)
        code_counts = np.bincount(codes[codes >= 0], minlength=len(texts))
        for text, count in zip(texts, code_counts.tolist(), strict=True):
            counts[text] += count
    return Counter({text: count for text, count in counts.items() if text and count})


def category_codes(table: Table, column: str, vocabulary: Sequence[str]) -> np.ndarray:
    """Look up each row's text in a vocabulary: its index there, int64 [n], or -1 if it is missing.

    >>> from mip.data import from_columns
    >>> zips = from_columns({"zip": ["85255", "1", ""]})
    >>> category_codes(zips, "zip", ["36372", "85255"]).tolist()
    [1, -1, -1]
    """
    codes, texts = table.factorize(column)
    index = {text: code for code, text in enumerate(vocabulary)}
    return np.array([*(index.get(text, -1) for text in texts), -1], dtype=np.int64)[codes]


def quantiles(values: np.ndarray, count: int) -> list[list[float]]:
    """Compute `count` quantiles of each column, float64 [n, columns], at even levels from 0 to 1.

    A column with fewer numbers has fewer quantiles, and one without numbers has none.

    >>> quantiles(np.array([[3, np.nan], [1, np.nan], [2, np.nan]]), 257)
    [[1.0, 2.0, 3.0], []]
    """
    known = [column[~np.isnan(column)] for column in values.T]
    return [
        # Few numbers are their own quantiles: interpolation would separate equal values.
        np.sort(column).tolist()
        if len(column) <= count
        else np.quantile(column, np.linspace(0, 1, count)).tolist()
        for column in known
    ]


def bin_edges(values: np.ndarray, bins: int) -> list[list[float]]:
    """Divide each column, float64 [n, columns], into at most `bins` bins that hold about as many
    numbers each, where equal numbers fill at most one bin; a column without numbers has no edges.

    So the few numbers beside a frequent one have bins of their own (the greedy bins of Ke et al.
    2017), where quantiles would give nearly all bins to it.

    >>> bin_edges(np.array([[0.0]] * 90 + [[k] for k in range(1, 11)]), 4)
    [[0.0, 1.0, 4.0, 8.0, 10.0]]
    """
    return [_bin_edges(column[~np.isnan(column)], bins) for column in values.T]


def _bin_edges(values: np.ndarray, bins: int) -> list[float]:
    known, counts = np.unique(values, return_counts=True)
    if len(known) <= bins + 1:
        return known.tolist()
    weights = counts.astype(float)
    for _ in range(30):
        weights = np.minimum(weights, weights.sum() / bins)
    centers = (weights.cumsum() - weights / 2) / weights.sum()
    inner = np.searchsorted(centers, np.linspace(0, 1, bins + 1)[1:-1])
    return known[np.unique([0, *inner, len(known) - 1])].tolist()


def normal_scores(values: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    """Map values, float64 [n], to a standard normal distribution by their rank among the quantiles,
    from -5.2 to 5.2; NaN stays NaN.

    >>> normal_scores(np.array([1.0, 2.0, 9.0]), [1.0, 2.0, 3.0]).round(1).tolist()
    [-5.2, 0.0, 5.2]
    """
    if not len(quantiles):
        return np.full_like(values, np.nan)
    levels, known = np.linspace(0, 1, len(quantiles)), np.array(quantiles)
    # From both sides, so that the middle of equal quantiles counts.
    below = np.interp(values, known, levels)
    above = 1 - np.interp(-values, -known[::-1], levels)
    ranks = np.clip((below + above) / 2, 1e-7, 1 - 1e-7)
    return torch.special.ndtri(torch.from_numpy(ranks)).numpy()


def sample_rows(
    chunks: Iterable[tuple[np.ndarray, np.ndarray]], n_rows: int = SAMPLE_ROWS
) -> tuple[np.ndarray, Moments]:
    """Sample `n_rows` rows of all chunks, float64 [m, columns], or all if there are no more, and
    compute the moments of all. A chunk is row ids, int64 [n], and values, float64 [n, columns].

    Each row id has a random draw, and the rows with the smallest draws are sampled: the same rows
    however they are divided into chunks.

    >>> values, all_rows = sample_rows([(np.arange(3), np.array([[3.0], [np.nan], [2.0]]))])
    >>> values.tolist(), all_rows.missing.tolist()
    ([[3.0], [nan], [2.0]], [1])
    """
    sample, total = None, None
    for row_ids, values in chunks:
        part = _moments(values)
        total = _merge(total, part) if total else part
        # Two draws of 24 bits, since one would be the same for some of many rows.
        draws = uniform(derive("sample"), torch.from_numpy(row_ids), 2).double() @ _DRAW_WEIGHTS
        drawn = np.concatenate([draws.numpy(), values], axis=1)
        drawn = drawn if sample is None else np.concatenate([sample, drawn])
        if len(drawn) > n_rows:
            drawn = drawn[np.sort(np.argpartition(drawn[:, 0], n_rows)[:n_rows])]
        sample = drawn
    assert sample is not None
    assert total is not None
    return sample[:, 1:], total
