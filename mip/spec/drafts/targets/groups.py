"""Rows that belong together: those of one patient, or with the same photo."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

import numpy as np

from mip.data import is_image, is_list
from mip.spec.drafts.distinct_cells import DistinctCells

MIN_GROUPS = 20
"""Groups needed to be split; fewer are categories."""


MAX_ROWS = 20
"""The number of rows of a group, on average, beyond which the same groups will come again."""


MAX_SHARE = 0.2
"""The largest share of the rows that may be in one group: cells without an id count as one."""


MIN_SHARED = 0.05
"""The share of the rows that must have another of their group."""


_WHO = """patient|subject|participant|person|customer|client|user|member|animal|specimen|donor|case
|household|family|student|player|house|property|listing|product|item|object|plant|tree|lesion|study
|visit|session|series|slide|scan|trip|order""".replace("\n", "")
_NAME_OF_GROUPS = re.compile(
    rf"(?:^|[^a-z])(?:id|uid|uuid|guid)$|(?:^|[^a-z])(?:{_WHO})(?:[^a-z]?(?:id|no|nr|number|code))?$"
)


def find_group(columns: Iterable[DistinctCells], photos: Collection[str]) -> str | None:
    """Find the column whose rows must stay in one part, since whoever knows the others of a group
    knows something of each: ids that come again, of patients, or the same photos. Of several it is
    the one with the fewest groups. Return None if there is none.

    >>> from mip.data import from_columns
    >>> from mip.spec.drafts.distinct_cells import distinct_cells
    >>> ids = [f"P{row // 3}" for row in range(90)]
    >>> rows = from_columns({"patient_id": ids, "row_id": range(90)})
    >>> find_group(distinct_cells(rows).values(), [])
    'patient_id'
    """
    groups = [
        cells
        for cells in columns
        if (cells.column in photos or _has_name_of_groups(cells.column)) and _are_groups(cells)
    ]
    return min(groups, key=lambda cells: len(cells.counts)).column if groups else None


def _has_name_of_groups(column: str) -> bool:
    """Whether a column's name says that it names what rows are about.

    >>> names = ("patient_id", "PatientID", "user", "width", "Customer No", "number", "postcode")
    >>> [_has_name_of_groups(name) for name in names]
    [True, True, True, False, True, False, False]
    """
    return bool(_NAME_OF_GROUPS.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column).lower()))


def _are_groups(cells: DistinctCells) -> bool:
    counts = np.array([*cells.count(cells.texts()).values()])
    n_rows, n_groups = len(cells.table), len(counts)
    if n_groups < MIN_GROUPS or any(is_image(cell) or is_list(cell) for cell in cells.objects()):
        return False
    if cells.numbers is not None and (cells.numbers % 1 != 0).any():
        return False
    largest = max(counts.max(), n_rows - counts.sum())  # those without an id are one group
    n_shared = counts[counts > 1].sum()
    is_small = n_rows <= MAX_ROWS * n_groups and largest <= MAX_SHARE * n_rows
    return bool(is_small and n_shared >= MIN_SHARED * n_rows)
