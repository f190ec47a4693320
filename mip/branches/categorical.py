"""Words: an embedding for each that training knows, and one for all others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Literal
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F
from attrs import field, frozen
from attrs.validators import ge, gt, in_, le, lt, min_len, optional
from torch import Tensor, nn

from mip.branches.protocol import Facts, names
from mip.data import Rows, Table, places, words


@frozen
class Categorical:
    """Categories: one vector per column. Unseen, rare and missing categories share code 0.

    `encoding` is "embedding" (of `embedding_dim` numbers; default: min(50, round(1.6 * n ** 0.56))
    for n categories), "one_hot" for columns of few categories, or "hash" for very many: categories
    share `buckets` embeddings by their hash, so no vocabulary is needed. Categories with fewer
    than `min_count` training rows are rare. Training replaces a random share of `unseen_rate` of
    the cells by code 0, so that its embedding is learned.

    >>> import pandas as pd; from mip.data import from_frame
    >>> rows = from_frame(pd.DataFrame({"zip": ["85255", "36372", "85255"]}))
    >>> kind = Categorical(["zip"]); facts = kind.adapt(rows)
    >>> facts
    {'words': [['36372', '85255']]}
    >>> kind.encode(facts, from_frame(pd.DataFrame({"zip": [85255, 99999]}))).tolist()
    [[2], [0]]
    """

    kind = "categorical"
    columns: tuple[str, ...] = field(converter=names, validator=min_len(1))
    embedding_dim: int | None = field(default=None, validator=optional([gt(0), le(4096)]))
    min_count: int = field(default=1, validator=ge(1))
    unseen_rate: float = field(default=0.05, validator=[ge(0), lt(1)])
    encoding: Literal["embedding", "one_hot", "hash"] = field(
        default="embedding", validator=in_(("embedding", "one_hot", "hash"))
    )
    buckets: int = field(default=1024, validator=[gt(1), le(1 << 24)])

    def adapt(self, rows: Rows) -> Facts:
        """Give the sorted words of each column that stand in at least `min_count` rows; none for
        "hash".
        """
        if self.encoding == "hash":
            return {"words": []}
        return {"words": [self._words(words(rows, column)) for column in self.columns]}

    def _words(self, counts: Mapping[str, int]) -> list[str]:
        return sorted(word for word, count in counts.items() if count >= self.min_count)

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Give int64 [n, columns]: 1 + place in the vocabulary, or the bucket, or 0."""
        if self.encoding == "hash":
            codes = [self._hashed(rows, column) for column in self.columns]
        else:
            pairs = zip(self.columns, facts["words"], strict=True)
            codes = [places(rows, column, known) + 1 for column, known in pairs]
        return torch.from_numpy(np.stack(codes, axis=1))

    def _hashed(self, rows: Table, column: str) -> np.ndarray:
        codes, known = rows.coded(column)
        buckets = [
            1 + crc32(word.encode(errors="surrogatepass")) % self.buckets if word else 0
            for word in known
        ]
        return np.array([*buckets, 0], dtype=np.int64)[codes]

    def absent(self, inputs: Tensor) -> Tensor:
        """Say which rows have no word that training knows: bool [n]."""
        return (inputs == 0).flatten(1).all(dim=1)

    def module(self, facts: Facts) -> nn.Module:
        """Give float32 [n, sum of the widths], a one-hot's being 1 + its categories."""
        sizes = [1 + len(known) for known in facts["words"]]
        if self.encoding == "hash":
            sizes = [1 + self.buckets for _ in self.columns]
        if self.encoding == "one_hot":
            return OneHot(sizes, self.unseen_rate)
        widths = [self.embedding_dim or min(50, round(1.6 * size**0.56)) for size in sizes]
        return Embeddings(sizes, widths, self.unseen_rate)

    def unknown(self, facts: Facts, rows: Rows) -> Iterator[tuple[str, list[str]]]:
        """Give (column, words) for every column with words that training did not see."""
        for column, known in zip(self.columns, facts["words"], strict=False):
            fresh = sorted(words(rows, column).keys() - set(known))
            if fresh:
                yield column, fresh


def hidden(codes: Tensor, share: float) -> Tensor:
    """Show a share of the cells as unseen: codes int64 [n, c], some of them 0. Without a share
    nothing is drawn.
    """
    if not share:
        return codes
    return codes.masked_fill(torch.rand(codes.shape, device=codes.device) < share, 0)


SMALL = 1 << 16
"""Tables of so many numbers are joined for each batch."""


class Embeddings(nn.Module):
    """Look up one vector per column and join them.

    Takes int64 [n, c]; gives float32 [n, sum of widths]. In training each cell becomes 0, the
    unseen bucket, with probability `unseen`, so that the bucket learns what to say.
    """

    begins: Tensor

    def __init__(self, sizes: Sequence[int], widths: Sequence[int], unseen: float) -> None:
        super().__init__()
        pairs = zip(sizes, widths, strict=True)
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size, width in pairs)
        self.unseen = unseen
        self.alike = len(sizes) > 1 and len(set(widths)) == 1 and sum(sizes) * widths[0] <= SMALL
        begins = torch.tensor([0, *accumulate(sizes[:-1])])
        self.register_buffer("begins", begins, persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        codes = hidden(codes, self.unseen if self.training else 0.0)
        if self.training and self.alike:
            # One look into all tables takes half the time of one into each, to the same bits.
            joined = torch.cat(list(self.tables.parameters()))
            return F.embedding(codes + self.begins, joined).flatten(1)
        vectors = [table(code) for table, code in zip(self.tables, codes.unbind(1), strict=True)]
        return torch.cat(vectors, dim=1)


class OneHot(nn.Module):
    """One number for each category of each column: int64 [n, c] to float32 [n, sum of sizes]."""

    def __init__(self, sizes: Sequence[int], unseen: float) -> None:
        super().__init__()
        self.sizes, self.unseen = sizes, unseen

    def forward(self, codes: Tensor) -> Tensor:
        codes = hidden(codes, self.unseen if self.training else 0.0)
        pairs = zip(codes.unbind(1), self.sizes, strict=True)
        return torch.cat([F.one_hot(code, size) for code, size in pairs], dim=1).float()
