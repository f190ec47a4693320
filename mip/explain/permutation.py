"""Which columns and branches the quality of predictions rests on: importance by permutation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mip.errors import MipError, hint
from mip.explain.vectors import Halves, halve, with_columns
from mip.metrics import direction
from mip.rng import derive

if TYPE_CHECKING:
    import pandas as pd


def importance(
    model: Any,
    rows: Any,
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    repeats: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure how much worse predictions of rows with targets get if a branch, or a column, has the
    cells of other rows (Breiman 2001; Fisher, Rudin and Dominici 2019).

    Columns that belong together can be permuted as one, `groups={"place": ["lat", "lon"]}`; a
    column of a group is not permuted by itself. The DataFrame has a row for each branch, column or
    group and each metric of the head: `kind`, `name`, `metric`, `score` (of the rows as they are),
    `importance` (the mean over the repeats of what the score gets worse by, in the metric's unit:
    below 0 is better), and `low` and `high` (its interval of two standard errors over the repeats).
    A column that two branches read is permuted for both.

    Photos are encoded once for all branches, and again, `repeats` times, for each column of a
    branch that reads several. Raises MipError for a group of columns that the model does not read,
    and less than 2 repeats.
    """
    import pandas as pd

    halves = halve(model, rows)
    if repeats < 2:
        raise MipError(f"'repeats' must be 2 or more: {repeats}")
    scores = halves.score(halves.predict())
    records = list[dict[str, Any]]()
    for kind, name, columns in _players(halves, groups or {}):
        permuted = list[dict[str, float]]()
        for k in range(repeats):
            rng = np.random.default_rng(derive("importance", seed, k))
            other = halves.take(rng.permutation(len(halves)))
            permuted.append(halves.score(halves.predict(with_columns(halves, other, columns))))
        for metric, score in scores.items():
            sign = {"min": 1.0, "max": -1.0}.get(direction(metric) or "")
            if sign is not None:
                worse = sign * (np.array([each[metric] for each in permuted]) - score)
                mean, error = worse.mean(), worse.std(ddof=1) / repeats**0.5
                interval = {"low": mean - 2 * error, "high": mean + 2 * error}
                known = {"kind": kind, "name": name, "metric": metric, "score": score}
                records.append({**known, "importance": mean, **interval})
    return pd.DataFrame(records)


def _players(
    halves: Halves, groups: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, str, list[str]]]:
    """Yield what is permuted: its kind, name and columns. Branches without columns have none."""
    read = list(dict.fromkeys(column for names in halves.columns.values() for column in names))
    for name, columns in groups.items():
        for column in columns:
            if column not in read:
                raise MipError(f"groups: '{name}' has '{column}'{hint(column, read)}")
    yield from (("branch", name, columns) for name, columns in halves.columns.items() if columns)
    yield from (("group", name, [*columns]) for name, columns in groups.items())
    grouped = {column for columns in groups.values() for column in columns}
    yield from (("column", column, [column]) for column in read if column not in grouped)
