"""Splitting a table into parts and folds, as a function of its rows and a seed.

Cuts that would separate a group or a time move to the nearest edge. In a stratified split, sizes
come before proportions, and that every class is in the first part comes before both.

Each row is first given the number of its part; only then are rows taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from attrs import evolve

from mip.data.array_splits import are_arrays, count_array_rows, is_dataset, take_array_rows
from mip.data.cells import as_text, parse_number
from mip.data.datasets import from_dataset
from mip.data.dates import parse_dates
from mip.data.memory import from_columns
from mip.data.parts import PARTS, part_name, part_sizes
from mip.data.rows import AnyRows, as_table
from mip.data.shards import AnyTable, RowGroup, Shards
from mip.data.table import Table, format_row_label
from mip.errors import DataError, list_first, quote
from mip.rng import derive, generator, uniform


def split(
    rows: Any,
    fractions: Sequence[float] = (),
    seed: int = 0,
    stratify: Any = None,
    group: Any = None,
    time: Any = None,
    key: Any = None,
    column: Any = None,
) -> tuple[Any, ...]:
    """Split a table, or what `as_table` makes one of, into disjoint parts that cover it: as a
    function of its rows and the seed, or into the train, valid and test that a `column` names
    (`part_name`: val, Testing, …), of which valid and test may be empty.

    Arrays, tensors, Datasets, and tuples and dicts of these, such as (x, y), come out as what they
    are (of a Dataset, `Subset`s), with the rows that a table would have. For them a column is an
    array of its cells, one for each row; for a Dataset it may have a name too.

    Sizes are exact (the largest remainders get the odd rows). At most one column can be given:

    - `stratify`: each part has the column's values in the table's proportions, to within a row
      (with more than four parts, to within two), and the first part, if its fraction is above 0,
      has every value. Values too rare to have a row there by proportion take one from the others;
      if there are more values than the first part has rows, it grows by the difference.
    - `group`: rows that share a value stay together.
    - `time`: numbers or ISO dates (UTC if they have no zone); the earliest rows are the first part,
      the latest the last. Rows of the same time stay together.
    - `key`: a row's part depends only on its key and the seed, so it stays the same when rows are
      added; with many keys, sizes are close to the fractions.

    Shards are split by `key`, or else by a random draw for each row id, so sizes are close to the
    fractions and no order of all rows is held.

    With `group` and `time`, sizes are exact if no group or time would have to be cut, and otherwise
    as close as whole ones allow. Raises DataError for fractions that do not add up to 1, for two
    such columns or fractions beside `column`, for a time that is missing or neither a number nor a
    date, and for a `column` that names something else, or nothing for train.

    >>> import pandas as pd
    >>> from mip.data import from_frame
    >>> rows = from_frame(pd.DataFrame({"x": range(10), "sold": range(2010, 2000, -1)}))
    >>> [len(part) for part in split(rows, (0.7, 0.15, 0.15), seed=0)]
    [7, 2, 1]
    >>> [part.texts("sold").max() for part in split(rows, (0.5, 0.5), time="sold")]
    ['2005', '2010']
    >>> rows = from_frame(pd.DataFrame({"x": range(3), "part": ["train", "val", "train"]}))
    >>> [len(part) for part in split(rows, column="part")]
    [2, 1, 0]
    >>> x, y = np.arange(12).reshape(6, 2), np.array([0, 1, 0, 1, 0, 1])
    >>> train, valid = split((x, y), (2 / 3, 1 / 3), stratify=y)
    >>> train[0].shape, valid[1]
    ((4, 2), array([1, 0]))
    """
    columns = {"stratify": stratify, "group": group, "time": time, "key": key, "column": column}
    _check_exclusive("split", **columns)
    if are_arrays(rows):
        return _split_arrays(rows, fractions, seed, columns)
    for name, cells in columns.items():
        if not isinstance(cells, str | None):
            raise DataError(f"split: {name} is the name of a column, not {type(cells).__name__}")
    return _split_table(as_table(rows), fractions, seed, stratify, group, time, key, column)


def _split_table(
    table: AnyTable,
    fractions: Sequence[float],
    seed: int,
    stratify: str | None,
    group: str | None,
    time: str | None,
    key: str | None,
    column: str | None,
) -> tuple[AnyTable, ...]:
    if column is not None:
        _check_exclusive("split", fractions=fractions or None, column=column)
        return _split_by_names(table, column)
    if not (min(fractions, default=-1) >= 0 and abs(sum(fractions) - 1) <= 1e-6):
        raise DataError(f"split: the fractions {list(fractions)} must add up to 1")
    if isinstance(table, Shards):
        in_memory = {"stratify": stratify, "group": group, "time": time}
        for option in (name for name, column in in_memory.items() if column is not None):
            raise DataError(
                f"split: shards are split by fractions or a key; '{option}' needs mip.read"
            )
        return _split_shards(table, fractions, seed, key)
    order = _random_order(len(table), "split", seed)
    if key is not None:
        parts = _parts_by_key(table.texts(key), fractions, seed)
    elif time is not None:
        parts = _cut_between(_time_ranks(table, time), fractions)
    elif group is not None:
        parts = _cut_between(_shuffled_codes(table.texts(group), order), fractions)
    elif stratify is not None:
        parts = _stratify(_shuffled_codes(table.texts(stratify), order), fractions, order)
    else:
        parts = _assign(order, part_sizes(fractions, len(table)))
    return tuple(table.take(np.flatnonzero(parts == k)) for k in range(len(fractions)))


def _split_arrays(
    rows: Any, fractions: Sequence[float], seed: int, columns: Mapping[str, Any]
) -> tuple[Any, ...]:
    # By way of a table, so that the same rows are in a part whatever holds them.
    given = {name: cells for name, cells in columns.items() if cells is not None}
    if is_dataset(rows) and any(isinstance(cells, str) for cells in given.values()):
        table, names = from_dataset(rows), given
    else:
        numbers = {"row": np.arange(count_array_rows(rows))}
        for name, cells in given.items():
            if isinstance(cells, str) or not hasattr(cells, "__len__"):
                raise DataError(f"split: {name} of arrays is an array, one cell for each row")
            if len(cells) != len(numbers["row"]):
                raise DataError(f"split: {len(cells)} cells of {name}, {len(numbers['row'])} rows")
            given[name] = cells.cpu().numpy() if isinstance(cells, torch.Tensor) else cells
        table, names = from_columns({**numbers, **given}), {name: name for name in given}
    parts = split(table, fractions, seed, **names)
    return tuple(take_array_rows(rows, np.asarray(part.row_ids)) for part in parts)


def folds(
    rows: AnyRows,
    k: int = 5,
    repeats: int = 1,
    seed: int = 0,
    stratify: str | None = None,
    group: str | None = None,
) -> Table:
    """Add a column of folds per repeat, `fold_0`, `fold_1`, …: int64 from 0 to k - 1.

    Sizes differ by at most one, and so do the counts of each value of `stratify`. With `group`,
    rows that share a value stay together, and groups are dealt from the largest on, each to the
    smallest fold. `crossval` reads such a column. Raises DataError if k is less than 2 or more than
    there are rows (or groups), if both stratify and group are given, and if the table already has
    such a column.

    >>> import pandas as pd
    >>> from mip.data import from_frame
    >>> rows = folds(from_frame(pd.DataFrame({"x": range(6)})), k=3, repeats=2)
    >>> rows.columns, sorted(rows.texts("fold_1"))
    (['x', 'fold_0', 'fold_1'], ['0', '0', '1', '1', '2', '2'])

    Written with its index, the frame is a file of folds:

    >>> print(rows.take([0]).frame[["fold_0"]].rename_axis("row").to_csv().split()[0])
    row,fold_0
    """
    table = as_table(rows)
    if isinstance(table, Shards):
        raise DataError("folds: shards must be read into memory: mip.read")
    _check_exclusive("folds", stratify=stratify, group=group)
    column = group or stratify
    texts = table.texts(column) if column else np.full(len(table), "")
    units, n_units = ("groups", len(set(texts))) if group else ("rows", len(table))
    if not 2 <= k <= n_units:
        raise DataError(f"folds: k = {k} must be from 2 to the {n_units} {units} of {table.name}")
    columns: dict[str, np.ndarray] = {}
    for repeat in range(repeats):
        order = _random_order(len(table), "folds", seed, repeat)
        codes = _shuffled_codes(texts, order)
        columns[f"fold_{repeat}"] = _deal_groups(codes, k) if group else _deal_rows(codes, order, k)
    for duplicate in columns.keys() & set(table.columns):
        raise DataError(f"folds: {table.name} already has a column '{duplicate}'")
    return evolve(table, frame=table.frame.assign(**columns))


def _check_exclusive(caller: str, **columns: object) -> None:
    names = [name for name, column in columns.items() if column is not None]
    if len(names) > 1:
        raise DataError(f"{caller}: {names[0]} and {names[1]} exclude each other")


def _random_order(n_rows: int, *seeds: int | str) -> np.ndarray:
    return torch.randperm(n_rows, generator=generator(*seeds)).numpy()


def _shuffled_codes(texts: np.ndarray, order: np.ndarray) -> np.ndarray:
    # Code each text by when it first appears in the random order.
    _, first, codes = np.unique(texts[order], return_index=True, return_inverse=True)
    shuffled = np.empty(len(order), dtype=np.int64)
    shuffled[order] = np.argsort(np.argsort(first))[codes]
    return shuffled


def _assign(order: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    # Sizes are int64 [parts], or [classes, parts] if the order has one class after another.
    parts = np.empty(len(order), dtype=np.int64)
    parts[order] = np.repeat(np.resize(np.arange(sizes.shape[-1]), sizes.size), sizes.ravel())
    return parts


def _cut_between(ranks: np.ndarray, fractions: Sequence[float]) -> np.ndarray:
    # A cut that would separate rows of equal rank moves to the nearest edge between two ranks.
    order = np.argsort(ranks, kind="stable")
    edges = np.append(np.flatnonzero(np.diff(ranks[order], prepend=-1)), len(ranks))
    cuts = np.cumsum(part_sizes(fractions, len(ranks)))
    cuts = edges[np.abs(edges[:, None] - cuts).argmin(axis=0)]
    return _assign(order, np.diff(cuts, prepend=0))


def _stratify(codes: np.ndarray, fractions: Sequence[float], order: np.ndarray) -> np.ndarray:
    counts = np.bincount(codes)
    sizes = _class_sizes(counts, fractions)
    if fractions[0] > 0:
        # Every class must have a row in the first part. A class without one moves a row there, and
        # the class with the largest share there moves one back.
        for row in np.flatnonzero(sizes[:, 0] == 0):
            part = sizes[row].argmax()
            sizes[row, [0, part]] += 1, -1
            share = np.where(sizes[:, 0] > 1, sizes[:, 0] / counts, 0)
            if share.any():
                sizes[share.argmax(), [0, part]] += -1, 1
    return _assign(order[np.argsort(codes[order], kind="stable")], sizes)


def _class_sizes(counts: np.ndarray, fractions: Sequence[float]) -> np.ndarray:
    """Round counts × fractions up or down to int64 [classes, parts], so that the sums by class are
    the counts and the sums by part are rounded too.
    """
    shares = np.outer(counts, fractions)
    floors = np.floor(shares + 1e-9).astype(np.int64)
    extra = np.zeros_like(floors)
    for row, count in enumerate(counts):
        extra[row] = part_sizes(fractions, count) - floors[row]
    fractional = shares - floors > 1e-9
    surplus = part_sizes(fractions, int(counts.sum())) - (floors + extra).sum(axis=0)
    while surplus.any():
        source, target = int(surplus.argmin()), int(surplus.argmax())
        if not _move_extra(extra, fractional, source, target, {source}):
            # With five parts or more there may be no such way: sizes come before proportions.
            row = int(extra[:, source].argmax())
            extra[row, source] = 0
            floors[row, target] += 1
        surplus[[source, target]] += 1, -1
    return floors + extra


def _move_extra(
    extra: np.ndarray, fractional: np.ndarray, source: int, target: int, seen: set[int]
) -> bool:
    # Move a class's extra row from part to part, if necessary by way of others (Kuhn 1955).
    for part in set(range(extra.shape[1])) - seen:
        movable = np.flatnonzero(fractional[:, part] & (extra[:, source] > extra[:, part]))
        if len(movable) and (
            part == target or _move_extra(extra, fractional, part, target, seen | {part})
        ):
            extra[movable[0], [source, part]] = 0, 1
            return True
    return False


def _parts_by_key(keys: np.ndarray, fractions: Sequence[float], seed: int) -> np.ndarray:
    draws = {key: (derive("split", seed, key) >> 10) / 2**53 for key in set(keys)}
    ends = np.cumsum(fractions)[:-1]
    return np.searchsorted(ends, [draws[key] for key in keys], side="right")


def _split_by_names(table: AnyTable, column: str) -> tuple[AnyTable, ...]:
    words = {word for chunk in table.chunks([column]) for word in chunk.texts(column)}
    numbers = {word: PARTS.index(name) for word in words if (name := part_name(word))}
    if unknown := sorted(words - numbers.keys()):
        names = list_first(unknown, 5, quote)
        raise DataError(
            f"{table.name}: column '{column}' must say train, valid or test, not {names}"
        )
    if PARTS.index("train") not in numbers.values():
        raise DataError(f"{table.name}: column '{column}' says train in no row")
    part_of = lambda texts: np.array([numbers[word] for word in texts])  # noqa: E731
    if isinstance(table, Shards):
        return table.divide(lambda group: part_of(_texts_of(table, group, column)), len(PARTS))
    parts = part_of(table.texts(column))
    return tuple(table.take(np.flatnonzero(parts == k)) for k in range(len(PARTS)))


def _split_shards(
    shards: Shards, fractions: Sequence[float], seed: int, key: str | None
) -> tuple[Shards, ...]:
    # The number of rows is part of the seed, so that a part can be split again under the same seed.
    ends, seed_of_rows = np.cumsum(fractions)[:-1], derive("split", seed, len(shards))

    def part_of(group: RowGroup) -> np.ndarray:
        if key is not None:
            return _parts_by_key(_texts_of(shards, group, key), fractions, seed)
        draws = uniform(seed_of_rows, torch.from_numpy(group.row_ids()), 1)[:, 0]
        return np.searchsorted(ends, draws.numpy(), side="right")

    return shards.divide(part_of, len(fractions))


def _texts_of(shards: Shards, group: RowGroup, column: str) -> np.ndarray:
    return np.concatenate([chunk.texts(column) for chunk in shards.chunks_of(group, [column])])


def _time_ranks(table: Table, column: str) -> np.ndarray:
    # Ranks from 0, equal for equal times; the cells are numbers or dates, whichever more of them
    # can be read as.
    texts = table.texts(column)
    numbers = np.array([parse_number(text) for text in texts], dtype=np.float64)
    times = min((numbers, parse_dates(texts.tolist())), key=lambda read: np.isnan(read).sum())
    for position in np.flatnonzero(np.isnan(times))[:1].tolist():
        text = texts[position]
        reason = (
            f"{quote(text)} is neither a number nor an ISO date" if text else "no time is given"
        )
        raise DataError(f"{table.cell_name(position, column)}: {reason}")
    return np.unique(times, return_inverse=True)[1]


def _deal_rows(codes: np.ndarray, order: np.ndarray, k: int) -> np.ndarray:
    # Dealt one by one, class after class, so that neither folds nor their classes differ by more
    # than one row.
    fold = np.empty(len(order), dtype=np.int64)
    fold[order[np.argsort(codes[order], kind="stable")]] = np.arange(len(order)) % k
    return fold


def _deal_groups(codes: np.ndarray, k: int) -> np.ndarray:
    counts, sizes = np.bincount(codes), np.zeros(k, dtype=np.int64)
    fold = np.empty(len(counts), dtype=np.int64)
    for group in np.argsort(-counts, kind="stable"):
        fold[group] = sizes.argmin()
        sizes[fold[group]] += counts[group]
    return fold[codes]


def with_folds(table: Table, folds: Table, column: str = "fold") -> Table:
    """Add a column of a folds file, whose column `row` holds the labels of the table's rows; for a
    table that was read from a file these are row ids.

    Raises DataError if a row of the table has no fold, or two.
    """
    labels, rows = table.index.tolist(), folds.texts("row").tolist()
    if table.index.dtype.kind in "iu":
        numbers = folds.numbers("row")
        for position in np.flatnonzero(np.isnan(numbers) | (numbers % 1 != 0))[:1].tolist():
            raise DataError(f"{folds.cell_name(position, 'row')}: not the number of a row")
        rows = numbers.astype(np.int64).tolist()
    else:
        labels = [*map(as_text, labels)]
    if len(set(rows)) != len(rows):
        raise DataError(f"{folds.name}: duplicate row in column 'row'")
    fold = {row: name for row, name in zip(rows, folds.texts(column), strict=True) if name}
    for row in labels:
        if row not in fold:
            raise DataError(
                f"{folds.name}: no fold for row {format_row_label(row)} of {table.name}"
            )
    return evolve(table, frame=table.frame.assign(**{column: [fold[row] for row in labels]}))
