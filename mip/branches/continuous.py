"""Numbers: standardized, or transformed by a logarithm or by rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from attrs import field, frozen
from attrs.validators import gt, le
from torch import Tensor, nn

from mip.branches.protocol import Facts, column_names
from mip.data import (
    N_QUANTILES,
    Moments,
    Rows,
    Table,
    bin_edges,
    moments,
    normal_scores,
    quantiles,
    sample_rows,
)
from mip.fields import MinLength, choice
from mip.nn import FillMissing


@frozen
class Continuous:
    """Numbers, standardized (for "log" after a signed logarithm), or for "quantile" mapped by
    their rank in the training rows to a normal distribution. Missing cells are filled and flagged.

    `embedding` replaces each number by a vector of `embedding_dim` numbers (Gorishniy et al. 2022):
    "linear", "piecewise" (linear within up to `bins` bins of the training rows), or "periodic"
    (sines and cosines of learned frequencies with initial standard deviation `frequency`). Each
    column then has its own linear layer, followed by ReLU.

    >>> import pandas as pd; from mip.data import from_frame
    >>> table = from_frame(pd.DataFrame({"area": ["70", "90", ""]}))
    >>> branch = Continuous(["area"]); facts = branch.adapt(table)
    >>> facts
    {'mean': [80.0], 'std': [10.0], 'missing': [1]}
    >>> branch.encode(facts, table).flatten().tolist()
    [-1.0, 1.0, nan]
    """

    kind = "continuous"
    columns: tuple[str, ...] = field(converter=column_names, validator=MinLength(1))
    scale: Literal["standard", "log", "quantile", "none"] = choice("standard")
    embedding: Literal["none", "linear", "piecewise", "periodic"] = choice("none")
    embedding_dim: int = field(default=16, validator=[gt(0), le(1024)])
    bins: int = field(default=32, validator=[gt(1), le(1024)])
    frequency: float = field(default=0.1, validator=gt(0))

    def adapt(self, table: Rows) -> Facts:
        """Return the mean, standard deviation (of the population) and number of missing cells of
        each column; for "quantile" up to 257 quantiles of each, and for "piecewise" the edges of
        its bins, from a sample of 100,000 rows if there are more.
        """
        chunks = ((chunk.row_ids, self._numbers(chunk)) for chunk in table.chunks(self.columns))
        if self.scale != "quantile" and self.embedding != "piecewise":
            return self._moments(moments(values for _, values in chunks))
        drawn, stats = sample_rows(chunks)
        facts = self._moments(stats)
        if self.scale == "quantile":
            facts["quantiles"] = quantiles(drawn, N_QUANTILES)
        if self.embedding == "piecewise":
            facts["edges"] = bin_edges(self._scale(facts, drawn), self.bins)
        return facts

    def _moments(self, stats: Moments) -> Facts:
        missing = {"missing": stats.missing.tolist()}
        if self.scale in {"none", "quantile"}:
            return missing
        return {"mean": stats.mean.tolist(), "std": stats.scale.tolist(), **missing}

    def encode(self, facts: Facts, table: Table) -> Tensor:
        """Return float32 [n, columns]; NaN if a cell is missing, infinite or beyond float32."""
        scaled = self._scale(facts, self._numbers(table))
        limit = np.finfo(np.float32).max
        return torch.from_numpy(np.where(np.abs(scaled) <= limit, scaled, np.nan).astype("float32"))

    def absent(self, inputs: Tensor) -> Tensor:
        """Mark the rows without any number: bool [n]."""
        return inputs.isnan().flatten(1).all(dim=1)

    def module(self, facts: Facts) -> nn.Module:
        """Build a module to float32 [n, columns + those with missing cells], or with an embedding
        to [n, columns * embedding_dim + those with missing cells].
        """
        fill = FillMissing([count > 0 for count in facts["missing"]])
        if self.embedding == "none":
            return fill
        return EmbeddedNumbers(fill, self._spread(facts), len(self.columns), self.embedding_dim)

    def _spread(self, facts: Facts) -> Spread:
        if self.embedding == "piecewise":
            return Piecewise(facts["edges"])
        if self.embedding == "periodic":
            return Periodic(len(self.columns), self.embedding_dim, self.frequency)
        return Linear()

    def conversions(self, table: Table) -> Iterator[tuple[int, str]]:
        """Yield (row, text) for each cell with a number that counts as missing."""
        for column in self.columns:
            for row in table.overflow_rows(column).tolist():
                yield row, f"'{column}' infinite or beyond float32, treated as missing"

    def _numbers(self, table: Table) -> np.ndarray:
        values = np.stack([table.numbers(column) for column in self.columns], axis=1)
        return np.sign(values) * np.log1p(np.abs(values)) if self.scale == "log" else values

    def _scale(self, facts: Facts, values: np.ndarray) -> np.ndarray:
        if self.scale == "none":
            return values
        if self.scale == "quantile":
            pairs = zip(values.T, facts["quantiles"], strict=True)
            return np.stack([normal_scores(column, levels) for column, levels in pairs], axis=1)
        with np.errstate(over="ignore"):
            return (values - np.array(facts["mean"])) / np.array(facts["std"])


class EmbeddedNumbers(nn.Module):
    """Fill missing numbers, spread each number to several, then apply the column's own linear layer
    and ReLU.

    Takes float32 [n, c] with NaN for missing; returns float32 [n, c * dim + flags].
    """

    def __init__(self, fill: FillMissing, spread: Spread, columns: int, dim: int) -> None:
        super().__init__()
        self.fill, self.spread, self.columns = fill, spread, columns
        shape, bound = (columns, spread.out_features, dim), spread.out_features**-0.5
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(columns, dim).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        numbers, flags = self.fill(x).split([self.columns, len(self.fill.value)], dim=1)
        vectors = self.spread(numbers, self.weight) + self.bias
        return torch.cat([vectors.relu().flatten(1), flags], dim=1)


class Linear(nn.Module):
    """Multiply each number by a vector: float32 [n, c] and [c, 1, dim] to [n, c, dim]."""

    out_features = 1

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return x.unsqueeze(-1) * weight.squeeze(1)


class Piecewise(nn.Module):
    """Sum the vectors of the bins that each number is through, and of its own bin the share that it
    is through it: float32 [n, c] and [c, bins, dim] to [n, c, dim].

    The share goes from 0 to 1, below 0 in the first bin and above 1 in the last. Numbers look up
    their bin and the sum of those before it, which takes half the time of a product of all shares
    with the weights, and a seventh for thousands of rows.

    >>> bins = Piecewise([[0.0, 1.0, 3.0]])
    >>> weight = torch.tensor([[[10.0], [1.0]]])
    >>> bins(torch.tensor([[-1.0], [0.5], [2.0], [5.0]]), weight).flatten().tolist()
    [-10.0, 5.0, 10.5, 12.0]
    """

    begin: Tensor
    slope: Tensor
    ends: Tensor
    first: Tensor

    def __init__(self, edges: Sequence[Sequence[float]]) -> None:
        super().__init__()
        columns = [torch.tensor(column).float().unique() for column in edges]
        self.out_features = bins = max(1, *(len(column) - 1 for column in columns))
        # A column with fewer bins has no number beyond its last; with a single edge its slope is 0.
        begin = [F.pad(column[:-1], (0, bins))[:bins] for column in columns]
        slope = [F.pad(1 / column.diff(), (0, bins))[:bins] for column in columns]
        ends = [F.pad(column[1:-1], (0, bins), value=torch.inf)[: bins - 1] for column in columns]
        for name, tensors in (("begin", begin), ("slope", slope), ("ends", ends)):
            self.register_buffer(name, torch.stack(tensors), persistent=False)
        self.register_buffer("first", bins * torch.arange(len(columns)), persistent=False)

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        bins = torch.searchsorted(self.ends, x.detach().t().contiguous(), right=True).t()
        row = bins + self.first
        share = (x - self.begin.take(row)) * self.slope.take(row)
        before = F.pad(weight[:, :-1], (0, 0, 1, 0)).cumsum(dim=1)
        sums, own = (F.embedding(row, table.flatten(0, 1)) for table in (before, weight))
        return torch.addcmul(sums, own, share.unsqueeze(-1))


class Periodic(nn.Module):
    """Apply a linear layer to sines and cosines of each number at k learned frequencies: float32
    [n, c] and [c, 2 * k, dim] to [n, c, dim].
    """

    def __init__(self, columns: int, frequencies: int, deviation: float) -> None:
        super().__init__()
        self.out_features = 2 * frequencies
        self.frequency = nn.Parameter(deviation * torch.randn(columns, frequencies))

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        angles = 2 * torch.pi * self.frequency * x.unsqueeze(-1)
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return torch.einsum("nci,cio->nco", waves, weight)


Spread = Linear | Piecewise | Periodic
"""Modules that turn each number into several and apply the column's linear layer: float32 [n, c]
and the weights, [c, out_features, dim], to [n, c, dim].
"""
