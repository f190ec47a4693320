"""Metrics of batches: computed at once, or folded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from torch import Tensor

from mip.errors import DataError, MipError
from mip.metrics.named import fold_of, is_row_mean
from mip.metrics.protocol import Metric, MetricFunction, StreamingMetric
from mip.tree import concat, map_tree, shapes_text


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


def as_number(name: str, value: Any) -> Any:
    """Return what a metric has returned, a number or a tensor without dimensions.

    Raises DataError for anything but one number.

    >>> import torch
    >>> as_number("mae", torch.tensor([0.5]))
    tensor(0.5000)
    >>> as_number("by_class", torch.ones(3))
    Traceback (most recent call last):
    mip.errors.DataError: the metric 'by_class' returned float32 [3] and not one number: make each \
number a metric with a name
    """
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.reshape(())
    if isinstance(value, (Tensor, Mapping, list, tuple)):
        kind = shapes_text(value)
    else:
        with suppress(TypeError, ValueError):
            return value if isinstance(value, (int, float)) else float(value)
        kind = "None" if value is None else f"a {type(value).__name__}"
    cure = "make each number a metric with a name"
    raise DataError(f"the metric '{name}' returned {kind} and not one number: {cure}")


def check_metric_names(names: Iterable[str], reserved: Iterable[str]) -> None:
    """Raise MipError for a metric with the name of something else.

    >>> check_metric_names(["loss"], {"loss"})
    Traceback (most recent call last):
    mip.errors.MipError: a metric cannot be called 'loss', which is measured anyway
    """
    for name in {*names} & {*reserved}:
        raise MipError(f"a metric cannot be called '{name}', which is measured anyway")


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
    return {name: float(as_number(name, values[name])) for name in metrics}
