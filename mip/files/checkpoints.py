"""Checkpoints: a state and its history, to resume a fit from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor

from mip.compare import differences
from mip.errors import FileError
from mip.files.format import read_file, write_packed
from mip.files.models import part_of
from mip.model import Plan, to_json
from mip.train import History, State, match_strides
from mip.tree import leaves, unflatten_as


@frozen
class Checkpoint:
    """What a run can go on from: state, history, and what was noted beside them."""

    state: State
    history: History
    extra: Mapping[str, Any]


def save_checkpoint(
    path: str | Path,
    state: State,
    history: History,
    plan: Plan | None = None,
    extra: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a checkpoint: a model file with the optimizer's tensors and the history beside.
    Raises FileError as `save` does.
    """
    trees = {name: getattr(state, name) for name in ("params", "buffers", "optimizer")}
    meta = {"step": state.step, "seed": state.seed, "extra": dict(extra or {})}
    meta["history"] = [_finite(row) for row in history.epochs]
    if plan is not None:
        meta["plan"] = to_json(plan)
    tensors = dict(leaves({**trees, "steps": dict(history.steps)}))
    write_packed(path, tensors, meta, overwrite=overwrite)


def _finite(row: Mapping[str, Any]) -> list[tuple[str, Any]]:
    # JSON has no NaN: such a number travels as its name. Pairs keep their order, keys do not.
    return [(k, v if v == v and abs(v) != float("inf") else str(v)) for k, v in row.items()]


def load_checkpoint(path: str | Path, start: State) -> Checkpoint:
    """Read a checkpoint into a state shaped like `start`, that of the run's first step.

    Raises FileError when the file is damaged or belongs to another model or optimizer.
    """
    tensors, meta = read_file(path)
    if "history" not in meta:
        raise FileError(f"{path}: the file holds a model and no checkpoint")
    trees = {name: getattr(start, name) for name in ("params", "buffers", "optimizer")}
    named = dict(leaves(trees))
    in_file = {name: tensor for name, tensor in tensors.items() if not name.startswith("steps/")}
    for name, shape, expected in differences(_shapes(in_file), _shapes(named)):
        text = f"'{name}' is {shape} in the file and {expected} in the run"
        raise FileError(f"{path}: the checkpoint belongs to another model or optimizer: {text}")
    placed = {name: tensors[name].to(leaf.device) for name, leaf in named.items()}
    # A file does not say how tensors lay in memory, and that decides the last bits of what follows.
    state = evolve(
        start,
        **unflatten_as(trees, match_strides(placed, named)),
        step=meta["step"],
        seed=meta["seed"],
    )
    history = History(tuple(map(_row, meta["history"])), _numbered(tensors, state.step))
    return Checkpoint(state, history, meta["extra"])


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def list_checkpoints(folder: str | Path) -> list[Path]:
    """List the files of a folder that have the name of a checkpoint."""
    names = ("last.safetensors", "best.safetensors", "epoch-*.safetensors")
    return [path for name in names for path in sorted(Path(folder).glob(name))]


def sound(folder: str | Path) -> list[tuple[int, Path]]:
    """List the checkpoints of a folder that are whole, each behind its count of steps, in order.

    Each is read, for its checksum; a file that is damaged, or no checkpoint, is left out.
    """
    found = []
    for path in Path(folder).glob("*.safetensors"):
        with suppress(FileError):
            meta = read_file(path)[1]
            found += [(int(meta["step"]), path)] if "history" in meta else []
    return sorted(found)


def _numbered(tensors: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
    steps = part_of(tensors, "steps")
    if steps and "step" not in steps:  # as earlier files have it: those of the epoch begun alone
        count = len(next(iter(steps.values())))
        steps["step"] = torch.arange(step - count + 1, step + 1)
    return steps


def _row(row: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {name: float(value) if isinstance(value, str) else value for name, value in row}
