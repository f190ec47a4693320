"""Wrappers and links of a chain: clipping, accumulation, lookahead, averages of the weights, and a
factor of the learning rate that can be set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from mip.errors import MipError
from mip.optim.protocol import Optimizer, Params, Update, zeros
from mip.optim.schedules import Hyper, check_hyper, rescaled, value_at
from mip.tree import Tree, clone, find, map_tree


def clip_norm(max_norm: float) -> Optimizer:
    """Scale all gradients together so that their global 2-norm is at most `max_norm`
    (Pascanu, Mikolov and Bengio 2013), as `torch.nn.utils.clip_grad_norm_` does.

    >>> grads = {"w": torch.tensor([3.0, 4.0])}
    >>> clip_norm(1.0).update(grads, (), {}, 0)[0]
    {'w': tensor([0.6000, 0.8000])}
    """

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Update:
        norm = torch.nn.utils.get_total_norm(list(grads.values()))
        scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        if grads:  # _foreach_mul_ refuses an empty list
            torch._foreach_mul_(list(grads.values()), scale)
        return grads, state, params

    return Optimizer(lambda params: (), update_, changes="gradients")


def clip_value(limit: float) -> Optimizer:
    """Clamp every element of the gradients to [-limit, limit], as
    `torch.nn.utils.clip_grad_value_` does.

    >>> clip_value(1.0).update({"w": torch.tensor([3.0, -0.5])}, (), {}, 0)[0]
    {'w': tensor([ 1.0000, -0.5000])}
    """

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Update:
        return {path: grad.clamp_(-limit, limit) for path, grad in grads.items()}, state, params

    return Optimizer(lambda params: (), update_, changes="gradients")


def accumulate(optimizer: Optimizer, every: int) -> Optimizer:
    """Take one step of `optimizer` with the mean gradient of every `every` batches, which then
    move the parameters as one large batch does if the loss is a mean over rows.

    The optimizer counts its own steps: its schedules see `step // every`. Batches left over at the
    end, too few for a step, move nothing.

    >>> from mip.optim.optimizers.sgd import sgd; opt = accumulate(sgd(1.0), every=2)
    >>> params, state = {"w": torch.zeros(1)}, opt.init({"w": torch.zeros(1)})
    >>> for step in range(2):
    ...     _, state, params = opt.update({"w": torch.ones(1) * step}, state, params, step)
    >>> params
    {'w': tensor([-0.5000])}
    """

    def init(params: Params) -> Tree:
        return {"inner": optimizer.init(params), "mean": zeros(params)}

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Update:
        inner, mean = state["inner"], state["mean"]
        for path, grad in grads.items():
            mean[path].add_(grad, alpha=1 / every)
        if (step + 1) % every == 0:
            position = rescaled(step, every)
            _, inner, params = optimizer.update_(mean, inner, params, position)
            mean = zeros(params)  # new tensors, since the optimizer may have kept the old ones
        return grads, {"inner": inner, "mean": mean}, params

    def rates(state: Tree, step: int) -> dict[str, float]:
        return optimizer.rates(state["inner"], rescaled(step, every))

    return Optimizer(init, update_, rates)


def delayed(optimizer: Optimizer, start: int) -> Optimizer:
    """Leave the parameters as they are before the step `start`, counted from 0; the optimizer takes
    its first step there, with what its schedules say of that step. Its rate is 0 until then.

    >>> from mip.optim.optimizers.sgd import sgd; opt = delayed(sgd(1.0), start=1)
    >>> params, state = {"w": torch.zeros(1)}, opt.init({"w": torch.zeros(1)})
    >>> for step in range(3):
    ...     _, state, params = opt.update({"w": torch.ones(1)}, state, params, step)
    >>> params, opt.rates(state, 0)
    ({'w': tensor([-2.])}, {'lr': 0.0})
    """

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Update:
        if step < start:
            return grads, state, params
        return optimizer.update_(grads, state, params, step)

    def rates(state: Tree, step: int) -> dict[str, float]:
        rates = optimizer.rates(state, step)
        return {**rates, "lr": 0.0} if step < start else rates

    return Optimizer(optimizer.init, update_, rates)


def lookahead(optimizer: Optimizer, every: int = 6, slow_step_size: float = 0.5) -> Optimizer:
    """Every `every` steps of `optimizer`, move slow weights by the fraction `slow_step_size` of
    the way to its weights, and let it continue from there (Zhang et al. 2019).

    >>> from mip.optim.optimizers.sgd import sgd; opt = lookahead(sgd(1.0), every=2)
    >>> params, state = {"w": torch.zeros(1)}, opt.init({"w": torch.zeros(1)})
    >>> for step in range(2):
    ...     _, state, params = opt.update({"w": torch.ones(1)}, state, params, step)
    >>> params
    {'w': tensor([-1.])}
    """

    def init(params: Params) -> Tree:
        return {"inner": optimizer.init(params), "slow": clone(params)}

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Update:
        grads, inner, params = optimizer.update_(grads, state["inner"], params, step)
        slow = state["slow"]
        if (step + 1) % every == 0:
            for path, param in params.items():
                param.copy_(slow[path].lerp_(param, slow_step_size))
        return grads, {"inner": inner, "slow": slow}, params

    rates = lambda state, step: optimizer.rates(state["inner"], step)  # noqa: E731
    return Optimizer(init, update_, rates)


def stack_optimizers(optimizers: Sequence[Optimizer]) -> Optimizer:
    """Update each of several models whose parameters are stacked by its own optimizer; these may
    differ in their learning rates, or altogether. See `mip.train.stack`.

    >>> from mip.optim.optimizers.sgd import sgd; opt = stack_optimizers([sgd(1.0), sgd(0.1)])
    >>> params = {"w": torch.ones(2, 3)}
    >>> opt.update({"w": torch.ones(2, 3)}, opt.init(params), params, 0)[2]["w"][:, 0]
    tensor([0.0000, 0.9000])
    """

    def model(tensors: Params, k: int) -> Params:
        return {path: tensor[k] for path, tensor in tensors.items()}

    def init(params: Params) -> Tree:
        return tuple(opt.init(model(params, k)) for k, opt in enumerate(optimizers))

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Update:
        new_states = []
        for k, opt in enumerate(optimizers):
            views = model(params, k)
            _, new_state, new_params = opt.update_(model(grads, k), state[k], views, step)
            for path, param in new_params.items():
                if param is not views[path]:
                    views[path].copy_(param)
            new_states.append(new_state)
        return grads, tuple(new_states), params

    def rates(state: Tree, step: int) -> dict[str, float]:
        return {
            f"{name}.{k}": value
            for k, opt in enumerate(optimizers)
            for name, value in opt.rates(state[k], step).items()
        }

    return Optimizer(init, update_, rates)


class Average(NamedTuple):
    """A running mean of the parameters and the number of steps in it: a part of an optimizer's
    state that `mip.train.with_averaged_params` finds.
    """

    steps: Tensor
    mean: Params


def init_average(params: Params) -> Average:
    """Return an average without a step in it; its mean is the parameters."""
    return Average(torch.zeros(()), clone(params))


def ema(decay: Hyper = 0.999) -> Optimizer:
    """Keep an exponential moving average of the parameters (Polyak and Juditsky 1992), starting
    with those after the first step; for a chain, after the optimizer.

    While it is smaller, (1 + step) / (10 + step) takes the place of a number, so that the average
    of a short run is not mostly of its first weights; a schedule (`constant(0.999)`) is taken as it
    is.

    `mip.train.with_averaged_params(state)` returns the state with the averages as its parameters,
    and `mip.train.update_bn` recomputes the batch norm statistics for them.

    >>> opt = ema(lambda step: 0.5); state = opt.init({"w": torch.zeros(1)})
    >>> for step in range(3):
    ...     _, state, _ = opt.update({}, state, {"w": torch.ones(1) * step}, step)
    >>> state.mean
    {'w': tensor([1.2500])}
    """
    check_hyper("decay", decay)
    if not callable(decay):
        largest = decay
        decay = lambda step: min(largest, (1 + step) / (10 + step))  # noqa: E731

    def update_(grads: Params, state: Average, params: Params, step: int) -> Update:
        weight = 1 - value_at(decay, step) if state.steps else 1.0
        return grads, _add_to_average(state, params, weight), params

    return Optimizer(init_average, update_, changes="averages")


def swa(start: int = 0, every: int = 1) -> Optimizer:
    """Keep the mean of the parameters after steps `start`, `start + every`, …: stochastic weight
    averaging (Izmailov et al. 2018); for a chain, after the optimizer.

    Before `start` the average is the parameters themselves. See `ema`.

    >>> opt = swa(start=1); state = opt.init({"w": torch.zeros(1)})
    >>> for step in range(3):
    ...     _, state, _ = opt.update({}, state, {"w": torch.ones(1) * step}, step)
    >>> state.mean
    {'w': tensor([1.5000])}
    """

    def update_(grads: Params, state: Average, params: Params, step: int) -> Update:
        if step < start:
            # A longer run starts later than the shorter one that it continues.
            return grads, Average(torch.zeros_like(state.steps), clone(params)), params
        if (step - start) % every == 0:
            state = _add_to_average(state, params, 1 / (float(state.steps) + 1))
        return grads, state, params

    return Optimizer(init_average, update_, changes="averages")


def _add_to_average(average: Average, params: Params, weight: float) -> Average:
    for path, param in params.items():
        average.mean[path].lerp_(param, weight)
    return Average(average.steps.add_(1), average.mean)


def find_averages(state: Tree) -> Iterator[Params]:
    """Return the averages of the parameters in an optimizer's state.

    >>> list(find_averages(({}, {"ema": init_average({"w": torch.ones(1)})})))
    [{'w': tensor([1.])}]
    """
    return (average.mean for average in find(state, Average))


class LrFactor(NamedTuple):
    """A factor of an optimizer's learning rate: float64, without dimensions."""

    value: Tensor


def inject_lr_factor(build: Callable[[float], Optimizer]) -> Optimizer:
    """Make an optimizer whose learning rate can be scaled while it runs: `build` makes it for a
    factor of the rate, at first 1. `set_lr_factor` sets the factor, as the hook
    `mip.hooks.reduce_lr_on_plateau` does.

    >>> from mip.optim.optimizers.sgd import sgd
    >>> opt = inject_lr_factor(lambda factor: sgd(factor * 0.5))
    >>> params = {"w": torch.ones(1)}; state = set_lr_factor(opt.init(params), 0.1)
    >>> opt.update({"w": torch.ones(1)}, state, params, 0)[2]
    {'w': tensor([0.9500])}
    """
    if not callable(build):
        cure = "inject_lr_factor(lambda factor: mip.adamw(factor * 1e-3))"
        raise MipError(f"inject_lr_factor takes a function that makes an optimizer: {cure}")
    build = cache(build)

    def init(params: Params) -> Tree:
        factor = LrFactor(torch.ones((), dtype=torch.float64))
        return {"factor": factor, "inner": build(1.0).init(params)}

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Update:
        optimizer = build(float(state["factor"].value))
        grads, inner, params = optimizer.update_(grads, state["inner"], params, step)
        return grads, {"factor": state["factor"], "inner": inner}, params

    def rates(state: Tree, step: int) -> dict[str, float]:
        return build(float(state["factor"].value)).rates(state["inner"], step)

    return Optimizer(init, update_, rates)


def set_lr_factor(state: Tree, factor: float) -> Tree:
    """Set the factor in the state of an optimizer that `inject_lr_factor` made.

    Raises MipError for the state of any other, whose learning rate would not change.
    """
    if not any(find(state, LrFactor)):
        cure = "inject_lr_factor(lambda factor: adamw(factor * 1e-3))"
        raise MipError(f"this optimizer's learning rate cannot change while it runs: use {cure}")
    new_factor = LrFactor(torch.tensor(factor, dtype=torch.float64))
    return map_tree(lambda _: new_factor, state, LrFactor)
