"""Splits: parts and folds of a table, a function of its rows and a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from attrs import evolve

from mip.data.cells import dates, number, word
from mip.data.shards import AnyTable, Group, Shards
from mip.data.table import Table, label
from mip.errors import DataError, shown
from mip.rng import derive, generator, uniform


def split(
    table: AnyTable,
    fractions: Sequence[float],
    seed: int = 0,
    stratify: str | None = None,
    group: str | None = None,
    time: str | None = None,
    key: str | None = None,
) -> tuple[AnyTable, ...]:
    """Cut a table into disjoint parts that cover it; a function of the rows and the seed.

    Sizes are exact (the largest remainders get the odd rows). One column may say how:

    - `stratify`: each part has the column's values in the table's proportions, to within a row
      (of more than four parts, to within two), and the first part, if its fraction is above 0, has
      each of them. Values too rare to have a row there by proportion take one from the others;
      where there are more values than the first part has rows, it is larger by so many.
    - `group`: rows that share a value stay together.
    - `time`: numbers or ISO dates (without a zone: UTC); the earliest rows are the first part,
      the latest the last. Rows of one moment stay together.
    - `key`: a row's part depends on its key and the seed alone, so that it stays where it is
      when rows are added; sizes are near the fractions where there are many keys.

    Shards are cut by `key`, or else by a draw for each row number, so that sizes are near the
    fractions and no order of all rows is held.

    With `group` and `time`, sizes are exact where no group or moment is cut, and otherwise as
    near as whole ones allow. Raises DataError for fractions that do not add up to 1, two such
    columns, and a moment that is missing or neither a number nor a date.

    >>> import pandas as pd
    >>> from mip.data.table import from_frame
    >>> rows = from_frame(pd.DataFrame({"x": range(10), "sold": range(2010, 2000, -1)}))
    >>> [len(part) for part in split(rows, (0.7, 0.15, 0.15), seed=0)]
    [7, 2, 1]
    >>> [part.texts("sold").max() for part in split(rows, (0.5, 0.5), time="sold")]
    ['2005', '2010']
    """
    if not (min(fractions, default=-1) >= 0 and abs(sum(fractions) - 1) <= 1e-6):
        raise DataError(f"split: the fractions {list(fractions)} must add up to 1")
    _one_way("split", stratify=stratify, group=group, time=time, key=key)
    if isinstance(table, Shards):
        ways = {"stratify": stratify, "group": group, "time": time}
        for way in (way for way, column in ways.items() if column is not None):
            raise DataError(f"split: shards are cut by fractions or a key; '{way}' needs mip.read")
        return _divided(table, fractions, seed, key)
    order = _shuffled(len(table), "split", seed)
    if key is not None:
        part = _hashed(table.texts(key), fractions, seed)
    elif time is not None:
        part = _unbroken(_moments(table, time), fractions)
    elif group is not None:
        part = _unbroken(_turns(table.texts(group), order), fractions)
    elif stratify is not None:
        part = _stratified(_turns(table.texts(stratify), order), fractions, order)
    else:
        part = _dealt(order, _exact_sizes(fractions, len(table)))
    return tuple(table.take(np.flatnonzero(part == k)) for k in range(len(fractions)))


def folds(
    table: Table,
    k: int = 5,
    repeats: int = 1,
    seed: int = 0,
    stratify: str | None = None,
    group: str | None = None,
) -> Table:
    """Add columns `fold_0`, `fold_1`, …, one a repeat: each row's fold, int64 from 0 to k - 1.

    Sizes differ by one at most, and so do the counts of each value of `stratify`. With `group`,
    rows that share a value stay together, and the largest groups are dealt first, each to the
    smallest fold. `crossval` reads such a column. Raises DataError when k is less than 2 or
    more than there are rows (or groups), when stratify and group are both given, and when the
    table has such a column already.

    >>> import pandas as pd
    >>> from mip.data.table import from_frame
    >>> rows = folds(from_frame(pd.DataFrame({"x": range(6)})), k=3, repeats=2)
    >>> rows.columns, sorted(rows.texts("fold_1"))
    (['x', 'fold_0', 'fold_1'], ['0', '0', '1', '1', '2', '2'])

    The frame is a file of folds when its row numbers are written with it:

    >>> print(rows.take([0]).frame[["fold_0"]].rename_axis("row").to_csv().split()[0])
    row,fold_0
    """
    if isinstance(table, Shards):
        raise DataError("folds: a table of shards must be in memory: mip.read")
    _one_way("folds", stratify=stratify, group=group)
    column = group or stratify
    words = table.texts(column) if column else np.full(len(table), "")
    things = len(set(words)) if group else len(table)
    if not 2 <= k <= things:
        what = "groups" if group else "rows"
        raise DataError(f"folds: k = {k} must be from 2 to the {things} {what} of {table.name}")
    columns: dict[str, np.ndarray] = {}
    for repeat in range(repeats):
        order = _shuffled(len(table), "folds", seed, repeat)
        turns = _turns(words, order)
        columns[f"fold_{repeat}"] = _by_group(turns, k) if group else _by_turn(turns, order, k)
    for twice in columns.keys() & set(table.columns):
        raise DataError(f"folds: {table.name} has a column '{twice}' already")
    return evolve(table, frame=table.frame.assign(**columns))


def _one_way(caller: str, **columns: str | None) -> None:
    given = [name for name, column in columns.items() if column is not None]
    if len(given) > 1:
        raise DataError(f"{caller}: {given[0]} and {given[1]} exclude each other")


def _shuffled(rows: int, *parts: int | str) -> np.ndarray:
    return torch.randperm(rows, generator=generator(*parts)).numpy()


def _turns(words: np.ndarray, order: np.ndarray) -> np.ndarray:
    # Number the words in the random order in which they first come.
    _, first, codes = np.unique(words[order], return_index=True, return_inverse=True)
    turns = np.empty(len(order), dtype=np.int64)
    turns[order] = np.argsort(np.argsort(first))[codes]
    return turns


def _dealt(order: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    # Sizes are those of the parts, int64 [parts], or of one class after another [classes, parts].
    part = np.empty(len(order), dtype=np.int64)
    part[order] = np.repeat(np.resize(np.arange(sizes.shape[-1]), sizes.size), sizes.ravel())
    return part


def _exact_sizes(fractions: Sequence[float], total: int) -> np.ndarray:
    shares = np.asarray(fractions, dtype=np.float64) * total
    sizes = np.floor(shares + 1e-9).astype(np.int64)
    odd = np.argsort(-(shares - sizes), kind="stable")[: total - sizes.sum()]
    sizes[odd] += 1
    return sizes


def _unbroken(rank: np.ndarray, fractions: Sequence[float]) -> np.ndarray:
    # Each cut goes to the nearest edge between two ranks.
    order = np.argsort(rank, kind="stable")
    edges = np.append(np.flatnonzero(np.diff(rank[order], prepend=-1)), len(rank))
    cuts = np.cumsum(_exact_sizes(fractions, len(rank)))
    cuts = edges[np.abs(edges[:, None] - cuts).argmin(axis=0)]
    return _dealt(order, np.diff(cuts, prepend=0))


def _stratified(turns: np.ndarray, fractions: Sequence[float], order: np.ndarray) -> np.ndarray:
    order = order[np.argsort(turns[order], kind="stable")]
    sizes = _sizes_by_class(np.bincount(turns), fractions)
    return _dealt(order, _whole_first(sizes) if fractions[0] > 0 else sizes)


def _whole_first(sizes: np.ndarray) -> np.ndarray:
    """Give each class a row in the first part: sizes int64 [classes, parts]; the class that has the
    largest share there hands back a row of its own.
    """
    sizes, counts = sizes.copy(), sizes.sum(axis=1)
    for row in np.flatnonzero(sizes[:, 0] == 0):
        part = sizes[row].argmax()
        sizes[row, [0, part]] += 1, -1
        share = np.where(sizes[:, 0] > 1, sizes[:, 0] / counts, 0)
        if share.any():
            sizes[share.argmax(), [0, part]] += -1, 1
    return sizes


def _sizes_by_class(counts: np.ndarray, fractions: Sequence[float]) -> np.ndarray:
    """Round counts × fractions to int64 [classes, parts], up or down, and so the sums of parts."""
    shares = np.outer(counts, fractions)
    least = np.floor(shares + 1e-9).astype(np.int64)
    more = np.zeros_like(least)
    for place, count in enumerate(counts):
        more[place] = _exact_sizes(fractions, count) - least[place]
    odd = shares - least > 1e-9
    owed = _exact_sizes(fractions, int(counts.sum())) - (least + more).sum(axis=0)
    while owed.any():
        source, target = int(owed.argmin()), int(owed.argmax())
        if not _move(more, odd, source, target, {source}):
            # Five parts and more can ask for too much: sizes come before proportions.
            row = int(more[:, source].argmax())
            more[row, source] = 0
            least[row, target] += 1
        owed[[source, target]] += 1, -1
    return least + more


def _move(more: np.ndarray, odd: np.ndarray, source: int, target: int, seen: set[int]) -> bool:
    # Hand a class's odd row from part to part, where needed by way of others (Kuhn 1955).
    for part in set(range(more.shape[1])) - seen:
        movable = np.flatnonzero(odd[:, part] & (more[:, source] > more[:, part]))
        if len(movable) and (part == target or _move(more, odd, part, target, seen | {part})):
            more[movable[0], [source, part]] = 0, 1
            return True
    return False


def _hashed(words: np.ndarray, fractions: Sequence[float], seed: int) -> np.ndarray:
    places = {word: (derive("split", seed, word) >> 10) / 2**53 for word in set(words)}
    ends = np.cumsum(fractions)[:-1]
    return np.searchsorted(ends, [places[word] for word in words], side="right")


def _divided(
    shards: Shards, fractions: Sequence[float], seed: int, key: str | None
) -> tuple[Shards, ...]:
    # With their number, so that a part can be cut again under the same seed.
    ends, draw = np.cumsum(fractions)[:-1], derive("split", seed, len(shards))

    def part(group: Group) -> np.ndarray:
        if key is not None:
            words = [chunk.texts(key) for chunk in shards.pieces(group, [key])]
            return _hashed(np.concatenate(words), fractions, seed)
        numbers = torch.from_numpy(group.first + group.places())
        return np.searchsorted(ends, uniform(draw, numbers, 1)[:, 0].numpy(), side="right")

    return shards.divide(part, len(fractions))


def _moments(table: Table, column: str) -> np.ndarray:
    # Ranks from 0, the same for the same moment, in whichever form more of the cells read.
    words = table.texts(column)
    numbers = np.array([number(each) for each in words], dtype=np.float64)
    found = min((numbers, dates(words.tolist())), key=lambda read: np.isnan(read).sum())
    for place in np.flatnonzero(np.isnan(found))[:1].tolist():
        text = words[place]
        what = f"{shown(text)} is neither a number nor an ISO date" if text else "no time is given"
        raise DataError(f"{table.where(place, column)}: {what}")
    return np.unique(found, return_inverse=True)[1]


def _by_turn(turns: np.ndarray, order: np.ndarray, k: int) -> np.ndarray:
    # Dealt one by one, so that neither the rows nor those of a class differ by more than one.
    fold = np.empty(len(order), dtype=np.int64)
    fold[order[np.argsort(turns[order], kind="stable")]] = np.arange(len(order)) % k
    return fold


def _by_group(turns: np.ndarray, k: int) -> np.ndarray:
    counts, loads = np.bincount(turns), np.zeros(k, dtype=np.int64)
    fold = np.empty(len(counts), dtype=np.int64)
    for group in np.argsort(-counts, kind="stable"):
        fold[group] = loads.argmin()
        loads[fold[group]] += counts[group]
    return fold[turns]


def split_by(table: AnyTable, column: str) -> dict[str, AnyTable]:
    """Cut a table by a column that already says which part each row belongs to.

    >>> import pandas as pd
    >>> from mip.data.table import from_frame
    >>> rows = from_frame(pd.DataFrame({"part": ["train", "test", "train"]}))
    >>> {name: len(part) for name, part in split_by(rows, "part").items()}
    {'test': 1, 'train': 2}
    """
    if isinstance(table, Shards):
        chunks = table.chunks([column])
        names = sorted({word for chunk in chunks for word in chunk.texts(column)})
        return dict(zip(names, _by_word(table, column, names), strict=True))
    cells = table.texts(column)
    return {word: table.take(np.flatnonzero(cells == word)) for word in sorted(set(cells))}


def _by_word(shards: Shards, column: str, names: list[str]) -> tuple[Shards, ...]:
    def part(group: Group) -> np.ndarray:
        pieces = shards.pieces(group, [column])
        return np.concatenate([np.searchsorted(names, piece.texts(column)) for piece in pieces])

    return shards.divide(part, len(names))


def with_folds(table: Table, folds: Table, column: str = "fold") -> Table:
    """Add a column from a folds file, whose column `row` holds the labels of the table's rows: of
    a table that was read from a file, their numbers.

    Raises DataError when a row of the table has no fold, or a row has two.
    """
    labels, rows = table.labels.tolist(), folds.texts("row").tolist()
    if table.labels.dtype.kind in "iu":
        numbers = folds.numbers("row")
        for place in np.flatnonzero(np.isnan(numbers) | (numbers % 1 != 0))[:1].tolist():
            raise DataError(f"{folds.where(place, 'row')}: not the number of a row")
        rows = numbers.astype(np.int64).tolist()
    else:
        labels = [*map(word, labels)]
    if len(set(rows)) != len(rows):
        raise DataError(f"{folds.name}: a row stands twice in column 'row'")
    fold = dict(zip(rows, folds.texts(column), strict=True))
    for row in labels:
        if row not in fold:
            raise DataError(f"{folds.name}: no fold for row {label(row)} of {table.name}")
    values = [fold[row] for row in labels]
    return evolve(table, frame=table.frame.assign(**{column: values}))
