"""Classes: which are confused, and the chances of one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mip.data import as_array
from mip.errors import DataError
from mip.metrics import confusion_matrix as count_pairs
from mip.plots.figures import figure, finish, shorten, single
from mip.plots.labels import all_names, are_unclear, class_codes, class_labels, predicted_classes
from mip.plots.pictures import read_picture, show_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MAX_NUMBERED = 30
"""Classes up to which a confusion matrix has its numbers in it."""


def confusion_matrix(
    predicted: Any,
    target: Any,
    classes: Sequence[str] | None = None,
    normalize: bool = False,
    *,
    from_logits: bool | None = None,
    title: str | None = None,
    path: str | Path | None = None,
    overwrite: bool = False,
) -> Figure:
    """Draw how often a class (its row) was predicted as each class (the columns).

    Predictions are a class for each row, the DataFrame that a predictor returns, or floats as
    `mip.metrics.confusion_matrix` reads them: logits or probabilities [n, k], or of the second of
    two classes [n] (probabilities with `from_logits=False`, which must be given if all numbers are
    from 0 to 1). Targets are classes. A class is a
    name, or a number from 0 that counts the `classes` (default: the sorted names of both, or all
    numbers up to the largest).

    With `normalize` the numbers are shares of their row, in percent. The title has the accuracy,
    which is the diagonal's share of all rows. Raises DataError for other lengths, another number
    of classes, an unknown class, and numbers that may be logits or probabilities.

    >>> fig = confusion_matrix(["cat", "dog", "dog"], ["cat", "cat", "dog"])
    >>> [text.get_text() for text in fig.axes[0].texts], fig.get_suptitle()
    (['1', '1', '0', '1'], 'accuracy 66.7% (2 of 3 rows)')
    """
    guess, truth = predicted_classes(predicted), class_labels(target)
    if len(guess) != len(truth) or not len(truth):
        raise DataError(f"there are {len(guess)} predictions for {len(truth)} targets")
    if from_logits is None and are_unclear(guess):
        cure = "from_logits=False if they are probabilities, from_logits=True if not"
        raise DataError(f"the predictions are numbers from 0 to 1: give {cure}")
    names = all_names(truth, guess, classes)
    if guess.dtype.kind != "f":
        guess = class_codes(guess, names)
    true = class_codes(truth, names)
    counts = count_pairs(guess, true, from_logits is not False, len(names)).numpy()
    size = 2.6 + min(0.38 * len(names), 9)
    fig, axes = single(size + 0.6, size)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    _label_classes(axes, names, " (in % of the true class)" if normalize else "")
    if len(names) <= MAX_NUMBERED:
        _write_numbers(axes, counts, shares, normalize)
    bar = fig.colorbar(image, format="{x:.0%}", shrink=0.7)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7)
    bar.set_label("share of the true class", fontsize=8)
    right, total = int(np.trace(counts)), int(counts.sum())
    accuracy = f"accuracy {right / total:.1%} ({right:,} of {total:,} rows)"
    return finish(fig, accuracy if title is None else f"{title}: {accuracy}", path, overwrite)


def _label_classes(axes: Axes, names: Sequence[str], note: str) -> None:
    texts = [shorten(name, 22) for name in names]
    size = 8 if len(names) <= 20 else 6.5
    slanted = sum(map(len, texts)) > 40
    places = range(len(names))
    axes.set_xticks(
        places,
        texts,
        fontsize=size,
        rotation=90 if len(names) > 20 else 40 if slanted else 0,
        ha="right" if slanted and len(names) <= 20 else "center",
        rotation_mode="anchor" if slanted and len(names) <= 20 else "default",
    )
    axes.set_yticks(places, texts, fontsize=size)
    axes.set_xlabel(f"predicted{note}", fontsize=9)
    axes.set_ylabel("truth", fontsize=9)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)


def _write_numbers(axes: Axes, counts: np.ndarray, shares: np.ndarray, normalize: bool) -> None:
    # Letters that fit into a cell of 0.38 inches at most.
    widest = 3 if normalize else len(f"{counts.max()}")
    size = min(8.5, 26 / max(widest, 2) if len(counts) > 4 else 9, 7 if len(counts) > 20 else 9)
    for (row, column), share in np.ndenumerate(shares):
        number = f"{100 * share:.0f}" if normalize else str(counts[row, column])
        colour = "white" if share > 0.55 else "0.75" if not counts[row, column] else "0.15"
        axes.text(column, row, number, ha="center", va="center", fontsize=size, color=colour)


def top_classes(
    image: Any,
    chances: Any,
    k: int = 5,
    *,
    classes: Sequence[str] | None = None,
    target: str | int | None = None,
    title: str | None = None,
    path: str | Path | None = None,
    overwrite: bool = False,
) -> Figure:
    """Draw an image beside bars of its k most probable classes, the most probable first.

    `chances` are probabilities: a dict by class, what a predictor returns for one row (its columns
    `p_<class>`), or numbers [k] or [1, k] in the order of `classes`. The image is a path, a Pillow
    image, a file's bytes, or pixels [h, w], [h, w, 3] or [3, h, w]. The true class, `target`, is
    green, and follows if it is not among them; a number counts the classes.

    >>> fig = top_classes(np.zeros((2, 2)), {"cat": 0.2, "dog": 0.7, "owl": 0.1}, k=2)
    >>> [label.get_text() for label in fig.axes[1].get_yticklabels()]
    ['dog', 'cat']
    >>> [float(bar.get_width()) for bar in fig.axes[1].patches]
    [0.7, 0.2]
    """
    all_chances = by_class(chances, classes)
    ranked = sorted(all_chances.items(), key=lambda pair: -pair[1])
    true = None if target is None else _true_class(target, list(all_chances))
    pairs = [*ranked[:k], *(pair for pair in ranked[k:] if pair[0] == true)]
    fig = figure(6.4, max(2.6, 0.9 + 0.32 * len(pairs)))
    left, right = fig.subplots(1, 2, width_ratios=(1, 1.15))
    show_picture(left, read_picture(image))
    names, values = [name for name, _ in pairs], [value for _, value in pairs]
    colours = ["#3a9a5b" if name == true else "#2f6db3" for name in names]
    bars = right.barh(range(len(names)), values, color=colours, height=0.65)
    right.bar_label(bars, [f"{value:.1%}" for value in values], padding=3, fontsize=8)
    right.set_yticks(range(len(names)), [shorten(name, 26) for name in names], fontsize=8)
    right.invert_yaxis()
    right.set_xlim(0, 1.18)
    right.set_xticks([])
    right.spines[["top", "right", "bottom"]].set_visible(False)
    right.tick_params(length=0)
    return finish(fig, title, path, overwrite)


def _true_class(target: Any, names: Sequence[str]) -> str:
    [code] = class_codes(class_labels([target]), names) if target not in names else [None]
    return target if code is None else names[code]


def by_class(chances: Any, classes: Sequence[str] | None = None) -> dict[str, float]:
    """Return the probabilities of one row by class.

    Raises DataError for probabilities of several rows, of another number of classes, or none.

    >>> by_class([0.25, 0.75], ["cat", "dog"])
    {'cat': 0.25, 'dog': 0.75}
    """
    if hasattr(chances, "to_dict") and hasattr(chances, "columns"):
        if len(chances) != 1:
            raise DataError(f"the chances of one row are drawn, not of {len(chances)}")
        chances = chances.iloc[0]
    if hasattr(chances, "to_dict"):
        cells = chances.to_dict()
        chances = {n[2:]: p for n, p in cells.items() if str(n).startswith("p_")} or cells
    if isinstance(chances, Mapping):
        return {str(name): float(chance) for name, chance in chances.items()}
    values = np.asarray(as_array(chances), dtype=float)
    if values.ndim == 2 and len(values) == 1:
        values = values[0]
    names = [str(n) for n in (classes if classes is not None else range(values.size))]
    if values.ndim != 1 or len(names) != len(values):
        raise DataError(f"chances of shape {list(values.shape)} for {len(names)} classes")
    return dict(zip(names, values.tolist(), strict=True))
