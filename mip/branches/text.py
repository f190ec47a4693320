"""Free text: hashed n-grams of words and letters; nothing is downloaded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from zlib import crc32

import torch
from attrs import field, frozen
from attrs.validators import ge, gt, le
from torch import Tensor, nn

from mip.branches.protocol import Facts, column_names, dropout_field, layers_field, with_layers
from mip.data import Rows, Table
from mip.fields import MinLength, choice
from mip.nn import Activation, BatchNorm, Function

_WORD = re.compile(r"\w+")


@frozen
class Text:
    """Free text: the mean over a cell of the embeddings of its n-grams.

    These are all runs of 1 to `word_ngrams` words and, unless `char_ngrams` is 0, of `char_ngrams`
    letters within a word. N-grams share `buckets` embeddings of `embedding_dim` numbers by their
    hash, so no word is unknown (Weinberger et al. 2009; Joulin et al. 2017). Only the first
    `max_length` n-grams of a cell count. `layers` follow as in a fusion.

    >>> from mip.data import from_columns
    >>> branch = Text(["note"], word_ngrams=2, max_length=4)
    >>> branch.encode({}, from_columns({"note": ["Two rooms, bright", ""]}))
    tensor([[[2663, 2711, 3580, 2640]],
    <BLANKLINE>
            [[   0,    0,    0,    0]]])
    """

    kind = "text"
    columns: tuple[str, ...] = field(converter=column_names, validator=MinLength(1))
    word_ngrams: int = field(default=2, validator=[ge(1), le(8)])
    char_ngrams: int = field(default=0, validator=[ge(0), le(8)])
    buckets: int = field(default=4096, validator=[gt(1), le(1 << 24)])
    embedding_dim: int = field(default=32, validator=[gt(0), le(4096)])
    max_length: int = field(default=128, validator=[gt(0), le(65_536)])
    layers: tuple[int | Function, ...] = layers_field()
    activation: Activation = choice("relu", kw_only=True)
    batch_norm: BatchNorm = choice("none", kw_only=True)
    dropout: float = dropout_field()

    def adapt(self, table: Rows) -> Facts:
        """Return no facts: hashing needs no vocabulary."""
        return {}

    def encode(self, facts: Facts, table: Table) -> Tensor:
        """Return int64 [n, columns, max_length]: buckets from 1 on, 0 past the last."""
        codes = torch.zeros(len(table), len(self.columns), self.max_length, dtype=torch.int64)
        for j, column in enumerate(self.columns):
            for i, cell in enumerate(table.texts(column)):
                buckets = [self._bucket(ngram) for ngram in self._ngrams(cell)][: self.max_length]
                codes[i, j, : len(buckets)] = torch.tensor(buckets, dtype=torch.int64)
        return codes

    def _ngrams(self, cell: str) -> Iterator[str]:
        words = _WORD.findall(cell.lower())
        for size in range(1, self.word_ngrams + 1):
            yield from map(" ".join, zip(*(words[k:] for k in range(size)), strict=False))
        if self.char_ngrams:
            for word in words:
                marked, n = f"<{word}>", self.char_ngrams
                yield from (marked[k : k + n] for k in range(len(marked) - n + 1))

    def _bucket(self, ngram: str) -> int:
        return 1 + crc32(ngram.encode(errors="surrogatepass")) % self.buckets

    def absent(self, inputs: Tensor) -> Tensor:
        """Mark the rows without any word: bool [n]."""
        return (inputs == 0).flatten(1).all(dim=1)

    def module(self, facts: Facts) -> nn.Module:
        """Build a module to float32 [n, columns * embedding_dim], with zeros for empty cells; with
        `layers` to [n, the last of them].
        """
        return with_layers(Bags(self.buckets, self.embedding_dim), self)


class Bags(nn.Module):
    """Average the embeddings of bags: int64 [n, c, l], 0 for none, to float32 [n, c * dim]."""

    def __init__(self, buckets: int, dim: int) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(1 + buckets, dim, mode="mean", padding_idx=0)

    def forward(self, codes: Tensor) -> Tensor:
        return self.table(codes.flatten(0, 1)).unflatten(0, codes.shape[:2]).flatten(1)
