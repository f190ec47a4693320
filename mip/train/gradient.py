"""Loss and gradients of a module: eagerly, by a compiled graph, or of many models at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import FunctionType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from mip.errors import MipError
from mip.optim import Params
from mip.tree import clone, map_tree

Gradient = Callable[[Params], tuple[Tensor, Params, Params]]
"""Parameters to the loss there, its gradients, and the buffers that the forward pass left."""


Forward = Callable[[Any], Any]
"""Inputs to logits."""


Objective = Callable[[Forward, Any], Tensor]
"""A forward pass and a batch to the loss."""


Backward = Callable[[Params, Params, Any, Tensor | None], tuple[Tensor, Params, Params]]
"""Parameters, buffers, a batch and what the loss is scaled by for the way back (None does not) to
the loss, the gradients as scaled, and the buffers after. What is given stays as it was.
"""


Precision = Literal["float32", "bfloat16", "float16"]
"""The dtype of most arithmetic of the forward and the backward pass."""


def standard_gradient(gradient: Gradient, params: Params) -> tuple[Tensor, Params, Params]:
    """Take the gradients where the parameters are."""
    return gradient(params)


def sharpness_aware(radius: float = 0.05) -> Callable[[Gradient, Params], Any]:
    """Take the gradients where the loss is worst within `radius` of the parameters, to first
    order: SAM (Foret et al. 2021), a `gradient_rule` of `train_step`, with two forward passes a
    step. Loss and buffers are those of the parameters themselves.

    >>> def gradient(params): return params["w"] ** 2, {"w": 2 * params["w"]}, {}
    >>> sharpness_aware(0.5)(gradient, {"w": torch.tensor([1.0])})
    (tensor([1.]), {'w': tensor([3.])}, {})
    """

    def around(gradient: Gradient, params: Params) -> tuple[Tensor, Params, Params]:
        loss, grads, buffers = gradient(params)
        far = radius / (torch.nn.utils.get_total_norm(list(grads.values())) + 1e-12)
        near = {path: param + far * grads[path] for path, param in params.items()}
        return loss, gradient(near)[1], buffers

    return around


WRAPPERS = frozenset(
    {"DDP", "DTensor", "DataParallel", "DistributedDataParallel", "FSDPModule"}
    | {"FullyShardedDataParallel", "ReplicateModule"}
)
"""What torch makes of a module, or of its parameters, that several processes or devices train."""


def check_plain(net: nn.Module) -> None:
    """Raise MipError for a module that is wrapped for several processes or devices, or holds one:
    they share gradients in `Tensor.backward`, which is never called.

    >>> check_plain(nn.Sequential(nn.DataParallel(nn.Linear(1, 1))))
    Traceback (most recent call last):
    mip.errors.MipError: DataParallel is not supported, its gradients would not be shared: \
give the plain module, and train in one process and on one device
    """
    for part in (*net.modules(), *net.parameters()):
        for kind in type(part).__mro__:
            # By name: to import torch.distributed takes a second, and not every build has it.
            if kind.__name__ in WRAPPERS and kind.__module__.startswith("torch."):
                cure = "give the plain module, and train in one process and on one device"
                told = f"{kind.__name__} is not supported, its gradients would not be shared"
                raise MipError(f"{told}: {cure}")


def path_of(name: str) -> str:
    """Give the path of a parameter or buffer: its name, without what `torch.compile` puts before
    those of a module that it wraps.

    >>> path_of("_orig_mod.0.weight")
    '0.weight'
    """
    return name.replace("_orig_mod.", "")


def trained_of(net: nn.Module) -> Params:
    """List what a step trains: the parameters that ask for a gradient.

    >>> list(trained_of(nn.Linear(1, 1)))
    ['weight', 'bias']
    """
    return {path_of(name): p for name, p in net.named_parameters() if p.requires_grad}


def buffers_of(net: nn.Module) -> Params:
    """List what a step does not train: saved buffers, and parameters that ask for no gradient.

    >>> list(buffers_of(nn.BatchNorm1d(1)))
    ['running_mean', 'running_var', 'num_batches_tracked']
    """
    kept = net.state_dict().keys()
    frozen = {name: param for name, param in net.named_parameters() if not param.requires_grad}
    saved = {name: buffer for name, buffer in net.named_buffers() if name in kept}
    return {path_of(name): tensor for name, tensor in {**frozen, **saved}.items()}


Slots = list[tuple[dict[str, Any], str, str]]
"""Where a module keeps a tensor: (its dict of parameters or buffers, local name, path)."""


def slots_of(net: nn.Module) -> Slots:
    """Find where a module keeps its parameters and saved buffers. A tied weight stands in several
    slots under one path.

    >>> [path for _, _, path in slots_of(nn.Linear(1, 1))]
    ['weight', 'bias']
    """
    named = trained_of(net) | buffers_of(net)
    paths = {id(tensor): path for path, tensor in named.items()}
    return [
        (store, name, paths[id(tensor)])
        for module in net.modules()
        for store in (module._parameters, module._buffers)
        for name, tensor in store.items()
        if id(tensor) in paths
    ]


@contextmanager
def lent(slots: Slots, tensors: Params) -> Iterator[None]:
    """Put tensors into a module's slots for a block, and its own back afterwards.

    >>> net = nn.Linear(1, 1, bias=False)
    >>> with lent(slots_of(net), {"weight": torch.ones(1, 1)}): net(torch.ones(1, 1)).item()
    1.0
    """
    owned = [store[name] for store, name, _ in slots]
    for store, name, path in slots:
        store[name] = tensors[path]
    try:
        yield
    finally:
        for (store, name, _), tensor in zip(slots, owned, strict=True):
            store[name] = tensor


def eager(net: nn.Module, objective: Objective) -> Backward:
    """Take gradients operation by operation, with the tensors put into the module's slots."""
    slots, own_of = slots_of(net), _owned(net)

    def backward(params: Params, buffers: Params, batch: Any, scale: Tensor | None) -> Any:
        leaves = {path: param.detach().requires_grad_() for path, param in params.items()}
        own = own_of(buffers)
        with lent(slots, leaves | own):
            value = objective(net, batch)
            grads = _gradients(value if scale is None else value * scale, leaves)
            after = {path: store[name] for store, name, path in slots if path in own}
        return value.detach(), grads, after

    return backward


def _owned(net: nn.Module) -> Callable[[Params], Params]:
    # Batch norm writes into its buffers; a step that fails must leave the state's alone. Frozen
    # parameters stand among them, and nobody writes into those.
    written = {path_of(name) for name, _ in net.named_buffers()}
    return lambda buffers: {k: t.clone() if k in written else t for k, t in buffers.items()}


def _gradients(loss: Tensor, leaves: Params) -> Params:
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    pairs = zip(leaves.items(), grads, strict=True)
    return {path: torch.zeros_like(leaf) if grad is None else grad for (path, leaf), grad in pairs}


def functional(net: nn.Module, objective: Objective) -> Backward:
    """Take gradients by `torch.func`: what can be compiled, and mapped over stacked tensors."""
    own_of = _owned(net)
    names = {path_of(name): name for name in net.state_dict()}

    def backward(params: Params, buffers: Params, batch: Any, scale: Tensor | None) -> Any:
        def scaled(params: Params) -> tuple[Tensor, tuple[Tensor, Params]]:
            own = own_of(buffers)
            tensors = {names[path]: tensor for path, tensor in (params | own).items()}
            forward = lambda inputs: torch.func.functional_call(net, tensors, (inputs,))  # noqa: E731
            value = objective(forward, batch)
            return value if scale is None else value * scale, (value, own)

        grads, (value, after) = torch.func.grad(scaled, has_aux=True)(params)
        return value.detach(), grads, after

    return backward


def compiled(net: nn.Module, objective: Objective, backend: str = "inductor") -> Backward:
    """Take gradients by one graph for the forward and the backward pass, which `torch.compile`
    makes at the first batch of each size, in seconds to minutes; on a GPU it is replayed as a CUDA
    graph. Dropout draws other masks than `eager` does.

    Raises MipError where module and loss cannot be compiled as a whole. A warning of torch's
    compiler is shown, and never raised, whatever the filters for warnings say.
    """
    cuda = any(param.is_cuda for param in net.parameters())
    how: dict[str, Any] = {"triton.cudagraphs": cuda} if backend == "inductor" else {}
    whole = _apart(functional(net, objective))
    graph = torch.compile(whole, fullgraph=True, dynamic=False, backend=backend, options=how)

    def backward(params: Params, buffers: Params, batch: Any, scale: Tensor | None) -> Any:
        from torch._dynamo.exc import TorchDynamoException

        if cuda:
            torch.compiler.cudagraph_mark_step_begin()
        try:
            with _warnings_shown():
                value, grads, after = graph(params, buffers, tuple(batch[:2]), scale)
        except TorchDynamoException as error:
            why = str(error).strip().splitlines()[0]
            raise MipError(f"the step cannot be compiled: {why}") from error
        # A CUDA graph writes its results to the same place at every replay.
        return (value.clone(), grads, clone(after)) if cuda else (value, grads, after)

    return backward


@contextmanager
def _warnings_shown() -> Iterator[None]:
    # What torch warns of while it compiles is about torch. Where warnings are errors (`-W error`,
    # pytest), it is shown and does not end the step.
    if not any(action == "error" for action, *_ in warnings.filters):
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        yield


def vmapped(net: nn.Module, objective: Objective) -> Backward:
    """Take the gradients of many models with one batch at once (`torch.func.vmap`): parameters and
    buffers are stacked, the losses are a tensor [models]. Each model draws its own dropout. For
    small models and batches, and for GPUs; see `mip.train.stack`.
    """
    one = functional(net, objective)

    def backward(params: Params, buffers: Params, batch: Any, scale: Tensor | None) -> Any:
        each = lambda params, buffers: one(params, buffers, batch, scale)  # noqa: E731
        with warnings.catch_warnings():
            # Of an operation that torch takes model by model; it is right all the same.
            warnings.filterwarnings("ignore", "There is a performance drop")
            return torch.func.vmap(each, randomness="different")(params, buffers)

    return backward


def _apart(function: Any) -> Any:
    # torch.compile counts the graphs that it made of one code object, and gives up after eight.
    code, closure = function.__code__.replace(), function.__closure__
    return FunctionType(code, function.__globals__, function.__name__, None, closure)


def cast(objective: Objective, precision: Precision, device: torch.device) -> Objective:
    """Run the forward pass of an objective in another precision (torch's autocast); logits and
    loss are float32 again.

    >>> one = cast(lambda forward, batch: forward(batch).mean(), "bfloat16", torch.device("cpu"))
    >>> one(nn.Linear(2, 1), torch.ones(3, 2)).dtype
    torch.float32
    """
    if precision not in get_args(Precision):
        known = ", ".join(get_args(Precision))
        raise ValueError(f"'precision' must be one of {known}, not {precision!r}")
    dtype = getattr(torch, precision)

    def mixed(forward: Forward, batch: Any) -> Tensor:
        def run(inputs: Any) -> Any:
            with torch.autocast(device.type, dtype):
                return map_tree(Tensor.float, forward(inputs))

        return objective(run, batch)

    return objective if precision == "float32" else mixed


def match_strides(grads: Params, params: Params) -> Params:
    """Lay gradients out in memory as their parameters are: torch's fused kernels take that for
    given, and `torch.autograd.grad` does not see to it, as `Tensor.backward` does.

    >>> match_strides({"w": torch.ones(3, 2).t()}, {"w": torch.zeros(2, 3)})["w"].stride()
    (3, 1)
    """
    return {
        path: grad if grad.stride() == params[path].stride() else _laid(grad, params[path])
        for path, grad in grads.items()
    }


def _laid(grad: Tensor, param: Tensor) -> Tensor:
    return torch.empty_like(param, dtype=grad.dtype).copy_(grad)


def all_finite(loss: Tensor, grads: Params) -> bool:
    """Say whether a loss and all its gradients are finite; a GPU is waited for.

    >>> all_finite(torch.tensor(1.0), {"w": torch.tensor([1.0, float("inf")])})
    False
    """
    found = torch.zeros((), device=loss.device)
    # The kernel of torch.amp.GradScaler, which reads each number once: a norm takes thrice the
    # time. It multiplies by one.
    one = _one(loss.device)
    torch._amp_foreach_non_finite_check_and_unscale_([loss.clone(), *grads.values()], found, one)
    return not found.item()


@cache
def _one(device: torch.device) -> Tensor:
    return torch.ones((), device=device)
