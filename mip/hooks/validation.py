"""Validation: the metrics of a state on held-out rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from mip.errors import DataError
from mip.metrics import NO_METRICS, MetricFunction
from mip.model import Net, Plan, build
from mip.train import Event, Hook, Reply, eval_step
from mip.tree import concat, map_tree


def validate(
    plan: Plan,
    batches: Iterable[Any],
    name: str = "valid",
    net: Net | None = None,
    metrics: Mapping[str, MetricFunction] = NO_METRICS,
) -> Hook:
    """Score batches after every epoch and add `name/metric` to the epoch's row: the loss, the
    head's metrics and your own `metrics`.

    Batches are (inputs, target, …), as `plan.encode` returns them. They are scored with a module
    that is not the trained one: `net`, or a new one.
    """
    predict = eval_step(net or build(plan, pretrain=False))

    def hook(event: Event) -> Reply:
        if event.name != "validate":
            return None
        state = event.state
        pairs = [(predict(state, inputs), target) for inputs, target, *_ in batches]
        if not pairs:
            raise DataError("no batches to validate on; they must be iterable once per epoch")
        logits, target = concat([map_tree(torch.Tensor.cpu, pair) for pair in pairs])
        scores = plan.score(logits, target, metrics)
        return {f"{name}/{metric}": value for metric, value in scores.items()}

    return hook
