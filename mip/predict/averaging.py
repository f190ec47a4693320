"""Models as one: which heads may be averaged, and what their mean is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mip.branches import Facts
from mip.compare import differences
from mip.errors import SpecError
from mip.heads import Head
from mip.model import Plan
from mip.spec import to_dict

FREE = ("*.layers", "*.dropout", "*.members")
"""Fields of a head that may differ between models that are averaged: they shape the model alone."""


def check_alike(plans: Sequence[Plan]) -> None:
    """Raise SpecError naming the first thing in which the heads of models differ.

    Targets, classes, scales, quantiles and losses must be the same; what the head learned of other
    rows (means, deviations, weights of classes) may differ, for each model decodes with its own.
    """
    first, *others = [_meaning(plan.spec.head, plan.facts["head"]) for plan in plans]
    for k, other in enumerate(others, 2):
        for name, one, two in differences(first, other, ignore=FREE, path="head"):
            text = f"{name} is {_shortened(one)} in model 1 and {_shortened(two)} in model {k}"
            raise SpecError(f"models with different heads cannot be averaged: {text}")


def _shortened(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _meaning(head: Head, facts: Facts) -> dict[str, Any]:
    meaning = to_dict(head)
    for name, child in getattr(head, "head", {}).items():
        meaning["head"][name] = _meaning(child, facts[name])
    return {**meaning, "classes": facts["classes"]} if "classes" in facts else meaning


def mean_columns(decoded: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Average the float64 [n] columns of decoded predictions; labels are left out.

    >>> labels = np.array(["a"], dtype=object)
    >>> mean_columns([{"label": labels, "p_a": np.array([share])} for share in (0.5, 1.0)])
    {'p_a': array([0.75])}
    """
    names = [name for name, column in decoded[0].items() if column.dtype == np.float64]
    return {
        name: np.mean([np.asarray(columns[name]) for columns in decoded], axis=0) for name in names
    }
