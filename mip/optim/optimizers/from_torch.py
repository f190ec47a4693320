"""Any class of `torch.optim`, or another of the same form, as a pair of pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from mip.errors import MipError
from mip.optim.kernels import REPORTED, rates_of
from mip.optim.protocol import Optimizer, Params, Update, zeros
from mip.optim.schedules import Hyper, value_at
from mip.tree import Tree, clone, map_tree

_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


def from_torch(
    kind: type[torch.optim.Optimizer],
    options: Mapping[str, Any] = _NO_OPTIONS,
    lr: Hyper | None = None,
) -> Optimizer:
    """Convert a subclass of `torch.optim.Optimizer`, constructed with `options`; `lr` is its
    learning rate if that follows a schedule. An instance is made at every step from the state,
    which holds its tensors and numbers. A class whose `step` needs a closure cannot be converted.

    Raises MipError if it keeps anything but tensors and numbers.

    >>> params = {"w": torch.ones(1)}; opt = from_torch(torch.optim.Adamax, {"lr": 0.1})
    >>> opt.update({"w": torch.ones(1)}, opt.init(params), params, 0)[2]
    {'w': tensor([0.9000])}
    """

    def make(params: Params) -> tuple[Params, torch.optim.Optimizer]:
        detached = {path: param.detach() for path, param in params.items()}
        # A list of parameters may not be empty, but a group may.
        return detached, kind([{"params": list(detached.values())}], **options)

    def take_step(optimizer: Any, params: Params, grads: Params) -> Tree:
        for path, param in params.items():
            param.grad = grads[path]
        optimizer.step()
        return _pack(optimizer, params, options)

    def init(params: Params) -> Tree:
        # Only a step, on copies, shows which tensors and numbers it keeps.
        copies, optimizer = make(clone(params))
        packed = map_tree(torch.zeros_like, take_step(optimizer, copies, zeros(params)))
        return {"begun": torch.zeros(()), **packed}

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Update:
        detached, optimizer = make(params)
        if state["begun"]:
            _unpack(optimizer, detached, state)
        if lr is not None:
            optimizer.param_groups[0]["lr"] = value_at(lr, step)
        packed = take_step(optimizer, detached, grads)
        new_params = {path: param.data for path, param in detached.items()}
        return grads, {"begun": torch.ones(()), **packed}, new_params

    def rates(state: Tree, step: int) -> dict[str, float]:
        group = make({})[1].param_groups[0] | ({} if lr is None else {"lr": lr})
        return rates_of({name: group[name] for name in REPORTED if name in group})(state, step)

    return Optimizer(init, update_, rates)


def _pack(
    optimizer: torch.optim.Optimizer, params: Params, options: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    states = {path: dict(optimizer.state.get(param, {})) for path, param in params.items()}
    group = {k: v for k, v in optimizer.param_groups[0].items() if k not in options}
    return {
        "group": {k: _as_tensor(v) for k, v in group.items() if type(v) in (int, float)},
        "number": {path: _numbers(optimizer, state) for path, state in states.items()},
        "tensor": {
            path: {k: v for k, v in state.items() if isinstance(v, Tensor)}
            for path, state in states.items()
        },
    }


def _numbers(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> dict[str, Tensor]:
    others = {k: v for k, v in state.items() if v is not None and not isinstance(v, Tensor)}
    for name, number in others.items():
        if type(number) not in (bool, int, float):
            what = f"{type(optimizer).__name__} keeps '{name}' as {type(number).__name__}"
            raise MipError(f"{what}: only tensors and numbers can go into a checkpoint")
    return {name: _as_tensor(number) for name, number in others.items()}


def _as_tensor(number: bool | int | float) -> Tensor:
    return torch.tensor(number, dtype=torch.float64 if type(number) is float else None)


def _unpack(optimizer: torch.optim.Optimizer, params: Params, state: Tree) -> None:
    optimizer.param_groups[0].update({name: leaf.item() for name, leaf in state["group"].items()})
    for path, param in params.items():
        numbers = {name: leaf.item() for name, leaf in state["number"][path].items()}
        optimizer.state[param] = {**state["tensor"][path], **numbers}
