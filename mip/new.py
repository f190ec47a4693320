"""A first spec for a table: what each column seems to be, said in comments."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from attrs import evolve, frozen

from mip.branch import Branch
from mip.branches.boolean import VALUES
from mip.branches.datetime import Datetime
from mip.branches.image import Image
from mip.branches.vector import Vector
from mip.cell import BLANK, is_image, is_list
from mip.errors import DataError, hint, one_line
from mip.heads.multilabel import Multilabel
from mip.read import IMAGES
from mip.spec import KINDS
from mip.split import split
from mip.table import Table

PICTURE = re.compile(rf".+({'|'.join(map(re.escape, IMAGES))})", re.IGNORECASE)
ISO = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?")
DATE = re.compile(r"\d{1,2}[./]\d{1,2}[./]\d{2,4}.*")
IDENTITY = re.compile(r"(^|_)(id|index|row|number|no)$", re.IGNORECASE)
CODE = re.compile(r"zip|post.?code|(^|_)id$|code$", re.IGNORECASE)
VECTOR = re.compile(r"[\[(] *[-+\d.e]+([,; ]+[-+\d.e]+)+ *[\])]", re.IGNORECASE)
LOST = ": none of these files is there"
LOG = ": on a log scale"
FEW = 30
"""A column of words with at most so many different ones is a category, however short the table."""


SENTENCE = 3
"""So many words a cell, on average, are text."""

LONGEST = 10_000
"""So many letters has the longest name that is written."""

WIDEST = 200
"""So many letters has the longest comment."""

SEEDS = 100
"""So many splits are tried for one that has each label in train."""

MANY = 2000
"""So many rows teach a curve for each column of numbers."""


@frozen
class Guess:
    """What a column seems to be, and why."""

    column: str
    role: str
    reason: str


def guess(table: Table, column: str) -> Guess:
    """Guess a column's role: number, log number, category, yes or no, date, free text, vector,
    image, or what is left out. What stands for a missing number ("none", "-", "NA") is a word
    among words.

    >>> from mip.read import from_columns
    >>> rows = from_columns({"town": ["Ulm", "none"], "size": ["1.5", "2.5"], "age": ["none", ""]})
    >>> [guess(rows, name).role for name in rows.columns]
    ['category', 'number', 'constant']
    """
    if not _is_writable(column):
        return Guess(column, "odd name", "a spec cannot hold it: rename the column")
    cells = [cell for cell in table.cells(column) if cell is not None]
    if any(map(is_image, cells)):
        return _guess_images(column, cells)
    if any(map(is_list, cells)):
        return _guess_list(table, column, cells)
    words = [word for word in table.texts(column) if word]
    known = [word for word in words if word.lower() not in BLANK]
    kinds, told = len(set(known)), _counts(known, table)
    if _share(PICTURE, known) > 0.9 and all(isinstance(cell, (str, os.PathLike)) for cell in cells):
        there = any(map(partial(_is_file, table), known))
        return Guess(column, "image" if there else "lost files", f"{told}{'' if there else LOST}")
    if kinds == 2 and all(word.lower() in VALUES for word in known):
        return Guess(column, "yes or no", told)
    if kinds > 1 and _is_number(table, column):
        return _guess_number(table, column, kinds, told)
    if kinds > 1 and _share(ISO, known) == 1 and _fits(Datetime((column,)), table):
        return Guess(column, "date", f"{told}, {min(known):.10} to {max(known):.10}")
    if _share(VECTOR, known) == 1 and _is_vector(table, column, known):
        return Guess(column, "vector", f"{told}, each a list of numbers")
    return _guess_words(column, words, _counts(words, table))


def _counts(words: list[str], table: Table) -> str:
    blank = len(table) - len(words)
    return f"{len(set(words))} different values" + (f", {blank} missing" if blank else "")


def _is_file(table: Table, word: str) -> bool:
    try:
        return (Path(table.root or ".") / word).is_file()
    except OSError:  # a name too long for any file
        return False


def _is_writable(text: str) -> bool:
    # TOML is UTF-8, which has no half of a surrogate pair; a line with too many dots is no spec.
    halves = any("\ud800" <= letter <= "\udfff" for letter in text)
    return not halves and len(text) <= LONGEST and text.count(".") <= LONGEST // 10


def _guess_words(column: str, words: list[str], told: str) -> Guess:
    kinds = len(set(words))
    if kinds < 2:
        return Guess(column, "constant", f"{told}: nothing to learn")
    if _share(DATE, words) > 0.9:
        return Guess(column, "foreign date", f"{told}: dates are read as 2024-12-31")
    long = sum(len(word.split()) for word in words) >= SENTENCE * len(words)
    if kinds <= FEW or (kinds <= len(words) // 3 and not long):
        return Guess(column, "category", told)
    if long:
        return Guess(column, "free text", f"{told}: too many to be categories")
    return Guess(column, "names", f"{told}: too many to be categories, too short to be text")


def _guess_images(column: str, cells: list[Any]) -> Guess:
    if all(is_image(cell) or isinstance(cell, (str, os.PathLike)) for cell in cells):
        return Guess(column, "image", f"{len(cells)} images within the table")
    return Guess(column, "images and others", "some cells are neither images nor paths")


def _guess_list(table: Table, column: str, cells: list[Any]) -> Guess:
    listed = [cell if is_list(cell) else [cell] for cell in cells]
    words = [word for cell in listed for word in cell]
    told = f"lists of {len(words)} in {len(cells)} rows"
    names = [word for word in words if isinstance(word, str)]
    if len(names) == len(words) and _share(PICTURE, names) > 0.9:
        return Guess(column, "image", told)
    numbers = all(isinstance(word, (int, float)) for word in words)
    if words and numbers and all(map(is_list, cells)) and _is_vector(table, column, cells):
        return Guess(column, "vector", f"{told}, {len(listed[0])} numbers each")
    return Guess(column, "list", f"{told}: neither images nor as many numbers in each")


def _share(pattern: re.Pattern[str], words: list[str]) -> float:
    return sum(bool(pattern.fullmatch(word)) for word in words) / max(len(words), 1)


def _is_number(table: Table, column: str) -> bool:
    try:
        return not np.isnan(table.numbers(column)).all()
    except DataError:
        return False


def _is_vector(table: Table, column: str, known: list[Any]) -> bool:
    # The training rows, more than half of all, tell how long it is.
    return len(known) > len(table) / 2 and _fits(Vector((column,)), table)


def _fits(branch: Branch, table: Table) -> bool:
    try:
        branch.encode(branch.adapt(table), table)
    except DataError:
        return False
    return True


def _guess_number(table: Table, column: str, kinds: int, told: str) -> Guess:
    values = table.numbers(column)
    values = values[~np.isnan(values)]
    whole = bool((values == np.round(values)).all())
    counted = whole and kinds == len(table) and values.max() - values.min() == kinds - 1
    if counted or (whole and kinds == len(table) and re.search(IDENTITY, column)):
        return Guess(column, "row name", f"{told}: it names the rows")
    if whole and re.search(CODE, column):
        return Guess(column, "category", f"{told}: a code, not an amount")
    low, high = values.min(), values.max()
    told = f"{told}, {low:g} to {high:g}"
    if low > 0 and high >= 10 * low:
        return Guess(column, "log number", f"{told}{LOG}")
    return Guess(column, "number", told)


def draft(table: Table, target: str, path: str) -> str:
    """Write a commented spec for a table whose file is at `path` as the spec sees it: one that
    `mip check` accepts.

    Raises DataError when there is no column `target`, with the nearest name, when it cannot be
    predicted or no other column can be read, and for a name that no spec can hold.
    """
    if target not in table.columns:
        raise DataError(f"{table.name}: there is no column '{target}'{hint(target, table.columns)}")
    for what, name in (("name of the table's file", path), ("name of the target", target)):
        if not _is_writable(name):
            raise DataError(f"{table.name}: the {what} cannot stand in a spec: rename it")
    found = _guess_target(table, target)
    rows = table.take(np.flatnonzero(KINDS[found.kind](target).known(table)))
    guesses = [_read(guess(rows, name), rows) for name in table.columns if name != target]
    roles = {role: [g for g in guesses if g.role == role] for role in _KINDS}
    few = len(rows) < MANY and any(named for role, named in roles.items() if role != "image")
    blocks = [_branch(role, named, rows, few) for role, named in roles.items()]
    other = [g for g in guesses if g.role not in _KINDS]
    left = [_comment(f"left out: {_named(g)} ({g.role}: {g.reason})") for g in other]
    if not any(blocks):
        raise DataError(f"{table.name}: no column besides '{target}' can be read")
    texts = [
        _data(table, rows, path, found),
        *blocks,
        _lines(left),
        _head(rows, found),
        _train(rows),
    ]
    return "\n".join(filter(None, texts))


def _comment(text: str) -> str:
    shown = one_line(text)
    return f"# {shown if len(shown) <= WIDEST else shown[: WIDEST - 1] + '…'}"


def _named(found: Guess) -> str:
    return found.column if len(found.column) <= WIDEST // 3 else f"{found.column[: WIDEST // 3]}…"


def _lines(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _read(found: Guess, table: Table) -> Guess:
    many = len(table) >= MANY
    if many and found.role == "log number":
        # Bins are cut by rank, so that a logarithm before them changes next to nothing.
        return Guess(found.column, "number", found.reason.removesuffix(LOG))
    if not many and found.role == "free text":
        reason = f"{found.reason}, and {len(table)} rows teach too few words"
        return Guess(found.column, "rare text", reason)
    return found


_KINDS = {
    "number": ("numbers", "continuous"),
    "log number": ("amounts", "continuous"),
    "category": ("categories", "categorical"),
    "yes or no": ("answers", "boolean"),
    "date": ("dates", "datetime"),
    "free text": ("texts", "text"),
    "vector": ("vectors", "vector"),
    "image": ("photos", "image"),
}
_LOOKS = """[branch.looks]
kind = "fuse"
layers = [8]            # few numbers for the photos: {} rows teach no more
dropout = 0.5

"""
FRACTIONS = (0.7, 0.15, 0.15)
"""The rows that train, choose and test."""


def _branch(role: str, guesses: list[Guess], table: Table, few: bool) -> str:
    if not guesses:
        return ""
    name, kind = _KINDS[role]
    # Few photos beside a table would drown it in numbers.
    above = _LOOKS.format(len(table)) if few and role == "image" else ""
    lines = [
        f"{above}[branch.looks.branch.{name}]" if above else f"[branch.{name}]",
        f'kind = "{kind}"',
        f"columns = {_list([g.column for g in guesses])}",
    ]
    lines += [_comment(f"{_named(g)}: {g.reason}") for g in guesses]
    return _lines([*lines, *_options(role, guesses, table)])


def _options(role: str, guesses: list[Guess], table: Table) -> list[str]:
    if role == "image":
        return _image(guesses, table)
    if role == "log number":
        return ['scale = "log"']
    if role == "number" and len(table) >= MANY:
        note = f"# {len(table)} rows teach a curve for each column: a vector between bins"
        return [note, 'embedding = "piecewise"', "bins = 128", "width = 8"]
    return []


def _image(guesses: list[Guess], table: Table) -> list[str]:
    # The policy "learn" is the one under which problems are looked up and nothing is decoded.
    branch = Image(tuple(g.column for g in guesses), missing="learn")
    absent = [f"row {table.rows[each.place]}: {each.reason}" for each in branch.problems(table)]
    lines = ["size = 64", 'backbone = "small"      # or a torchvision model such as "resnet18"']
    if absent:
        lines += [f"# {len(absent)} of {len(table) * len(guesses)} photos are not there"]
        lines += [_comment(f"(the first: {absent[0]:.99}); a learned vector stands for them")]
    lines += [f'missing = "{"learn" if absent else "error"}"', "augmentation = { shift = 0.05 }"]
    return lines


@frozen
class TargetGuess:
    """The kind of head that suits a target, why, and its options beside the column, in TOML."""

    column: str
    kind: str
    reason: str
    options: tuple[str, ...] = ()


def _guess_target(table: Table, column: str) -> TargetGuess:
    if any(map(is_list, table.cells(column))):
        Multilabel(column).adapt(table)
        return TargetGuess(column, "multilabel", "lists: any of several labels")
    words = [word for word in table.texts(column) if word]
    known = [word for word in words if word.lower() not in BLANK]
    number = len(set(known)) > 1 and _is_number(table, column)
    if number and len(known) < len(words):
        found = _regression(table, column, known)
        return evolve(found, reason=f"{found.reason} (for classes leave the missing cells empty)")
    kinds = len(set(words))
    if kinds < 2:
        raise DataError(f"{table.name}: column '{column}' has {kinds} value, nothing to predict")
    if kinds > max(FEW, len(words) // 2) and not number:
        told = f"{kinds} different words in {len(words)} rows are too many to be classes"
        raise DataError(f"{table.name}: column '{column}': {told}")
    if kinds == 2:
        both = ", ".join(f"{word:.40}" for word in sorted(set(words)))
        return TargetGuess(column, "binary", f"two values: {both}")
    if not number or (kinds <= 10 and kinds < len(words) / 10):
        return TargetGuess(column, "multiclass", f"{kinds} classes")
    return _regression(table, column, known)


def _regression(table: Table, column: str, known: list[str]) -> TargetGuess:
    found = _guess_number(table, column, len(set(known)), _counts(known, table))
    scale = "log" if found.role == "log number" else "standard"
    return TargetGuess(column, "regression", found.reason, (f'scale = "{scale}"', 'loss = "mae"'))


def _data(table: Table, rows: Table, path: str, found: TargetGuess) -> str:
    used = f", {len(rows)} of them with a target" * (len(rows) < len(table))
    how, why = "seed = 0", []
    if found.kind in {"binary", "multiclass"}:
        how += f", stratify = {_quoted(found.column)}"
        why = ["# stratified: each class is in train, and in the other parts by its share"]
    elif found.kind == "multilabel":
        how = f"seed = {_seed(rows, found.column)}"
    first = _comment(f"{table.name}: {len(table)} rows{used}")
    parts = f"split = {{ fractions = {list(FRACTIONS)}, {how} }}"
    return _lines([first, "[data]", f"table = {_quoted(path)}", *why, parts])


def _seed(rows: Table, column: str) -> int:
    """Find a split that has every label in train."""
    head = Multilabel(column)
    labels = head.adapt(rows)["classes"]
    for seed in range(SEEDS):
        train = split(rows, FRACTIONS, seed)[0]
        seen = _labels(train, column)
        if seen == labels:
            return seed
    gone = next(label for label in labels if label not in seen)
    told = f"the label '{gone:.40}' is in too few rows: no split of {SEEDS} has each label in train"
    raise DataError(f"{rows.name}: column '{column}': {told}; leave rare labels out")


def _labels(rows: Table, column: str) -> list[str]:
    try:
        return Multilabel(column).adapt(rows)["classes"]
    except DataError:  # none at all
        return []


def _head(table: Table, found: TargetGuess) -> str:
    few = [f"dropout = 0.1           # {len(table)} rows could be learned by heart"]
    return _lines(
        [
            _comment(found.reason),
            "[head]",
            f'kind = "{found.kind}"',
            f"column = {_quoted(found.column)}",
            *found.options,
            "layers = [128, 128]     # between what is read and what is predicted",
            "members = 8             # networks that share most weights, and predict their mean",
            *few * (len(table) < MANY),
        ]
    )


def _train(table: Table) -> str:
    rows, batch = len(table), 32
    epochs, keep = 40, "last"
    why = f"of the last epoch is kept: {rows} rows are too few to choose by"
    if rows >= MANY:
        batch = 128 if rows < 50_000 else 256
        epochs, keep = int(np.clip(1_200_000 / rows, 5, 60)), "best"
        why = "of the epoch with the best valid loss is kept"
    return f"""# {epochs} epochs of {-(-int(rows * 0.7) // batch)} steps; the model {why}
[train]
epochs = {epochs}
batch = {batch}
keep = "{keep}"
optimizer = {{ kind = "adamw", lr = 3e-3 }}     # the learning rate at the schedule's peak
schedule = {{ kind = "one_cycle" }}
"""


def _list(names: list[str]) -> str:
    quoted = [_quoted(name) for name in names]
    line = f"[{', '.join(quoted)}]"
    return line if len(line) <= WIDEST // 2 else "[\n    " + ",\n    ".join(quoted) + ",\n]"


def _quoted(text: str) -> str:
    return tomli_w.dumps({"x": text}).strip().removeprefix("x = ")
