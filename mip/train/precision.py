"""The precision of a step's arithmetic, and the loss scale that float16 needs."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, NamedTuple, get_args

import torch
from attrs import field, frozen
from attrs.validators import gt
from torch import Tensor

from mip.errors import MipError
from mip.optim import Optimizer, Params, Update
from mip.train.gradient import Forward, Objective
from mip.tree import Tree, map_tree

Precision = Literal["float32", "bfloat16", "float16"]
"""The dtype of most arithmetic in the forward and the backward pass."""


@frozen
class Float16:
    """The precision "float16" with options for its loss scale, by which the loss is multiplied for
    the backward pass, so that small gradients do not underflow (Micikevicius et al. 2018).

    As `torch.amp.GradScaler` does, it doubles after `growth_interval` steps, and halves after a
    step with gradients that are not finite, which changes no parameter.
    """

    init_scale: float = field(default=2.0**16, validator=gt(0))
    growth_interval: int = field(default=2000, validator=gt(0))


def float16_of(precision: Precision | Float16) -> Float16 | None:
    """Return the options of float16, or None for another precision; raise ValueError if there is
    no such precision.

    >>> float16_of("float16"), float16_of("float32")
    (Float16(init_scale=65536.0, growth_interval=2000), None)
    """
    if isinstance(precision, Float16):
        return precision
    if precision not in get_args(Precision):
        known = ", ".join(get_args(Precision))
        raise ValueError(f"'precision' must be one of {known}, not {precision!r}")
    return Float16() if precision == "float16" else None


def with_autocast(
    objective: Objective, precision: Precision | Float16, device: torch.device
) -> Objective:
    """Run the forward pass of an objective in another precision (torch's autocast); logits and
    loss are float32 again.

    >>> mean = lambda forward, batch: (forward(batch).mean(), ())
    >>> objective = with_autocast(mean, "bfloat16", torch.device("cpu"))
    >>> objective(torch.nn.Linear(2, 1), torch.ones(3, 2))[0].dtype
    torch.float32
    """
    if precision == "float32":
        return objective
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float16

    def mixed(forward: Forward, batch: Any) -> tuple[Tensor, Any]:
        def run(inputs: Any) -> Any:
            with torch.autocast(device.type, dtype):
                return map_tree(Tensor.float, forward(inputs))

        return objective(run, batch)

    return mixed


class LossScale(NamedTuple):
    """The factor of the loss in the backward pass, and the steps since it last changed."""

    factor: Tensor
    steps: Tensor


def with_loss_scale(optimizer: Optimizer, float16: Float16 | None) -> Optimizer:
    """Add the loss scale of float16 to an optimizer's state; without float16 return the optimizer
    itself.

    >>> from mip.optim import sgd
    >>> optimizer = with_loss_scale(sgd(1.0), Float16(init_scale=4.0, growth_interval=1))
    >>> params = {"w": torch.ones(1)}; state = optimizer.init(params)
    >>> after = optimizer.update(params, state, params, 0)[1]
    >>> loss_scale(after), loss_scale(halve_loss_scale(state))
    (tensor(8.), tensor(2.))
    """
    if float16 is None:
        return optimizer

    def init(params: Params) -> Tree:
        device = next((param.device for param in params.values()), None)
        factor = torch.full((), float16.init_scale, device=device)
        return {"scale": LossScale(factor, torch.zeros(())), "inner": optimizer.init(params)}

    def update_(grads: Params, state: Tree, params: Params, step: int) -> Update:
        factor, steps = state["scale"]
        if steps.add_(1) == float16.growth_interval:
            factor, steps = factor * 2, steps.zero_()
        grads, inner, params = optimizer.update_(grads, state["inner"], params, step)
        return grads, {"scale": LossScale(factor, steps), "inner": inner}, params

    rates = lambda state, step: optimizer.rates(state["inner"], step)  # noqa: E731
    return Optimizer(init, update_, rates)


def loss_scale(state: Tree) -> Tensor | None:
    """Return the loss scale in an optimizer's state, or None if it has none."""
    scale = state.get("scale") if isinstance(state, dict) else None
    return scale.factor if isinstance(scale, LossScale) else None


def check_loss_scale(scale: Tensor | None, float16: Float16 | None) -> None:
    """Raise MipError if a state has a loss scale without float16, or none with it."""
    if (scale is None) != (float16 is None):
        what = "no loss scale, which" if scale is None else "a loss scale, which only"
        cure = "pass the same precision to init and to train_step"
        raise MipError(f"the state has {what} float16 needs: {cure}")


def halve_loss_scale(state: Tree) -> Tree:
    """Halve the loss scale in an optimizer's state, if it has one."""
    factor = loss_scale(state)
    if factor is None:
        return state
    return {**state, "scale": LossScale(factor / 2, torch.zeros(()))}


def all_finite(loss: Tensor, grads: Params) -> bool:
    """Return whether a loss and all its gradients are finite; waits for a GPU.

    >>> all_finite(torch.tensor(1.0), {"w": torch.tensor([1.0, float("inf")])})
    False
    """
    not_finite = torch.zeros((), device=loss.device)
    # The kernel of torch.amp.GradScaler reads each number once; a norm takes three times as long.
    # It also multiplies by a number, which is one here.
    tensors = [loss.clone(), *grads.values()]
    torch._amp_foreach_non_finite_check_and_unscale_(tensors, not_finite, _one(loss.device))
    return not not_finite.item()


@cache
def _one(device: torch.device) -> Tensor:
    return torch.ones((), device=device)
