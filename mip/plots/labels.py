"""Classes as plots read them: from predictions and targets to names, positions and colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mip.data import as_array
from mip.errors import DataError


def predicted_classes(predicted: Any) -> np.ndarray:
    """Return predictions as classes [n], or as scores: floats [n, k], or [n] of the second of two
    classes. Raises DataError for a DataFrame without the column `label`.
    """
    if hasattr(predicted, "columns"):
        # The label of a predictor is the name of a class, also where it is a number.
        return column_of(predicted, "label").astype(str).to_numpy(dtype=object)
    answers = np.asarray(as_array(predicted))
    is_column = answers.ndim == 2 and answers.shape[1] == 1
    return answers[:, 0] if is_column else answers


def column_of(predicted: Any, name: str) -> Any:
    """Return a column of a DataFrame; anything else as it is. Raises DataError if it has none."""
    if not hasattr(predicted, "columns"):
        return predicted
    if name not in predicted:
        names = ", ".join(map(str, predicted.columns))
        plot = {
            "label": "plots.predictions draws numbers",
            "value": "plots.confusion_matrix classes",
        }
        raise DataError(f"predictions have no column '{name}', but {names}; {plot[name]}")
    return predicted[name]


def all_names(
    target: np.ndarray, predicted: np.ndarray, classes: Sequence[str] | None
) -> list[str]:
    """Return the names of all classes: those that are given, or those of `class_names`.

    Raises DataError for scores of another number of classes.

    >>> all_names(np.array([0, 1]), np.zeros((2, 3)), None)
    ['0', '1', '2']
    >>> all_names(np.array([1, 2, 3]), np.zeros((3, 3)), None)
    Traceback (most recent call last):
    mip.errors.DataError: predictions of 3 classes, but there are 4: 0, 1, 2, 3; numbers count \
classes from 0
    """
    if predicted.dtype.kind != "f":
        return class_names(target, predicted) if classes is None else [*map(str, classes)]
    count = 2 if predicted.ndim == 1 else predicted.shape[1]
    names = class_names(target, np.array([count - 1])) if classes is None else [*map(str, classes)]
    if count != len(names):
        note = "; numbers count classes from 0" if target.dtype.kind in "biu" else ""
        there = f"there are {len(names)}: {', '.join(names)}{note}"
        raise DataError(f"predictions of {count} classes, but {there}")
    return names


def are_unclear(scores: np.ndarray) -> bool:
    """Return whether scores [n] may be logits or probabilities, which differ in what they predict.

    >>> are_unclear(np.array([0.2, 0.9])), are_unclear(np.array([-0.2, 0.9]))
    (True, False)
    """
    if scores.dtype.kind != "f" or scores.ndim != 1:
        return False
    return bool(((scores >= 0) & (scores <= 1)).all() and ((scores > 0) & (scores <= 0.5)).any())


def class_labels(values: Any) -> np.ndarray:
    """Return the classes of rows as an array [n] of texts or, also for whole floats, integers."""
    labels = np.asarray(as_array(values)).reshape(-1)
    if labels.dtype.kind == "f" and np.isfinite(labels).all() and (labels == labels.round()).all():
        return labels.astype(np.int64)
    return labels


def class_names(target: np.ndarray, predicted: np.ndarray | None = None) -> list[str]:
    """Return the names of all classes: 0, 1, … for numbers, otherwise sorted.

    Predicted numbers beside texts count the sorted texts of the target.
    """
    both = [target] if predicted is None else [target, predicted]
    if target.dtype.kind in "biu":
        numbers = [labels for labels in both if labels.dtype.kind in "biu"]
        return [str(k) for k in range(1 + max(int(each.max(initial=0)) for each in numbers))]
    texts = [labels for labels in both if labels.dtype.kind not in "biu"]
    return sorted({str(label) for labels in texts for label in labels.tolist()})


def class_codes(labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return the position of each row's class: int64 [n]. Raises DataError for other classes."""
    if labels.dtype.kind in "biu":
        codes = labels.astype(np.int64)
        unknown = codes[(codes < 0) | (codes >= len(names))]
    else:
        position = {name: k for k, name in enumerate(names)}
        codes = np.array(
            [position.get(str(label), -1) for label in labels.tolist()], dtype=np.int64
        )
        unknown = labels[codes < 0]
    if len(unknown):
        first, known = unknown.tolist()[0], ", ".join(names)
        raise DataError(f"{first!r} is none of the {len(names)} classes: {known}; give classes=")
    return codes


def class_colours(count: int) -> list[Any]:
    """Return a colour for each class: the usual ten, twenty, or a walk around the circle."""
    from matplotlib import colormaps

    if count <= 20:
        name = "tab10" if count <= 10 else "tab20"
        return [colormaps[name](k) for k in range(count)]
    return [colormaps["hsv"](k / count) for k in range(count)]
