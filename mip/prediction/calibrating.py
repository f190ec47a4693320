"""Learning how sure a model's predictions are from rows that it was not trained on."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from mip.errors import MipError
from mip.heads import check_calibrates
from mip.prediction.ensembles import Ensemble, open_model
from mip.prediction.evaluation import logits_and_target
from mip.prediction.predictors import Predictor


def calibrate(model: Any, rows: Any, coverage: float = 0.9) -> Predictor:
    """Return a model that also says how sure it is, by rows with targets that it was not trained
    on. With its plan and state it is saved as any other.

    Numbers get `low` and `high`, classes a `set` of those that can be true, and their
    probabilities a temperature (Guo et al. 2017). On new rows from where these come from, the
    share of rows whose truth is within is `coverage` or more, apart from chance: split conformal
    prediction (Lei et al. 2018). Rows that chose the epoch, as valid, flatter a little. A model
    that is calibrated already is calibrated anew.

    Raises MipError for an ensemble and for a coverage that is not between 0 and 1, SpecError for a
    head that cannot be calibrated, and DataError for fewer rows than coverage / (1 - coverage).
    """
    predict = open_model(model)
    if not isinstance(predict, Predictor):
        kind = "an ensemble" if isinstance(predict, Ensemble) else type(predict).__name__
        raise MipError(f"calibrate: {kind} cannot be calibrated, a single model of a spec can")
    if not 0 < coverage < 1:
        raise MipError(f"coverage must be between 0 and 1, as 0.9: {coverage}")
    plan = predict.plan
    logits, target = logits_and_target(predict, rows)
    head = check_calibrates(plan.spec.head)
    learned = head.calibrate(plan.facts["head"], logits, target, coverage)
    return evolve(predict, plan=evolve(plan, facts={**plan.facts, "calibration": learned}))
