"""Metrics of batches: computed at once, or folded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from mip.errors import MipError
from mip.metrics.named import fold_of, is_row_mean
from mip.metrics.protocol import Metric, MetricFunction, StreamingMetric
from mip.tree import concat, map_tree


def split_metrics(
    metrics: Mapping[str, Metric],
) -> tuple[dict[str, MetricFunction], dict[str, StreamingMetric]]:
    """Divide metrics by name into functions and folds; a plain triple (init, update, compute) is a
    fold too, and so is each metric of `mip.metrics` that is not a mean over rows. Raises MipError
    for anything else.

    >>> split_metrics({"rows": (lambda: 0, lambda n, logits, target: n + len(target), float)})[0]
    {}
    >>> split_metrics({"accuracy": 0.5})
    Traceback (most recent call last):
    mip.errors.MipError: the metric 'accuracy' must be a function of (predictions, targets) or a \
triple (init, update, compute), not float
    """
    functions, streaming = dict[str, MetricFunction](), dict[str, StreamingMetric]()
    for name, metric in metrics.items():
        fold = None if is_row_mean(metric) else fold_of(metric)
        if fold is not None:
            streaming[name] = fold
        elif isinstance(metric, tuple) and len(metric) == 3:
            streaming[name] = StreamingMetric(*metric)
        elif hasattr(metric, "update") and hasattr(metric, "compute"):
            cure = f"give mip.metrics.from_torchmetrics({type(metric).__name__}(…))"
            raise MipError(f"the metric '{name}' remembers batches: {cure}")
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


def compute_metrics(
    metrics: Mapping[str, Metric], predictions: Iterable[tuple[Any, Any]]
) -> dict[str, float]:
    """Compute metrics of (logits, target), batch by batch: a function is called once, with all rows
    on the CPU, and a `StreamingMetric` is folded over the batches, as are those of `mip.metrics`.

    >>> import torch
    >>> count = StreamingMetric(lambda: 0, lambda n, logits, target: n + len(target), float)
    >>> batches = [(torch.ones(2), torch.zeros(2)), (torch.ones(3), torch.zeros(3))]
    >>> compute_metrics({"rows": count, "sum": lambda logits, target: logits.sum()}, batches)
    {'rows': 5.0, 'sum': 5.0}
    """
    metrics = {name: fold_of(metric) or metric for name, metric in metrics.items()}
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
