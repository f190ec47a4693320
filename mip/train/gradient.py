"""Loss and gradients of a module: eagerly, by a compiled graph, or of many models at once.

The compiled graph ends with the gradients: torch's fused optimizers are one call already, and
cannot be traced. `torch.func` makes one graph of both passes; a compiled forward pass with
autograd's backward pass gained nothing on the CPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any, NamedTuple

import torch
from toolz import dissoc
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mip.errors import DataError, MipError
from mip.optim import Params
from mip.tree import clone, map_tree


class Grads(NamedTuple):
    """The loss, its gradients by path, the buffers as the forward pass left them, and the
    predictions, (logits, target), if metrics are computed from them, or (). `unused` are the paths
    of parameters that the loss does not depend on, as far as an engine knows them.
    """

    loss: Tensor
    grads: Params
    buffers: Params
    predictions: Any = ()
    unused: tuple[str, ...] = ()


GradientFunction = Callable[[Params], Grads]
"""Evaluates the gradients of a batch's loss at some parameters."""


GradientRule = Callable[[GradientFunction, Params], Grads]
"""Chooses where gradients are evaluated, given the current parameters."""


Forward = Callable[[Any], Any]
"""Inputs to logits."""


Objective = Callable[[Forward, Any], tuple[Tensor, Any]]
"""A forward pass and a batch to the loss, and to the predictions, (logits, target), or ()."""


Backward = Callable[[Params, Params, Any, Tensor | None], Grads]
"""(parameters, buffers, batch, loss scale or None) to the loss and its gradients, which are
multiplied by the scale. The arguments are not changed.
"""


GradientEngine = Callable[[nn.Module, Objective], Backward]
"""Makes the function that computes a module's gradients."""


def standard_gradient(gradient: GradientFunction, params: Params) -> Grads:
    """Evaluate the gradients at the current parameters."""
    return gradient(params)


def sharpness_aware(radius: float = 0.05) -> GradientRule:
    """Evaluate the gradients where the loss is worst within `radius` of the parameters, to first
    order (SAM, Foret et al. 2021). Takes two forward and backward passes per step; loss and
    buffers are those at the parameters themselves.

    >>> def gradient(params): return Grads(params["w"] ** 2, {"w": 2 * params["w"]}, {})
    >>> sharpness_aware(0.5)(gradient, {"w": torch.tensor([1.0])}).grads
    {'w': tensor([3.])}
    """

    def rule(gradient: GradientFunction, params: Params) -> Grads:
        here = gradient(params)
        scale = radius / (torch.nn.utils.get_total_norm(list(here.grads.values())) + 1e-12)
        worst = {path: param + scale * here.grads[path] for path, param in params.items()}
        return here._replace(grads=gradient(worst).grads)

    return rule


WRAPPERS = frozenset(
    {"DDP", "DTensor", "DataParallel", "DistributedDataParallel", "FSDPModule"}
    | {"FullyShardedDataParallel", "ReplicateModule"}
)
"""Classes in which torch wraps a module or its parameters for several processes or devices."""


def check_not_distributed(net: nn.Module) -> None:
    """Raise MipError if a module, or one inside it, is wrapped for several processes or devices:
    wrappers synchronise gradients in `Tensor.backward`, which is never called here.

    >>> check_not_distributed(nn.Sequential(nn.DataParallel(nn.Linear(1, 1))))
    Traceback (most recent call last):
    mip.errors.MipError: DataParallel is not supported, its gradients would not be synchronised: \
pass the unwrapped module and train in one process on one device
    """
    for part in (*net.modules(), *net.parameters()):
        for kind in type(part).__mro__:
            # By name: importing torch.distributed takes a second, and not every build has it.
            if kind.__name__ in WRAPPERS and kind.__module__.startswith("torch."):
                raise MipError(
                    f"{kind.__name__} is not supported, its gradients would not be synchronised: "
                    "pass the unwrapped module and train in one process on one device"
                )


def path_of(name: str) -> str:
    """Return the path of a parameter or buffer: its name without the prefix that `torch.compile`
    adds to those of a module that it wraps.

    >>> path_of("_orig_mod.0.weight")
    '0.weight'
    """
    return name.replace("_orig_mod.", "")


def trainable_params(net: nn.Module) -> Params:
    """Return the parameters that a step trains: those that require a gradient, by path.

    >>> list(trainable_params(nn.Linear(1, 1)))
    ['weight', 'bias']
    """
    return {path_of(name): p for name, p in net.named_parameters() if p.requires_grad}


def saved_buffers(net: nn.Module) -> Params:
    """Return the tensors that a step does not train, by path: buffers that are saved, and
    parameters that require no gradient.

    >>> list(saved_buffers(nn.BatchNorm1d(1)))
    ['running_mean', 'running_var', 'num_batches_tracked']
    """
    saved = net.state_dict().keys()
    frozen = {name: param for name, param in net.named_parameters() if not param.requires_grad}
    buffers = {name: buffer for name, buffer in net.named_buffers() if name in saved}
    return {path_of(name): tensor for name, tensor in {**frozen, **buffers}.items()}


Slots = list[tuple[dict[str, Any], str, str]]
"""Where a module keeps a tensor: (its dict of parameters or buffers, local name, path)."""


def tensor_slots(net: nn.Module) -> Slots:
    """Find where a module keeps its parameters and saved buffers. A tied weight has several slots
    and one path.

    >>> [path for _, _, path in tensor_slots(nn.Linear(1, 1))]
    ['weight', 'bias']
    """
    named = trainable_params(net) | saved_buffers(net)
    paths = {id(tensor): path for path, tensor in named.items()}
    return [
        (store, name, paths[id(tensor)])
        for module in net.modules()
        for store in (module._parameters, module._buffers)
        for name, tensor in store.items()
        if id(tensor) in paths
    ]


@contextmanager
def bound_tensors(slots: Slots, tensors: Params) -> Iterator[None]:
    """Put tensors into a module's slots for the duration of a block.

    >>> net = nn.Linear(1, 1, bias=False)
    >>> with bound_tensors(tensor_slots(net), {"weight": torch.ones(1, 1)}):
    ...     net(torch.ones(1, 1)).item()
    1.0
    """
    previous = [store[name] for store, name, _ in slots]
    for store, name, path in slots:
        store[name] = tensors[path]
    try:
        yield
    finally:
        for (store, name, _), tensor in zip(slots, previous, strict=True):
            store[name] = tensor


def eager(net: nn.Module, objective: Objective) -> Backward:
    """Compute gradients operation by operation, with the tensors bound to the module's slots."""
    slots, written = tensor_slots(net), written_buffers(net)

    def backward(params: Params, buffers: Params, batch: Any, scale: Tensor | None) -> Grads:
        leaves = {path: param.detach().requires_grad_() for path, param in params.items()}
        # A step that fails must not change the buffers of the state.
        writable = written()
        buffers = {k: t.clone() if k in writable else t for k, t in buffers.items()}
        with bound_tensors(slots, leaves | buffers):
            loss, predictions = objective(net, batch)
            if not loss.requires_grad:
                cure = "leave out detach(), item(), numpy() and torch.no_grad()"
                raise DataError(f"the loss has no gradient, it was cut off from the net: {cure}")
            scaled = loss if scale is None else loss * scale
            found = torch.autograd.grad(scaled, list(leaves.values()), allow_unused=True)
            after = {path: store[name] for store, name, path in slots if path in buffers}
        grads = dict(zip(leaves, found, strict=True))
        unused: tuple[str, ...] = ()
        if any(grad is None for grad in found):
            unused = tuple(path for path, grad in grads.items() if grad is None)
            grads |= {path: torch.zeros_like(params[path]) for path in unused}
        return Grads(loss.detach(), grads, after, map_tree(Tensor.detach, predictions), unused)

    return backward


def written_buffers(net: nn.Module) -> Callable[[], set[str]]:
    """Return a function that tells which buffers a forward pass may write to, by path: those of
    batch norms in evaluation mode, of which a frozen backbone has hundreds, are only read.
    """
    buffers = [
        (path_of(f"{name}.{local}".lstrip(".")), part)
        for name, part in net.named_modules()
        for local, _ in part.named_buffers(recurse=False)
    ]
    is_read = lambda part: isinstance(part, _BatchNorm) and not part.training  # noqa: E731
    return lambda: {path for path, part in buffers if not is_read(part)}


def _buffer_copier(net: nn.Module) -> Callable[[Params], Params]:
    # Batch norm writes into its buffers; a step that fails must not change those of the state.
    # The frozen parameters among them are never written to.
    written = {path_of(name) for name, _ in net.named_buffers()}
    return lambda buffers: {k: t.clone() if k in written else t for k, t in buffers.items()}


def functional(net: nn.Module, objective: Objective) -> Backward:
    """Compute gradients by `torch.func`, which can be compiled and mapped over stacked tensors."""
    copy_buffers = _buffer_copier(net)
    names = {path_of(name): name for name in net.state_dict()}

    def backward(params: Params, buffers: Params, batch: Any, scale: Tensor | None) -> Grads:
        def scaled(params: Params) -> tuple[Tensor, tuple[Tensor, Params, Any]]:
            after = copy_buffers(buffers)
            tensors = {names[path]: tensor for path, tensor in (params | after).items()}
            forward = lambda inputs: torch.func.functional_call(net, tensors, (inputs,))  # noqa: E731
            loss, predictions = objective(forward, batch)
            return loss if scale is None else loss * scale, (loss, after, predictions)

        grads, (loss, after, predictions) = torch.func.grad(scaled, has_aux=True)(params)
        return Grads(loss.detach(), grads, after, predictions)

    return backward


def compiled(net: nn.Module, objective: Objective, backend: str = "inductor") -> Backward:
    """Compute gradients by one graph for the forward and the backward pass, made by
    `torch.compile` at the first batch of each size, in seconds to minutes; on a GPU it is replayed
    as a CUDA graph. Dropout masks differ from those of `eager`.

    Raises MipError if module and loss cannot be compiled as a whole. Warnings of the compiler are
    always shown and never raised, whatever the warning filters say.
    """
    cuda = any(param.is_cuda for param in net.parameters())
    graph = torch.compile(
        _with_own_code_object(functional(net, objective)),
        fullgraph=True,
        dynamic=False,
        backend=backend,
        options={"triton.cudagraphs": cuda} if backend == "inductor" else {},
    )

    def backward(params: Params, buffers: Params, batch: Any, scale: Tensor | None) -> Grads:
        from torch._dynamo.exc import TorchDynamoException

        if cuda:
            torch.compiler.cudagraph_mark_step_begin()
        try:
            with _warnings_shown():
                made = graph(params, buffers, tuple(batch[:2]), scale)
        except TorchDynamoException as error:
            why = str(error).strip().splitlines()[0]
            raise MipError(f"the step cannot be compiled: {why}") from error
        # A CUDA graph writes its results to the same memory at every replay.
        return clone(made) if cuda else made

    return backward


def _with_own_code_object(function: Any) -> Any:
    # torch.compile counts the graphs of a code object, and gives up after eight.
    code, closure = function.__code__.replace(), function.__closure__
    return FunctionType(code, function.__globals__, function.__name__, None, closure)


@contextmanager
def _warnings_shown() -> Iterator[None]:
    # The compiler's warnings are about torch itself. If warnings are errors (`-W error`, pytest),
    # these are shown instead, so that they do not end the step.
    if not any(action == "error" for action, *_ in warnings.filters):
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        yield


def vmapped(net: nn.Module, objective: Objective) -> Backward:
    """Compute the gradients of many models on one batch at once (`torch.func.vmap`): parameters and
    buffers are stacked, and the losses are a tensor [models]. Each model has its own dropout masks.
    Worth it for small models and batches, and on GPUs; see `mip.train.stack`.
    """
    single = functional(net, objective)

    def backward(params: Params, buffers: Params, batch: Any, scale: Tensor | None) -> Grads:
        of_model = lambda params, buffers: single(params, buffers, batch, scale)  # noqa: E731
        with warnings.catch_warnings():
            # About operations that torch maps in a loop; their results are right all the same.
            warnings.filterwarnings("ignore", "There is a performance drop")
            return torch.func.vmap(of_model, randomness="different")(params, buffers)

    return backward


def holding(backward: Backward, held: Collection[str]) -> Backward:
    """Hold the parameters with the paths `held` fixed, as buffers are: their gradients are 0, and
    cost nothing.

    >>> net = nn.Linear(1, 1)
    >>> backward = eager(net, lambda forward, batch: (forward(batch).mean(), ()))
    >>> params = trainable_params(net)
    >>> holding(backward, {"weight"})(params, {}, torch.ones(1, 1), None).grads
    {'weight': tensor([[0.]]), 'bias': tensor([1.])}
    """
    if not held:
        return backward

    def partial(params: Params, buffers: Params, batch: Any, scale: Tensor | None) -> Grads:
        fixed = {path: params[path] for path in held}
        made = backward(dissoc(params, *held), buffers | fixed, batch, scale)
        grads = {path: torch.zeros_like(param) for path, param in params.items() if path in held}
        grads = {path: (grads | made.grads)[path] for path in params}
        return made._replace(grads=grads, buffers=dissoc(made.buffers, *held))

    return partial


def match_strides(grads: Params, params: Params) -> Params:
    """Return gradients with the memory layout of their parameters. torch's fused kernels rely on
    it, and `torch.autograd.grad`, unlike `Tensor.backward`, does not ensure it.

    >>> match_strides({"w": torch.ones(3, 2).t()}, {"w": torch.zeros(2, 3)})["w"].stride()
    (3, 1)
    """
    return {
        path: grad
        if grad.stride() == params[path].stride()
        else torch.empty_like(params[path], dtype=grad.dtype).copy_(grad)
        for path, grad in grads.items()
    }
