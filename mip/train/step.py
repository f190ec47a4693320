"""The step: a pure function (state, batch) -> (state, metrics), and its in-place form."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from attrs import evolve, field, frozen
from toolz import identity
from torch import Tensor, nn

from mip.errors import DataError, MipError, MipWarning, list_first
from mip.metrics import (
    NO_METRICS,
    MetricFunction,
    MetricSet,
    StreamingMetric,
    as_number,
    check_metric_names,
    metrics_by_name,
    split_metrics,
)
from mip.optim import REPORTED, Optimizer, Params
from mip.rng import derive, generators, seeded
from mip.train.arguments import (
    check_batch,
    check_logits,
    check_loss,
    check_loss_value,
    check_optimizer,
    check_trainable,
    scalar,
)
from mip.train.failures import StepError, explain_failure
from mip.train.gradient import (
    Forward,
    GradientEngine,
    GradientRule,
    Grads,
    Objective,
    bound_tensors,
    check_not_distributed,
    eager,
    holding,
    match_strides,
    standard_gradient,
    tensor_slots,
)
from mip.train.history import STEP_INFO
from mip.train.precision import (
    Float16,
    Precision,
    all_finite,
    check_loss_scale,
    float16_of,
    halve_loss_scale,
    loss_scale,
    with_autocast,
    with_loss_scale,
)
from mip.train.replies import Skip
from mip.train.shapes import match_metrics, match_shapes
from mip.train.state import State, averaged_params, check_state, copy, init
from mip.tree import Tree

Metrics = dict[str, Any]
"""Names to numbers, or to tensors without dimensions, which stay on their device until read."""


StepFunction = Callable[[State, Any], tuple[State, Metrics]]
"""A pure function (state, batch) -> (state, metrics): a `Step`, or one of your own. The new state
must have counted one step more, and the metrics the same names every time.
"""


@frozen
class Step:
    """A training step in two forms that give the same result, bit for bit on the CPU.

    Called, it is pure: state, batch, module and global random state are not changed. `donate` may
    write into the tensors of the given state, which must not be used afterwards; `fit` uses it for
    states that nobody else has. Any pure function can serve as both.

    One that `train_step` has made also knows its module and optimizer (with the loss scale of
    float16), from which `init` makes the first state, and its streaming metrics.

    >>> def halve(state, batch):
    ...     params = {path: param / 2 for path, param in state.params.items()}
    ...     return evolve(state, params=params, step=state.step + 1), {}
    >>> Step(halve)(State({"w": torch.ones(1)}, {}, ()), None)[0].params
    {'w': tensor([0.5000])}
    """

    donate: StepFunction
    net: nn.Module | None = field(default=None, repr=False)
    optimizer: Optimizer | None = field(default=None, repr=False)
    streaming: Mapping[str, StreamingMetric] = field(default=MappingProxyType({}), repr=False)
    metric_names: tuple[str, ...] | None = None

    def __call__(self, state: State, batch: Any) -> tuple[State, Metrics]:
        return self.donate(copy(state), batch)

    def init(self, seed: int = 0) -> State:
        """Make the state before the first step from copies of the module's parameters and buffers.

        Raises MipError for a step that was not made by `train_step`: see `mip.init`.
        """
        if self.net is None or self.optimizer is None:
            raise MipError("this step has no module and optimizer: use mip.init(net, optimizer)")
        return init(self.net, self.optimizer, seed)

    def rates(self, state: State) -> dict[str, float]:
        """Return the rates that the optimizer uses in the step from a state, by name."""
        if self.optimizer is None:
            return {}
        return self.optimizer.rates(state.optimizer, state.run_step)


def measure_nothing(grads: Params, params: Params) -> Metrics:
    """Measure nothing."""
    return {}


def norms(grads: Params, params: Params) -> Metrics:
    """Measure the global 2-norms of the gradients and of the parameters.

    >>> tensors = {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}
    >>> {name: float(norm) for name, norm in norms(tensors, tensors).items()}
    {'grad_norm': 5.0, 'weight_norm': 5.0}
    """
    total = torch.nn.utils.get_total_norm
    return {"grad_norm": total(list(grads.values())), "weight_norm": total(list(params.values()))}


def train_step(
    net: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    optimizer: Optimizer,
    *,
    metrics: MetricSet = NO_METRICS,
    gradient_rule: GradientRule = standard_gradient,
    map_logits: Callable[[Any], Any] = identity,
    map_loss: Callable[[Tensor], Any] = identity,
    map_grads: Callable[[Params], Params] = identity,
    map_params: Callable[[Params], Params] = identity,
    measure: Callable[[Params, Params], Metrics] = measure_nothing,
    gradient_engine: GradientEngine = eager,
    precision: Precision | Float16 = "float32",
    skip_nonfinite: bool = False,
    starts: Mapping[str, int] = MappingProxyType({}),
) -> Step:
    """Make a training step of a module, a loss and an optimizer.

    A batch begins with (inputs, target); the loss is a mean over its rows. Loss and metrics are
    given logits and target as they are; where a function would broadcast [n, 1] and [n], or cannot
    take them, it is given both in one shape. Other shapes that the loss would broadcast are an
    error. To find out, a function is tried on made-up rows of each new shape.

    The module is scratch space while a step runs: only one step, in one thread at a time, may use
    it. A parameter with `requires_grad=False` is never changed; one that the loss does not depend
    on has gradient 0, and the first step of a training names it in a MipWarning (with the gradient
    engine `eager`).

    Raises MipError for a class in the place of a loss, an optimizer of torch, and the like; and
    when it is called, for a state of another module or optimizer, and for inputs, targets and
    shapes that module and loss cannot take, naming the layer, the step and the rows.

    Args:
        net: The module to train; `torch.compile` may have wrapped it, but nothing that spreads it
            over processes or devices.
        loss: (logits, target) to one number, the mean over the rows, as a tensor. The loss of an
            epoch is the mean of those of its batches, weighted by their rows.
        optimizer: The rule by which parameters change.
        metrics: Computed from (logits, target) of training batches: a list of names in
            `mip.metrics.NAMED`, or a dict. A function is computed at every step, with the mean over
            rows as the value of an epoch; a `StreamingMetric`, and each metric of `mip.metrics`
            that is no mean over rows, once an epoch, folded over its batches. Those of
            `mip.metrics` are computed in float64, and make a GPU wait.
        gradient_rule: May evaluate the gradient several times per step (`sharpness_aware` needs
            two); every evaluation uses the same dropout masks.
        map_logits: Applied to the logits before the loss. It may return `Skip.BATCH`.
        map_loss: Applied to the loss before the backward pass; may return `Skip.BATCH` too. While
            it runs the parameters of `net` are those of the state, so that it can add a penalty on
            the weights.
        map_grads: Applied to the gradients, by path, as soon as they are computed.
        map_params: Applied to the new parameters, by path.
        measure: (gradients before clipping, parameters before the step) to further metrics, such
            as `norms`.
        gradient_engine: How gradients are computed: `eager`, `compiled` or `vmapped`.
        precision: The dtype of most arithmetic in the passes; parameters, loss and optimizer stay
            float32. `init` must have the same; the first step raises MipError otherwise. "float16"
            scales the loss (see `Float16`) and implies `skip_nonfinite`.
        skip_nonfinite: If the loss or a gradient is not finite, keep parameters, buffers and
            optimizer as they were, and report 1 in the metric `skipped`.
        starts: The steps before which parameters are frozen, by path, counted from 0. Until then
            their gradients are 0 and are not computed; see `mip.optim.delayed`.

    >>> from mip.optim import sgd
    >>> net = nn.Linear(1, 1, bias=False)
    >>> step = train_step(net, nn.functional.mse_loss, sgd(0.5))
    >>> state = evolve(step.init(), params={"weight": torch.zeros(1, 1)})
    >>> after, metrics = step(state, (torch.ones(4, 1), torch.ones(4, 1)))
    >>> float(metrics["loss"]), float(after.params["weight"]), float(state.params["weight"])
    (1.0, 1.0, 0.0)
    """
    check_trainable(net)
    check_loss(loss)
    check_optimizer(optimizer)
    check_not_distributed(net)
    float16 = float16_of(precision)
    optimizer = with_loss_scale(optimizer, float16)
    skip_nonfinite = skip_nonfinite or float16 is not None
    device = next((param.device for param in net.parameters()), torch.device("cpu"))
    rngs = generators(device)
    metrics = metrics_by_name(metrics)
    check_logits(metrics, net, loss)
    check_metric_names(metrics, {*STEP_INFO, *REPORTED, "loss", "loss_scale", "epoch"})
    functions, streaming = split_metrics(match_metrics(metrics))
    loss = match_shapes(loss)

    objective = _objective(loss, map_logits, map_loss, keep_predictions=bool(metrics))
    backward = gradient_engine(net, with_autocast(objective, precision, device))

    def donate(state: State, batch: Any) -> tuple[State, Metrics]:
        if not net.training:
            net.train()
        scale = loss_scale(state.optimizer)
        check_loss_scale(scale, float16)
        seed = derive("step", state.seed, state.step)
        frozen = [path for path, start in starts.items() if state.step < start]
        computing = holding(backward, frozen)

        def gradient(params: Params) -> Grads:
            with seeded(seed, rngs):
                made = computing(params, state.buffers, batch, scale)
            return made._replace(grads=map_grads(_unscale(made.grads, scale)))

        made = gradient_rule(gradient, state.params)
        value, grads, buffers, predictions = made[:4]
        if made.unused and not state.step:
            _warn_of_unused([path for path in made.unused if state.params[path].numel()])
        with torch.no_grad():
            # Measured before the optimizer runs, which may clip in place.
            scores = _scores(functions, predictions, value.dim())
            measured = {**_losses(value), **scores, **measure(grads, state.params)}
            if scale is not None:
                measured["loss_scale"] = scale.clone()
            if skip_nonfinite and not all_finite(value, grads):
                held = halve_loss_scale(state.optimizer)
                return evolve(state, optimizer=held, step=state.step + 1), measured | _SKIPPED
            if skip_nonfinite:
                measured["skipped"] = 0.0
            grads = match_strides(grads, state.params)
            arguments = grads, state.optimizer, state.params, state.run_step
            _, tree, params = optimizer.update_(*arguments)
            rest = state.seed, state.total_steps, _updated(state, streaming, predictions)
        return State(map_params(params), buffers, tree, state.step + 1, *rest), measured

    why = partial(explain_failure, net, loss, optimizer)
    names = ("loss", *metrics) if measure is measure_nothing else None
    explained = _explaining(donate, [*functions], why)
    return Step(explained, net, optimizer, streaming, names)


def _explaining(
    donate: StepFunction, metrics: Sequence[str], why: Callable[..., str | None]
) -> StepFunction:
    def explained(state: State, batch: Any) -> tuple[State, Metrics]:
        check_batch(batch)
        try:
            return donate(state, batch)
        except _SkippedBatchError as skipped:
            measured = {**_losses(skipped.loss), **dict.fromkeys(metrics, torch.nan), **_SKIPPED}
            return evolve(state, step=state.step + 1), measured
        except DataError as error:  # shapes that would be broadcast
            raise StepError(state.step + 1, str(error)) from error
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            reason = why(state, batch, error)
            if reason is None:
                raise
            raise StepError(state.step + 1, reason) from error

    return explained


def _warn_of_unused(paths: Sequence[str]) -> None:
    if not paths:
        return
    named = list_first(paths, write=repr)
    what = "a parameter that the loss does not depend on"
    if len(paths) > 1:
        what = f"{len(paths)} parameters that the loss does not depend on"
    warnings.warn(f"the net has {what}: {named}", MipWarning, stacklevel=2)


_SKIPPED = {"skipped": 1.0}
"""What a step measures that changes nothing."""


class _SkippedBatchError(Exception):
    """Raised to leave a step whose batch is skipped; holds the loss, if it was computed."""

    def __init__(self, loss: Tensor) -> None:
        super().__init__()
        self.loss = loss


def _objective(
    loss: Callable[[Any, Any], Tensor],
    map_logits: Callable[[Any], Any],
    map_loss: Callable[[Tensor], Any],
    keep_predictions: bool,
) -> Objective:
    def objective(forward: Forward, batch: Any) -> tuple[Tensor, Any]:
        logits = map_logits(forward(batch[0]))
        if logits is Skip.BATCH:
            raise _SkippedBatchError(torch.full((), torch.nan))
        if logits is None:
            raise DataError("map_logits returned None: it must return the logits")
        unmapped = check_loss_value(loss(logits, batch[1]), "the loss")
        value = map_loss(unmapped)
        if value is Skip.BATCH:
            raise _SkippedBatchError(unmapped.detach())
        if value is not unmapped:
            value = check_loss_value(value, "map_loss")
        return scalar(value), (logits, batch[1]) if keep_predictions else ()

    return objective


def _losses(value: Tensor) -> Metrics:
    if not value.dim():
        return {"loss": value}
    # Stacked models have one loss each.
    return {"loss": value.mean(), **{f"loss.{k}": loss for k, loss in enumerate(value)}}


def _unscale(grads: Params, scale: Tensor | None) -> Params:
    if scale is None:
        return grads
    return {path: grad / scale for path, grad in grads.items()}


def _scores(functions: Mapping[str, MetricFunction], predictions: Any, stacked: int) -> Metrics:
    if not stacked:
        return {
            name: as_number(name, function(*predictions)) for name, function in functions.items()
        }
    # Stacked models have predictions of their own.
    models = list(zip(*predictions, strict=True)) if functions else []
    return {
        f"{name}.{k}": as_number(name, function(*pair))
        for name, function in functions.items()
        for k, pair in enumerate(models)
    }


def _updated(
    state: State, streaming: Mapping[str, StreamingMetric], predictions: Any
) -> dict[str, Any]:
    return {
        name: metric.update(
            state.metrics[name] if name in state.metrics else metric.init(), *predictions
        )
        for name, metric in streaming.items()
    }


def eval_step(net: nn.Module) -> Callable[[State, Any], Tree]:
    """Make a pure function (state, inputs) -> logits, in evaluation mode and without gradients,
    with the averaged parameters if the state has any.

    The module must not be that of a training step, which may be in use. Raises MipError when it is
    called with anything but a state.
    """
    check_not_distributed(net)
    slots = tensor_slots(net)

    @torch.no_grad()
    def logits(state: State, inputs: Any) -> Tree:
        check_state(state)
        net.eval()
        with bound_tensors(slots, state.params | averaged_params(state) | state.buffers):
            return net(inputs)

    return logits
