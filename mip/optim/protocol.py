"""What an optimizer is: a pair of functions (init, update), and how several make one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal, Protocol, get_args

import torch
from attrs import field, frozen
from attrs.validators import in_
from torch import Tensor

from mip.optim.schedules import Hyper, Schedule
from mip.tree import Tree, clone

Params = dict[str, Tensor]
"""Parameters, or their gradients, by their path in the module."""


Where = Callable[[str, torch.Size], bool]
"""Path and shape of a parameter to whether it is meant."""


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


def zeros(params: Params) -> Params:
    """Make a zero for every parameter: where most optimizers begin.

    >>> zeros({"w": torch.ones(2)})
    {'w': tensor([0., 0.])}
    """
    return {path: torch.zeros_like(param) for path, param in params.items()}


def counts(params: Params) -> Tensor:
    """Make the counts of steps taken that torch's kernels want; on the CPU, where they are read.

    >>> counts({"w": torch.ones(2), "b": torch.ones(3)})
    tensor([0., 0.])
    """
    return torch.zeros(len(params))


def named(tensors: Params, params: Params) -> list[Tensor]:
    """List tensors in the order of the parameters' names.

    By name, because a dict may come back from a file or a function in another order.

    >>> named({"b": torch.zeros(1), "w": torch.ones(1)}, {"w": torch.ones(1), "b": torch.ones(1)})
    [tensor([1.]), tensor([0.])]
    """
    return [tensors[path] for path in params]


def optional(tensors: Params, params: Params) -> list[Any]:
    """List tensors as `named` does, None for a parameter that has none.

    >>> optional({"w": torch.ones(1)}, {"b": torch.ones(1), "w": torch.ones(1)})
    [None, tensor([1.])]
    """
    return [tensors.get(path) for path in params]


def chain(*links: Optimizer) -> Optimizer:
    """Run optimizers one after another, each on what the one before it left.

    >>> half = Optimizer(lambda params: (), lambda g, s, p, step: ({"w": g["w"] / 2}, s, p))
    >>> both = chain(half, half)
    >>> both.update({"w": torch.ones(1)}, both.init({}), {}, 0)[0]
    {'w': tensor([0.2500])}
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

    >>> still = Optimizer(lambda params: (), lambda g, s, p, step: (g, s, p))
    >>> gone = Optimizer(lambda params: (), lambda g, s, p, step: (g, s, zeros(p)))
    >>> by = partition(lambda path: path[0], {"a": still, "b": gone})
    >>> params = {"a.w": torch.ones(1), "b.w": torch.ones(1)}
    >>> by.update({}, by.init(params), params, 0)[2]
    {'a.w': tensor([1.]), 'b.w': tensor([0.])}
    """
    return _partition(lambda path, shape: label(path), optimizers)


def _partition(
    label: Callable[[str, torch.Size], str], optimizers: Mapping[str, Optimizer]
) -> Optimizer:
    known = cache(label)  # asked of every parameter at every step

    def init(params: Params) -> Tree:
        for path, param in params.items():
            optimizers[known(path, param.shape)]
        return {name: each.init(part(params, params, name)) for name, each in optimizers.items()}

    def part(tensors: Params, params: Params, name: str) -> Params:
        return {k: leaf for k, leaf in tensors.items() if known(k, params[k].shape) == name}

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Any:
        given, before, states, after = dict(grads), params, {}, dict(params)
        for name, each in optimizers.items():
            mine = part(grads, before, name), state[name], part(before, before, name), step
            changed, states[name], moved = each.update_(*mine)
            given, after = given | changed, after | moved
        return given, states, after

    return Optimizer(init, update_)


def masked(where: Where, yes: Optimizer, no: Optimizer) -> Optimizer:
    """Give the parameters that `where` says to one optimizer and the rest to another.

    >>> still = Optimizer(lambda params: (), lambda g, s, p, step: (g, s, p))
    >>> gone = Optimizer(lambda params: (), lambda g, s, p, step: (g, s, zeros(p)))
    >>> both, params = masked(matrices, gone, still), {"weight": torch.ones(1, 1)}
    >>> both.update(params, both.init(params), params, 0)[2]
    {'weight': tensor([[0.]])}
    """
    return _partition(
        lambda path, shape: "yes" if where(path, shape) else "no", {"yes": yes, "no": no}
    )


def matrices(path: str, shape: torch.Size) -> bool:
    """Say whether a parameter is a layer's matrix or filter: no bias, norm, embedding or token.

    >>> matrices("head.0.weight", torch.Size([4, 3])), matrices("head.0.bias", torch.Size([4]))
    (True, False)
    >>> matrices("body.branch.place.tables.0.weight", torch.Size([9, 3]))
    False
    """
    *above, name = path.split(".")
    owner = next((each for each in reversed(above) if not each.isdigit()), "")
    embeds = re.search("embed|table", owner, re.IGNORECASE)  # the name of the module, or its list
    return len(shape) >= 2 and name.endswith("weight") and not embeds


Decay = Literal["all", "matrices"]
"""Which parameters decay: all, or `matrices` alone."""


def decayed(
    build: Callable[[Any], Optimizer], weight_decay: Hyper, where: Where = matrices
) -> Optimizer:
    """Let weights decay only where they should: `build` makes the optimizer of a weight decay.

    >>> from mip.optim.optimizers.adam import adamw
    >>> one = decayed(lambda decay: adamw(0.1, weight_decay=decay), 0.5)
    >>> params = {"weight": torch.ones(1, 1), "bias": torch.ones(1)}
    >>> one.update(zeros(params), one.init(params), params, 0)[2]
    {'weight': tensor([[0.9500]]), 'bias': tensor([1.])}
    """
    return masked(where, build(weight_decay), build(0.0)) if weight_decay else build(0.0)


def decaying(build: Callable[[float], Optimizer], weight_decay: float, how: Decay) -> Optimizer:
    """Build an optimizer whose weights decay as a spec says."""
    return build(weight_decay) if how == "all" else decayed(build, weight_decay)


class OptimizerSpec(Protocol):
    """An optimizer as a spec file describes it; `lr` is the schedule's peak."""

    kind: str

    @property
    def lr(self) -> float: ...

    def optimizer(self, rate: Schedule) -> Optimizer:
        """Build it with a learning rate that follows a schedule."""
        ...


def decay_field() -> Any:
    """Declare which weights decay: all by default, as torch's do."""
    return field(default="all", validator=in_(get_args(Decay)))


def betas_field(first: float = 0.9, second: float = 0.999) -> Any:
    """Declare two decays of running means."""
    return field(default=(first, second), converter=tuple, validator=_two)


def _two(instance: Any, about: Any, betas: tuple[float, ...]) -> None:
    if not (len(betas) == 2 and all(0 <= beta < 1 for beta in betas)):
        raise ValueError(f"'{about.name}' must be two numbers from 0 to below 1: {list(betas)}")
