"""What stands around an optimizer: clipping, accumulation, lookahead, averages of the weights, a
scale of the loss, a factor of the rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mip.errors import MipError
from mip.optim.protocol import Optimizer, Params, zeros
from mip.optim.schedules import Hyper, value
from mip.tree import Tree, clone


def clip_norm(limit: float) -> Optimizer:
    """Scale all gradients together so that their joint 2-norm is at most `limit`
    (Pascanu, Mikolov and Bengio 2013), as `torch.nn.utils.clip_grad_norm_` does.

    >>> grads = {"w": torch.tensor([3.0, 4.0])}
    >>> clip_norm(1.0).update(grads, (), {}, 0)[0]
    {'w': tensor([0.6000, 0.8000])}
    """

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Any:
        norm = torch.nn.utils.get_total_norm(list(grads.values()))
        scale = (limit / (norm + 1e-6)).clamp(max=1.0)
        if grads:  # torch wants one at least
            torch._foreach_mul_(list(grads.values()), scale)
        return grads, state, params

    return Optimizer(lambda params: (), update_)


def clip_value(limit: float) -> Optimizer:
    """Bound each number of the gradients by `limit`, as `torch.nn.utils.clip_grad_value_` does.

    >>> clip_value(1.0).update({"w": torch.tensor([3.0, -0.5])}, (), {}, 0)[0]
    {'w': tensor([ 1.0000, -0.5000])}
    """

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Any:
        return {path: grad.clamp_(-limit, limit) for path, grad in grads.items()}, state, params

    return Optimizer(lambda params: (), update_)


def accumulate(optimizer: Optimizer, every: int) -> Optimizer:
    """Take one step of `optimizer` with the mean gradient of `every` batches, so that so many
    small batches move the parameters as one large one does, where the loss is a mean over rows.

    The optimizer counts its own steps: its schedules see `step // every`. Batches at the end that
    do not make up a whole step move nothing.

    >>> from mip.optim.optimizers.sgd import sgd; one = accumulate(sgd(1.0), every=2)
    >>> params, state = {"w": torch.zeros(1)}, one.init({"w": torch.zeros(1)})
    >>> for step in range(2):
    ...     _, state, params = one.update({"w": torch.ones(1) * step}, state, params, step)
    >>> params
    {'w': tensor([-0.5000])}
    """

    def init(params: Params) -> Tree:
        return {"inner": optimizer.init(params), "mean": zeros(params)}

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Any:
        inner, mean = state["inner"], state["mean"]
        for path, grad in grads.items():
            mean[path].add_(grad, alpha=1 / every)
        if (step + 1) % every == 0:
            _, inner, params = optimizer.update_(mean, inner, params, step // every)
            mean = zeros(params)  # anew: a link may have kept what it was given
        return grads, {"inner": inner, "mean": mean}, params

    return Optimizer(init, update_)


def lookahead(optimizer: Optimizer, every: int = 6, share: float = 0.5) -> Optimizer:
    """Let `optimizer` run ahead for `every` steps, then go a `share` of the way there and let it
    begin anew from that point (Zhang et al. 2019).

    >>> from mip.optim.optimizers.sgd import sgd; one = lookahead(sgd(1.0), every=2)
    >>> params, state = {"w": torch.zeros(1)}, one.init({"w": torch.zeros(1)})
    >>> for step in range(2):
    ...     _, state, params = one.update({"w": torch.ones(1)}, state, params, step)
    >>> params
    {'w': tensor([-1.])}
    """

    def init(params: Params) -> Tree:
        return {"inner": optimizer.init(params), "slow": clone(params)}

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Any:
        grads, inner, params = optimizer.update_(grads, state["inner"], params, step)
        slow = state["slow"]
        if (step + 1) % every == 0:
            for path, param in params.items():
                param.copy_(slow[path].lerp_(param, share))
        return grads, {"inner": inner, "slow": slow}, params

    return Optimizer(init, update_)


def each_of(optimizers: Sequence[Optimizer]) -> Optimizer:
    """Give each of several models, whose parameters are stacked, an optimizer of its own; they may
    differ in their rates, or in all. See `mip.train.stack`.

    >>> from mip.optim.optimizers.sgd import sgd; one = each_of([sgd(1.0), sgd(0.1)])
    >>> params = {"w": torch.ones(2, 3)}
    >>> one.update({"w": torch.ones(2, 3)}, one.init(params), params, 0)[2]["w"][:, 0]
    tensor([0.0000, 0.9000])
    """

    def part(tensors: Params, k: int) -> Params:
        return {path: tensor[k] for path, tensor in tensors.items()}

    def init(params: Params) -> Tree:
        return tuple(one.init(part(params, k)) for k, one in enumerate(optimizers))

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Any:
        after = []
        for k, one in enumerate(optimizers):
            mine = part(params, k)
            _, own, moved = one.update_(part(grads, k), state[k], mine, step)
            for path, param in moved.items():
                if param is not mine[path]:
                    mine[path].copy_(param)
            after.append(own)
        return grads, tuple(after), params

    return Optimizer(init, update_)


class Average(NamedTuple):
    """A mean of the parameters, and how many of them are in it: a part of an optimizer's state
    that `mip.train.with_averaged_params` finds.
    """

    taken: Tensor
    mean: Params


def average_of(params: Params) -> Average:
    """Begin an average, with none in it yet."""
    return Average(torch.zeros(()), clone(params))


def ema(decay: Hyper = 0.999) -> Optimizer:
    """Keep an exponential moving average of the parameters (Polyak and Juditsky 1992), which
    begins with those of the first step; a link that stands behind the optimizer in a chain.

    `mip.train.with_averaged_params(state)` gives the state that has the averages as its
    parameters, and `mip.train.update_bn` the statistics of batch norms that go with them.

    >>> one = ema(0.5); state = one.init({"w": torch.zeros(1)})
    >>> for step in range(3):
    ...     _, state, _ = one.update({}, state, {"w": torch.ones(1) * step}, step)
    >>> state.mean
    {'w': tensor([1.2500])}
    """

    def update_(grads: Params, state: Average, params: Params, step: int) -> Any:
        share = 1 - value(decay, step) if state.taken else 1.0
        return grads, _taken(state, params, share), params

    return Optimizer(average_of, update_)


def swa(start: int = 0, every: int = 1) -> Optimizer:
    """Keep the mean of the parameters that steps `start`, `start + every`, … end with: stochastic
    weight averaging (Izmailov et al. 2018); a link that stands behind the optimizer in a chain.

    Before `start` the average is the parameters themselves. See `ema`.

    >>> one = swa(start=1); state = one.init({"w": torch.zeros(1)})
    >>> for step in range(3):
    ...     _, state, _ = one.update({}, state, {"w": torch.ones(1) * step}, step)
    >>> state.mean
    {'w': tensor([1.5000])}
    """

    def update_(grads: Params, state: Average, params: Params, step: int) -> Any:
        if step < start:
            return grads, Average(state.taken, clone(params)), params
        if (step - start) % every == 0:
            state = _taken(state, params, 1 / (float(state.taken) + 1))
        return grads, state, params

    return Optimizer(average_of, update_)


def _taken(average: Average, params: Params, share: float) -> Average:
    for path, param in params.items():
        average.mean[path].lerp_(param, share)
    return Average(average.taken.add_(1), average.mean)


def averages(tree: Tree) -> Iterator[Params]:
    """Find the averages in an optimizer's state.

    >>> list(averages(({}, {"mine": average_of({"w": torch.ones(1)})})))
    [{'w': tensor([1.])}]
    """
    return (each.mean for each in _found(tree, Average))


class Scale(NamedTuple):
    """What the loss is multiplied by for the backward pass, and how many steps it has held."""

    factor: Tensor
    held: Tensor


def loss_scaled(optimizer: Optimizer, start: float = 2.0**16, every: int = 2000) -> Optimizer:
    """Scale the loss for the backward pass, so that small gradients are not 0 in float16
    (Micikevicius et al. 2018), as `torch.amp.GradScaler` does: by twice as much after `every`
    steps, by half after a step whose gradients are not finite, which moves nothing. For
    `train_step` with precision "float16", which refuses an optimizer without it.

    >>> from mip.optim.optimizers.sgd import sgd; one = loss_scaled(sgd(1.0), start=4.0, every=1)
    >>> params = {"w": torch.ones(1)}; state = one.init(params)
    >>> loss_scale(one.update(params, state, params, 0)[1]), loss_scale(lowered(state))
    (tensor(8.), tensor(2.))
    """

    def init(params: Params) -> Tree:
        device = next((param.device for param in params.values()), None)
        scale = Scale(torch.full((), start, device=device), torch.zeros(()))
        return {"scale": scale, "inner": optimizer.init(params)}

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Any:
        factor, held = state["scale"]
        if held.add_(1) == every:
            factor, held = factor * 2, held.zero_()
        grads, inner, params = optimizer.update_(grads, state["inner"], params, step)
        return grads, {"scale": Scale(factor, held), "inner": inner}, params

    return Optimizer(init, update_)


def loss_scale(tree: Tree) -> Tensor | None:
    """Find the scale of the loss in an optimizer's state; None where it has none."""
    return next((each.factor for each in _found(tree, Scale)), None)


def lowered(tree: Tree) -> Tree:
    """Halve the scale of the loss in an optimizer's state, if it has one."""
    return _replaced(tree, Scale, lambda old: Scale(old.factor / 2, torch.zeros(())))


class Factor(NamedTuple):
    """What the rates of an optimizer are multiplied by: float64, of no dimensions."""

    value: Tensor


def adjustable(build: Callable[[float], Optimizer]) -> Optimizer:
    """Make an optimizer whose rate can be changed while it runs: `build` makes it for a factor of
    the rate, 1 to begin with. `adjusted` sets the factor; `mip.hooks.plateau` does so by a metric.

    >>> from mip.optim.optimizers.sgd import sgd; one = adjustable(lambda factor: sgd(factor * 0.5))
    >>> params = {"w": torch.ones(1)}; state = adjusted(one.init(params), 0.1)
    >>> one.update({"w": torch.ones(1)}, state, params, 0)[2]
    {'w': tensor([0.9500])}
    """
    known = cache(build)

    def init(params: Params) -> Tree:
        one = Factor(torch.ones((), dtype=torch.float64))
        return {"factor": one, "inner": known(1.0).init(params)}

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Any:
        one = known(float(state["factor"].value))
        grads, inner, params = one.update_(grads, state["inner"], params, step)
        return grads, {"factor": state["factor"], "inner": inner}, params

    return Optimizer(init, update_)


def adjusted(tree: Tree, factor: float) -> Tree:
    """Set the factor in the state of an optimizer that `adjustable` made.

    Raises MipError for that of another, whose rate would stay as it is.
    """
    if not any(_found(tree, Factor)):
        cure = "adjustable(lambda factor: adamw(factor * 1e-3))"
        raise MipError(f"the optimizer's rate cannot be changed while it runs: make it by {cure}")
    return _replaced(tree, Factor, lambda _: Factor(torch.tensor(factor, dtype=torch.float64)))


def _found(tree: Tree, kind: type) -> Iterator[Any]:
    if isinstance(tree, kind):
        yield tree
    elif isinstance(tree, (dict, tuple)):
        for child in tree.values() if isinstance(tree, dict) else tree:
            yield from _found(child, kind)


def _replaced(tree: Tree, kind: type, change: Callable[[Any], Any]) -> Tree:
    if isinstance(tree, kind):
        return change(tree)
    if isinstance(tree, dict):
        return {name: _replaced(child, kind, change) for name, child in tree.items()}
    if isinstance(tree, tuple):
        children = [_replaced(child, kind, change) for child in tree]
        return getattr(tree, "_make", type(tree))(children)
    return tree
