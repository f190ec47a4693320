"""What a metric is: a function of all rows, or a fold over batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from mip.errors import MipError
from mip.tree import concat, count_rows, map_tree

MetricFunction = Callable[[Any, Any], Any]
"""(predictions, targets) of all rows of a split, on the CPU, to a number."""


class StreamingMetric(NamedTuple):
    """A metric that is folded over batches, so that no predictions are kept.

    `init()` makes the accumulator, `update(accumulator, logits, target)` returns the next one and
    `compute(accumulator)` the metric, a number.

    >>> import torch
    >>> count = StreamingMetric(lambda: 0, lambda n, logits, target: n + len(target), float)
    >>> count.compute(count.update(count.init(), torch.zeros(3), torch.zeros(3)))
    3.0
    """

    init: Callable[[], Any]
    update: Callable[[Any, Any, Any], Any]
    compute: Callable[[Any], Any]


Metric = MetricFunction | StreamingMetric
"""A function of all rows, which are kept until it is called, or a fold over batches."""


MetricSet = Mapping[str, Metric] | Sequence[str]
"""Metrics by name, or the names of some of `NAMED`."""


NO_METRICS: Mapping[str, MetricFunction] = MappingProxyType({})


def row_mean(
    function: MetricFunction, weight: Callable[[Any], float] = count_rows
) -> StreamingMetric:
    """Fold a mean over rows, such as a loss, to the mean over the rows of all batches. `weight` is
    what a batch with these targets counts; a batch that counts 0 is left out.

    >>> import torch
    >>> mse = row_mean(torch.nn.functional.mse_loss)
    >>> so_far = mse.update(mse.init(), torch.zeros(1), torch.ones(1))
    >>> mse.compute(mse.update(so_far, torch.zeros(3), torch.zeros(3)))
    0.25
    """

    def update(so_far: tuple[float, float], logits: Any, target: Any) -> tuple[float, float]:
        total, weights = so_far
        count = weight(target)
        if not count:
            return so_far
        return total + float(function(logits, target)) * count, weights + count

    return StreamingMetric(lambda: (0.0, 0), update, _ratio)


def _ratio(so_far: tuple[float, float]) -> float:
    total, weights = so_far
    return total / weights if weights else math.nan


def all_rows(function: MetricFunction) -> StreamingMetric:
    """Fold any function of all rows, by keeping predictions and targets on the CPU.

    >>> import torch
    >>> largest = all_rows(lambda predictions, targets: (predictions - targets).max())
    >>> so_far = largest.update(largest.init(), torch.ones(2), torch.zeros(2))
    >>> largest.compute(largest.update(so_far, torch.zeros(3), torch.zeros(3)))
    tensor(1.)
    """

    def update(so_far: tuple[Any, ...], logits: Any, target: Any) -> tuple[Any, ...]:
        return (*so_far, map_tree(_kept, (logits, target)))

    return StreamingMetric(tuple, update, lambda so_far: function(*concat(so_far)))


def _kept(leaf: Tensor) -> Tensor:
    return leaf.detach().cpu()


def from_torchmetrics(metric: Any) -> StreamingMetric:
    """Fold a metric of torchmetrics over batches, without changing it: each accumulator is a copy.
    It must be on the device of the predictions. Raises MipError for a class and for a function.

    >>> import torch, torchmetrics
    >>> fold = from_torchmetrics(torchmetrics.MeanSquaredError())
    >>> so_far = fold.update(fold.init(), torch.zeros(1), torch.ones(1))
    >>> fold.compute(fold.update(so_far, torch.zeros(3), torch.zeros(3)))
    tensor(0.2500)
    """
    if isinstance(metric, type):
        name = metric.__name__
        raise MipError(f"from_torchmetrics: {name} is a class: make a metric of it, {name}(…)")
    if not (hasattr(metric, "update") and hasattr(metric, "compute")):
        kind = type(metric).__name__
        raise MipError(f"from_torchmetrics: a {kind} is no metric, it has no update and compute")

    def update(so_far: Any, predictions: Any, targets: Any) -> Any:
        latest = deepcopy(so_far)
        latest.update(predictions, targets)
        return latest

    return StreamingMetric(lambda: deepcopy(metric), update, lambda so_far: so_far.compute())


def merged(
    summary: Callable[[Any, Any], Any],
    merge: Callable[[Any, Any], Any],
    value: Callable[[Any], Any],
) -> StreamingMetric:
    """Fold a metric that is the value of a summary of its rows, where the summaries of two batches
    merge into that of their rows.

    >>> import torch
    >>> root = merged(lambda p, y: (p - y).square().sum(), torch.add, torch.sqrt)
    >>> so_far = root.update(root.init(), torch.tensor([3.0]), torch.tensor([0.0]))
    >>> root.compute(root.update(so_far, torch.tensor([4.0]), torch.tensor([0.0])))
    tensor(5.)
    """

    def update(so_far: Any, logits: Any, target: Any) -> Any:
        latest = summary(logits, target)
        return latest if so_far is None else merge(so_far, latest)

    return StreamingMetric(lambda: None, update, value)
