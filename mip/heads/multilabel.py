"""Any number of several labels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from itertools import compress
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor

from mip.branches import Facts, layer_sizes_field
from mip.data import ColumnFormat, Rows, Table, content_key, is_list
from mip.errors import DataError, MipWarning, hint, quote
from mip.heads.fields import (
    Missing,
    activation_field,
    batch_norm_field,
    dropout_field,
    members_field,
    missing_field,
)
from mip.heads.losses import Criterion, check_shapes
from mip.heads.targets import classes
from mip.metrics import auc, f1
from mip.nn import Activation, BatchNorm

SEPARATORS = frozenset(",|/")
"""What stands between labels in tables of others, and may be part of a label here."""


@frozen
class Multilabel:
    """Any number of several labels: a column whose cells are lists of words, or words separated by
    ";". An empty list has none of the labels; an empty cell is a missing target, and so is one
    whose labels are all left out (`na_values` of its column).

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
    layers: tuple[int, ...] = layer_sizes_field()
    activation: Activation = activation_field()
    batch_norm: BatchNorm = batch_norm_field()
    dropout: float = dropout_field()
    members: int = members_field()
    missing: Missing = missing_field()

    def known(self, rows: Table) -> np.ndarray:
        """Return which rows have a target: bool [n]."""
        known = np.zeros(len(rows), dtype=bool)
        known[[row for row, _ in self.labels(rows)]] = True
        return known

    def adapt(self, rows: Rows) -> Facts:
        """Find the labels, sorted. Raises DataError if there is none; a MipWarning names a label
        that seems to be several, if no cell has several.
        """
        labels, most = set[str](), 0
        for chunk in rows.chunks([self.column]):
            for _, words in self.labels(chunk):
                labels.update(words)
                most = max(most, len(words))
        if not labels:
            raise DataError(f"{rows.name}: column '{self.column}' has no label")
        joined = sorted(label for label in labels if set(label) & SEPARATORS)
        if joined and most == 1:
            cure = f"set data.columns.{self.column}.sep if it is several"
            text = f"column '{self.column}': {quote(joined[0])} is one label; {cure}"
            warnings.warn(f"{rows.name}: {text}", MipWarning, stacklevel=2)
        return {"classes": sorted(labels)}

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Return float32 [n, labels]: 1 for each label that a row has, 0 for the others, NaN if the
        target is missing.

        Raises DataError for a label that no training row has.
        """
        index = {word: k for k, word in enumerate(facts["classes"])}
        path = f"data.columns.{self.column}"
        target = torch.full((len(rows), len(index)), torch.nan)
        for row, words in self.labels(rows):
            for word in words:
                if word not in index:
                    raise DataError(
                        f"{rows.cell_name(row, self.column)}: {quote(word)} is not a label of "
                        f"the training rows{hint(word, index)}; leave it out ({path}.na_values), "
                        f"or merge it with another ({path}.merge), or train on some of its rows: "
                        "where rows are drawn, by another data.split.seed"
                    )
            target[row] = 0
            target[row, [index[word] for word in words]] = 1
        return target

    def labels(self, rows: Table) -> Iterator[tuple[int, list[str]]]:
        """Yield the position and the labels of each row that has a target."""
        cells, form = rows.cells(self.column), rows.formats.get(self.column, ColumnFormat())
        for row in np.flatnonzero(classes.known(self, rows)).tolist():
            labels = _split(cells[row])
            kept = [*filter(None, map(form.label, labels))]
            if kept or not labels:
                yield row, kept

    def outputs(self, facts: Facts) -> int:
        """Return the number of labels: logits are [n, labels]."""
        return len(facts["classes"])

    def criterion(self, facts: Facts) -> Criterion:
        """Return the binary cross-entropy of logits, averaged over rows and labels."""
        return check_shapes(F.binary_cross_entropy_with_logits)

    def decode(self, facts: Facts, logits: Tensor) -> dict[str, np.ndarray]:
        """Return `label`, those more probable than not joined by ";", and `p_<label>` for each."""
        likely = (logits > 0).tolist()
        labels = [";".join(compress(facts["classes"], row)) for row in likely]
        probabilities = logits.double().sigmoid().numpy()
        columns = classes.probability_columns(facts["classes"], probabilities)
        return {"label": np.array(labels, dtype=object), **columns}

    def logits(self, facts: Facts, columns: Mapping[str, np.ndarray]) -> Tensor:
        """Return the logits, float64 [n, labels], that decode to these columns."""
        probabilities = classes.stack_probabilities(facts["classes"], columns)
        return probabilities.logit(eps=classes.MIN_PROB)

    def metrics(self, facts: Facts, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Compute accuracy (all labels of a row right), f1 over all labels together (micro; NaN if
        no row has a label and none is predicted), and auc, averaged over the labels that some rows
        have and some have not (NaN if there is no such label).
        """
        pred, truth = logits > 0, target > 0.5
        areas = [auc(logits[:, k], truth[:, k].long()) for k in range(target.shape[1])]
        defined = [area for area in areas if not np.isnan(area)]
        return {
            "accuracy": float((pred == truth).all(dim=1).double().mean()),
            "f1": f1(pred.flatten(), truth.flatten()),
            "auc": float(np.mean(defined)) if defined else float("nan"),
        }


def _split(cell: Any) -> list[str]:
    words = [content_key(word) for word in (cell if is_list(cell) else [cell]) if word is not None]
    labels = [label.strip() for word in words for label in word.split(";")]
    return [label for label in labels if label]
