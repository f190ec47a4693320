"""The state of a training: everything that changes, as a value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
from attrs import evolve, field, frozen
from torch import nn

from mip.compare import differences
from mip.errors import DataError, MipError
from mip.optim import Optimizer, Params, RunStep, find_averages
from mip.rng import derive, generators, seeded
from mip.train.arguments import check_net, check_optimizer
from mip.train.gradient import (
    bound_tensors,
    check_not_distributed,
    path_of,
    saved_buffers,
    tensor_slots,
    trainable_params,
    written_buffers,
)
from mip.train.precision import Float16, Precision, float16_of, with_loss_scale
from mip.tree import Tree, clone, map_tree, stack_trees


@frozen(repr=False)
class State:
    """Everything that changes during training: tensors and the number of steps taken.

    `seed` and `step` together determine all random choices of the steps that follow. `total_steps`
    is the length of the run, if it is known: `fit` sets it, for schedules that span the run.
    `metrics` holds the accumulators of streaming metrics over the epoch so far.
    """

    params: Params
    buffers: Params
    optimizer: Tree
    step: int = 0
    seed: int = 0
    total_steps: int | None = None
    metrics: dict[str, Any] = field(factory=dict)

    def __repr__(self) -> str:
        numbers = sum(param.numel() for param in self.params.values())
        params = f"{len(self.params)} parameters of {numbers:,} numbers"
        return f"{type(self).__name__}(step={self.step}, seed={self.seed}, {params})"

    @property
    def run_step(self) -> int:
        """The step as schedules take it."""
        return self.step if self.total_steps is None else RunStep(self.step, self.total_steps)


def check_state(state: Any) -> None:
    """Raise MipError for anything but a state.

    >>> check_state(nn.Linear(1, 1))
    Traceback (most recent call last):
    mip.errors.MipError: the state must be a State, not Linear: step.init() makes the first one, \
and fit returns the last
    """
    if isinstance(state, State):
        return
    if getattr(state, "__name__", "") == "init":
        raise MipError("the state is the function init: call it, as in step.init(seed=0)")
    is_checkpoint = isinstance(getattr(state, "state", None), State)
    made = "step.init() makes the first one, and fit returns the last"
    cure = "it has one as .state" if is_checkpoint else made
    raise MipError(f"the state must be a State, not {type(state).__name__}: {cure}")


def init(
    net: nn.Module,
    optimizer: Optimizer,
    seed: int = 0,
    *,
    precision: Precision | Float16 = "float32",
) -> State:
    """Make the state before the first step from copies of a module's parameters and buffers, as
    they are: `seed` is that of the random choices in training, and changes no weights. What is
    loaded into the module, edited or frozen later does not reach the state: do it before.

    `precision` must be that of `train_step`. Raises MipError, as `train_step` does, for what is no
    module or no optimizer, and for a module that is wrapped for several processes or devices.
    """
    check_net(net)
    check_optimizer(optimizer)
    check_not_distributed(net)
    params = clone(trainable_params(net))
    optimizer = with_loss_scale(optimizer, float16_of(precision))
    return State(params, clone(saved_buffers(net)), optimizer.init(params), 0, seed)


def copy(state: State, into: State | None = None) -> State:
    """Copy a state's tensors: to new memory, or to that of `into`, which is overwritten."""
    trees = [(each.params, each.buffers, each.optimizer) for each in (state, into) if each]
    params, buffers, optimizer = clone(*trees)
    rest = state.step, state.seed, state.total_steps, clone(state.metrics)
    return State(params, buffers, optimizer, *rest)


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
    means = averaged_params(state)
    return evolve(state, params={**state.params, **clone(means)}) if means else state


def averaged_params(state: State) -> Params:
    """Return the averages of the parameters that a state keeps, by path; most keep none."""
    averages = find_averages(state.optimizer)
    return {path: mean for params in averages for path, mean in params.items()}


def update_bn(net: nn.Module, state: State, batches: Iterable[Any]) -> State:
    """Recompute the statistics of batch norms for the averaged parameters of a state, by a pass
    over batches (`torch.optim.swa_utils.update_bn`): those in the state belong to the parameters
    that were trained. A state without averages is returned as it is, and buffers do not change in a
    module without batch norms. Batch norms that stay in evaluation mode when the net trains, as in
    a frozen backbone, keep their statistics. Raises DataError if there are no batches.

    >>> from mip.optim import chain, sgd, swa
    >>> net, optimizer = nn.BatchNorm1d(1, affine=False), chain(sgd(0.1), swa())
    >>> state = evolve(init(net, optimizer), optimizer=optimizer.init({"w": torch.ones(1)}))
    >>> update_bn(net, state, [(torch.tensor([[1.0], [3.0]]),)]).buffers["running_mean"]
    tensor([2.])
    """
    means = averaged_params(state)
    if not means:
        return state
    buffers, seed = clone(state.buffers), derive("settled", state.seed)
    device = next((buffer.device for buffer in buffers.values()), None)
    tensors, was_training = state.params | means | buffers, net.training
    # torch would also reset the statistics of frozen batch norms, which no pass brings back.
    written = written_buffers(net.train())() & buffers.keys()
    with bound_tensors(tensor_slots(net), tensors), seeded(seed, generators(device)):
        torch.optim.swa_utils.update_bn(_at_least_one(batches), net)
    net.train(was_training)
    return evolve(state, buffers=state.buffers | {path: buffers[path] for path in written})


def _at_least_one(batches: Iterable[Any]) -> Iterator[Any]:
    batch = None
    for batch in batches:
        yield batch
    if batch is None:
        raise DataError("update_bn: there are no batches")


def module(net: nn.Module, state: State) -> nn.Module:
    """Return a copy of a module that holds the parameters (their averages, if the state keeps any)
    and the buffers of a state, in evaluation mode; the module itself is not changed.

    Raises MipError for the state of another module.

    >>> from mip.optim import sgd
    >>> net = nn.Linear(1, 1, bias=False); state = init(net, sgd(0.1))
    >>> trained = module(net, evolve(state, params={"weight": torch.ones(1, 1)}))
    >>> trained(torch.ones(1, 1)).item(), trained.training
    (1.0, False)
    """
    check_net(net)
    copied = deepcopy(net)
    load_state(copied, state)
    return copied.eval()


def load_state(net: nn.Module, state: State) -> None:
    """Write the parameters (their averages, if the state keeps any) and the buffers of a state into
    a module, in place.

    Raises MipError for the state of another module.
    """
    check_net(net)
    check_state(state)
    check_tensors(net, state)
    tensors = state.params | averaged_params(state) | state.buffers
    with torch.no_grad():
        for store, name, path in tensor_slots(net):
            store[name].copy_(tensors[path])


def check_frozen(net: nn.Module, state: State) -> None:
    """Raise MipError if a state trains a parameter that requires no gradient in a module, or holds
    one fixed that requires it: it was made before these were frozen.

    >>> from mip.optim import sgd
    >>> net = nn.Linear(1, 1); state = init(net, sgd(0.1))
    >>> check_frozen(net.requires_grad_(False), state)
    Traceback (most recent call last):
    mip.errors.MipError: the state trains 'weight' and 1 more, which the net has frozen since \
(requires_grad=False): step.init() makes a state of the net as it is now
    """
    since = {True: "the net trains now (requires_grad=True)"}
    since[False] = "the net has frozen since (requires_grad=False)"
    for requires, held in ((False, state.params), (True, state.buffers)):
        params = {path_of(name): param for name, param in net.named_parameters()}
        changed = [k for k, p in params.items() if p.requires_grad is requires and k in held]
        if changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            holds = "holds fixed" if requires else "trains"
            raise MipError(
                f"the state {holds} '{changed[0]}'{more}, which {since[requires]}: step.init() "
                "makes a state of the net as it is now"
            )


def is_stacked(net: nn.Module, state: State) -> bool:
    """Return whether a state is that of several models of this module, made by `stack`."""
    return any(
        path in state.params and state.params[path].dim() == param.dim() + 1
        for path, param in trainable_params(net).items()
    )


def check_tensors(net: nn.Module, state: State) -> None:
    """Raise MipError if a state's parameters and buffers are not those of a module."""
    tensors = trainable_params(net) | saved_buffers(net)
    expected = {path: list(tensor.shape) for path, tensor in tensors.items()}
    held = {path: list(tensor.shape) for path, tensor in (state.params | state.buffers).items()}
    for name, shape, wanted in differences(held, expected):
        raise MipError(
            f"the state belongs to another module: '{name}' is {shape} in the state and {wanted} "
            "in the module; step.init() makes the state of a step's module"
        )
