"""Any number of several labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import compress
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor

from mip.branches import Facts, widths
from mip.data import Rows, Table, content, is_list
from mip.errors import DataError, hint, shown
from mip.heads.classes import SURE, auc, chances_of, named
from mip.heads.protocol import Criterion, checked, dropout_field, members_field, missing_field


@frozen
class Multilabel:
    """Any number of several labels, one column whose cells are lists of words, or words that
    ";" divides. An empty list has none of the labels; an empty cell is a missing target.

    >>> from mip.data import from_columns
    >>> rows = from_columns({"tags": ["sea; sun", ["sun"], [], ""]})
    >>> head = Multilabel("tags"); facts = head.adapt(rows)
    >>> facts
    {'classes': ['sea', 'sun']}
    >>> head.encode(facts, rows).tolist()
    [[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [nan, nan]]
    >>> head.decode(facts, torch.tensor([[9.0, 9.0], [-9.0, -9.0]]))["label"].tolist()
    ['sea;sun', '']
    """

    kind = "multilabel"
    column: str
    layers: tuple[int, ...] = widths()
    dropout: float = dropout_field()
    members: int = members_field()
    missing: Literal["drop", "error"] = missing_field()

    def adapt(self, rows: Rows) -> Facts:
        """Give the sorted labels. Raises DataError where there is none."""
        chunks = rows.chunks([self.column])
        classes = {word for chunk in chunks for _, cell in self._known(chunk) for word in cell}
        if not classes:
            raise DataError(f"{rows.name}: column '{self.column}' has no label")
        return {"classes": sorted(classes)}

    def _known(self, rows: Table) -> Iterator[tuple[int, list[str]]]:
        texts = rows.texts(self.column)
        for place, cell in enumerate(rows.cells(self.column)):
            if texts[place]:
                yield place, _split(cell)

    def known(self, rows: Table) -> np.ndarray:
        """Say which rows have a word: bool [n]."""
        return rows.texts(self.column) != ""

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Give float32 [n, labels]: 1 for each that a row has, else 0; NaN for a missing target.

        Raises DataError for a label that is not one of the training rows.
        """
        at = {word: k for k, word in enumerate(facts["classes"])}
        target = torch.full((len(rows), len(at)), torch.nan)
        for place, cell in self._known(rows):
            for word in cell:
                if word not in at:
                    told = f"{shown(word)} is not a label of the training rows{hint(word, at)}"
                    cure = "leave such rows out, or train with some (another data.split.seed)"
                    raise DataError(f"{rows.where(place, self.column)}: {told}; {cure}")
            target[place] = 0
            target[place, [at[word] for word in cell]] = 1
        return target

    def outputs(self, facts: Facts) -> int | None:
        """Give the number of labels: logits are [n, labels]."""
        return len(facts["classes"])

    def criterion(self, facts: Facts) -> Criterion:
        """Give the binary cross-entropy on logits, averaged over rows and labels."""
        return checked(F.binary_cross_entropy_with_logits)

    def decode(self, facts: Facts, logits: Tensor) -> dict[str, np.ndarray]:
        """Give `label`, those likelier than not, divided by ";", and `p_<label>` for each."""
        classes, likely = facts["classes"], (logits > 0).tolist()
        labels = [";".join(compress(classes, row)) for row in likely]
        chances = named(classes, logits.double().sigmoid().numpy())
        return {"label": np.array(labels, dtype=object), **chances}

    def logits(self, facts: Facts, columns: Mapping[str, np.ndarray]) -> Tensor:
        """Give the logits, float64 [n, labels], that decode to these columns."""
        return chances_of(facts["classes"], columns).logit(eps=SURE)

    def metrics(self, facts: Facts, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Give accuracy (all labels of a row right), f1 over all labels together (micro; NaN where
        no row has a label and none is predicted), and auc, averaged over the labels that some rows
        have and some have not (NaN where there is none of those).
        """
        guess, truth = logits > 0, target > 0.5
        areas = [auc(logits[:, k], truth[:, k].long()) for k in range(target.shape[1])]
        known = [area for area in areas if not np.isnan(area)]
        right, told = (guess & truth).sum(), guess.sum() + truth.sum()
        return {
            "accuracy": float((guess == truth).all(dim=1).double().mean()),
            "f1": float(2 * right.double() / told),
            "auc": float(np.mean(known)) if known else float("nan"),
        }


def _split(cell: Any) -> list[str]:
    words = [content(word) for word in (cell if is_list(cell) else [cell]) if word is not None]
    parts = [part.strip() for word in words for part in word.split(";")]
    return [part for part in parts if part]
