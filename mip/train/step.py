"""The step: a pure function (state, batch) -> (state, metrics), and its in-place form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from attrs import evolve, frozen
from toolz import identity
from torch import Tensor, nn

from mip.errors import DataError, MipError
from mip.optim import Optimizer, Params, find_averages, halve_loss_scale, loss_scale
from mip.rng import derive, generators, seeded
from mip.train.gradient import (
    Forward,
    GradientEngine,
    GradientRule,
    Precision,
    all_finite,
    bound_tensors,
    check_not_distributed,
    eager,
    match_strides,
    saved_buffers,
    standard_gradient,
    tensor_slots,
    trainable_params,
    with_autocast,
)
from mip.tree import Tree, clone, map_tree, stack_trees

Metrics = dict[str, Any]
"""Names to numbers, or to tensors of no dimensions that stay on their device until read."""


@frozen
class State:
    """All that a run is at one moment: tensors and two integers.

    `step` counts the steps taken; with `seed` it fixes every draw that comes.
    """

    params: Params
    buffers: Params
    optimizer: Tree
    step: int = 0
    seed: int = 0


def init(net: nn.Module, optimizer: Optimizer, seed: int = 0) -> State:
    """Make the state before step 0 from a module's parameters and buffers, copied.

    Raises MipError for a module that is wrapped for several processes or devices, as `train_step`
    and `eval_step` do.
    """
    check_not_distributed(net)
    params = clone(trainable_params(net))
    return State(params, clone(saved_buffers(net)), optimizer.init(params), 0, seed)


def copy(state: State, into: State | None = None) -> State:
    """Copy a state's tensors; into those of `into`, which is lost to the caller, where given."""
    trees = [(each.params, each.buffers, each.optimizer) for each in (state, into) if each]
    params, buffers, optimizer = clone(*trees)
    return State(params, buffers, optimizer, state.step, state.seed)


def stack(states: Sequence[State]) -> State:
    """Make one state of those of several models of one shape: parameters and buffers [models, …],
    and a tuple of the optimizers' states. A step of them all is
    `train_step(net, loss, stack_optimizers(optimizers), gradient_engine=vmapped)`.

    >>> from mip.optim import sgd
    >>> both = stack([init(nn.Linear(3, 1), sgd(0.1)) for _ in range(2)])
    >>> both.params["weight"].shape, len(unstack(both))
    (torch.Size([2, 1, 3]), 2)
    """
    params, buffers = stack_trees([(each.params, each.buffers) for each in states])
    return evolve(
        states[0], params=params, buffers=buffers, optimizer=tuple(s.optimizer for s in states)
    )


def unstack(state: State) -> list[State]:
    """Give the states that `stack` put together: views, not copies."""
    pairs = [
        map_tree(lambda leaf: leaf[k], (state.params, state.buffers))  # noqa: B023
        for k in range(len(state.optimizer))
    ]
    return [
        evolve(state, params=params, buffers=buffers, optimizer=own)
        for (params, buffers), own in zip(pairs, state.optimizer, strict=True)
    ]


StepFunction = Callable[[State, Any], tuple[State, Metrics]]
"""A pure function (state, batch) -> (state, metrics): a `Step`, or one of your own."""


@frozen
class Step:
    """A training step in two forms with one meaning, bit for bit on the CPU.

    Called, it is pure: neither the state, the batch, the module nor the global random state
    changes. `donate` does the same and may write into the state it is given, which is lost to
    the caller; `fit` uses it for states that nobody else can see. A pure function is both, so any
    can be a step. Its state must have counted one step more, its metrics the same names each time.

    >>> def halve(state, batch):
    ...     params = {path: param / 2 for path, param in state.params.items()}
    ...     return State(params, state.buffers, state.optimizer, state.step + 1, state.seed), {}
    >>> Step(halve)(State({"w": torch.ones(1)}, {}, ()), None)[0].params
    {'w': tensor([0.5000])}
    """

    donate: Callable[[State, Any], tuple[State, Metrics]]

    def __call__(self, state: State, batch: Any) -> tuple[State, Metrics]:
        return self.donate(copy(state), batch)


def with_averaged_params(state: State) -> State:
    """Give the state whose parameters are the averages that `ema`, `swa` or `schedule_free` keep;
    where none does it is the state itself. A state is validated, predicts and is saved as a model
    by them; it trains on, and is kept in checkpoints, as it is.

    >>> from mip.optim import chain, ema, sgd
    >>> net, one = nn.Linear(1, 1, bias=False), chain(sgd(1.0), ema(0.5)); state = init(net, one)
    >>> with_averaged_params(state).params["weight"].equal(net.weight)
    True
    """
    means = _means(state)
    return evolve(state, params={**state.params, **clone(means)}) if means else state


def _means(state: State) -> Params:
    return {path: mean for each in find_averages(state.optimizer) for path, mean in each.items()}


def update_bn(net: nn.Module, state: State, batches: Iterable[Any]) -> State:
    """Measure the statistics of batch norms anew for the averages that a state keeps, by one pass
    over batches (`torch.optim.swa_utils.update_bn`): those in the state are of the weights as they
    were trained. A state without averages, and a module without batch norms, stays as it is.
    Raises DataError where there are no batches.

    >>> from mip.optim import chain, sgd, swa
    >>> net, one = nn.BatchNorm1d(1, affine=False), chain(sgd(0.1), swa())
    >>> state = evolve(init(net, one), optimizer=chain(sgd(0.1), swa()).init({"w": torch.ones(1)}))
    >>> update_bn(net, state, [(torch.tensor([[1.0], [3.0]]),)]).buffers["running_mean"]
    tensor([2.])
    """
    means = _means(state)
    if not means:
        return state
    buffers, seed = clone(state.buffers), derive("settled", state.seed)
    device = next((each.device for each in buffers.values()), None)
    tensors = state.params | means | buffers
    with bound_tensors(tensor_slots(net), tensors), seeded(seed, generators(device)):
        torch.optim.swa_utils.update_bn(_some(batches), net)
    return evolve(state, buffers=buffers)


def _some(batches: Iterable[Any]) -> Iterator[Any]:
    batch = None
    for batch in batches:
        yield batch
    if batch is None:
        raise DataError("there is no batch to measure the statistics of batch norms by")


def no_metrics(grads: Params, params: Params) -> Metrics:
    """Measure nothing."""
    return {}


def norms(grads: Params, params: Params) -> Metrics:
    """Measure the joint 2-norms of all gradients and of all parameters: tensors of no dimensions.

    >>> some = {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}
    >>> {name: float(norm) for name, norm in norms(some, some).items()}
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
    measure: Callable[[Params, Params], Metrics] = no_metrics,
    gradient_engine: GradientEngine = eager,
    precision: Precision = "float32",
    skip_nonfinite: bool = False,
) -> Step:
    """Make a training step of a module, a loss and an optimizer.

    A batch begins with (inputs, target); the loss is a mean over its rows. The module is scratch
    space: only one step, in one thread at a time, may use it. A parameter with
    `requires_grad=False` is never changed; one that the loss does not depend on has gradient 0.

    Args:
        net: The module that is trained, wrapped for one process and one device at most.
        loss: (logits, target) to a tensor without dimensions, the mean over the rows.
        optimizer: The rule by which parameters change.
        gradient_rule: May evaluate the gradient several times per step (`sharpness_aware` needs
            two); every evaluation uses the same dropout masks.
        map_logits: Applied to the logits before the loss.
        map_loss: Applied to the loss before the backward pass. The parameters of `net` are those
            of the state while it runs, so a penalty of the weights can be added here.
        map_grads: Applied to the gradients, by path, as soon as they are taken.
        map_params: Applied to the new parameters, by path.
        measure: (gradients before clipping, parameters before the step) to more metrics, as
            `norms`.
        gradient_engine: How gradients are computed: `eager`, `compiled` or `vmapped`.
        precision: The dtype of most arithmetic in the passes; parameters, loss and optimizer stay
            float32. "float16" needs an optimizer made by `mip.optim.dynamic_loss_scale`, and sets
            `skip_nonfinite`; the first step raises MipError if scale and precision do not match.
        skip_nonfinite: Leave parameters, buffers and optimizer as they were in a step whose loss
            or gradients are not finite, and report it as 1 in the metric `skipped`.

    >>> from attrs import evolve; from mip.optim import sgd
    >>> net = nn.Linear(1, 1, bias=False); one = sgd(0.5)
    >>> step = train_step(net, nn.functional.mse_loss, one)
    >>> state = evolve(init(net, one), params={"weight": torch.zeros(1, 1)})
    >>> after, metrics = step(state, (torch.ones(4, 1), torch.ones(4, 1)))
    >>> float(metrics["loss"]), float(after.params["weight"]), float(state.params["weight"])
    (1.0, 1.0, 0.0)
    """

    def objective(forward: Forward, batch: Any) -> Tensor:
        return map_loss(loss(map_logits(forward(batch[0])), batch[1]))

    check_not_distributed(net)
    skip_nonfinite = skip_nonfinite or precision == "float16"
    scale_fits = False
    device = next((param.device for param in net.parameters()), torch.device("cpu"))
    drawn = generators(device)
    run = gradient_engine(net, with_autocast(objective, precision, device))

    def donate(state: State, batch: Any) -> tuple[State, Metrics]:
        nonlocal scale_fits
        scale_fits = scale_fits or _check_scale(precision, state.optimizer)
        if isinstance(batch, (Tensor, dict)):
            raise MipError(f"a batch is (inputs, target), and not one {type(batch).__name__}")
        if not net.training:
            net.train()
        seed = derive("step", state.seed, state.step)
        scale = loss_scale(state.optimizer) if precision == "float16" else None

        def gradient(params: Params) -> tuple[Tensor, Params, Params]:
            with seeded(seed, drawn):
                value, grads, buffers = run(params, state.buffers, batch, scale)
            return value, map_grads(_unscaled(grads, scale)), buffers

        value, grads, buffers = gradient_rule(gradient, state.params)
        with torch.no_grad():
            # Now, since the optimizer may clip and write in place.
            metrics = {**_losses(value), **measure(grads, state.params), **_scale_of(scale)}
            if skip_nonfinite and not all_finite(value, grads):
                return _held(state), {**metrics, "skipped": 1.0}
            grads = match_strides(grads, state.params)
            _, tree, params = optimizer.update_(grads, state.optimizer, state.params, state.step)
            params = map_params(params)
        after = State(params, buffers, tree, state.step + 1, state.seed)
        return after, {**metrics, "skipped": 0.0} if skip_nonfinite else metrics

    return Step(donate)


def _check_scale(precision: Precision, tree: Tree) -> bool:
    # Looked for once: in a state without a scale every tensor is passed.
    scaled = loss_scale(tree) is not None
    if scaled and precision != "float16":
        cure = 'leave out dynamic_loss_scale, or say precision="float16"'
        raise MipError(f"the optimizer scales the loss, which is for float16 alone: {cure}")
    if precision == "float16" and not scaled:
        cure = "use dynamic_loss_scale(optimizer) in init and in train_step"
        raise MipError(f"precision float16 needs a loss that is scaled: {cure}")
    return True


def _losses(value: Tensor) -> Metrics:
    # Those of stacked models have a name each.
    each = {f"loss.{k}": loss for k, loss in enumerate(value)} if value.dim() else {}
    return {"loss": value.mean(), **each} if each else {"loss": value}


def _unscaled(grads: Params, scale: Tensor | None) -> Params:
    if scale is None:
        return grads
    return {path: grad / scale for path, grad in grads.items()}


def _scale_of(scale: Tensor | None) -> Metrics:
    return {} if scale is None else {"loss_scale": scale.clone()}


def _held(state: State) -> State:
    return evolve(state, optimizer=halve_loss_scale(state.optimizer), step=state.step + 1)


def eval_step(net: nn.Module) -> Callable[[State, Any], Tensor]:
    """Make a pure function (state, inputs) -> logits, in evaluation mode and without gradients, by
    the averages of the parameters where the state keeps some.

    It needs a module of its own: a training step may be using the other.
    """
    check_not_distributed(net)
    slots = tensor_slots(net)

    @torch.no_grad()
    def logits(state: State, inputs: Any) -> Tensor:
        net.eval()
        with bound_tensors(slots, state.params | _means(state) | state.buffers):
            return net(inputs)

    return logits
