"""A first spec for a table, with the reasons as comments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from mip import data
from mip.data import PLAIN, CsvFormat, Table
from mip.errors import DataError, hint, one_line, quote
from mip.images import photos_of
from mip.spec.drafts.blocks import (
    BRANCHES,
    branch_block,
    comment,
    data_block,
    format_blocks,
    head_blocks,
    join_lines,
    photo_blocks,
    shorten,
    train_block,
)
from mip.spec.drafts.distinct_cells import DistinctCells, distinct_cells
from mip.spec.drafts.formats.columns import FormatGuess
from mip.spec.drafts.odd_rows import find_copies, find_totals
from mip.spec.drafts.photos.absent import find_absent
from mip.spec.drafts.photos.columns import guess_photos, has_name_of_photos
from mip.spec.drafts.photos.greys import guess_greys
from mip.spec.drafts.photos.templates import Folder
from mip.spec.drafts.photos.unnamed import describe_unnamed
from mip.spec.drafts.roles import Guess, guess, is_writable
from mip.spec.drafts.targets.classes import propose_for_classes
from mip.spec.drafts.targets.groups import find_group
from mip.spec.drafts.targets.kinds import TargetGuess
from mip.spec.drafts.targets.reading import read_targets
from mip.spec.drafts.training import MANY_ROWS, choose_training

if TYPE_CHECKING:  # which takes torch
    from mip.spec.drafts.photos.nets import PretrainedNet

MAX_LINES = 10
"""The number of columns left out that are printed."""


# What to do about a column of a role that is left out.
_CURES = {
    "names": '; read it by kind = "text" if its words matter',
    "rare text": '; kind = "text" reads it',
    "row name": '; kind = "continuous" reads it if it is an amount',
}


@frozen
class Draft:
    """A first spec, as TOML with comments, what the user should know of it, in lines, and the
    columns of photos that it reads.
    """

    text: str
    notes: tuple[str, ...]
    photo_columns: tuple[str, ...] = ()


def no_net() -> None:
    """Find no pretrained net, so that photos are read by a small one that is trained with them."""


def draft(
    table: Table,
    target: str | Sequence[str],
    path: str,
    csv: CsvFormat = PLAIN,
    day_first: bool | None = None,
) -> str:
    """Write a commented spec for a table: the text of `make_draft`."""
    return make_draft(table, target, path, csv, day_first).text


def make_draft(
    table: Table,
    target: str | Sequence[str],
    path: str,
    csv: CsvFormat = PLAIN,
    day_first: bool | None = None,
    without: Sequence[str] = (),
    find_net: Callable[[], PretrainedNet | None] = no_net,
) -> Draft:
    """Write a commented spec for a table, one that `mip check` accepts; `path` is that of the
    table's file, relative to the spec, and `csv` says how that is written. Several targets are
    predicted by one model, with a joint head. `day_first` says which of the two numbers of a date
    is its day, where both may be. The columns `without` are left out.
    If there are photos, `find_net` says which pretrained net reads them.

    Raises DataError if there is no column `target`, naming the nearest, if it is given twice or
    cannot be predicted, if no other column can be read, for dates that can be read in two ways, for
    photos that cannot be found, and for a name that no spec can hold.
    """
    names = (target,) if isinstance(target, str) else tuple(target)
    _check_names(table, names, without, path)
    source = table.select([name for name in table.columns if name not in without])
    columns = distinct_cells(source)
    named = [cells for name, cells in columns.items() if name not in {*names, "part"}]
    folder = Folder(source.root or Path("."))
    photos = guess_photos(source, named, folder)
    group = find_group(named, [name for name, found in photos.items() if not found.problem])
    reading, split = read_targets(source, columns, names, photos, day_first, group)
    table, rows, targets, formats = reading
    totals = find_totals(columns.values())
    columns |= {name: columns[name].with_format(form) for name, form in table.formats.items()}
    used = columns if rows is table else distinct_cells(rows)
    guesses = [
        _explain(_adjust(_guess(cells, photos, split), rows), formats)
        for name, cells in used.items()
        if name not in {*names, split.get("column")}
    ]
    _check_photos(table.name, guesses)
    for target_guess in targets:
        formats = propose_for_classes(formats, used[target_guess.column], target_guess)
    by_role = {role: [found for found in guesses if found.role == role] for role in BRANCHES}
    roles = [role for role in by_role if by_role[role]]
    if not roles:
        besides = ", ".join(map(quote, names))
        raise DataError(f"{table.name}: no column besides {besides} can be read")
    alone, images = len(roles) == 1, [found.column for found in by_role["image"]]
    absent, greys = find_absent(images, rows, alone), guess_greys(rows, images)
    net = find_net() if images else None
    of_photos = alone and net is not None
    training = choose_training(len(rows), roles, [target.kind for target in targets], of_photos)
    blocks = [branch_block(role, by_role[role], len(rows)) for role in roles if role != "image"]
    if images:
        blocks += photo_blocks(by_role["image"], len(rows), absent, greys, net, alone)
    left_out = _left_out(guesses, without)
    texts = [
        data_block(table, rows, path, csv, names, split),
        *format_blocks(photos),
        *format_blocks(formats),
        *blocks,
        join_lines([*map(comment, left_out)]),
        *head_blocks(targets, training),
        train_block(_part_sizes(rows, split), training),
    ]
    notes = [
        *chain.from_iterable(map(_format_notes, photos.values())),
        *filter(None, [absent.summary, describe_unnamed(table, images, folder), greys.note]),
        *_net_notes(images, net),
        *chain.from_iterable(map(_target_notes, targets)),
        *_rows_without_target(table, rows, names),
        *find_copies(source, columns.values()),
        *_group_notes(group, split, columns),
        *chain.from_iterable(map(_format_notes, formats.values())),
        *_blank_notes([*photos.values(), *formats.values()]),
        *_doubts(guesses, formats),
        *_shorten_list(left_out),
        *totals,
    ]
    return Draft("\n".join(filter(None, texts)), tuple(map(one_line, notes)), tuple(images))


def _check_names(table: Table, targets: Sequence[str], without: Sequence[str], path: str) -> None:
    for name in (*targets, *without):
        if name not in table.columns:
            raise DataError(f"{table.name}: there is no column '{name}'{hint(name, table.columns)}")
    for name in targets:
        if targets.count(name) > 1 or name in without:
            others = hint("", set(table.columns) - {*targets, *without})
            what = "left out and a target" if name in without else "a target twice"
            raise DataError(f"{table.name}: column '{name}' is {what}{others}")
    for what, name in (
        ("name of the table's file", path),
        *(("name of the target", name) for name in targets),
    ):
        if not is_writable(name):
            raise DataError(f"{table.name}: the {what} cannot be written in a spec: rename it")


def _net_notes(photos: Sequence[str], net: PretrainedNet | None) -> list[str]:
    if not photos:
        return []
    if net is None:
        return ["photos: a small net, from scratch; --pretrained takes one that knows photos"]
    return [f"photos: {net.why}, and is frozen; --backbone small trains a small one instead"]


def _target_notes(target: TargetGuess) -> list[str]:
    notes = (f"{target.kind}, {target.reason}", *target.remarks)
    return [f"{target.column}: {note}" for note in notes]


def _rows_without_target(table: Table, rows: Table, targets: Sequence[str]) -> list[str]:
    n_missing = len(table) - len(rows)
    if not n_missing:
        return []
    one = n_missing == 1
    if len(targets) == 1:
        count = "1 row has" if one else f"{n_missing} rows have"
        return [f"{targets[0]}: {count} no target, and will be left out"]
    count = "1 row lacks" if one else f"{n_missing} rows lack"
    return [f"{count} a target, and will be left out: a joint head learns from rows with all"]


def _group_notes(
    group: str | None, split: Mapping[str, Any], columns: Mapping[str, DistinctCells]
) -> list[str]:
    if group is None or "column" in split:
        return []
    n_values = len(columns[group].count(columns[group].texts()))
    count = f"{n_values} different values in {len(columns[group].table)} rows"
    if "group" not in split:
        return [f"{shorten(group)}: {count}; no split by them has each class in train"]
    why = "rows with the same one stay in one part, so that scores are those of new ones"
    return [f"{shorten(group)}: {count}; {why} (split.group)"]


def _format_notes(found: FormatGuess) -> list[str]:
    return [f"{shorten(found.column)}: {note}" for note in found.notes]


def _blank_notes(formats: Sequence[FormatGuess]) -> list[str]:
    """Say which words count as missing numbers, in one line for many columns."""
    with_blanks = [found for found in formats if found.blanks]
    notes = [f"{shorten(found.column)}: {found.blanks}" for found in with_blanks]
    if len(notes) <= MAX_LINES:
        return notes
    return [f"{notes[0]}, and so in {len(notes) - 1} other columns"]


def _guess(
    cells: DistinctCells, photos: Mapping[str, FormatGuess], split: Mapping[str, Any]
) -> Guess:
    """Guess the role of a column. One with photos of which most cannot be found has "lost photos",
    unless its cells make sense as something else.
    """
    found, table = guess(cells), cells.table
    if cells.column not in photos or found.role == "odd name":
        if cells.column != split.get("group"):
            return found
        return Guess(cells.column, "group", found.cells, "new rows are of other groups")
    if photos[cells.column].same_as:
        return Guess(cells.column, "same photos", f"those of {quote(photos[cells.column].same_as)}")
    problem = photos[cells.column].problem
    if not problem:
        return Guess(cells.column, "image", _count_photos(table, cells.column))
    many = found.role == "category" and len(cells.count(cells.texts())) > len(table) / 2
    if _is_unread(found) or many or found.role == "image":
        return Guess(cells.column, "lost photos", found.cells, problem)
    return found


def _check_photos(name: str, guesses: Iterable[Guess]) -> None:
    """Raise DataError for columns of photos that cannot be found."""
    lost = [found for found in guesses if found.role == "lost photos"]
    if not lost:
        return
    first, *others = lost
    text = f"column '{first.column}' seems to name photos, but {first.conclusion}"
    for other in others[:1]:
        text += f"; so does column '{other.column}', but {other.conclusion}"
    options = " ".join(f"--without {quote(found.column)}" for found in lost)
    raise DataError(f"{name}: {text}; or leave {'them' if others else 'it'} out by {options}")


def _count_photos(table: Table, column: str) -> str:
    named = [[photo for photo in row if photo is not None] for row in photos_of(table, column)]
    n_photos, n_rows = sum(map(len, named)), sum(map(bool, named))
    several = f" in {n_rows} rows" if n_photos > n_rows else ""
    missing = f", {len(table) - n_rows} missing" if n_rows < len(table) else ""
    return f"{n_photos} photos{several}{missing}"


def _is_unread(found: Guess) -> bool:
    return found.role not in BRANCHES


def _is_missed(found: Guess) -> bool:
    """Whether somebody may count on a column that is left out, so that it is said first."""
    return found.role == "nearly numbers" or has_name_of_photos(found.column)


def _doubts(guesses: Iterable[Guess], formats: Mapping[str, FormatGuess]) -> Iterator[str]:
    """Yield what is doubtful about columns that are read."""
    for found in guesses:
        problem = formats[found.column].problem if found.column in formats else ""
        if problem and not _is_unread(found):
            yield f"{shorten(found.column)}: a {found.role}, though {problem}"


def _left_out(guesses: Iterable[Guess], without: Sequence[str]) -> list[str]:
    """Say which columns are left out, and why: those first that somebody may count on."""
    unread = sorted(filter(_is_unread, guesses), key=lambda found: not _is_missed(found))
    reasons = [f"{shorten(name)} (by --without)" for name in without]
    for found in unread:
        cure = _CURES.get(found.role, "")
        reasons.append(f"{shorten(found.column)} ({found.role}: {found.reason}){cure}")
    return [f"left out: {reason}" for reason in reasons]


def _shorten_list(lines: Sequence[str]) -> tuple[str, ...]:
    more = len(lines) - MAX_LINES
    last = [f"left out: {more} more columns, which the spec names"] if more > 0 else []
    return (*map(one_line, lines[:MAX_LINES]), *last)


def _part_sizes(rows: Table, split: Mapping[str, Any]) -> Sequence[int]:
    """Return the number of rows that train, choose and test."""
    if "fractions" in split:  # drawn at random, which takes torch, they are as many
        return data.part_sizes(split["fractions"], len(rows)).tolist()
    return [*map(len, data.split(rows, **split))]


def _adjust(found: Guess, table: Table) -> Guess:
    """Adjust the role of a column to the number of rows."""
    if found.role == "log number" and len(table) >= MANY_ROWS:
        # Bins have equal counts, so that a logarithm before them changes next to nothing.
        return evolve(found, role="number", conclusion="")
    if found.role == "free text" and len(table) < MANY_ROWS:
        conclusion = f"{found.conclusion}, and {len(table)} rows are too few to learn words from"
        return evolve(found, role="rare text", conclusion=conclusion)
    return found


def _explain(found: Guess, formats: Mapping[str, FormatGuess]) -> Guess:
    """Say why a column that is nearly one of numbers is left out."""
    problem = formats[found.column].problem if found.column in formats else ""
    if not problem or found.role in BRANCHES:
        return found
    return evolve(found, role="nearly numbers", conclusion=problem)
