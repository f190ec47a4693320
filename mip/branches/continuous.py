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
        return Unsqueeze()

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
        vectors = torch.einsum("nci,cio->nco", self.spread(numbers), self.weight) + self.bias
        return torch.cat([vectors.relu().flatten(1), flags], dim=1)


class Unsqueeze(nn.Module):
    """Pass each number on: float32 [n, c] to [n, c, 1]."""

    out_features = 1

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(-1)


class Piecewise(nn.Module):
    """Compute how far each number is through each bin: float32 [n, c] to [n, c, bins].

    This is 0 before a bin and 1 after it; it goes below 0 in the first bin and above 1 in the last.

    >>> Piecewise([[0.0, 1.0, 3.0]])(torch.tensor([[-1.0], [0.5], [2.0], [5.0]])).squeeze(1)
    tensor([[-1.0000,  0.0000],
            [ 0.5000,  0.0000],
            [ 1.0000,  0.5000],
            [ 1.0000,  2.0000]])
    """

    begin: Tensor
    slope: Tensor
    least: Tensor
    most: Tensor

    def __init__(self, edges: Sequence[Sequence[float]]) -> None:
        super().__init__()
        columns = [torch.tensor(column).float().unique() for column in edges]
        self.out_features = max(1, *(len(column) - 1 for column in columns))
        tensors = zip(*(self._bins(column) for column in columns), strict=True)
        for name, bins in zip(("begin", "slope", "least", "most"), tensors, strict=True):
            self.register_buffer(name, torch.stack(bins), persistent=False)

    def _bins(self, edges: Tensor) -> tuple[Tensor, ...]:
        slope = F.pad(1 / edges.diff(), (0, self.out_features))[: self.out_features]
        least, most = torch.zeros(self.out_features), (slope > 0).float()
        if len(edges) > 1:
            least[0], most[len(edges) - 2] = -torch.inf, torch.inf
        # A column with fewer bins has 0 in the rest, since the slope there is 0.
        return F.pad(edges[:-1], (0, self.out_features))[: self.out_features], slope, least, most

    def forward(self, x: Tensor) -> Tensor:
        shares = (x.unsqueeze(-1) - self.begin) * self.slope
        return shares.clamp(self.least, self.most)


class Periodic(nn.Module):
    """Compute sines and cosines of each number at k learned frequencies: float32 [n, c] to
    [n, c, 2 * k].
    """

    def __init__(self, columns: int, frequencies: int, deviation: float) -> None:
        super().__init__()
        self.out_features = 2 * frequencies
        self.frequency = nn.Parameter(deviation * torch.randn(columns, frequencies))

    def forward(self, x: Tensor) -> Tensor:
        angles = 2 * torch.pi * self.frequency * x.unsqueeze(-1)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


Spread = Unsqueeze | Piecewise | Periodic
"""Modules that turn each number into several: float32 [n, c] to [n, c, out_features]."""
