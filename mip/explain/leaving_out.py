"""What a model predicts without a branch, and from a branch alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mip.branches import blank
from mip.explain.vectors import (
    Halves,
    Vectors,
    halve,
    members_of,
    replace_vectors,
    run_branches,
    select_branches,
)
from mip.tree import take

if TYPE_CHECKING:
    import pandas as pd


def ablation(model: Any, rows: Any) -> pd.DataFrame:
    """Score predictions of rows with targets without each branch, and from each branch alone: the
    others are blank, as if all of their cells and photos were missing.

    The model was trained with all of its branches and makes what it can of the others; one that is
    trained anew without a branch can be better. The DataFrame has a row
    for each branch and metric: `branch`, `metric`, `score` (with all), `without` and `alone`. A
    branch that has not learned what stands for a missing photo sees one of the mean color.
    """
    import pandas as pd

    halves = halve(model, rows)
    blanks = blank_vectors(halves)
    scores = halves.score(halves.predict())
    records = list[dict[str, Any]]()
    for branch in halves.branches:
        nothing = replace_vectors(halves.vectors, select_branches(blanks, {branch}))
        without = halves.score(halves.predict(nothing))
        alone = replace_vectors(blanks, select_branches(halves.vectors, {branch}))
        only = halves.score(halves.predict(alone))
        records += [
            {
                "branch": branch,
                "metric": metric,
                "score": score,
                "without": without[metric],
                "alone": only[metric],
            }
            for metric, score in scores.items()
        ]
    return pd.DataFrame(records)


def blank_vectors(halves: Halves) -> Vectors:
    """Return vectors of as many rows in which no branch has anything."""
    same = torch.zeros(len(halves), dtype=torch.int64)
    found = list[dict[str, Tensor]]()
    for member in members_of(halves.model):
        plan = member.plan
        row = blank(plan.spec.root, plan.facts["branch"], 1)
        found.append(take(run_branches(member, row), same))
    return tuple(found)
