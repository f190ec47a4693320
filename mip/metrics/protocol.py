"""What a metric is: a function of all rows, or a fold over batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

MetricFunction = Callable[[Any, Any], Any]
"""(logits, target) of all rows of a split, on the CPU, to a number."""


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


NO_METRICS: Mapping[str, MetricFunction] = MappingProxyType({})
