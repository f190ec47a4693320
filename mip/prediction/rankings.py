"""The most probable classes of each row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mip.branches import Facts
from mip.errors import MipError, SpecError
from mip.heads import Head, class_values
from mip.model import Plan

if TYPE_CHECKING:
    import pandas as pd


def top_classes(plan: Plan, predictions: pd.DataFrame, k: int) -> pd.DataFrame:
    """Replace the label and the probabilities of a model's predictions by the `k` most probable
    classes, or by all if there are fewer.

    The columns are `label_1`, `p_1`, `label_2`, `p_2` …, from the most probable on; of equal
    probabilities, the first class in the model's order is first. If the model has several heads,
    those with classes have them, `<head>.label_1` …, and the others keep their columns. Raises
    MipError if `k` is less than 1, and SpecError for a model that predicts no classes.
    """
    check_top(plan, k)
    frame = predictions
    for prefix, facts in _class_facts(plan.spec.head, plan.facts["head"]):
        label, chances = f"{prefix}label", [f"{prefix}p_{word}" for word in facts["classes"]]
        probabilities = frame[chances].to_numpy(dtype=float)
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
        ranked = np.take_along_axis(probabilities, order, axis=1)
        labels = class_values(facts)[order]
        if np.isnan(ranked).any():
            labels = np.where(np.isnan(ranked), np.nan, labels.astype(object))
        position = frame.columns.tolist().index(label)
        frame = frame.drop(columns=[label, *chances])
        for rank in reversed(range(order.shape[1])):
            frame.insert(position, f"{prefix}p_{rank + 1}", ranked[:, rank])
            frame.insert(position, f"{prefix}label_{rank + 1}", labels[:, rank])
    return frame


def check_top(plan: Plan, k: int) -> None:
    """Raise MipError if `k` is less than 1, and SpecError for a model that predicts no classes."""
    if k < 1:
        raise MipError(f"top must be 1 or more: {k}")
    if not any(_class_facts(plan.spec.head, plan.facts["head"])):
        raise SpecError(f"top {k}: a model with head.kind = '{plan.spec.head.kind}' has no classes")


def _class_facts(head: Head, facts: Facts, prefix: str = "") -> Iterator[tuple[str, Facts]]:
    # By the prefix of the head's columns.
    if "classes" in facts:
        yield prefix, facts
    for name, child in getattr(head, "head", {}).items():
        yield from _class_facts(child, facts[name], f"{prefix}{name}.")
