"""A first spec for a table, with the reasons as comments."""

from __future__ import annotations

import numpy as np
import tomli_w

from mip import branches, data, heads
from mip.data import Table
from mip.errors import DataError, hint, one_line
from mip.spec.inference import LOG, Guess, TargetGuess, guess, guess_target, is_writable

WIDEST = 200
"""So many letters has the longest comment."""


SEEDS = 100
"""So many splits are tried for one that has each label in train."""


MANY = 2000
"""So many rows teach a curve for each column of numbers."""


def draft(table: Table, target: str, path: str) -> str:
    """Write a commented spec for a table whose file is at `path` as the spec sees it: one that
    `mip check` accepts.

    Raises DataError when there is no column `target`, with the nearest name, when it cannot be
    predicted or no other column can be read, and for a name that no spec can hold.
    """
    if target not in table.columns:
        raise DataError(f"{table.name}: there is no column '{target}'{hint(target, table.columns)}")
    for what, name in (("name of the table's file", path), ("name of the target", target)):
        if not is_writable(name):
            raise DataError(f"{table.name}: the {what} cannot stand in a spec: rename it")
    found = guess_target(table, target)
    rows = table.take(np.flatnonzero(_has_target(table, found)))
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


def _has_target(table: Table, found: TargetGuess) -> np.ndarray:
    if found.kind == "regression":
        return ~np.isnan(table.numbers(found.column))
    return table.texts(found.column) != ""


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
        return [note, 'embedding = "piecewise"', "bins = 128", "embedding_dim = 8"]
    return []


def _image(guesses: list[Guess], table: Table) -> list[str]:
    # The policy "learn" is the one under which problems are looked up and nothing is decoded.
    branch = branches.Image(tuple(g.column for g in guesses), missing="learn")
    absent = [f"row {table.row_ids[each.row]}: {each.reason}" for each in branch.problems(table)]
    lines = ["size = 64", 'backbone = "small"      # or a torchvision model such as "resnet18"']
    if absent:
        lines += [f"# {len(absent)} of {len(table) * len(guesses)} photos are not there"]
        lines += [_comment(f"(the first: {absent[0]:.99}); a learned vector stands for them")]
    lines += [f'missing = "{"learn" if absent else "error"}"', "augmentation = { shift = 0.05 }"]
    return lines


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
    head = heads.Multilabel(column)
    labels = head.adapt(rows)["classes"]
    for seed in range(SEEDS):
        train = data.split(rows, FRACTIONS, seed)[0]
        seen = _labels(train, column)
        if seen == labels:
            return seed
    gone = next(label for label in labels if label not in seen)
    told = f"the label '{gone:.40}' is in too few rows: no split of {SEEDS} has each label in train"
    raise DataError(f"{rows.name}: column '{column}': {told}; leave rare labels out")


def _labels(rows: Table, column: str) -> list[str]:
    try:
        return heads.Multilabel(column).adapt(rows)["classes"]
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
    epochs, keep = 40, "false"
    why = f"of the last epoch is kept: {rows} rows are too few to choose by"
    if rows >= MANY:
        batch = 128 if rows < 50_000 else 256
        epochs, keep = int(np.clip(1_200_000 / rows, 5, 60)), "true"
        why = "of the epoch with the best valid loss is kept"
    return f"""# {epochs} epochs of {-(-int(rows * 0.7) // batch)} steps; the model {why}
[train]
epochs = {epochs}
batch_size = {batch}
restore_best = {keep}
optimizer = {{ kind = "adamw", lr = 3e-3 }}     # the learning rate at the schedule's peak
schedule = {{ kind = "one_cycle" }}
"""


def _list(names: list[str]) -> str:
    quoted = [_quoted(name) for name in names]
    line = f"[{', '.join(quoted)}]"
    return line if len(line) <= WIDEST // 2 else "[\n    " + ",\n    ".join(quoted) + ",\n]"


def _quoted(text: str) -> str:
    return tomli_w.dumps({"x": text}).strip().removeprefix("x = ")
