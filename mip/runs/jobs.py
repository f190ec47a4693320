"""From a spec and its rows to a job: all that training needs before its first step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any

from attrs import evolve, frozen

from mip.files import Checkpoint
from mip.hooks import validate
from mip.model import Parts, Plan, adapt, build, param_groups
from mip.optim import Optimizer, Params, Schedule
from mip.pipe import Pipe
from mip.runs.checks import check_batch_norm, check_groups, check_residual, check_targets
from mip.runs.context import DEFAULT_CONTEXT, Context
from mip.runs.feeding import feature_plan, rows_pipe, train_pipe
from mip.runs.optimizers import first_batches, make_optimizer, make_optimizer_at
from mip.runs.training import make_step, training_hooks
from mip.runs.warm_starts import Sources, adopt_facts, build_warm, load_sources
from mip.spec import Spec
from mip.train import (
    History,
    Hook,
    LRCurve,
    Metrics,
    State,
    Step,
    find_lr,
    init,
    measure_nothing,
    update_bn,
    with_averaged_params,
)


@frozen
class Job:
    """A run before its first step.

    It takes `steps` steps in all, from the state in `start`: the initial one, or that of the
    checkpoint it resumes from. `metric` chooses the best epoch, if there are valid rows.
    """

    plan: Plan
    step: Step
    batches: Pipe
    start: Checkpoint
    hooks: tuple[Hook, ...]
    steps: int
    metric: str | None = None


def prepare_job(
    spec: Spec,
    parts: Parts,
    context: Context = DEFAULT_CONTEXT,
    *,
    sources: Sources | None = None,
    origin: Mapping[str, Any] = MappingProxyType({}),
    measure: Callable[[Params, Params], Metrics] = measure_nothing,
) -> Job:
    """Adapt a plan to the training rows and build its net, pipe, optimizer, step and hooks.

    `sources` are the trained models of `[warm_start]`, by default read from their files; `origin`
    describes a run for its checkpoints, and has the digests of its rows; `measure` is that of
    `train_step`. Raises SpecError or DataError for what would fail later.
    """
    sources = load_sources(spec, context) if sources is None else sources
    plan = adopt_facts(adapt(spec, parts.train, origin.get("train rows"), context.base), sources)
    check_residual(plan, parts.train)
    return job_of_plan(plan, parts, sources, context, origin=origin, measure=measure)


def job_of_plan(
    plan: Plan,
    parts: Parts,
    sources: Sources,
    context: Context = DEFAULT_CONTEXT,
    *,
    origin: Mapping[str, Any] = MappingProxyType({}),
    measure: Callable[[Params, Params], Metrics] = measure_nothing,
) -> Job:
    """Build the net, pipe, optimizer, step and hooks of a plan; see `prepare_job`."""
    train, device = plan.spec.train, context.resolved_device()
    net = build_warm(plan, sources, train.seed, parts.train, context.base).to(device)
    check_batch_norm(plan, net, len(parts.train))
    check_targets(plan, parts)
    encoding = feature_plan(plan.fused, net, parts.train, context, augmented=True)
    batches = train_pipe(encoding, parts.train, context)
    steps = train.epochs * len(batches)
    check_groups(train, net, steps)
    groups = param_groups(plan, net)
    optimizer = make_optimizer(train, steps, groups)
    hooks = training_hooks(train, has_valid=len(parts.valid) > 0)
    if len(parts.valid):
        valid_net = build(plan, pretrain=False).to(device)
        encoding = feature_plan(plan, net, parts.valid, context)
        valid = rows_pipe(encoding, parts.valid, 256, context)
        hooks.insert(0, validate(plan, valid, net=valid_net))
    start = init(net, optimizer, train.seed, precision=train.precision)
    return Job(
        plan=plan,
        step=make_step(plan, net, optimizer, measure, first_batches(train, steps, groups)),
        batches=batches,
        start=Checkpoint(start, History(), origin),
        hooks=tuple(hooks),
        steps=steps,
        metric="valid/loss" if len(parts.valid) else None,
    )


def with_updated_bn(job: Job, state: State) -> State:
    """Recompute the statistics of batch norms for averaged parameters, by an epoch of the job; see
    `mip.train.update_bn`. Those of residual branches stay as they are: training does not run them.
    """
    if with_averaged_params(state) is state:
        return state
    device = next((param.device for param in state.params.values()), None)
    net = build(job.plan, pretrain=False).to(device)
    updated = update_bn(net, state, islice(job.batches.iter_from(0), len(job.batches)))
    names = tuple(f"body.branch.{name}." for name in job.plan.spec.fusion.residual)
    kept = {path: leaf for path, leaf in state.buffers.items() if path.startswith(names)}
    return evolve(updated, buffers={**updated.buffers, **kept})


def lr_range_test(
    spec: Spec, parts: Parts, steps: int = 100, *, context: Context = DEFAULT_CONTEXT
) -> LRCurve:
    """Run a learning-rate range test on a spec's model and training rows; see `find_lr`.

    It trains as a run does, with its accumulation, precision and rule of gradients. Nothing is
    saved. A parameter group is trained at its multiple of each rate, from its `start_epoch` on.
    """
    train = spec.train
    sources = load_sources(spec, context)
    plan = adopt_facts(adapt(spec, parts.train, base=context.base), sources)
    net = build_warm(plan, sources, train.seed, parts.train, context.base)
    net = net.to(context.resolved_device())
    check_batch_norm(plan, net, len(parts.train))
    encoding = feature_plan(plan, net, parts.train, context, augmented=True)
    batches = train_pipe(encoding, parts.train, context)
    n_batches = train.epochs * len(batches)
    check_groups(train, net, n_batches)
    groups = param_groups(plan, net)
    starts = first_batches(train, n_batches, groups)

    def optimizer(lr: Schedule) -> Optimizer:
        scaled = lambda scale: lambda step: scale * lr(step)  # noqa: E731
        return make_optimizer_at(train, n_batches, scaled, groups)

    state = init(net, optimizer(lambda step: 0.0), train.seed, precision=train.precision)
    step_at = lambda lr: make_step(plan, net, optimizer(lr), starts=starts)  # noqa: E731
    return find_lr(step_at, batches, state, steps=steps, accumulate=train.accumulate)
