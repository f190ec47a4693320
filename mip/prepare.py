"""Between spec and plan: which rows can be used, and which of them train."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from attrs import frozen

from mip.branch import Image, walk
from mip.errors import DataError, MipWarning, SpecError, hint
from mip.spec import Spec
from mip.table import Table, read, split, split_by, with_folds

DROP_WARNING = 0.1
"""Dropping more than this share of the rows is worth a warning."""


@frozen
class Report:
    """What cleaning did: rows before, rows left out by reason, cells filled by reason."""

    rows: int
    dropped: dict[str, int]
    filled: dict[str, int]

    def __str__(self) -> str:
        lost = sum(self.dropped.values())
        parts = [f"{self.rows} rows, {self.rows - lost} used"]
        parts += [f"{count} dropped: {reason}" for reason, count in self.dropped.items()]
        parts += [f"{count} learned: {reason}" for reason, count in self.filled.items()]
        return "; ".join(parts)


def clean(spec: Spec, table: Table) -> tuple[Table, Report]:
    """Leave out the rows that cannot be used, by the policies of the spec.

    A row without a target goes (`head.missing = "drop"`) or is an error; a row whose photo is
    absent is an error, goes, or is kept for its learned vector (`branch.*.missing`). Each path
    is looked at once, here. Warns with MipWarning when more than a tenth of the rows go.
    """
    check_columns(spec, table)
    reasons = _target_reasons(spec, table)
    filled: Counter[str] = Counter()
    photos = [(path, kind) for path, kind in walk(spec.root) if isinstance(kind, Image)]
    for path, branch in photos:
        for place, column, reason in branch.problems(table):
            kind = f"{_image_state(reason)} image in '{column}'"
            if branch.missing == "error":
                cure = f'set branch.{path}.missing to "drop" or "learn"'
                raise DataError(f"{table.where(place, column)}: {reason} ({cure})")
            if branch.missing == "drop":
                reasons.setdefault(place, kind)
            else:
                filled[kind] += 1
    return _without(table, reasons, filled)


def _image_state(reason: str) -> str:
    return "missing" if reason.endswith(("is missing", "is named")) else "broken"


def _target_reasons(spec: Spec, table: Table) -> dict[int, str]:
    column = spec.head.column
    empty = np.flatnonzero(table.texts(column) == "")
    if hasattr(spec.head, "scale"):
        empty = np.flatnonzero(np.isnan(table.numbers(column)))
    if len(empty) and spec.head.missing == "error":
        raise DataError(f"{table.where(int(empty[0]), column)}: the target is missing")
    return {int(place): f"target '{column}' missing" for place in empty}


def _without(table: Table, reasons: dict[int, str], filled: Counter[str]) -> tuple[Table, Report]:
    dropped = dict(sorted(Counter(reasons.values()).items()))
    report = Report(len(table), dropped, dict(sorted(filled.items())))
    kept = np.setdiff1d(np.arange(len(table)), list(reasons))
    if not len(kept):
        raise DataError(f"{table.name}: no row is left ({report})")
    if len(reasons) > DROP_WARNING * len(table):
        warnings.warn(f"{table.name}: {report}", MipWarning, stacklevel=3)
    return table.take(kept), report


def check_columns(spec: Spec, table: Table, target: bool = True) -> None:
    """Raise SpecError for a column that the spec names and the table lacks, and for a target
    that a branch reads.
    """
    names = [(f"head.column = '{spec.head.column}'", spec.head.column)] if target else []
    for path, branch in walk(spec.root):
        for column in _columns(branch):
            names.append((f"branch.{path}.columns: '{column}'", column))
            if column == spec.head.column:
                raise SpecError(f"branch.{path}.columns: '{column}' is the target")
    for where, column in names:
        if column not in table.columns:
            known = hint(column, table.columns)
            raise SpecError(f"{where} is not a column of {table.name}{known}")


def _columns(branch: Any) -> tuple[str, ...]:
    own = getattr(branch, "column", None)
    return getattr(branch, "columns", (own,) if own else ())


class Parts(NamedTuple):
    """The rows that train, choose and test."""

    train: Table
    valid: Table
    test: Table


def parts(spec: Spec, table: Table, base: str | Path = ".") -> Parts:
    """Split a table as `data.split` says; files are found relative to `base`."""
    how = spec.data.split
    if how.folds:
        return _by_fold(spec, with_folds(table, read(Path(base) / how.folds), _fold_column(spec)))
    if how.column:
        named = split_by(table, how.column)
        strange = sorted(named.keys() - set(Parts._fields))
        if strange or "train" not in named:
            found = ", ".join(sorted(named))
            raise DataError(
                f"{table.name}: column '{how.column}' must say train, valid or test, not {found}"
            )
        return Parts(*(named.get(name, table.take([])) for name in Parts._fields))
    return Parts(*split(table, how.fractions, how.seed, how.stratify, how.group))


def _fold_column(spec: Spec) -> str:
    return spec.data.split.column or "fold"


def _by_fold(spec: Spec, table: Table) -> Parts:
    how, words = spec.data.split, table.texts(_fold_column(spec))
    for name in ("test", "valid"):
        fold = getattr(how, name)
        if fold is not None and str(fold) not in words:
            raise SpecError(
                f"data.split.{name} = {fold} is not a fold{hint(str(fold), set(words))}"
            )
    test, valid = words == str(how.test), words == str(how.valid)
    return Parts(*(table.take(np.flatnonzero(part)) for part in (~(test | valid), valid, test)))
