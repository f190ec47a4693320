"""Words: an embedding for each that training knows, and one for all others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from attrs import field, frozen
from attrs.validators import ge, gt, le, lt, min_len, optional
from torch import Tensor, nn

from mip.branch import Facts, names
from mip.layers import Embeddings
from mip.statistics import places, words
from mip.table import Rows, Table


@frozen
class Categorical:
    """Words: an embedding per column; 0 is the bucket of the unseen, the rare and the missing.

    `width` is each embedding's (default: min(50, round(1.6 * categories ** 0.56))); values with
    fewer than `least` training rows are rare; `unseen` is the share of cells that training
    shows as unseen, so that the bucket is learned.

    >>> import pandas as pd; from mip.table import from_frame
    >>> rows = from_frame(pd.DataFrame({"zip": ["85255", "36372", "85255"]}))
    >>> kind = Categorical(["zip"]); facts = kind.adapt(rows)
    >>> facts
    {'words': [['36372', '85255']]}
    >>> kind.encode(facts, from_frame(pd.DataFrame({"zip": [85255, 99999]}))).tolist()
    [[2], [0]]
    """

    columns: tuple[str, ...] = field(converter=names, validator=min_len(1))
    width: int | None = field(default=None, validator=optional([gt(0), le(4096)]))
    least: int = field(default=1, validator=ge(1))
    unseen: float = field(default=0.05, validator=[ge(0), lt(1)])

    def adapt(self, rows: Rows) -> Facts:
        """Give the sorted words of each column that stand in at least `least` rows."""
        return {"words": [self._words(words(rows, column)) for column in self.columns]}

    def _words(self, counts: Mapping[str, int]) -> list[str]:
        return sorted(word for word, count in counts.items() if count >= self.least)

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Give int64 [n, columns]: 1 + place in the vocabulary, or 0."""
        pairs = zip(self.columns, facts["words"], strict=True)
        codes = [places(rows, column, known) for column, known in pairs]
        return torch.from_numpy(np.stack(codes, axis=1) + 1)

    def module(self, facts: Facts) -> nn.Module:
        """Give float32 [n, sum of the embedding widths]."""
        sizes = [1 + len(words) for words in facts["words"]]
        widths = [self.width or min(50, round(1.6 * size**0.56)) for size in sizes]
        return Embeddings(sizes, widths, self.unseen)

    def unknown(self, facts: Facts, rows: Table) -> Iterator[tuple[str, list[str]]]:
        """Give (column, words) for every column with words that training did not see."""
        for column, known in zip(self.columns, facts["words"], strict=True):
            fresh = sorted(words(rows, column).keys() - set(known))
            if fresh:
                yield column, fresh
