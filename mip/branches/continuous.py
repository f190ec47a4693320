"""Numbers: standardised, or spread by a logarithm or by rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from attrs import field, frozen
from attrs.validators import gt, in_, le, min_len
from torch import Tensor, nn

from mip.branches.protocol import Facts, names
from mip.data import LEVELS, Moments, Rows, Table, edges, moments, normal, quantiles, sample
from mip.nn import Fill


@frozen
class Continuous:
    """Numbers, standardized (for "log" after a signed logarithm), or for "quantile" mapped by
    their rank in the training rows to a normal distribution. Missing cells are filled and flagged.

    `embedding` replaces each number by a vector of `embedding_dim` numbers (Gorishniy et al. 2022):
    "linear", "piecewise" (linear within up to `bins` bins of the training rows), or "periodic"
    (sines and cosines of learned frequencies with initial standard deviation `frequency`). Each
    column then has its own linear layer, followed by ReLU.

    >>> import pandas as pd; from mip.data import from_frame
    >>> rows = from_frame(pd.DataFrame({"area": ["70", "90", ""]}))
    >>> kind = Continuous(["area"]); facts = kind.adapt(rows)
    >>> facts
    {'mean': [80.0], 'std': [10.0], 'missing': [1]}
    >>> kind.encode(facts, rows).flatten().tolist()
    [-1.0, 1.0, nan]
    """

    kind = "continuous"
    columns: tuple[str, ...] = field(converter=names, validator=min_len(1))
    scale: Literal["standard", "log", "quantile", "none"] = field(
        default="standard", validator=in_(("standard", "log", "quantile", "none"))
    )
    embedding: Literal["none", "linear", "piecewise", "periodic"] = field(
        default="none", validator=in_(("none", "linear", "piecewise", "periodic"))
    )
    embedding_dim: int = field(default=16, validator=[gt(0), le(1024)])
    bins: int = field(default=32, validator=[gt(1), le(1024)])
    frequency: float = field(default=0.1, validator=gt(0))

    def adapt(self, rows: Rows) -> Facts:
        """Give mean, standard deviation (population) and count of missing cells by column; for
        "quantile" up to 257 quantiles of each, and for "piecewise" the edges of its bins, of a
        sample of 100,000 rows where there are more.
        """
        chunks = ((chunk.rows, self._numbers(chunk)) for chunk in rows.chunks(self.columns))
        if self.scale != "quantile" and self.embedding != "piecewise":
            return self._facts(moments(values for _, values in chunks))
        drawn, found = sample(chunks)
        marks = {"quantiles": quantiles(drawn, LEVELS)} if self.scale == "quantile" else {}
        facts = {**self._facts(found), **marks}
        if self.embedding != "piecewise":
            return facts
        return {**facts, "edges": edges(self._scaled(facts, drawn), self.bins)}

    def _facts(self, found: Moments) -> Facts:
        facts = {"missing": found.missing.tolist()}
        if self.scale in {"none", "quantile"}:
            return facts
        return {"mean": found.mean.tolist(), "std": found.std.tolist(), **facts}

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Give float32 [n, columns]; NaN where a cell is missing, infinite or past float32."""
        scaled = self._scaled(facts, self._numbers(rows))
        limit = np.finfo(np.float32).max
        return torch.from_numpy(np.where(np.abs(scaled) <= limit, scaled, np.nan).astype("float32"))

    def absent(self, inputs: Tensor) -> Tensor:
        """Say which rows have no number: bool [n]."""
        return inputs.isnan().flatten(1).all(dim=1)

    def module(self, facts: Facts) -> nn.Module:
        """Give float32 [n, columns + those with missing cells], or with an embedding
        [n, columns * embedding_dim + those with missing cells].
        """
        fill = Fill([count > 0 for count in facts["missing"]])
        if self.embedding == "none":
            return fill
        return Embedded(fill, len(self.columns), self._spread(facts), self.embedding_dim)

    def _spread(self, facts: Facts) -> Spread:
        if self.embedding == "piecewise":
            return Piecewise(facts["edges"])
        if self.embedding == "periodic":
            return Periodic(len(self.columns), self.embedding_dim, self.frequency)
        return Plain()

    def oddities(self, rows: Table) -> Iterator[tuple[int, str]]:
        """Give (place, text) for every number that counts as missing though it is there."""
        for column in self.columns:
            for place in rows.beyond(column).tolist():
                yield place, f"'{column}' infinite or past float32, counts as missing"

    def _numbers(self, rows: Table) -> np.ndarray:
        values = np.stack([rows.numbers(column) for column in self.columns], axis=1)
        return np.sign(values) * np.log1p(np.abs(values)) if self.scale == "log" else values

    def _scaled(self, facts: Facts, values: np.ndarray) -> np.ndarray:
        if self.scale == "none":
            return values
        if self.scale == "quantile":
            pairs = zip(values.T, facts["quantiles"], strict=True)
            return np.stack([normal(column, marks) for column, marks in pairs], axis=1)
        with np.errstate(over="ignore"):
            return (values - np.array(facts["mean"])) / np.array(facts["std"])


class Embedded(nn.Module):
    """Fill numbers, spread each to several, and give each column a linear layer with ReLU.

    Takes float32 [n, c] with NaN for missing; gives float32 [n, c * width + flags].
    """

    def __init__(self, fill: Fill, columns: int, spread: Spread, width: int) -> None:
        super().__init__()
        self.fill, self.spread, self.columns = fill, spread, columns
        bound = spread.wide**-0.5
        self.weight = nn.Parameter(torch.empty(columns, spread.wide, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(columns, width).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        numbers, flags = self.fill(x).split([self.columns, len(self.fill.value)], dim=1)
        vectors = torch.einsum("nci,cio->nco", self.spread(numbers), self.weight) + self.bias
        return torch.cat([vectors.relu().flatten(1), flags], dim=1)


class Plain(nn.Module):
    """Each number as it is: float32 [n, c] to [n, c, 1]."""

    wide = 1

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(-1)


class Piecewise(nn.Module):
    """How far each number is through each bin: float32 [n, c] to [n, c, bins].

    0 before a bin and 1 behind it; the first goes on below 0 and the last above 1.

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
        cut = [torch.tensor(column).float().unique() for column in edges]
        self.wide = max(1, *(len(column) - 1 for column in cut))
        columns = [self._bins(column) for column in cut]
        named = zip(("begin", "slope", "least", "most"), zip(*columns, strict=True), strict=True)
        for name, bins in named:
            self.register_buffer(name, torch.stack(bins), persistent=False)

    def _bins(self, edges: Tensor) -> tuple[Tensor, ...]:
        slope = F.pad(1 / edges.diff(), (0, self.wide))[: self.wide]
        least, most = torch.zeros(self.wide), (slope > 0).float()
        if len(edges) > 1:
            least[0], most[len(edges) - 2] = -torch.inf, torch.inf
        # A column with fewer bins has 0 in the others, since their slope is 0.
        return F.pad(edges[:-1], (0, self.wide))[: self.wide], slope, least, most

    def forward(self, x: Tensor) -> Tensor:
        shares = (x.unsqueeze(-1) - self.begin) * self.slope
        return shares.clamp(self.least, self.most)


class Periodic(nn.Module):
    """Sines and cosines of each number at learned frequencies: float32 [n, c] to [n, c, 2 * k]."""

    def __init__(self, columns: int, frequencies: int, deviation: float) -> None:
        super().__init__()
        self.wide = 2 * frequencies
        self.frequency = nn.Parameter(deviation * torch.randn(columns, frequencies))

    def forward(self, x: Tensor) -> Tensor:
        turns = 2 * torch.pi * self.frequency * x.unsqueeze(-1)
        return torch.cat([turns.sin(), turns.cos()], dim=-1)


Spread = Plain | Piecewise | Periodic
"""What makes several numbers of each: float32 [n, c] to [n, c, wide]."""
