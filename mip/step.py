"""The step: a pure function (state, batch) -> (state, metrics), and its in-place form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from attrs import evolve, frozen
from toolz import identity
from torch import Tensor, nn

from mip.compositions import averages
from mip.optimizer import Optimizer, Params
from mip.rng import derive, generators, seeded
from mip.tree import Tree, clone

Metrics = dict[str, Any]
"""Names to numbers, or to tensors of no dimensions that stay on their device until read."""


@frozen
class State:
    """All that a run is at one moment: tensors and two integers.

    `step` counts the steps taken; with `seed` it fixes every draw that comes.
    """

    params: Params
    buffers: Params
    optimizer: Tree
    step: int = 0
    seed: int = 0


def init(net: nn.Module, optimizer: Optimizer, seed: int = 0) -> State:
    """Make the state before step 0 from a module's parameters and buffers, copied."""
    params = clone({name: p for name, p in net.named_parameters() if p.requires_grad})
    return State(params, clone(_buffers(net)), optimizer.init(params), 0, seed)


def _buffers(net: nn.Module) -> Params:
    # What a step does not train: saved buffers, and parameters that ask for no gradient.
    kept = net.state_dict().keys()
    frozen = {name: param for name, param in net.named_parameters() if not param.requires_grad}
    return frozen | {name: buffer for name, buffer in net.named_buffers() if name in kept}


def copy(state: State, into: State | None = None) -> State:
    """Copy a state's tensors; into those of `into`, which is lost to the caller, where given."""
    trees = [(each.params, each.buffers, each.optimizer) for each in (state, into) if each]
    params, buffers, optimizer = clone(*trees)
    return State(params, buffers, optimizer, state.step, state.seed)


@frozen
class Step:
    """A training step in two forms with one meaning, bit for bit on the CPU.

    Called, it is pure: neither the state, the batch, the module nor the global random state
    changes. `donate` does the same and may write into the state it is given, which is lost to
    the caller; `fit` uses it for states that nobody else can see.
    """

    donate: Callable[[State, Any], tuple[State, Metrics]]

    def __call__(self, state: State, batch: Any) -> tuple[State, Metrics]:
        return self.donate(copy(state), batch)


def averaged(state: State) -> State:
    """Give the state whose parameters are the averages that `ema`, `swa` or `schedule_free` keep;
    where none does it is the state itself. A state is validated, predicts and is saved as a model
    by them; it trains on, and is kept in checkpoints, as it is.

    >>> from mip.optim import chain, ema, sgd
    >>> net, one = nn.Linear(1, 1, bias=False), chain(sgd(1.0), ema(0.5)); state = init(net, one)
    >>> averaged(state).params["weight"].equal(net.weight)
    True
    """
    means = _means(state)
    return evolve(state, params={**state.params, **clone(means)}) if means else state


def _means(state: State) -> Params:
    return {path: mean for each in averages(state.optimizer) for path, mean in each.items()}


Gradient = Callable[[Params], tuple[Tensor, Params, Params]]
"""Parameters to the loss there, its gradients, and the buffers that the forward pass left."""


def plain(gradient: Gradient, params: Params) -> tuple[Tensor, Params, Params]:
    """Take the gradients where the parameters are."""
    return gradient(params)


def sharpness_aware(radius: float = 0.05) -> Callable[[Gradient, Params], Any]:
    """Take the gradients where the loss is worst within `radius` of the parameters, to first
    order: SAM (Foret et al. 2021), the `around` of a step, which takes two forward passes. Loss
    and buffers are those of the parameters themselves.

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


Slots = list[tuple[dict[str, Any], str, str]]
"""Where a module keeps a tensor: (its dict of parameters or buffers, local name, path)."""


def _slots(net: nn.Module) -> Slots:
    # A tied weight stands in several slots under one path.
    paths = {id(tensor): path for path, tensor in [*net.named_parameters(), *_buffers(net).items()]}
    return [
        (store, name, paths[id(tensor)])
        for module in net.modules()
        for store in (module._parameters, module._buffers)
        for name, tensor in store.items()
        if id(tensor) in paths
    ]


@contextmanager
def _lent(slots: Slots, tensors: Params) -> Iterator[None]:
    owned = [store[name] for store, name, _ in slots]
    for store, name, path in slots:
        store[name] = tensors[path]
    try:
        yield
    finally:
        for (store, name, _), tensor in zip(slots, owned, strict=True):
            store[name] = tensor


def nothing(grads: Params, params: Params) -> Metrics:
    """Measure nothing."""
    return {}


def norms(grads: Params, params: Params) -> Metrics:
    """Measure the joint 2-norms of all gradients and of all parameters: tensors of no dimensions.

    >>> some = {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}
    >>> {name: float(norm) for name, norm in norms(some, some).items()}
    {'grad_norm': 5.0, 'weight_norm': 5.0}
    """
    total = torch.nn.utils.get_total_norm
    return {"grad_norm": total(list(grads.values())), "weight_norm": total(list(params.values()))}


def train_step(
    net: nn.Module,
    loss: Callable[[Tensor, Any], Tensor],
    optimizer: Optimizer,
    *,
    around: Callable[[Gradient, Params], Any] = plain,
    after_pred: Callable[[Tensor], Tensor] = identity,
    after_loss: Callable[[Tensor], Tensor] = identity,
    after_backward: Callable[[Params], Params] = identity,
    after_step: Callable[[Params], Params] = identity,
    measure: Callable[[Params, Params], Metrics] = nothing,
) -> Step:
    """Make a training step of a module, a loss and an optimizer.

    A batch begins with (inputs, target); the loss is a mean over its rows. The `after_`
    functions are value events: each takes the logits, the loss, the gradients or the new
    parameters and gives them back, changed or not. `around` takes the gradients, once (`plain`) or
    more often (`sharpness_aware`), each time with the same draws. `measure` takes the gradients,
    not clipped yet, and the parameters before the step; what it gives joins the metrics (see
    `norms`). A parameter that asks for no gradient stays as it is; one that the loss does not
    depend on has gradient 0. The module is scratch space: one step, and one thread at a time, may
    use it.

    >>> from attrs import evolve; from mip.optim import sgd
    >>> net = nn.Linear(1, 1, bias=False); one = sgd(0.5)
    >>> step = train_step(net, nn.functional.mse_loss, one)
    >>> state = evolve(init(net, one), params={"weight": torch.zeros(1, 1)})
    >>> after, metrics = step(state, (torch.ones(4, 1), torch.ones(4, 1)))
    >>> float(metrics["loss"]), float(after.params["weight"]), float(state.params["weight"])
    (1.0, 1.0, 0.0)
    """
    slots, written = _slots(net), {path for path, _ in net.named_buffers()}
    drawn = generators(next((param.device for param in net.parameters()), None))

    def donate(state: State, batch: Any) -> tuple[State, Metrics]:
        if not net.training:
            net.train()
        seed = derive("step", state.seed, state.step)

        def gradient(params: Params) -> tuple[Tensor, Params, Params]:
            leaves = {path: param.detach().requires_grad_() for path, param in params.items()}
            # Batch norm writes into its buffers; a step that fails must leave the state's alone.
            buffers = {k: v.clone() if k in written else v for k, v in state.buffers.items()}
            with _lent(slots, leaves | buffers), seeded(seed, drawn):
                value = after_loss(loss(after_pred(net(batch[0])), batch[1]))
                grads = after_backward(_gradients(value, leaves))
                after = {path: store[name] for store, name, path in slots if path in buffers}
            return value.detach(), grads, after

        value, grads, buffers = around(gradient, state.params)
        with torch.no_grad():
            # Now, since the optimizer may clip and write in place.
            measured = measure(grads, state.params)
            _, tree, params = optimizer.update_(grads, state.optimizer, state.params, state.step)
            params = after_step(params)
        after = State(params, buffers, tree, state.step + 1, state.seed)
        return after, {"loss": value, **measured}

    return Step(donate)


def _gradients(loss: Tensor, leaves: Params) -> Params:
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    pairs = zip(leaves.items(), grads, strict=True)
    return {path: torch.zeros_like(leaf) if grad is None else grad for (path, leaf), grad in pairs}


def eval_step(net: nn.Module) -> Callable[[State, Any], Tensor]:
    """Make a pure function (state, inputs) -> logits, in evaluation mode and without gradients, by
    the averages of the parameters where the state keeps some.

    It needs a module of its own: a training step may be using the other.
    """
    slots = _slots(net)

    @torch.no_grad()
    def logits(state: State, inputs: Any) -> Tensor:
        net.eval()
        with _lent(slots, state.params | _means(state) | state.buffers):
            return net(inputs)

    return logits
