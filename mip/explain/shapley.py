"""How much of a prediction, and of a model's quality, each branch accounts for: Shapley values.

A coalition of branches is played by predicting rows from their own vectors in these branches and
from those of background rows in all others, averaged over the background (interventional values;
Lundberg and Lee 2017; for scores: Covert, Lundberg and Lee 2020). What a branch is worth is the
mean of what it adds to a coalition, over all orders in which the branches can join (Shapley 1953).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations
from math import factorial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from mip.errors import MipError
from mip.explain.leaving_out import ablation
from mip.explain.vectors import (
    Columns,
    Halves,
    Scale,
    draw_rows,
    halve,
    replace_vectors,
    select_branches,
    with_columns,
)
from mip.rng import derive
from mip.tree import take

if TYPE_CHECKING:
    import pandas as pd

EXACT_BRANCHES = 10
"""Up to so many branches all coalitions are played, and beyond orders are drawn."""

ORDERS = 64
"""Orders that are drawn where not all can be played: pairs of one and its reverse."""

BACKGROUND = 64
"""The background rows, drawn from the rows given as such."""

Coalition: TypeAlias = frozenset[str]
"""Some of the branches, by name."""


def shapley_rows(
    model: Any,
    rows: Any,
    background: Any = None,
    *,
    scale: Scale = "prediction",
    seed: int = 0,
) -> pd.DataFrame:
    """Divide each prediction among the branches: Shapley values, which add up to the difference of
    the prediction from the mean prediction of the background rows.

    `background` are rows to compare with, such as the training rows, of which 64 are drawn; by
    default the rows themselves. Rows need no target. The DataFrame has a row for each row, output
    (`value`, `p_<class>` …; see `mip.explain.Scale`) and branch: `row` (its label), `output`,
    `branch`, `effect`, `base` (the mean prediction of the background) and `prediction`; `base` and
    the effects add up to `prediction`. They are exact, given the background rows, for up to 10
    branches; beyond, orders are drawn, and they still add up.
    """
    import pandas as pd

    halves = halve(model, rows, targets=False)
    values = _play(halves, _background(halves, background, seed), scale, seed)
    whole, base = values[frozenset(halves.branches)], values[frozenset()]
    frames = list[pd.DataFrame]()
    for output in whole:
        played = {coalition: each[output] for coalition, each in values.items()}
        effects = shapley_values(halves.branches, played, seed)
        frames.append(_frame(halves, output, "branch", effects, base[output], whole[output]))
    return pd.concat(frames, ignore_index=True)


def _frame(
    halves: Halves,
    output: str,
    player: str,
    effects: Mapping[str, np.ndarray],
    base: np.ndarray,
    prediction: np.ndarray,
) -> pd.DataFrame:
    """Make rows of a row's label, the output, a branch or column, and its effect."""
    import pandas as pd

    of_row = {"row": halves.table.index, "output": output}
    ends = {"base": base, "prediction": prediction}
    named = effects.items()
    frames = [pd.DataFrame({**of_row, player: k, "effect": effect, **ends}) for k, effect in named]
    return pd.concat(frames, ignore_index=True)


def shapley_scores(model: Any, rows: Any, background: Any = None, *, seed: int = 0) -> pd.DataFrame:
    """Divide the quality of a model on rows with targets among its branches: Shapley values of each
    metric (SAGE).

    A coalition's predictions are means over the background rows, as for `shapley_rows`. The
    DataFrame has a row for each metric and branch: `metric`, `branch`, `effect` (what the branch
    changes the metric by), `base` (the metric if no branch is known) and `score` (if all are);
    `base` and the effects add up to `score`.
    """
    import pandas as pd

    halves = halve(model, rows)
    predicted = _play(halves, _background(halves, background, seed), "prediction", seed)
    scores = {coalition: halves.score(each) for coalition, each in predicted.items()}
    first, last = scores[frozenset()], scores[frozenset(halves.branches)]
    records = list[dict[str, Any]]()
    for metric in first:
        values = {coalition: np.array(each[metric]) for coalition, each in scores.items()}
        effects = shapley_values(halves.branches, values, seed)
        ends = {"base": first[metric], "score": last[metric]}
        records += [
            {"metric": metric, "branch": branch, "effect": float(effect), **ends}
            for branch, effect in effects.items()
        ]
    return pd.DataFrame(records)


def shapley_columns(
    model: Any,
    rows: Any,
    background: Any = None,
    *,
    draws: int = 32,
    scale: Scale = "prediction",
    seed: int = 0,
) -> pd.DataFrame:
    """Divide each prediction among the columns: in each draw a row begins as one of the background
    rows and takes on its own cells, column by column, one branch after the other, in a random order
    (Owen values by sampling; Owen 1977, Castro, Gomez and Tejada 2009).

    Arguments and columns are those of `shapley_rows`, with `column` in place of `branch`. The
    effects add up to the difference of the prediction from `base`, the mean prediction of the
    background rows drawn for the row; each has an error of sampling, which `draws` reduce.
    """
    import pandas as pd

    halves = halve(model, rows, targets=False)
    others = _others(halves, background)
    whole = halves.predict(scale=scale)
    columns = list(dict.fromkeys(chain.from_iterable(halves.columns.values())))
    base = {output: np.zeros(len(halves)) for output in whole}
    effects = {output: {name: np.zeros(len(halves)) for name in columns} for output in whole}
    for draw in range(draws):
        rng = np.random.default_rng(derive("columns", seed, draw))
        other, known = others.take(rng.integers(len(others), size=len(halves))), list[str]()
        before = other.predict(scale=scale)
        for output in whole:
            base[output] += before[output] / draws
        for column in _draw_order(halves.columns, rng):
            known.append(column)
            after = halves.predict(with_columns(other, halves, known), scale)
            for output in whole:
                effects[output][column] += (after[output] - before[output]) / draws
            before = after
    frames = [
        _frame(halves, output, "column", effects[output], base[output], whole[output])
        for output in whole
    ]
    return pd.concat(frames, ignore_index=True)


def _draw_order(columns: Mapping[str, Sequence[str]], rng: np.random.Generator) -> list[str]:
    """Draw an order of columns in which those of a branch are together."""
    branches = rng.permutation([*columns]).tolist()
    drawn = [column for name in branches for column in rng.permutation(columns[name]).tolist()]
    return list(dict.fromkeys(drawn))


def branches(model: Any, rows: Any, background: Any = None, *, seed: int = 0) -> pd.DataFrame:
    """Return all that is known of each branch and metric: the columns of `shapley_scores` beside
    those of `ablation`.
    """
    halves = halve(model, rows)
    shares = shapley_scores(model, halves, background, seed=seed)
    return shares.merge(ablation(model, halves), on=["branch", "metric", "score"])


def shapley_values(
    names: Sequence[str], values: Mapping[Coalition, np.ndarray], seed: int = 0
) -> dict[str, np.ndarray]:
    """Return the Shapley value of each player, given the value of each coalition; of more than ten
    players, of those coalitions that the orders drawn by the seed pass through.

    >>> glove = {frozenset(c): np.array(float("a" in c and len(c) > 1)) for c in
    ...          ["", "a", "b", "c", "ab", "ac", "bc", "abc"]}
    >>> {name: round(float(v), 3) for name, v in shapley_values("abc", glove).items()}
    {'a': 0.667, 'b': 0.167, 'c': 0.167}
    """
    effects = {name: np.zeros_like(next(iter(values.values()))) for name in names}
    for name, before, weight in _additions(names, seed):
        effects[name] = effects[name] + weight * (values[before | {name}] - values[before])
    return effects


def _additions(names: Sequence[str], seed: int) -> Iterator[tuple[str, Coalition, float]]:
    """Yield who joins which coalition, and in which share of the orders."""
    if len(names) <= EXACT_BRANCHES:
        for name in names:
            others = [other for other in names if other != name]
            for size in range(len(names)):
                weight = factorial(size) * factorial(len(others) - size) / factorial(len(names))
                yield from ((name, frozenset(c), weight) for c in combinations(others, size))
        return
    rng = np.random.default_rng(derive("shapley", seed))
    drawn = [rng.permutation(len(names)) for _ in range(ORDERS // 2)]
    for order in [*drawn, *(order[::-1] for order in drawn)]:
        for k, player in enumerate(order):
            yield names[player], frozenset(names[other] for other in order[:k]), 1 / ORDERS


def _others(halves: Halves, rows: Any) -> Halves:
    others = halves if rows is None else halve(halves.model, rows, targets=False)
    if not len(others):
        raise MipError("explain: there are no background rows that the model can use")
    return others


def _background(halves: Halves, rows: Any, seed: int) -> Halves:
    return draw_rows(_others(halves, rows), BACKGROUND, "background", seed)


def _play(halves: Halves, background: Halves, scale: Scale, seed: int) -> dict[Coalition, Columns]:
    """Predict the rows with each coalition of branches known, as means over the background."""
    whole = frozenset(halves.branches)
    values: dict[Coalition, Columns] = {whole: halves.predict(scale=scale)}
    for name, before, _ in _additions(halves.branches, seed):
        for coalition in (before, before | {name}):
            if coalition not in values:
                values[coalition] = _mean_prediction(halves, background, coalition, scale)
    return values


def _mean_prediction(halves: Halves, background: Halves, known: Coalition, scale: Scale) -> Columns:
    own, sums = select_branches(halves.vectors, known), dict[str, np.ndarray]()
    for row in range(len(background)):
        other = take(background.vectors, torch.full((len(halves),), row))
        predicted = halves.predict(replace_vectors(other, own), scale)
        sums = {k: sums.get(k, 0.0) + column for k, column in predicted.items()}
    return {k: column / len(background) for k, column in sums.items()}
