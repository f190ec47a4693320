"""What a prediction does while a column changes: partial dependence, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import evolve

from mip.branches import FindsUnseen, Image, branch_columns, leaf_branches
from mip.data import Table
from mip.errors import DataError, MipError, hint
from mip.explain.vectors import Halves, Scale, draw_rows, encode_branches, halve, replace_vectors

if TYPE_CHECKING:
    import pandas as pd


def dependence(
    model: Any,
    rows: Any,
    columns: str | Sequence[str],
    *,
    points: int = 20,
    max_rows: int = 200,
    scale: Scale = "prediction",
    seed: int = 0,
) -> pd.DataFrame:
    """Predict rows again with each of some cells in a column, or in two: individual conditional
    expectations (Goldstein et al. 2015), whose mean over the rows is the partial dependence
    (Friedman 2001).

    The cells are those of the rows: of numbers and dates at most `points`, evenly spaced in rank;
    of categories the most frequent ones. Of more than `max_rows` rows, some are drawn. Rows need no
    target. The DataFrame has a row for each combination of cells, row and output: the cells in
    columns of their names, `row` (its label), `output` and `prediction`. A column that moves
    together with others is moved alone here, to rows that may not exist.

    Raises MipError for a column that the model does not read or that holds photos.
    """
    import pandas as pd

    names = [columns] if isinstance(columns, str) else list(columns)
    halves = halve(model, rows, targets=False)
    grids = [_grid(halves, name, points) for name in names]
    halves = draw_rows(halves, max_rows, "dependence", seed)
    reading = {name for name, read in halves.columns.items() if {*read} & {*names}}
    frames = list[pd.DataFrame]()
    for cells in product(*grids):
        fixed = dict(zip(names, cells, strict=True))
        same = {name: pd.array([cell] * len(halves), dtype=object) for name, cell in fixed.items()}
        table = evolve(halves.table, frame=halves.table.frame.assign(**same))
        vectors = replace_vectors(halves.vectors, encode_branches(halves, table, reading))
        for output, predicted in halves.predict(vectors, scale).items():
            record = {**fixed, "row": halves.table.index, "output": output}
            frames.append(pd.DataFrame({**record, "prediction": predicted}))
    return pd.concat(frames, ignore_index=True)


def _grid(halves: Halves, column: str, points: int) -> list[Any]:
    """Return cells of a column, in their order: of numbers by rank, of categories by frequency."""
    kinds = {
        type(branch)
        for plan in halves.model.plans
        for _, branch in leaf_branches(plan.spec.root)
        if column in branch_columns(branch)
    }
    if not kinds:
        read = [name for names in halves.columns.values() for name in names]
        raise MipError(f"explain: the model does not read '{column}'{hint(column, read)}")
    if any(issubclass(kind, Image) for kind in kinds):
        raise MipError(f"explain: '{column}' holds photos, which have no order")
    table = halves.table.with_formats(halves.model.plan.spec.data.columns)
    known = [row for row, cell in enumerate(table.cells(column)) if cell is not None]
    cells, keys = table[column].iloc[known], _sort_keys(table.take(known), column)
    if keys is None or any(issubclass(kind, FindsUnseen) for kind in kinds):
        return cells.value_counts().index[:points].tolist()
    distinct = np.unique(keys[np.isfinite(keys)], return_index=True)[1]
    chosen = np.linspace(0, len(distinct) - 1, min(points, len(distinct))).round().astype(int)
    return cells[np.isfinite(keys)].iloc[distinct[chosen]].tolist()


def _sort_keys(table: Table, column: str) -> np.ndarray | None:
    for read in (table.numbers, table.timestamps):
        with suppress(DataError):
            return read(column)
    return None
