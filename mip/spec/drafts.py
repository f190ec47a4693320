"""A first spec for a table, with the reasons as comments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from attrs import asdict, evolve, frozen

from mip import branches, data
from mip.data import PLAIN, CsvFormat, Table
from mip.errors import DataError, hint, one_line, quote
from mip.images import photos_of
from mip.spec.distinct_cells import DistinctCells, distinct_cells
from mip.spec.format_blocks import format_blocks
from mip.spec.guess_classes import propose_for_classes
from mip.spec.guess_formats import FormatGuess
from mip.spec.guess_greys import Greys, guess_greys
from mip.spec.guess_photos import guess_photos, has_name_of_photos
from mip.spec.guess_rows import find_totals
from mip.spec.guess_targets import TargetGuess
from mip.spec.inference import Guess, guess, is_writable
from mip.spec.photo_templates import Folder
from mip.spec.read_targets import read_targets
from mip.spec.toml_text import inline, key
from mip.spec.unnamed_images import describe_unnamed

WIDTH = 200
"""The length of the longest comment."""


MANY_ROWS = 2000
"""Rows enough to learn a curve for each column of numbers, and to choose an epoch by."""


MAX_LINES = 10
"""The number of columns left out that are printed."""


# What to do about a column of a role that is left out.
_CURES = {
    "names": '; read it by kind = "text" if its words matter',
    "rare text": '; kind = "text" reads it',
    "row name": '; kind = "continuous" reads it if it is an amount',
}


# The name of the branch that reads the columns of a role, and its kind.
_BRANCHES = {
    "number": ("numbers", "continuous"),
    "log number": ("amounts", "continuous"),
    "category": ("categories", "categorical"),
    "yes or no": ("answers", "boolean"),
    "date": ("dates", "datetime"),
    "free text": ("texts", "text"),
    "vector": ("vectors", "vector"),
    "image": ("photos", "image"),
}


@frozen
class Draft:
    """A first spec, as TOML with comments, and what the user should know of it, in lines."""

    text: str
    notes: tuple[str, ...]


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
) -> Draft:
    """Write a commented spec for a table, one that `mip check` accepts; `path` is that of the
    table's file, relative to the spec, and `csv` says how that is written. Several targets are
    predicted by one model, with a joint head. `day_first` says which of the two numbers of a date
    is its day, where both may be. The columns `without` are left out.

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
    reading, split = read_targets(source, columns, names, photos, day_first)
    table, rows, targets, formats = reading
    totals = find_totals(columns.values())
    columns |= {name: columns[name].with_format(form) for name, form in table.formats.items()}
    used = columns if rows is table else distinct_cells(rows)
    guesses = [
        _explain(_adjust(_guess(cells, photos), rows), formats)
        for name, cells in used.items()
        if name not in {*names, split.get("column")}
    ]
    for target_guess in targets:
        formats = propose_for_classes(formats, used[target_guess.column], target_guess)
    by_role = {role: [found for found in guesses if found.role == role] for role in _BRANCHES}
    roles = [role for role in by_role if by_role[role]]
    if not roles:
        besides = ", ".join(map(quote, names))
        raise DataError(f"{table.name}: no column besides {besides} can be read")
    alone, images = len(roles) == 1, [found.column for found in by_role["image"]]
    absent, greys = _absent_photos(images, rows, alone), guess_greys(rows, images)
    photo_options = _image_options(absent, greys)
    blocks = [_branch(role, by_role[role], len(rows), photo_options, alone) for role in roles]
    left_out = _left_out(guesses, without)
    texts = [
        _data(table, rows, path, csv, names, split),
        *format_blocks(photos),
        *format_blocks(formats),
        *blocks,
        _lines([*map(_comment, left_out)]),
        *_heads(rows, targets),
        _train(*_part_sizes(rows, split)),
    ]
    notes = [
        *chain.from_iterable(map(_format_notes, photos.values())),
        *filter(None, [absent.summary, describe_unnamed(table, images, folder), greys.note]),
        *chain.from_iterable(map(_target_notes, targets)),
        *_rows_without_target(table, rows, names),
        *chain.from_iterable(map(_format_notes, formats.values())),
        *_doubts(guesses, formats),
        *_shorten_list(left_out),
        *totals,
    ]
    return Draft("\n".join(filter(None, texts)), tuple(map(one_line, notes)))


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


def _format_notes(found: FormatGuess) -> list[str]:
    notes = filter(None, [*found.notes, found.blanks])
    return [f"{_shorten(found.column)}: {note}" for note in notes]


def _guess(cells: DistinctCells, photos: Mapping[str, FormatGuess]) -> Guess:
    """Guess the role of a column. Raises DataError for photos of which most cannot be found, unless
    the cells make sense as something else.
    """
    found, table = guess(cells), cells.table
    if cells.column not in photos or found.role == "odd name":
        return found
    if photos[cells.column].same_as:
        return Guess(cells.column, "same photos", f"those of {quote(photos[cells.column].same_as)}")
    problem = photos[cells.column].problem
    if not problem:
        return Guess(cells.column, "image", _count_photos(table, cells.column))
    many = found.role == "category" and len(cells.count(cells.texts())) > len(table) / 2
    if _is_unread(found) or many or found.role == "image":
        cure = f"leave it out by --without {quote(cells.column)}"
        text = f"seems to name photos, but {problem}; or {cure}"
        raise DataError(f"{table.name}: column '{cells.column}' {text}")
    return found


def _count_photos(table: Table, column: str) -> str:
    named = [[photo for photo in row if photo is not None] for row in photos_of(table, column)]
    n_photos, n_rows = sum(map(len, named)), sum(map(bool, named))
    several = f" in {n_rows} rows" if n_photos > n_rows else ""
    missing = f", {len(table) - n_rows} missing" if n_rows < len(table) else ""
    return f"{n_photos} photos{several}{missing}"


def _is_unread(found: Guess) -> bool:
    return found.role not in _BRANCHES


def _is_missed(found: Guess) -> bool:
    """Whether somebody may count on a column that is left out, so that it is said first."""
    return found.role == "nearly numbers" or has_name_of_photos(found.column)


def _doubts(guesses: Iterable[Guess], formats: Mapping[str, FormatGuess]) -> Iterator[str]:
    """Yield what is doubtful about columns that are read."""
    for found in guesses:
        problem = formats[found.column].problem if found.column in formats else ""
        if problem and not _is_unread(found):
            yield f"{_shorten(found.column)}: a {found.role}, though {problem}"


def _left_out(guesses: Iterable[Guess], without: Sequence[str]) -> list[str]:
    """Say which columns are left out, and why: those first that somebody may count on."""
    unread = sorted(filter(_is_unread, guesses), key=lambda found: not _is_missed(found))
    reasons = [f"{_shorten(name)} (by --without)" for name in without]
    for found in unread:
        cure = _CURES.get(found.role, "")
        reasons.append(f"{_shorten(found.column)} ({found.role}: {found.reason}){cure}")
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
    if not problem or found.role in _BRANCHES:
        return found
    return evolve(found, role="nearly numbers", conclusion=problem)


def _branch(
    role: str, guesses: Sequence[Guess], n_rows: int, photo_options: Sequence[str], alone: bool
) -> str:
    name, kind = _BRANCHES[role]
    columns = [found.column for found in guesses]
    lines = [f"[branch.{name}]"]
    if role == "image" and n_rows < MANY_ROWS and not alone:
        # Few photos beside a table would drown it in numbers.
        lines = [
            "[branch.looks]",
            'kind = "fuse"',
            f"layers = [8]            # few, because there are {n_rows} rows",
            "dropout = 0.5",
            "",
            f"[branch.looks.branch.{name}]",
        ]
    lines += [f'kind = "{kind}"', f"columns = {_list(columns)}"]
    lines += [_comment(f"{_shorten(found.column)}: {found.reason}") for found in guesses]
    if role == "image":
        lines += photo_options
    if role == "log number":
        lines += ['scale = "log"']
    if role == "number" and n_rows >= MANY_ROWS:
        lines += [
            f"# {n_rows} rows are enough for a curve for each column: a vector between bins",
            'embedding = "piecewise"',
            "bins = 128",
            "embedding_dim = 8",
        ]
    return _lines(lines)


class Absent(NamedTuple):
    """Which photos are missing, and the policy that follows."""

    summary: str = ""
    first: str = ""
    policy: str = "error"


def _absent_photos(columns: Sequence[str], table: Table, alone: bool) -> Absent:
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
    count = f"{len(problems)} of {n_photos} photos are missing or broken"
    return Absent(count, f"(the first: {row:.99}); {what}", "drop" if drop else "learn")


def _image_options(absent: Absent, greys: Greys) -> list[str]:
    return [
        "size = 64",
        'backbone = "small"      # or a torchvision model such as "resnet18"',
        *([_comment(greys.seen), f"value_range = {greys.value_range}"] if greys.seen else []),
        *map(_comment, filter(None, [absent.summary, absent.first])),
        f'missing = "{absent.policy}"',
        "augmentation = { shift = 0.05 }",
    ]


def _data(
    table: Table,
    rows: Table,
    path: str,
    csv: CsvFormat,
    targets: Sequence[str],
    split: Mapping[str, Any],
) -> str:
    with_target = f", {len(rows)} of them with a target" * (len(rows) < len(table))
    lines = [
        _comment(f"{table.name}: {len(table)} rows{with_target}"),
        "[data]",
        f"table = {inline(path)}",
        *_csv(csv),
    ]
    if "column" in split:
        return _lines([*lines, f"split = {inline(split)}     # train, valid or test"])
    if "part" in table.columns and "part" not in targets:
        lines.append(
            "# the column part is not used: the rows with a target are not train and others"
        )
    if "stratify" in split:
        lines.append("# stratified: each class is in train, and has the same share in all parts")
    return _lines([*lines, f"split = {inline(split)}"])


def _csv(csv: CsvFormat) -> list[str]:
    given = {name: value for name, value in asdict(csv).items() if value != getattr(PLAIN, name)}
    texts = [
        f"{name} = {_list(value) if isinstance(value, tuple) else inline(value)}"
        for name, value in given.items()
    ]
    return [f"format = {{ {', '.join(texts)} }}"] if texts else []


def _heads(table: Table, targets: Sequence[TargetGuess]) -> list[str]:
    """Write the head of a target, or a joint one of several."""
    if len(targets) == 1:
        return [_head("head", table, targets[0])]
    names = _head_names([target.column for target in targets])
    joint = [
        _comment(f"{len(targets)} targets: the loss is the sum of theirs, with these weights"),
        "[head]",
        'kind = "joint"',
        f"loss_weights = {inline(dict.fromkeys(names, 1))}",
    ]
    parts = zip(names, targets, strict=True)
    return [_lines(joint), *(_head(f"head.head.{key(name)}", table, part) for name, part in parts)]


def _head_names(columns: Sequence[str]) -> list[str]:
    """Name a head after each column, as modules can be named.

    >>> _head_names(["price", "number of rooms", "number_of_rooms", "7", "type"])
    ['price', 'number_of_rooms', 'number_of_rooms_2', 'target_7', 'target_type']
    """
    from mip.spec.reading import is_module_name  # takes torch

    names: list[str] = []
    for column in columns:
        name = re.sub(r"\W+", "_", column)
        name = name if is_module_name(name) else f"target_{name}"
        numbered = (name, *(f"{name}_{k}" for k in range(2, len(columns) + 1)))
        names.append(next(each for each in numbered if each not in names))
    return names


def _head(path: str, table: Table, target: TargetGuess) -> str:
    lines = [
        _comment(target.reason),
        *map(_comment, target.remarks),
        f"[{path}]",
        f'kind = "{target.kind}"',
        f"column = {inline(target.column)}",
        *target.options,
        "layers = [128, 128]     # between the branches and the prediction",
        "members = 8             # networks that share most weights, and predict their mean",
    ]
    if len(table) < MANY_ROWS:
        lines.append(f"dropout = 0.1           # {len(table)} rows could be learned by heart")
    return _lines(lines)


def _train(n_train: int, n_valid: int, n_test: int) -> str:
    n_rows = n_train + n_valid + n_test
    batch_size, epochs = 32, 40
    if n_rows >= MANY_ROWS:
        batch_size = 128 if n_rows < 50_000 else 256
        epochs = int(np.clip(1_200_000 / n_rows, 5, 60))
    model, restore_best = "is that of the epoch with the best valid loss", "true"
    if n_rows < MANY_ROWS or not n_valid:
        few = f"{n_rows} rows are too few" if n_valid else "there are no valid rows"
        model, restore_best = f"is that of the last epoch: {few} to choose by", "false"
    return f"""# {epochs} epochs of {-(-n_train // batch_size)} steps; the model {model}
[train]
epochs = {epochs}
batch_size = {batch_size}
restore_best = {restore_best}
optimizer = {{ kind = "adamw", lr = 3e-3 }}     # the highest learning rate of the schedule
schedule = {{ kind = "one_cycle" }}
"""


def _comment(text: str) -> str:
    line = one_line(text)
    return f"# {line if len(line) <= WIDTH else line[: WIDTH - 1] + '…'}"


def _shorten(column: str) -> str:
    return column if len(column) <= WIDTH // 3 else f"{column[: WIDTH // 3]}…"


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _list(names: Sequence[str]) -> str:
    quoted = [inline(name) for name in names]
    line = f"[{', '.join(quoted)}]"
    return line if len(line) <= WIDTH // 2 else "[\n    " + ",\n    ".join(quoted) + ",\n]"
