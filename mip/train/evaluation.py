"""Evaluation: a fold over batches without training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from mip.errors import DataError, MipError
from mip.metrics import NO_METRICS, Metric, compute_metrics, row_mean
from mip.train.arguments import check_batch
from mip.train.shapes import match_metrics, match_shapes

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
    target, …).

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
    losses = {} if loss is None else {"loss": row_mean(match_shapes(loss))}
    return compute_metrics({**losses, **match_metrics(metrics)}, _predictions(forward, batches))


def _predictions(
    forward: Callable[[Any], Any], batches: Iterable[Any]
) -> Iterator[tuple[Any, Any]]:
    batch = None
    for batch in batches:
        check_batch(batch)
        yield forward(batch[0]), batch[1]
    if batch is None:
        raise DataError("no batches to validate on; they must be iterable once per epoch")
