"""Checkpoints: a state and its history, from which a fit can be resumed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, frozen

from mip.compare import differences
from mip.errors import FileError
from mip.files.format import Tensors, read_file, write_packed
from mip.files.models import subtree
from mip.model import Plan, plan_to_dict
from mip.train import History, State, check_state, match_strides
from mip.tree import leaves, unflatten_as

_PARTS = ("params", "buffers", "optimizer")


@frozen
class Checkpoint:
    """What a run can be resumed from: state, history, and notes about the run (`extra`)."""

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
    """Write a checkpoint: a model file that also holds the optimizer's tensors and the history.
    Raises FileError as `save` does.
    """
    trees = {name: getattr(state, name) for name in _PARTS}
    meta: dict[str, Any] = {"step": state.step, "seed": state.seed, "extra": dict(extra or {})}
    meta["history"] = [_to_pairs(row) for row in history.epochs]
    if plan is not None:
        meta["plan"] = plan_to_dict(plan)
    tensors = dict(leaves({**trees, "steps": dict(history.steps)}))
    write_packed(path, tensors, meta, overwrite=overwrite)


def _to_pairs(row: Mapping[str, Any]) -> list[tuple[str, Any]]:
    # Pairs, because JSON's keys are sorted; and NaN and infinity, which JSON lacks, as text.
    return [(k, v if v == v and abs(v) != float("inf") else str(v)) for k, v in row.items()]


def load_checkpoint(path: str | Path, start: State) -> Checkpoint:
    """Read a checkpoint into a state with the structure of `start`, the state of the run's first
    step.

    Raises FileError when the file is damaged or belongs to another model or optimizer, and MipError
    for a `start` that is no state.
    """
    check_state(start)
    tensors, meta = read_file(path)
    if "history" not in meta:
        raise FileError(f"{path}: the file holds a model and no checkpoint")
    trees = {name: getattr(start, name) for name in _PARTS}
    expected = dict(leaves(trees))
    stored = {name: tensor for name, tensor in tensors.items() if not name.startswith("steps/")}
    for name, shape, wanted in differences(_shapes(stored), _shapes(expected)):
        text = f"'{name}' is {shape} in the file and {wanted} in the run"
        raise FileError(f"{path}: the checkpoint belongs to another model or optimizer: {text}")
    placed = {name: tensors[name].to(leaf.device) for name, leaf in expected.items()}
    # A file does not store strides, which decide the last bits of what is computed.
    trees = unflatten_as(trees, match_strides(placed, expected))
    state = evolve(start, **trees, step=meta["step"], seed=meta["seed"])
    epochs = tuple(
        {name: float(value) if isinstance(value, str) else value for name, value in row}
        for row in meta["history"]
    )
    steps = subtree(tensors, "steps")
    if steps and "step" not in steps:  # earlier versions stored only those of the current epoch
        count = len(next(iter(steps.values())))
        steps["step"] = torch.arange(state.step - count + 1, state.step + 1)
    return Checkpoint(state, History(epochs, steps), meta["extra"])


def _shapes(tensors: Tensors) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def list_checkpoints(folder: str | Path) -> list[Path]:
    """List the files of a folder that have the name of a checkpoint."""
    patterns = ("last.safetensors", "best.safetensors", "epoch-*.safetensors")
    return [path for pattern in patterns for path in sorted(Path(folder).glob(pattern))]


def intact_checkpoints(folder: str | Path) -> list[tuple[int, Path]]:
    """List the checkpoints of a folder that are not damaged, as pairs of step and path, by step.

    Each is read whole, to verify its checksum.
    """
    intact = []
    for path in Path(folder).glob("*.safetensors"):
        with suppress(FileError):
            meta = read_file(path)[1]
            if "history" in meta:
                intact.append((int(meta["step"]), path))
    return sorted(intact)
