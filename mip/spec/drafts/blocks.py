"""The blocks of a spec as TOML, with the reasons as comments."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from attrs import asdict, fields

from mip.data import PLAIN, ColumnFormat, CsvFormat, Table
from mip.errors import one_line
from mip.spec.drafts.formats.columns import FormatGuess
from mip.spec.drafts.photos.absent import Absent
from mip.spec.drafts.photos.greys import Greys
from mip.spec.drafts.roles import Guess
from mip.spec.drafts.targets.kinds import TargetGuess
from mip.spec.toml_text import inline, key

WIDTH = 200
"""The length of the longest comment."""


MANY_ROWS = 2000
"""Rows enough to learn a curve for each column of numbers, and to choose an epoch by."""


LARGE_TABLE = 10_000
"""Rows of a table that is trained in large steps."""


# The name of the branch that reads the columns of a role, and its kind.
BRANCHES = {
    "number": ("numbers", "continuous"),
    "log number": ("amounts", "continuous"),
    "category": ("categories", "categorical"),
    "yes or no": ("answers", "boolean"),
    "date": ("dates", "datetime"),
    "free text": ("texts", "text"),
    "vector": ("vectors", "vector"),
    "image": ("photos", "image"),
}


def data_block(
    table: Table,
    rows: Table,
    path: str,
    csv: CsvFormat,
    targets: Sequence[str],
    split: Mapping[str, Any],
) -> str:
    """Write `[data]`: the file, how it is written, and the split."""
    with_target = f", {len(rows)} of them with a target" * (len(rows) < len(table))
    lines = [
        comment(f"{table.name}: {len(table)} rows{with_target}"),
        "[data]",
        f"table = {inline(path)}",
        *_csv(csv),
    ]
    if "column" in split:
        return join_lines([*lines, f"split = {inline(split)}     # train, valid or test"])
    if "part" in table.columns and "part" not in targets:
        lines.append(
            "# the column part is not used: the rows with a target are not train and others"
        )
    if "stratify" in split:
        lines.append("# stratified: each class is in train, and has the same share in all parts")
    if "group" in split:
        lines.append(
            "# grouped: rows with the same value stay in one part, so that scores are of new ones"
        )
    return join_lines([*lines, f"split = {inline(split)}"])


def _csv(csv: CsvFormat) -> list[str]:
    given = {name: value for name, value in asdict(csv).items() if value != getattr(PLAIN, name)}
    texts = [
        f"{name} = {_list(value) if isinstance(value, tuple) else inline(value)}"
        for name, value in given.items()
    ]
    return [f"format = {{ {', '.join(texts)} }}"] if texts else []


def format_blocks(formats: Mapping[str, FormatGuess]) -> list[str]:
    """Write a table `[data.columns.NAME]` for each column that is not plain."""
    return [_block(found) for found in formats.values() if not found.is_plain]


def _block(found: FormatGuess) -> str:
    plain = ColumnFormat()
    names = [field.name for field in fields(ColumnFormat)]
    changed = [name for name in names if getattr(found.form, name) != getattr(plain, name)]
    notes = [f"# {one_line(note)}" for note in found.notes]
    values = [f"{name} = {inline(getattr(found.form, name))}" for name in changed]
    if found.proposed:
        values.append(f"# na_values = {inline((*found.form.na_values, *found.proposed))}")
    if found.proposed_merge:
        values.append(f"# merge = {inline(found.proposed_merge)}")
    return "\n".join([*notes, f"[data.columns.{key(found.column)}]", *values, ""])


def branch_block(
    role: str, guesses: Sequence[Guess], n_rows: int, photo_options: Sequence[str], alone: bool
) -> str:
    """Write the branch that reads the columns of a role."""
    name, kind = BRANCHES[role]
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
    lines += [comment(f"{shorten(found.column)}: {found.reason}") for found in guesses]
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
    return join_lines(lines)


def image_options(absent: Absent, greys: Greys) -> list[str]:
    """Write the options of a branch of photos."""
    return [
        "size = 64",
        'backbone = "small"      # or a torchvision model such as "resnet18"',
        *([comment(greys.seen), f"value_range = {greys.value_range}"] if greys.seen else []),
        *map(comment, filter(None, [absent.summary, absent.first])),
        f'missing = "{absent.policy}"',
        "augmentation = { shift = 0.05 }",
    ]


def is_large_table(n_rows: int, roles: Collection[str]) -> bool:
    """Whether there are many rows of nothing but columns: no photos, and no texts.

    Such a table is trained by fewer members in fewer and larger steps at a higher rate: on two data
    sets that was as good in a quarter of the time. With photos and texts nobody has tried it.
    """
    return n_rows >= LARGE_TABLE and not {"image", "free text"} & set(roles)


def head_blocks(table: Table, targets: Sequence[TargetGuess], is_large: bool) -> list[str]:
    """Write the head of a target, or a joint one of several."""
    if len(targets) == 1:
        return [_head_block("head", table, targets[0], is_large)]
    names = _head_names([target.column for target in targets])
    joint = [
        comment(f"{len(targets)} targets: the loss is the sum of theirs, with these weights"),
        "[head]",
        'kind = "joint"',
        f"loss_weights = {inline(dict.fromkeys(names, 1))}",
    ]
    parts = zip(names, targets, strict=True)
    return [
        join_lines(joint),
        *(_head_block(f"head.head.{key(name)}", table, part, is_large) for name, part in parts),
    ]


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


def _head_block(path: str, table: Table, target: TargetGuess, is_large: bool) -> str:
    lines = [
        comment(target.reason),
        *map(comment, target.remarks),
        f"[{path}]",
        f'kind = "{target.kind}"',
        f"column = {inline(target.column)}",
        *target.options,
        "layers = [128, 128]     # between the branches and the prediction",
        f"members = {4 if is_large else 8}             # networks that share most weights, and "
        "predict their mean",
    ]
    if len(table) < MANY_ROWS:
        lines.append(f"dropout = 0.1           # {len(table)} rows could be learned by heart")
    return join_lines(lines)


def train_block(part_sizes: Sequence[int], targets: Sequence[TargetGuess], is_large: bool) -> str:
    """Write `[train]`, for the number of rows that train, choose and test."""
    n_train, n_valid, _ = part_sizes
    n_rows = sum(part_sizes)
    batch_size, epochs = 32, 40
    options = "lr = 3e-3"
    if is_large and all(target.kind != "regression" for target in targets):
        # Classes are overfitted earlier than numbers, and sooner at a high rate.
        batch_size, epochs = 256, int(np.clip(500_000 / n_rows, 5, 60))
        options = "lr = 4e-3"
    elif is_large:
        # The errors of numbers go on falling, and Adam's average of squares has to follow them.
        batch_size, epochs = 256, int(np.clip(700_000 / n_rows, 5, 60))
        options = "lr = 1e-2, betas = [0.9, 0.99]"
    elif n_rows >= MANY_ROWS:
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
optimizer = {{ kind = "adamw", {options} }}     # the highest learning rate of the schedule
schedule = {{ kind = "one_cycle" }}
"""


def comment(text: str) -> str:
    """Write a comment, on one line."""
    line = one_line(text)
    return f"# {line if len(line) <= WIDTH else line[: WIDTH - 1] + '…'}"


def shorten(column: str) -> str:
    """Cut the name of a column that would fill a comment."""
    column = column or "''"
    return column if len(column) <= WIDTH // 3 else f"{column[: WIDTH // 3]}…"


def join_lines(lines: Sequence[str]) -> str:
    """End each line, and join them."""
    return "".join(f"{line}\n" for line in lines)


def _list(names: Sequence[str]) -> str:
    quoted = [inline(name) for name in names]
    line = f"[{', '.join(quoted)}]"
    return line if len(line) <= WIDTH // 2 else "[\n    " + ",\n    ".join(quoted) + ",\n]"
