"""Any class of `torch.optim`, or of others in its form, as a pair of pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from mip.errors import MipError
from mip.optim.protocol import Optimizer, Params, zeros
from mip.optim.schedules import Hyper, value
from mip.tree import Tree, clone, map_tree

NOTHING: Mapping[str, Any] = MappingProxyType({})


def from_torch(
    kind: type[torch.optim.Optimizer],
    options: Mapping[str, Any] = NOTHING,
    rate: Hyper | None = None,
) -> Optimizer:
    """Take a class in the form of `torch.optim.Optimizer`, made with `options`; `rate` is its `lr`
    where that follows a schedule. It is made anew at every step from the state, which holds its
    tensors and numbers. A class whose `step` wants a closure cannot be taken.

    Raises MipError where it keeps anything else.

    >>> params = {"w": torch.ones(1)}; one = from_torch(torch.optim.Adamax, {"lr": 0.1})
    >>> one.update({"w": torch.ones(1)}, one.init(params), params, 0)[2]
    {'w': tensor([0.9000])}
    """

    def made(params: Params) -> tuple[Params, torch.optim.Optimizer]:
        held = {path: param.detach() for path, param in params.items()}
        # As a group, which may be empty.
        return held, kind([{"params": list(held.values())}], **options)

    def stepped(one: Any, held: Params, grads: Params) -> Tree:
        for path, param in held.items():
            param.grad = grads[path]
        one.step()
        return _packed(one, held, options)

    def init(params: Params) -> Tree:
        # What it will keep is known only after a step, taken here on copies.
        held, one = made(clone(params))
        after = map_tree(torch.zeros_like, stepped(one, held, zeros(params)))
        return {"begun": torch.zeros(()), **after}

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Any:
        held, one = made(params)
        if state["begun"]:
            _unpack(one, held, state)
        if rate is not None:
            one.param_groups[0]["lr"] = value(rate, step)
        after = stepped(one, held, grads)
        return grads, {"begun": torch.ones(()), **after}, {k: p.data for k, p in held.items()}

    return Optimizer(init, update_)


def _packed(one: torch.optim.Optimizer, held: Params, options: Mapping[str, Any]) -> Tree:
    kept = {path: dict(one.state.get(param, {})) for path, param in held.items()}
    group = {k: v for k, v in one.param_groups[0].items() if k not in options}
    return {
        "group": {k: _boxed(v) for k, v in group.items() if type(v) in (int, float)},
        "number": {path: _numbers(one, each) for path, each in kept.items()},
        "tensor": {
            path: {k: v for k, v in each.items() if isinstance(v, Tensor)}
            for path, each in kept.items()
        },
    }


def _numbers(one: torch.optim.Optimizer, kept: Mapping[str, Any]) -> Params:
    others = {k: v for k, v in kept.items() if v is not None and not isinstance(v, Tensor)}
    for name, each in others.items():
        if type(each) not in (bool, int, float):
            known = f"{type(one).__name__} keeps '{name}' as {type(each).__name__}"
            raise MipError(f"{known}: only tensors and numbers can go into a checkpoint")
    return {name: _boxed(each) for name, each in others.items()}


def _boxed(number: bool | int | float) -> Tensor:
    wide = torch.float64 if type(number) is float else None
    return torch.tensor(number, dtype=wide)


def _unpack(one: torch.optim.Optimizer, held: Params, state: Tree) -> None:
    one.param_groups[0].update({name: each.item() for name, each in state["group"].items()})
    for path, param in held.items():
        numbers = {name: each.item() for name, each in state["number"][path].items()}
        one.state[param] = {**state["tensor"][path], **numbers}
