"""Optimizers as pairs of functions (init, update), and schedules as functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Protocol

import torch
from attrs import field, frozen
from attrs.validators import ge, gt, le, lt
from torch import Tensor
from torch.optim.adam import adam as adam_kernel
from torch.optim.sgd import sgd as sgd_kernel

from mip.tree import Tree, clone

Params = dict[str, Tensor]
"""Parameters, or their gradients, by their path in the module."""

Schedule = Callable[[int], float]
"""Step, counted from 0, to the value of a hyper-parameter."""


@frozen
class Optimizer:
    """A pair of functions: `init(params)` gives the optimizer's state, a tree of tensors, and
    `update_(grads, state, params, step)` gives the three after one step.

    `update_` may write into the tensors it is given, as its name says; `update` never does.
    So a link of a chain may change the gradients, the parameters, or both. Your own:

    >>> def halve(grads, state, params, step):
    ...     return grads, state, {name: param / 2 for name, param in params.items()}
    >>> own = Optimizer(init=lambda params: (), update_=halve)
    >>> own.update({}, (), {"w": torch.ones(1)}, 0)[2]
    {'w': tensor([0.5000])}
    """

    init: Callable[[Params], Tree]
    update_: Callable[[Params, Tree, Params, int], tuple[Params, Tree, Params]]

    def update(
        self, grads: Params, state: Tree, params: Params, step: int
    ) -> tuple[Params, Tree, Params]:
        """Take one step on copies: what is given stays as it was."""
        return self.update_(clone(grads), clone(state), clone(params), step)


def chain(*links: Optimizer) -> Optimizer:
    """Run optimizers one after another, each on what the one before it left.

    >>> both = chain(clip_norm(1.0), sgd(1.0))
    >>> params, grads = {"w": torch.zeros(2)}, {"w": torch.tensor([3.0, 4.0])}
    >>> both.update(grads, both.init(params), params, 0)[2]
    {'w': tensor([-0.6000, -0.8000])}
    """

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Any:
        after = []
        for link, mine in zip(links, state, strict=True):
            grads, mine, params = link.update_(grads, mine, params, step)
            after.append(mine)
        return grads, tuple(after), params

    return Optimizer(lambda params: tuple(link.init(params) for link in links), update_)


def partition(label: Callable[[str], str], optimizers: Mapping[str, Optimizer]) -> Optimizer:
    """Give each parameter to the optimizer that its path is labelled with.

    Raises KeyError for a label that is none of theirs.

    >>> by = partition(lambda path: path[0], {"a": sgd(1.0), "b": sgd(0.5)})
    >>> params = {"a.w": torch.zeros(1), "b.w": torch.zeros(1)}
    >>> grads = {path: torch.ones(1) for path in params}
    >>> by.update(grads, by.init(params), params, 0)[2]
    {'a.w': tensor([-1.]), 'b.w': tensor([-0.5000])}
    """
    known = cache(label)  # asked of every parameter at every step

    def part(tensors: Params, name: str) -> Params:
        return {path: tensor for path, tensor in tensors.items() if known(path) == name}

    def init(params: Params) -> Tree:
        for path in params:
            optimizers[known(path)]
        return {name: each.init(part(params, name)) for name, each in optimizers.items()}

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Any:
        given, before, states, after = dict(grads), params, {}, dict(params)
        for name, each in optimizers.items():
            mine = part(grads, name), state[name], part(before, name), step
            changed, states[name], moved = each.update_(*mine)
            given, after = given | changed, after | moved
        return given, states, after

    return Optimizer(init, update_)


def clip_norm(limit: float) -> Optimizer:
    """Scale all gradients together so that their joint 2-norm is at most `limit`
    (Pascanu, Mikolov and Bengio 2013), as `torch.nn.utils.clip_grad_norm_` does.
    """

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Any:
        norm = torch.nn.utils.get_total_norm(list(grads.values()))
        scale = (limit / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(list(grads.values()), scale)
        return grads, state, params

    return Optimizer(lambda params: (), update_)


def adamw(
    rate: float | Schedule = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> Optimizer:
    """AdamW (Loshchilov and Hutter 2019) by torch's fused kernel; equal to `torch.optim.AdamW`.

    >>> params = {"w": torch.ones(1)}; one = adamw(0.1, weight_decay=0.0)
    >>> one.update({"w": torch.ones(1)}, one.init(params), params, 0)[2]
    {'w': tensor([0.9000])}
    """
    return _adam(rate, betas, eps, weight_decay, decoupled=True)


def adam(
    rate: float | Schedule = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Optimizer:
    """Adam (Kingma and Ba 2015) by torch's fused kernel; equal to `torch.optim.Adam`."""
    return _adam(rate, betas, eps, weight_decay, decoupled=False)


def _adam(
    rate: float | Schedule,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> Optimizer:
    schedule = _as_schedule(rate)

    def init(params: Params) -> Tree:
        device = next((param.device for param in params.values()), None)
        zeros = {name: torch.zeros_like(param) for name, param in params.items()}
        return {
            "count": torch.zeros(len(params), device=device),
            "mean": zeros,
            "square": clone(zeros),
        }

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Any:
        adam_kernel(
            list(params.values()),
            _named(grads, params),
            _named(state["mean"], params),
            _named(state["square"], params),
            max_exp_avg_sqs=[],
            state_steps=list(state["count"].unbind()),
            fused=True,
            amsgrad=False,
            beta1=betas[0],
            beta2=betas[1],
            lr=schedule(step),
            weight_decay=weight_decay,
            eps=eps,
            maximize=False,
            decoupled_weight_decay=decoupled,
        )
        return grads, state, params

    return Optimizer(init, update_)


def sgd(
    rate: float | Schedule = 1e-2,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> Optimizer:
    """Stochastic gradient descent by torch's fused kernel; equal to `torch.optim.SGD`.

    >>> params = {"w": torch.ones(1)}; one = sgd(0.1)
    >>> one.update({"w": torch.ones(1)}, one.init(params), params, 0)[2]
    {'w': tensor([0.9000])}
    """
    schedule = _as_schedule(rate)

    def init(params: Params) -> Tree:
        return {name: torch.zeros_like(param) for name, param in params.items()} if momentum else {}

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Any:
        sgd_kernel(
            list(params.values()),
            _named(grads, params),
            [state.get(name) for name in params],
            fused=True,
            weight_decay=weight_decay,
            momentum=momentum,
            lr=schedule(step),
            dampening=0.0,
            nesterov=nesterov,
            maximize=False,
        )
        return grads, state, params

    return Optimizer(init, update_)


def _named(tensors: Params, params: Params) -> list[Tensor]:
    # By name, because a dict may come back from a file or a function in another order.
    return [tensors[name] for name in params]


def _as_schedule(rate: float | Schedule) -> Schedule:
    return rate if callable(rate) else constant(rate)


def constant(value: float) -> Schedule:
    """Give the same value at every step.

    >>> constant(0.1)(1000)
    0.1
    """
    return lambda step: value


def cosine(peak: float, steps: int, warmup: int = 0, end: float = 0.0) -> Schedule:
    """Rise in a line over `warmup` steps, then fall to `end` along half a cosine
    (Loshchilov and Hutter 2017); after `steps` steps it stays there.

    >>> [round(cosine(1.0, steps=4)(step), 3) for step in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """

    def schedule(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / (warmup + 1)
        return _half_cosine(peak, end, (step - warmup) / max(steps - warmup, 1))

    return schedule


def one_cycle(peak: float, steps: int, warmup: float = 0.3) -> Schedule:
    """Rise from peak / 25 over the fraction `warmup` of the steps, then fall to 1e-4 of that,
    both along half a cosine (Smith and Topin 2018); equal to `torch.optim.lr_scheduler.OneCycleLR`.

    >>> [round(one_cycle(1.0, steps=11)(step), 3) for step in (0, 1, 2, 6, 10)]
    [0.04, 0.422, 0.96, 0.531, 0.0]
    """
    start, top, last = peak / 25, warmup * steps - 1, steps - 1

    def schedule(step: int) -> float:
        if step <= top:
            return _half_cosine(start, peak, step / top if top > 0 else 1.0)
        return _half_cosine(peak, start * 1e-4, (step - top) / max(last - top, 1e-9))

    return schedule


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * min(share, 1.0)))


class OptimizerSpec(Protocol):
    """An optimizer as a spec file describes it; `lr` is the schedule's peak."""

    @property
    def lr(self) -> float: ...

    def optimizer(self, rate: Schedule) -> Optimizer:
        """Build it with a learning rate that follows a schedule."""
        ...


class ScheduleSpec(Protocol):
    """A schedule of the learning rate as a spec file describes it."""

    def schedule(self, peak: float, steps: int) -> Schedule:
        """Build it for a run of `steps` steps."""
        ...


@frozen
class AdamW:
    """See `adamw`."""

    lr: float = field(default=1e-3, validator=gt(0))
    weight_decay: float = field(default=0.01, validator=ge(0))

    def optimizer(self, rate: Schedule) -> Optimizer:
        """Build it with a learning rate that follows a schedule."""
        return adamw(rate, weight_decay=self.weight_decay)


@frozen
class SGD:
    """See `sgd`."""

    lr: float = field(default=1e-2, validator=gt(0))
    momentum: float = field(default=0.9, validator=[ge(0), lt(1)])
    nesterov: bool = False
    weight_decay: float = field(default=0.0, validator=ge(0))

    def optimizer(self, rate: Schedule) -> Optimizer:
        """Build it with a learning rate that follows a schedule."""
        return sgd(rate, self.momentum, self.nesterov, self.weight_decay)


@frozen
class Constant:
    """See `constant`."""

    def schedule(self, peak: float, steps: int) -> Schedule:
        """Stay at the peak."""
        return constant(peak)


@frozen
class Cosine:
    """See `cosine`; `warmup` is a fraction of the run."""

    warmup: float = field(default=0.0, validator=[ge(0), lt(1)])

    def schedule(self, peak: float, steps: int) -> Schedule:
        """Fall over the whole run."""
        return cosine(peak, steps, round(self.warmup * steps))


@frozen
class OneCycle:
    """See `one_cycle`."""

    warmup: float = field(default=0.3, validator=[gt(0), le(1)])

    def schedule(self, peak: float, steps: int) -> Schedule:
        """Rise and fall once over the whole run."""
        return one_cycle(peak, steps, self.warmup)
