"""Which rows can be used, and what is wrong with the others."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from attrs import frozen
from toolz import groupby

from mip.branches import (
    FindsConversions,
    FindsProblems,
    branch_columns,
    having,
    missing_policy,
    path_in_spec,
    problems,
)
from mip.data import AnyTable, Rows, Table, TableLike, format_row_label
from mip.errors import DataError, MipWarning, list_first
from mip.heads import column_heads
from mip.model.columns import check_columns, columns_of, table_of, target_columns
from mip.model.lost_photos import check_most_found
from mip.spec import Spec

Labels = dict[str, list[Any]]
"""The labels of rows by what they have in common. The label of a row from a file is its number."""

DROP_WARNING = 0.1
"""Dropping more than this share of the rows is worth a warning."""


@frozen
class Report:
    """What cleaning did: the number of rows before, and by reason the labels of the rows that it
    dropped (`dropped`) or kept with a learned vector for what is missing (`filled`).
    """

    n_rows: int
    dropped: Labels
    filled: Labels

    def __str__(self) -> str:
        parts = [f"{self.n_rows} rows, {self.n_rows - self.n_dropped} used"]
        for what, rows in (("dropped", self.dropped), ("filled", self.filled)):
            parts += [f"{what}, {summarize_rows(reason, rows[reason])}" for reason in rows]
        return "; ".join(parts)

    @property
    def n_dropped(self) -> int:
        """The number of rows that were dropped."""
        return sum(map(len, self.dropped.values()))


def summarize_rows(reason: str, labels: Sequence[Any]) -> str:
    """Summarize the rows for which a reason holds: how many, and the labels of the first three.

    >>> summarize_rows("target 'price' missing", [4, 7, 9, 12])
    "target 'price' missing: 4 rows (4, 7, 9, …)"
    """
    listed = list_first(labels, 3, format_row_label)
    return f"{reason}: {len(labels)} row{'s' * (len(labels) > 1)} ({listed})"


def clean(spec: Spec, rows: AnyTable | TableLike) -> tuple[AnyTable, Report]:
    """Drop the rows that cannot be used, following the policies of the spec.

    A row without a target is dropped (`head.missing = "drop"`) or an error, whatever else is wrong
    with it. A row in which a branch finds a problem, such as a missing photo, is dropped, an error,
    or kept for its learned vector (`branch.*.missing`). Each path is looked up once, here. Warns
    with MipWarning when more than a tenth of the rows are dropped.
    """
    table: AnyTable = table_of(spec, rows)
    check_columns(spec, table)
    try:
        findings = _unusable(spec, table)
    except DataError:
        check_most_found(spec, table)  # says more than the first photo of all that are lost
        raise
    kept = table.without([finding.row_id for finding in findings]) if findings else table
    report = Report(len(table), _by_reason(findings), filled_rows(spec, kept))
    if report.dropped or report.filled:
        check_most_found(spec, table)
    for reason, labels in report.filled.items():
        if len(labels) == len(kept):
            warnings.warn(f"{table.name}: {reason} in every row", MipWarning, stacklevel=2)
    if len(findings) == len(table):
        raise DataError(f"{table.name}: no row is left ({report})")
    if len(findings) > DROP_WARNING * len(table):
        warnings.warn(f"{table.name}: {report}", MipWarning, stacklevel=2)
    return kept, report


def _unusable(spec: Spec, table: Rows) -> list[_Finding]:
    screens, findings = _screens(spec, keep=False), list[_Finding]()
    for chunk in table.chunks([*target_columns(spec), *_columns(screens)]):
        reasons = _target_reasons(spec, chunk)
        rest = chunk.take([row for row in range(len(chunk)) if row not in reasons])
        findings += _findings(chunk, reasons.items())
        findings += _findings(rest, dict(_problem_reasons(screens, rest)).items())
    return findings


def filled_rows(spec: Spec, table: Rows) -> Labels:
    """Return, by reason, the rows that are kept although a branch finds a problem in them: those
    that lack a photo and get a learned vector in its place.
    """
    screens = _screens(spec, keep=True)
    chunks = table.chunks(_columns(screens)) if screens else ()
    findings = (_findings(chunk, _problem_reasons(screens, chunk)) for chunk in chunks)
    return _by_reason(chain.from_iterable(findings))


def conversions(spec: Spec, table: Rows, photos: bool = True) -> Labels:
    """Return, by what it is, the rows with something that is not read exactly as it is stored: a
    number or a date that counts as missing, a photo that is turned, converted or cut to its first
    frame.

    Reads the header of every photo, unless `photos` is False.
    """
    every = [branch for _, branch in having(spec.root, FindsConversions)]
    branches = [branch for branch in every if photos or not isinstance(branch, FindsProblems)]
    findings = (
        _findings(chunk, branch.conversions(chunk))
        for chunk in table.chunks(columns_of(spec))
        for branch in branches
    )
    return _by_reason(chain.from_iterable(findings))


class _Finding(NamedTuple):
    row_id: int
    label: Any
    reason: str


def _findings(chunk: Table, reasons: Iterable[tuple[int, str]]) -> list[_Finding]:
    pairs = list(reasons)
    rows = [row for row, _ in pairs]
    row_ids, labels = chunk.row_ids[rows].tolist(), chunk.index[rows].tolist()
    return list(map(_Finding, row_ids, labels, [reason for _, reason in pairs]))


def _by_reason(findings: Iterable[_Finding]) -> Labels:
    groups = groupby(attrgetter("reason"), sorted(set(findings), key=attrgetter("row_id")))
    return {reason: [row.label for row in rows] for reason, rows in sorted(groups.items())}


def _screens(spec: Spec, keep: bool) -> list[tuple[str, FindsProblems]]:
    """Return the branches that screen rows, with their paths: those that keep, or not, the rows in
    which they find a problem.
    """
    screens = having(spec.root, FindsProblems)
    return [
        (path, branch)
        for path, branch in screens
        if (missing_policy(branch) not in ("error", "drop")) == keep
    ]


def _columns(screens: Iterable[tuple[str, FindsProblems]]) -> list[str]:
    return [column for _, branch in screens for column in branch_columns(branch)]


def _problem_reasons(
    screens: Iterable[tuple[str, FindsProblems]], table: Table
) -> Iterator[tuple[int, str]]:
    for path, branch in screens:
        for row, column, reason, summary in problems(branch, table):
            if missing_policy(branch) == "error":
                cure = "leave the row out"
                if hasattr(branch, "missing"):
                    cure += f', or train with {path_in_spec(path)}.missing = "drop" or "learn"'
                raise DataError(f"{table.cell_name(row, column)}: {reason} ({cure})")
            yield row, f"{summary or reason} in '{column}'"


def _target_reasons(spec: Spec, table: Table) -> dict[int, str]:
    reasons: dict[int, str] = {}
    for _, head in column_heads(spec.head):
        empty = np.flatnonzero(~head.known(table)).tolist()
        if empty and head.missing == "error":
            raise DataError(f"{table.cell_name(empty[0], head.column)}: the target is missing")
        reasons |= dict.fromkeys(empty, f"target '{head.column}' missing")
        with suppress(DataError):  # of words, which are never too large
            overflow = set(table.overflow_rows(head.column).tolist()) & set(empty)
            reasons |= dict.fromkeys(overflow, f"target '{head.column}' infinite or beyond float32")
    return reasons
