"""The metrics that have a name: what each is, which end is better, and its fold over batches."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from types import MappingProxyType
from typing import Any, cast

import torch
from attrs import evolve, frozen
from torch import Tensor

from mip.errors import MipError, hint, quote
from mip.metrics.classification import (
    accuracy,
    add_matrices,
    check_average,
    confusion_matrix,
    f1,
    f1_of,
    precision,
    precision_of,
    recall,
    recall_of,
    top_k_accuracy,
)
from mip.metrics.probabilities import (
    auc,
    average_precision,
    brier,
    calibration_bins,
    ece,
    ece_of,
    log_loss,
)
from mip.metrics.protocol import (
    Metric,
    MetricFunction,
    MetricSet,
    StreamingMetric,
    all_rows,
    merged,
    row_mean,
)
from mip.metrics.regression import (
    mae,
    mape,
    mean_pred,
    median_ape,
    merge_spreads,
    mse,
    msle,
    percent_close,
    r2,
    r2_of,
    rmse,
    spread,
)

Fold = Callable[[MetricFunction], StreamingMetric]
"""A metric over all rows to its fold over batches, with an equal result."""


@frozen
class NamedMetric:
    """A function of all rows, its fold over batches, and whether a higher value is better; None if
    neither end is.
    """

    function: MetricFunction
    fold: Fold = row_mean
    higher_is_better: bool | None = False


def _rooted(function: MetricFunction) -> StreamingMetric:
    mean = row_mean(mse)
    return StreamingMetric(mean.init, mean.update, lambda so_far: mean.compute(so_far) ** 0.5)


def _from_spread(function: MetricFunction) -> StreamingMetric:
    return merged(spread, merge_spreads, r2_of)


def _from_bins(function: MetricFunction) -> StreamingMetric:
    return merged(partial(calibration_bins, **_options(function)), torch.add, ece_of)


def _from_confusion(value: Callable[..., float]) -> Fold:
    def fold(function: MetricFunction) -> StreamingMetric:
        options = _options(function)
        average = options.pop("average", "auto")
        check_average(average)
        counts: Callable[[Any, Any], Tensor] = partial(confusion_matrix, **options)
        return merged(counts, add_matrices, partial(value, average=average))

    return fold


def _options(function: MetricFunction) -> dict[str, Any]:
    return dict(function.keywords) if isinstance(function, partial) else {}


NAMED: Mapping[str, NamedMetric] = MappingProxyType(
    {
        "accuracy": NamedMetric(accuracy, higher_is_better=True),
        "auc": NamedMetric(auc, all_rows, higher_is_better=True),
        "average_precision": NamedMetric(average_precision, all_rows, higher_is_better=True),
        "brier": NamedMetric(brier),
        "ece": NamedMetric(ece, _from_bins),
        "f1": NamedMetric(f1, _from_confusion(f1_of), higher_is_better=True),
        "log_loss": NamedMetric(log_loss),
        "mae": NamedMetric(mae),
        "mape": NamedMetric(mape),
        "mean_pred": NamedMetric(mean_pred, higher_is_better=None),
        "median_ape": NamedMetric(median_ape, all_rows),
        "mse": NamedMetric(mse),
        "msle": NamedMetric(msle),
        "percent_close": NamedMetric(percent_close, higher_is_better=True),
        "precision": NamedMetric(precision, _from_confusion(precision_of), higher_is_better=True),
        "r2": NamedMetric(r2, _from_spread, higher_is_better=True),
        "recall": NamedMetric(recall, _from_confusion(recall_of), higher_is_better=True),
        "rmse": NamedMetric(rmse, _rooted),
        "top_k_accuracy": NamedMetric(top_k_accuracy, higher_is_better=True),
    }
)
"""The metrics by name; "top2", "top3" and so on are `top_k_accuracy` with that k."""


SYNONYMS: Mapping[str, str] = MappingProxyType(
    {
        "acc": "accuracy",
        "ap": "average_precision",
        "auroc": "auc",
        "average_precision_score": "average_precision",
        "bce": "log_loss",
        "brier_score": "brier",
        "calibration_error": "ece",
        "cross_entropy": "log_loss",
        "error_rate": "accuracy",
        "f1_score": "f1",
        "l1": "mae",
        "mean_absolute_error": "mae",
        "mean_squared_error": "mse",
        "nll": "log_loss",
        "precision_score": "precision",
        "r2_score": "r2",
        "recall_score": "recall",
        "roc_auc": "auc",
        "roc_auc_score": "auc",
        "root_mean_squared_error": "rmse",
    }
)
"""What others call them."""


def find_metric(name: str) -> NamedMetric | None:
    """Find the metric with a name; None if there is none.

    >>> find_metric("top3").higher_is_better, find_metric("loss")
    (True, None)
    """
    if top := re.fullmatch(r"top([1-9]\d*)", name):
        function = partial(top_k_accuracy, k=int(top[1]))
        return evolve(NAMED["top_k_accuracy"], function=function)
    return NAMED.get(name)


def metrics_by_name(metrics: MetricSet) -> dict[str, Metric]:
    """Return metrics by name; a list of names becomes those of `NAMED`.

    Raises MipError for an unknown name, and for anything but a list of names and a mapping.

    >>> list(metrics_by_name(["rmse", "top3"]))
    ['rmse', 'top3']
    >>> metrics_by_name(["acuracy"])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    mip.errors.MipError: there is no metric 'acuracy'; did you mean 'accuracy'? ...
    """
    if isinstance(metrics, Mapping):
        return dict(metrics)
    if not isinstance(metrics, (list, tuple)) or not all(isinstance(m, str) for m in metrics):
        wanted = 'a list of names, ["accuracy"], or a dict of functions, {"accuracy": accuracy}'
        raise MipError(f"metrics must be {wanted}, not {quote(metrics)}")
    return {name: _function(name) for name in metrics}


def _function(name: str) -> MetricFunction:
    metric = find_metric(name)
    if metric is None:
        lower = name.lower()
        meant = [SYNONYMS.get(lower, lower)] if lower in {*SYNONYMS, *NAMED} else []
        raise MipError(f"there is no metric {quote(name)}{hint(name, NAMED, meant)}")
    return metric.function


def fold_of(metric: Metric) -> StreamingMetric | None:
    """Return the fold over batches of a function in `NAMED`, also of a `partial` with options; None
    for any other metric.

    >>> batches = [(torch.ones(1), torch.zeros(1)), (torch.zeros(3), torch.zeros(3))]
    >>> fold = fold_of(rmse); so_far = fold.init()
    >>> for batch in batches:
    ...     so_far = fold.update(so_far, *batch)
    >>> fold.compute(so_far)
    0.5
    """
    known = _named(metric)
    return known.fold(cast(MetricFunction, metric)) if known else None


def is_row_mean(metric: Metric) -> bool:
    """Return whether a metric is a function in `NAMED` that is a mean over rows."""
    known = _named(metric)
    return known is not None and known.fold is row_mean


def _named(metric: Metric) -> NamedMetric | None:
    function = metric.func if isinstance(metric, partial) else metric
    return next((known for known in NAMED.values() if known.function is function), None)


def assumes_logits(metric: Metric) -> bool:
    """Return whether a metric is a function in `NAMED` that takes predictions as logits, because
    nobody has given it `from_logits`.

    >>> assumes_logits(accuracy), assumes_logits(partial(accuracy, from_logits=False))
    (True, False)
    """
    known = _named(metric)
    if known is None or "from_logits" in _options(cast(MetricFunction, metric)):
        return False
    return "from_logits" in signature(known.function).parameters
