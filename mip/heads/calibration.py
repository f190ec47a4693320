"""Calibration of any head: the verbs of a kind that can be calibrated, and what holds for all."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from mip.branches import Facts
from mip.errors import SpecError
from mip.heads.protocol import Head, HoldsHeads
from mip.tree import Tree


@runtime_checkable
class Calibrates(Protocol):
    """A head that can say how sure its predictions are."""

    def calibrate(self, facts: Facts, logits: Any, target: Any, coverage: float) -> Facts:
        """Learn from logits and targets of rows that were not trained on: JSON. A `temperature`
        divides logits.
        """
        ...

    def bounds(self, facts: Facts, calibration: Facts, logits: Any) -> dict[str, np.ndarray]:
        """Return columns that bound the truth: `low` and `high`, or a `set` of classes."""
        ...


def check_calibrates(head: Head) -> Calibrates:
    """Return a head that can be calibrated; raise SpecError for another one."""
    if isinstance(head, Calibrates):
        return head
    raise SpecError(f"head.kind = '{head.kind}' cannot be calibrated")


def calibrated_logits(head: Head, calibration: Facts, logits: Any) -> Tree:
    """Divide logits by their temperatures."""
    if isinstance(head, HoldsHeads):
        names = calibration.items()
        return {**logits, **{k: calibrated_logits(head.head[k], c, logits[k]) for k, c in names}}
    return logits / calibration["temperature"] if "temperature" in calibration else logits
