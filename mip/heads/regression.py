"""One number."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from attrs import field, frozen
from attrs.validators import in_
from torch import Tensor

from mip.branches import Facts, widths
from mip.data import Rows, Table
from mip.heads.protocol import Criterion, checked, dropout_field, members_field, missing_field
from mip.heads.scale import (
    Scale,
    average,
    learn,
    rescaled,
    root_mean_square,
    scale_field,
    scaled,
    unscaled,
)


def log_cosh(guess: Tensor, target: Tensor) -> Tensor:
    """Give the mean logarithm of the hyperbolic cosine of the error (Green 1990): a square near
    zero, the absolute error less log 2 far from it, smooth in between.

    >>> log_cosh(torch.tensor([1.0, 90.0]), torch.tensor([1.0, 0.0])).item() * 2
    89.30685424804688
    """
    # log cosh x = x + log(1 + exp(-2x)) - log 2, where cosh itself would overflow.
    error = guess - target
    return (error + F.softplus(-2 * error) - math.log(2)).mean()


def percent_close(guess: Tensor, truth: Tensor, tol: float = 0.1) -> Tensor:
    """Give the share of guesses, both float64 [n], that miss by `tol` of the truth at most.

    >>> percent_close(torch.tensor([109.0, 89.0]), torch.tensor([100.0, 100.0]))
    tensor(0.5000, dtype=torch.float64)
    """
    return ((guess - truth).abs() <= tol * truth.abs()).double().mean()


def msle(guess: Tensor, truth: Tensor) -> Tensor:
    """Give the mean squared error of log(1 + number), both float64 [n]: NaN, which is never the
    best, where a number is -1 or less and has no such logarithm.

    >>> msle(torch.tensor([math.e - 1]), torch.tensor([0.0]))
    tensor(1.)
    >>> msle(torch.tensor([-1.0, 3.0]), torch.tensor([0.0, 3.0]))
    tensor(nan)
    """
    guess, truth = (torch.where(each > -1, each, torch.nan).log1p() for each in (guess, truth))
    return F.mse_loss(guess, truth)


def in_unit(
    decode: Callable[[Tensor], Mapping[str, np.ndarray]], metric: Callable[[Tensor, Tensor], Any]
) -> Callable[[Tensor, Tensor], Any]:
    """Make a metric of logits and target, which are on the scale that is learned, of one of numbers
    in the target's own unit, float64 [n]. `decode` is that of a plan with a head `regression`.

    >>> twice = lambda logits: {"value": 2 * logits.numpy()}
    >>> in_unit(twice, lambda guess, truth: (guess - truth).abs().max())(
    ...     torch.tensor([3.0, 4.0]), torch.tensor([3.0, 0.5])
    ... )
    tensor(7.)
    """

    def scored(logits: Tensor, target: Tensor) -> Any:
        return metric(*(torch.from_numpy(decode(each)["value"]) for each in (logits, target)))

    return scored


LOSSES: Mapping[str, Callable[..., Tensor]] = {
    "mse": F.mse_loss,
    "mae": F.l1_loss,
    "huber": F.smooth_l1_loss,
    "log_cosh": log_cosh,
}


@frozen
class Regression:
    """One number. The target is standardised, after a logarithm for scale "log".

    >>> import pandas as pd; from mip.data import from_frame
    >>> rows = from_frame(pd.DataFrame({"price": [100.0, 10000.0]}))
    >>> head = Regression("price", scale="log"); facts = head.adapt(rows)
    >>> head.encode(facts, rows)
    tensor([-1.,  1.])
    >>> head.decode(facts, torch.tensor([-1.0, 0.0]))["value"].round(3).tolist()
    [100.0, 1000.0]
    """

    kind = "regression"
    column: str
    scale: Scale = scale_field()
    loss: Literal["mse", "mae", "huber", "log_cosh"] = field(
        default="mse", validator=in_(tuple(LOSSES))
    )
    layers: tuple[int, ...] = widths()
    dropout: float = dropout_field()
    members: int = members_field()
    missing: Literal["drop", "error"] = missing_field()

    def adapt(self, rows: Rows) -> Facts:
        """Give mean and standard deviation of the scaled target."""
        return learn(rows, self.column, self.scale)

    def known(self, rows: Table) -> np.ndarray:
        """Say which rows have a number: bool [n]."""
        return ~np.isnan(rows.numbers(self.column))

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Give float32 [n]."""
        return scaled(facts, rows, self.column, self.scale)

    def outputs(self, facts: Facts) -> int | None:
        """Give None: logits are [n]."""
        return None

    def criterion(self, facts: Facts) -> Criterion:
        """Give the mean squared, absolute, smooth absolute or log-cosh error on the target's
        scale.
        """
        return checked(LOSSES[self.loss])

    def decode(self, facts: Facts, logits: Tensor) -> dict[str, np.ndarray]:
        """Give the column `value`, float64 in the target's own unit."""
        return {"value": unscaled(facts, logits.double().numpy(), self.scale)}

    def logits(self, facts: Facts, columns: Mapping[str, np.ndarray]) -> Tensor:
        """Give the logits, float64 [n], that decode to these columns."""
        return torch.from_numpy(rescaled(facts, columns["value"], self.scale))

    def metrics(self, facts: Facts, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Give mae and rmse in the target's unit, mape and median_ape as fractions, and r2.

        NaN where one is not defined: mape where a target is 0, median_ape where half of them are,
        and r2 of targets that are all equal.
        """
        return in_unit(partial(self.decode, facts), _scores)(logits, target)


def _scores(guess: Tensor, truth: Tensor) -> dict[str, float]:
    error = (guess - truth).abs()
    rmse = root_mean_square(error)
    return {
        "mae": average(error),
        "rmse": rmse,
        "mape": float((error / truth.abs()).mean()) if truth.all() else math.nan,
        "median_ape": _median_ape(error, truth.abs()),
        "r2": _r2(rmse, truth),
    }


def _median_ape(error: Tensor, size: Tensor) -> float:
    # No error is a percentage of a target of 0: it counts as larger than all that are.
    median = torch.where(error == 0, 0.0, error / size).median()
    return float(median) if median < torch.inf else math.nan


def _r2(rmse: float, truth: Tensor) -> float:
    mean = float(truth.mean())
    deviation = root_mean_square(truth - mean)
    if not deviation > 1e-12 * abs(mean):  # targets that differ by rounding alone
        return math.nan
    share = rmse / deviation
    return 1 - share * share
