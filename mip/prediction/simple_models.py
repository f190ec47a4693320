"""Baselines: scikit-learn's simple models on the same rows, to compare a network with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import filterfalse
from typing import TYPE_CHECKING

import numpy as np
import torch
from toolz import dissoc
from torch import Tensor

from mip.branches import Branch, leaf_branches, path_in_spec
from mip.data import Table
from mip.errors import DataError, MipError, SpecError
from mip.heads import Binary, Multiclass, Regression, predictions_to_logits, probability_columns
from mip.metrics import MetricFunction, log_loss
from mip.model import Parts, Plan, fingerprint, target_columns
from mip.prediction.ensembles import Ensemble
from mip.prediction.evaluation import evaluate
from mip.prediction.inputs import check_inputs
from mip.prediction.predictors import Predictor
from mip.rng import derive
from mip.tree import get_in, leaves

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator
    from sklearn.pipeline import Pipeline

HEADS = (Regression, Binary, Multiclass)
"""The kinds of heads that have baselines."""


N_TREES = 500
"""Trees in the random forest."""


Scores = dict[str, dict[str, float]]
"""Metrics by part."""


def baselines(plan: Plan, parts: Parts[Table], trees: int = N_TREES) -> dict[str, Scores]:
    """Score simple models on each part that has rows: the head's metrics, and for classes the
    log loss, by model and part.

    They are scikit-learn's: the mean or the most frequent class, least squares or logistic
    regression (with the default penalty), and a random forest. They learn from the train rows only,
    read what `features` returns, and learn a number on the head's scale, each with its own loss.
    The forest's seed is derived from `train.seed`. Without features there is only the first model.

    Raises SpecError for a head that is not one of `HEADS`, MipError without the extra `baseline`
    and for other arguments.

    >>> import mip
    >>> spec = mip.parse('''
    ... branch.size = { kind = "continuous", columns = ["area"] }
    ... head = { kind = "regression", column = "price" }
    ... ''')
    >>> rows = mip.from_columns({"area": [1, 2, 3, 4], "price": [10, 20, 30, 40]})
    >>> scores = baselines(mip.adapt(spec, rows), Parts(rows, rows.take([0]), rows.take([])), 5)
    >>> list(scores), list(scores["mean"])
    (['mean', 'linear regression', 'random forest'], ['train', 'valid'])
    >>> [round(scores[name]["train"]["mae"], 4) for name in ("mean", "linear regression")]
    [10.0, 0.0]
    """
    if not isinstance(plan, Plan) or not isinstance(parts, Parts):
        given = f"{type(plan).__name__} and {type(parts).__name__}"
        cure = "mip.adapt(spec, parts.train) and parts = mip.parts(spec, rows)"
        raise MipError(f"baselines take a Plan and Parts, {cure}, not {given}")
    head, facts, metrics = plan.spec.head, plan.facts["head"], _metrics(plan)
    if not isinstance(head, HEADS):
        kinds = ", ".join(kind.kind for kind in HEADS)
        raise SpecError(f"head.kind = '{head.kind}' has no baselines: they are for {kinds}")
    tables = _nonempty(parts)
    read = {part: features(plan, table) for part, table in tables.items()}
    n_numbers, n_codes = (array.shape[1] for array in read["train"])
    inputs = {part: np.hstack(arrays) for part, arrays in read.items()}
    targets = {part: head.encode(facts, table) for part, table in tables.items()}
    scores = {}
    for name, model in _models(plan, n_numbers, n_codes, trees).items():
        _fit(model, inputs["train"], targets["train"].double().numpy())
        by_part = {
            part: plan.score(_logits(plan, model, inputs[part]), targets[part], metrics)
            for part in tables
        }
        scores[name] = {part: dissoc(values, "loss") for part, values in by_part.items()}
    return scores


def score_by_part(predict: Predictor | Ensemble, plan: Plan, parts: Parts[Table]) -> Scores:
    """Score a trained model as `baselines` scores simple ones: by the same metrics, by part.

    Raises SpecError for a model with another target, and DataError for one that was trained on
    other rows, since it may have seen rows that are held out here.
    """
    for other in predict.plans:
        theirs, ours = (
            f"{' and '.join(target_columns(p.spec))} ({p.spec.head.kind})" for p in (other, plan)
        )
        if theirs != ours:
            raise SpecError(f"the model predicts {theirs}, and the spec {ours}")
        check_inputs(other, parts.train)
        if fingerprint(other.spec, parts.train) != other.facts["rows"]:
            raise DataError(
                f"{parts.train.name}: the model was not trained on the train rows of this spec, so "
                "it may have seen rows that are held out"
            )
    scores = {p: evaluate(predict, table, _metrics(plan)) for p, table in _nonempty(parts).items()}
    return {part: dissoc(values, "loss") for part, values in scores.items()}


def features(plan: Plan, table: Table) -> tuple[np.ndarray, np.ndarray]:
    """Return what the plan encodes of columns: numbers float64 [n, p], NaN for missing ones, and
    category codes int64 [n, c]. Photos and free text are left out.

    >>> import mip
    >>> spec = mip.parse('''
    ... branch.place = { kind = "tabular", continuous = ["area"], categorical = ["town"] }
    ... head = { kind = "regression", column = "price" }
    ... ''')
    >>> rows = mip.from_columns({"area": [1, 3], "town": ["Ulm", "Bonn"], "price": [10, 20]})
    >>> [part.tolist() for part in features(mip.adapt(spec, rows), rows)]
    [[[-1.0], [1.0]], [[2], [1]]]
    """
    encoded = [
        leaf
        for path, branch in _column_branches(plan)
        for _, leaf in leaves(branch.encode(get_in(plan.facts["branch"], path.split(".")), table))
    ]
    empty = torch.zeros(len(table), 0)
    numbers = torch.cat([empty, *filter(torch.is_floating_point, encoded)], dim=1)
    codes = torch.cat([empty.long(), *filterfalse(torch.is_floating_point, encoded)], dim=1)
    return numbers.double().numpy(), codes.numpy()


def branches_without_baseline(plan: Plan) -> list[str]:
    """List the branches that simple models do not read: those of photos and of free text."""
    read = {path for path, _ in _column_branches(plan)}
    return [path_in_spec(path) for path, _ in leaf_branches(plan.spec.root) if path not in read]


def _column_branches(plan: Plan) -> Iterator[tuple[str, Branch]]:
    # Columns are encoded as [n, columns]; photos and texts have more dimensions.
    example = plan.example()
    for path, branch in leaf_branches(plan.spec.root):
        if all(leaf.dim() == 2 for _, leaf in leaves(get_in(example, path.split(".")))):
            yield path, branch


def _nonempty(parts: Parts[Table]) -> dict[str, Table]:
    return {part: table for part, table in parts._asdict().items() if len(table)}


def _metrics(plan: Plan) -> Mapping[str, MetricFunction]:
    # Each model is trained with its own loss, so of all losses only this one compares them.
    return {} if isinstance(plan.spec.head, Regression) else {"log_loss": log_loss}


def _models(
    plan: Plan, n_numbers: int, n_codes: int, trees: int
) -> dict[str, Pipeline | BaseEstimator]:
    (constant_name, constant), (linear_name, linear), (forest_name, forest) = _estimators(
        plan, trees
    ).items()
    if not n_numbers + n_codes:
        return {constant_name: constant}
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers, codes = list(range(n_numbers)), list(range(n_numbers, n_numbers + n_codes))
    impute = SimpleImputer(add_indicator=True, keep_empty_features=True)
    scale = make_pipeline(impute, StandardScaler())
    one_hot = OneHotEncoder(handle_unknown="ignore")
    for_linear = make_column_transformer((scale, numbers), (one_hot, codes))
    for_forest = make_column_transformer((impute, numbers), ("passthrough", codes))
    return {
        constant_name: constant,
        linear_name: make_pipeline(for_linear, linear),
        forest_name: make_pipeline(for_forest, forest),
    }


def _estimators(plan: Plan, trees: int) -> dict[str, BaseEstimator]:
    try:
        from sklearn.dummy import DummyClassifier, DummyRegressor
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
        from sklearn.linear_model import LinearRegression, LogisticRegression
    except ImportError as error:
        cure = "pip install 'mixed-input-pipelines[baseline]'"
        raise MipError(f"baselines need scikit-learn: {cure}") from error
    seed = derive("forest", plan.spec.train.seed) % 2**32
    if isinstance(plan.spec.head, Regression):
        return {
            "mean": DummyRegressor(),
            "linear regression": LinearRegression(),
            "random forest": RandomForestRegressor(trees, random_state=seed),
        }
    return {
        "most frequent class": DummyClassifier(),
        "logistic regression": LogisticRegression(max_iter=1000),
        "random forest": RandomForestClassifier(trees, random_state=seed),
    }


def _fit(model: Pipeline | BaseEstimator, inputs: np.ndarray, target: np.ndarray) -> None:
    from joblib import parallel_config

    # Only fitting uses all cores: predictions of several threads would be summed in any order. It
    # uses threads: processes, which the transformers of columns start by default, take seconds.
    with parallel_config("threading", n_jobs=-1):
        model.fit(inputs, target)


def _logits(plan: Plan, model: Pipeline | BaseEstimator, inputs: np.ndarray) -> Tensor:
    head, facts = plan.spec.head, plan.facts["head"]
    if isinstance(head, Regression):
        return torch.from_numpy(model.predict(inputs)).float()
    columns = probability_columns(facts["classes"], model.predict_proba(inputs))
    return predictions_to_logits(head, facts, columns).float()
