"""Residual branches: fixed features, fitted to what the trained model leaves over.

A branch that knows little, among few rows, drowns one that knows much if both are joined and
trained at once. So the branches of `fusion.residual` take no part in training; the model of the
others is exactly what it would be without them. What they can add is found afterwards, by a
penalized linear model of their features in addition to the logits (stagewise additive modeling;
Hastie, Tibshirani and Friedman 2009, 10.3). Logits of rows that the model was trained on show too
little of what it leaves over, so that the logits here are those of models trained without the fold
of a row, as in stacking (Wolpert 1992). Everything is a function of the seed and the training rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from attrs import evolve
from torch import Tensor

from mip.data import Table
from mip.errors import MipWarning
from mip.heads import Head, HoldsHeads, smooth_loss
from mip.model import Net, Parts, Plan, build
from mip.runs.checks import inner_folds
from mip.runs.context import DEFAULT_CONTEXT, Context
from mip.runs.feeding import count_batches, feature_plan, rows_pipe
from mip.runs.jobs import job_of_plan, with_updated_bn
from mip.runs.shrinkage import Components, Correction, fit_correction, principal_components
from mip.runs.warm_starts import Sources, load_sources
from mip.train import State, fit, load_state
from mip.tree import Tree, concat, leaves, map_tree, take

EVIDENCE = 3.0
"""The logarithm of a likelihood ratio from which evidence is strong (Kass and Raftery 1995): what
noise is chosen from reaches 1 or 2.
"""

BATCH_ROWS = 256
"""The rows of a batch, where no gradient is computed."""


def fit_residual(
    plan: Plan,
    state: State,
    rows: Table,
    *,
    sources: Sources | None = None,
    context: Context = DEFAULT_CONTEXT,
) -> State:
    """Fit the residual branches of a plan to what the model of a state leaves over of the training
    rows; a state without residual branches is returned as it is. `mip.run` does this after the last
    step.

    The other branches are trained again without each of `fusion.residual_folds` folds, as long as
    the state was. Each residual branch in turn then gets a linear model of its leading principal
    components, which adds to the logits of the head (of each head, in a joint one) by the head's
    loss, smooth where that has kinks. It is an average over penalties, from one that leaves nothing
    of it, by their losses on held-out folds; a MipWarning says if nothing is left.
    """
    if not plan.spec.fusion.residual:
        return state
    sources = load_sources(plan.spec, context) if sources is None else sources
    folds = inner_folds(plan.spec, rows)
    features = _features(plan, state, rows, context)
    logits = _held_out_logits(plan, state, rows, folds[0], sources, context)
    buffers = dict(state.buffers)
    for name in plan.spec.fusion.residual:
        known, vectors = features.known[name], features.vectors[name]
        rest = folds[:, known.numpy()]
        if any(len(np.unique(fold)) < 2 for fold in rest):
            _warn_of_nothing(name)
            continue
        components = principal_components(vectors[known])
        fit_head = partial(_fit_head, components.scores(vectors[known]), known, rest)
        fitted = fit_head(plan.spec.head, plan.facts["head"], logits, features.target)
        weights, logits, found = fitted
        context.on_residual(name, sum(one.before for one in found), sum(one.after for one in found))
        if max(one.evidence for one in found) < EVIDENCE:
            _warn_of_nothing(name)
        for path, values in _tensors(components, weights):
            path = f"residual.branch.{name}.{path}"
            buffers[path] = values.to(buffers[path]).contiguous()
    return evolve(state, buffers=buffers)


def _warn_of_nothing(name: str) -> None:
    text = "adds next to nothing to the other branches on held-out rows, or nothing that is certain"
    warnings.warn(f"fusion.residual: '{name}' {text}", MipWarning, stacklevel=3)


def _tensors(components: Components, weights: Tree) -> Iterator[tuple[str, Tensor]]:
    """Yield the buffers of a branch by their paths, for vectors as they are: float64."""
    yield "center", components.center
    for head, weight in leaves(weights):
        path = ".".join(filter(None, ["linear", *head.split("/"), "weight"]))
        yield path, (components.directions @ weight.double()).T


class _Features(NamedTuple):
    """The vectors of residual branches by name, float32 [n, d], which rows have one, bool [n], and
    the target of all rows.
    """

    vectors: dict[str, Tensor]
    known: dict[str, Tensor]
    target: Tree


@torch.no_grad()
def _features(plan: Plan, state: State, rows: Table, context: Context) -> _Features:
    net, parts = _trained(plan, state, context), []
    assert net.residual is not None
    encoding = feature_plan(plan, net, rows, context)
    for batch in rows_pipe(encoding, rows, BATCH_ROWS, context):
        vectors = {name: net.body.vector(name, batch.inputs) for name in net.residual.branch}
        known = {name: ~absent(batch.inputs[name]) for name, absent in net.residual.absent.items()}
        parts.append(map_tree(Tensor.cpu, (vectors, known, batch.target)))
    return _Features(*concat(parts))


def _trained(plan: Plan, state: State, context: Context) -> Net:
    net = build(plan, pretrain=False)
    load_state(net, state)
    return net.eval().to(context.resolved_device())


def _fit_head(
    scores: Tensor,
    known: Tensor,
    folds: np.ndarray,
    head: Head,
    facts: Any,
    logits: Any,
    target: Any,
) -> tuple[Tree, Tree, list[Correction]]:
    """Fit what scores add to the logits of a head, or of each of several by name; return the
    weights, the logits with what is added to them on held-out rows, and what was found for each.
    """
    if isinstance(head, HoldsHeads):
        fits = {
            name: _fit_head(scores, known, folds, child, facts[name], logits[name], target[name])
            for name, child in head.head.items()
        }
        weights = {name: weight for name, (weight, _, _) in fits.items()}
        corrected = {name: added for name, (_, added, _) in fits.items()}
        return weights, corrected, [one for _, _, found in fits.values() for one in found]
    loss = smooth_loss(head, facts)
    fitted = fit_correction(scores, logits[known], target[known], loss, folds)
    corrected = logits.clone()
    corrected[known] += fitted.held_out.view_as(logits[known])
    return fitted.weight, corrected, [fitted]


def _held_out_logits(
    plan: Plan, state: State, rows: Table, fold: np.ndarray, sources: Sources, context: Context
) -> Tree:
    """Return the logits of the branches that are joined, of models trained without a row's fold,
    for as many epochs as the state was: as the head makes them, of all rows, on the CPU.
    """
    epochs = state.step / count_batches(len(rows), plan.spec.train.batch_size)
    train = evolve(plan.spec.train, patience=None, restore_best=False, plateau=None)
    plan = evolve(plan, spec=evolve(plan.spec, train=train))
    held_out, indices = [], []
    for name in np.unique(fold):
        held, rest = np.flatnonzero(fold == name), np.flatnonzero(fold != name)
        parts = Parts(rows.take(rest), rows.take([]), rows.take([]))
        job = job_of_plan(plan, parts, sources, context)
        steps = round(epochs * len(job.batches))
        trained = fit(job.step, job.batches, job.start.state, steps=steps, hooks=job.hooks)
        net = _trained(plan, with_updated_bn(job, trained), context)
        held_out.append(_fused_logits(net, plan, rows.take(held), context))
        indices.append(held)
    order = torch.from_numpy(np.concatenate(indices).argsort())
    return take(concat(held_out), order)


@torch.no_grad()
def _fused_logits(net: Net, plan: Plan, rows: Table, context: Context) -> Tree:
    batches = rows_pipe(plan.fused, rows, BATCH_ROWS, context)
    return concat([map_tree(Tensor.cpu, net.head(net.body(batch.inputs))) for batch in batches])
