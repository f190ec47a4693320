"""Validation: the metrics of a state on held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from mip.errors import DataError, MipError
from mip.heads import check_metric_inputs
from mip.metrics import (
    NO_METRICS,
    Metric,
    MetricSet,
    check_metric_names,
    metrics_by_name,
    split_metrics,
)
from mip.model import Net, Plan, build
from mip.train import (
    Event,
    Hook,
    Reply,
    State,
    check_batch,
    check_batches,
    check_logits,
    check_loss,
    check_net,
    check_tensors,
    eval_step,
    match_shapes,
    score,
    with_names,
)
from mip.tree import concat, map_tree, slice_rows


def validate(
    model: Plan | nn.Module,
    batches: Iterable[Any],
    name: str = "valid",
    net: Net | None = None,
    metrics: MetricSet = NO_METRICS,
    loss: Callable[[Any, Any], Any] | None = None,
) -> Hook:
    """Score batches after every epoch and add `name/metric` to the epoch's row.

    For a plan these are the loss, the head's metrics and your own `metrics`; for a module, `loss`
    and `metrics`: a list of names in `mip.metrics.NAMED`, which of a plan are in the target's unit,
    or a dict of functions of (logits, target) of all rows and `StreamingMetric`s.
    Batches are (inputs, target, …), and iterable once per epoch: a Pipe, a DataLoader, a list. They
    are scored with a module that is not the trained one: a copy, or `net`.

    Raises MipError for a module with neither a loss nor metrics, for a plan with a loss, which it
    has already, for an unknown name, and for batches that are none; the hook raises it for the
    state of another module.

    >>> import mip, torch; from toolz import pipe
    >>> net, mse = torch.nn.Linear(2, 1), torch.nn.functional.mse_loss
    >>> batches = pipe((torch.ones(8, 2), torch.ones(8, 1)), mip.batch(4))
    >>> step, hooks = mip.train_step(net, mse, mip.sgd(0.1)), [validate(net, batches, loss=mse)]
    >>> state, history = mip.fit(step, batches, step.init(), epochs=2, hooks=hooks)
    >>> [list(row) for row in history.epochs][0]
    ['epoch', 'step', 'loss', 'lr', 'valid/loss']
    """
    check_batches(batches, "validate")
    for batch in batches[:1] if isinstance(batches, (tuple, list)) else ():
        check_batch(batch)
    functions = metrics_by_name(metrics)
    split_metrics(functions)
    has_loss = loss is not None or isinstance(model, Plan)
    check_metric_names(functions, {"loss"} if has_loss else ())
    if isinstance(model, Plan):
        if loss is not None:
            raise MipError("validate: a plan has a loss; `loss` is for a module")
        scored = _plan_scores(model, net or build(model, pretrain=False), batches, metrics)
    else:
        scored = _module_scores(model, batches, functions, loss)

    def hook(event: Event) -> Reply:
        if event.name == "before_fit":
            check_tensors(scored.module, event.peek())
        if event.name != "validate":
            return None
        return {f"{name}/{metric}": value for metric, value in scored.of(event.peek()).items()}

    names = scored.names
    return (
        with_names(hook, (), lambda: [f"{name}/{metric}" for metric in names()]) if names else hook
    )


@frozen
class _Scores:
    """The scores `of` a state of the module, and their names if these can be known before."""

    module: nn.Module
    of: Callable[[State], dict[str, float]]
    names: Callable[[], list[str]] | None


def _module_scores(
    module: nn.Module,
    batches: Iterable[Any],
    metrics: Mapping[str, Metric],
    loss: Callable[[Any, Any], Any] | None,
) -> _Scores:
    check_net(module)
    if loss is None and not metrics:
        raise MipError("validate: a module needs loss= or metrics=")
    check_logits(metrics, module, loss)
    if loss is not None:
        check_loss(loss)
        loss = match_shapes(loss)
    predict = eval_step(deepcopy(module))
    return _Scores(
        module,
        lambda state: score(partial(predict, state), batches, loss, metrics),
        lambda: [*["loss"] * (loss is not None), *metrics],
    )


def _plan_scores(plan: Plan, net: Net, batches: Iterable[Any], metrics: MetricSet) -> _Scores:
    if not isinstance(metrics, Mapping):
        check_metric_inputs(plan.spec.head)
    is_iterator = iter(batches) is batches  # to look at its first batch would take it away
    return _Scores(
        net,
        partial(_score_plan, plan, eval_step(net), batches, metrics),
        None if is_iterator else lambda: [*_names_of_plan(plan, net, batches), *metrics],
    )


def _score_plan(
    plan: Plan,
    predict: Callable[[State, Any], Any],
    batches: Iterable[Any],
    metrics: MetricSet,
    state: State,
) -> dict[str, float]:
    pairs = [(predict(state, inputs), target) for inputs, target, *_ in batches]
    if not pairs:
        raise DataError("no batches to validate on; they must be iterable once per epoch")
    logits, target = concat([map_tree(Tensor.cpu, pair) for pair in pairs])
    return plan.score(logits, target, metrics)


@torch.no_grad()
def _names_of_plan(plan: Plan, net: Net, batches: Iterable[Any]) -> list[str]:
    # A head says what it measures only by measuring; a few rows are enough for the names.
    inputs, target, *_ = next(iter(batches))
    rows = slice_rows((inputs, target), 0, 8)
    logits, target = map_tree(Tensor.cpu, (net.eval()(rows[0]), rows[1]))
    return list(plan.score(logits, target))
