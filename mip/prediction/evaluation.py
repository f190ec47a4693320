"""Scoring a model on rows with targets, and what its predictions have to do without."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from mip.branches import FindsUnseen, having
from mip.data import Rows, category_codes
from mip.errors import MipError, list_first, quote
from mip.metrics import NO_METRICS, MetricSet, metrics_by_name
from mip.model import Plan, clean, columns_of, conversions, filled_rows, summarize_rows, table_of
from mip.prediction.ensembles import Ensemble, HasModel, open_model
from mip.prediction.inputs import check_inputs, divided
from mip.prediction.nets import batches_in, check_model, copy_to, evaluating, on_device
from mip.prediction.predictors import Predictor
from mip.train import check_logits, score
from mip.tree import Tree, concat, get_in


def evaluate(
    model: str | Path | Predictor | Ensemble | HasModel | nn.Module,
    rows: Any,
    metrics: MetricSet = NO_METRICS,
    *,
    loss: Callable[[Any, Any], Any] | None = None,
    device: str | None = None,
) -> dict[str, float]:
    """Score a model, its file, or a finished run: the loss, the head's metrics and your own
    `metrics` on rows with targets; of a plain module `loss` and `metrics` on batches (inputs,
    target, …), in evaluation mode, which is set back afterwards. Metrics are a dict, or names in
    `mip.metrics.NAMED`, which of a model of a spec are in the target's unit.

    Rows without a target or a photo are treated as the spec says, as in training. `device` is where
    a copy of the model computes; by default it computes where it is. Raises MipError for a module
    with neither a loss nor metrics, for another model with a loss, for an unknown name, and for a
    device that this machine lacks.

    >>> import torch
    >>> batches = [(torch.tensor([[1.0]]), torch.tensor([3.0]))]
    >>> evaluate(torch.nn.Identity(), batches, loss=torch.nn.functional.mse_loss)
    {'loss': 4.0}
    >>> evaluate(torch.nn.Identity(), batches, ["mae", "percent_close"])
    {'mae': 2.0, 'percent_close': 0.0}
    """
    opened: Any = open_model(model)
    check_model(opened, "evaluate")
    functions = metrics_by_name(metrics)
    if isinstance(opened, nn.Module):
        net = copy_to(opened, device) if device else opened
        check_logits(functions, net, loss)
        with evaluating(net):
            return score(on_device(net), batches_in(rows), loss, functions)
    if loss is not None:
        raise MipError("evaluate: the model has a loss; `loss` is for a plain module")
    predict = opened.to(device) if device else opened
    logits, target = logits_and_target(predict, rows)
    return predict.plan.score(logits, target, metrics)


def logits_and_target(model: Predictor | Ensemble, rows: Any) -> tuple[Tree, Tree]:
    """Return the logits and the target of the rows that a model can use."""
    table = rows_with_targets(model.plans, table_of(model.plan.spec, rows))
    return concat([*map(model.logits_and_target, divided(table, model.rows_at_once))])


def rows_with_targets(plans: Sequence[Plan], table: Any) -> Any:
    """Leave out the rows that a model of these plans cannot use, as in training, and the columns
    that it does not read.
    """
    for plan in plans:
        check_inputs(plan, table)
        table = clean(plan.spec, table)[0]
    return table.select({name for plan in plans for name in columns_of(plan.spec)})


def prediction_warnings(plan: Plan, table: Rows) -> list[str]:
    """Describe, in a line each, what is replaced by learned values when these rows are predicted:
    categories not seen in training, missing photos and whatever else a branch finds missing, and
    numbers and dates that count as missing.
    """
    table = table.with_formats(plan.spec.data.columns)
    missing = {**filled_rows(plan.spec, table), **conversions(plan.spec, table, photos=False)}
    lines = [summarize_rows(reason, rows) for reason, rows in missing.items()]
    return [f"{table.name}: {line}" for line in [*_unseen(plan, table), *lines]]


def _unseen(plan: Plan, table: Rows) -> Iterator[str]:
    for path, branch in having(plan.spec.root, FindsUnseen):
        for column, categories in branch.unseen(
            get_in(plan.facts["branch"], path.split(".")), table
        ):
            rows = [
                label
                for chunk in table.chunks([column])
                for label in chunk.index[category_codes(chunk, column, categories) >= 0].tolist()
            ]
            names = list_first(categories, 5, quote)
            yield summarize_rows(f"unseen categories in '{column}', {names}", rows)
