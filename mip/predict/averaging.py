"""Models as one: which heads may be averaged, and what their mean is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from mip.branches import Facts
from mip.errors import SpecError
from mip.heads import to_logits
from mip.model import Plan
from mip.tree import Tree

FREE = frozenset({"layers", "dropout", "members"})
"""Fields of a head that may differ between models that are averaged: they shape the model alone."""


def check_alike(plans: Sequence[Plan]) -> None:
    """Raise SpecError naming the first thing in which the heads of models differ.

    Targets, classes, scales, quantiles and losses must be the same; what the head learned of other
    rows (means, deviations, weights of classes) may differ, for each model decodes with its own.
    """
    first = _said(plans[0].spec.head, plans[0].facts["head"])
    for k, plan in enumerate(plans[1:], 2):
        other = _said(plan.spec.head, plan.facts["head"])
        for name in first | other:
            one, two = first.get(name, "nothing"), other.get(name, "nothing")
            if one != two:
                told = f"{name} is {_shown(one)} in model 1 and {_shown(two)} in model {k}"
                raise SpecError(f"models with different heads cannot be averaged: {told}")


def _shown(value: Any) -> str:
    text = str(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _said(head: Any, facts: Facts, path: str = "head") -> dict[str, Any]:
    found = {f"{path}.kind": type(head).__name__.lower()}
    for field in attrs.fields(type(head)):
        if field.name not in FREE | {"head"}:
            found[f"{path}.{field.name}"] = getattr(head, field.name)
    for name, child in getattr(head, "head", {}).items():
        found |= _said(child, facts[name], f"{path}.head.{name}")
    return {**found, f"{path}.classes": facts["classes"]} if "classes" in facts else found


def means(decoded: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Average decoded columns of numbers, float64 [n] each; labels are left out.

    >>> labels = np.array(["a"], dtype=object)
    >>> means([{"label": labels, "p_a": np.array([share])} for share in (0.5, 1.0)])
    {'p_a': array([0.75])}
    """
    numbers = [name for name, column in decoded[0].items() if column.dtype == np.float64]
    return {name: np.mean([np.asarray(each[name]) for each in decoded], axis=0) for name in numbers}


def logits_of(plan: Plan, columns: Mapping[str, np.ndarray]) -> Tree:
    """Give the logits, float64, that a plan decodes to these columns of numbers."""
    return to_logits(plan.spec.head, plan.facts["head"], columns)
