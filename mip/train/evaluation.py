"""Evaluation: a fold over batches without training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, nll_loss

from mip.errors import DataError, MipError
from mip.metrics import (
    NO_METRICS,
    Metric,
    StreamingMetric,
    as_number,
    check_metric_names,
    compute_metrics,
    row_mean,
)
from mip.train.arguments import check_batch, check_loss
from mip.train.shapes import Matched, match_metrics, match_shapes
from mip.tree import count_rows

Loss = Callable[[Any, Any], Any]
"""(predictions, targets) to their mean loss."""


@torch.no_grad()
def score(
    forward: Callable[[Any], Any],
    batches: Iterable[Any],
    loss: Loss | None = None,
    metrics: Mapping[str, Metric] = NO_METRICS,
) -> dict[str, float]:
    """Compute the loss, the mean over all rows, and metrics of predictions on batches (inputs,
    target, …). torch's cross entropy with weights of classes, or classes to ignore, is the mean
    over all rows as well.

    `forward` turns inputs into predictions. A metric that is a function is called once, with the
    predictions and targets of all rows, on the CPU; a `StreamingMetric` is folded over the batches.
    Raises DataError if there are no batches, MipError if there is nothing to compute, and DataError
    for shapes that would be broadcast.

    >>> batches = [(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))]
    >>> largest = lambda predictions, target: (target - predictions).max()
    >>> score(lambda x: x, batches, torch.nn.functional.mse_loss, {"max": largest})
    {'loss': 2.0, 'max': 2.0}
    """
    if loss is None and not metrics:
        raise MipError("there is nothing to compute: give loss= or metrics=")
    if loss is not None:
        check_loss(loss)
        check_metric_names(metrics, {"loss"})
    losses = {} if loss is None else {"loss": _mean_loss(loss)}
    return compute_metrics({**losses, **match_metrics(metrics)}, _predictions(forward, batches))


def _mean_loss(loss: Loss) -> StreamingMetric:
    matched = match_shapes(loss)
    return row_mean(lambda *pair: as_number("loss", matched(*pair)), _batch_weight(loss))


def _batch_weight(loss: Loss) -> Callable[[Any], float]:
    """Return what a batch counts in the mean of a loss, by its targets: the number of its rows, or
    what cross entropy divides by, the weights of the classes that are not ignored.
    """
    function: Any = loss.function if isinstance(loss, Matched) else loss
    options = function.keywords if isinstance(function, partial) else {}
    if isinstance(function, (nn.CrossEntropyLoss, nn.NLLLoss)):
        options = {"weight": function.weight, "ignore_index": function.ignore_index}
    elif getattr(function, "func", function) not in (cross_entropy, nll_loss):
        return count_rows
    weight, ignored = options.get("weight"), options.get("ignore_index", -100)

    def counted(targets: Any) -> float:
        if not isinstance(targets, torch.Tensor) or targets.is_floating_point():
            return count_rows(targets)
        classes = targets[targets != ignored]
        return classes.numel() if weight is None else float(weight[classes].sum())

    return counted


def _predictions(
    forward: Callable[[Any], Any], batches: Iterable[Any]
) -> Iterator[tuple[Any, Any]]:
    batch = None
    for batch in batches:
        check_batch(batch)
        yield forward(batch[0]), batch[1]
    if batch is None:
        raise DataError("no batches to validate on; they must be iterable once per epoch")
