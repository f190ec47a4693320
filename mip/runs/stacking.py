"""Many models trained at once: a stack of them takes each step together."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, fields

from mip.errors import MipError, SpecError
from mip.files import save
from mip.model import Net, Plan
from mip.optim import stack_optimizers
from mip.output import check_output
from mip.runs.jobs import Job, Run, check_numbers, device_here, job
from mip.runs.sweeps import Outcome, Trial, failed, scores_of
from mip.runs.training import optimizer_of
from mip.runs.warm_starts import build_warm, load_sources
from mip.spec import KINDS
from mip.train import Event, History, State, fit, init, stack, train_step, unstack, vmapped

OWN = (
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
"""What of `[train]` may differ between models that are trained together."""


REFUSED = ("compile", "patience", "plateau", "restore_best", "sam")
"""What of `[train]` looks at one model alone."""


def together(
    trials: Sequence[Trial],
    *,
    overwrite: bool = False,
    kinds: Mapping[str, type] = KINDS,
    device: str | None = None,
    base: str | Path = ".",
    cache: str | Path | None = None,
) -> list[Outcome]:
    """Train trials at once, as one stack of models in one process: for small models and batches,
    and for GPUs, where a step of many takes little more time than one.

    The specs may differ in the seed and in what makes the optimizer (`OWN`), and all learn from the
    same rows. Every model sees the batches of the first, in which alone it differs from its run in
    `runs`, up to rounding and dropout. The model is that of the last epoch; a trial's folder gets
    `model.safetensors`. Raises SpecError for trials that cannot be trained together, and FileError
    where such a file exists already, unless `overwrite` says to replace it.
    """
    _check_together(trials)
    for trial in trials:
        if trial.out:
            check_output(trial.out / "model.safetensors", overwrite)
    began, device = time.monotonic(), device or device_here()
    sources = load_sources(trials[0].spec, base, kinds)
    first = job(trials[0].spec, trials[0].parts, device, cache, sources)
    plans = [evolve(first.plan, spec=each.spec) for each in trials]
    nets = [build_warm(plan, sources, plan.spec.train.seed).to(device) for plan in plans]
    state, history = _stacked(first, plans, nets)
    seconds = time.monotonic() - began
    each = zip(trials, plans, unstack(state), strict=True)
    return [
        _ended(trial, Run(plan, own, _of(history, k), seconds, device), overwrite)
        for k, (trial, plan, own) in enumerate(each)
    ]


def _check_together(trials: Sequence[Trial]) -> None:
    if not trials:
        raise SpecError("there are no trials to train together")
    first, *others = [_shared(trial) for trial in trials]
    for trial, shared in zip(trials[1:], others, strict=True):
        for name in first:
            if first[name] != shared[name]:
                raise SpecError(f"{trial.name}: {name} differs; only {', '.join(OWN)} may")
    train = trials[0].spec.train
    asked = [name for name in REFUSED if getattr(train, name)]
    asked += ["precision = 'float16'"] if train.precision == "float16" else []
    if asked:
        raise SpecError(f"train.{asked[0]} is for models that are trained alone")


def _shared(trial: Trial) -> dict[str, Any]:
    train = {f"train.{name}": value for name, value in _fields(trial.spec.train) if name not in OWN}
    rest = {name: value for name, value in _fields(trial.spec) if name != "train"}
    return rest | train | {"the rows": trial.parts.train.digest()}


def _fields(one: Any) -> Iterator[tuple[str, Any]]:
    return ((each.name, getattr(one, each.name)) for each in fields(type(one)))


def _stacked(first: Job, plans: Sequence[Plan], nets: Sequence[Net]) -> tuple[State, History]:
    optimizers = [optimizer_of(plan.spec.train, first.steps) for plan in plans]
    pairs = zip(nets, optimizers, plans, strict=True)
    states = [init(net, one, plan.spec.train.seed) for net, one, plan in pairs]
    how, all_of_them = first.plan.spec.train, stack_optimizers(optimizers)
    step = train_step(
        nets[0], first.plan.loss, all_of_them, gradient_engine=vmapped, precision=how.precision
    )
    histories = [History()]

    def keep(event: Event) -> None:
        if event.name == "after_fit":
            histories.append(event.history)

    state = fit(step, first.batches, stack(states), steps=first.steps, hooks=[keep])
    return state, histories[-1]


def _of(history: History, k: int) -> History:
    rows = [{**row, "loss": row[f"loss.{k}"]} for row in history.epochs]
    return History(tuple({name: row[name] for name in ("epoch", "step", "loss")} for row in rows))


def _ended(trial: Trial, run: Run, overwrite: bool) -> Outcome:
    try:
        check_numbers(run.state, trial.out or trial.name)
        if trial.out:
            path = trial.out / "model.safetensors"
            save(path, run.plan, run.state, overwrite=overwrite)
        return Outcome(trial.name, scores_of(run.predict, trial.parts), run)
    except MipError as error:
        return failed(trial, error)
