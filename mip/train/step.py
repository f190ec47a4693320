"""The step: a pure function (state, batch) -> (state, metrics), and its in-place form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from attrs import evolve, frozen
from toolz import identity
from torch import Tensor, nn

from mip.errors import DataError, MipError
from mip.optim import Optimizer, Params, find_averages
from mip.rng import derive, generators, seeded
from mip.train.gradient import (
    Forward,
    GradientEngine,
    GradientRule,
    Grads,
    bound_tensors,
    check_not_distributed,
    eager,
    match_strides,
    saved_buffers,
    standard_gradient,
    tensor_slots,
    trainable_params,
)
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
from mip.tree import Tree, clone, map_tree, stack_trees

Metrics = dict[str, Any]
"""Names to numbers, or to tensors without dimensions, which stay on their device until read."""


@frozen
class State:
    """Everything that changes during training: tensors and the number of steps taken.

    `seed` and `step` together determine all random choices of the steps that follow.
    """

    params: Params
    buffers: Params
    optimizer: Tree
    step: int = 0
    seed: int = 0


def init(
    net: nn.Module,
    optimizer: Optimizer,
    seed: int = 0,
    *,
    precision: Precision | Float16 = "float32",
) -> State:
    """Make the state before the first step from copies of a module's parameters and buffers.

    `precision` must be that of `train_step`. Raises MipError, as `train_step` and `eval_step` do,
    for a module that is wrapped for several processes or devices.
    """
    check_not_distributed(net)
    params = clone(trainable_params(net))
    optimizer = with_loss_scale(optimizer, float16_of(precision))
    return State(params, clone(saved_buffers(net)), optimizer.init(params), 0, seed)


def copy(state: State, into: State | None = None) -> State:
    """Copy a state's tensors: to new memory, or to that of `into`, which is overwritten."""
    trees = [(each.params, each.buffers, each.optimizer) for each in (state, into) if each]
    params, buffers, optimizer = clone(*trees)
    return State(params, buffers, optimizer, state.step, state.seed)


def stack(states: Sequence[State]) -> State:
    """Stack the states of several models of one shape into one: parameters and buffers are
    [models, …], the optimizers' states a tuple. They are trained together by
    `train_step(net, loss, stack_optimizers(optimizers), gradient_engine=vmapped)`.

    >>> from mip.optim import sgd
    >>> stacked = stack([init(nn.Linear(3, 1), sgd(0.1)) for _ in range(2)])
    >>> stacked.params["weight"].shape, len(unstack(stacked))
    (torch.Size([2, 1, 3]), 2)
    """
    params, buffers = stack_trees([(state.params, state.buffers) for state in states])
    optimizers = tuple(state.optimizer for state in states)
    return evolve(states[0], params=params, buffers=buffers, optimizer=optimizers)


def unstack(state: State) -> list[State]:
    """Return the states that `stack` put together, as views."""
    states = []
    for k, optimizer in enumerate(state.optimizer):
        tensors = state.params, state.buffers
        params, buffers = map_tree(lambda leaf: leaf[k], tensors)  # noqa: B023
        states.append(evolve(state, params=params, buffers=buffers, optimizer=optimizer))
    return states


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

    >>> def halve(state, batch):
    ...     params = {path: param / 2 for path, param in state.params.items()}
    ...     return State(params, state.buffers, state.optimizer, state.step + 1, state.seed), {}
    >>> Step(halve)(State({"w": torch.ones(1)}, {}, ()), None)[0].params
    {'w': tensor([0.5000])}
    """

    donate: StepFunction

    def __call__(self, state: State, batch: Any) -> tuple[State, Metrics]:
        return self.donate(copy(state), batch)


def with_averaged_params(state: State) -> State:
    """Return the state with the averages that `ema`, `swa` or `schedule_free` keep as its
    parameters; without such averages, the state itself.

    Averages are what is validated, predicts and is saved as a model; training and checkpoints go on
    with the parameters themselves.

    >>> from mip.optim import chain, ema, sgd
    >>> net, optimizer = nn.Linear(1, 1, bias=False), chain(sgd(1.0), ema(0.5))
    >>> with_averaged_params(init(net, optimizer)).params["weight"].equal(net.weight)
    True
    """
    means = _averages(state)
    return evolve(state, params={**state.params, **clone(means)}) if means else state


def _averages(state: State) -> Params:
    averages = find_averages(state.optimizer)
    return {path: mean for params in averages for path, mean in params.items()}


def update_bn(net: nn.Module, state: State, batches: Iterable[Any]) -> State:
    """Recompute the statistics of batch norms for the averaged parameters of a state, by a pass
    over batches (`torch.optim.swa_utils.update_bn`): those in the state belong to the parameters
    that were trained. A state without averages is returned as it is, and buffers do not change in a
    module without batch norms. Raises DataError if there are no batches.

    >>> from mip.optim import chain, sgd, swa
    >>> net, optimizer = nn.BatchNorm1d(1, affine=False), chain(sgd(0.1), swa())
    >>> state = evolve(init(net, optimizer), optimizer=optimizer.init({"w": torch.ones(1)}))
    >>> update_bn(net, state, [(torch.tensor([[1.0], [3.0]]),)]).buffers["running_mean"]
    tensor([2.])
    """
    means = _averages(state)
    if not means:
        return state
    buffers, seed = clone(state.buffers), derive("settled", state.seed)
    device = next((buffer.device for buffer in buffers.values()), None)
    tensors = state.params | means | buffers
    with bound_tensors(tensor_slots(net), tensors), seeded(seed, generators(device)):
        torch.optim.swa_utils.update_bn(_at_least_one(batches), net)
    return evolve(state, buffers=buffers)


def _at_least_one(batches: Iterable[Any]) -> Iterator[Any]:
    batch = None
    for batch in batches:
        yield batch
    if batch is None:
        raise DataError("update_bn: there are no batches")


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
    gradient_rule: GradientRule = standard_gradient,
    map_logits: Callable[[Any], Any] = identity,
    map_loss: Callable[[Tensor], Tensor] = identity,
    map_grads: Callable[[Params], Params] = identity,
    map_params: Callable[[Params], Params] = identity,
    measure: Callable[[Params, Params], Metrics] = measure_nothing,
    gradient_engine: GradientEngine = eager,
    precision: Precision | Float16 = "float32",
    skip_nonfinite: bool = False,
) -> Step:
    """Make a training step of a module, a loss and an optimizer.

    A batch begins with (inputs, target); the loss is a mean over its rows. The module is scratch
    space: only one step, in one thread at a time, may use it. A parameter with
    `requires_grad=False` is never changed; one that the loss does not depend on has gradient 0.

    Args:
        net: The module to train; `torch.compile` may have wrapped it, but nothing that spreads it
            over processes or devices.
        loss: (logits, target) to a tensor without dimensions, the mean over the rows.
        optimizer: The rule by which parameters change.
        gradient_rule: May evaluate the gradient several times per step (`sharpness_aware` needs
            two); every evaluation uses the same dropout masks.
        map_logits: Applied to the logits before the loss.
        map_loss: Applied to the loss before the backward pass. While it runs the parameters of
            `net` are those of the state, so that it can add a penalty on the weights.
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

    >>> from mip.optim import sgd
    >>> net = nn.Linear(1, 1, bias=False); optimizer = sgd(0.5)
    >>> step = train_step(net, nn.functional.mse_loss, optimizer)
    >>> state = evolve(init(net, optimizer), params={"weight": torch.zeros(1, 1)})
    >>> after, metrics = step(state, (torch.ones(4, 1), torch.ones(4, 1)))
    >>> float(metrics["loss"]), float(after.params["weight"]), float(state.params["weight"])
    (1.0, 1.0, 0.0)
    """

    def objective(forward: Forward, batch: Any) -> Tensor:
        return map_loss(loss(map_logits(forward(batch[0])), batch[1]))

    check_not_distributed(net)
    float16 = float16_of(precision)
    optimizer = with_loss_scale(optimizer, float16)
    skip_nonfinite = skip_nonfinite or float16 is not None
    device = next((param.device for param in net.parameters()), torch.device("cpu"))
    rngs = generators(device)
    backward = gradient_engine(net, with_autocast(objective, precision, device))

    def donate(state: State, batch: Any) -> tuple[State, Metrics]:
        if isinstance(batch, (Tensor, dict)):
            raise MipError(f"a batch must be (inputs, target), not {type(batch).__name__}")
        if not net.training:
            net.train()
        seed = derive("step", state.seed, state.step)
        scale = loss_scale(state.optimizer)
        check_loss_scale(scale, float16)

        def gradient(params: Params) -> Grads:
            with seeded(seed, rngs):
                value, grads, buffers = backward(params, state.buffers, batch, scale)
            return value, map_grads(_unscale(grads, scale)), buffers

        value, grads, buffers = gradient_rule(gradient, state.params)
        with torch.no_grad():
            # Measured before the optimizer runs, which may clip in place.
            metrics = {**_losses(value), **measure(grads, state.params)}
            if scale is not None:
                metrics["loss_scale"] = scale.clone()
            if skip_nonfinite:
                metrics["skipped"] = 0.0 if all_finite(value, grads) else 1.0
                if metrics["skipped"]:
                    held = halve_loss_scale(state.optimizer)
                    return evolve(state, optimizer=held, step=state.step + 1), metrics
            grads = match_strides(grads, state.params)
            _, tree, params = optimizer.update_(grads, state.optimizer, state.params, state.step)
            params = map_params(params)
        return State(params, buffers, tree, state.step + 1, state.seed), metrics

    return Step(donate)


def _losses(value: Tensor) -> Metrics:
    if not value.dim():
        return {"loss": value}
    # Stacked models have one loss each.
    return {"loss": value.mean(), **{f"loss.{k}": loss for k, loss in enumerate(value)}}


def _unscale(grads: Params, scale: Tensor | None) -> Params:
    if scale is None:
        return grads
    return {path: grad / scale for path, grad in grads.items()}


def eval_step(net: nn.Module) -> Callable[[State, Any], Tree]:
    """Make a pure function (state, inputs) -> logits, in evaluation mode and without gradients,
    with the averaged parameters if the state has any.

    The module must not be that of a training step, which may be in use.
    """
    check_not_distributed(net)
    slots = tensor_slots(net)

    @torch.no_grad()
    def logits(state: State, inputs: Any) -> Tree:
        net.eval()
        with bound_tensors(slots, state.params | _averages(state) | state.buffers):
            return net(inputs)

    return logits
