"""Validation: the metrics of a state on held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from mip.errors import DataError
from mip.model import NO_METRICS, Metric, Net, Plan, build
from mip.train import Event, Hook, Reply, State, eval_step
from mip.tree import concat, map_tree


def validate(
    plan: Plan,
    batches: Any,
    name: str = "valid",
    net: Net | None = None,
    metrics: Mapping[str, Metric] = NO_METRICS,
) -> Hook:
    """Score all batches after every epoch and add `name/metric` to the epoch's row.

    Runs on a module of its own. Batches are (inputs, target, …), as `plan.encode` gives them.
    `metrics` are yours, beside those of the head.
    """
    run = eval_step(net or build(plan, pretrain=False))

    def hook(event: Event) -> Reply:
        if event.name != "validate":
            return None
        scores = evaluate_state(plan, run, event.state, batches, metrics)
        return {f"{name}/{metric}": value for metric, value in scores.items()}

    return hook


def evaluate_state(
    plan: Plan,
    run: Callable[[State, Any], torch.Tensor],
    state: State,
    batches: Any,
    metrics: Mapping[str, Metric] = NO_METRICS,
) -> dict[str, float]:
    """Score a state over batches: the loss, the head's metrics, and others."""
    pairs = [(run(state, inputs), target) for inputs, target, *_ in batches]
    if not pairs:
        raise DataError("there is no batch to score; they must be iterable again for each epoch")
    logits, target = concat([map_tree(torch.Tensor.cpu, pair) for pair in pairs])
    return plan.score(logits, target, metrics)
