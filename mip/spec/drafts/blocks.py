"""The blocks of a spec as TOML, with the reasons as comments."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import asdict, fields

from mip.data import PLAIN, ColumnFormat, CsvFormat, Table
from mip.errors import one_line
from mip.spec.drafts.formats.columns import FormatGuess
from mip.spec.drafts.photos.absent import Absent
from mip.spec.drafts.photos.greys import Greys
from mip.spec.drafts.roles import Guess
from mip.spec.drafts.targets.kinds import TargetGuess
from mip.spec.drafts.training import MANY_ROWS, Training
from mip.spec.toml_text import inline, key

if TYPE_CHECKING:  # which takes torch
    from mip.spec.drafts.photos.nets import PretrainedNet

WIDTH = 200
"""The length of the longest comment."""


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


def branch_block(role: str, guesses: Sequence[Guess], n_rows: int) -> str:
    """Write the branch that reads the columns of a role other than photos."""
    name, kind = BRANCHES[role]
    lines = [f"[branch.{name}]", *_columns(kind, guesses)]
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


def _columns(kind: str, guesses: Sequence[Guess]) -> list[str]:
    columns = _list([found.column for found in guesses])
    reasons = [comment(f"{shorten(found.column)}: {found.reason}") for found in guesses]
    return [f'kind = "{kind}"', f"columns = {columns}", *reasons]


def photo_blocks(
    guesses: Sequence[Guess],
    n_rows: int,
    absent: Absent,
    greys: Greys,
    net: PretrainedNet | None,
    alone: bool,
) -> list[str]:
    """Write the branch of photos, which are all that rows have if they are `alone`, and what it
    needs of the fusion; `net` reads them, or a small one that is trained with the rest.
    """
    common = [
        *_columns("image", guesses),
        *([comment(greys.seen), f"value_range = {greys.value_range}"] if greys.seen else []),
        *map(comment, filter(None, [absent.summary, absent.first])),
        f'missing = "{absent.policy}"',
    ]
    few = n_rows < MANY_ROWS
    if net is not None:
        fusion = join_lines(_RESIDUAL) if few and not alone else ""
        lines = ["[branch.photos]", *common, *_pretrained_lines(net)]
        if (alone or few) and net.has_levels():
            lines += ["# textures and edges, too: the maps at four depths, not the last alone"]
            lines += ['feature_layer = "levels"']
        if alone or not few:
            lines += ['feature_norm = "batch"  # features have very different size']
        if not few:
            lines += ["# some thousand photos can fine-tune it: docs/photos.md"]
        if not few and not alone:
            lines += ["layers = [64]           # its many features, as few beside the table"]
        return [*filter(None, [fusion]), join_lines(lines)]
    inside = [] if alone or not few else _FEW_NUMBERS
    path = "branch.looks.branch.photos" if inside else "branch.photos"
    # Few photos beside a table would drown it in numbers.
    lines = [*(line.format(n_rows) for line in inside), f"[{path}]", *common, *_SMALL]
    return [join_lines(lines)]


_RESIDUAL = (
    "# The table is trained alone; then photos add what they explain of what it leaves over, next",
    "# to nothing if that does not help on held-out rows. A fit trains residual_folds + 1 times.",
    "[fusion]",
    'residual = ["photos"]',
    "residual_folds = 5",
)

_FEW_NUMBERS = (
    "[branch.looks]",
    'kind = "fuse"',
    "layers = [8]            # few, because there are {} rows",
    "dropout = 0.5",
    "",
)

_SMALL = (
    "size = 64",
    "# trained from scratch; mip new --pretrained writes a net that knows photos (docs/photos.md)",
    'backbone = "small"',
    "augmentation = { shift = 0.05 }",
)


def _pretrained_lines(net: PretrainedNet) -> list[str]:
    lines = [
        comment(net.why),
        f"backbone = {inline(net.backbone)}",
        f"pretrained = {inline(net.pretrained)}",
        f"size = {net.size}              # pixels a side, as it was trained",
        'freeze = "all"          # so that the features of a photo are computed once',
    ]
    if net.mean:
        lines += [
            "# of its pixels from 0 to 1, as its library says; other weights may need others",
            f"mean = {inline(net.mean)}",
            f"std = {inline(net.std)}",
        ]
    return lines


def head_blocks(targets: Sequence[TargetGuess], training: Training) -> list[str]:
    """Write the head of a target, or a joint one of several."""
    if len(targets) == 1:
        return [_head_block("head", targets[0], training)]
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
        *(_head_block(f"head.head.{key(name)}", part, training) for name, part in parts),
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


def _head_block(path: str, target: TargetGuess, training: Training) -> str:
    members = f"members = {training.members}"
    lines = [
        comment(target.reason),
        *map(comment, target.remarks),
        f"[{path}]",
        f'kind = "{target.kind}"',
        f"column = {inline(target.column)}",
        *target.options,
        f"layers = {[*training.layers]}     # between the branches and the prediction",
        f"{members:<23} # networks that share most weights, and predict their mean",
    ]
    if training.dropout:
        lines.append(f"{f'dropout = {training.dropout:g}':<23} # {training.reason}")
    return join_lines(lines)


def train_block(part_sizes: Sequence[int], training: Training) -> str:
    """Write `[train]`, for the number of rows that train, choose and test."""
    (n_train, n_valid, _), n_rows = part_sizes, sum(part_sizes)
    model, restore_best = "is that of the epoch with the best valid loss", "true"
    if n_rows < MANY_ROWS or not n_valid:
        few = f"{n_rows} rows are too few" if n_valid else "there are no valid rows"
        model, restore_best = f"is that of the last epoch: {few} to choose by", "false"
    n_steps = -(-n_train // training.batch_size)
    optimizer = f'{{ kind = "adamw", {training.optimizer} }}'
    return f"""# {training.epochs} epochs of {n_steps} steps; the model {model}
[train]
epochs = {training.epochs}
batch_size = {training.batch_size}
restore_best = {restore_best}
optimizer = {optimizer}     # the highest learning rate of the schedule
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
