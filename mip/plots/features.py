"""What a model predicts: against the truth, over one feature, over two features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from mip.data import as_array
from mip.errors import DataError, MipError
from mip.metrics import r2, rmse
from mip.plots.figures import finish, shorten, single
from mip.plots.labels import (
    all_names,
    are_unclear,
    class_codes,
    class_colours,
    class_labels,
    column_of,
    predicted_classes,
)
from mip.prediction import Ensemble, Predictor, as_model, predict_net
from mip.prediction import load as load_model

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def predictions(
    predicted: Any,
    target: Any,
    *,
    title: str | None = None,
    path: str | Path | None = None,
    overwrite: bool = False,
) -> Figure:
    """Draw predictions against the truth: a point for each row, and the line where both are equal.

    Both are numbers [n] or [n, 1]: tensors, arrays, lists or Series; the DataFrame that a predictor
    returns has them as `value`. Rows without a number are left out. The title has R² and the root
    mean squared error of the others. Raises DataError if the lengths differ, or if no row has both.

    >>> fig = predictions([1.0, 2.0, 4.0], [1.0, 2.5, 3.0])
    >>> fig.axes[0].collections[0].get_offsets().tolist()
    [[1.0, 1.0], [2.5, 2.0], [3.0, 4.0]]
    """
    truth, guess = _numbers(target), _numbers(predicted)
    if len(truth) != len(guess):
        raise DataError(f"there are {len(guess)} predictions for {len(truth)} targets")
    known = np.isfinite(truth) & np.isfinite(guess)
    if not known.any():
        raise DataError("no row has a prediction and a target")
    truth, guess = truth[known], guess[known]
    fig, axes = single(4.6, 4.6)
    _scatter(axes, truth, guess)
    ends = [min(truth.min(), guess.min()), max(truth.max(), guess.max())]
    axes.plot(ends, ends, color="0.3", linewidth=0.9)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel(_label(target, "truth"), fontsize=9)
    axes.set_ylabel("predicted", fontsize=9)
    spread = f"R² {r2(guess, truth):.3g}, " if np.ptp(truth) > 0 else ""
    scores = f"{spread}RMSE {rmse(guess, truth):.4g} ({len(truth):,} rows)"
    return finish(fig, scores if title is None else f"{title}: {scores}", path, overwrite)


def fitted_line(
    model: Any,
    x: Any,
    target: Any,
    *,
    size: int = 200,
    title: str | None = None,
    path: str | Path | None = None,
    overwrite: bool = False,
) -> Figure:
    """Draw a model of one feature over its data: a point for each row, and the line of predictions.

    `x` and `target` are numbers [n] or [n, 1]; the names of Series and columns label the axes. A
    net takes float32 [size, 1] and returns [size] or [size, 1]; a predictor takes the column that
    `x` is named after; any other function takes and returns arrays like a net.

    >>> fig = fitted_line(lambda x: 2 * x, [0.0, 1.0], [0.1, 1.9], size=3)
    >>> fig.axes[0].lines[0].get_xydata().tolist()
    [[0.0, 0.0], [0.5, 1.0], [1.0, 2.0]]
    """
    xs, ys = _numbers(x), _numbers(target)
    if len(xs) != len(ys):
        raise DataError(f"x has {len(xs)} rows and the target {len(ys)}")
    known = np.isfinite(xs) & np.isfinite(ys)
    if not known.any():
        raise DataError("no row has both numbers")
    grid = np.linspace(xs[known].min(), xs[known].max(), size)
    name = _label(x, "x")
    line = _numbers(_predict(model, grid[:, None], [name]))
    fig, axes = single(6, 4)
    _scatter(axes, xs[known], ys[known])
    axes.plot(grid, line, color="C1", linewidth=2, label="model")
    axes.set_xlabel(name, fontsize=9)
    axes.set_ylabel(_label(target, "target"), fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    return finish(fig, title, path, overwrite)


def decision_boundary(
    model: Any,
    features: Any,
    target: Any,
    *,
    classes: Sequence[str] | None = None,
    threshold: float | None = None,
    size: int = 100,
    title: str | None = None,
    path: str | Path | None = None,
    overwrite: bool = False,
) -> Figure:
    """Draw which class a model predicts where: its answers on a grid of size x size over two
    features, and the rows as points in the colours of their classes.

    `features` are numbers [n, 2], or two columns of a DataFrame, whose names label the axes;
    `target` is a class for each row: its name or, as a number, its position in `classes` (default:
    the sorted classes of the target). A net takes float32 [m, 2] and returns logits [m, k], or one
    number a row, which means the second class above the `threshold` (default: 0.5 for a net that
    ends with Sigmoid, otherwise 0, for logits). A predictor takes a DataFrame of the two columns;
    any other function takes an array and returns what a net does, or classes. Raises DataError
    without a threshold for numbers from 0 to 1, which may be probabilities, and for predictions of
    another number of classes.

    >>> points = np.array([[0.0, 0.0], [1.0, 1.0]])
    >>> fig = decision_boundary(lambda x: x[:, 0] - 0.5, points, ["left", "right"], size=4)
    >>> fig.axes[0].collections[0].get_array().reshape(4, 4)[0].tolist()
    [0, 0, 1, 1]
    """
    points = np.asarray(as_array(features), dtype=float)
    if points.ndim != 2 or points.shape[1] != 2:
        raise DataError(f"decision_boundary draws two features [n, 2], not {list(points.shape)}")
    labels = class_labels(target)
    if len(labels) != len(points) or not len(points):
        raise DataError(f"there are {len(points)} rows of features and {len(labels)} targets")
    names = [str(name) for name in getattr(features, "columns", ["feature 0", "feature 1"])]
    low, high = np.nanmin(points, axis=0), np.nanmax(points, axis=0)
    margin = np.where(high > low, 0.05 * (high - low), 1.0)
    xs, ys = np.linspace(low - margin, high + margin, size).T
    grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    predicted = predicted_classes(_predict(model, grid, names))
    known = all_names(labels, predicted, classes)
    answers = _areas(predicted, known, _threshold(model, predicted, threshold)).reshape(size, size)
    rows = class_codes(labels, known)
    shown = [shorten(name, 30) for name in known]
    columns = -(-len(known) // 20)
    fig, axes = single(5.2 + columns * (0.3 + 0.07 * max(map(len, shown))), 4.6)
    _draw_areas(axes, xs, ys, answers, len(known))
    for k, (name, colour) in enumerate(zip(shown, class_colours(len(known)), strict=True)):
        if (rows == k).any():
            x, y = points[rows == k].T
            axes.scatter(x, y, 16, color=colour, label=name, edgecolors="white", linewidths=0.4)
    axes.set(xlim=(xs[0], xs[-1]), ylim=(ys[0], ys[-1]))
    axes.set_xlabel(names[0], fontsize=9)
    axes.set_ylabel(names[1], fontsize=9)
    fig.legend(loc="outside right upper", frameon=False, fontsize=8, ncols=columns)
    return finish(fig, title, path, overwrite)


def _threshold(model: Any, predicted: np.ndarray, threshold: float | None) -> float:
    if threshold is not None:
        return threshold
    last = model
    while isinstance(last, nn.Sequential) and len(last):
        last = last[-1]
    if isinstance(last, nn.Sigmoid):
        return 0.5
    if are_unclear(predicted) and not isinstance(last, nn.Linear):
        cure = "threshold=0.5 for probabilities, threshold=0 for logits"
        raise DataError(f"the model returns numbers from 0 to 1: give {cure}")
    return 0.0


def _areas(predicted: np.ndarray, names: Sequence[str], threshold: float) -> np.ndarray:
    if predicted.ndim == 2:
        predicted = predicted.argmax(axis=1)
    elif predicted.dtype.kind == "f":
        predicted = (predicted > threshold).astype(np.int64)
    return class_codes(predicted, names)


def _draw_areas(
    axes: Axes, xs: np.ndarray, ys: np.ndarray, answers: np.ndarray, count: int
) -> None:
    from matplotlib.colors import ListedColormap

    colours = class_colours(count)
    axes.pcolormesh(
        xs,
        ys,
        answers,
        cmap=ListedColormap(colours),
        vmin=-0.5,
        vmax=count - 0.5,
        alpha=0.25,
        rasterized=True,
    )
    for k, colour in enumerate(colours):
        if 0 < (answers == k).sum() < answers.size:
            axes.contour(xs, ys, answers == k, [0.5], colors=[colour], linewidths=0.8)


def _numbers(values: Any) -> np.ndarray:
    is_one = hasattr(values, "columns") and len(values.columns) == 1
    values = values.iloc[:, 0] if is_one else column_of(values, "value")
    numbers = np.asarray(as_array(values), dtype=float)
    if numbers.ndim == 2 and numbers.shape[1] == 1:
        numbers = numbers[:, 0]
    if numbers.ndim != 1:
        raise DataError(f"one number for each row is needed, not the shape {list(numbers.shape)}")
    return numbers


def _label(values: Any, default: str) -> str:
    names = [*getattr(values, "columns", [])]
    name = names[0] if len(names) == 1 else getattr(values, "name", None)
    return str(name) if name is not None else default


def _scatter(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    # Fainter points the more there are, so that dense places show; and no million shapes in a PDF.
    alpha = float(np.clip(400 / len(x), 0.05, 0.8))
    axes.scatter(x, y, s=12, alpha=alpha, linewidths=0, label="data", rasterized=len(x) > 5000)


def _predict(model: Any, points: np.ndarray, names: Sequence[str]) -> Any:
    if isinstance(model, (str, Path)):
        model = load_model(model)
    model = as_model(model)
    if isinstance(model, (Predictor, Ensemble)):
        import pandas as pd

        return model(pd.DataFrame(points, columns=list(names)))
    if isinstance(model, nn.Module):
        dtype = next((p.dtype for p in model.parameters()), torch.get_default_dtype())
        return predict_net(model, torch.tensor(points, dtype=dtype))
    if not callable(model):
        kind = type(model).__name__
        raise MipError(f"a model is a net, a predictor, its file or a function, not {kind}")
    return model(points)
