"""The protocol of optimizers, a pair of pure functions, and how several make one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Literal

import torch
from attrs import evolve, frozen
from toolz import merge
from torch import Tensor

from mip.errors import MipError, hint
from mip.tree import Tree, clone

Params = dict[str, Tensor]
"""Parameters, or their gradients, by their path in the module."""


Update = tuple[Params, Tree, Params]
"""The gradients, the optimizer's state and the parameters after a step."""


Mask = Callable[[str, torch.Size], bool]
"""Whether a parameter is selected, by its path and shape."""


Rates = Callable[[Tree, int], dict[str, float]]
"""The rates of an optimizer by name, from its state and the step."""


def no_rates(state: Tree, step: int) -> dict[str, float]:
    """Report no rates."""
    return {}


@frozen
class Optimizer:
    """A pair of functions: `init(params)` returns the optimizer's state, a tree of tensors, and
    `update_(grads, state, params, step)` returns all three after one step.

    `update_` may write into the tensors it is passed, as its name says; `update` never does. A
    link of a chain may change the gradients, the parameters, or both. `rates(state, step)` says
    which learning rate, momentum and weight decay a step uses, for the history of a fit; those of
    a group of parameters end with its name, `lr.head`. `changes` is what a link changes: those that
    only clip gradients or keep averages train nothing by themselves. One of your own:

    >>> def halve(grads, state, params, step):
    ...     return grads, state, {path: param / 2 for path, param in params.items()}
    >>> opt = Optimizer(init=lambda params: (), update_=halve)
    >>> opt.update({}, (), {"w": torch.ones(1)}, 0)[2]
    {'w': tensor([0.5000])}
    """

    init: Callable[[Params], Tree]
    update_: Callable[[Params, Tree, Params, int], Update]
    rates: Rates = no_rates
    changes: Literal["gradients", "parameters", "averages"] = "parameters"

    def update(self, grads: Params, state: Tree, params: Params, step: int) -> Update:
        """Take one step on copies of the arguments."""
        return self.update_(clone(grads), clone(state), clone(params), step)


def zeros(params: Params) -> Params:
    """Return a tensor of zeros for every parameter, the initial state of most optimizers.

    >>> zeros({"w": torch.ones(2)})
    {'w': tensor([0., 0.])}
    """
    return {path: torch.zeros_like(param) for path, param in params.items()}


def chain(*links: Optimizer) -> Optimizer:
    """Apply optimizers one after another, each to the result of the one before it.

    Raises MipError if gradients are clipped after the last link that changes the parameters, or
    averages kept before the first.

    >>> half = Optimizer(lambda params: (), lambda g, s, p, step: ({"w": g["w"] / 2}, s, p))
    >>> opt = chain(half, half)
    >>> opt.update({"w": torch.ones(1)}, opt.init({}), {}, 0)[0]
    {'w': tensor([0.2500])}
    """
    _check_order(links)

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Update:
        new_states = []
        for link, link_state in zip(links, state, strict=True):
            grads, new_state, params = link.update_(grads, link_state, params, step)
            new_states.append(new_state)
        return grads, tuple(new_states), params

    def rates(state: Tree, step: int) -> dict[str, float]:
        pairs = zip(links, state, strict=True)
        return merge([link.rates(link_state, step) for link, link_state in pairs])

    changes = {link.changes for link in links}
    return Optimizer(
        lambda params: tuple(link.init(params) for link in links),
        update_,
        rates,
        next(
            what for what in ("parameters", "averages", "gradients") if what in changes or not links
        ),
    )


def _check_order(links: Sequence[Optimizer]) -> None:
    for k, link in enumerate(links):
        before, after = ([each.changes for each in part] for part in (links[:k], links[k:]))
        if link.changes == "gradients" and "parameters" in before and "parameters" not in after:
            cure = "chain(clip_norm(1.0), adamw(1e-3))"
            raise MipError(f"chain: gradients are clipped before the parameters change: {cure}")
        if link.changes == "averages" and "parameters" in after and "parameters" not in before:
            cure = "chain(adamw(1e-3), ema())"
            raise MipError(f"chain: averages are kept after the parameters change: {cure}")


def partition(optimizers: Mapping[str, Optimizer], label: Callable[[str], str]) -> Optimizer:
    """Update each parameter by the optimizer whose name its path is labelled with.

    Raises MipError for a label without an optimizer.

    >>> keep = Optimizer(lambda params: (), lambda g, s, p, step: (g, s, p))
    >>> clear = Optimizer(lambda params: (), lambda g, s, p, step: (g, s, zeros(p)))
    >>> opt = partition({"a": keep, "b": clear}, lambda path: path[0])
    >>> params = {"a.w": torch.ones(1), "b.w": torch.ones(1)}
    >>> opt.update({}, opt.init(params), params, 0)[2]
    {'a.w': tensor([1.]), 'b.w': tensor([0.])}
    """

    def rates(state: Tree, step: int) -> dict[str, float]:
        return {
            f"{rate}.{name}": value
            for name, optimizer in optimizers.items()
            for rate, value in optimizer.rates(state[name], step).items()
        }

    return evolve(_partition(optimizers, lambda path, shape: label(path)), rates=rates)


def masked(optimizer: Optimizer, mask: Mask, other: Optimizer) -> Optimizer:
    """Update the parameters that `mask` selects by `optimizer`, whose rates are reported, and the
    rest by `other`.

    >>> keep = Optimizer(lambda params: (), lambda g, s, p, step: (g, s, p))
    >>> clear = Optimizer(lambda params: (), lambda g, s, p, step: (g, s, zeros(p)))
    >>> opt = masked(clear, lambda path, shape: path == "bias", keep)
    >>> params = {"weight": torch.ones(1), "bias": torch.ones(1)}
    >>> opt.update(params, opt.init(params), params, 0)[2]
    {'weight': tensor([1.]), 'bias': tensor([0.])}
    """
    label = lambda path, shape: "yes" if mask(path, shape) else "no"  # noqa: E731
    rates = lambda state, step: optimizer.rates(state["yes"], step)  # noqa: E731
    return evolve(_partition({"yes": optimizer, "no": other}, label), rates=rates)


def _partition(
    optimizers: Mapping[str, Optimizer], label: Callable[[str, torch.Size], str]
) -> Optimizer:
    label = cache(label)  # it is called for every parameter at every step

    def select(tensors: Params, params: Params, name: str) -> Params:
        return {k: leaf for k, leaf in tensors.items() if label(k, params[k].shape) == name}

    def init(params: Params) -> Tree:
        for path, param in params.items():
            name = label(path, param.shape)
            if name not in optimizers:
                near = hint(name, optimizers)
                raise MipError(
                    f"partition: '{path}' has the label {name!r}, but no optimizer{near}"
                )
        return {name: opt.init(select(params, params, name)) for name, opt in optimizers.items()}

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Update:
        new_grads, new_state, new_params = dict(grads), {}, dict(params)
        for name, opt in optimizers.items():
            part_grads, new_state[name], part_params = opt.update_(
                select(grads, params, name), state[name], select(params, params, name), step
            )
            new_grads |= part_grads
            new_params |= part_params
        return new_grads, new_state, new_params

    return Optimizer(init, update_)
