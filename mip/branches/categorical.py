"""Categories: an embedding for each seen in training, and one for all others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Literal
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F
from attrs import field, frozen
from attrs.validators import ge, gt, le, lt, optional
from torch import Tensor, nn

from mip.branches.protocol import Facts, column_names
from mip.data import Rows, Table, category_codes, value_counts
from mip.fields import MinLength, choice


@frozen
class Categorical:
    """Categories: one vector per column. Unseen, rare and missing categories share code 0.

    `encoding` is "embedding" (of `embedding_dim` numbers; default: min(50, round(1.6 * n ** 0.56))
    for n categories), "one_hot" for columns of few categories, or "hash" for very many: categories
    share `buckets` embeddings by their hash, so no vocabulary is needed. Categories with fewer
    than `min_count` training rows are rare. Training replaces a random share of `unseen_rate` of
    the cells by code 0, so that its embedding is learned.

    >>> import pandas as pd; from mip.data import from_frame
    >>> table = from_frame(pd.DataFrame({"zip": ["85255", "36372", "85255"]}))
    >>> branch = Categorical(["zip"]); facts = branch.adapt(table)
    >>> facts
    {'words': [['36372', '85255']]}
    >>> branch.encode(facts, from_frame(pd.DataFrame({"zip": [85255, 99999]}))).tolist()
    [[2], [0]]
    """

    kind = "categorical"
    columns: tuple[str, ...] = field(converter=column_names, validator=MinLength(1))
    embedding_dim: int | None = field(default=None, validator=optional([gt(0), le(4096)]))
    min_count: int = field(default=1, validator=ge(1))
    unseen_rate: float = field(default=0.05, validator=[ge(0), lt(1)])
    encoding: Literal["embedding", "one_hot", "hash"] = choice("embedding")
    buckets: int = field(default=1024, validator=[gt(1), le(1 << 24)])

    def adapt(self, table: Rows) -> Facts:
        """Return the sorted categories of each column that occur in at least `min_count` rows; none
        for "hash".
        """
        counts = (
            [] if self.encoding == "hash" else [value_counts(table, name) for name in self.columns]
        )
        return {"words": [self._frequent(each) for each in counts]}

    def _frequent(self, counts: Mapping[str, int]) -> list[str]:
        return sorted(category for category, count in counts.items() if count >= self.min_count)

    def encode(self, facts: Facts, table: Table) -> Tensor:
        """Return int64 [n, columns]: 1 + the index in the vocabulary or the bucket, or 0."""
        if self.encoding == "hash":
            codes = [self._hash(table, column) for column in self.columns]
        else:
            pairs = zip(self.columns, facts["words"], strict=True)
            codes = [category_codes(table, column, vocabulary) + 1 for column, vocabulary in pairs]
        return torch.from_numpy(np.stack(codes, axis=1))

    def _hash(self, table: Table, column: str) -> np.ndarray:
        codes, categories = table.factorize(column)
        buckets = [
            1 + crc32(category.encode(errors="surrogatepass")) % self.buckets if category else 0
            for category in categories
        ]
        return np.array([*buckets, 0], dtype=np.int64)[codes]

    def absent(self, inputs: Tensor) -> Tensor:
        """Mark the rows without any category seen in training: bool [n]."""
        return (inputs == 0).flatten(1).all(dim=1)

    def module(self, facts: Facts) -> nn.Module:
        """Build a module to float32 [n, sum of the embeddings], those of "one_hot" having 1 + the
        number of categories.
        """
        sizes = [1 + len(vocabulary) for vocabulary in facts["words"]]
        if self.encoding == "hash":
            sizes = [1 + self.buckets for _ in self.columns]
        if self.encoding == "one_hot":
            return OneHot(sizes, self.unseen_rate)
        dims = [self.embedding_dim or min(50, round(1.6 * size**0.56)) for size in sizes]
        return Embeddings(sizes, dims, self.unseen_rate)

    def unseen(self, facts: Facts, table: Rows) -> Iterator[tuple[str, list[str]]]:
        """Yield (column, categories) for each column with categories not seen in training."""
        for column, vocabulary in zip(self.columns, facts["words"], strict=False):
            if unseen := sorted(value_counts(table, column).keys() - set(vocabulary)):
                yield column, unseen


def _hide(codes: Tensor, rate: float) -> Tensor:
    # Nothing is drawn at a rate of 0.
    if not rate:
        return codes
    return codes.masked_fill(torch.rand(codes.shape, device=codes.device) < rate, 0)


MAX_JOINED = 1 << 16
"""Embedding tables of at most so many numbers in all are joined for each batch."""


class Embeddings(nn.Module):
    """Look up one vector per column and concatenate them.

    Takes int64 [n, c]; returns float32 [n, sum of the dims]. In training each cell becomes 0, the
    code of unseen categories, with probability `unseen_rate`, so that its embedding is learned.
    """

    begins: Tensor

    def __init__(self, sizes: Sequence[int], dims: Sequence[int], unseen_rate: float) -> None:
        super().__init__()
        pairs = zip(sizes, dims, strict=True)
        self.tables = nn.ModuleList(nn.Embedding(size, dim) for size, dim in pairs)
        self.unseen_rate = unseen_rate
        alike = len(sizes) > 1 and len(set(dims)) == 1
        self.joined = alike and sum(sizes) * dims[0] <= MAX_JOINED
        begins = torch.tensor([0, *accumulate(sizes[:-1])])
        self.register_buffer("begins", begins, persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        codes = _hide(codes, self.unseen_rate if self.training else 0.0)
        hooked = any(table._forward_hooks for table in self.tables)
        if self.training and self.joined and not hooked:
            # One lookup in all tables takes half the time of one in each, to the same bits, but
            # hooks on the tables would see nothing of it.
            joined = torch.cat(list(self.tables.parameters()))
            return F.embedding(codes + self.begins, joined).flatten(1)
        vectors = [table(code) for table, code in zip(self.tables, codes.unbind(1), strict=True)]
        return torch.cat(vectors, dim=1)


class OneHot(nn.Module):
    """Encode each category as one number: int64 [n, c] to float32 [n, sum of sizes]."""

    def __init__(self, sizes: Sequence[int], unseen_rate: float) -> None:
        super().__init__()
        self.sizes, self.unseen_rate = sizes, unseen_rate

    def forward(self, codes: Tensor) -> Tensor:
        codes = _hide(codes, self.unseen_rate if self.training else 0.0)
        pairs = zip(codes.unbind(1), self.sizes, strict=True)
        return torch.cat([F.one_hot(code, size) for code, size in pairs], dim=1).float()
