"""Many models trained at once, as one stack that takes each step together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from attrs import asdict, evolve

from mip.branches import leaf_branches, path_in_spec
from mip.compare import differences
from mip.errors import SpecError
from mip.files import save
from mip.model import Net, Plan, param_groups
from mip.optim import stack_optimizers
from mip.output import check_output
from mip.runs.checks import check_finite
from mip.runs.context import DEFAULT_CONTEXT, Context
from mip.runs.jobs import Job, prepare_job
from mip.runs.optimizers import first_batches, make_optimizer
from mip.runs.runner import Run
from mip.runs.trials import Outcome, Trial, held_out_scores, outcome_or_error
from mip.runs.warm_starts import build_warm, load_sources
from mip.train import Event, History, State, fit, init, stack, train_step, unstack, vmapped

PER_MODEL_FIELDS = (
    "accumulate",
    "clip_norm",
    "ema",
    "group",
    "lookahead",
    "optimizer",
    "schedule",
    "seed",
    "swa",
)
"""The fields of `[train]` that may differ between the models of a stack."""


UNSUPPORTED_FIELDS = ("compile", "patience", "plateau", "restore_best", "sam")
"""The fields of `[train]` that need a model of their own."""


def run_stacked(
    trials: Sequence[Trial],
    *,
    overwrite: bool = False,
    context: Context = DEFAULT_CONTEXT,
) -> list[Outcome]:
    """Train trials at once, as one stack of models in one process: for small models and batches,
    and for GPUs, where a step of many takes little more time than a step of one.

    All train on the same rows; their specs may differ only in `PER_MODEL_FIELDS`. All models see
    the batches of the first trial. Apart from that, rounding and dropout, each trains as it would
    in `run_trials`. The model is that of the last epoch; a trial's folder gets
    `model.safetensors`. Raises SpecError for trials that cannot be trained together, and FileError
    if such a file exists already, unless `overwrite` is set.
    """
    _check_stackable(trials)
    for trial in trials:
        if trial.out:
            check_output(trial.out / "model.safetensors", overwrite)
    began, first = time.monotonic(), trials[0]
    sources = load_sources(first.spec, context)
    # Backbones that are frozen as they were drawn differ between seeds.
    context = evolve(context, use_features=False)
    job = prepare_job(first.spec, first.parts, context, sources=sources)
    device = context.resolved_device()
    plans = [evolve(job.plan, spec=trial.spec) for trial in trials]
    nets = [
        build_warm(plan, sources, plan.spec.train.seed, first.parts.train, context.base).to(device)
        for plan in plans
    ]
    state, history = _fit(job, plans, nets)
    seconds, outcomes = time.monotonic() - began, []
    for k, (trial, plan, model) in enumerate(zip(trials, plans, unstack(state), strict=True)):
        ended = Run(plan, model, _history_of(history, k), seconds, device)
        outcomes.append(outcome_or_error(partial(_saved, ended, overwrite), trial))
    return outcomes


def _check_stackable(trials: Sequence[Trial]) -> None:
    if not trials:
        raise SpecError("there are no trials to train together")
    shared = _shared(trials[0])
    for trial in trials[1:]:
        for name, *_ in differences(shared, _shared(trial)):
            only = f"only {', '.join(PER_MODEL_FIELDS)} may"
            raise SpecError(f"{trial.name}: {name} differs; {only}")
    train = trials[0].spec.train
    asked = [f"train.{name}" for name in UNSUPPORTED_FIELDS if getattr(train, name)]
    asked += ["train.precision = 'float16'"] if train.precision == "float16" else []
    asked += ["fusion.residual"] if trials[0].spec.fusion.residual else []
    asked += [
        f"{path_in_spec(path)}.gradient_checkpointing"
        for path, branch in leaf_branches(trials[0].spec.root)
        if getattr(branch, "gradient_checkpointing", False)
    ]
    if asked:
        raise SpecError(f"{asked[0]} needs a model that is trained alone")


def _shared(trial: Trial) -> dict[str, Any]:
    fields = asdict(trial.spec, recurse=False)
    train = asdict(fields.pop("train"), recurse=False)
    shared = {f"train.{name}": train[name] for name in train if name not in PER_MODEL_FIELDS}
    return {**fields, **shared, "the training rows": frozenset(trial.parts.train.digest().items())}


def _fit(job: Job, plans: Sequence[Plan], nets: Sequence[Net]) -> tuple[State, History]:
    trains = [plan.spec.train for plan in plans]
    groups = [param_groups(plan, net) for plan, net in zip(plans, nets, strict=True)]
    optimizers = [
        make_optimizer(train, job.steps, each) for train, each in zip(trains, groups, strict=True)
    ]
    states = [
        init(net, optimizer, plan.spec.train.seed)
        for net, optimizer, plan in zip(nets, optimizers, plans, strict=True)
    ]
    starts = [
        first_batches(train, job.steps, each) for train, each in zip(trains, groups, strict=True)
    ]
    if any(each != starts[0] for each in starts):
        cure = "which train.accumulate and train.group decide too"
        raise SpecError(f"finetune.after: all models must begin with the same batch, {cure}")
    step = train_step(
        nets[0],
        job.plan.loss,
        stack_optimizers(optimizers),
        gradient_engine=vmapped,
        precision=job.plan.spec.train.precision,
        starts=starts[0],
    )
    histories = [History()]

    def keep_history(event: Event) -> None:
        if event.name == "after_fit":
            histories.append(event.history)

    state = fit(step, job.batches, stack(states), steps=job.steps, hooks=[keep_history])
    return state, histories[-1]


def _history_of(history: History, k: int) -> History:
    rows = [
        {"epoch": row["epoch"], "step": row["step"], "loss": row[f"loss.{k}"]}
        for row in history.epochs
    ]
    return History(tuple(rows))


def _saved(ended: Run, overwrite: bool, trial: Trial) -> Outcome:
    check_finite(ended.state, trial.out or trial.name)
    if trial.out:
        path = trial.out / "model.safetensors"
        save(path, ended.plan, ended.state, overwrite=overwrite)
    return Outcome(trial.name, held_out_scores(ended.predict, trial.parts), ended)
