"""The classes and labels of a target: those written in several ways, and those with few rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from attrs import evolve

from mip import data, heads
from mip.data import BOOLEAN_WORDS, Table
from mip.errors import DataError, list_first, quote
from mip.spec.drafts.distinct_cells import DistinctCells
from mip.spec.drafts.formats.columns import FormatGuess
from mip.spec.drafts.targets.kinds import (
    CLASS_KINDS,
    TargetGuess,
    count_numbers,
    find_scale,
    may_be_missing,
)
from mip.spec.toml_text import inline

FRACTIONS = (0.7, 0.15, 0.15)
"""The shares of the rows that train, choose and test."""


FEW_ROWS = 3
"""A class with fewer rows is in no more than two of the three parts."""


N_SEEDS = 100
"""The number of splits that are tried for one that has each label in train."""


LISTED = 5
"""The number of classes that a note lists."""


MAX_NAMES = 1000
"""The number of rare classes that a spec can name."""


Formats = Mapping[str, FormatGuess]
"""How columns are written, by their names."""


def tidy_classes(formats: Formats, cells: DistinctCells, target: TargetGuess) -> Formats:
    """Let what is no number be missing among classes that are numbers ("0", "1", "NA"), and merge
    classes that differ in case alone, or that all say yes or no.

    >>> from mip.data import from_columns
    >>> from mip.spec.drafts.distinct_cells import distinct_cells
    >>> rows = from_columns({"y": ["yes", "no", "yes", "Yes", "n", "no"]})
    >>> guess = TargetGuess("y", "multiclass", "4 classes")
    >>> tidy_classes({}, distinct_cells(rows)["y"], guess)["y"].form.merge
    {'no': ('n',), 'yes': ('Yes',)}
    """
    column, counts = target.column, count_labels(cells, target)
    found = formats.get(column, FormatGuess(column))
    if target.kind in CLASS_KINDS and len(known := count_numbers(cells)) > 1:
        blanks = sorted(counts.keys() - known.keys())
        return {**formats, column: found.leave_out(blanks)} if blanks else formats
    merge = {} if found.form.merge else _find_spellings(counts)
    if not merge:
        return formats
    listed = [f"{_list(words)} as {quote(name)}" for name, words in merge.items()]
    note = f"reads {' and '.join(listed)} (merge)"
    form = evolve(found.form, merge=merge)
    return {**formats, column: evolve(found, form=form, notes=(*found.notes, note))}


def count_labels(cells: DistinctCells, target: TargetGuess) -> dict[str, int]:
    """Count the rows that have each class, or each label; nothing for a target that is a number."""
    if target.kind in CLASS_KINDS:
        return cells.count(cells.texts())
    counts = defaultdict[str, int](int)
    if target.kind == "multilabel":
        for position, labels in heads.Multilabel(target.column).labels(cells.rows()):
            for label in set(labels):
                counts[label] += int(cells.counts[position])
    return dict(counts)


def _find_spellings(counts: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """Find the words that are written in several ways, by the most frequent one."""
    meanings = {word: BOOLEAN_WORDS.get(word.lower()) for word in counts}
    are_booleans = {*meanings.values()} == {*BOOLEAN_WORDS.values()}
    spellings = defaultdict[Any, list[str]](list)
    # Of words that are equally frequent, the one in small letters comes first.
    for word in sorted(counts, key=lambda word: (-counts[word], word.swapcase())):
        # A letter in both cases may be two classes.
        key = meanings[word] if are_booleans else word.casefold() if len(word) > 1 else word
        spellings[key].append(word)
    return {words[0]: tuple(words[1:]) for words in sorted(spellings.values()) if words[1:]}


def label_rows(rows: Table, target: TargetGuess) -> dict[str, list[int]]:
    """Return the ids of the rows of each class, or of each label where a row may have several;
    nothing for a target that is a number.
    """
    pairs: Iterable[tuple[int, list[str]]] = ()
    if target.kind == "multilabel":
        pairs = heads.Multilabel(target.column).labels(rows)
    elif target.kind in CLASS_KINDS:
        pairs = ((row, [word]) for row, word in enumerate(rows.texts(target.column).tolist()))
    ids, found = rows.row_ids.tolist(), defaultdict[str, list[int]](list)
    for row, labels in pairs:
        for label in dict.fromkeys(labels):
            found[label].append(ids[row])
    return dict(found)


# Splits, and what is too rare for them.


def choose_split(
    rows: Table, targets: Sequence[TargetGuess], group: str | None = None
) -> dict[str, Any] | None:
    """Choose a split in which train has each class and each label: the options of `data.split`.
    Rows are kept together by the column `group`, or else stratified by the first target of classes.
    None if there is no such split.
    """
    stratified, drawn = _stratify(targets) if group is None else ([], targets)
    options: dict[str, Any] = {"fractions": FRACTIONS, "seed": 0}
    if group is not None:
        options["group"] = group
    if stratified:
        options["stratify"] = stratified[0].column
    labeled = [ids for target in drawn for ids in label_rows(rows, target).values()]
    for seed in range(N_SEEDS if labeled else 0):
        options["seed"] = seed
        train = {*data.split(rows, **options)[0].row_ids.tolist()}
        if not any(map(train.isdisjoint, labeled)):
            return options
    return None if labeled else options


def _stratify(targets: Sequence[TargetGuess]) -> tuple[list[TargetGuess], list[TargetGuess]]:
    """Divide targets into the one by which rows are stratified, if there is one, and the others."""
    first = [target for target in targets if target.kind in CLASS_KINDS][:1]
    return first, [target for target in targets if target not in first]


def leave_out_rare(formats: Formats, rows: Table, targets: Sequence[TargetGuess]) -> Formats:
    """Leave out what has too few rows to be in train for sure: labels, and classes by which rows
    are not stratified. Raises DataError if there are none, or no others.
    """
    drawn = {target.column: label_rows(rows, target) for target in _stratify(targets)[1]}
    counts = {
        name: {label: len(rows) for label, rows in ids.items()} for name, ids in drawn.items()
    }
    revised = formats
    for column, classes in counts.items():
        rare = _find_rare(classes)
        if 0 < len(rare) <= MAX_NAMES:
            note = f"{_list(rare)} in fewer than {FEW_ROWS} rows: left out (na_values)"
            found = revised.get(column, FormatGuess(column))
            revised = {**revised, column: found.leave_out(rare, note)}
    if revised is formats:
        n_rows = [(n, label, name) for name in counts for label, n in counts[name].items()]
        _, label, column = min(n_rows)
        raise DataError(
            f"{rows.name}: column '{column}': the label '{label:.40}' is in too few rows: no split "
            f"of {N_SEEDS} has each label in train; leave rare labels out"
        )
    return revised


def propose_for_classes(formats: Formats, cells: DistinctCells, target: TargetGuess) -> Formats:
    """Propose to leave out words that may mean a missing target, and to leave out or to merge
    classes and labels that have too few rows to be in each part.
    """
    counts = count_labels(cells, target)
    words = [*filter(may_be_missing, sorted(counts))]
    blanks = words if target.kind == "multiclass" and len(counts) - len(words) > 1 else []
    rare = [label for label in _find_rare(counts) if label not in blanks]
    found = formats.get(target.column, FormatGuess(target.column))
    merge = _find_merge(counts, rare, target.kind)
    notes = list[str]()
    if blanks:
        cure = f"where that is a missing target, set na_values = {inline(blanks)}"
        notes.append(f"{_list(blanks)} counts as a class; {cure}")
    if rare:
        notes.append(_describe_rare(rare, merge, target.kind))
    if not notes:
        return formats
    found = evolve(found, notes=(*found.notes, *notes))
    if len(rare) <= MAX_NAMES:
        both = _join_merges(found.form.merge, merge)
        found = evolve(found, proposed=(*blanks, *rare), proposed_merge=both)
    return {**formats, target.column: found}


def _describe_rare(rare: Sequence[str], merge: Mapping[str, Sequence[str]], kind: str) -> str:
    one, many = ("label", "labels") if kind == "multilabel" else ("class", "classes")
    what, them = (one, "it") if len(rare) == 1 else (many, "them")
    why = (
        f"{what} {_list(rare)}: fewer than {FEW_ROWS} rows, too few for all parts, so hardly scored"
    )
    if len(rare) > LISTED:
        return f"{why}; leave them out (na_values), or merge them (merge)"
    cure = f"leave {them} out (na_values = {inline(rare)}), or merge {them}"
    return f"{why}; {cure} {f'(merge = {inline(merge)})' if merge else 'with another (merge)'}"


def _find_rare(counts: Mapping[str, int]) -> list[str]:
    """Find the labels that have too few rows to be in each part, if there are two others."""
    rare = [label for label in sorted(counts) if counts[label] < FEW_ROWS]
    return rare if len(counts) - len(rare) > 1 else []


def _find_merge(
    labels: Collection[str], rare: Sequence[str], kind: str
) -> dict[str, tuple[str, ...]]:
    """Find what rare classes can be merged into: of ordered ones, the next that is not rare."""
    order = find_scale(labels) if kind == "ordinal" else []
    if not order:
        return {"other": tuple(rare)} if len(rare) > 1 else {}
    common = [name for name in order if name not in rare]
    merge = defaultdict[str, list[str]](list)
    for label in rare:
        rank = order.index(label)
        merge[min(common, key=lambda name: abs(order.index(name) - rank))].append(label)
    return {name: tuple(words) for name, words in merge.items()}


def _join_merges(
    first: Mapping[str, Sequence[str]], second: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """Merge classes that are merged already."""
    if not second:
        return {}
    merged = {*chain(*second.values())}
    both = {name: tuple(words) for name, words in first.items() if name not in merged}
    for name, words in second.items():
        spellings = chain(*(first.get(word, ()) for word in words))
        both[name] = (*both.get(name, ()), *words, *spellings)
    return both


def _list(words: Sequence[str]) -> str:
    return list_first(words, LISTED, quote)
