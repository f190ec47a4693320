"""One of two classes, or of several."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from attrs import field, frozen
from attrs.validators import ge, in_, lt
from torch import Tensor

from mip.branches import Facts, widths
from mip.data import Rows, Table, label, places, words
from mip.errors import DataError, hint, shown
from mip.heads.protocol import Criterion, checked, dropout_field, members_field, missing_field, wide

ClassWeight = Literal["none", "balanced"]


SURE = 1e-16
"""The chance, and the distance from 1, that counts as none where logits are made of chances."""


def codes_of(rows: Table, column: str, classes: list[str]) -> np.ndarray:
    """Give each row's class by its place, int64 [n], -1 for none.

    Raises DataError naming the rows whose word is not a class.
    """
    codes = places(rows, column, classes)
    if (codes >= 0).all():
        return codes
    cells = rows.texts(column)
    strange = np.flatnonzero((codes < 0) & (cells != "")).tolist()
    if strange:
        where = rows.where(strange[0], column)
        named = ", ".join(map(label, rows.labels[strange[:8]].tolist()))
        more = f" ({len(strange)} rows: {named}{', …' * (len(strange) > 8)})" * (len(strange) > 1)
        word = cells[strange[0]]
        told = f"{shown(word)} is not a class of the training rows{more}{hint(word, classes)}"
        cure = f"leave such rows out, or train with some (data.split.stratify = '{column}')"
        raise DataError(f"{where}: {told}; {cure}")
    return codes


def balanced(counts: Counter[str], classes: list[str]) -> list[float]:
    """Weigh classes so that each counts alike and a row counts 1 on average: n / (k * count),
    of n rows and k classes (King and Zeng 2001).

    >>> balanced(Counter({"cat": 3, "dog": 1}), ["cat", "dog"])
    [0.6666666666666666, 2.0]
    """
    return [counts.total() / (len(classes) * counts[word]) for word in classes]


def weighed(
    log_chances: Tensor, target: Tensor, weights: list[float], focal: float, smoothing: float
) -> Tensor:
    """Give the mean cross-entropy between log probabilities and probabilities, both [n, k].

    Each class has a weight (1 where none are given), and its surprise counts (1 - p) ** `focal`
    (Lin et al. 2017); the target gives `smoothing` of itself to all classes alike (Szegedy et
    al. 2016). The mean is over rows, not weights, so that a row's part in it is its own.

    >>> chances = torch.tensor([[0.75, 0.25]]).log()
    >>> weighed(chances, torch.tensor([[1.0, 0.0]]), [], focal=2.0, smoothing=0.0)
    tensor(0.0180)
    """
    smooth = (1 - smoothing) * target + smoothing / target.shape[1]
    surprise = -log_chances * (log_chances.new_tensor(weights) if weights else 1.0)
    if focal:
        # Of a chance of 1 a power below 1 has no slope, which would be NaN.
        surprise = surprise * (-log_chances.expm1()).clamp_min(1e-30) ** focal
    return (smooth * surprise).sum(dim=1).mean()


def _of_one(logits: Tensor, target: Tensor, loss: Criterion) -> Tensor:
    log_chances = F.logsigmoid(torch.stack([-logits, logits], dim=1))
    return loss(log_chances, torch.stack([1 - target, target], dim=1))


def _of_several(logits: Tensor, target: Tensor, loss: Criterion) -> Tensor:
    soft = target if target.dim() == 2 else F.one_hot(target, logits.shape[1])
    return loss(logits.log_softmax(dim=1), soft.to(logits.dtype))


def class_weight_field() -> Any:
    """Declare whether classes are weighed: "balanced" makes rare ones count as much as others."""
    return field(default="none", validator=in_(("none", "balanced")))


def focal_gamma_field() -> Any:
    """Declare gamma of the focal loss: how little a row counts that is already right."""
    return field(default=0.0, validator=[ge(0), lt(math.inf)])


def label_smoothing_field() -> Any:
    """Declare the share of each target that goes to all classes alike."""
    return field(default=0.0, validator=[ge(0), lt(1)])


@frozen
class Binary:
    """One of two classes; the positive one is `pos_label`, or the later in sorted order.
    The options of the loss are those of `weighed`.

    >>> from mip.data import from_columns
    >>> rows = from_columns({"sold": ["yes", "no", "no", ""]})
    >>> head = Binary("sold", class_weight="balanced"); facts = head.adapt(rows)
    >>> facts
    {'classes': ['no', 'yes'], 'weights': [0.75, 1.5]}
    >>> head.encode(facts, rows).tolist()
    [1.0, 0.0, 0.0, nan]
    >>> head.decode(facts, torch.tensor([0.0, 9.0]))["label"].tolist()
    ['no', 'yes']
    """

    kind = "binary"
    column: str
    pos_label: str | None = None
    class_weight: ClassWeight = class_weight_field()
    focal_gamma: float = focal_gamma_field()
    label_smoothing: float = label_smoothing_field()
    layers: tuple[int, ...] = widths()
    dropout: float = dropout_field()
    members: int = members_field()
    missing: Literal["drop", "error"] = missing_field()

    def adapt(self, rows: Rows) -> Facts:
        """Give the two classes, the positive one last, and their weights where these are asked."""
        counts = words(rows, self.column)
        classes = sorted(counts)
        if len(classes) != 2:
            named = ", ".join(shown(word)[1:-1] for word in classes[:5])
            found = f"{len(classes)} values ({named})"
            raise DataError(f"{rows.name}: column '{self.column}' has {found}, and binary needs 2")
        if self.pos_label is not None and self.pos_label not in classes:
            known = hint(self.pos_label, classes)
            raise DataError(
                f"{rows.name}: '{self.pos_label}' is no value of '{self.column}'{known}"
            )
        classes = sorted(classes, key=lambda word: (word == self.pos_label, word))
        return _facts(classes, counts, self.class_weight)

    def known(self, rows: Table) -> np.ndarray:
        """Say which rows have a word: bool [n]."""
        return rows.texts(self.column) != ""

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Give float32 [n]: 1 for the positive class, 0 for the other, NaN for none."""
        codes = codes_of(rows, self.column, facts["classes"])
        return torch.from_numpy(np.where(codes < 0, np.nan, codes).astype(np.float32))

    def outputs(self, facts: Facts) -> int | None:
        """Give None: logits are [n]."""
        return None

    def criterion(self, facts: Facts) -> Criterion:
        """Give the binary cross-entropy on logits, by default torch's own."""
        loss = _changed(self, facts)
        return checked(partial(_of_one, loss=loss) if loss else F.binary_cross_entropy_with_logits)

    def decode(self, facts: Facts, logits: Tensor) -> dict[str, np.ndarray]:
        """Give `label` and a probability per class, `p_<class>`."""
        positive = logits.double().sigmoid().numpy()
        return labelled(facts["classes"], np.stack([1 - positive, positive], axis=1))

    def logits(self, facts: Facts, columns: Mapping[str, np.ndarray]) -> Tensor:
        """Give the logits, float64 [n], that decode to these columns."""
        return chances_of(facts["classes"], columns)[:, 1].logit(eps=SURE)

    def metrics(self, facts: Facts, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Compute accuracy at 0.5, auc (NaN if one class alone is present) and, unless it is the
        loss, log_loss.
        """
        return {
            "accuracy": float(((logits > 0) == (target > 0.5)).double().mean()),
            "auc": auc(logits, target.long()),
            **({"log_loss": log_loss(logits, target)} if _changed(self, facts) else {}),
        }


@frozen
class Multiclass:
    """One of several classes. The options of the loss are those of `weighed`.

    >>> from mip.data import from_columns
    >>> rows = from_columns({"style": ["loft", "flat", ""]})
    >>> head = Multiclass("style", label_smoothing=0.1); facts = head.adapt(rows)
    >>> head.encode(facts, rows).tolist()
    [1, 0, -1]
    >>> round(head.criterion(facts)(torch.tensor([[0.0, 9.0]]), torch.tensor([1])).item(), 3)
    0.45
    """

    kind = "multiclass"
    column: str
    class_weight: ClassWeight = class_weight_field()
    focal_gamma: float = focal_gamma_field()
    label_smoothing: float = label_smoothing_field()
    layers: tuple[int, ...] = widths()
    dropout: float = dropout_field()
    members: int = members_field()
    missing: Literal["drop", "error"] = missing_field()

    def adapt(self, rows: Rows) -> Facts:
        """Give the sorted classes, and their weights where these are asked."""
        counts = words(rows, self.column)
        classes = sorted(counts)
        if len(classes) < 2:
            raise DataError(f"{rows.name}: column '{self.column}' has {len(classes)} class")
        return _facts(classes, counts, self.class_weight)

    def known(self, rows: Table) -> np.ndarray:
        """Say which rows have a word: bool [n]."""
        return rows.texts(self.column) != ""

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Give int64 [n]: the class's place, -1 for none."""
        return torch.from_numpy(codes_of(rows, self.column, facts["classes"]))

    def outputs(self, facts: Facts) -> int | None:
        """Give the number of classes: logits are [n, classes]."""
        return len(facts["classes"])

    def criterion(self, facts: Facts) -> Criterion:
        """Give the cross-entropy on logits, by default torch's own."""
        loss = _changed(self, facts)
        chosen = partial(_of_several, loss=loss) if loss else F.cross_entropy
        return wide(chosen, len(facts["classes"]))

    def decode(self, facts: Facts, logits: Tensor) -> dict[str, np.ndarray]:
        """Give `label` and a probability per class, `p_<class>`."""
        return labelled(facts["classes"], logits.double().softmax(dim=1).numpy())

    def logits(self, facts: Facts, columns: Mapping[str, np.ndarray]) -> Tensor:
        """Give the logits, float64 [n, classes], that decode to these columns."""
        return chances_of(facts["classes"], columns).clamp_min(SURE).log()

    def metrics(self, facts: Facts, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Compute accuracy, top2 and top5 if there are more classes, auc (one class against the
        rest, averaged over the classes present; NaN if there is only one) and, unless it is the
        loss, log_loss.
        """
        rank = (logits > logits.gather(1, target[:, None])).sum(dim=1)
        tops = [k for k in (2, 5) if k < logits.shape[1]]
        chances = logits.double().softmax(dim=1)
        areas = [auc(chances[:, k], (target == k).long()) for k in target.unique()]
        return {
            "accuracy": float((logits.argmax(dim=1) == target).double().mean()),
            **{f"top{k}": float((rank < k).double().mean()) for k in tops},
            "auc": float(np.mean(areas)),
            **({"log_loss": log_loss(logits, target)} if _changed(self, facts) else {}),
        }


def log_loss(logits: Tensor, target: Tensor) -> float:
    """Compute the mean negative log-likelihood (natural logarithm) of classes, as 0 and 1 of
    logits [n], as int64 [n] of logits [n, k].

    >>> round(log_loss(torch.zeros(2), torch.tensor([0.0, 1.0])), 4)
    0.6931
    """
    if logits.dim() == 1:
        return float(F.binary_cross_entropy_with_logits(logits.double(), target.double()))
    return float(F.cross_entropy(logits.double(), target))


def auc(score: Tensor, target: Tensor) -> float:
    """Give the area under the ROC curve of scores [n] against 0 and 1, int64 [n]: the share of
    pairs of a 0 and a 1 in which the 1 has the higher score, where equal ones count one half. NaN
    where the target is one class alone.

    >>> auc(torch.tensor([1.0, 3.0, 2.0]), torch.tensor([0, 1, 0]))
    1.0
    """
    positive, negative = int((target == 1).sum()), int((target == 0).sum())
    if not positive or not negative:
        return math.nan
    _, place, count = score.unique(return_inverse=True, return_counts=True)
    rank = count.cumsum(0) - (count.double() - 1) / 2  # from 1; equal scores share their mean rank
    above = rank[place[target == 1]].sum() - positive * (positive + 1) / 2
    return float(above / (positive * negative))


def labelled(classes: list[str], chances: np.ndarray) -> dict[str, np.ndarray]:
    """Give the likeliest of the classes as `label`, and their chances [n, k] as `p_<class>`.

    >>> labelled(["a", "b"], np.array([[0.25, 0.75]]))["label"].tolist()
    ['b']
    """
    label = np.array(classes, dtype=object)[chances.argmax(axis=1)]
    return {"label": label, **named(classes, chances)}


def named(classes: list[str], chances: np.ndarray) -> dict[str, np.ndarray]:
    """Give the chances of classes, float64 [n, k], as columns `p_<class>`."""
    return {f"p_{word}": chances[:, k] for k, word in enumerate(classes)}


def chances_of(classes: list[str], columns: Mapping[str, np.ndarray]) -> Tensor:
    """Give the chances float64 [n, k] of the columns that `named` makes of them."""
    return torch.from_numpy(np.stack([columns[f"p_{word}"] for word in classes], axis=1))


def _facts(classes: list[str], counts: Counter[str], weights: ClassWeight) -> Facts:
    more = {"weights": balanced(counts, classes)} if weights == "balanced" else {}
    return {"classes": classes, **more}


def _changed(head: Binary | Multiclass, facts: Facts) -> Criterion | None:
    weights = facts.get("weights", [])
    if not (weights or head.focal_gamma or head.label_smoothing):
        return None
    return partial(weighed, weights=weights, focal=head.focal_gamma, smoothing=head.label_smoothing)
