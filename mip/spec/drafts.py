"""A first spec for a table, with the reasons as comments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from attrs import asdict, evolve, frozen

from mip import branches, data, heads
from mip.data import PLAIN, CsvFormat, Table, has_parts
from mip.errors import DataError, hint, one_line, quote
from mip.images import photos_of
from mip.spec.distinct_cells import DistinctCells, distinct_cells
from mip.spec.format_blocks import format_blocks, propose_for_rare_classes
from mip.spec.guess_formats import FormatGuess, guess_formats
from mip.spec.guess_greys import Greys, guess_greys
from mip.spec.guess_photos import guess_photos, has_name_of_photos
from mip.spec.guess_rows import find_totals, leave_out_headers
from mip.spec.guess_targets import TargetGuess, describe_set, guess_set, guess_target
from mip.spec.inference import Guess, guess, is_writable
from mip.spec.toml_text import inline
from mip.spec.unnamed_images import describe_unnamed

WIDTH = 200
"""The length of the longest comment."""


N_SEEDS = 100
"""The number of splits that are tried for one that has each label in train."""


MANY_ROWS = 2000
"""Rows enough to learn a curve for each column of numbers, and to choose an epoch by."""


FRACTIONS = (0.7, 0.15, 0.15)
"""The shares of the rows that train, choose and test."""


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
    table: Table, target: str, path: str, csv: CsvFormat = PLAIN, day_first: bool | None = None
) -> str:
    """Write a commented spec for a table: the text of `make_draft`."""
    return make_draft(table, target, path, csv, day_first).text


def make_draft(
    table: Table,
    target: str,
    path: str,
    csv: CsvFormat = PLAIN,
    day_first: bool | None = None,
    without: Sequence[str] = (),
) -> Draft:
    """Write a commented spec for a table, one that `mip check` accepts; `path` is that of the
    table's file, relative to the spec, and `csv` says how that is written. `day_first` says which
    of the two numbers of a date is its day, where both may be. The columns `without` are left out.

    Raises DataError if there is no column `target`, naming the nearest, if it cannot be predicted
    or no other column can be read, for dates that can be read in two ways, for photos that cannot
    be found, and for a name that no spec can hold.
    """
    for name in (target, *without):
        if name not in table.columns:
            raise DataError(f"{table.name}: there is no column '{name}'{hint(name, table.columns)}")
    for what, name in (("name of the table's file", path), ("name of the target", target)):
        if not is_writable(name):
            raise DataError(f"{table.name}: the {what} cannot be written in a spec: rename it")
    table = table.select([name for name in table.columns if name not in without])
    columns = distinct_cells(table)
    named = [cells for name, cells in columns.items() if name not in {target, "part"}]
    photos = guess_photos(table, named)
    formats = _guess_formats(table, columns, target, day_first, photos)
    totals = find_totals(columns.values())
    table = _with_formats(table, [*formats.values(), *photos.values()])
    columns |= {name: columns[name].with_format(form) for name, form in table.formats.items()}
    target_guess = _guess_target(columns[target], formats)
    has_target = _has_target(table, target_guess)
    rows = table if has_target.all() else table.take(np.flatnonzero(has_target))
    used = columns if rows is table else distinct_cells(rows)
    in_parts = target != "part" and has_parts(rows)
    sizes = _part_sizes(rows, target_guess, in_parts)
    guesses = [
        _explain(_adjust(_guess(cells, photos), rows), formats)
        for name, cells in used.items()
        if name not in {target, *["part"] * in_parts}
    ]
    by_role = {role: [found for found in guesses if found.role == role] for role in _BRANCHES}
    roles = [role for role in by_role if by_role[role]]
    images = [found.column for found in by_role["image"]]
    absent, greys = _absent_photos(images, rows, len(roles) == 1), guess_greys(rows, images)
    unnamed = describe_unnamed(table, images)
    blocks = [_branch(role, by_role[role], rows, absent, greys, len(roles) == 1) for role in roles]
    if not blocks:
        raise DataError(f"{table.name}: no column besides '{target}' can be read")
    unread = sorted(filter(_is_unread, guesses), key=lambda found: not _is_missed(found))
    left_out = [f"left out: {_shorten(name)} (by --without)" for name in without]
    left_out += [_left_out(found) for found in unread]
    formats = propose_for_rare_classes(formats, used[target], target_guess)
    texts = [
        _data(table, rows, path, csv, target_guess, in_parts),
        *format_blocks(photos),
        *format_blocks(formats),
        *blocks,
        _lines([*map(_comment, left_out)]),
        _head(rows, target_guess),
        _train(*sizes),
    ]
    notes = [
        *chain.from_iterable(map(_format_notes, photos.values())),
        *filter(None, [absent.summary, unnamed]),
        *([f"{greys.seen} (value_range = {greys.value_range})"] if greys.seen else []),
        f"{target}: {target_guess.kind}, {target_guess.reason}",
        *(f"{target}: {remark}" for remark in target_guess.remarks),
        *_rows_without_target(table, rows, target_guess),
        *chain.from_iterable(map(_format_notes, formats.values())),
        *(
            f"{_shorten(found.column)}: a {found.role}, though {formats[found.column].problem}"
            for found in guesses
            if found.role in _BRANCHES and found.column in formats and formats[found.column].problem
        ),
        *_shorten_list(left_out),
        *totals,
    ]
    return Draft("\n".join(filter(None, texts)), tuple(map(one_line, notes)))


def _rows_without_target(table: Table, rows: Table, target: TargetGuess) -> list[str]:
    n_missing = len(table) - len(rows)
    count = "1 row has" if n_missing == 1 else f"{n_missing} rows have"
    return [f"{target.column}: {count} no target, and will be left out"] if n_missing else []


def _format_notes(found: FormatGuess) -> list[str]:
    notes = filter(None, [*found.notes, found.blanks])
    return [f"{_shorten(found.column)}: {note}" for note in notes]


def _guess_formats(
    table: Table,
    columns: Mapping[str, DistinctCells],
    target: str,
    day_first: bool | None,
    photos: Mapping[str, FormatGuess],
) -> dict[str, FormatGuess]:
    """Guess how the columns are written that have no photos."""
    shown = [name for name, found in photos.items() if not found.problem]
    others = [cells for name, cells in columns.items() if name not in shown]
    formats, labels = guess_formats(others, day_first), columns[target]
    is_number = target in formats and formats[target].form.writes_numbers
    if not is_number and (form := guess_set(labels)):
        formats[target] = FormatGuess(target, form, (describe_set(labels, form),))
    elif target in formats and formats[target].form.sep:
        problem = "a list of numbers in each cell: predict one of them, in a column of its own"
        formats[target] = FormatGuess(target, problem=problem)
    return leave_out_headers(formats, table, target)


def _with_formats(table: Table, found: Iterable[FormatGuess]) -> Table:
    """Read the columns as they are written."""
    forms = {each.column: each.form for each in found if not each.is_plain}
    return table.with_formats({**forms, **table.formats})


def _guess_target(cells: DistinctCells, formats: Mapping[str, FormatGuess]) -> TargetGuess:
    try:
        return guess_target(cells)
    except DataError as error:
        problem = formats[cells.column].problem if cells.column in formats else ""
        if problem:
            text = f"{cells.table.name}: column '{cells.column}' is {problem}"
            raise DataError(text) from error
        raise


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


def _left_out(found: Guess) -> str:
    cure = _CURES.get(found.role, "")
    return f"left out: {_shorten(found.column)} ({found.role}: {found.reason}){cure}"


def _shorten_list(lines: Sequence[str]) -> tuple[str, ...]:
    more = len(lines) - MAX_LINES
    last = [f"left out: {more} more columns, which the spec names"] if more > 0 else []
    return (*map(one_line, lines[:MAX_LINES]), *last)


def _has_target(table: Table, target: TargetGuess) -> np.ndarray:
    if target.kind == "regression":
        return ~np.isnan(table.numbers(target.column))
    return table.texts(target.column) != ""


def _part_sizes(rows: Table, target: TargetGuess, in_parts: bool) -> Sequence[int]:
    """Return the number of rows that train, choose and test."""
    if not in_parts:  # drawn at random, which takes torch, they are as many
        return data.part_sizes(FRACTIONS, len(rows)).tolist()
    parts = data.split(rows, column="part")
    _check_labels(parts, target)
    return [*map(len, parts)]


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
    role: str, guesses: Sequence[Guess], table: Table, absent: Absent, greys: Greys, alone: bool
) -> str:
    name, kind = _BRANCHES[role]
    columns = [found.column for found in guesses]
    lines = [f"[branch.{name}]"]
    if role == "image" and len(table) < MANY_ROWS and not alone:
        # Few photos beside a table would drown it in numbers.
        lines = [
            "[branch.looks]",
            'kind = "fuse"',
            f"layers = [8]            # few, because there are {len(table)} rows",
            "dropout = 0.5",
            "",
            f"[branch.looks.branch.{name}]",
        ]
    lines += [f'kind = "{kind}"', f"columns = {_list(columns)}"]
    lines += [_comment(f"{_shorten(found.column)}: {found.reason}") for found in guesses]
    if role == "image":
        lines += _image_options(absent, greys)
    if role == "log number":
        lines += ['scale = "log"']
    if role == "number" and len(table) >= MANY_ROWS:
        lines += [
            f"# {len(table)} rows are enough for a curve for each column: a vector between bins",
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
    table: Table, rows: Table, path: str, csv: CsvFormat, target: TargetGuess, in_parts: bool
) -> str:
    with_target = f", {len(rows)} of them with a target" * (len(rows) < len(table))
    lines = [
        _comment(f"{table.name}: {len(table)} rows{with_target}"),
        "[data]",
        f"table = {inline(path)}",
        *_csv(csv),
    ]
    if in_parts:
        return _lines([*lines, 'split = { column = "part" }     # train, valid or test'])
    if "part" in table.columns and target.column != "part":
        lines.append(
            "# the column part is not used: the rows with a target are not train and others"
        )
    options = "seed = 0"
    if target.kind in {"binary", "multiclass"}:
        options = f"seed = 0, stratify = {inline(target.column)}"
        lines.append("# stratified: each class is in train, and has the same share in all parts")
    elif target.kind == "multilabel":
        options = f"seed = {_seed(rows, target.column)}"
    return _lines([*lines, f"split = {{ fractions = {list(FRACTIONS)}, {options} }}"])


def _check_labels(parts: Sequence[Table], target: TargetGuess) -> None:
    """Raise DataError for a class that no training row has."""
    if target.kind == "regression":
        return
    labels = _labels if target.kind == "multilabel" else Table.texts
    train, valid, test = ({*labels(part, target.column)} for part in parts)
    for label in sorted((valid | test) - train)[:1]:
        text = f"'{label:.40}' is in no row of the part train, so it cannot be learned"
        cure = f"leave out its rows{_rows_of(parts[1:], target, label)}, or move some to train"
        raise DataError(f"{parts[0].name}: column '{target.column}': {text}; {cure}")


def _rows_of(parts: Sequence[Table], target: TargetGuess, label: str) -> str:
    if target.kind == "multilabel":
        return ""
    rows = [row for part in parts for row in part.index[part.texts(target.column) == label]]
    listed = ", ".join(map(data.format_row_label, rows[:3]))
    return f" ({listed}{', …' if rows[3:] else ''})"


def _csv(csv: CsvFormat) -> list[str]:
    given = {name: value for name, value in asdict(csv).items() if value != getattr(PLAIN, name)}
    texts = [
        f"{name} = {_list(value) if isinstance(value, tuple) else inline(value)}"
        for name, value in given.items()
    ]
    return [f"format = {{ {', '.join(texts)} }}"] if texts else []


def _seed(table: Table, column: str) -> int:
    """Find a split that has every label in train."""
    labels = seen = _labels(table, column)
    for seed in range(N_SEEDS):
        seen = _labels(data.split(table, FRACTIONS, seed)[0], column)
        if seen == labels:
            return seed
    rare = next(label for label in labels if label not in seen)
    raise DataError(
        f"{table.name}: column '{column}': the label '{rare:.40}' is in too few rows: no split of "
        f"{N_SEEDS} has each label in train; leave rare labels out"
    )


def _labels(table: Table, column: str) -> list[str]:
    try:
        return heads.Multilabel(column).adapt(table)["classes"]
    except DataError:  # none at all
        return []


def _head(table: Table, target: TargetGuess) -> str:
    lines = [
        _comment(target.reason),
        *map(_comment, target.remarks),
        "[head]",
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
