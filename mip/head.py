"""Heads: what a model says. A frozen class per kind: target, loss, decoding and metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from attrs import field, frozen
from attrs.validators import ge, in_, lt
from torch import Tensor

from mip.branch import Facts, positive
from mip.errors import DataError, hint
from mip.statistics import moments, places, words
from mip.table import Rows, Table

Criterion = Callable[[Tensor, Tensor], Tensor]
"""(logits, target) of n rows to a mean loss, a tensor of no dimensions."""


class Head(Protocol):
    """The verbs of a head. Any frozen attrs class that has them is a kind.

    It also has the fields `column`; `layers` and `dropout`, for the layers between the branches
    and the logits; and `missing`, for rows without a target.
    """

    @property
    def column(self) -> str: ...
    @property
    def layers(self) -> tuple[int, ...]: ...
    @property
    def dropout(self) -> float: ...
    @property
    def missing(self) -> Literal["drop", "error"]: ...

    def adapt(self, rows: Rows) -> Facts:
        """Learn from training rows what the target means; JSON-able."""
        ...

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Turn the target column into a tensor [n]; NaN or -1 where it is missing."""
        ...

    def outputs(self, facts: Facts) -> int | None:
        """Say how many logits a row gets; None for one without a dimension of its own."""
        ...

    def criterion(self, facts: Facts) -> Criterion:
        """Give the loss."""
        ...

    def decode(self, facts: Facts, logits: Tensor) -> dict[str, np.ndarray]:
        """Turn logits into columns of predictions."""
        ...

    def metrics(self, facts: Facts, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Score all rows of a split at once."""
        ...


def checked(loss: Callable[..., Tensor]) -> Criterion:
    """Refuse a loss between a prediction and a target that would broadcast.

    >>> checked(F.mse_loss)(torch.zeros(3, 1), torch.zeros(3))
    Traceback (most recent call last):
    mip.errors.DataError: a loss between shapes (3, 1) and (3,) would broadcast
    """

    def criterion(logits: Tensor, target: Tensor) -> Tensor:
        if logits.shape != target.shape:
            shapes = f"{tuple(logits.shape)} and {tuple(target.shape)}"
            raise DataError(f"a loss between shapes {shapes} would broadcast")
        return loss(logits, target)

    return criterion


LOSSES = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.smooth_l1_loss}


def _layers() -> Any:
    return field(default=(), converter=tuple, validator=lambda _, __, widths: positive(widths))


def _dropout() -> Any:
    return field(default=0.0, validator=[ge(0), lt(1)])


def _missing() -> Any:
    return field(default="drop", validator=in_(("drop", "error")))


@frozen
class Regression:
    """One number. The target is standardised, after a logarithm for scale "log".

    >>> import pandas as pd; from mip.table import from_frame
    >>> rows = from_frame(pd.DataFrame({"price": [100.0, 10000.0]}))
    >>> head = Regression("price", scale="log"); facts = head.adapt(rows)
    >>> head.encode(facts, rows)
    tensor([-1.,  1.])
    >>> head.decode(facts, torch.tensor([-1.0, 0.0]))["value"].round(3).tolist()
    [100.0, 1000.0]
    """

    column: str
    scale: Literal["standard", "log", "none"] = field(
        default="standard", validator=in_(("standard", "log", "none"))
    )
    loss: Literal["mse", "mae", "huber"] = field(default="mse", validator=in_(tuple(LOSSES)))
    layers: tuple[int, ...] = _layers()
    dropout: float = _dropout()
    missing: Literal["drop", "error"] = _missing()

    def adapt(self, rows: Rows) -> Facts:
        """Give mean and standard deviation of the scaled target."""
        if self.scale == "none":
            return {"mean": 0.0, "std": 1.0}
        chunks = rows.chunks([self.column])
        found = moments(self._scaled(chunk)[:, None] for chunk in chunks)
        if not found.known[0]:
            raise DataError(f"{rows.name}: column '{self.column}' has no training target")
        return {"mean": found.mean.item(), "std": found.std.item()}

    def _scaled(self, rows: Table) -> np.ndarray:
        values = rows.numbers(self.column)
        if self.scale != "log":
            return values
        for place in np.flatnonzero(values <= 0)[:1]:
            where = rows.where(int(place), self.column)
            raise DataError(f"{where}: {values[place]:g} has no logarithm (scale = 'log')")
        return np.log(values)

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Give float32 [n]."""
        scaled = (self._scaled(rows) - facts["mean"]) / facts["std"]
        return torch.from_numpy(scaled.astype(np.float32))

    def outputs(self, facts: Facts) -> int | None:
        """Give None: logits are [n]."""
        return None

    def criterion(self, facts: Facts) -> Criterion:
        """Give the mean squared, absolute or smooth absolute error on the target's scale."""
        return checked(LOSSES[self.loss])

    def decode(self, facts: Facts, logits: Tensor) -> dict[str, np.ndarray]:
        """Give the column `value`, float64 in the target's own unit."""
        values = logits.double().numpy() * facts["std"] + facts["mean"]
        return {"value": np.exp(values) if self.scale == "log" else values}

    def metrics(self, facts: Facts, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Give mae and rmse in the target's unit, mape and median_ape as fractions, and r2."""
        import torchmetrics.functional as tm

        guess, truth = (torch.from_numpy(self.decode(facts, x)["value"]) for x in (logits, target))
        scores = {
            "mae": tm.mean_absolute_error(guess, truth),
            "rmse": tm.mean_squared_error(guess, truth, squared=False),
            "mape": tm.mean_absolute_percentage_error(guess, truth),
            "median_ape": ((guess - truth).abs() / truth.abs().clamp_min(1.17e-06)).median(),
            "r2": tm.r2_score(guess, truth) if len(truth) > 1 else torch.tensor(float("nan")),
        }
        return {name: float(score) for name, score in scores.items()}


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
    layers: tuple[int, ...] = _layers()
    dropout: float = _dropout()
    missing: Literal["drop", "error"] = _missing()

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
    layers: tuple[int, ...] = _layers()
    dropout: float = _dropout()
    missing: Literal["drop", "error"] = _missing()

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
