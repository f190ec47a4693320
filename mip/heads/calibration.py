"""Calibration of any head: what its kinds learn, head by head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from mip.branches import Facts
from mip.errors import SpecError
from mip.heads.protocol import Head, HoldsHeads
from mip.tree import Tree


@runtime_checkable
class Calibrates(Protocol):
    """A head that can say how sure its predictions are."""

    def calibrate(self, facts: Facts, logits: Tensor, target: Tensor, coverage: float) -> Facts:
        """Learn from logits and targets of rows that were not trained on: JSON. A `temperature`
        divides logits.
        """
        ...

    def bounds(self, facts: Facts, calibration: Facts, logits: Tensor) -> dict[str, np.ndarray]:
        """Return columns that bound the truth: `low` and `high`, or a `set` of classes."""
        ...


def calibrate(head: Head, facts: Facts, logits: Any, target: Any, coverage: float) -> Facts:
    """Calibrate a head, or each of several. Raises SpecError for a kind that cannot be, and
    DataError for too few rows.
    """
    if isinstance(head, HoldsHeads):
        return {
            name: calibrate(child, facts[name], logits[name], target[name], coverage)
            for name, child in head.head.items()
        }
    if not isinstance(head, Calibrates):
        raise SpecError(f"head.kind = '{head.kind}' cannot be calibrated")
    return head.calibrate(facts, logits, target, coverage)


def calibrated_logits(head: Head, calibration: Facts, logits: Any) -> Tree:
    """Divide logits by their temperatures."""
    if isinstance(head, HoldsHeads):
        names = calibration.items()
        return {**logits, **{k: calibrated_logits(head.head[k], c, logits[k]) for k, c in names}}
    return logits / calibration["temperature"] if "temperature" in calibration else logits


def bounds(
    head: Head, facts: Facts, calibration: Facts, logits: Any, prefix: str = ""
) -> dict[str, np.ndarray]:
    """Return the columns that bound the truth, `<head>.<column>` if there are several heads."""
    found: Mapping[str, np.ndarray] = {}
    if isinstance(head, HoldsHeads):
        for name, child in head.head.items():
            path = f"{prefix}{name}."
            found = {**found, **bounds(child, facts[name], calibration[name], logits[name], path)}
        return {**found}
    if isinstance(head, Calibrates):
        found = head.bounds(facts, calibration, logits)
    return {f"{prefix}{name}": column for name, column in found.items()}
