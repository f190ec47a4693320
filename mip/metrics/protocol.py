"""What a metric is: a function of all rows, or a fold over batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from mip.errors import MipError

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


def split_metrics(
    metrics: Mapping[str, Metric],
) -> tuple[dict[str, MetricFunction], dict[str, StreamingMetric]]:
    """Divide metrics by name into functions and folds; a plain triple (init, update, compute) is a
    fold too. Raises MipError for anything else.

    >>> split_metrics({"rows": (lambda: 0, lambda n, logits, target: n + len(target), float)})[0]
    {}
    >>> split_metrics({"accuracy": 0.5})
    Traceback (most recent call last):
    mip.errors.MipError: the metric 'accuracy' must be a function of (predictions, targets) or a \
triple (init, update, compute), not float
    """
    functions, streaming = dict[str, MetricFunction](), dict[str, StreamingMetric]()
    for name, metric in metrics.items():
        if isinstance(metric, tuple) and len(metric) == 3:
            streaming[name] = StreamingMetric(*metric)
        elif callable(metric) and not isinstance(metric, type):
            functions[name] = metric
        else:
            kind = (
                f"the class {metric.__name__}"
                if isinstance(metric, type)
                else type(metric).__name__
            )
            wanted = "a function of (predictions, targets) or a triple (init, update, compute)"
            raise MipError(f"the metric '{name}' must be {wanted}, not {kind}")
    return functions, streaming


def compute_metrics(metrics: Mapping[str, Metric], logits: Any, target: Any) -> dict[str, float]:
    """Compute metrics of all rows at once, folds too.

    >>> count = StreamingMetric(lambda: 0, lambda n, logits, target: n + len(target), float)
    >>> compute_metrics({"rows": count, "first": lambda logits, target: logits[0]}, [3], [4])
    {'rows': 1.0, 'first': 3.0}
    """
    functions, streaming = split_metrics(metrics)
    values = {name: function(logits, target) for name, function in functions.items()}
    for name, metric in streaming.items():
        values[name] = metric.compute(metric.update(metric.init(), logits, target))
    return {name: float(values[name]) for name in metrics}
