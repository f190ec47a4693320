"""Between spec and plan: which rows can be used, and which of them train."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from attrs import frozen
from toolz import groupby

from mip.branches import (
    FindsOddities,
    FindsProblems,
    having,
    path_in_spec,
    policy,
    problems,
    walk,
)
from mip.data import (
    AnyTable,
    Rows,
    Shards,
    Table,
    digest_texts,
    format_label,
    read,
    split,
    split_by,
    with_folds,
)
from mip.errors import DataError, MipWarning, SpecError, hint
from mip.heads import column_heads
from mip.spec import Spec

R = TypeVar("R", bound=Rows)


Found = tuple[int, Any, str]
"""What was found of a row: its number, its label, and the text."""


STRICT = ("error", "drop")
"""The policies under which a row that a branch finds a problem in cannot be used."""


DROP_WARNING = 0.1
"""Dropping more than this share of the rows is worth a warning."""


@frozen
class Report:
    """What cleaning did: rows before, and by reason the labels of the rows it left out
    (`dropped`) or kept with a learned vector for what is missing (`filled`). The label of a row
    that was read from a file is its number.
    """

    rows: int
    dropped: dict[str, list[Any]]
    filled: dict[str, list[Any]]

    def __str__(self) -> str:
        parts = [f"{self.rows} rows, {self.rows - self.lost} used"]
        parts += [f"dropped, {told(reason, rows)}" for reason, rows in self.dropped.items()]
        parts += [f"learned, {told(reason, rows)}" for reason, rows in self.filled.items()]
        return "; ".join(parts)

    @property
    def lost(self) -> int:
        """How many rows were left out."""
        return sum(map(len, self.dropped.values()))


def told(reason: str, rows: Sequence[Any]) -> str:
    """Say a reason with how many rows it holds for, and which they are by their labels.

    >>> told("target 'price' missing", [4, 7, 9, 12])
    "target 'price' missing: 4 rows (4, 7, 9, …)"
    """
    named = ", ".join(map(format_label, rows[:3])) + (", …" if len(rows) > 3 else "")
    return f"{reason}: {len(rows)} row{'s' * (len(rows) > 1)} ({named})"


def clean(spec: Spec, table: R) -> tuple[R, Report]:
    """Leave out the rows that cannot be used, by the policies of the spec.

    A row without a target goes (`head.missing = "drop"`) or is an error; a row that a branch finds
    a problem in, such as a photo that is absent, is an error, goes, or is kept for its learned
    vector (`branch.*.missing`). Each path is looked at once, here. Warns with MipWarning when more
    than a tenth of the rows go.
    """
    check_columns(spec, table)
    strict, gone = _screening(spec, strict=True), list[Found]()
    for chunk in table.chunks([*target_columns(spec), *_read_by(strict)]):
        reasons = {**dict(_problems(strict, chunk)), **_target_reasons(spec, chunk)}
        gone += _labelled(chunk, reasons.items())
    return _without(table, gone, learned(spec, table))


def learned(spec: Spec, table: Rows) -> dict[str, list[Any]]:
    """Give, by reason, the labels of the rows that are kept although a branch finds a problem in
    them: those that lack a photo and get a learned vector in its place.
    """
    kept = _screening(spec, strict=False)
    chunks = table.chunks(_read_by(kept)) if kept else ()
    found = (_labelled(chunk, _problems(kept, chunk)) for chunk in chunks)
    return _by_reason(chain.from_iterable(found))


def oddities(spec: Spec, table: Rows, photos: bool = True) -> dict[str, list[Any]]:
    """Give, by what it is, the labels of the rows with something that is not read as it stands: a
    number or a date that counts as missing, a photo that is turned, converted or cut to its first
    frame.

    Every photo's header is read, unless `photos` are to be left out.
    """
    every = [branch for _, branch in having(spec.root, FindsOddities)]
    branches = [branch for branch in every if photos or not isinstance(branch, FindsProblems)]
    found = (
        _labelled(chunk, branch.oddities(chunk))
        for chunk in table.chunks(columns_of(spec))
        for branch in branches
    )
    return _by_reason(chain.from_iterable(found))


def _labelled(chunk: Table, found: Iterable[tuple[int, str]]) -> list[Found]:
    pairs = list(found)
    places = [place for place, _ in pairs]
    numbers, labels = chunk.row_ids[places].tolist(), chunk.index[places].tolist()
    texts = [text for _, text in pairs]
    return list(zip(numbers, labels, texts, strict=True))


def _screening(spec: Spec, strict: bool) -> list[tuple[str, FindsProblems]]:
    asked = having(spec.root, FindsProblems)
    return [(path, each) for path, each in asked if (policy(each) in STRICT) == strict]


def _read_by(branches: Iterable[tuple[str, FindsProblems]]) -> list[str]:
    return [column for _, branch in branches for column in _columns(branch)]


def _problems(
    screens: Iterable[tuple[str, FindsProblems]], table: Table
) -> Iterator[tuple[int, str]]:
    for path, branch in screens:
        for row, column, reason, summary in problems(branch, table):
            if policy(branch) == "error":
                cure = "leave the row out of the table"
                if hasattr(branch, "missing"):
                    cure = f'set {path_in_spec(path)}.missing to "drop" or "learn"'
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
            far = set(table.overflow_rows(head.column).tolist()) & set(empty)
            reasons |= dict.fromkeys(far, f"target '{head.column}' infinite or past float32")
    return reasons


def _without(table: R, gone: list[Found], filled: dict[str, list[Any]]) -> tuple[R, Report]:
    report = Report(len(table), _by_reason(gone), filled)
    for reason, rows in filled.items():
        if len(rows) == len(table):
            warnings.warn(f"{table.name}: {reason} in every row", MipWarning, stacklevel=3)
    if len(gone) == len(table):
        raise DataError(f"{table.name}: no row is left ({report})")
    if len(gone) > DROP_WARNING * len(table):
        warnings.warn(f"{table.name}: {report}", MipWarning, stacklevel=3)
    return table.without([row for row, _, _ in gone]) if gone else table, report


def _by_reason(found: Iterable[Found]) -> dict[str, list[Any]]:
    groups = groupby(itemgetter(2), sorted(set(found), key=itemgetter(0)))
    return {why: [name for _, name, _ in rows] for why, rows in sorted(groups.items())}


def check_columns(spec: Spec, table: Rows, target: bool = True) -> None:
    """Raise SpecError for a column that the spec names and the table lacks, and for a target
    that a branch reads.
    """
    heads = column_heads(spec.head) if target else ()
    names = [(f"{path}.column = '{head.column}'", head.column) for path, head in heads]
    for path, branch in walk(spec.root):
        for column in _columns(branch):
            names.append((f"{path_in_spec(path)}.columns: '{column}'", column))
            if column in target_columns(spec):
                raise SpecError(f"{path_in_spec(path)}.columns: '{column}' is the target")
    for where, column in names:
        if column not in table.columns:
            known = hint(column, table.columns)
            raise SpecError(f"{where} is not a column of {table.name}{known}")


def _columns(branch: Any) -> tuple[str, ...]:
    own = getattr(branch, "column", None)
    return getattr(branch, "columns", (own,) if own else ())


def columns_of(spec: Spec) -> list[str]:
    """Name the columns that a spec reads, the target among them, sorted."""
    read = (column for _, leaf in walk(spec.root) for column in _columns(leaf))
    return sorted({*target_columns(spec), *read})


def target_columns(spec: Spec) -> list[str]:
    """Name the columns that a spec predicts, in the order of its heads."""
    return [head.column for _, head in column_heads(spec.head)]


def fingerprint(spec: Spec, table: Rows) -> str:
    """Give a SHA-256 of what a spec reads of these rows, to tell whether they are the same."""
    return digest_texts(table.digest(columns_of(spec)).items())


class Parts(NamedTuple, Generic[AnyTable]):
    """The rows that train, choose and test."""

    train: AnyTable
    valid: AnyTable
    test: AnyTable


def parts(spec: Spec, table: AnyTable, base: str | Path = ".") -> Parts[AnyTable]:
    """Split a table as `data.split` says; files are found relative to `base`."""
    how = spec.data.split
    if how.folds:
        if isinstance(table, Shards):
            raise SpecError("data.split.folds needs a table in memory; leave out data.stream")
        return _by_fold(spec, with_folds(table, read(Path(base) / how.folds), _fold_column(spec)))
    if how.column:
        named = split_by(table, how.column)
        strange = sorted(named.keys() - set(Parts._fields))
        if strange or "train" not in named:
            found = ", ".join(sorted(named))
            raise DataError(
                f"{table.name}: column '{how.column}' must say train, valid or test, not {found}"
            )
        none = split(table, (0.0, 1.0))[0]
        return Parts(*(named.get(name, none) for name in Parts._fields))
    columns = how.stratify, how.group, how.time, how.key
    return Parts(*split(table, how.fractions, how.seed, *columns))


def _fold_column(spec: Spec) -> str:
    return spec.data.split.column or "fold"


def _by_fold(spec: Spec, table: Table) -> Parts[Table]:
    how, words = spec.data.split, table.texts(_fold_column(spec))
    for name in ("test", "valid"):
        fold = getattr(how, name)
        if fold is not None and str(fold) not in words:
            raise SpecError(
                f"data.split.{name} = {fold} is not a fold{hint(str(fold), set(words))}"
            )
    test, valid = words == str(how.test), words == str(how.valid)
    return Parts(*(table.take(np.flatnonzero(part)) for part in (~(test | valid), valid, test)))
