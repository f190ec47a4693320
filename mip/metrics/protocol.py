"""What a metric is: a function of all rows, or a fold over batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from mip.errors import MipError
from mip.tree import concat, count_rows, map_tree

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


def row_mean(function: MetricFunction) -> StreamingMetric:
    """Fold a mean over rows, such as a loss, to the mean over the rows of all batches.

    >>> import torch
    >>> mean = row_mean(torch.nn.functional.mse_loss)
    >>> batches = [(torch.zeros(1), torch.ones(1)), (torch.zeros(3), torch.zeros(3))]
    >>> compute_metrics({"mse": mean}, batches)
    {'mse': 0.25}
    """

    def update(so_far: tuple[float, int], logits: Any, target: Any) -> tuple[float, int]:
        n_rows = count_rows(target)
        return so_far[0] + float(function(logits, target)) * n_rows, so_far[1] + n_rows

    return StreamingMetric(lambda: (0.0, 0), update, lambda so_far: so_far[0] / so_far[1])


def compute_metrics(
    metrics: Mapping[str, Metric], predictions: Iterable[tuple[Any, Any]]
) -> dict[str, float]:
    """Compute metrics of (logits, target), batch by batch: a function is called once, with all rows
    on the CPU, and a `StreamingMetric` is folded over the batches.

    >>> import torch
    >>> count = StreamingMetric(lambda: 0, lambda n, logits, target: n + len(target), float)
    >>> batches = [(torch.ones(2), torch.zeros(2)), (torch.ones(3), torch.zeros(3))]
    >>> compute_metrics({"rows": count, "sum": lambda logits, target: logits.sum()}, batches)
    {'rows': 5.0, 'sum': 5.0}
    """
    functions, streaming = split_metrics(metrics)
    folds = {name: metric.init() for name, metric in streaming.items()}
    kept = []
    for logits, target in predictions:
        for name, metric in streaming.items():
            folds[name] = metric.update(folds[name], logits, target)
        if functions:
            kept.append(map_tree(Tensor.cpu, (logits, target)))
    whole = concat(kept) if kept else ()
    values = {name: function(*whole) for name, function in functions.items()}
    values |= {name: metric.compute(folds[name]) for name, metric in streaming.items()}
    return {name: float(values[name]) for name in metrics}
