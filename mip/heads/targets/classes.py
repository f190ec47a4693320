"""A class as a target: words to codes, probabilities to columns, and back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mip.branches import Facts
from mip.data import Rows, Table, category_codes, format_row_label, value_counts
from mip.errors import DataError, hint, quote
from mip.heads.conformal import class_sets, margin, temperature
from mip.heads.fields import ClassWeight

_WHOLE_NUMBER = re.compile("-?[0-9]{1,18}")  # int64 holds all of these


MIN_PROB = 1e-16
"""Probabilities are clamped to [MIN_PROB, 1 - MIN_PROB] before they are turned into logits."""


class ClassHead(Protocol):
    """A head over a column of words."""

    @property
    def column(self) -> str: ...


def known(head: ClassHead, rows: Table) -> np.ndarray:
    """Return which rows have a word: bool [n]."""
    return rows.texts(head.column) != ""


def class_codes(rows: Table, column: str, classes: list[str]) -> np.ndarray:
    """Look up the class of each row: its index, int64 [n], -1 if the cell is empty.

    Raises DataError naming the rows whose word is not one of the classes.
    """
    codes = category_codes(rows, column, classes)
    if (codes >= 0).all():
        return codes
    cells = rows.texts(column)
    unseen = np.flatnonzero((codes < 0) & (cells != "")).tolist()
    if unseen:
        labels = ", ".join(map(format_row_label, rows.index[unseen[:8]].tolist()))
        more = f" ({len(unseen)} rows: {labels}{', …' * (len(unseen) > 8)})"
        word, path = cells[unseen[0]], f"data.columns.{column}"
        raise DataError(
            f"{rows.cell_name(unseen[0], column)}: {quote(word)} is not a class of the training "
            f"rows{more * (len(unseen) > 1)}{hint(word, classes)}; leave such rows out ({path}."
            f"na_values), or merge the class with another ({path}.merge), or train on some of "
            f"them: where rows are drawn, by data.split.stratify = '{column}'"
        )
    return codes


def count_classes(rows: Rows, column: str) -> tuple[Counter[str], set[str]]:
    """Count the words of a column, and collect the kinds of its cells, as pandas names them.

    >>> from mip.data import from_columns
    >>> count_classes(from_columns({"stars": [3, 1, 3]}), "stars")
    (Counter({'3': 2, '1': 1}), {'integer'})
    """
    from pandas.api.types import infer_dtype

    counts, kinds = Counter[str](), set[str]()
    for chunk in rows.chunks([column]):
        counts.update(value_counts(chunk, column))
        kinds.add(infer_dtype(chunk[column], skipna=True))
    return counts, kinds - {"empty"}


def class_facts(classes: list[str], kinds: set[str]) -> Facts:
    """Return the facts of a head over classes: their names and, if the cells are whole numbers or
    booleans and no texts, their `dtype`, "int64" or "bool".

    >>> class_facts(["1", "3"], {"integer"}), class_facts(["1", "3"], {"string"})
    ({'classes': ['1', '3'], 'dtype': 'int64'}, {'classes': ['1', '3']})
    """
    if kinds == {"boolean"} and {*classes} <= {"False", "True"}:
        return {"classes": classes, "dtype": "bool"}
    # Beside missing ones, whole numbers are floats.
    if kinds <= {"integer", "floating"} and all(map(_WHOLE_NUMBER.fullmatch, classes)):
        return {"classes": classes, "dtype": "int64"}
    return {"classes": classes}


def class_values(facts: Facts) -> np.ndarray:
    """Return the classes as they are in the target: texts, whole numbers or booleans.

    >>> class_values({"classes": ["False", "True"], "dtype": "bool"})
    array([False,  True])
    """
    names, dtype = facts["classes"], facts.get("dtype")  # older files have none: texts
    if dtype == "bool":
        return np.array([name == "True" for name in names])
    if dtype == "int64":
        return np.array([*map(int, names)], dtype=np.int64)
    return np.array(names, dtype=object)


def weight_facts(facts: Facts, counts: Counter[str], class_weight: ClassWeight) -> Facts:
    """Return the weights of classes as a fact, if they are asked for."""
    if class_weight == "none":
        return {}
    return {"weights": balanced_class_weights(facts["classes"], counts)}


def balanced_class_weights(classes: list[str], counts: Counter[str]) -> list[float]:
    """Compute weights by which each class counts as much as the others, and a row 1 on average:
    n / (k * count) for n rows and k classes (King and Zeng 2001).

    >>> balanced_class_weights(["cat", "dog"], Counter({"cat": 3, "dog": 1}))
    [0.6666666666666666, 2.0]
    """
    return [counts.total() / (len(classes) * counts[word]) for word in classes]


def class_columns(facts: Facts, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Return the most probable class as `label`, and probabilities [n, k] as `p_<class>`.

    >>> class_columns({"classes": ["a", "b"]}, np.array([[0.25, 0.75]]))["label"].tolist()
    ['b']
    """
    label = class_values(facts)[probabilities.argmax(axis=1)]
    return {"label": label, **probability_columns(facts["classes"], probabilities)}


def probability_columns(classes: list[str], probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Return probabilities, float64 [n, k], as a column `p_<class>` per class."""
    return {f"p_{word}": probabilities[:, k] for k, word in enumerate(classes)}


def stack_probabilities(classes: list[str], columns: Mapping[str, np.ndarray]) -> Tensor:
    """Stack the columns `p_<class>` to float64 [n, k]: the inverse of `probability_columns`."""
    return torch.from_numpy(np.stack([columns[f"p_{word}"] for word in classes], axis=1))


def calibrate(logits: Tensor, target: Tensor, coverage: float) -> Facts:
    """Return the temperature of logits [n, k], and the probability that a class needs, before the
    temperature, to be in a set that holds the true one with this coverage (Sadinle, Lei and
    Wasserman 2019). Classes are int64 [n]. The threshold does not depend on the temperature, which
    is learned from the same rows.
    """
    truth = logits.double().softmax(dim=1).gather(1, target.unsqueeze(1)).squeeze(1)
    threshold = -margin(-truth, coverage)
    return {
        "coverage": coverage,
        "temperature": temperature(logits, target),
        "threshold": threshold,
    }


def bounds(facts: Facts, calibration: Facts, logits: Tensor) -> dict[str, np.ndarray]:
    """Return the column `set`, object [n]."""
    probabilities = logits.double().softmax(dim=1)
    return {"set": class_sets(facts["classes"], probabilities, calibration["threshold"])}
