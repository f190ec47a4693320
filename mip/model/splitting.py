"""Which rows train, choose and test."""

from __future__ import annotations

from pathlib import Path
from typing import Generic, NamedTuple

import numpy as np

from mip.data import AnyTable, Shards, Table, read, split, with_folds
from mip.errors import SpecError, hint
from mip.spec import Spec


class Parts(NamedTuple, Generic[AnyTable]):
    """The rows that train, choose and test."""

    train: AnyTable
    valid: AnyTable
    test: AnyTable


def parts(spec: Spec, table: AnyTable, base: str | Path = ".") -> Parts[AnyTable]:
    """Split a table as `data.split` says; paths of files are relative to `base`."""
    config = spec.data.split
    if config.folds:
        if isinstance(table, Shards):
            raise SpecError("data.split.folds needs a table in memory; leave out data.stream")
        return _by_fold(spec, table, read(Path(base) / config.folds))
    return Parts(
        *split(
            table,
            () if config.column else config.fractions,
            config.seed,
            stratify=config.stratify,
            group=config.group,
            time=config.time,
            key=config.key,
            column=config.column,
        )
    )


def _by_fold(spec: Spec, table: Table, folds: Table) -> Parts[Table]:
    config, column = spec.data.split, spec.data.split.column or "fold"
    table = with_folds(table, folds, column)
    names = table.texts(column)
    for part in ("test", "valid"):
        fold = getattr(config, part)
        if fold is not None and str(fold) not in names:
            known = hint(str(fold), set(names))
            raise SpecError(f"data.split.{part} = {fold} is not a fold{known}")
    test, valid = names == str(config.test), names == str(config.valid)
    return Parts(*(table.take(np.flatnonzero(rows)) for rows in (~(test | valid), valid, test)))
