"""A first spec for a table: what each column seems to be, said in comments."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from attrs import frozen

from mip.branches.boolean import VALUES
from mip.branches.image import Image
from mip.errors import DataError, hint
from mip.read import IMAGES
from mip.table import BLANK, Table, is_image, is_list

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
    image, or what is left out.

    >>> import pandas as pd; from mip.table import from_frame
    >>> rows = from_frame(pd.DataFrame({"town": ["Ulm", "Bonn"], "size": [1.5, 2.5]}))
    >>> guess(rows, "town").role, guess(rows, "size").role
    ('category', 'number')
    """
    cells = [cell for cell in table.cells(column) if cell is not None]
    if any(map(is_image, cells)):
        return Guess(column, "image", f"{len(cells)} images within the table")
    if any(map(is_list, cells)):
        return _guess_list(column, cells)
    words = [word for word in table.texts(column) if word.lower() not in BLANK]
    kinds, blank = len(set(words)), len(table) - len(words)
    told = f"{kinds} different values" + (f", {blank} missing" if blank else "")
    if kinds < 2:
        return Guess(column, "constant", f"{told}: nothing to learn")
    if _share(PICTURE, words) > 0.9:
        there = any((Path(table.root or ".") / word).is_file() for word in words)
        return Guess(column, "image" if there else "lost files", f"{told}{'' if there else LOST}")
    if kinds == 2 and all(word.lower() in VALUES for word in words):
        return Guess(column, "yes or no", told)
    if _is_number(table, column):
        return _guess_number(table, column, kinds, told)
    return _guess_words(column, words, kinds, told)


def _guess_words(column: str, words: list[str], kinds: int, told: str) -> Guess:
    if _share(ISO, words) == 1:
        return Guess(column, "date", f"{told}, {min(words):.10} to {max(words):.10}")
    if _share(DATE, words) > 0.9:
        return Guess(column, "foreign date", f"{told}: dates are read as 2024-12-31")
    if all(map(VECTOR.fullmatch, words)):
        return Guess(column, "vector", f"{told}, each a list of numbers")
    long = sum(len(word.split()) for word in words) >= SENTENCE * len(words)
    if kinds <= FEW or (kinds <= len(words) // 3 and not long):
        return Guess(column, "category", told)
    if long:
        return Guess(column, "free text", f"{told}: too many to be categories")
    return Guess(column, "names", f"{told}: too many to be categories, too short to be text")


def _guess_list(column: str, cells: list[Any]) -> Guess:
    words = [str(word) for cell in cells for word in (cell if is_list(cell) else [cell])]
    told = f"lists of {len(words)} in {len(cells)} rows"
    if words and _share(PICTURE, words) > 0.9:
        return Guess(column, "image", told)
    lengths = {len(cell) if is_list(cell) else 0 for cell in cells}
    numbers = all(isinstance(x, (int, float)) for cell in cells for x in cell)
    if len(lengths) == 1 and words and numbers:
        return Guess(column, "vector", f"{told}, {lengths.pop()} numbers each")
    return Guess(column, "list", f"{told}: neither images nor as many numbers in each")


def _share(pattern: re.Pattern[str], words: list[str]) -> float:
    return sum(bool(pattern.fullmatch(word)) for word in words) / len(words)


def _is_number(table: Table, column: str) -> bool:
    try:
        table.numbers(column)
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
    if low > 0 and high / low >= 10:
        return Guess(column, "log number", f"{told}{LOG}")
    return Guess(column, "number", told)


def draft(table: Table, target: str, path: str) -> str:
    """Write a commented spec for a table whose file is at `path` as the spec sees it.

    Raises DataError when there is no column `target`, with the nearest name.
    """
    if target not in table.columns:
        raise DataError(f"{table.name}: there is no column '{target}'{hint(target, table.columns)}")
    guesses = [_read(guess(table, name), table) for name in table.columns if name != target]
    roles = {role: [g for g in guesses if g.role == role] for role in _KINDS}
    few = len(table) < MANY and any(named for role, named in roles.items() if role != "image")
    blocks = [_branch(role, named, table, few) for role, named in roles.items()]
    other = [g for g in guesses if g.role not in _KINDS]
    left = [f"# left out: {g.column} ({g.role}: {g.reason})\n" for g in other]
    if not any(blocks):
        raise DataError(f"{table.name}: no column besides '{target}' can be read")
    data = f"# {table.name}: {len(table)} rows\n[data]\n{tomli_w.dumps({'table': path})}{_SPLIT}"
    texts = [data, *blocks, "".join(left), _head(table, target), _train(table)]
    return "\n".join(filter(None, texts))


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
_SPLIT = "split = { fractions = [0.7, 0.15, 0.15], seed = 0 }\n"


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
    lines += [f"# {g.column}: {g.reason}" for g in guesses]
    return "\n".join([*lines, *_options(role, guesses, table)]) + "\n"


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
        lines += [f"# (the first: {absent[0]}); a learned vector stands for them"]
    lines += [f'missing = "{"learn" if absent else "error"}"', "augmentation = { shift = 0.05 }"]
    return lines


def _head(table: Table, target: str) -> str:
    column = tomli_w.dumps({"column": target}).strip()
    if any(map(is_list, table.cells(target))):
        return _block(table, "lists: any of several labels", "multilabel", column)
    words = [word for word in table.texts(target) if word.lower() not in BLANK]
    kinds, number = len(set(words)), _is_number(table, target)
    if kinds < 2:
        raise DataError(f"{table.name}: column '{target}' has {kinds} value, nothing to predict")
    if kinds > max(FEW, len(words) // 2) and not number:
        told = f"{kinds} different words in {len(words)} rows are too many to be classes"
        raise DataError(f"{table.name}: column '{target}': {told}")
    if kinds == 2:
        return _block(table, f"two values: {', '.join(sorted(set(words)))}", "binary", column)
    if not number or (kinds <= 10 and kinds < len(words) / 10):
        return _block(table, f"{kinds} classes", "multiclass", column)
    role = _guess_number(table, target, kinds, f"{kinds} different values")
    scale = "log" if role.role == "log number" else "standard"
    return _block(table, role.reason, "regression", f'{column}\nscale = "{scale}"\nloss = "mae"')


def _block(table: Table, reason: str, kind: str, lines: str) -> str:
    dropout = f"dropout = 0.1           # {len(table)} rows could be learned by heart\n"
    return f'''# {reason}
[head]
kind = "{kind}"
{lines}
layers = [128, 128]     # between what is read and what is predicted
members = 8             # networks that share most weights, and predict their mean
{dropout * (len(table) < MANY)}'''


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
    quoted = [tomli_w.dumps({"name": name}).strip().removeprefix("name = ") for name in names]
    return f"[{', '.join(quoted)}]"
