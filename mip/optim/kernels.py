"""Optimizers made of a kernel: a function that updates lists of tensors in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from mip.optim.protocol import Optimizer, Params, Rates, Update
from mip.optim.schedules import Hyper, check_hyper, value_at
from mip.optim.weight_decay import DecayParams, with_weight_decay
from mip.tree import Tree

Slot = Callable[[Params], Params | Tensor]
"""Makes one part of an optimizer's state from the parameters: a tensor for each, or one for all."""


Slots = Mapping[str, Slot | None]
"""The parts of an optimizer's state by name, in the order of a kernel's arguments."""


def from_kernel(
    kernel: Callable[..., object],
    slots: Slot | Slots,
    hypers: Mapping[str, Hyper],
    options: Mapping[str, object],
    decay_params: DecayParams = "all",
) -> Optimizer:
    """Make an optimizer of a kernel, one in the form of those in `torch.optim`.

    The kernel is called with the lists of parameters, gradients and the tensors of each slot, all
    in the order of the parameters, and by name with the values of `hypers` at the step, of which
    `weight_decay` is one, and with `options`. In the list of a slot, None stands for a parameter
    without a tensor there; a slot that is None has an empty list. `slots` is a single function if
    the state is just one tensor for each parameter.

    >>> def descend(params, grads, sums, *, lr, weight_decay):
    ...     for param, grad, total in zip(params, grads, sums):
    ...         param.sub_(total.add_(grad).add(param, alpha=weight_decay), alpha=lr)
    >>> from mip.optim.protocol import zeros
    >>> opt = from_kernel(descend, zeros, {"lr": lambda step: 0.1, "weight_decay": 0.0}, {})
    >>> params = {"w": torch.ones(1)}
    >>> opt.update({"w": torch.ones(1)}, opt.init(params), params, 0)
    ({'w': tensor([1.])}, {'w': tensor([1.])}, {'w': tensor([0.9000])})
    """

    def init(params: Params) -> Tree:
        if not isinstance(slots, Mapping):
            return slots(params)
        return {name: make(params) for name, make in slots.items() if make is not None}

    def build(weight_decay: Hyper) -> Optimizer:
        def update_(grads: Params, state: Tree, params: Params, step: int) -> Update:
            values = {name: value_at(hyper, step) for name, hyper in hypers.items()}
            values["weight_decay"] = value_at(weight_decay, step)
            parts = [state.get(name) for name in slots] if isinstance(slots, Mapping) else [state]
            kernel(
                list(params.values()),
                [grads[path] for path in params],  # a file or a function may change their order
                *(_in_param_order(part, params) for part in parts),
                **values,
                **options,
            )
            return grads, state, params

        return Optimizer(init, update_, rates_of({**hypers, "weight_decay": weight_decay}))

    return with_weight_decay(build, hypers["weight_decay"], decay_params)


REPORTED = ("lr", "momentum", "weight_decay")
"""The hyper-parameters that the history of a fit has for every step, as far as they are used."""


def rates_of(hypers: Mapping[str, Hyper]) -> Rates:
    """Report the `REPORTED` ones of some hyper-parameters, except those that are always 0.

    Raises MipError for one that is neither a number nor a schedule.

    >>> rates_of({"lr": lambda step: 0.1 * step, "momentum": 0.9, "weight_decay": 0.0})((), 2)
    {'lr': 0.2, 'momentum': 0.9}
    """
    for name, hyper in hypers.items():
        check_hyper(name, hyper)
    reported = {name: hypers[name] for name in REPORTED if hypers.get(name)}
    return lambda state, step: {name: value_at(hyper, step) for name, hyper in reported.items()}


def _in_param_order(part: Params | Tensor | None, params: Params) -> Tensor | list[Tensor | None]:
    if isinstance(part, dict):
        return [part.get(path) for path in params]
    if part is None:
        return []
    return list(part.unbind()) if part.dim() else part


def zero_step_counts(params: Params) -> Tensor:
    """Return the step counts that torch's kernels keep for each parameter; on the CPU, where they
    are read.

    >>> zero_step_counts({"w": torch.ones(2), "b": torch.ones(3)})
    tensor([0., 0.])
    """
    return torch.zeros(len(params))


def update_second_moment_(
    square: Tensor, grad: Tensor, beta: float, count: int, eps: float
) -> Tensor:
    """Update the running mean of squared gradients in place and return its root, corrected for the
    bias of starting at 0.

    >>> square = torch.zeros(1)
    >>> update_second_moment_(square, torch.tensor([3.0]), beta=0.5, count=1, eps=0.0), square
    (tensor([3.]), tensor([4.5000]))
    """
    square.mul_(beta).addcmul_(grad, grad, value=1 - beta)
    return (square / (1 - beta**count)).sqrt_().add_(eps)
