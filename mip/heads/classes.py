"""One of two classes, or of several."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor

from mip.branch import Facts
from mip.errors import DataError, hint
from mip.head import Criterion, checked, dropout_field, layers_field, missing_field
from mip.statistics import places, words
from mip.table import Rows, Table


def _codes(rows: Table, column: str, classes: list[str]) -> np.ndarray:
    codes = places(rows, column, classes)
    if (codes >= 0).all():
        return codes
    cells = rows.texts(column)
    strange = np.flatnonzero((codes < 0) & (cells != "")).tolist()
    if strange:
        where = rows.where(strange[0], column)
        shown = ", ".join(map(str, rows.rows[strange[:8]].tolist()))
        more = f" ({len(strange)} rows: {shown}{', …' * (len(strange) > 8)})" * (len(strange) > 1)
        word = cells[strange[0]]
        raise DataError(
            f"{where}: '{word}' is not a class of the training rows{more}{hint(word, classes)}"
        )
    return codes


@frozen
class Binary:
    """One of two classes; the positive one is `positive`, or the later in sorted order."""

    column: str
    positive: str | None = None
    layers: tuple[int, ...] = layers_field()
    dropout: float = dropout_field()
    missing: Literal["drop", "error"] = missing_field()

    def adapt(self, rows: Rows) -> Facts:
        """Give the two classes, the positive one last."""
        classes = sorted(words(rows, self.column))
        if len(classes) != 2:
            found = f"{len(classes)} values ({', '.join(classes[:5])})"
            raise DataError(f"{rows.name}: column '{self.column}' has {found}, and binary needs 2")
        if self.positive is not None and self.positive not in classes:
            known = hint(self.positive, classes)
            raise DataError(f"{rows.name}: '{self.positive}' is no value of '{self.column}'{known}")
        return {"classes": sorted(classes, key=lambda word: (word == self.positive, word))}

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Give float32 [n]: 1 for the positive class, 0 for the other, NaN for none."""
        codes = _codes(rows, self.column, facts["classes"])
        return torch.from_numpy(np.where(codes < 0, np.nan, codes).astype(np.float32))

    def outputs(self, facts: Facts) -> int | None:
        """Give None: logits are [n]."""
        return None

    def criterion(self, facts: Facts) -> Criterion:
        """Give the binary cross-entropy on logits."""
        return checked(F.binary_cross_entropy_with_logits)

    def decode(self, facts: Facts, logits: Tensor) -> dict[str, np.ndarray]:
        """Give `label` and a probability per class, `p_<class>`."""
        positive = logits.double().sigmoid().numpy()
        return _labelled(facts["classes"], np.stack([1 - positive, positive], axis=1))

    def metrics(self, facts: Facts, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Give accuracy at one half, auc, and log_loss (natural logarithm)."""
        import torchmetrics.functional as tm

        return {
            "accuracy": float(((logits > 0) == (target > 0.5)).double().mean()),
            "auc": _auc(tm, logits, target.long()),
            "log_loss": float(F.binary_cross_entropy_with_logits(logits.double(), target.double())),
        }


@frozen
class Multiclass:
    """One of several classes."""

    column: str
    layers: tuple[int, ...] = layers_field()
    dropout: float = dropout_field()
    missing: Literal["drop", "error"] = missing_field()

    def adapt(self, rows: Rows) -> Facts:
        """Give the sorted classes."""
        classes = sorted(words(rows, self.column))
        if len(classes) < 2:
            raise DataError(f"{rows.name}: column '{self.column}' has {len(classes)} class")
        return {"classes": classes}

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Give int64 [n]: the class's place, -1 for none."""
        return torch.from_numpy(_codes(rows, self.column, facts["classes"]))

    def outputs(self, facts: Facts) -> int | None:
        """Give the number of classes: logits are [n, classes]."""
        return len(facts["classes"])

    def criterion(self, facts: Facts) -> Criterion:
        """Give the cross-entropy on logits."""
        return F.cross_entropy

    def decode(self, facts: Facts, logits: Tensor) -> dict[str, np.ndarray]:
        """Give `label` and a probability per class, `p_<class>`."""
        return _labelled(facts["classes"], logits.double().softmax(dim=1).numpy())

    def metrics(self, facts: Facts, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Give accuracy, top2 and top5 where there are more classes, auc (each class against
        the rest, averaged over the classes present), and log_loss (natural logarithm).
        """
        import torchmetrics.functional as tm

        rank = (logits > logits.gather(1, target[:, None])).sum(dim=1)
        tops = [k for k in (2, 5) if k < logits.shape[1]]
        chances = logits.double().softmax(dim=1)
        areas = [_auc(tm, chances[:, k], (target == k).long()) for k in target.unique()]
        return {
            "accuracy": float((logits.argmax(dim=1) == target).double().mean()),
            **{f"top{k}": float((rank < k).double().mean()) for k in tops},
            "auc": float(np.mean(areas)),
            "log_loss": float(F.cross_entropy(logits.double(), target)),
        }


def _auc(tm: Any, score: Tensor, target: Tensor) -> float:
    if len(target.unique()) < 2:
        return float("nan")  # with one class alone the area is not defined
    # By rank, because torchmetrics squashes logits to float32, where near ones would tie.
    rank = score.unique(return_inverse=True)[1].double()
    return float(tm.auroc(rank / len(rank), target, task="binary"))


def _labelled(classes: list[str], chances: np.ndarray) -> dict[str, np.ndarray]:
    label = np.array(classes, dtype=object)[chances.argmax(axis=1)]
    return {"label": label, **{f"p_{word}": chances[:, k] for k, word in enumerate(classes)}}
