"""Gradient boosted trees on the rows that a spec is trained on: LightGBM's and scikit-learn's, with
their defaults.

They read what `mip.prediction.simple_models.features` returns, numbers and the codes of categories,
and learn a number on the head's scale, as the network does. They need no valid rows, and so learn
from these too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

import mip
from mip.data import Table
from mip.errors import MipError
from mip.heads import Regression, predictions_to_logits, probability_columns
from mip.prediction.simple_models import features
from mip.spec import Spec

Library = Callable[[bool, Sequence[int], np.ndarray, np.ndarray], Any]
"""(is the target a number, columns of categories, inputs [n, columns], target [n]) to a model."""


def lightgbm(
    is_number: bool, categories: Sequence[int], inputs: np.ndarray, target: np.ndarray
) -> Any:
    """Train LightGBM on as many threads as torch has."""
    try:
        from lightgbm import LGBMClassifier, LGBMRegressor
    except ImportError as error:
        raise MipError("LightGBM is not installed: pip install lightgbm") from error
    model = (LGBMRegressor if is_number else LGBMClassifier)(
        n_jobs=torch.get_num_threads(), verbose=-1
    )
    return model.fit(inputs, target, categorical_feature=list(categories))


def scikit_learn(
    is_number: bool, categories: Sequence[int], inputs: np.ndarray, target: np.ndarray
) -> Any:
    """Train scikit-learn's trees on histograms, which are made after LightGBM's."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingRegressor if is_number else HistGradientBoostingClassifier
    return kind(categorical_features=list(categories), random_state=0).fit(inputs, target)


LIBRARIES: Mapping[str, Library] = MappingProxyType(
    {"LightGBM": lightgbm, "scikit-learn": scikit_learn}
)
"""The libraries of trees, by name."""


def crossval_trees(
    library: Library, spec: Spec, table: Table, column: str
) -> list[dict[str, float]]:
    """Score trees on each fold of `column`, trained on the other rows, as `mip.crossval` scores a
    network. The head of the spec predicts a number or classes.
    """
    fold_of_row = table.texts(column)
    held_out = [fold_of_row == name for name in sorted(set(fold_of_row))]
    rows = [[table.take(np.flatnonzero(part)) for part in (~held, held)] for held in held_out]
    return [score_trees(library, spec, *pair) for pair in rows]


def score_trees(library: Library, spec: Spec, train: Table, test: Table) -> dict[str, float]:
    """Train trees on what a spec reads of some rows, and score them on others by the metrics of its
    head.
    """
    plan = mip.adapt(spec, train)
    head, facts, is_number = spec.head, plan.facts["head"], isinstance(spec.head, Regression)
    numbers, codes = features(plan, train)
    categories = range(numbers.shape[1], numbers.shape[1] + codes.shape[1])
    target = head.encode(facts, train).double().numpy()
    model = library(is_number, categories, np.hstack([numbers, codes]), target)
    inputs = np.hstack(features(plan, test))
    if is_number:
        logits = torch.from_numpy(model.predict(inputs)).float()
    else:
        columns = probability_columns(facts["classes"], model.predict_proba(inputs))
        logits = predictions_to_logits(head, facts, columns).float()
    return plan.score(logits, head.encode(facts, test))
