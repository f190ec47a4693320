"""How sure a prediction is, learned from rows that the model was not trained on.

Split conformal prediction (Vovk, Gammerman and Shafer 2005; Lei et al. 2018): the errors of
calibration rows bound that of a new one. If calibration rows and new rows are exchangeable, the
true value lies within the bounds with at least the nominal probability, whatever the model is.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from mip.errors import DataError

STEEPEST = 100.0
"""The largest factor, and one over the smallest, that logits are multiplied by."""


def margin(errors: Tensor, coverage: float) -> float:
    """Return the margin that covers the error of a new row with at least this probability: the
    ceil((n + 1) * coverage)-th smallest of n errors.

    Raises DataError for fewer rows than coverage / (1 - coverage).

    >>> margin(torch.tensor([3.0, 1.0, 2.0, 4.0]), 0.8), margin(torch.tensor([3.0, 1.0, 2.0]), 0.5)
    (4.0, 2.0)
    """
    rank = math.ceil(round((len(errors) + 1) * coverage, 9))
    if rank > len(errors):
        needed = math.ceil(round(coverage / (1 - coverage), 9))
        raise DataError(f"coverage {coverage:g} needs {needed} rows to calibrate on: {len(errors)}")
    return float(errors.double().sort().values[rank - 1])


def temperature(logits: Tensor, target: Tensor) -> float:
    """Return the number by which logits [n, k] are divided for the smallest log loss of classes,
    int64 [n] (Guo et al. 2017): above 1 if the model is too sure of itself. It lies within 0.01 and
    100.

    >>> sure = torch.tensor([[8.0, 0.0]] * 4); truth = torch.tensor([0, 0, 0, 1])
    >>> round(temperature(sure, truth), 3)
    7.282
    """
    logits = logits.double()
    truth = logits.gather(1, target.unsqueeze(1)).mean()
    low, high = -math.log(STEEPEST), math.log(STEEPEST)
    for _ in range(60):  # the slope of the loss increases with the factor
        middle = (low + high) / 2
        mean = ((logits * math.exp(middle)).softmax(dim=1) * logits).sum(dim=1).mean()
        low, high = (low, middle) if mean > truth else (middle, high)
    return math.exp(-(low + high) / 2)


def class_sets(classes: list[str], probabilities: Tensor, threshold: float) -> np.ndarray:
    """Write the classes of each row that are at least as probable as the threshold, and the most
    probable one: object [n], "flat | loft".
    """
    chosen = probabilities >= threshold
    chosen[torch.arange(len(chosen)), probabilities.argmax(dim=1)] = True
    names = np.array(classes, dtype=object)
    return np.array([" | ".join(names[row]) for row in chosen.numpy()], dtype=object)
