"""The loss over a range of learning rates, and over two parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from attrs import frozen
from torch import Tensor, nn
from torch.func import functional_call

from mip.errors import MipError, hint
from mip.plots.figures import NUMBER, check_path, finish, single
from mip.prediction import evaluating
from mip.train import LRCurve, State, check_loss, match_shapes, score
from mip.tree import map_tree

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Parameter: TypeAlias = "str | tuple[str, int | tuple[int, ...]]"
"""The name of a parameter of one number, or a name and the index of a number in it."""


Point: TypeAlias = "State | Mapping[str, Tensor] | tuple[float, float]"
"""Where a fit was: a state, its parameters, or the two numbers."""


def lr_range(
    curve: LRCurve,
    *,
    title: str | None = None,
    path: str | Path | None = None,
    overwrite: bool = False,
) -> Figure:
    """Draw the smoothed loss of `mip.train.find_lr` by learning rate, with the suggested rate.

    >>> lr_range(LRCurve((0.1, 1.0), (2.0, 1.0))).axes[0].get_xscale()
    'log'
    """
    fig, axes = single(7, 4)
    axes.plot(curve.lrs, curve.losses)
    axes.axvline(curve.minimum, linestyle=":", color="C7", label=f"least at {curve.minimum:.2g}")
    axes.axvline(curve.suggestion, color="C1", label=f"suggested {curve.suggestion:.2g}")
    axes.set(xlabel="learning rate", ylabel="smoothed loss", xscale="log")
    axes.legend(frameon=False)
    return finish(fig, title, path, overwrite)


def loss_surface(
    model: nn.Module | Callable[[float, float, Any], Any],
    batches: Iterable[Any],
    loss: Callable[[Any, Any], Any],
    parameters: tuple[Parameter, Parameter] | None = None,
    *,
    ranges: tuple[tuple[float, float], tuple[float, float]] | None = None,
    size: int = 41,
    steps: Sequence[Point] = (),
    title: str | None = None,
    path: str | Path | None = None,
    overwrite: bool = False,
) -> Figure:
    """Draw the loss on batches over two numbers of a net's parameters, all others as they are.

    A parameter is the name of one that holds a single number, or a name and an index:
    `("0.weight", (0, 1))`; a net of two numbers in all needs none. Instead of a net a function of
    both numbers and the inputs may compute the predictions; it needs `ranges`. These are the lowest
    and highest values (default: around the present ones, and around `steps`); the loss is computed
    at `size` values in each: a larger `size` has smoother contours. `steps` is where a fit was:
    states, parameters, or pairs of numbers, drawn as a line from a square. A hook collects them:
    `lambda event: path.append(event.state) if event.name == "after_batch" else None` with
    `path = []`.

    The net runs in evaluation mode and keeps its parameters. Raises MipError for a parameter that
    the net does not have, ranges that are empty, and a loss that is nowhere finite.

    >>> net, x = nn.Linear(1, 1), torch.tensor([[0.0], [1.0]])
    >>> at = {"ranges": ((-1, 3), (-2, 2)), "size": 5}
    >>> fig = loss_surface(net, [(x, 2 * x)], nn.functional.mse_loss, **at)
    >>> fig.axes[0].collections[0].get_array().reshape(5, 5)[2].tolist()  # bias 0, by weight
    [4.5, 2.0, 0.5, 0.0, 0.5]
    """
    check_path(path, overwrite)
    check_loss(loss)
    parameters = parameters or _only_numbers(model)
    places = _places(model, parameters)
    if not isinstance(steps, Sequence):
        kind = type(steps).__name__
        raise MipError(f"loss_surface: steps are states, such as a hook collects, not a {kind}")
    points = [_point(step, places) for step in steps]
    present = [(places[0].number, places[1].number)] if places else []
    xs, ys = _axes(ranges, [*points, *present], size)
    fig, axes = single(6, 4.6)
    losses = _losses(model, places, xs, ys, list(batches), loss)
    if not np.isfinite(losses).any():
        raise MipError("loss_surface: the loss is not finite anywhere in the ranges")
    _draw_surface(fig, axes, xs, ys, losses)
    if points:
        line = np.array(points)
        axes.plot(*line.T, color="#ff5a36", marker=".", markersize=4, linewidth=1.2, label="fit")
        axes.plot(*line[0], "s", color="#ff5a36", markeredgecolor="black", label="start")
    if present:
        axes.plot(*present[0], "o", color="white", markeredgecolor="black", label="present value")
    axes.set(xlim=(xs[0], xs[-1]), ylim=(ys[0], ys[-1]))
    axes.set_xlabel(_name(parameters[0]), fontsize=9)
    axes.set_ylabel(_name(parameters[1]), fontsize=9)
    if points or present:
        fig.legend(loc="outside upper right", ncols=3, frameon=False, fontsize=8)
    return finish(fig, title, path, overwrite)


def _draw_surface(
    fig: Figure, axes: Axes, xs: np.ndarray, ys: np.ndarray, losses: np.ndarray
) -> None:
    levels, norm = _levels(losses)
    mesh = axes.pcolormesh(xs, ys, losses, shading="gouraud", norm=norm, rasterized=True)
    axes.contour(xs, ys, losses, levels=levels, colors="white", linewidths=0.5, alpha=0.7)
    bar = fig.colorbar(mesh, label="loss", format=NUMBER)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8)
    bar.ax.minorticks_off()


@frozen(eq=False)
class _Place:
    """One number among the parameters of a net."""

    name: str
    index: tuple[int, ...]
    value: Tensor

    @property
    def number(self) -> float:
        return float(self.value)

    def read(self, params: Mapping[str, Tensor]) -> float:
        return float(params[self.name][self.index])


def _only_numbers(model: Any) -> tuple[Parameter, Parameter]:
    # The numbers of a net that has two; a function has a weight and a bias, if nobody names them.
    if not isinstance(model, nn.Module):
        return "weight", "bias"
    numbers: list[Parameter] = [
        name if param.numel() == 1 else (name, index)
        for name, param in model.named_parameters()
        for index in islice(np.ndindex(*param.shape), 3)
    ]
    if len(numbers) == 2:
        return numbers[0], numbers[1]
    example = f": parameters={(*numbers[:2],)}" if len(numbers) > 2 else ", which has fewer"
    raise MipError(f"loss_surface: choose two numbers of the net{example}")


def _places(model: Any, parameters: Sequence[Parameter]) -> list[_Place]:
    if not isinstance(model, nn.Module):
        return []
    params = dict(model.named_parameters())
    return [_place(params, parameter) for parameter in parameters]


def _place(params: Mapping[str, Tensor], parameter: Parameter) -> _Place:
    name, index = (parameter, None) if isinstance(parameter, str) else parameter
    if name not in params:
        raise MipError(f"the net has no parameter '{name}'{hint(name, params)}")
    shape = list(params[name].shape)
    if index is None and params[name].numel() == 1:
        index = (0,) * len(shape)
    elif index is None:
        cure = f"choose a number in it: ('{name}', {(0,) * len(shape)})"
        raise MipError(f"the parameter '{name}' has the shape {shape}: {cure}")
    index = index if isinstance(index, tuple) else (index,)
    try:
        value = params[name].detach()[index]
    except IndexError:
        value = torch.empty(0)
    if value.dim():
        raise MipError(f"the parameter '{name}' of shape {shape} has no number at {index}")
    return _Place(name, index, value)


def _point(step: Point, places: Sequence[_Place]) -> tuple[float, float]:
    params = step.params if isinstance(step, State) else step
    if not isinstance(params, Mapping):
        x, y = params
        return float(x), float(y)
    if not places:
        raise MipError("loss_surface: the steps of a function are pairs of numbers")
    x, y = (place.read(params) for place in places)
    return x, y


def _axes(ranges: Any, points: Sequence[tuple[float, float]], size: int) -> Sequence[np.ndarray]:
    if ranges is None:
        if not points:
            raise MipError("loss_surface of a function needs ranges=((low, high), (low, high))")
        low, high = np.min(points, axis=0), np.max(points, axis=0)
        margin = np.where(high > low, 0.3 * (high - low), 1 + np.abs(low))
        ranges = list(zip(low - margin, high + margin, strict=True))
    for low, high in ranges:
        if not -np.inf < low < high < np.inf:
            raise MipError(f"loss_surface: a range is (low, high), not {(low, high)}")
    if size < 2:
        raise MipError(f"loss_surface: size must be >= 2, not {size}")
    return [np.linspace(low, high, size) for low, high in ranges]


def _losses(
    model: Any,
    places: Sequence[_Place],
    xs: np.ndarray,
    ys: np.ndarray,
    batches: Sequence[Any],
    loss: Callable[[Any, Any], Any],
) -> np.ndarray:
    loss = match_shapes(loss)

    def at(forward: Callable[[Any], Any]) -> float:
        return score(forward, batches, loss)["loss"]

    if not isinstance(model, nn.Module):
        return np.array([[at(partial(model, x, y)) for x in xs] for y in ys])
    params = {name: param.detach().clone() for name, param in model.named_parameters()}

    device = places[0].value.device

    def forward(inputs: Any) -> Any:
        inputs = map_tree(lambda leaf: leaf.to(device), inputs)
        return functional_call(model, params, (inputs,))

    losses = np.empty((len(ys), len(xs)))
    with evaluating(model):
        for (row, y), (column, x) in ((a, b) for a in enumerate(ys) for b in enumerate(xs)):
            for place, number in zip(places, (x, y), strict=True):
                params[place.name][place.index] = number
            losses[row, column] = at(forward)
    return losses


def _levels(losses: np.ndarray) -> tuple[np.ndarray, Any]:
    # A valley in a wide plain shows on a log scale only.
    from matplotlib.colors import LogNorm, Normalize

    finite = losses[np.isfinite(losses)]
    low, high = float(finite.min()), float(finite.max())
    if low > 0 and high > 30 * low:
        return np.geomspace(low, high, 16), LogNorm(low, high)
    return np.linspace(low, high + (high == low), 16), Normalize(low, high + (high == low))


def _name(parameter: Parameter) -> str:
    if isinstance(parameter, str):
        return parameter
    name, index = parameter
    return f"{name}[{', '.join(map(str, index if isinstance(index, tuple) else (index,)))}]"
