"""Evaluation: a fold over batches without training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from mip.errors import DataError, MipError
from mip.metrics import NO_METRICS, Metric, split_metrics
from mip.train.arguments import check_batch
from mip.train.shapes import match_target
from mip.tree import concat, count_rows, map_tree

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
    functions, streaming = split_metrics(metrics)
    if loss is None and not metrics:
        raise MipError("there is nothing to compute: give loss= or metrics=")
    folds = {name: metric.init() for name, metric in streaming.items()}
    losses, kept = list[tuple[float, int]](), list[tuple[Any, Any]]()
    for predictions, target in _predictions(forward, batches, loss):
        if loss is not None:
            losses.append((float(loss(predictions, target)), count_rows(target)))
        for name, metric in streaming.items():
            folds[name] = metric.update(folds[name], predictions, target)
        if functions:
            kept.append(map_tree(Tensor.cpu, (predictions, target)))
    n_rows = sum(rows for _, rows in losses)
    scores = {"loss": sum(value * rows for value, rows in losses) / n_rows} if losses else {}
    values = {name: function(*concat(kept)) for name, function in functions.items()}
    values |= {name: metric.compute(folds[name]) for name, metric in streaming.items()}
    return scores | {name: float(values[name]) for name in metrics}


def _predictions(
    forward: Callable[[Any], Any], batches: Iterable[Any], loss: Loss | None
) -> Iterator[tuple[Any, Any]]:
    batch = None
    for batch in batches:
        check_batch(batch)
        yield match_target(forward(batch[0]), batch[1], loss)
    if batch is None:
        raise DataError("no batches to validate on; they must be iterable once per epoch")
