"""Why a step failed: another state, a layer that cannot take its input, a loss of other shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from mip.compare import differences
from mip.errors import DataError, MipError
from mip.optim import Optimizer
from mip.train.gradient import bound_tensors, tensor_slots
from mip.train.shapes import cast_text, failure_of
from mip.train.state import State, check_tensors
from mip.tree import leaves, shapes_text


class StepError(DataError):
    """A step that failed on its batch; `fit` adds which rows these are."""

    def __init__(self, step: int, why: str, rows: str = "") -> None:
        super().__init__(f"step {step}{rows}: {why}")
        self.step, self.why = step, why


def explain_failure(
    net: nn.Module,
    loss: Callable[[Any, Any], Any],
    optimizer: Optimizer,
    state: State,
    batch: Any,
    error: Exception,
) -> str | None:
    """Say why a step failed, in a line; None if the error has to speak for itself.

    The forward pass and the loss are run again, without gradients, to find what fails.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return None
    try:
        check_tensors(net, state)
        check_optimizer_state(optimizer, state)
    except MipError as other_state:
        return str(other_state)
    with torch.no_grad(), bound_tensors(tensor_slots(net), state.params | state.buffers):
        calls = list[tuple[str, nn.Module, Any]]()
        try:
            logits = _forward(net, batch[:1], calls)
        except Exception as mistake:
            return _layer_text(calls, mistake, net)
    with torch.no_grad():
        failure = failure_of(loss, logits, batch[1])
    if failure is None:
        return None
    parts = f"predictions {shapes_text(logits)} and targets {shapes_text(batch[1])}"
    cure = cast_text(loss, logits, batch[1])
    return f"the loss cannot be computed from {parts}: {_message(failure)}{cure}"


def check_optimizer_state(optimizer: Optimizer, state: State) -> None:
    """Raise MipError if the state of an optimizer is that of another one."""
    params = {path: torch.empty_like(param, device="meta") for path, param in state.params.items()}
    expected = None
    with suppress(Exception):  # an optimizer that cannot be tried on tensors without memory
        expected = optimizer.init(params)
    if expected is None:
        return
    held = {path: list(tensor.shape) for path, tensor in leaves(state.optimizer)}
    wanted = {path: list(tensor.shape) for path, tensor in leaves(expected)}
    for name, one, other in differences(held, wanted):
        raise MipError(
            f"the state belongs to another optimizer: '{name}' is {one} in the state and {other} "
            "for this one; step.init() makes the state of a step"
        )


@torch.no_grad()
def failing_layer(net: nn.Module, inputs: Sequence[Any]) -> str | None:
    """Run a module on its arguments, and say which layer cannot take its input; None if all can.

    >>> failing_layer(nn.Sequential(nn.Flatten(), nn.Linear(4, 1)), [torch.zeros(2, 3)])
    "layer '1', a Linear with a weight float32 [1, 4] cannot take an input float32 [2, 3]: mat1 \
and mat2 shapes cannot be multiplied (2x3 and 4x1)"
    """
    calls = list[tuple[str, nn.Module, Any]]()
    try:
        _forward(net, inputs, calls)
    except torch.OutOfMemoryError:
        return None
    except Exception as failure:
        return _layer_text(calls, failure, net)
    return None


def _forward(net: nn.Module, inputs: Sequence[Any], calls: list[tuple[str, nn.Module, Any]]) -> Any:
    """Run a module, with the layers that it is inside of in `calls`."""

    def enter(path: str) -> Callable[..., None]:
        return lambda layer, args: calls.append((path, layer, args))

    handles = []
    for path, layer in net.named_modules():
        handles += [
            layer.register_forward_pre_hook(enter(path)),
            layer.register_forward_hook(lambda *_: calls.pop() and None),
        ]
    try:
        return net(*inputs)
    finally:
        for handle in handles:
            handle.remove()


def _layer_text(calls: list[tuple[str, nn.Module, Any]], failure: Exception, net: nn.Module) -> str:
    path, layer, args = calls[-1] if calls else ("", net, ())
    name = f"layer '{path}', a {type(layer).__name__}" if path else type(layer).__name__
    weight, given = getattr(layer, "weight", None), args[0] if args else None
    if isinstance(weight, Tensor):
        name += f" with a weight {shapes_text(weight)}"
    text = f"{name} cannot take an input {shapes_text(given)}: {_message(failure)}"
    if isinstance(weight, Tensor) and isinstance(given, Tensor) and "dtype" in str(failure):
        text += f"; convert the rows once, x.to({weight.dtype}), from numpy by torch.as_tensor(x)"
    if "must be Tensor, not" in str(failure):
        text += (
            "; a batch holds tensors: torch.as_tensor, or rows of arrays in a pipe, mip.batch(32)"
        )
    unpacked = "**inputs" if isinstance(given, dict) else "*inputs"
    if isinstance(given, (dict, tuple, list)) and "positional argument" in str(failure):
        text += "; inputs come as one argument, and a subclass makes several of it: "
        text += f"def forward(self, inputs): return super().forward({unpacked})"
    return text


def _message(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
