"""Which photos are missing, and what is done about it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from mip import branches
from mip.data import Table
from mip.images import photos_of


class Absent(NamedTuple):
    """Which photos are missing, and the policy that follows."""

    summary: str = ""
    first: str = ""
    policy: str = "error"


def find_absent(columns: Sequence[str], table: Table, alone: bool) -> Absent:
    """Look up the photos of columns, which are all that rows have if they are `alone`."""
    if not columns:
        return Absent()
    # Under the policy "learn" problems are looked up, and only the ends of files are read.
    problems = list(branches.Image(tuple(columns), missing="learn").problems(table))
    if not problems:
        return Absent()
    # A row that is nothing but its photo has nothing to predict from without it.
    drop = alone and len(columns) == 1 and len(problems) < len(table)
    what = "their rows are left out" if drop else "a learned vector replaces them"
    row = f"row {table.row_ids[problems[0].row]}: {problems[0].reason}"
    n_photos = sum(map(len, chain.from_iterable(photos_of(table, column) for column in columns)))
    n_blank = sum(problem.summary == branches.Absence.UNNAMED.value for problem in problems)
    n_lost = len(problems) - n_blank
    blank = "1 cell names no photo" if n_blank == 1 else f"{n_blank} cells name no photo"
    counts = [blank] * bool(n_blank)
    counts += [f"{n_lost} of {n_photos - n_blank} photos are missing or broken"] * bool(n_lost)
    count = ", and ".join(counts)
    return Absent(count, f"(the first: {row:.99}); {what}", "drop" if drop else "learn")
