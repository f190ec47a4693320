"""Baselines: what simple models make of the same rows, to hold a network against."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import filterfalse
from typing import Any

import numpy as np
import torch
from toolz import dissoc
from torch import Tensor

from mip.branches import Branch, path_in_spec, walk
from mip.data import Table
from mip.errors import DataError, MipError, SpecError
from mip.heads import Binary, Multiclass, Regression, log_loss, probability_columns, to_logits
from mip.model import Metric, Parts, Plan, fingerprint, target_columns
from mip.predict.predictors import Ensemble, Predictor, check_inputs, evaluate
from mip.rng import derive
from mip.tree import get_in, leaves

HEADS = (Regression, Binary, Multiclass)
"""The kinds of heads that have baselines."""


TREES = 500
"""Trees of a random forest."""


Scores = dict[str, dict[str, float]]
"""Metrics by part."""


def baselines(plan: Plan, cut: Parts[Table], trees: int = TREES) -> dict[str, Scores]:
    """Score simple models on each part that has rows: the head's metrics, and for classes the
    log loss, by model and part.

    These are scikit-learn's: the mean or the most frequent class, least squares or a logistic
    regression (with the default penalty), and a random forest of so many trees. They learn from
    the train rows alone, see what `features` gives, and learn a number on the head's scale, each
    with a loss of its own. The forest draws from `train.seed`. Where there are no features there
    is the first model alone.

    Raises SpecError for a head that is none of `HEADS`, MipError without the extra `baseline`.

    >>> import mip
    >>> spec = mip.parse('''
    ... branch.size = { kind = "continuous", columns = ["area"] }
    ... head = { kind = "regression", column = "price" }
    ... ''')
    >>> rows = mip.from_columns({"area": [1, 2, 3, 4], "price": [10, 20, 30, 40]})
    >>> found = baselines(mip.adapt(spec, rows), Parts(rows, rows.take([0]), rows.take([])), 5)
    >>> list(found), list(found["mean"])
    (['mean', 'linear regression', 'random forest'], ['train', 'valid'])
    >>> [round(found[name]["train"]["mae"], 4) for name in ("mean", "linear regression")]
    [10.0, 0.0]
    """
    _check_head(plan)
    seen = {part: features(plan, rows) for part, rows in _filled(cut).items()}
    numbers, codes = (each.shape[1] for each in seen["train"])
    inputs = {part: np.hstack(both) for part, both in seen.items()}
    head, facts, metrics = plan.spec.head, plan.facts["head"], _metrics(plan)
    target = {part: head.encode(facts, rows) for part, rows in _filled(cut).items()}
    found = {}
    for name, model in _models(plan, numbers, codes, trees).items():
        _fit(model, inputs["train"], target["train"].double().numpy())
        logits = {part: _logits(plan, model, rows) for part, rows in inputs.items()}
        scores = {part: plan.score(logits[part], target[part], metrics) for part in logits}
        found[name] = {part: dissoc(values, "loss") for part, values in scores.items()}
    return found


def network(predict: Predictor | Ensemble, plan: Plan, cut: Parts[Table]) -> Scores:
    """Score a model as `baselines` does simple ones: by the same metrics, by part.

    Raises SpecError for a model that predicts something else, and DataError for one that was
    trained on other rows, for it may have seen those that are held out here.
    """
    for each in predict.plans:
        _check_target(each, plan)
        check_inputs(each, cut.train)
        if fingerprint(each.spec, cut.train) != each.facts["rows"]:
            raise DataError(
                f"{cut.train.name}: the model was not trained on the train rows of this spec, so "
                "that it may have seen what is held out"
            )
    metrics, filled = _metrics(plan), _filled(cut).items()
    return {part: dissoc(evaluate(predict, rows, metrics), "loss") for part, rows in filled}


def features(plan: Plan, rows: Table) -> tuple[np.ndarray, np.ndarray]:
    """Give what the plan encodes of columns: numbers float64 [n, p], NaN where one is missing, and
    codes of categories int64 [n, c]. Photos and free text are left out.

    >>> import mip
    >>> spec = mip.parse('''
    ... branch.place = { kind = "tabular", continuous = ["area"], categorical = ["town"] }
    ... head = { kind = "regression", column = "price" }
    ... ''')
    >>> rows = mip.from_columns({"area": [1, 3], "town": ["Ulm", "Bonn"], "price": [10, 20]})
    >>> [part.tolist() for part in features(mip.adapt(spec, rows), rows)]
    [[[-1.0], [1.0]], [[2], [1]]]
    """
    seen = [
        leaf
        for path, branch in _read(plan)
        for _, leaf in leaves(branch.encode(get_in(plan.facts["branch"], path.split(".")), rows))
    ]
    none = torch.zeros(len(rows), 0)
    numbers = torch.cat([none, *filter(torch.is_floating_point, seen)], dim=1)
    codes = torch.cat([none.long(), *filterfalse(torch.is_floating_point, seen)], dim=1)
    return numbers.double().numpy(), codes.numpy()


def left_out(plan: Plan) -> list[str]:
    """Name the branches that simple models do not read: those of photos and of free text."""
    read = {path for path, _ in _read(plan)}
    return [path_in_spec(path) for path, _ in walk(plan.spec.root) if path not in read]


def _read(plan: Plan) -> Iterator[tuple[str, Branch]]:
    # A column of a table is a number a row; photos and texts have more dimensions.
    example = plan.example()
    for path, branch in walk(plan.spec.root):
        if all(leaf.dim() == 2 for _, leaf in leaves(get_in(example, path.split(".")))):
            yield path, branch


def _check_head(plan: Plan) -> None:
    if not isinstance(plan.spec.head, HEADS):
        known = ", ".join(kind.__name__.lower() for kind in HEADS)
        raise SpecError(f"head.kind = '{_kind(plan)}' has no baselines: they are for {known}")


def _check_target(one: Plan, other: Plan) -> None:
    told, wanted = (
        f"{' and '.join(target_columns(plan.spec))} ({_kind(plan)})" for plan in (one, other)
    )
    if told != wanted:
        raise SpecError(f"the model predicts {told}, and the spec {wanted}")


def _kind(plan: Plan) -> str:
    return type(plan.spec.head).__name__.lower()


def _filled(cut: Parts[Table]) -> dict[str, Table]:
    return {part: rows for part, rows in cut._asdict().items() if len(rows)}


def _models(plan: Plan, numbers: int, codes: int, trees: int) -> dict[str, Any]:
    (simple, mean), (line, fitted), (forest, grown) = _estimators(plan, trees).items()
    if not numbers + codes:
        return {simple: mean}
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    left, right = list(range(numbers)), list(range(numbers, numbers + codes))
    filled = SimpleImputer(add_indicator=True, keep_empty_features=True)
    scaled = make_pipeline(filled, StandardScaler())
    wide = make_column_transformer((scaled, left), (OneHotEncoder(handle_unknown="ignore"), right))
    narrow = make_column_transformer((filled, left), ("passthrough", right))
    return {
        simple: mean,
        line: make_pipeline(wide, fitted),
        forest: make_pipeline(narrow, grown),
    }


def _estimators(plan: Plan, trees: int) -> dict[str, Any]:
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


def _fit(model: Any, inputs: np.ndarray, target: np.ndarray) -> None:
    from joblib import parallel_config

    # Trees grow at once; predictions of several threads would be summed in any order.
    with parallel_config(n_jobs=-1):
        model.fit(inputs, target)


def _metrics(plan: Plan) -> dict[str, Metric]:
    # Each model is trained with a loss of its own, so that only this one compares them.
    return {} if isinstance(plan.spec.head, Regression) else {"log_loss": log_loss}


def _logits(plan: Plan, model: Any, inputs: np.ndarray) -> Tensor:
    head, facts = plan.spec.head, plan.facts["head"]
    if isinstance(head, Regression):
        return torch.from_numpy(model.predict(inputs)).float()
    chances = probability_columns(facts["classes"], model.predict_proba(inputs))
    return to_logits(head, facts, chances).float()
